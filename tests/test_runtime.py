"""What holds a thread of greenlets, and what blocks an event loop: found by name."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import greenlet
import pytest

import metricslib as metrics
from metricslib.errors import InvalidOption
from metricslib.runtime import watch_greenlets, watch_loop
from tests.peers import eventually


def hold(seconds):
    """Compute, without giving the thread away."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def in_thread(work):
    """Run in a thread of its own, whose greenlets are watched by nobody else."""
    failures = []

    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def timers(registry):
    """Call for the timers that measured something: by key, their aggregates."""
    return lambda: {key: timer for key, timer in registry.snapshot().open.timers.items() if timer.count}


def test_a_greenlet_that_holds_the_thread_is_found_by_name(registry, timers, caplog):
    """By the function that it runs, and by the line that was running; those that are quick are not logged."""

    def slow():
        main.switch()
        hold(0.5)
        main.switch()

    def quick():
        main.switch()

    def work():
        nonlocal main
        main = greenlet.getcurrent()
        watch_greenlets(0.05, instruments=registry)
        watch_greenlets(0.05, instruments=registry)
        one, other = greenlet.greenlet(slow), greenlet.greenlet(quick)
        for each in (one, other, one, other, one):
            each.switch()

    main = None
    in_thread(work)
    name = "test_a_greenlet_that_holds_the_thread_is_found_by_name.<locals>"
    site = f"{__name__}.{name}"
    found = {key.rpartition("=")[2]: timer for key, timer in timers().items()}
    tags = {part.replace("<", "").replace(">", "") for part in (f"{site}.slow", f"{site}.quick")}
    assert {"main", *tags} <= found.keys()
    slowest = found[f"{site}.slow".replace("<", "").replace(">", "")]
    assert (slowest.count, slowest.max >= 500) == (3, True)
    (record,) = [record for record in caplog.records if "held its thread" in record.message]
    assert f"by {__name__}.hold, at {__file__}:" in record.message
    assert registry.snapshot().open.counters["greenlet.switches"] == 10


def test_a_trace_function_from_before_is_still_called(registry):
    """And errors of nobody's end the tracing."""
    seen = []

    def work():
        greenlet.settrace(lambda event, args: seen.append(event))
        watch_greenlets(instruments=registry)
        greenlet.greenlet(lambda: None).switch()

    in_thread(work)
    assert seen == ["switch", "switch"]


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, logging, sys, time
logging.basicConfig(format="%(message)s")
import metricslib as metrics
metrics.runtime.watch_greenlets(0.05)

def resize():
    gevent.sleep(0.01)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass

def waits():
    for _ in range(20):
        gevent.sleep(0.01)

gevent.spawn(lambda: time.sleep(0.01)).join()
gevent.joinall([gevent.spawn(resize), gevent.spawn(waits), gevent.spawn_later(0.01, waits)])
timers = metrics.default_registry.snapshot().open.timers
for key, timer in sorted(timers.items()):
    print(key, timer.count, timer.max >= 500)
"""


def test_gevent():
    """Greenlets have the names of what was spawned; the hub, which waits for all of them, holds nothing."""
    done = subprocess.run([sys.executable, "-c", GEVENT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *spawned, main = done.stdout.splitlines()
    assert first.startswith("greenlet.hold;site=__main__.lambda 2 ")
    assert spawned == [
        "greenlet.hold;site=__main__.resize 2 True",
        "greenlet.hold;site=__main__.waits 42 False",
    ]
    assert main.startswith("greenlet.hold;site=main ")
    assert "a greenlet held its thread for 0.5" in done.stderr
    assert "by __main__.resize, at <string>:" in done.stderr


def test_a_coroutine_that_blocks_the_loop_is_found_by_name(registry, timers, caplog):
    """By the function of the program that was running, and its line."""

    async def view():
        await asyncio.sleep(0.05)
        hold(0.5)
        await asyncio.sleep(0.2)

    async def main():
        watch_loop(slow=0.05, instruments=registry)
        watch_loop(slow=0.05, instruments=registry)
        await asyncio.gather(view(), asyncio.sleep(0.2))

    asyncio.run(main())
    found = timers()
    blocked = found[f"asyncio.loop.blocked;site={__name__}.hold"]
    assert blocked.max >= 400
    assert found["asyncio.loop.lag"].max >= 400
    assert found["asyncio.loop.lag"].median < 50
    assert registry.snapshot().open.gauges["asyncio.tasks"] >= 1
    (record,) = [
        record for record in caplog.records if "event loop was blocked" in record.message and "hold" in record.message
    ]
    assert f"by {__name__}.hold, at {__file__}:" in record.message


def test_watching_ends_with_what_is_watched(registry):
    """No thread of the system remains for a loop that is closed."""

    async def main():
        watch_loop(slow=0.01, instruments=registry)

    threads = Path("/proc/self/task")
    before = len([*threads.iterdir()])
    asyncio.run(main())
    gc.collect()
    eventually(lambda: len([*threads.iterdir()]) <= before)


def test_mistakes(registry):
    """At set-up, with the value."""
    for watch in (watch_greenlets, lambda slow, **more: watch_loop(slow=slow, **more)):
        with pytest.raises(InvalidOption, match="slow"):
            watch(0, instruments=registry)
    with pytest.raises(RuntimeError):
        watch_loop(instruments=registry)
    assert metrics.runtime.watch_loop is watch_loop
