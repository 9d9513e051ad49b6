"""Locks of the files of a spool directory. A file belongs to the process that holds the lock on its lock file.

::

    spool-1f2e3d4c5b6a.sqlite            batches and checkpoint
    spool-1f2e3d4c5b6a.sqlite-wal        SQLite's write-ahead log
    spool-1f2e3d4c5b6a.sqlite-spare      reserved space, which is freed when the disk is full
    spool-1f2e3d4c5b6a.sqlite.lock       empty; locked while its process lives

The kernel releases such a lock when the process ends, in whatever way. So if a file can be locked, its process is dead,
and the process that locks it takes it over.

SQLite also reads and writes the files beside its own, and follows links. So the directory must belong to this user or
root and must not be writable by all users. A file in it that belongs to another user, or has a hard link elsewhere, is
ignored.
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
"""Maximum number of damaged files that are kept for inspection."""
_SPARE = 1 << 18
"""Number of reserved bytes. A transaction that only deletes writes a few pages of 4 KiB."""


class LockFile:
    """The lock on a spool file, which belongs to this process until it is released. The file need not exist yet."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._names = os.fspath(path), os.fspath(_lock_of(path))  # cached, because each write uses them
        self._identity = os.fstat(lock)
        register_fork_handler(self)

    @classmethod
    def new(cls, directory: Path) -> "LockFile":
        """Lock a file that does not exist yet. Creates the directory if necessary. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(directory)
        while True:
            path = directory / _NAME.replace("*", secrets.token_hex(6))
            if (lock := _lock(path)) and not path.exists():
                return lock

    @classmethod
    def of_the_dead(cls, directory: Path, refused: Callable[[Path, str], object]) -> "Iterator[LockFile]":
        """Lock and yield each file of this user whose process is dead, in order of the last write, newest first.

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
            except OSError:  # it has just been removed, or cannot be locked; continue with the others
                continue
            if lock and path.exists():
                yield lock
            elif lock:  # another process has taken it over and released it meanwhile
                lock.remove()

    def reset_after_fork(self) -> None:
        """In a forked child, close the lock file, so that the lock is released when the parent ends."""
        self.release()

    @property
    def written(self) -> float:
        """Return the time of the last write to the file, in seconds since the epoch."""
        return _written(self.path)

    @property
    def in_place(self) -> bool:
        """True if file and lock file still exist at their paths. They, or the directory, may have been removed."""
        try:
            os.stat(self._names[0])
            return os.path.samestat(self._identity, os.stat(self._names[1]))
        except OSError:
            return False

    def keep_spare(self) -> None:
        """Reserve disk space, which :meth:`free_spare` frees. Never raises."""
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
        """Free the reserved space, because a full disk does not even accept a deletion. Never raises."""
        with suppress(OSError):
            self.path.with_name(self.path.name + "-spare").unlink(missing_ok=True)

    def release(self) -> None:
        """Release the lock, so that another process may take over the file."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the file, and release the lock."""
        try:
            for path in (*_parts(self.path), _lock_of(self.path)):
                path.unlink(missing_ok=True)
        finally:
            self.release()

    def set_aside(self) -> Path:
        """Rename the damaged file so that no process uses it as a spool, release it, and return its new name.

        Of the files set aside earlier, only the newest are kept.
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
    """Return why other users could put files into the directory, or None if they cannot."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH else None


def _check_directory(directory: Path) -> None:
    if reason := _unsafe(directory):
        raise OSError(errno.EPERM, f"the directory {reason}, so others could put files there")


def _not_ours(path: Path) -> str | None:
    """Return why a file is not safe to open, or None if it is. Its content may be malicious, or it may be a link to
    another file of this user.
    """
    try:
        status = path.lstat()
    except OSError:  # it has just been removed
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
        if os.path.samestat(os.fstat(lock), os.stat(_lock_of(path))):  # otherwise the lock file has just been deleted
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
    """Return the files that belong to the spool file ``path``."""
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", "-spare"))
