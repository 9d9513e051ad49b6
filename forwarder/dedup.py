"""What senders of numbered batches have sent: each batch is in one window, however often it comes.

In: batches, from any number of listeners. Out: a source whose collections say, for each sender, the number of the last
batch that is in them, and a checkpoint participant that notes these numbers together with the flush that has the
batches. From then on they are safe: if the forwarder is killed in the next moment and a sender repeats a batch, it is
recognised.
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
"""How many senders' numbers are remembered. Those that were silent for longest are forgotten first."""
_WORD = "sender/"


class _Sink(Protocol):
    def feed(self, chunks: Sequence[bytes]) -> None: ...

    def drop(self, cause: str, count: int = 1) -> None: ...


class Deduplicator:
    """Recognises batches that a sender repeats. A source of the registry and a participant of the checkpoint.

    The numbers of ``remembered`` senders are kept; a batch that a forgotten sender repeats counts again.
    """

    def __init__(self, *, remembered: int = REMEMBERED, clock: Clock = SYSTEM_CLOCK) -> None:
        self._remembered = remembered
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: list[Aggregates] = []  # collected, and not handed on yet
        self._aggregators: list[Aggregator] = []
        self._listening: list[Callable[[Mapping[str, int]], object]] = []
        self._received: dict[str, int] = {}  # who was heard last stands last
        self._new: dict[str, int] = {}  # what of it was not collected yet
        self._safe: dict[str, int] = {}
        self._forgotten: set[str] = set()  # whose notes are to be deleted
        self._noted: dict[str, int] = {}  # what a flush holds that was not kept yet; the flusher's alone

    def __len__(self) -> int:
        """How many senders are remembered."""
        return len(self._received)

    # -- for listeners

    def add_aggregator(self, aggregator: Aggregator) -> None:
        """Collect from ``aggregator``, too, which is fed by :meth:`take` alone."""
        self._aggregators.append(aggregator)

    def listen(self, told: Callable[[Mapping[str, int]], object]) -> None:
        """Tell ``told``, which must not wait, whenever batches have become safe: by sender, up to which number."""
        self._listening.append(told)

    def take(self, batch: Numbered, sink: _Sink) -> bool:
        """Feed ``sink`` with the batch and return True, unless it was heard before.

        A batch that was too long to be kept is dropped, cause ``batch_too_long``, and counts as heard.
        """
        with self._lock:
            before = self._received.pop(batch.sender, 0)
            self._hear(batch.sender, max(before, batch.number))
            if batch.number <= before:
                return False
            self._new[batch.sender] = batch.number
            if batch.too_long:
                sink.drop("batch_too_long", batch.too_long)
            elif batch.lines:
                sink.feed([batch.lines])
            return True

    def safe(self, sender: str) -> int:
        """Return up to which number the sender's batches are safe; 0 when none is."""
        return self._safe.get(sender, 0)

    def _hear(self, sender: str, number: int) -> None:
        """Remember a sender as the one that was heard last; the lock is held."""
        self._received[sender] = number
        self._forgotten.discard(sender)
        if len(self._received) > self._remembered:
            silent = next(iter(self._received))
            del self._received[silent]
            self._safe.pop(silent, None)
            self._forgotten.add(silent)

    # -- for the registry

    def collect(self) -> Aggregates:
        """Return what is new since the last call with the numbers that belong to it, and forget it.

        After a MemoryError the next call goes on with it.
        """
        aggregates, nothing = Aggregates(), dict[str, int]()
        with self._lock:
            for aggregator in self._aggregators:
                self._parts.append(Aggregates())  # before anything is collected, for this needs memory
                self._parts[-1] = aggregator.collect()
            for part in self._parts:
                aggregates.merge(part)
            self._parts.clear()
            aggregates.received, self._new = self._new, nothing
        return aggregates

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired: free what is kept for it."""
        for aggregator in self._aggregators:
            aggregator.forget(kind, key)

    # -- for the flusher

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        """Note the numbers in the flush, with the time in whole seconds, and delete the notes of whom was forgotten."""
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
        """Tell the listeners what is safe now."""
        noted, self._noted = self._noted, {}
        with self._lock:
            self._safe.update({sender: number for sender, number in noted.items() if sender in self._received})
        if noted:
            for told in self._listening:
                told(noted)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Know again what was noted."""
        known = [(key.removeprefix(_WORD), note.split()) for key, note in notes.items() if key.startswith(_WORD)]
        with self._lock:
            for sender, (number, _) in sorted(known, key=lambda each: int(each[1][1])):
                self._hear(sender, int(number))
                self._safe[sender] = int(number)
