"""The journal: what waits for all of a process' destinations, and the notes of its keepers, in a directory on disk.

One file a process, locked while it lives. A start takes over the file that was written to last by a process that is
gone, with its notes; what waits in other such files is adopted then and about once a minute, for the destinations that
this process has. A forked child makes a file of its own.

A disk that is full, read-only or away costs nothing but the promise: what cannot be written waits in memory, in its
place among the rest, and is written when the disk is back. A damaged file is set aside, and what can be read of it is
saved into a new one.
"""

import itertools
import logging
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..clock import SYSTEM_CLOCK, Clock
from .batch import Batch, Deadline
from .desk import Desk
from .items import Item
from .journal_file import Record
from .journal_spool import JournalSpool
from .lanes import Lanes
from .owner import Gone, Owner

__all__ = ["Journal"]

log = logging.getLogger("metricslib")

_RETRY = 30.0
"""Seconds after which a disk that could not be written is tried again."""
_LOOK = 60.0
"""Seconds between looks for the files of dead processes."""

Result = TypeVar("Result")


class Journal:
    """Spools in ``directory``. Nothing is opened before :meth:`open`; what is put before waits in memory.

    ``retry`` and ``look`` are seconds: between attempts to write to a disk that refuses, and between looks for what
    dead processes left.
    """

    def __init__(
        self, directory: str | Path, *, clock: Clock = SYSTEM_CLOCK, retry: float = _RETRY, look: float = _LOOK
    ) -> None:
        self.directory = Path(directory)
        self._clock = clock
        self._retry = retry
        self._spools: dict[str, JournalSpool] = {}
        self._owner = Owner(lambda: Desk(self.directory, self._spools), self._look, look)
        self._begin()

    def _begin(self) -> None:
        # By the machine's own clock, and finer than anybody starts: ids are unique among the files of a directory, and
        # grow from one process to the next.
        self._ids = itertools.count((time.time_ns() // 1000 << 12) + secrets.randbelow(1 << 12))
        self._own = True
        self._notes: dict[str, bytes] = {}
        self._owed: set[int] = set()
        self._owed_notes: dict[str, bytes | None] = {}
        self._behind = False
        self._again = 0.0
        self._why: str | None = None
        self._damage: str | None = None
        self._logged: set[str] = set()
        self._answer_by: Deadline | None = None
        self.on_disk = False
        """Whether what is put now outlives the process."""

    @property
    def trouble(self) -> str | None:
        """For people: why it is not on disk, or what was wrong there."""
        return self._why or self._damage

    # -- open and close

    def spool(self, place: str, lanes: Lanes, *, once: bool) -> JournalSpool:
        """Return the spool of a new destination. What waits on disk for the same place becomes its own."""
        while place in self._spools:
            place += "+"  # twice the same destination
        spool = self._spools[place] = JournalSpool(self, place, lanes, once=once)
        if self.on_disk:
            self._ask(lambda desk: desk.hand_over([place]))
        return spool

    def drop(self, spool: JournalSpool) -> None:
        """Its destination has gone: nothing more is found for it."""
        if self._spools.get(spool.place) is spool:
            del self._spools[spool.place]

    def open(self, *, own: bool = True) -> Mapping[str, bytes]:
        """Begin to write, and return the notes that were found. Raises nothing: without a disk it works in memory.

        ``own=False`` is for a forked child: it leaves the notes of dead processes alone, and keeps none.
        """
        for spool in self._spools.values():
            spool.let_go()
        self._begin()
        self._own = own
        try:
            self._owner.start()
        except Gone as error:
            self._cannot(error)
        self.save()
        notes, self._notes = self._notes, {}
        return notes

    def answer_by(self, deadline: Deadline) -> None:
        """From now on, until it is opened again, wait for a disk that does not answer no longer than ``deadline``.

        What it has not confirmed by then counts as not written.
        """
        self._answer_by = deadline

    def close(self, timeout: float = 2.0) -> None:
        """Write no more, and leave the file to whoever comes next. What waits on disk stays there.

        A disk that does not answer is waited for at most ``timeout`` seconds.
        """
        deadline = self._answer_by = Deadline(timeout)
        self._ask(lambda desk: desk.close(self._owed, self._owed_notes))
        self._owner.end(deadline.left())
        self.on_disk = False

    def forget(self) -> None:
        """In a forked child: the file is the parent's. Whoever has spools of it forgets what is in them."""
        self._begin()

    # -- work

    def commit(
        self, puts: Sequence[tuple[JournalSpool, Batch]], notes: Mapping[str, bytes | None] | None = None
    ) -> None:
        """Put batches into spools, and note, all of it in one transaction: it is on disk when this returns.

        Where the disk refuses, it is in memory.
        """
        if self._behind and self._clock.monotonic() >= self._again:
            self.save()
        items = [(spool, spool.item(batch, next(self._ids))) for spool, batch in puts]
        written = self._write(items, (), notes or {})
        freed = [id for spool, item in items for id in spool.admit(item)]
        self._behind = self._behind or not written
        if freed:
            self._write((), freed, {})

    def put(self, spool: JournalSpool, batch: Batch) -> None:
        """Put one batch."""
        self.commit([(spool, batch)])

    def change(self, spool: JournalSpool, rest: Item | None, freed: Iterable[int]) -> None:
        """Take out what waits no more, and put what remains of a batch in its place."""
        freed = list(freed)
        if rest or freed:
            written = self._write([(spool, rest)] if rest else (), freed, {})
            self._behind = self._behind or not written

    def mark(self, items: Iterable[Item], taken: bool) -> None:
        """Remember whether batches are on their way."""
        ids = [item.id for item in items if item.id]
        if ids and self.on_disk:
            self._ask(lambda desk: desk.work(lambda file: file.mark(ids, taken)))

    def read(self, item: Item) -> Batch | None:
        """Return a batch with its payload, None when that is lost. Raises what SQLite raises when it cannot read."""
        record = self._owner.do(lambda desk: desk.work(lambda file: file.record(item.id)), self._patience)
        return record.batch if record else None

    def save(self) -> None:
        """Write what waits in memory."""
        self._again = 0.0
        waiting = [(spool, item) for spool in list(self._spools.values()) for item in spool.unsaved()]
        self._behind = False
        if not self._write(waiting, (), {}):
            self._behind = True
            return
        still = {id for spool in list(self._spools.values()) for id in spool.still([item for _, item in waiting])}
        if gone := [item.id for _, item in waiting if item.id not in still]:
            self._write((), gone, {})  # delivered in the meantime

    def _write(
        self, items: Iterable[tuple[JournalSpool, Item]], freed: Iterable[int], notes: Mapping[str, bytes | None]
    ) -> bool:
        """Write all of it; return whether it is on disk. Items that are need no payload in memory any more."""
        items = list(items)
        records = [record for spool, item in items if (record := spool.record(item))]
        written = self._ask(lambda desk: self._apply(desk, records, freed, notes)) or False
        if written:
            for _, item in items:
                item.batch = None
        return written

    @property
    def _patience(self) -> float:
        return self._answer_by.left() if self._answer_by else math.inf

    def _ask(self, work: Callable[[Desk], Result]) -> Result | None:
        """Have the thread do it; return None where there is no thread, or the disk refused or did not answer."""
        try:
            return self._owner.do(partial(self._at, work), self._patience)
        except Gone:
            return None
        except (sqlite3.Error, OSError) as error:
            self._cannot(error)
            return None

    # -- in the journal's thread

    def _at(self, work: Callable[[Desk], Result], desk: Desk) -> Result:
        try:
            return work(desk)
        finally:
            self._damage = desk.damage

    def _apply(
        self, desk: Desk, records: Sequence[Record], freed: Iterable[int], notes: Mapping[str, bytes | None]
    ) -> bool:
        self._owed.update(freed)
        if self._own:
            self._owed_notes.update(notes)
        if not self.on_disk and self._clock.monotonic() < self._again:
            return False
        if desk.closed:
            self._open(desk)
        desk.work(lambda file: file.write(records, self._owed, self._owed_notes))
        self._owed.clear()
        self._owed_notes.clear()
        if self._why:
            log.info("spool %s: can be written again", self.directory)
        self._why, self.on_disk = None, True
        return True

    def _open(self, desk: Desk) -> None:
        notes = desk.open(own=self._own)
        self._notes = dict(notes) if self._own else {}
        self.on_disk = True
        self._look(desk)

    def _look(self, desk: Desk) -> None:
        """Adopt what dead processes left. Where that fails, it is tried again, and our own file is none the worse."""
        if self.on_disk and not desk.closed:
            try:
                desk.adopt()
            except (sqlite3.Error, OSError) as error:
                if str(error) not in self._logged:
                    self._logged.add(str(error))
                    log.warning("spool %s: a file in it cannot be taken over: %s", self.directory, error)

    def _cannot(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        if reason != self._why:
            log.warning("spool %s: %s; what waits is kept in memory until it can be written", self.directory, reason)
        self._why, self.on_disk = reason, False
        self._again = self._clock.monotonic() + self._retry
