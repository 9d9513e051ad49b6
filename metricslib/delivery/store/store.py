"""The store: the waiting batches of all destinations of a process, and its checkpoint, in a directory on disk.

::

    queues ── put, read, mark, ack ──▶ Store ── one transaction ──▶ Disk (in its thread) ── spool-….sqlite, locked
       ▲                               pending                        │
       └────────────── hand_over ─────────────────────────────────────┘ files of dead processes

*Writing.* Every change is first *pending*, in memory. :meth:`Store.sync` writes all pending changes in one transaction;
after that they are no longer pending. So a disk that is full, read-only, hung or not available needs no special case:
changes stay pending, reads find them there, and the next successful sync writes them. A sync is tried again every
``retry`` seconds. If a change is reversed while it is being written (put, then acknowledged), the next sync undoes it.

*After a crash at any line*, the file contains a prefix of the transactions. The batches of an interval for all
destinations and the checkpoint that matches them are in one transaction. A batch that was sent and not yet removed is
sent once more. If this would be harmful, the batch was marked before it was sent; then its queue drops it, cause
``unconfirmed``.

*Files.* Each process has one file, locked while the process lives. When a process starts, it takes over the file of a
dead process that was written last, with its checkpoint. Batches in other files of dead processes are adopted at the
start and once a minute, for the destinations that this process has. While a batch is moved, it is in both files under
the same id, so it is recognised as the same batch.

*Errors.* A damaged file is set aside, and the queues count its points as dropped, cause ``corrupt``. A file or
directory that was removed while in use is created again with all its data, because an open file can still be read. A
full disk does not even accept a deletion, so some space is reserved, which can be freed. If no batch waits any more,
the file is replaced by an empty one (a crash at that moment loses the checkpoint). A forked child creates its own file.
"""

import itertools
import logging
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...clock import SYSTEM_CLOCK, Clock
from ..batch import Batch, Deadline, quantity
from .file import Changes, Record, SpoolFile, damaged, points_in
from .lockfile import LockFile
from .thread import Gone, StoreThread

__all__ = ["Store", "cannot_write"]

log = logging.getLogger("metricslib")

_RETRY = 30.0
"""Seconds until the next attempt to write, after the disk has refused."""
_LOOK = 60.0
"""Seconds between searches for the files of dead processes."""
_CHUNK = 8 << 20
"""Maximum number of bytes of batches that are moved to another file in one transaction."""

Result = TypeVar("Result")
HandOver = Callable[[list[Record], Mapping[str, int]], object]


