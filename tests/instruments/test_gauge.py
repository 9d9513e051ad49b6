"""A gauge holds what it was set to, changed by what came after, or what its callback says at each tick."""

import itertools
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidType
from metricslib.registry import Registry
from metricslib.testing import ManualClock

NUMBERS = st.integers(-1000, 1000) | st.integers(-1000, 1000).map(lambda n: n / 8)


def test_a_gauge_repeats_its_value_and_one_never_set_is_absent(registry, tick):
    """Idle gauges stand in the whole window, not in what is new."""
    registry.gauge("never")
    registry.gauge("x").set(5)
    first, second = tick(), tick()
    assert first.cumulative.gauges == first.delta.gauges == second.cumulative.gauges == {"x": 5}
    assert second.delta.gauges == {}


def test_inc_and_dec_change_what_there_is(registry, tick):
    """From 0 if it was never set, across intervals, and in the order of the calls."""
    gauge = registry.gauge("x")
    gauge.inc()
    gauge.inc(2)
    gauge.dec()
    assert tick().cumulative.gauges == {"x": 2}
    gauge.dec(5)
    assert tick().cumulative.gauges == {"x": -3}
    gauge.set(10)
    gauge.inc(0.5)
    gauge.set(7)
    gauge.dec(2)
    assert tick().cumulative.gauges == {"x": 5}


@given(st.lists(st.tuples(st.sampled_from(["set", "inc", "dec", "flush", "tick"]), NUMBERS), max_size=700))
def test_the_order_of_calls_is_kept_over_folds_flushes_and_ticks(calls):
    """Against a plain variable; flushes and ticks in between change nothing."""
    registry = Registry(clock=ManualClock())
    gauge, value = registry.gauge("x"), None
    for call, number in calls:
        if call in ("flush", "tick"):
            getattr(registry, call)(10, 10)
            continue
        getattr(gauge, call)(number)
        value = number if call == "set" else (value or 0) + (number if call == "inc" else -number)
    flush = registry.tick(10, 10)
    assert flush.cumulative.gauges == ({} if value is None else {"x": value})


@pytest.mark.parametrize("value", ["x", None, object(), math.nan, math.inf, 10**400])
def test_a_bad_change_is_counted_and_changes_nothing(registry, tick, value):
    """Also one that cannot be negated."""
    gauge = registry.gauge("x")
    gauge.set(5)
    gauge.inc(value)
    gauge.dec(value)
    gauge.inc(1)
    assert tick().cumulative.gauges == {"x": 6}
    assert registry.drops.totals() == {"bad_value": 2}


def test_dec_of_what_raises_when_negated_is_counted(registry, tick):
    """`-n` is the value's own code."""

    class Raising:
        def __neg__(self):
            raise RuntimeError("no negative")

    registry.gauge("x").dec(Raising())
    assert registry.drops.totals() == {"bad_value": 1}
    assert tick().cumulative.gauges == {}


@pytest.mark.parametrize("large", [2**1022, sys.float_info.max, 1e308])
def test_changes_without_end_stay_finite(registry, tick, large):
    """Neither this tick nor a later one raises, and the gauge can be set again."""
    gauge = registry.gauge("x")
    for _ in range(3):
        for _ in range(5):
            gauge.inc(large)
        gauge.inc(0.5)
        tick()
    assert tick().cumulative.gauges == {"x": sys.float_info.max}
    gauge.set(1)
    assert tick().cumulative.gauges == {"x": 1}


# -- callbacks


def test_a_callback_is_read_in_ticks_and_flushes_never_by_a_snapshot(registry, tick):
    """A snapshot shows the value as of the last tick."""
    calls = []
    registry.gauge("x", read=lambda: calls.append(0) or len(calls))
    assert registry.snapshot().open.gauges == {}
    assert calls == []
    assert tick().cumulative.gauges == {"x": 1}
    assert registry.snapshot().open.gauges == {"x": 1}
    assert registry.flush(20, 10).cumulative.gauges == {"x": 2}
    assert registry.snapshot().open.gauges == {"x": 2}
    assert tick().delta.gauges == {"x": 3}
    assert len(calls) == 3


def failing():
    raise RuntimeError("queue is gone")


@pytest.mark.parametrize(
    "read", [failing, lambda: math.nan, lambda: math.inf, lambda: None, lambda: "5", lambda: 10**400, lambda x: 1]
)
def test_a_callback_without_a_number_is_absent_and_counted(registry, tick, read):
    """Not its last value, which nobody knows to be true, and others are read all the same."""
    answers = [lambda: 1, read, lambda: 3]
    registry.gauge("x", read=lambda: answers.pop(0)())
    registry.gauge("y", read=lambda: 7)
    assert tick().cumulative.gauges == {"x": 1, "y": 7}
    absent = tick()
    assert absent.cumulative.gauges == absent.delta.gauges == {"y": 7}
    assert registry.snapshot().open.gauges == {"y": 7}
    assert registry.drops.totals() == {"bad_callback": 1}
    assert tick().cumulative.gauges == {"x": 3, "y": 7}


def test_a_callback_that_wants_to_exit_does_not_end_the_flusher(registry):
    """In a thread it is one that raises; in the main one a signal handler may have raised, and is heard."""
    registry.gauge("x", read=sys.exit)
    registry.gauge("y", read=lambda: 7)
    with ThreadPoolExecutor() as flusher:
        assert flusher.submit(registry.tick, 10, 10).result().cumulative.gauges == {"y": 7}
    assert registry.drops.totals() == {"bad_callback": 1}
    with pytest.raises(SystemExit):
        registry.tick(20, 10)


def test_registering_again_replaces_the_callback(registry, tick):
    """The same object, which reads the new one; asking without a callback keeps it."""
    gauge = registry.gauge("x", read=lambda: 1)
    assert registry.gauge("x", read=lambda: 2) is gauge
    assert registry.gauge("x") is gauge
    assert tick().cumulative.gauges == {"x": 2}


def test_a_callback_may_use_the_registry(registry, tick):
    """It may measure, and make instruments; what it does counts in this interval or the next."""

    def read():
        registry.counter(f"made.{next(numbers)}").inc()
        return 1

    numbers, seen = itertools.count(), {}
    registry.gauge("x", read=read)
    for _ in range(3):
        seen |= tick().delta.counters
    registry.gauge("x", read=lambda: 1)
    seen |= tick().delta.counters
    assert seen == {"made.0": 1, "made.1": 1, "made.2": 1}


def test_callbacks_return_plain_numbers(registry, tick):
    """Whatever type they give."""
    registry.gauge("x", read=lambda: True)
    value = tick().cumulative.gauges["x"]
    assert (value, type(value)) == (1.0, float)


def test_what_cannot_be_called_is_refused_early(registry):
    """A mistake of set-up."""
    with pytest.raises(InvalidType, match="read must be a callable"):
        registry.gauge("x", read=5)
