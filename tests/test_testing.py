"""The tools for tests: a clock that stands still until told to move, what was measured, and the plug-in for pytest."""

import datetime
import importlib.metadata
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from freezegun import freeze_time

from metricslib.testing import ManualClock, capture
from tests.implementations import packages
from tests.test_flusher import run


def test_time_passes_on_both_clocks_only_when_told():
    """Reading a clock does not move it."""
    clock = ManualClock(time=1000.0)
    assert (clock.time(), clock.time(), clock.monotonic()) == (1000.0, 1000.0, 0.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (1002.5, 2.5)


def test_the_wall_clock_may_jump_and_monotonic_time_takes_no_notice():
    """A step back or forward is a step of the wall clock alone."""
    clock = ManualClock(time=1000.0)
    clock.advance(1)
    clock.set_time(500.0)
    assert (clock.time(), clock.monotonic()) == (500.0, 1.0)
    clock.set_time(5000.0)
    assert (clock.time(), clock.monotonic()) == (5000.0, 1.0)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_time_does_not_pass_backwards(seconds):
    """A negative advance is a mistake in the test, and it is told what to do instead."""
    with pytest.raises(ValueError, match="set_time"):
        ManualClock().advance(seconds)


def test_the_first_tick_is_a_whole_interval_away():
    """The clock starts on a boundary of every usual interval."""
    assert [ManualClock().time() % interval for interval in (1, 10, 60, 3600, 86400)] == [0] * 5


def test_a_capture_has_what_its_block_measured(registry, tick):
    registry.counter("hits", tags={"route": "/u"}).inc(5)
    registry.timer("took").observe(1)
    with capture(registry) as measured:
        registry.counter("hits", tags={"route": "/u"}).inc(2)
        tick()
        registry.counter("hits", tags={"route": "/u"}).inc()
        registry.timer("took").observe(0.25)
        registry.histogram("size").observe(7)
        registry.gauge("depth").set(4)
        assert measured.counter("hits", route="/u") == 3
    registry.counter("hits", tags={"route": "/u"}).inc(100)
    assert measured.counter("hits", route="/u") == 3
    assert measured.counter("hits") == measured.counter("unknown") == 0
    took, size, other = measured.timer("took"), measured.histogram("size"), measured.timer("size")
    assert [(each.count, each.sum) for each in (took, size, other)] == [(1, 0.25), (1, 7), (0, 0)]
    assert (measured.gauge("depth"), measured.gauge("unknown")) == (4, None)
    told = ["counter hits;route=-u: 3", "gauge depth: 4", "histogram size: 1 from 7 to 7, sum 7"]
    told.append("timer took: 1 from 0.25 s to 0.25 s, sum 0.25 s")
    assert sorted(repr(measured).removeprefix("<captured ").removesuffix(">").split("; ")) == told


def test_a_capture_without_measurements_says_so(registry):
    with capture(registry) as measured:
        pass
    assert repr(measured) == "<captured nothing>"


@pytest.mark.parametrize("disabled", ["", "1"])
def test_what_is_started_in_a_test_sends_nothing_and_joins_no_group(tmp_path, disabled):
    code = """
import sys, metricslib as metrics
from contextlib import nullcontext
from metricslib.testing import capture
with capture() if not sys.argv[2] else nullcontext():
    metrics.view.wsgi(open=True)
    metrics.start(f"file:{sys.argv[1]}/out.jsonl")
    metrics.counter("hits").inc()
    assert metrics.flush()
"""
    directory = tmp_path / "groups"
    done = run(code, str(tmp_path), disabled, METRICSLIB_DISABLED=disabled, METRICSLIB_GROUP_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


# -- what was measured


@pytest.fixture(params=[False, True], ids=["C", "Python"])
def library(request):
    """Both implementations: the package, its module for tests, and its flusher."""
    found = packages(request.param)
    return found["metricslib"], found["metricslib.testing"], found["metricslib.flusher"].Flusher


def test_what_a_block_measures_is_captured(library):
    """Of every kind, by name and tags; what was measured before and after it is not."""
    metrics, testing, _ = library
    registry = metrics.Registry(clock=testing.ManualClock())

    def measure():
        registry.counter("hits").tagged(route="/u", status=200).inc(3)
        registry.counter("hits").tagged(route="/u", status=500).inc()
        registry.counter("hits").inc(10)
        registry.gauge("depth").set(7)
        registry.gauge("depth").inc(2)
        registry.gauge("running").inc(3)
        registry.gauge("running").dec()
        for seconds in (0.1, 0.2, 0.6):
            registry.timer("query").observe(seconds)
        registry.histogram("size").observe(5)
        registry.unique("users").add("ada")
        registry.unique("users").add("bob")

    measure()
    with testing.capture(registry) as found:
        assert found.counter("hits") == 0
        measure()
        assert found.counter("hits", route="/u", status=500) == 1
        registry.tick(10, 10)
        registry.flush(20, 10)
        registry.gauge("free", read=lambda: 12)
        registry.counter("hits").inc()
    measure()
    assert found.counter("hits") == 11
    assert found.counter("hits", route="/u", status=200) == 3
    assert found.counter("hits", route="/u") == found.counter("other") == 0
    assert (found.gauge("depth"), found.gauge("running"), found.gauge("free"), found.gauge("x")) == (9, 2, 12, None)
    query = found.timer("query")
    assert (query.count, query.min, query.max, query.median) == (3, 0.1, 0.6, 0.2)
    assert query.sum == pytest.approx(0.9)
    assert query.mean == pytest.approx(0.3)
    assert query.percentile(90) == 0.6
    assert found.histogram("size").sum == 5
    assert found.unique("users") == {"ada", "bob"}
    nothing = found.timer("other")
    assert (nothing.count, nothing.sum, repr(nothing)) == (0, 0, "no values")
    assert math.isnan(nothing.max)
    assert math.isnan(nothing.percentile(90))


def test_captures_do_not_disturb_each_other_nor_the_flusher(library):
    """Blocks may be nested, and a window has what it would have had."""
    metrics, testing, Flusher = library
    clock = testing.ManualClock()
    registry = metrics.Registry(clock=clock)
    flusher = Flusher(registry, interval=10)
    hits = registry.counter("hits")
    with testing.capture(registry) as outer:
        hits.inc()
        with testing.capture(registry) as inner:
            hits.inc(2)
            clock.advance(10)
            flusher.tick()
        hits.inc(4)
    assert (outer.counter("hits"), inner.counter("hits")) == (7, 2)
    assert flusher.history.last.counters["hits"] == 3
    assert registry.snapshot().open.counters["hits"] == 4


def test_all_that_was_measured_can_be_read(library):
    """In one text, with a line for each series."""
    metrics, testing, _ = library
    registry = metrics.Registry()
    with testing.capture(registry) as found:
        assert str(found) == "nothing"
        registry.counter("hits", tags={"route": "/u"}).inc(2.5)
        registry.gauge("depth").set(3)
        registry.gauge("running").inc()
        registry.timer("query").observe(0.25)
        registry.histogram("size").observe(7)
        registry.unique("users").add("ada")
    assert str(found).splitlines() == [
        "counter hits;route=-u: 2.5",
        "timer query: 1 from 0.25 s to 0.25 s, sum 0.25 s",
        "histogram size: 1 from 7 to 7, sum 7",
        "gauge depth: 3",
        "gauge running: 1 in all",
        "unique users: ada",
    ]


def test_a_captured_block_may_fail(library):
    """Its exception passes, and nothing is captured after it."""
    metrics, testing, _ = library
    registry = metrics.Registry()
    captured = []

    def block():
        with testing.capture(registry) as found:
            captured.append(found)
            registry.counter("hits").inc()
            raise KeyError

    with pytest.raises(KeyError):
        block()
    registry.counter("hits").inc()
    assert captured[0].counter("hits") == 1


def test_freezegun_decides_what_durations_are(library):
    """Frozen, ticking by itself, and moved: on the default registry's clock, for timers made before and after."""
    metrics, testing, _ = library
    registry = metrics.Registry()
    before = registry.timer("before")

    def spent(change):
        after, names = registry.timer(f"after{id(change)}"), ("before", f"after{id(change)}", f"call{id(change)}")
        with testing.capture(registry) as found:
            with before.time(), after.time():
                change()
            registry.timed(names[2])(change)()
            span = before.time().start()
            change()
            span.stop()
        assert found.timer("before").count == 2
        return [found.timer(name).max for name in names]

    with freeze_time("2026-01-01") as frozen:
        assert spent(lambda: None) == [0, 0, 0]
        assert spent(lambda: frozen.tick(2.5)) == [2.5, 2.5, 2.5]
        assert spent(lambda: frozen.tick(datetime.timedelta(days=1))) == [86_400] * 3
    with freeze_time("2026-01-01", tick=True) as frozen:
        assert all(900 < each < 1100 for each in spent(lambda: frozen.tick(1000)))
    with freeze_time("2026-01-01", auto_tick_seconds=5) as frozen:
        assert all(each > 0 and each % 5 == 0 for each in spent(lambda: None))
    assert all(0 <= each < 60 for each in spent(lambda: None))


def test_freezegun_moves_the_windows(library):
    """Their ends follow the frozen wall clock."""
    metrics, testing, Flusher = library
    with freeze_time("2026-01-01 00:00:03") as frozen:
        registry = metrics.Registry()
        flusher = Flusher(registry, interval=10)
        with testing.capture(registry) as found:
            registry.counter("hits").inc()
            frozen.tick(7)
            flusher.tick()
            frozen.move_to("2026-01-01 01:00:00")
            registry.counter("hits").inc()
            flusher.tick()
        ends = [datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat() for end in flusher.history.ends()]
    assert ends == ["2026-01-01T00:00:10+00:00", "2026-01-01T01:00:00+00:00"]
    assert found.counter("hits") == 2


# -- under pytest

SUITE = """
import metricslib

hits = metricslib.counter("hits")
hits.inc(100)

def test_first(metrics):
    hits.tagged(route="/u").inc(3)
    assert metrics.counter("hits", route="/u") == 3

def test_second(metrics, manual_clock):
    assert metrics.counter("hits") == 0
    registry = metricslib.Registry(clock=manual_clock)
    with registry.timer("query").time():
        manual_clock.advance(0.25)

def test_nothing_is_sent(metrics):
    flusher = metricslib.start("graphite://192.0.2.1:2003", prefix="shop")
    assert flusher.status().destinations == []

def test_wrong(metrics):
    hits.tagged(route="/u").inc(2)
    metricslib.timer("query").observe(0.25)
    assert metrics.counter("hits", route="/u") == 3

def test_wrong_without_a_value(metrics):
    metricslib.counter("misses").inc()
    raise KeyError
"""


def test_a_suite_under_pytest(tmp_path):
    """Each test sees what it measures itself; one that fails shows all of that."""
    (tmp_path / "test_shop.py").write_text(SUITE)
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "testing.md").read_text()
    (tmp_path / "test_page.py").write_text(re.findall("```python no-run\n(.*?)```", page, re.DOTALL)[0])
    command = [sys.executable, "-m", "pytest", "-p", "no:metricslib", "-p", "metricslib.pytest_plugin", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "2 failed, 4 passed" in done.stdout, done.stdout
    assert "E       assert 2 == 3\nE         measured:\nE           counter hits;route=-u: 2\n" in done.stdout
    assert "timer query: 1 from 0.25 s to 0.25 s, sum 0.25 s" in done.stdout
    assert "- Measured -" in done.stdout
    assert "counter misses: 1" in done.stdout


def test_pytest_finds_the_plug_in():
    found = importlib.metadata.entry_points(group="pytest11", name="metricslib")
    assert [each.value for each in found] == ["metricslib.pytest_plugin"]
