"""A histogram: values of any unit and sign, exact while few, a sketch when many."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.registry import Registry
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock


def test_values_are_kept_as_they_are(registry, tick):
    """Negative ones too; an idle interval is empty."""
    histogram = registry.histogram("x")
    for value in (5, -2.5, 0):
        histogram.observe(value)
    kept = tick().cumulative.histograms["x"]
    assert (kept.count, kept.sum, kept.min, kept.max) == (3, 2.5, -2.5, 5)
    idle = tick()
    assert idle.cumulative.histograms["x"].count == 0
    assert idle.delta.histograms == {}


@given(st.lists(st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9), min_size=1, max_size=1200))
def test_what_comes_out_is_the_distribution_of_what_went_in(values):
    """Over any number of folds."""
    registry = Registry(clock=ManualClock())
    histogram = registry.histogram("x")
    for value in values:
        histogram.observe(value)
    kept = registry.tick(10, 10).cumulative.histograms["x"]
    expected = Distribution(map(float, values)).freeze()
    assert (kept.count, kept.min, kept.max) == (expected.count, expected.min, expected.max)
    assert kept.powers() == expected.powers()
    assert kept.sum == pytest.approx(expected.sum, abs=1e-12 * sum(map(abs, values)))
    assert kept.percentile(90) == expected.percentile(90)


@pytest.mark.parametrize("exact", [1, 10, 1000])
def test_the_registry_says_how_many_samples_are_kept(exact):
    """One more makes a sketch, also when a flush or a snapshot cut the interval in pieces."""
    registry = Registry(clock=ManualClock(), exact=exact)
    histogram = registry.histogram("x")
    for number in range(exact):
        histogram.observe(number)
        if number % 7 == 0:
            registry.snapshot()
            registry.flush(10, 10)
    assert registry.snapshot().open.histograms["x"].exact
    histogram.observe(0)
    assert not registry.tick(10, 10).cumulative.histograms["x"].exact


def test_values_whose_sum_has_no_end_count_all_the_same(registry, tick):
    """Each of them is finite, so each is a sample; only sums over them are beyond a float."""
    histogram = registry.histogram("x")
    for _ in range(3):
        histogram.observe(1e308)
    kept = tick().cumulative.histograms["x"]
    assert (kept.count, kept.min, kept.percentile(50)) == (3, 1e308, 1e308)
    assert math.isinf(kept.sum)
    assert registry.drops.totals() == {}
