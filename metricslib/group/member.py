"""A member: one flusher of one process in a group, with a number of its own and a file in each slot.

A group's folder holds::

    members/0, members/1, …    empty files; a living member has the record lock on the one of its number
    members/0.json, …          the process that had the number last, for people: pid, program, and since when
    1700000010/0, …/1, …       a directory a slot, by stamp, with a file a member: see :mod:`~.record`

States of a member: *outside* (no number), *joined* (the lock on ``members/N``), *writing* (joined, and a file open in a
slot). It joins with its first record and takes the lowest number that is free, so that there are as many files as
members at one time, however many processes come and go. The kernel releases the lock when the process ends, however it
does; a number is then taken again.

POSIX record locks belong to the process: a forked child has none of its parent's, also where Python's hooks do not
run, which is why it is these and not ``flock``. But they do not exclude each other within a process, and *closing any
descriptor of a file releases all locks that the process has on it*. So all members of a process share one table,
:data:`LOCKS`; a file is opened there alone, is never read, and is not opened again while it is locked.

Invariants:

- One number has one holder on the host, and one file of a slot one writer at a time.
- A writer's id is made when a member joins, and no other process has it: a child is a new member with a new id.
- A member writes to no slot older than that of its last record, unless the clock went back by more than ten intervals.
- Before the first record of each slot the lock file is compared with what is locked. Where the folder was deleted or
  the lock file replaced, the member makes the folder anew and joins again, as another writer. Within a slot number
  and writer stay the same.

After a crash at any line: a lock file without a holder, an empty slot directory or file, or a torn record; all of these
the next holder uses or cuts off.
"""

import errno
import fcntl
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .._process import register_fork_handler
from ..series import Kind
from ..window import Aggregates
from .directory import Unusable, make_private
from .record import LATE, FileReplaced, FileWriter, GaugeValue

__all__ = ["LOCKS", "Lock", "Locks", "Member", "program_name"]

_PATIENCE = 10  # intervals
_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# struct flock, of which the type comes first on Linux and near the end on BSD and macOS.
_LINUX = sys.platform == "linux"
_FLOCK = struct.Struct("@hhqqi4x" if _LINUX else "@qqihh")


class Lock:
    """A record lock that this process holds."""

    def __init__(self, path: Path, descriptor: int, file: tuple[int, int]) -> None:
        self.path = path
        self.descriptor = descriptor
        self.file = file

    @property
    def in_place(self) -> bool:
        """Whether the locked file still stands under its path, and the descriptor is still that file's."""
        try:
            named, opened = os.stat(self.path, follow_symlinks=False), os.fstat(self.descriptor)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) == self.file


class Locks:
    """The record locks of a process, by device and inode. From any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[tuple[int, int], Lock] = {}
        self._pid = os.getpid()

    def reset_after_fork(self) -> None:
        """In a forked child: nothing is locked. Closing the parent's descriptors here releases nothing there."""
        held, self._held = self._held, {}
        self._guard = threading.Lock()
        self._pid = os.getpid()
        for lock in held.values():
            _close(lock)

    def acquire(self, path: Path) -> Lock | None:
        """Lock the file ``path``, made if it is not there; return None where anybody has the lock, be it this process.

        Raises OSError where the file cannot be made or the file system has no locks.
        """
        self._notice_fork()
        with self._guard:
            if self._is_held(path):  # and must not be opened: closing it would release the lock
                return None
            descriptor = os.open(path, _FILE, 0o600)
            status = os.fstat(descriptor)
            lock = Lock(path, descriptor, (status.st_dev, status.st_ino))
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                raise
            self._held[lock.file] = lock
            if lock.in_place:
                return lock
        self.release(lock)  # it was deleted or replaced since it was opened
        return None

    def release(self, lock: Lock) -> None:
        """Let go of a lock; one that a parent holds is left alone."""
        self._notice_fork()
        with self._guard:
            if self._held.get(lock.file) is lock:
                del self._held[lock.file]
                _close(lock)

    def is_locked(self, path: Path) -> bool:
        """Whether anybody has the lock on the file, this process included. Takes nothing."""
        return self.holder(path) is not None

    def holder(self, path: Path) -> int | None:
        """Return the process that has the lock on the file, None where none has. Takes nothing."""
        self._notice_fork()
        with self._guard:
            if self._is_held(path):
                return os.getpid()
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return None
            try:
                return _holder(descriptor)
            finally:
                os.close(descriptor)

    def _is_held(self, path: Path) -> bool:
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._held

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():  # a fork without Python's hooks, as uWSGI makes it
            self.reset_after_fork()


def _close(lock: Lock) -> None:
    """Close the descriptor, unless it is another file's by now."""
    try:
        status = os.fstat(lock.descriptor)
    except OSError:
        return
    if (status.st_dev, status.st_ino) == lock.file:
        os.close(lock.descriptor)


def _holder(descriptor: int) -> int | None:
    write, unlocked = fcntl.F_WRLCK, fcntl.F_UNLCK
    asked = _FLOCK.pack(write, 0, 0, 0, 0) if _LINUX else _FLOCK.pack(0, 0, 0, write, 0)
    answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    kind, pid = (answer[0], answer[4]) if _LINUX else (answer[3], answer[2])
    return None if kind == unlocked else pid


LOCKS = Locks()
"""The locks of this process: by the kernel's rules there can be only one such table."""
register_fork_handler(LOCKS)


