"""A counter adds up, to the last digit, and an interval that overflows spoils no other."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.instruments.base import FULL
from metricslib.registry import Registry
from metricslib.testing import ManualClock


def test_an_interval_is_a_sum_and_idle_is_zero(registry, tick):
    """By default 1; also more, also fractions, also negative; the next interval starts from 0."""
    counter = registry.counter("x")
    counter.inc()
    counter.inc(5)
    counter.inc(0.5)
    counter.inc(-2)
    assert tick().cumulative.counters == {"x": 4.5}
    idle = tick()
    assert idle.cumulative.counters == {"x": 0}
    assert idle.delta.counters == {}


@given(st.lists(st.integers(-(2**62), 2**62), max_size=1200))
def test_integers_are_exact_whatever_their_size(numbers):
    """Beyond 2⁵³ too, where floats have gaps; and the total stays an int."""
    registry = Registry(clock=ManualClock())
    counter = registry.counter("x")
    for number in numbers:
        counter.inc(number)
    total = registry.tick(10, 10).cumulative.counters["x"]
    assert total == sum(numbers)
    assert type(total) is int


@given(st.lists(st.floats(-1e6, 1e6), max_size=1200))
def test_floats_are_added_one_after_the_other(numbers):
    """As statsd adds them, so the last digit is the same."""
    registry = Registry(clock=ManualClock())
    counter, total = registry.counter("x"), 0
    for number in numbers:
        counter.inc(number)
        total += number
    assert registry.tick(10, 10).cumulative.counters["x"] == total


@pytest.mark.parametrize("large", [2**1022, sys.float_info.max, 1e308])
@pytest.mark.parametrize("other", [1, 0.5])
def test_finite_numbers_whose_sum_is_not_are_counted_as_bad(registry, tick, large, other):
    """No infinity, no error, and nothing is lost but the numbers that found no room."""
    counter, fits = registry.counter("x"), int(sys.float_info.max // large)
    for number in (large, large, large, large, other):
        counter.inc(number)
    assert tick().cumulative.counters == {"x": fits * large + other}
    assert registry.drops.totals() == {"bad_value": 4 - fits}
    counter.inc(3)
    assert tick().cumulative.counters == {"x": 3}


def test_a_sum_over_many_folds_has_an_end_too(registry, tick):
    """Absurd values in every batch and every flush leave the total at the largest float."""
    counter = registry.counter("x")
    for _ in range(5):
        for _ in range(FULL + 1):
            counter.inc(1e305)
        registry.flush(10, 10)
    assert tick().cumulative.counters == {"x": sys.float_info.max}
    assert tick().cumulative.counters == {"x": 0}


def test_bounds_of_what_is_finite(registry, tick):
    """The largest float counts, the smallest too."""
    registry.counter("large").inc(sys.float_info.max)
    registry.counter("small").inc(5e-324)
    assert tick().cumulative.counters == {"large": sys.float_info.max, "small": 5e-324}
