"""Recognises repeated numbered batches, so that each batch is in exactly one window.

In: batches from any number of listeners. Out: a source of the registry whose collections contain, for each sender, the
number of the last batch in them; and a checkpoint participant that stores these numbers together with the flush that
contains the batches. From then on the batches are safe: even after a sudden death, a repeated batch is recognised.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.series import Kind
from metricslib.window import Aggregates, Flush
from metricslib.wire.numbered import Numbered

from .aggregator import Aggregator

__all__ = ["REMEMBERED", "Deduplicator"]

REMEMBERED = 100_000
"""Maximum number of remembered senders. The sender that has been idle longest is forgotten first."""
_WORD = "sender/"


class _Sink(Protocol):
    def feed(self, chunks: Sequence[bytes]) -> None: ...

    def drop(self, cause: str, count: int = 1) -> None: ...


class Deduplicator:
    """Recognises repeated batches. A source of the registry and a participant of the checkpoint.

    It remembers the numbers of ``remembered`` senders. A repeated batch of a forgotten sender counts again.
    """

    def __init__(self, *, remembered: int = REMEMBERED, clock: Clock = SYSTEM_CLOCK) -> None:
        self._remembered = remembered
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: list[Aggregates] = []  # collected, but not returned yet
        self._aggregators: list[Aggregator] = []
        self._listening: list[Callable[[Mapping[str, int]], object]] = []
        self._received: dict[str, int] = {}  # the last number of each sender, in the order of their last batches
        self._new: dict[str, int] = {}  # the received numbers that have not been collected yet
        self._safe: dict[str, int] = {}
        self._forgotten: set[str] = set()  # senders whose notes must be deleted
        self._noted: dict[str, int] = {}  # numbers in flushes that are not committed; used by the flusher's thread only

    def __len__(self) -> int:
        """Return the number of remembered senders."""
        return len(self._received)

    # -- for listeners

    def add_aggregator(self, aggregator: Aggregator) -> None:
        """Add an aggregator to collect from. Only :meth:`take` may feed it."""
        self._aggregators.append(aggregator)

    def listen(self, callback: Callable[[Mapping[str, int]], object]) -> None:
        """Call ``callback`` with the last safe number of each sender when batches become safe. It must not block."""
        self._listening.append(callback)

    def take(self, batch: Numbered, sink: _Sink) -> bool:
        """Feed ``sink`` with the batch and return True, or return False if it is a repetition.

        A batch that is too long is dropped, cause ``batch_too_long``, and counts as received.
        """
        with self._lock:
            before = self._received.pop(batch.sender, 0)
            self._remember(batch.sender, max(before, batch.number))
            if batch.number <= before:
                return False
            self._new[batch.sender] = batch.number
            if batch.too_long:
                sink.drop("batch_too_long", batch.too_long)
            elif batch.lines:
                sink.feed([batch.lines])
            return True

    def safe(self, sender: str) -> int:
        """Return the number up to which the sender's batches are safe, or 0 if none are."""
        return self._safe.get(sender, 0)

    def _remember(self, sender: str, number: int) -> None:
        """Remember the number of a sender as the most recent one. The lock is held."""
        self._received[sender] = number
        self._forgotten.discard(sender)
        if len(self._received) > self._remembered:
            silent = next(iter(self._received))
            del self._received[silent]
            self._safe.pop(silent, None)
            self._forgotten.add(silent)

    # -- for the registry

    def collect(self) -> Aggregates:
        """Return the aggregates since the last call, with the numbers of their batches.

        After a MemoryError, the next call returns them.
        """
        aggregates, nothing = Aggregates(), dict[str, int]()
        with self._lock:
            for aggregator in self._aggregators:
                self._parts.append(Aggregates())  # before the collection, because this needs memory
                self._parts[-1] = aggregator.collect()
            for part in self._parts:
                aggregates.merge(part)
            self._parts.clear()
            aggregates.received, self._new = self._new, nothing
        return aggregates

    def forget(self, kind: Kind, key: str) -> None:
        """Free the memory of an expired series."""
        for aggregator in self._aggregators:
            aggregator.forget(kind, key)

    # -- for the flusher

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return the numbers in the flush, with the time in whole seconds, and None for forgotten senders."""
        now = int(self._clock.time())
        with self._lock:
            forgotten, self._forgotten = self._forgotten, set()
        self._noted.update(flush.received)
        notes: dict[str, bytes | None] = {}
        for sender, number in self._noted.items():
            notes[_WORD + sender] = b"%d %d" % (number, now)
        for sender in forgotten:
            notes[_WORD + sender] = None
        return notes

    def committed(self, flush: Flush) -> None:
        """Report the numbers that are safe now to the listeners."""
        noted, self._noted = self._noted, {}
        with self._lock:
            self._safe.update({sender: number for sender, number in noted.items() if sender in self._received})
        if noted:
            for callback in self._listening:
                callback(noted)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Restore the numbers from the checkpoint."""
        known = [(key.removeprefix(_WORD), note.split()) for key, note in notes.items() if key.startswith(_WORD)]
        with self._lock:
            for sender, (number, _) in sorted(known, key=lambda each: int(each[1][1])):
                self._remember(sender, int(number))
                self._safe[sender] = int(number)
