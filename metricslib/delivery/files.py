"""Destinations on this machine: a file of JSON lines, and the console.

A file is opened for each line, so other tools may move it at any time. With ``?rotate=SIZE``, it is rotated here:
``m.jsonl`` becomes ``m.jsonl.1``, and that becomes ``m.jsonl.2``. Several processes may append to the same file. Each
locks it before it checks the size and rotates. If the file was moved while a process waited for the lock, the process
opens the new file.

*After a crash at any line*, no line is lost or duplicated. Every step of a rotation is one rename. A crash between two
of them leaves a number without a file, which the next rotation fills. A line is written by one system call, or not at
all: if the disk is full, the incomplete line is removed, and if a crash left an incomplete line, it is completed by a
line feed before the next line. A line that is already the last one is not written again.

Links are not followed, because other users who can write to the directory could make this process write to any of its
user's files.
"""

import errno
import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from ..naming import Naming
from ..window import Flush
from ..wire import graphite, jsonl
from . import urls
from .batch import Batch, Deadline, Undelivered, batches_of
from .destination import Destination, Options

__all__ = ["ConsoleDestination", "FileDestination", "KEEP", "Rotation", "append", "open_to_append"]

KEEP = 5
"""Default number of rotated files that are kept."""
_MODE = 0o640
_WAIT = 0.005
_STREAM = re.compile(r"/dev/(?:stdout|stderr|fd/\d+)|/proc/self/fd/\d+")
"""Links of the system to open files of this process. These are followed, and never rotated."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is rotated, and how many rotated files are kept."""

    size: int
    """Maximum number of bytes of a file. A single line that is longer gets a file of its own."""
    keep: int = KEEP

    @classmethod
    def parse(cls, size: str, keep: str) -> "Rotation":
        """Return the rotation with these options of a URL: a size such as ``100MB`` or ``1GiB``, and a number from 1 to
        1000. Raises ValueError for any other text.
        """
        given = urls.size("rotate", size)
        if not re.fullmatch(r"\d{1,4}", keep) or not 1 <= int(keep) <= 1000:
            raise ValueError("keep must be a whole number from 1 to 1000")
        return cls(given, int(keep))


def append(path: str, line: bytes, rotation: Rotation | None, deadline: Deadline) -> None:
    """Append a complete line, or raise OSError without any change. Do nothing if it is already the last line.

    This is because a process may die after it has written a line and before it has recorded this. Then the next process
    writes the line again.
    """
    stream = bool(_STREAM.fullmatch(path))
    while True:
        opened = open_to_append(path, follow=stream)
        try:
            if rotation is None or stream:
                return _append(opened, line)
            with _locked(opened, deadline):
                if _is_at(opened, path):
                    if _has_room(opened, line, rotation.size):
                        return _append(opened, line)
                    _move_aside(path, rotation.keep)
                elif not deadline.left():
                    raise TimeoutError(errno.ETIMEDOUT, "moved away again and again")
        finally:
            os.close(opened)


def open_to_append(path: str, *, follow: bool = False) -> int:
    """Return a descriptor for appending to ``path``.

    Raises OSError for a link, unless ``follow`` is True, and for a pipe without a reader, where the data would be lost.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    while True:
        pipe = _is_pipe(path)
        try:
            # A pipe is opened for writing only, because otherwise this process would be its own reader.
            opened = os.open(path, flags | (os.O_WRONLY if pipe else os.O_RDWR), _MODE)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "is a symbolic link, which is not followed") from error
            if error.errno == errno.ENXIO and pipe:
                raise OSError(errno.ENXIO, "is a pipe without a reader") from error
            raise
        if pipe or not stat.S_ISFIFO(os.fstat(opened).st_mode):
            return opened
        os.close(opened)  # the file has just been replaced


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


@contextmanager
def _locked(opened: int, deadline: Deadline) -> Iterator[None]:
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not deadline.left():
                raise TimeoutError(errno.ETIMEDOUT, "another process has locked it") from None
            time.sleep(_WAIT)
    try:
        yield
    finally:
        fcntl.flock(opened, fcntl.LOCK_UN)  # a child forked meanwhile also has the file open, and would keep the lock


def _is_at(opened: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), os.lstat(path))
    except FileNotFoundError:
        return False


def _has_room(opened: int, line: bytes, limit: int) -> bool:
    size = os.fstat(opened).st_size
    return not size or size + len(line) <= limit or _ends_with(opened, line)


def _move_aside(path: str, keep: int) -> None:
    """Give each file the next number, up to the first free one; if none is free, the oldest file is replaced."""
    names = [path, *(f"{path}.{number}" for number in range(1, keep + 1))]
    last = next((place for place, name in enumerate(names) if not os.path.lexists(name)), keep)
    for place in range(last, 0, -1):
        os.replace(names[place - 1], names[place])


def _ends_with(opened: int, line: bytes) -> bool:
    start = os.fstat(opened).st_size - len(line)
    if start < 0 or os.pread(opened, len(line), start) != line:
        return False
    return not start or os.pread(opened, 1, start - 1) == b"\n"


def _append(opened: int, line: bytes) -> None:
    """Append a line, after completing a line that a crash has left incomplete. Pipes and devices have no size."""
    if _ends_with(opened, line):
        return
    size = os.fstat(opened).st_size
    _write(opened, b"\n" + line if size and os.pread(opened, 1, size - 1) != b"\n" else line)


def _write(opened: int, line: bytes) -> None:
    """Write all with one call. If the disk is full, remove the written part and raise OSError."""
    written = os.write(opened, line)
    if written < len(line):
        status = os.fstat(opened)
        if stat.S_ISREG(status.st_mode) and os.lseek(opened, 0, os.SEEK_CUR) == status.st_size:
            os.ftruncate(opened, status.st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FileDestination(Destination):
    """Appends a line of JSON for each window; see :mod:`..wire.jsonl`.

    With ``rotation``, the file is rotated when it is large.
    """

    relays = False
    resend = False

    def __init__(
        self, label: str, path: str, naming: Naming, options: Options, *, rotation: Rotation | None = None
    ) -> None:
        super().__init__(label, options)
        self._path = path
        self._naming = naming
        self._rotation = rotation

    def encode(self, flush: Flush) -> list[Batch]:
        if not len(flush.cumulative):
            return []
        naming = self._naming
        line = jsonl.encode(flush.cumulative, naming.prefix, naming.percentiles, unprefixed=naming.unprefixed)
        return [Batch(flush.cumulative.end, len(flush.cumulative), line)]

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        try:
            append(self._path, payload, self._rotation, deadline)
        except OSError as error:
            raise Undelivered(f"{self._path}: {error.strerror}", payload) from error
        return {}


class ConsoleDestination(Destination):
    """Writes Graphite lines to a text stream. By default, it is the standard output at the time of writing."""

    shared = False
    resend = False

    def __init__(self, label: str, naming: Naming, options: Options, stream: TextIO | None = None) -> None:
        super().__init__(label, options)
        self._naming = naming
        self._stream = stream

    def encode(self, flush: Flush) -> list[Batch]:
        stamp = flush.cumulative.end
        return batches_of(stamp, graphite.encode(self._naming.pairs(flush.cumulative), stamp))

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        stream = self._stream or sys.stdout
        try:
            stream.write(payload.decode())
            stream.flush()
        except (OSError, ValueError, AttributeError) as error:  # a broken pipe; closed; a process without stdout
            raise Undelivered(f"the console: {error}", payload) from error
        return {}
