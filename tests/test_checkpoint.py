"""What checkpoint note is committed with the flush it is true of, or not at all."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.checkpoint import Checkpoint
from metricslib.drops import ErrorReporter
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from tests.peers import FOREVER, GraphitePeer, eventually

CUT = Flush(Window(0, 10, 10), Window(0, 10, 10, counters={"a": 1}))


class Fake:
    """Notes how often it was asked, and remembers what it is told of flushes with something new in them."""

    def __init__(self, *, notes: Exception | None = None) -> None:
        self.broken = notes
        self.asked: list[tuple[Mapping[str, float], bool]] = []
        self.told: list[Mapping[str, float]] = []
        self.restored: Mapping[str, bytes] = {}

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        if self.broken:
            raise self.broken
        if flush.delta.counters:
            self.asked.append((flush.delta.counters, closes))
        return {"fake/asked": b"%d" % len(self.asked)}

    def committed(self, flush: Flush) -> None:
        if flush.delta.counters:
            self.told.append(flush.delta.counters)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        if self.broken:
            raise self.broken
        self.restored = notes


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def test_notes_of_all_are_committed_before_anyone_is_told():
    """In one piece, for they belong to one cut."""
    checkpoint, one, other = Checkpoint(), Fake(), Fake()
    checkpoint.add(one)
    checkpoint.add(other)
    committed = []
    checkpoint.commit(
        CUT, lambda notes: committed.append((dict(notes), len(one.told))), ErrorReporter("test"), closes=True
    )
    assert committed == [({"fake/asked": b"1"}, 0)]
    assert (len(one.told), len(other.told)) == (1, 1)


def test_a_keeper_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture):
    """It is counted, logged once, and not told that something was kept."""
    checkpoint, errors = Checkpoint(), ErrorReporter("test")
    broken, sound = Fake(notes=RuntimeError("broken")), Fake()
    checkpoint.add(broken)
    checkpoint.add(sound)
    committed: list[Mapping[str, bytes | None]] = []
    with caplog.at_level(logging.ERROR, "metricslib"):
        checkpoint.commit(CUT, committed.append, errors, closes=True)
        checkpoint.commit(CUT, committed.append, errors, closes=True)
        checkpoint.restore({"fake/asked": b"7"}, errors)
    assert committed == [{"fake/asked": b"1"}, {"fake/asked": b"2"}]
    assert (broken.told, len(sound.told)) == ([], 2)
    assert sound.restored == {"fake/asked": b"7"}
    assert errors.counts.totals() == {"notes": 2, "restore": 1}
    assert len(caplog.records) == 2


def test_nobody_is_told_of_a_commit_that_failed():
    """What is acknowledged then would be lost."""

    def fails(notes: Mapping[str, bytes | None]) -> None:
        raise OSError("disk")

    checkpoint, errors, participant = Checkpoint(), ErrorReporter("test"), Fake()
    checkpoint.add(participant)
    checkpoint.commit(CUT, fails, errors, closes=True)
    assert (len(participant.asked), participant.told) == (1, [])
    assert errors.counts.totals() == {"commit": 1}


def test_each_cut_is_noted_once_whether_flush_tick_or_stop_made_it(
    registry: Registry, clock: ManualClock, peer: GraphitePeer
):
    """Only the tick closes an interval: what a flush or a stop sent of one may still be continued."""
    flusher, participant = Flusher(registry, peer.url, interval=10, own=""), Fake()
    flusher.add_participant(participant)
    flusher.start()
    counter = registry.counter("a")
    counter.inc(1)
    flusher.flush()
    counter.inc(2)
    clock.advance(10)
    flusher.tick()
    counter.inc(4)
    flusher.stop()
    assert participant.asked == [({"a": 1}, False), ({"a": 2}, True), ({"a": 4}, False)]
    assert participant.told == [{"a": 1}, {"a": 2}, {"a": 4}]


def test_what_is_told_waits_for_every_destination_already(registry: Registry, clock: ManualClock):
    """Including one that is away; a destination that cannot encode costs the commit nothing."""
    flusher = Flusher(registry, ["graphite://127.0.0.1:9", "graphite://127.0.0.1:10"], own="")
    waiting: list[int] = []

    class Looks(Fake):
        def committed(self, flush: Flush) -> None:
            waiting.extend(status.waiting_points for status in flusher.status().destinations)

    flusher.add_participant(Looks())
    registry.counter("a").inc()
    clock.advance(5)
    flusher.tick()
    assert waiting == [2, 2]


@pytest.mark.parametrize(("options", "spool"), [("", False), ("?revise=off", False), ("", True)])
def test_a_flush_may_be_asked_for_without_waiting_for_it(
    registry: Registry, peer: GraphitePeer, tmp_path: Path, options: str, spool: bool
):
    """What was measured until then is committed soon; nobody waits."""
    flusher = Flusher(registry, peer.url + options, interval=FOREVER, own="", spool=tmp_path if spool else None)
    participant = Fake()
    flusher.add_participant(participant)
    flusher.start()
    registry.counter("a").inc()
    flusher.flush_soon()
    eventually(lambda: participant.told == [{"a": 1}])
    flusher.stop()


def test_nothing_is_committed_soon_that_would_miss_its_slot(registry: Registry, peer: GraphitePeer, tmp_path: Path):
    """A destination that takes each slot once gets it at the end. Were the process killed before, with the flush
    committed and answered for, nobody would send it that.
    """
    flusher = Flusher(registry, f"{peer.url}?revise=off", interval=FOREVER, own="", spool=tmp_path)
    participant = Fake()
    flusher.add_participant(participant)
    flusher.start()
    registry.counter("a").inc()
    flusher.flush_soon()
    registry.counter("a").inc()
    flusher.stop()
    assert participant.told == [{"a": 2}]
