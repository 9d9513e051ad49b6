"""Which process has which file of a spool directory: the one that holds the lock on the file beside it.

::

    spool-1f2e3d4c5b6a.sqlite            batches and checkpoint
    spool-1f2e3d4c5b6a.sqlite-wal        SQLite's log of what is not in it yet
    spool-1f2e3d4c5b6a.sqlite-spare      room to give back when the disk is full
    spool-1f2e3d4c5b6a.sqlite.lock       empty; locked while its process lives

The kernel releases such a lock when the process ends, however it ends. So a file that can be locked belonged to a
process that is dead, and the process that locks it takes it over.

SQLite reads and writes what it finds beside a file, and follows links. So the directory must be ours or root's, and not
writable for everybody; a file in it that belongs to another user, or has a second name elsewhere, is ignored.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..._process import register_fork_handler

__all__ = ["LockFile"]

_NAME = "spool-*.sqlite"
_SET_ASIDE = 3
"""How many damaged files are kept for inspection."""
_SPARE = 1 << 18
"""Bytes kept in reserve: a transaction that only deletes writes some pages of 4 KiB."""


class LockFile:
    """The lock on one file of a spool, which is this process' own until it is released. The file need not exist yet."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._names = os.fspath(path), os.fspath(_lock_of(path))  # asked for at each write, so made once
        self._identity = os.fstat(lock)
        register_fork_handler(self)

    @classmethod
    def new(cls, directory: Path) -> "LockFile":
        """Lock a file that does not exist yet. Makes the directory. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(directory)
        while True:
            path = directory / _NAME.replace("*", secrets.token_hex(6))
            if (lock := _lock(path)) and not path.exists():
                return lock

    @classmethod
    def of_the_dead(cls, directory: Path, refused: Callable[[Path, str], object]) -> "Iterator[LockFile]":
        """Lock and yield each file of this user whose process is gone, the last one written to first.

        ``refused`` is called with each file that is not safe to open, and the reason. Raises OSError.
        """
        if directory.exists():
            _check_directory(directory)
        for path in sorted(directory.glob(_NAME), key=_written, reverse=True):
            if why := _not_ours(path):
                refused(path, why)
                continue
            try:
                lock = _lock(path)
            except OSError:  # it has just gone, or is none that can be locked; the others may
                continue
            if lock and path.exists():
                yield lock
            elif lock:  # another process had it meanwhile, and is done with it
                lock.remove()

    def reset_after_fork(self) -> None:
        """In a forked child: the file is the parent's, and must be free when the parent ends."""
        self.release()

    @property
    def written(self) -> float:
        """When the file was last written, in seconds since the epoch."""
        return _written(self.path)

    @property
    def in_place(self) -> bool:
        """Whether file and lock are still where they were made; False when they, or the directory, were removed."""
        try:
            os.stat(self._names[0])
            return os.path.samestat(self._identity, os.stat(self._names[1]))
        except OSError:
            return False

    def keep_spare(self) -> None:
        """Reserve space that :meth:`free_spare` gives back. Raises nothing."""
        spare = self.path.with_name(self.path.name + "-spare")
        with suppress(OSError):
            if spare.exists():
                return
            try:
                with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(bytes(_SPARE))
            except OSError:
                spare.unlink(missing_ok=True)

    def free_spare(self) -> None:
        """Give back the reserved space, because a full disk does not even accept a deletion. Raises nothing."""
        with suppress(OSError):
            self.path.with_name(self.path.name + "-spare").unlink(missing_ok=True)

    def release(self) -> None:
        """Release the lock, so that another process may take the file over."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the file, and let go."""
        try:
            for path in (*_parts(self.path), _lock_of(self.path)):
                path.unlink(missing_ok=True)
        finally:
            self.release()

    def set_aside(self) -> Path:
        """Rename the damaged file so that no process takes it for a spool, and release it; return its new name.

        The oldest of those that were set aside before are deleted, but for a few.
        """
        self.free_spare()
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.time_ns() // 1_000_000}")
        for part in _parts(self.path):
            if part.exists():
                part.rename(aside.with_name(aside.name + part.name.removeprefix(self.path.name)))
        _lock_of(self.path).unlink(missing_ok=True)
        self.release()
        old = sorted(self.path.parent.glob(f"{_NAME}.corrupt-*[0-9]"), key=lambda path: path.name.rpartition("-")[2])
        for path in old[:-_SET_ASIDE]:
            for part in _parts(path):
                part.unlink(missing_ok=True)
        return aside


def _unsafe(directory: Path) -> str | None:
    """Return why others could put files of theirs in the directory; None if they cannot."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH else None


def _check_directory(directory: Path) -> None:
    if reason := _unsafe(directory):
        raise OSError(errno.EPERM, f"the directory {reason}, so others could put files there")


def _not_ours(path: Path) -> str | None:
    """Return why a file is not safe to open: it may hold anything, or be another file of ours. None if it is."""
    try:
        status = path.lstat()
    except OSError:  # it has just gone
        return None
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return "it has a second name" if status.st_nlink > 1 else None


def _lock(path: Path) -> LockFile | None:
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(_lock_of(path))):  # else it is a file that was just deleted
            return LockFile(path, lock)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _written(path: Path) -> float:
    return max((part.stat().st_mtime for part in _parts(path) if part.exists()), default=0.0)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _parts(path: Path) -> tuple[Path, ...]:
    """Return the files that belong to one."""
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", "-spare"))
