"""The flusher ends intervals, ships them, survives what goes wrong, and ends within its deadline."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib import AlreadyStarted, Flusher, InvalidDestination, InvalidOption, InvalidType, Registry
from metricslib.testing import ManualClock
from tests.peers import FOREVER, GraphitePeer, eventually
from tests.sockets import datagram_server

ROOT = Path(__file__).parent.parent


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time=1_700_000_005.0)


def run(program: str, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "METRICSLIB_INTERVAL": str(FOREVER), **environment},
        timeout=timeout,
        capture_output=True,
        text=True,
    )


# -- intervals


def test_each_tick_ships_a_whole_interval_with_its_own_stamp(
    registry: Registry, clock: ManualClock, peer: GraphitePeer
):
    """Two intervals, two slots, ten seconds apart, idle ones included."""
    flusher = Flusher(registry, peer.url, interval=10, own="")
    flusher.start()
    registry.counter("a").inc(3)
    clock.advance(5)
    flusher.tick()
    clock.advance(10)
    flusher.tick()
    assert flusher.flush()
    assert peer.values["stats.counters.a.count", 1_700_000_010] == 3
    assert peer.values["stats.counters.a.rate", 1_700_000_010] == 0.3
    assert peer.values["stats.counters.a.count", 1_700_000_020] == 0
    assert flusher.stop()


def test_a_flush_sends_the_slot_so_far_and_the_tick_all_of_it(
    registry: Registry, clock: ManualClock, peer: GraphitePeer
):
    """Graphite keeps the last value of a slot, so the slot is always sent whole."""
    flusher = Flusher(registry, peer.url, interval=10, own="")
    flusher.start()
    counter = registry.counter("a")
    counter.inc(3)
    assert flusher.flush()
    assert peer.values["stats.counters.a.count", 1_700_000_010] == 3
    counter.inc(4)
    assert flusher.flush()
    assert peer.values["stats.counters.a.count", 1_700_000_010] == 7
    clock.advance(5)
    flusher.tick()
    assert flusher.stop()
    assert peer.at("stats.counters.a.count") == [7, 0]


def test_an_interval_ends_when_its_grace_is_over(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """What comes within it belongs to the slot of the boundary, flushed or not; what comes then, to the next."""
    counter = registry.counter("a")
    flusher = Flusher(registry, peer.url, interval=10, own="", grace=0.5)
    flusher.start()
    clock.advance(5.4)
    counter.inc(1)
    assert flusher.flush()
    assert peer.at("stats.counters.a.count") == [1]
    counter.inc(2)
    clock.advance(0.2)
    assert flusher.flush()
    assert peer.values["stats.counters.a.count", 1_700_000_010] == 3
    counter.inc(4)
    clock.advance(9.8)
    counter.inc(8)
    assert flusher.stop()
    assert peer.at("stats.counters.a.count") == [3, 12]


def test_with_revise_off_a_slot_is_sent_once(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """Receivers that keep the first value, or both, get each slot when it is complete, or at the end."""
    flusher = Flusher(registry, f"{peer.url}?revise=off", interval=10, own="")
    flusher.start()
    registry.counter("a").inc(3)
    flusher.flush()
    clock.advance(5)
    flusher.tick()
    registry.counter("a").inc(4)
    assert flusher.stop()
    assert peer.received.decode().count("stats.counters.a.count") == 2
    assert peer.at("stats.counters.a.count") == [3, 4]


def test_a_stop_sends_the_open_interval_and_a_start_continues_it(
    registry: Registry, clock: ManualClock, peer: GraphitePeer
):
    """What was measured before the stop and after it end in one slot, together."""
    counter = registry.counter("a")
    for flusher in (Flusher(registry, peer.url, own=""), Flusher(registry, peer.url, own="")):
        flusher.start()
        counter.inc(2)
        assert flusher.stop()
    assert peer.at("stats.counters.a.count") == [4]


def test_what_was_sent_of_an_interval_is_in_no_later_slot(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """A flush, a stop, and then nobody who ends the interval in time: what was sent stays in its slot, alone."""
    counter = registry.counter("a")
    first = Flusher(registry, peer.url, own="")
    first.start()
    counter.inc(1)
    assert first.flush()
    clock.advance(17)
    counter.inc(2)
    assert first.stop()
    clock.advance(20)
    counter.inc(4)
    second = Flusher(registry, f"{peer.url}?revise=off", own="")
    second.start()
    clock.advance(10)
    second.tick()
    assert second.stop()
    assert sum(peer.at("stats.counters.a.count")) == 7


def test_a_statsd_destination_gets_only_what_is_new(registry: Registry, clock: ManualClock):
    """A server that adds up gets every increment once, whether flush, tick or stop sent it."""
    with datagram_server() as server:
        flusher = Flusher(registry, f"statsd://127.0.0.1:{server.getsockname()[1]}", interval=10, prefix="p", own="")
        flusher.start()
        counter = registry.counter("a")
        counter.inc(1)
        flusher.flush()
        assert server.recv(2000) == b"p.a:1|c"
        counter.inc(2)
        clock.advance(5)
        flusher.tick()
        assert server.recv(2000) == b"p.a:2|c"
        clock.advance(10)
        flusher.tick()  # idle: nothing is sent
        counter.inc(4)
        flusher.stop()
        assert server.recv(2000) == b"p.a:4|c"


def test_the_background_thread_ticks_by_itself(peer: GraphitePeer):
    """With the real clock and an interval of a second, windows arrive with aligned, increasing stamps."""
    registry = Registry()
    flusher = Flusher(registry, peer.url, interval=1, own="")
    flusher.start()
    registry.counter("a").inc(5)
    eventually(lambda: flusher.status().ticks >= 2)
    eventually(lambda: flusher.status().lag < 1, or_else="a tick in time")
    assert flusher.stop()
    assert sum(peer.at("stats.counters.a.count")) == 5


def test_history_keeps_whole_intervals_for_the_page(registry: Registry, clock: ManualClock):
    """Without any destination intervals end all the same."""
    flusher = Flusher(registry, interval=10, own="")
    registry.counter("a").inc()
    clock.advance(5)
    flusher.tick()
    assert flusher.history.last is not None
    assert flusher.history.last.counters == {"a": 1}
    assert flusher.history.points("counter", ["a"]).columns == {"value": [1]}


def test_after_a_step_back_of_the_clock_nothing_is_lost(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """Intervals run on into one window until the clock has caught up."""
    flusher = Flusher(registry, peer.url, interval=10, own="")
    flusher.start()
    registry.counter("a").inc(1)
    clock.advance(5)
    flusher.tick()
    clock.set_time(clock.time() - 10)
    for _ in range(3):
        registry.counter("a").inc(1)
        clock.advance(10)
        flusher.tick()
    assert flusher.flush()
    assert peer.at("stats.counters.a.count")[:2] == [1, 2]
    assert sum(peer.at("stats.counters.a.count")) == 4
    flusher.stop()


def test_a_turn_is_an_interval_that_ended_or_goes_on_for_the_clock(registry: Registry, clock: ManualClock):
    """A watchdog sees that the flusher works while the clock is set back, and that it does not where a tick fails."""
    flusher = Flusher(registry, own="")
    clock.advance(10)
    flusher.tick()
    clock.set_time(clock.time() - 10)
    flusher.tick()
    assert (flusher.turns, flusher.status().ticks) == (2, 1)

    def broken(*_: object) -> None:
        raise RuntimeError

    clock.advance(30)
    registry.tick = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError):
        flusher.tick()
    assert flusher.turns == 2


# -- set-up


def test_wrong_arguments_are_refused_at_once_and_by_name(registry: Registry):
    """A mistake is heard when it is made, not when the first interval ends."""
    with pytest.raises(InvalidDestination, match="graphit://x"):
        Flusher(registry, "graphit://x")
    with pytest.raises(InvalidOption, match="interval"):
        Flusher(registry, interval=0.5)
    with pytest.raises(InvalidOption, match="prefix"):
        Flusher(registry, prefix="{hots}")
    with pytest.raises(InvalidOption, match="percentiles"):
        Flusher(registry, percentiles=(0,))
    with pytest.raises(InvalidType, match="to must be a URL, or several, not 5"):
        Flusher(Registry(), 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="registry"):
        Flusher("graphite://x")  # type: ignore[arg-type]


def test_a_registry_has_one_flusher_at_a_time(registry: Registry):
    """Two flushers would end each other's intervals."""
    first, second = Flusher(registry), Flusher(registry)
    first.start()
    first.start()
    with pytest.raises(AlreadyStarted):
        second.start()
    first.stop()
    second.start()
    second.stop()


