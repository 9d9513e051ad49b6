"""A queue in memory says what one on disk has to do: whatever happens, both answer the same.

The disk refuses now and then, which nobody can tell from the answers; and the process is started again.
"""

import sqlite3
import tempfile
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from metricslib.delivery import Batch, Queue, QueueStats
from metricslib.delivery.store import Store
from metricslib.delivery.store.file import SpoolFile
from metricslib.testing import ManualClock


class BothStores(RuleBasedStateMachine):
    """Two queues with the same bounds, and the same done to both."""

    bounds: ClassVar[dict[str, Any]] = {"max_bytes": 3000, "max_age": 100, "keep": 60, "replay": 10, "join": b"|"}

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.directory = tempfile.TemporaryDirectory()
        self.full = False
        self.memory = self.queue()
        self.number = 0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(SpoolFile, "write", self.writing(SpoolFile.write))
        self.open()

    def queue(self, store: Store | None = None) -> Queue:
        return Queue(clock=self.clock, label="place", store=store, **self.bounds)

    def open(self) -> None:
        self.store = Store(self.directory.name, clock=self.clock, retry=5)
        self.disk = self.queue(self.store)
        self.store.open()

    def writing(self, write: Callable[..., None]) -> Callable[..., None]:
        def writing(*arguments: Any, **more: Any) -> None:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            write(*arguments, **more)

        return writing

    def teardown(self) -> None:
        self.store.close()
        self.patch.undo()
        self.directory.cleanup()

    def both(self, call: Callable[[Any], Any]) -> Any:
        """Do something to both; return what both answer."""
        one, other = call(self.memory), call(self.disk)
        assert one == other
        return one

    @rule(stamp=st.integers(0, 3), points=st.integers(0, 9), size=st.integers(0, 900))
    def put(self, stamp: int, points: int, size: int) -> None:
        self.number += 1
        batch = Batch(stamp, points, b"%d " % self.number + b"x" * size)
        self.both(lambda queue: queue.put([batch]))

    @rule(points=st.integers(0, 9))
    def refuse(self, points: int) -> None:
        self.both(lambda queue: queue.refuse(points, "unsupported"))

    @rule(
        hurry=st.booleans(), outcome=st.sampled_from(["arrives", "fails", "remains", "comes back"]), lost=st.booleans()
    )
    def deliver(self, hurry: bool, outcome: str, lost: bool) -> None:
        one, other = self.memory.take(hurry=hurry), self.disk.take(hurry=hurry)
        assert as_text(one) == as_text(other)
        if one is None or other is None:
            return
        remains = one.points // 2 if outcome == "remains" else 0
        rest = Batch(one.stamp, remains, one.payload[: len(one.payload) // 2]) if remains else None
        causes = {"refused": 1} if lost and one.points > remains else {}
        for queue, taken in ((self.memory, one), (self.disk, other)):
            if outcome == "fails":
                queue.retry(taken)
            elif rest:
                queue.retry(taken, rest, causes)
            else:
                queue.ack(taken, causes, resend=outcome == "comes back")

    @rule(hurry=st.booleans())
    def take(self, hurry: bool) -> None:
        self.both(lambda queue: as_text(queue.take(hurry=hurry)))

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def abandon(self) -> None:
        self.both(lambda queue: queue.drop_all("shutdown"))

    @rule(full=st.booleans())
    def fill_or_free_the_disk(self, full: bool) -> None:
        self.full = full

    @invariant()
    def answer_the_same(self) -> None:
        self.both(lambda queue: queue.wait())
        self.both(lambda queue: account(queue.stats()))


class Restarts(BothStores):
    """With a new process now and then, which finds what waited; while the disk is full, all it cannot is counted."""

    bounds: ClassVar[dict[str, Any]] = {}

    @precondition(lambda self: not self.full)
    @rule()
    def restart(self) -> None:
        self.disk.drop_unsaved("shutdown")
        self.store.close()
        self.open()
        before, self.memory = self.memory, self.queue()
        while batch := before.take():
            before.ack(batch)
            self.memory.put([batch])


def as_text(batch: Batch | None) -> str:
    return "nothing" if batch is None else f"{batch.stamp} {batch.points} {batch.windows} {batch.payload!r}"


def account(held: QueueStats) -> tuple[Any, ...]:
    assert held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points
    return (
        held.put,
        held.delivered,
        held.windows,
        {cause: points for cause, points in held.dropped.items() if points},
        (held.waiting_points, held.waiting_batches, held.waiting_bytes),
        (held.backlog_points, held.backlog_batches, held.replay_rate),
    )


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