class Store:
    """Batches and a checkpoint in ``directory``. Until :meth:`open`, no file is opened, and all changes are pending.

    ``retry`` is the number of seconds between attempts to write to a disk that refuses, ``look`` that between searches
    for the files of dead processes. Thread-safe. Only :meth:`read` may raise.
    """

    def __init__(
        self, directory: str | Path, *, clock: Clock = SYSTEM_CLOCK, retry: float = _RETRY, look: float = _LOOK
    ) -> None:
        self.directory = Path(directory)
        self._clock = clock
        self._retry = retry
        self._places: dict[str, HandOver] = {}
        self._thread = StoreThread(lambda: _Disk(self.directory, self._places), _Disk.adopt, look, clock)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """In a forked child, discard the file and pending changes, which belong to the parent."""
        # Ids start at the system's time in microseconds, with a random part. So they are unique in all files of a
        # directory, and increase from one process to the next.
        self._ids = itertools.count((time.time_ns() // 1000 << 12) + secrets.randbelow(1 << 12))
        self._lock = threading.RLock()  # held for short times only, and never while waiting for the thread
        self._pending = Changes()
        self._writing: Mapping[int, Record] = {}
        self._own = True
        self._found: Mapping[str, bytes] = {}
        self._again = 0.0
        self._why: str | None = None
        self._note: str | None = None
        self._removed = False
        self._answer_by: Deadline | None = None
        self.on_disk = False
        """True if new data survives the process."""

    @property
    def trouble(self) -> str | None:
        """Why data is not on disk, or what was wrong with the files, as a sentence, or None."""
        return self._why or self._note

    # -- open and close

    def register(self, place: str, hand_over: HandOver) -> str:
        """Register a queue, and return its name. The store's thread passes batches found for it to ``hand_over``."""
        while place in self._places:
            place += "+"  # the same destination is used twice
        self._places[place] = hand_over
        if self.on_disk:
            self._ask(lambda disk: disk.hand_over([place]))
        return place

    def unregister(self, place: str) -> None:
        """Pass no more batches to this queue, because its destination was removed."""
        self._places.pop(place, None)

    def open(self, *, own: bool = True) -> Mapping[str, bytes]:
        """Open the directory, and return the checkpoint in it. If the disk refuses, all changes stay pending.

        ``own=False`` is for a forked child, which neither uses checkpoints of dead processes nor writes its own.
        """
        self._own, self._answer_by, self._found = own, None, {}
        self._why = self._note = None
        try:
            self._thread.start()
        except Gone as error:
            self._refused(error)
        self.sync(force=True)
        return self._found

    def answer_by(self, deadline: Deadline) -> None:
        """Until the next :meth:`open`, do not wait longer than ``deadline`` for a disk that does not answer.

        Changes that it has not confirmed by then count as not written.
        """
        self._answer_by = deadline

    def close(self, timeout: float = 2.0) -> None:
        """Close the file, and release it for the next process. Waiting batches on disk stay there.

        Waits at most ``timeout`` seconds for a disk that does not answer.
        """
        deadline = self._answer_by = Deadline(timeout)
        if self._pending.gone or self._pending.checkpoint:
            self.sync(force=True)
        self._ask(lambda disk: disk.close())
        self._thread.stop(deadline.left())
        self.on_disk = False

    # -- batches and checkpoint

    def new_id(self) -> int:
        """Return the id of a new record."""
        return next(self._ids)

    def put(self, records: Iterable[Record], checkpoint: Mapping[str, bytes | None] | None = None) -> None:
        """Store records, which replace those with the same ids, and entries of the checkpoint; None deletes an entry.

        All changes are in one transaction, which is on disk when this returns, unless the disk refuses.
        """
        with self._lock:
            self._pending.records.update({record.id: record for record in records})
            if self._own:
                self._pending.checkpoint.update(checkpoint or {})
        self.sync()

    def ack(self, ids: Iterable[int]) -> None:
        """Remove batches that were delivered or dropped."""
        pending = self._pending
        with self._lock:
            for id in ids:
                pending.marks.pop(id, None)
                if pending.records.pop(id, None) is None or id in self._writing:
                    pending.gone.add(id)
        self.sync()

    def mark(self, ids: Sequence[int], taken: bool) -> None:
        """Store whether batches are being sent."""
        with self._lock:
            self._pending.marks.update(dict.fromkeys(ids, taken))
        self.sync()

    def read(self, id: int) -> Batch | None:
        """Return a batch with its payload, or None if it is lost. Raises sqlite3.Error if it cannot be read."""
        with self._lock:
            record = self._pending.records.get(id)
        if record is None:
            record = self._thread.do(lambda disk: self._noting(disk, lambda: disk.read(id)), self._patience)
        return record.batch if record else None

    def save(self) -> set[int] | None:
        """Write pending changes. Return the ids of batches that cannot be written, or None if none can be."""
        self.sync(force=True)
        return self.unsaved()

    def unsaved(self) -> set[int] | None:
        """Return the ids of batches that are not on disk, or None if none are on disk."""
        with self._lock:
            return None if self._removed else set(self._pending.records)

    def sync(self, *, force: bool = False) -> None:
        """Write pending changes, unless the disk refused less than ``retry`` seconds ago. ``force``: write at once."""
        if force or self.on_disk or self._clock.monotonic() >= self._again:
            self._ask(self._write)

    @property
    def _patience(self) -> float:
        return self._answer_by.left() if self._answer_by else math.inf

    def _ask(self, work: "Callable[[_Disk], object]") -> None:
        """Run ``work`` in the store's thread, if there is one. Record if the disk refuses."""
        try:
            self._thread.do(lambda disk: self._noting(disk, lambda: work(disk)), self._patience)
        except Gone:
            pass
        except (sqlite3.Error, OSError) as error:
            self._refused(error)

    def _refused(self, error: Exception) -> None:
        reason = _reason(error)
        if reason != self._why:
            log.warning(
                "spool %s: %s; undelivered data is kept in memory until it can be written", self.directory, reason
            )
        self._why, self.on_disk = reason, False
        self._again = self._clock.monotonic() + self._retry

    # -- in the thread

    def _noting(self, disk: "_Disk", work: Callable[[], Result]) -> Result:
        try:
            return work()
        finally:
            self._note, self._removed = disk.trouble, disk.removed

    def _write(self, disk: "_Disk") -> None:
        if disk.closed:
            found = disk.open(own=self._own)
            self._found = found if self._own else {}
            disk.adopt()
            # The machine's clock may have been set back since those batches were put: new ones come after them.
            self._ids = itertools.count(max(next(self._ids), disk.last_id() + 1))
        pending = self._pending
        with self._lock:
            changes = Changes(dict(pending.records), set(pending.gone), dict(pending.marks), dict(pending.checkpoint))
            self._writing = changes.records
        try:
            disk.write(changes)
        except BaseException:
            with self._lock:
                self._writing = {}
                for key, value in changes.checkpoint.items():  # including that of a file that was replaced
                    pending.checkpoint.setdefault(key, value)
            raise
        with self._lock:
            self._writing = {}
            _forget(pending.records, changes.records)
            _forget(pending.marks, changes.marks)
            _forget(pending.checkpoint, changes.checkpoint)
            pending.gone -= changes.gone
        if self._why:
            log.info("spool %s: can be written again", self.directory)
        self._why, self.on_disk = None, True


def _forget(pending: dict[Any, Any], written: Mapping[Any, Any]) -> None:
    """Remove changes that were written from ``pending``, unless they have been replaced since."""
    for key, value in written.items():
        if pending.get(key, pending) is value:
            del pending[key]


class _Disk:
    """The open files of the store's thread: the file of this process and, for short times, those of dead ones.

    Only that thread may use it. ``_lock`` and ``_file`` are the file of this process, unless ``closed``. Methods raise
    sqlite3.Error or OSError if the disk refuses.
    """

    _lock: LockFile
    _file: SpoolFile

    def __init__(self, directory: Path, places: Mapping[str, HandOver]) -> None:
        self.closed = True
        self.trouble: str | None = None
        """The last problem with a file, as a sentence, or None."""
        self.removed = False
        """True if the file was removed while in use and could not be created again yet."""
        self._directory = directory
        self._places = places
        self._passed: set[tuple[Path, float]] = set()
        self._told: set[str] = set()

    def open(self, *, own: bool) -> Mapping[str, bytes]:
        """Take over the newest file of a dead process if ``own``, or create a file. Return its checkpoint."""
        for lock in LockFile.of_the_dead(self._directory, self._left_alone) if own else ():
            if file := self._opened(lock):
                self._use(lock, file)
                break
        else:
            self._make()
        self._lock.keep_spare()
        self.hand_over(list(self._places))
        return self._file.checkpoint()

    def close(self) -> None:
        """Release the file, or delete it if it is empty."""
        if self.closed:
            return
        self.closed = True
        try:
            empty = self._file.empty
        except sqlite3.Error:
            empty = False
        self._file.close()
        self._lock.free_spare()
        if empty:
            self._lock.remove()
        self._lock.release()

    # -- work on the file of this process

    def last_id(self) -> int:
        return self._work(lambda file: file.last_id)

    def read(self, id: int) -> Record | None:
        return self._work(lambda file: file.read(id))

    def write(self, changes: Changes) -> None:
        """Write all changes in one transaction."""
        if not self._lock.in_place:
            self._make_anew()
        try:
            self._work(lambda file: file.write(changes))
        except sqlite3.Error as error:
            if damaged(error) or not (changes.gone or self._file.idle):
                raise
            self._make_room(changes)
            self._work(lambda file: file.write(changes))
            self._lock.keep_spare()

    def _work(self, work: Callable[[SpoolFile], Result]) -> Result:
        """Run ``work`` on the file. If the file is damaged, replace it and run ``work`` again."""
        try:
            return work(self._file)
        except sqlite3.Error as error:
            if not damaged(error):
                raise
        self._file.close()
        self._set_aside(self._lock)  # the queues count lost batches when they try to read them
        self._make()
        self._lock.keep_spare()
        return work(self._file)

    def _make(self) -> None:
        lock = LockFile.new(self._directory)
        try:
            self._use(lock, SpoolFile(lock.path))
        except BaseException:
            lock.remove()
            raise

    def _use(self, lock: LockFile, file: SpoolFile) -> None:
        self._lock, self._file, self.closed = lock, file, False

    def _make_anew(self) -> None:
        """Create the file again after it, or its directory, was removed. The open file can still be read."""
        lock, file = self._lock, self._file
        self.removed = True
        self._make()
        try:
            self._work(lambda new: new.write(Changes(checkpoint=dict(file.checkpoint()))))
            self._move(file, None)
        except BaseException:
            self._lock.remove()
            self._file.close()
            self._use(lock, file)
            raise
        self._lock.keep_spare()
        self.removed = False
        self.trouble = "files were removed from it while in use; the waiting data was written again"
        log.error("spool %s: %s", self._directory, self.trouble)
        file.close()
        lock.release()

    def _make_room(self, changes: Changes) -> None:
        """Handle a full disk: delete removed batches with the help of the reserved space, or replace the file.

        If the file is replaced, its checkpoint is added to ``changes``, which are written next.
        """
        self._lock.free_spare()
        try:
            if changes.gone:
                self._file.write(Changes(gone=changes.gone))
            self._file.shrink(0)
        except sqlite3.Error:
            if any(record.id not in changes.gone for record in self._file.records()):
                raise
            changes.checkpoint = {**self._file.checkpoint(), **changes.checkpoint}
            self._file.close()
            self._lock.remove()
            self.closed = True  # if no file can be created now, the next change tries again
            self._make()

    # -- files of dead processes

    def hand_over(self, places: Iterable[str]) -> None:
        """Pass the waiting batches in the file of this process to their queues."""
        found = _by_place(self._work(SpoolFile.records))
        for place in places:
            if records := found.get(place):
                self._places[place](records, {})
        for place in found.keys() - self._places.keys():
            waiting = quantity(len(found[place]), "batch")
            log.warning("spool %s: %s for %s, which is no longer a destination", self._directory, waiting, place)

    def adopt(self) -> None:
        """Move batches from the files of dead processes into the file of this one, if there are queues for them.

        Never raises. After an error, it is tried again later; the file of this process is not affected.
        """
        if self.closed:
            return
        try:
            self._lock.keep_spare()
            for lock in LockFile.of_the_dead(self._directory, self._left_alone):
                if (lock.path, lock.written) in self._passed:
                    lock.release()
                elif file := self._opened(lock):
                    self._adopt(lock, file)
        except (sqlite3.Error, OSError) as error:
            self._tell(f"a file in it cannot be taken over: {error}")

    def _adopt(self, lock: LockFile, file: SpoolFile) -> None:
        empty = False
        try:
            self._move(file, self._places)
            empty = file.empty
        finally:
            file.close()
            lock.free_spare()
            self._passed.add((lock.path, lock.written))
            if empty:
                lock.remove()
            lock.release()

    def _move(self, other: SpoolFile, places: Mapping[str, HandOver] | None) -> None:
        """Move the batches for ``places``, a few MiB at a time. None: move all, which are already in the queues.

        After a crash, a batch is in one of the files, or in both under the same id.
        """
        known = {record.id for record in self._work(SpoolFile.records)}
        listed = [record for record in other.records() if places is None or record.place in places]
        while listed:
            chunk, size = list[Record](), 0
            while listed and size < _CHUNK:
                chunk.append(listed.pop(0))
                size += chunk[-1].length
            new = [record for record in chunk if record.id not in known]
            whole = {record.id: read for record in new if (read := other.read(record.id))}
            changes = Changes(whole, marks={record.id: True for record in new if record.taken and record.id in whole})
            self._work(partial(SpoolFile.write, changes=changes))
            if places is not None:
                other.write(Changes(gone={record.id for record in chunk}))
                for place, found in _by_place(new).items():
                    corrupt = sum(record.batch.points for record in found if record.id not in whole)
                    self._places[place]([record for record in found if record.id in whole], {"corrupt": corrupt})

    def _opened(self, lock: LockFile) -> SpoolFile | None:
        """Open the file of a dead process. If it is damaged, set it aside, count its points, and return None."""
        try:
            return SpoolFile(lock.path)
        except Exception as error:
            if not damaged(error):
                lock.release()
                raise
        for place, points in self._set_aside(lock).items():
            if place in self._places:
                self._places[place]([], {"corrupt": points})
        return None

    def _set_aside(self, lock: LockFile) -> Mapping[str, int]:
        """Set a damaged file aside. Return the number of points in it, by queue, as far as it can be read."""
        aside = lock.set_aside()
        points = points_in(aside)
        held = f"with {quantity(sum(points.values()), 'point')}" if points else "with an unknown number of points"
        self.trouble = f"a damaged file was set aside as {aside.name}, {held}"
        log.error("spool %s: %s", self._directory, self.trouble)
        return points

    def _left_alone(self, path: Path, why: str) -> None:
        self._tell(f"{path.name} is left alone: {why}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("spool %s: %s", self._directory, what)


def cannot_write(directory: str | Path) -> str | None:
    """Return why a store cannot write to ``directory`` and would keep its data in memory, or None if it can.

    Like :meth:`Store.open`, this creates a file, and the directory if it is missing. It removes them afterwards.
    """
    path = Path(directory).absolute()
    missing: list[Path] = []
    try:
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        disk = _Disk(path, {})
        disk.open(own=False)
        disk.close()
    except (sqlite3.Error, OSError) as error:
        return _reason(error)
    finally:
        for parent in missing:
            with suppress(OSError):  # it was not created here, or another process uses it
                parent.rmdir()
    return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _by_place(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.place, []).append(record)
    return found