def test_own_metrics_say_what_was_sent(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """Windows, bytes, errors, drops by cause and the age of the last success, behind the prefix."""
    flusher = Flusher(registry, peer.url, interval=10, prefix="p")
    flusher.start()
    registry.counter("a").inc("nonsense")  # type: ignore[arg-type]
    for seconds in (5, 10, 10):
        clock.advance(seconds)
        flusher.tick()
        eventually(lambda: all(status.waiting_points == 0 for status in flusher.status().destinations))
    flusher.stop()
    sums: dict[str, float] = {}
    for (path, _), value in peer.values.items():
        sums[path.partition(";")[0]] = sums.get(path.partition(";")[0], 0) + value
    assert sums["stats.counters.p.metricslib.windows_sent.count"] >= 2
    assert sums["stats.counters.p.metricslib.bytes_sent.count"] > 100
    assert sums["stats.counters.p.metricslib.dropped.count"] == 1
    assert any(path.startswith("stats.gauges.p.metricslib.last_success_age;") for path, _ in peer.values)


# -- what goes wrong


def test_a_source_that_fails_costs_nothing_else(registry: Registry, clock: ManualClock, peer: GraphitePeer):
    """The interval ends, everything else is shipped, the failure is counted."""

    class Broken:
        def collect(self):
            raise RuntimeError("broken")

        def forget(self, kind, key):
            raise AssertionError

    registry.add_source(Broken())
    flusher = Flusher(registry, peer.url, own="")
    flusher.start()
    registry.counter("a").inc()
    assert flusher.flush()
    assert peer.at("stats.counters.a.count") == [1]
    assert registry.snapshot().dropped["source_error"] >= 1
    flusher.stop()


ABSENT = """
import socket, sys, time, metricslib as metrics
server = socket.socket()
server.bind(("127.0.0.1", 0))
if sys.argv[1] == "hanging":
    server.listen(1)
flusher = metrics.start("graphite://127.0.0.1:%d?timeout=60s" % server.getsockname()[1], interval=1)
for _ in range(50_000):
    metrics.counter("a").inc()
begin = time.monotonic()
delivered = metrics.stop()
took = time.monotonic() - begin
(status,) = flusher.status().destinations
print(delivered, took < 30, sum(status.dropped.values()) > 0, status.waiting_points)
"""


@pytest.mark.parametrize("kind", ["refusing", "hanging"])
def test_the_end_takes_at_most_the_deadline_whatever_graphite_does(kind: str):
    """Refused or never answered: the program ends, and what could not be delivered is accounted for."""
    done = run(ABSENT, kind)
    assert done.stdout == "False True True 0\n", done.stderr


def test_a_destination_that_hangs_takes_no_time_from_the_others(
    registry: Registry, clock: ManualClock, peer: GraphitePeer
):
    """The last interval reaches whoever answers, though another uses up the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        flusher = Flusher(registry, [f"graphite://127.0.0.1:{hanging.getsockname()[1]}", peer.url], own="")
        flusher.start()
        registry.counter("a").inc(3)
        assert not flusher.stop(timeout=2)
        assert peer.at("stats.counters.a.count") == [3]
        first, second = flusher.status().destinations
        assert (first.dropped, second.dropped) == ({"shutdown": 2}, {})


def test_a_program_that_just_ends_has_sent_its_last_interval(peer: GraphitePeer):
    """No stop() needed: the end of the interpreter flushes."""
    done = run("import sys, metricslib as metrics; metrics.start(sys.argv[1]); metrics.counter('a').inc(7)", peer.url)
    assert done.returncode == 0, done.stderr
    assert peer.at("stats.counters.a.count") == [7]


def test_a_signal_handler_may_stop_the_flusher(peer: GraphitePeer):
    """SIGTERM in the middle of measuring: stop() sends everything, and the program ends at once."""
    program = """
import os, signal, sys, metricslib as metrics
metrics.start(sys.argv[1], prefix=sys.argv[3])
counter = metrics.counter("a")
timer = metrics.timer("t")
made = 0
def end(*_):
    metrics.stop()
    raise SystemExit(0)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
try:
    while True:
        timer.observe(0.5)
        counter.inc()
        made += 1
finally:
    print(made)
"""
    for number in range(5):
        peer.values.clear()
        done = run(program, peer.url, str(0.1 + number / 1000), f"run{number}")
        assert done.returncode == 0, done.stderr
        # The call that was interrupted may or may not have been made.
        assert 0 <= sum(peer.at(f"stats.counters.run{number}.a.count")) - int(done.stdout) <= 1
        assert 0 <= sum(peer.at(f"stats.timers.run{number}.t.count")) - int(done.stdout) <= 1


# -- forks


def test_forked_children_ship_their_own_numbers_or_with_one_prefix_the_sum(peer: GraphitePeer):
    """A preforking server: the child starts at zero, its flusher starts at its first measurement."""
    program = """
import logging, os, sys, metricslib as metrics
logging.basicConfig(format="%(message)s")
metrics.start(sys.argv[1], prefix=sys.argv[2], group="host" if len(sys.argv) < 4 else None)
counter = metrics.counter("a")
counter.inc(1000)
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        counter.inc(number + 1)
        counter.inc(10)
        sys.exit(0)
    pids.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
print(*pids)
"""
    done = run(program, peer.url, "w{pid}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pids = done.stdout.split()
    values = [peer.at(f"stats.counters.w{pid}.a.count") for pid in pids]
    assert values == [[11], [12], [13]]
    assert sum(value for (path, _), value in peer.values.items() if path.endswith(".a.count")) == 1036

    done = run(program, peer.url, "same")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sum(peer.at("stats.counters.same.a.count")) == 1036

    done = run(program, peer.url, "same", "alone")
    assert done.returncode == 0
    assert done.stderr.count("ships the same paths") == 3


def test_a_child_of_multiprocessing_sends_its_last_interval(peer: GraphitePeer):
    """Such a child skips atexit; its finalizers do the work."""
    program = """
import multiprocessing, os, sys, metricslib as metrics
metrics.start(sys.argv[1], prefix="w{pid}")
def work():
    metrics.counter("a").inc(5)
if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start(); process.join()
    assert process.exitcode == 0
    print(process.pid)
"""
    done = run(program, peer.url)
    assert done.returncode == 0, done.stderr
    assert peer.at(f"stats.counters.w{done.stdout.strip()}.a.count") == [5]


def test_an_idle_child_starts_no_thread(peer: GraphitePeer):
    """Nothing runs in a child that never measures."""
    program = """
import os, sys, threading, metricslib as metrics
metrics.start(sys.argv[1])
metrics.counter("a").inc()
pid = os.fork()
if pid == 0:
    os._exit(threading.active_count())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(program, peer.url).stdout == "1\n"


@pytest.mark.parametrize("group", ["None", "'host'"])
def test_a_child_may_start_again_with_the_same_arguments_or_with_its_own(peer: GraphitePeer, group: str):
    """A worker's hook after the fork: start() works there, and sends nothing twice.

    In a group a second flusher would add to the value; alone it would send the same once more.
    """
    program = """
import os, sys, metricslib as metrics
how = dict(group=eval(sys.argv[2]))
metrics.start(sys.argv[1], prefix="parent", **how)
for prefix in ("parent", "child"):
    pid = os.fork()
    if pid == 0:
        metrics.start(sys.argv[1], prefix=prefix, **how)
        metrics.counter("a").inc(5)
        metrics.stop()
        metrics._shipping.ensure_flusher()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
    done = run(program, peer.url, group)
    assert done.returncode == 0, done.stderr
    if group == "None":
        assert sorted(re.findall(rb"stats.counters.(?:child|parent).a.count \d+", peer.received)) == [
            b"stats.counters.child.a.count 5",
            b"stats.counters.parent.a.count 5",
        ]
    assert peer.at("stats.counters.child.a.count") == [5]
    assert peer.at("stats.counters.parent.a.count") == [5]


def test_the_page_of_a_child_starts_the_childs_own_flusher(peer: GraphitePeer):
    """Asked for before the child measured anything, the inherited flusher begins here, with its destination."""
    program = """
import os, sys, metricslib as metrics
metrics.start(sys.argv[1], prefix="w{pid}")
if os.fork() == 0:
    flusher = metrics._shipping.ensure_flusher()
    assert flusher.running and flusher.to
    metrics.counter("a").inc(3)
    sys.exit(0)
assert os.wait()[1] == 0
"""
    done = run(program, peer.url)
    assert done.returncode == 0, done.stderr
    assert [value for (path, _), value in peer.values.items() if path.endswith(".a.count")] == [3]


def test_destinations_may_come_from_the_environment(peer: GraphitePeer, tmp_path: Path):
    """Several are separated by commas, but not at commas inside a URL; the other settings have variables too."""
    program = "import metricslib as metrics; print(metrics.start().to); metrics.counter('a').inc(2)"
    whisper = f"whisper://{tmp_path}?retentions=1s:1h,1m:1d"
    environment = {"METRICSLIB_TO": f"{whisper}, {peer.url}", "METRICSLIB_PREFIX": "p", "METRICSLIB_INTERVAL": "5"}
    done = run(program, timeout=60, **environment)
    assert done.stdout == f"{(whisper, peer.url)}\n", done.stderr
    ((path, stamp),) = [key for key in peer.values if key[0].endswith(".a.count")]
    assert path == "stats.counters.p.a.count"
    assert stamp % 5 == 0
    peer.values.clear()
    assert run(program, timeout=60, **environment, METRICSLIB_DISABLED="1").stdout == "()\n"
    assert not peer.values
    assert "METRICSLIB_TO = ',': names no destination" in run(program, METRICSLIB_TO=",").stderr
    assert run(program, METRICSLIB_TO=" ").stdout == "()\n"


def test_many_threads_may_ask_for_the_default_flusher_at_once():
    """The first requests of a page that was never started come together, and get one flusher."""
    program = """
import threading, metricslib as metrics, metricslib._shipping
found = []
barrier = threading.Barrier(8)
def ask():
    barrier.wait()
    found.append(metrics._shipping.ensure_flusher())
for _ in range(20):
    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 8 and len(set(map(id, found))) == 1
    found.clear()
    metrics.stop()
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
