"""Numbers, moments and durations as people read them."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.view import figures


def test_the_examples_are_true():
    """What the docstrings show is what the functions say."""
    assert doctest.testmod(figures).failed == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-5, "-5"),
        (1000, "1,000"),
        (0.5, "0.5"),
        (99.996, "100"),
        (1e15, "1e+15"),
        (123456.7, "123,457"),
        (math.inf, "inf"),
        (-(10**400), "-1.000e+400"),
    ],
)
def test_amounts_are_short(value, text):
    """Four significant digits, thousands apart, no needless zeros."""
    assert figures.amount(value) == text


@given(st.floats(-1e300, 1e300) | st.integers(-(10**18), 10**18))
def test_an_amount_reads_back_within_a_thousandth(value):
    """Nothing is told that is off by more than the digits left out."""
    assert float(figures.amount(value).replace(",", "")) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("seconds", "text"), [(-5, "0 s"), (60, "1 min"), (3601, "1 h"), (86_399, "23 h 59 min")])
def test_ages_have_two_units_at_most(seconds, text):
    """The largest unit and the next; a negative age is none."""
    assert figures.age(seconds) == text


def test_times_are_utc():
    """Date and time, or the time of day alone; a time beyond every calendar is told as it is."""
    assert figures.moment(1_700_006_400) == "2023-11-15 00:00:00"
    assert figures.time_of_day(1_700_006_410.9) == "00:00:10"
    assert figures.moment(1e18) == "1e+18"
