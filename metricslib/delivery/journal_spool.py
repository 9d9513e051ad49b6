"""A spool on disk: which batches wait is known in memory, what is in them is read when it is their turn.

The order and the account are those of a spool in memory, for both have the same :class:`~.lanes.Lanes`. What the
journal could not write waits in memory, in its place among the others.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol

from .batch import Batch
from .items import Item, joined
from .journal_file import Record
from .lanes import Lanes
from .spool import Holdings

__all__ = ["JournalSpool", "Log"]


class Log(Protocol):
    """What a spool asks of the journal it is part of. Nothing here is called with a spool's lock held."""

    on_disk: bool

    @property
    def trouble(self) -> str | None: ...

    def put(self, spool: "JournalSpool", batch: Batch) -> None: ...

    def change(self, spool: "JournalSpool", rest: Item | None, freed: Iterable[int]) -> None: ...

    def mark(self, items: Iterable[Item], taken: bool) -> None: ...

    def read(self, item: Item) -> Batch | None: ...

    def save(self) -> None: ...


class JournalSpool:
    """The batches for one ``place`` in a journal.

    ``once``: what was on its way when the process died may have arrived and must not be sent again; it is dropped,
    cause ``unconfirmed``.
    """

    def __init__(self, log: Log, place: str, lanes: Lanes, *, once: bool) -> None:
        self.place = place
        self.wake: Callable[[], object] = lambda: None
        """Called when something was found on disk, from the journal's thread."""
        self._log = log
        self._lanes = lanes
        self._once = once
        self._renew()

    def _renew(self) -> None:
        # Re-entrant, for a signal handler may stop the program while the same thread is reading the holdings.
        self._lock = threading.RLock()
        # The journal's thread never waits for the lock, for who has it may wait for the journal's thread.
        self._found: SimpleQueue[tuple[list[Item], Mapping[str, int]]] = SimpleQueue()

    # -- for the courier

    def put(self, batch: Batch) -> None:
        self._log.put(self, batch)

    def refuse(self, points: int, cause: str) -> None:
        with self._lock:
            self._lanes.refuse(points, cause)

    def head(self, *, hurry: bool = False) -> Batch | None:
        while True:
            with self._lock:
                self._take_in()
                taken = self._lanes.take(hurry=hurry)
                freed = self._freed()
            self._log.change(self, None, freed)
            if taken is None or taken.batch:
                return taken.batch if taken else None
            batches = [item.batch or self._log.read(item) for item in taken.items]
            lost = [item for item, batch in zip(taken.items, batches, strict=True) if batch is None]
            if self._once and not lost:
                self._log.mark(taken.items, True)
            with self._lock:
                if self._lanes.taken is not taken:
                    continue
                if lost:
                    self._lanes.lose(lost, "corrupt")
                else:
                    taken.batch = joined([batch for batch in batches if batch], self._lanes.separator)

    def pause(self) -> float | None:
        with self._lock:
            self._take_in()
            return self._lanes.pause()

    def settle(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        with self._lock:
            taken = self._lanes.taken
            rest = self._lanes.settle(batch, remaining, lost)
            freed = self._freed()
        self._log.change(self, rest, freed)
        if self._once and taken and remaining:
            self._log.mark(taken.items, False)

    def rewind(self, seconds: float) -> int:
        with self._lock:
            return self._lanes.rewind(seconds)

    def abandon(self, cause: str) -> int:
        with self._lock:
            self._take_in()
            points = self._lanes.abandon(cause)
            freed = self._freed()
        self._log.change(self, None, freed)
        return points

    def end(self, cause: str) -> int:
        self._log.save()
        with self._lock:
            self._take_in()
            points = self._lanes.abandon(cause, but_on_disk=True)
            freed = self._freed()
        self._log.change(self, None, freed)
        return points

    def holdings(self) -> Holdings:
        with self._lock:
            self._take_in()
            return replace(self._lanes.holdings(), on_disk=self._log.on_disk, trouble=self._log.trouble)

    def forget(self) -> None:
        self._renew()
        self._lanes.clear()

    # -- for the journal

    def item(self, batch: Batch, id: int) -> Item:
        """Return ``batch`` as an item that begins to wait now."""
        return Item(batch, self._lanes.clock.monotonic(), id)

    def record(self, item: Item) -> Record | None:
        """Return what is to be written of ``item``; None where that is done."""
        batch, clock = item.batch, self._lanes.clock
        put = clock.time() - (clock.monotonic() - item.time)
        return Record(item.id, self.place, put, batch, item.length) if batch else None

    def admit(self, item: Item) -> list[int]:
        """Let ``item`` wait; return the ids of what had to be dropped for it."""
        with self._lock:
            self._take_in()
            self._lanes.put(item)
            return self._freed()

    def unsaved(self) -> list[Item]:
        """Return what waits in memory and belongs on disk."""
        with self._lock:
            return [item for item in self._lanes.waiting() if item.batch and item.id]

    def still(self, items: Iterable[Item]) -> set[int]:
        """Return the ids of those items that still wait."""
        with self._lock:
            waiting = {id(item) for item in self._lanes.waiting()}
        return {item.id for item in items if id(item) in waiting}

    def find(self, records: Iterable[Record]) -> list[int]:
        """Let what was found on disk wait in front; return the ids of what must not be sent.

        Called from the journal's thread: it is counted as put when the spool is asked next.
        """
        clock = self._lanes.clock
        wall, now = clock.time(), clock.monotonic()
        items: list[Item] = []
        unconfirmed: list[Item] = []
        for record in records:
            item = Item.on_disk(record.batch, record.length, now - max(0.0, wall - record.put), record.id)
            (unconfirmed if record.taken and self._once else items).append(item)
        self._found.put((items, {"unconfirmed": sum(item.points for item in unconfirmed)}))
        self.wake()
        return [item.id for item in unconfirmed]

    def lose(self, points: int, cause: str) -> None:
        """Count what was found on disk and cannot be sent. Called from the journal's thread."""
        self._found.put(([], {cause: points}))

    def let_go(self) -> None:
        """The journal's file is somebody else's now."""
        with self._lock:
            self._take_in()
            self._lanes.let_go()

    # -- the lock is held

    def _take_in(self) -> None:
        while not self._found.empty():
            items, lost = self._found.get()
            self._lanes.adopt(items)
            for cause, points in lost.items():
                if points:
                    self._lanes.refuse(points, cause)

    def _freed(self) -> list[int]:
        freed, self._lanes.freed = self._lanes.freed, []
        return freed
