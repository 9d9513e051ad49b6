"""The tools for tests: a clock that stands still until told to move."""

import pytest

from metricslib.testing import ManualClock, Observed, capture
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
    assert measured.timer("took") == Observed(1, 0.25)
    assert measured.histogram("size") == Observed(1, 7)
    assert measured.timer("size") == Observed(0, 0)
    assert (measured.gauge("depth"), measured.gauge("unknown")) == (4, None)
    told = "counter hits;route=-u: 3; timer took: 1 times, sum 0.25; histogram size: 1 times, sum 7; gauge depth: 4"
    assert sorted(repr(measured).removeprefix("<captured ").removesuffix(">").split("; ")) == sorted(told.split("; "))


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
