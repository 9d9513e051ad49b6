"""What happened in one interval adds up, whoever saw it; and a frozen window stays as it is."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.registry import Registry
from metricslib.series import KINDS
from metricslib.sketch import Distribution
from metricslib.window import ABSENT, Aggregates, GaugeChange, Window, total

NUMBERS = st.integers(-1000, 1000) | st.integers(-1000, 1000).map(lambda n: n / 8)
CHANGES = st.builds(GaugeChange, st.none() | NUMBERS, NUMBERS)
LARGEST = sys.float_info.max


def aggregates(**kinds):
    made = Aggregates()
    for kind, values in kinds.items():
        for key, value in values.items():
            made.add(kind, key, value)
    return made


def samples(*values):
    return Distribution(values).freeze()


@given(CHANGES, CHANGES, CHANGES, st.none() | NUMBERS)
def test_changes_of_a_gauge_may_be_joined_before_they_are_applied(one, two, three, value):
    """One after the other or joined first, in any grouping: the same value."""
    expected = three.applied_to(two.applied_to(one.applied_to(value)))
    assert one.then(two).then(three).applied_to(value) == expected
    assert one.then(two.then(three)).applied_to(value) == expected


def test_an_absent_gauge_stays_absent_until_it_is_set():
    """Its callback failed: there is no value to change."""
    assert ABSENT.applied_to(5) is None
    assert ABSENT.then(GaugeChange(None, 1)).applied_to(5) is None
    assert ABSENT.then(GaugeChange(3)).applied_to(5) == 3
    assert GaugeChange(None, 1).applied_to(None) == 1


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (1, 2, 3),
        (0.5, 1, 1.5),
        (LARGEST, LARGEST, LARGEST),
        (-LARGEST, -LARGEST, -LARGEST),
        (2**1023, 2**1023, LARGEST),
        (2**1023, 0.5, 2.0**1023),
        (-(2**1023), -(2**1023), -LARGEST),
        (LARGEST, -LARGEST, 0),
    ],
)
def test_a_sum_stays_finite(one, other, both):
    """One absurd value can neither make a total infinite for good nor raise in the middle of a tick."""
    assert total(one, other) == both
    assert type(total(1, 2)) is int


def test_aggregates_add_up_by_kind():
    """Counters add, distributions merge, gauges follow, uniques unite."""
    one = aggregates(
        counter={"c": 1}, timer={"t": samples(1)}, gauge={"g": GaugeChange(5)}, unique={"u": frozenset("ab")}
    )
    two = aggregates(
        counter={"c": 2, "d": 7},
        timer={"t": samples(2)},
        gauge={"g": GaugeChange(None, 1)},
        unique={"u": frozenset("bc")},
    )
    one.merge(two)
    assert one.counters == {"c": 3, "d": 7}
    assert (one.timers["t"].count, one.timers["t"].sum) == (2, 3)
    assert one.gauges == {"g": GaugeChange(5, 1)}
    assert one.uniques == {"u": frozenset("abc")}
    assert two.counters == {"c": 2, "d": 7}


def test_what_was_merged_is_not_changed_by_what_is_merged_later():
    """Merging into an empty one must not share what can change."""
    part, whole = aggregates(counter={"c": 1}), Aggregates()
    assert not whole
    whole.merge(part)
    whole.merge(aggregates(counter={"c": 1}))
    assert part.counters == {"c": 1}
    assert whole.counters == {"c": 2}
    assert whole


def test_the_higher_number_of_a_sender_counts():
    """Whoever has all up to seven has all up to five."""
    one, two = Aggregates(), Aggregates()
    one.received, two.received = {"a": 5, "b": 9}, {"a": 7, "b": 8, "c": 1}
    one.merge(two)
    assert one.received == {"a": 7, "b": 9, "c": 1}
    assert two.received == {"a": 7, "b": 8, "c": 1}


def test_a_window_is_read_by_kind_and_frozen():
    """Its length is the number of series in it."""
    window = Window(0, 10, 10, counters={"c": 1}, gauges={"g": 2, "h": 3})
    assert [len(window[kind]) for kind in KINDS] == [1, 0, 0, 2, 0]
    assert len(window) == 3
    with pytest.raises(AttributeError, match="frozen"):
        window.end = 20
    assert window.end == 10
    assert math.isnan(ABSENT.base)


@pytest.mark.parametrize(("former", "name"), [("whole", "cumulative"), ("fresh", "delta")])
def test_the_former_names_of_a_flush_s_windows_work_and_warn(former, name):
    flush = Registry().tick(10, 10)
    with pytest.warns(DeprecationWarning, match=f"Flush.{former} is called Flush.{name} now"):
        assert getattr(flush, former) is getattr(flush, name)
