"""The tools for tests: a clock that stands still until told to move."""

import pytest

from metricslib.testing import ManualClock


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
