"""Who has which file in a spool directory: a file belongs to the process that holds the lock on the one beside it.

The kernel lets go of such a lock when the process ends, however it ends. So a file that can be locked is a dead
process', and whoever locks it has it.

SQLite reads and writes what it finds beside a file, and follows links. So the directory must be ours or root's, and not
writable for everybody; a file in it that is another user's, or has a second name elsewhere, is left alone.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..process import tell_of_forks

__all__ = ["Claim", "cannot_write", "claim_dead", "claim_new"]

_NAME = "spool-*.sqlite"
_SET_ASIDE = 3
"""How many damaged files are left for somebody to look at."""


class Claim:
    """A file that is this process' own until it is let go of. The file itself need not exist yet."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        tell_of_forks(self)

    def left_in_parent(self) -> None:
        """In a forked child: the file is the parent's, and must be free when the parent ends."""
        self.release()

    def written(self) -> float:
        """Return when the file was last written, in seconds since the epoch."""
        return _written(self.path)

    def release(self) -> None:
        """Leave the file to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the file, and let go."""
        for path in (*_parts(self.path), _lock_of(self.path)):
            path.unlink(missing_ok=True)
        self.release()

    def set_aside(self) -> Path:
        """Rename the damaged file such that nobody takes it for a spool any more, and let go; return its new name.

        The oldest of those that were set aside before are deleted, but for a few.
        """
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


def claim_new(directory: Path) -> Claim:
    """Return a claim on a file that does not exist yet. Makes the directory. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(directory)
    while True:
        path = directory / _NAME.replace("*", secrets.token_hex(6))
        if (claim := _claim(path)) and not path.exists():
            return claim


def claim_dead(directory: Path, refused: Callable[[Path, str], object] = lambda path, why: None) -> Iterator[Claim]:
    """Yield a claim on each file of this user whose process is gone, the last one written to first.

    ``refused`` hears of each file that is left alone because it is not safe to open, and why. Raises OSError.
    """
    if directory.exists():
        _check_directory(directory)
    for path in sorted(directory.glob(_NAME), key=_written, reverse=True):
        if why := _not_ours(path):
            refused(path, why)
        elif claim := _claim_if_there(path):
            if path.exists():
                yield claim
            else:  # somebody else had it meanwhile, and is done with it
                claim.remove()


def cannot_write(directory: str | Path) -> str | None:
    """Return why there can be no files in ``directory``, None if there can. It need not exist yet, and is not made."""
    path = Path(directory).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        return f"{path} is no directory"
    if path == Path(directory).absolute() and (reason := _unsafe(path)):
        return f"{path} {reason}"
    return None if os.access(path, os.W_OK | os.X_OK) else f"{path} cannot be written"


def _unsafe(directory: Path) -> str | None:
    """Return why others could put files of theirs in the directory; None if they cannot."""
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH else None


def _check_directory(directory: Path) -> None:
    if reason := _unsafe(directory):
        raise OSError(errno.EPERM, f"the directory {reason}, who could put files there")


def _not_ours(path: Path) -> str | None:
    """Return why a file is not safe to open: it may hold anything, or be another file of ours. None if it is."""
    try:
        status = path.lstat()
    except OSError:  # it has just gone
        return None
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    return "it has a second name" if status.st_nlink > 1 else None


def _claim_if_there(path: Path) -> Claim | None:
    try:
        return _claim(path)
    except OSError:  # it has just gone, or is none that can be locked; the others may
        return None


def _claim(path: Path) -> Claim | None:
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(_lock_of(path))):  # else it is a file that was just deleted
            return Claim(path, lock)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _written(path: Path) -> float:
    return max((part.stat().st_mtime for part in _parts(path) if part.exists()), default=0.0)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _parts(path: Path) -> tuple[Path, ...]:
    """Return the files that SQLite makes of one."""
    return tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal"))