def _introduce(path: Path) -> None:
    """Say which process has a number. It has its number whether or not this can be written."""
    about = {"pid": os.getpid(), "program": program_name(), "since": time.time()}
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            json.dump(about, file)


def program_name(arguments: Sequence[str] | None = None) -> str:
    """Return the base name of this program: ``gunicorn``, also where it runs as ``python -m gunicorn``."""
    path = Path((sys.argv if arguments is None else arguments)[0])
    return path.parent.name if path.name == "__main__.py" else path.name or "python"


class Member:
    """A member of the group in ``folder``, whose parent must be there. One owner at a time; see the module."""

    def __init__(
        self,
        folder: Path,
        interval: float,
        *,
        locks: Locks = LOCKS,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``interval`` is in seconds; ``random`` returns so many bytes for a writer's id."""
        self.folder = folder
        self.writer = b""
        """The id of what this member writes; empty while it is outside."""
        self._interval = interval
        self._locks = locks
        self._random = random
        self._forget()
        register_fork_handler(self)

    def _forget(self) -> None:
        self._lock: Lock | None = None
        self._file: FileWriter | None = None
        self._slot = 0
        self._pid = os.getpid()
        self.writer = b""
        self.end: tuple[int, int, int] | None = None
        """Slot and number of the last record, and where it ends in the file."""

    def reset_after_fork(self) -> None:
        """In a forked child: outside. The table of locks closes the lock's descriptor."""
        if self._file is not None:
            self._file.close()
        self._forget()

    @property
    def number(self) -> int | None:
        """The member's number; None while it is outside."""
        return None if self._lock is None else int(self._lock.path.name)

    @property
    def forked(self) -> bool:
        """Whether this is a child whose fork Python was not told of: what the registry holds is the parent's."""
        return self._pid != os.getpid()

    def join(self) -> int:
        """Take the lowest free number, unless the member has one, and return it.

        Raises OSError where the folder cannot be made or is not private.
        """
        if self.forked:
            self.reset_after_fork()
        if self._lock is None:
            members = self.folder / "members"
            make_private(self.folder)
            make_private(members)
            for number in range(LATE):
                self._lock = self._locks.acquire(members / str(number))
                if self._lock is not None:
                    self.writer = self._random(8)
                    _introduce(members / f"{number}.json")
                    return number
            raise Unusable(f"{members}: there are {LATE} members already")
        return int(self._lock.path.name)

    def append(
        self,
        slot: int,
        aggregates: Aggregates,
        gauges: Mapping[str, GaugeValue],
        time: float,
        *,
        whole: bool = False,
        closes: bool = False,
        known: Mapping[Kind, Iterable[str]] = {},
    ) -> int:
        """Append a record to the file of that slot, and return the slot to which it was appended.

        That is the slot of the last record where ``slot`` is older. Raises OSError where that cannot be, for a disk is
        full; then nothing was appended.
        """
        if self.forked:
            self.reset_after_fork()
        slot = self.slot_for(slot)
        if slot != self._slot or self._file is None:
            self._open(slot)
        try:
            self._written_to().append(aggregates, gauges, time, whole=whole, closes=closes, known=known)
        except FileReplaced:
            self._open(slot)
            self._written_to().append(aggregates, gauges, time, whole=whole, closes=closes, known=known)
        self.end = slot, int(self._written_to().path.name), self._written_to().end
        return slot

    def slot_for(self, slot: int) -> int:
        """Return the slot to which a record for ``slot`` is appended."""
        return self._slot if self._slot - _PATIENCE * self._interval <= slot < self._slot else slot

    def _written_to(self) -> FileWriter:
        assert self._file is not None
        return self._file

    def _open(self, slot: int) -> None:
        """Open the file of a slot; where the slot is a new one, after a look at the lock.

        Within a slot number and writer stay, even if a daemoniser has closed the lock file, and so released the lock:
        the whole record supersedes what stands in the same file under the same id. Two writers of one file do each
        other no harm.
        """
        self._close_file()
        if slot != self._slot and self._lock is not None and not self._lock.in_place:
            self._locks.release(self._lock)
            self._lock = None
        elif slot < self._slot:  # the clock was set back: what this member said in that slot stays
            self.writer = self._random(8)
        number = self.join()
        self._touch()
        make_private(self.folder)
        directory = self.folder / str(slot)
        make_private(directory)
        self._file = FileWriter(directory / str(number), self.writer)
        self._slot = slot

    def _touch(self) -> None:
        """Set the times of files that do not change otherwise, for cleaners of ``/tmp`` delete what is old."""
        assert self._lock is not None
        for file in (self._lock.path, self._lock.path.with_suffix(".json")):
            with suppress(OSError):
                os.utime(file)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def withdraw(self) -> None:
        """Remove the records of the newest slot, unless another writer used the file, and leave."""
        if self._file is not None:
            self._file.withdraw()
        self.leave()

    def leave(self) -> None:
        """Give the number back. What was written stays; the next record joins again, as another writer."""
        if self.forked:
            self.reset_after_fork()
        self._close_file()
        lock, self._lock = self._lock, None
        self.writer = b""
        if lock is not None:
            self._locks.release(lock)

    def numbers(self) -> list[int]:
        """Return all numbers that any member ever had."""
        try:
            names = os.listdir(self.folder / "members")
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def living(self) -> list[int]:
        """Return the numbers of all members that live, this one included."""
        members = self.folder / "members"
        return [number for number in self.numbers() if self._locks.is_locked(members / str(number))]
