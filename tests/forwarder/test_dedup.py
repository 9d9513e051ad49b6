"""Each batch is in one window, and its number in the notes of that window."""

import pytest

from forwarder.aggregator import Aggregator
from forwarder.dedup import Deduplicator
from forwarder.stats import Counts
from metricslib.wire.numbered import Numbered


@pytest.fixture
def aggregator(registry, clock):
    return Aggregator(registry, clock=clock)


@pytest.fixture
def dedup(registry, clock, aggregator):
    dedup = Deduplicator(remembered=3, clock=clock)
    dedup.add_aggregator(aggregator)
    registry.add_source(dedup)
    return dedup


@pytest.fixture
def take(dedup, aggregator):
    """Call to have a batch with one line taken."""

    def take(sender, number, lines=b"a:1|c\n", **more):
        return dedup.take(Numbered(sender, number, lines, **more), aggregator)

    return take


def noted(dedup, flush):
    return {key: note and int(note.split()[0]) for key, note in dedup.notes(flush, closes=True).items()}


def test_a_batch_counts_once(take, tick, aggregator):
    """However often it comes, and in whatever order old ones come again; the account has each piece once."""
    assert take("x", 1)
    assert not take("x", 1)
    assert take("x", 2)
    assert not take("x", 1)
    flush = tick()
    assert flush.cumulative.counters == {"a": 2}
    assert flush.received == {"x": 2}
    assert not take("x", 2)
    assert tick().cumulative.counters == {"a": 0}
    assert aggregator.counts() == Counts(packets=2, lines=2, received=2, aggregated=2)


def test_numbers_may_have_gaps(take, tick):
    """A sender with a bounded spool had to drop something."""
    assert take("x", 5)
    assert take("x", 900)
    assert not take("x", 6)
    assert tick().received == {"x": 900}


def test_senders_do_not_know_of_each_other(take, tick):
    """Each has numbers of its own."""
    assert [take("x", 1), take("y", 7), take("x", 2), take("y", 8), take("x", 2), take("z", 1)] == [True] * 4 + [
        False,
        True,
    ]
    flush = tick()
    assert flush.cumulative.counters == {"a": 5}
    assert flush.received == {"x": 2, "y": 8, "z": 1}


def test_a_batch_may_be_empty_or_too_long(take, tick, aggregator):
    """What was not kept is dropped, and its number counts as heard, so that it is not sent for ever."""
    assert take("x", 1, b"")
    assert take("x", 2, b"", too_long=3)
    assert not take("x", 2, b"", too_long=3)
    assert tick().received == {"x": 2}
    assert aggregator.counts() == Counts(received=3, dropped={"batch_too_long": 3})


def test_what_is_kept_is_safe(dedup, take, tick, clock):
    """Its number is noted with the flush that it is in, and told to the listeners when that is kept, not before."""
    told = []
    dedup.listen(told.append)
    take("x", 1)
    flush = tick()
    take("x", 2)
    assert dedup.notes(flush, closes=True) == {"sender/x": b"1 %d" % clock.time()}
    assert (dedup.safe("x"), told) == (0, [])
    dedup.committed(flush)
    assert (dedup.safe("x"), told) == (1, [{"x": 1}])
    flush = tick()
    assert noted(dedup, flush) == {"sender/x": 2}
    dedup.committed(flush)
    assert told == [{"x": 1}, {"x": 2}]


def test_nothing_new_is_nothing_to_say(dedup, tick):
    """An idle interval adds no notes and sends no answers."""
    dedup.listen(lambda told: pytest.fail("there was nothing to say"))
    flush = tick()
    assert dedup.notes(flush, closes=True) == {}
    dedup.committed(flush)


def test_a_cut_that_was_not_kept_is_noted_with_the_next(dedup, take, tick):
    """The next flush notes its numbers too, so that a sender does not repeat the batch for ever."""
    take("x", 1)
    dedup.notes(tick(), closes=True)
    take("y", 1)
    flush = tick()
    assert noted(dedup, flush) == {"sender/x": 1, "sender/y": 1}
    dedup.committed(flush)
    assert dedup.safe("x") == 1


def test_what_was_noted_is_known_after_a_restart(dedup, take):
    """What comes again is left out, and is safe. Notes of others are passed over."""
    dedup.restore({"sender/x": b"7 1700000000", "series/counter/a": b"{}", "open": b""})
    assert not take("x", 7)
    assert dedup.safe("x") == 7
    assert take("x", 8)


def test_the_sender_that_was_silent_for_longest_is_forgotten(dedup, take, tick):
    """Its note is deleted with the next flush. What it sends again counts again: so much is remembered, and no more."""
    for sender in "abc":
        take(sender, 5)
    dedup.committed(tick())
    take("a", 6)
    take("d", 1)
    assert len(dedup) == 3
    assert noted(dedup, tick()) == {"sender/a": 6, "sender/b": None, "sender/d": 1}
    assert dedup.safe("b") == 0
    assert not take("a", 6)
    assert take("b", 5)


def test_a_restart_remembers_the_last_ones(dedup, tick):
    """Where more was noted than is remembered, the oldest go, and so do their notes."""
    dedup.restore({f"sender/{sender}": b"1 %d" % seen for sender, seen in zip("abcde", (5, 1, 4, 2, 3), strict=True)})
    assert [dedup.safe(sender) for sender in "abcde"] == [1, 0, 1, 0, 1]
    assert noted(dedup, tick()) == {"sender/b": None, "sender/d": None}


def test_a_forgotten_sender_that_comes_back_is_noted(dedup, take, tick):
    """Its note is not deleted."""
    for sender in "abcda":
        take(sender, 1)
    assert noted(dedup, tick()) == {"sender/a": 1, "sender/b": None, "sender/c": 1, "sender/d": 1}


def test_what_expired_is_forgotten_by_the_intakes(dedup, take, tick, registry):
    """The registry is asked again when it comes again."""
    take("x", 1)
    tick()
    assert registry.forget("counter", ["a"]) == ["a"]
    take("x", 2)
    assert tick().cumulative.counters == {"a": 1}
