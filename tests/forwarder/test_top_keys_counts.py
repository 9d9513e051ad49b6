"""Space-saving against exact counts: nothing frequent is missed, and no count is further off than it says."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forwarder.top_keys import Counted, SpaceSaving

STREAMS = st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.integers(1, 50)), max_size=200)


def check(summary: SpaceSaving, exact: Counter, capacity: int) -> None:
    """All that the paper promises."""
    top = summary.top()
    total = exact.total()
    assert summary.total == total == sum(entry.estimate for entry in top)
    assert len(summary) == len(top) == min(len(exact), len(top)) <= capacity
    assert len({entry.key for entry in top}) == len(top)
    assert {key for key, count in exact.items() if count > total / capacity} <= {entry.key for entry in top}
    for key, count, error in top:
        assert count - error <= exact[key] <= count
        assert error <= total / capacity
    assert [entry.estimate for entry in top] == sorted((entry.estimate for entry in top), reverse=True)


@given(STREAMS, st.integers(1, 20))
def test_what_the_paper_promises_holds(stream, capacity):
    """For any stream, whether things come one by one or several at a time, at every moment."""
    summary, exact = SpaceSaving(capacity), Counter()
    for key, times in stream:
        summary.add(key, times)
        exact[key] += times
        check(summary, exact, capacity)


@given(STREAMS)
def test_with_a_counter_for_everything_counts_are_exact(stream):
    """Errors come only with the first that found no counter."""
    summary, exact = SpaceSaving(16), Counter()
    for key, times in stream:
        summary.add(key, times)
        exact[key] += times
    counted = [Counted(key, count, 0) for key, count in exact.items()]
    assert summary.top() == sorted(counted, key=lambda entry: (-entry.estimate, entry.key))


def test_a_long_tail_does_not_hide_what_is_frequent():
    """A hundred thousand keys of which ten are busy, in a hundred counters, in any order."""
    dice = random.Random(1)
    stream = [f"rare{number}" for number in range(100_000)] + [f"busy{number}" for number in range(10)] * 5_000
    dice.shuffle(stream)
    summary = SpaceSaving(100)
    for key in stream:
        summary.add(key)
    check(summary, Counter(stream), 100)
    assert {entry.key for entry in summary.top()[:10]} == {f"busy{number}" for number in range(10)}


def test_memory_is_bounded_by_the_counters():
    """Whatever comes, there is one entry a counter everywhere."""
    summary = SpaceSaving(10)
    for number in range(1000):
        summary.add(str(number))
        summary.add(str(number % 7))
    assert len(summary._counts) == len(summary._heap) == 10
    assert len(summary._errors) <= 10
