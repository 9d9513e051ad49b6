"""Records: what a member of a group appends to its file of a slot, and how all files of a slot become one interval.

A slot is one interval of a group, named by its stamp. In it each member has one file, and appends records to it: once a
second what is new, and at the slot's end the whole of what it measured in the slot. The page cache keeps what was
written when the process is killed, so a killed member loses what came after its last record, and nothing else.

A record is written by one ``write``::

    magic "mlg1" | length of payload | checksum | writer's id, 8 bytes | flags | time | payload

The checksum is of all that follows it, and the payload JSON. Aggregates are encoded as in the checkpoint
(:mod:`~metricslib.checkpoint`): numbers come back to the last bit, samples as samples, sketches bucket by bucket. A
writer states a key once in a file; from then on it is its number, counted from 0 in order of appearance. A flag says
that numbers begin anew: a writer has it in the first record after it opened the file, and in every whole record.
Another flag says that the record is whole, so it can be read without those before it, and a reader that comes after the
slot's end decodes one record a member. A third flag says that with this record its writer has stated all, though it is
not whole.

A *writer* is a process between two forks: its id is random, and new after a fork. A file may hold records of several
writers, one after the other, for a number that a dead member left is taken again. A whole record supersedes the earlier
records *of the same writer in the same file*, and those of others stay. Key numbers are a writer's own, so that no
record depends on what another process wrote.

Invariants:

- A file is a sequence of whole records, and perhaps one torn record at its end (the writer was killed in the middle of
  a ``write``, or the disk was full). Reading ends before the torn record. Nothing is appended behind one: the writer
  cuts it off first, be it the same writer or the next one.
- What was once read stays: only torn bytes are cut. So a reader goes on where it ended, and reads what is new alone.
  Where the file was deleted or replaced, it adds the new one to what it has: a slot that was sent never becomes less.
- After a crash at any moment the file holds exactly the records whose ``write`` was complete.
- :func:`combine` depends on the files alone, not on the order in which they are given or when they were read.
"""

import json
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoint import read_key, read_value, write_value
from ..instruments.gauge import ACROSS, Across
from ..series import KINDS, Kind
from ..window import Aggregates

__all__ = [
    "BadRecord",
    "FileReader",
    "FileReplaced",
    "FileWriter",
    "GaugeValue",
    "LATE",
    "Slot",
    "combine",
    "read_gauge",
    "take",
]

FORMAT = 1
"""The version of this format: groups of different formats have different folders."""
LATE = 10_000
"""Numbers of members are below this; files from here on came late, from a slot that was closed by then."""
_MAGIC = b"mlg1"
_HEAD = struct.Struct("<4sII")
_REST = struct.Struct("<8sBd")
_WHOLE = 1
_ANEW = 2
_CLOSES = 4
_LONGEST = 1 << 30  # bytes of payload
_BLOCK = 1 << 20
_PLAIN = frozenset((int, float))
_write = json.JSONEncoder(separators=(",", ":"), default=float).encode


_checked = lru_cache(1 << 15)(read_key)
"""Most keys stand in the records of each member and of each slot. Checking them is most of the work of decoding."""


class BadRecord(ValueError):
    """A record with a right checksum that does not say what a writer writes."""


class FileReplaced(OSError):
    """The file was deleted or replaced, or the descriptor is another file's by now."""


class GaugeValue(NamedTuple):
    """What one member states of a gauge."""

    value: float | None
    """None: it has no value, for its callback failed."""
    time: float
    """When that was, in seconds since the epoch."""
    across: Across = "last"


class _Keys:
    """Numbers of the keys that one writer stated in one file."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[Kind, str], int] = {}

    def numbered(self, kind: Kind, keys: Iterable[str], new: dict[tuple[Kind, str], int]) -> list[int]:
        """Return the numbers of ``keys``; those that have none get one in ``new``."""
        known, found = self.numbers, []
        for key in keys:
            series = (kind, key)
            number = known.get(series)
            if number is None:
                number = new.setdefault(series, len(known) + len(new))
            found.append(number)
        return found


# -- bytes


def _frame(writer: bytes, flags: int, time: float, payload: bytes) -> bytes:
    rest = _REST.pack(writer, flags, time) + payload
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(rest)) + rest


class _Frame(NamedTuple):
    writer: bytes
    flags: int
    time: float
    payload: bytes
    end: int
    """Where in the bytes it ends."""


def _frames(data: bytes) -> Iterator[_Frame]:
    """Yield the whole records at the beginning of ``data``."""
    at = 0
    while len(data) - at >= _HEAD.size + _REST.size:
        magic, length, checksum = _HEAD.unpack_from(data, at)
        begin = at + _HEAD.size
        end = begin + _REST.size + length
        if magic != _MAGIC or length > _LONGEST or end > len(data):
            return
        if zlib.crc32(memoryview(data)[begin:end]) != checksum:
            return
        writer, flags, time = _REST.unpack_from(data, begin)
        yield _Frame(writer, flags, time, data[begin + _REST.size : end], end)
        at = end


def _read_from(descriptor: int, offset: int) -> bytes:
    blocks = []
    while block := os.pread(descriptor, _BLOCK, offset):
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks)


def _encode(
    aggregates: Aggregates,
    gauges: Mapping[str, GaugeValue],
    keys: _Keys,
    known: Mapping[Kind, Iterable[str]] = {},
) -> tuple[bytes, dict[tuple[Kind, str], int]]:
    """Return the payload, and the numbers of keys that it states."""
    new: dict[tuple[Kind, str], int] = {}
    document: dict[str, Any] = {}
    for kind in KINDS:
        values: Mapping[str, Any] = gauges if kind == "gauge" else aggregates[kind]
        if not values:
            continue
        before = len(new)
        numbers = keys.numbered(kind, values, new)
        if kind == "counter" or kind == "gauge":
            written = list(values.values())
        else:
            written = [write_value(kind, value) for value in values.values()]
        document[kind] = [[key for _, key in islice(new, before, None)], numbers, written]
    if stated := {kind: list(keys) for kind, keys in known.items() if keys}:
        document["known"] = stated
    return _write(document).encode(), new


class _Written:
    """What one writer said in one file so far. Records wait undecoded until they are asked for or superseded."""

    def __init__(self) -> None:
        self.aggregates = Aggregates()
        self.gauges: dict[str, GaugeValue] = {}
        self.known: dict[Kind, set[str]] = {}
        self.time = 0.0
        self.bad = 0
        self._waiting: list[_Frame] = []
        self._keys: list[tuple[Kind, str]] = []
        self._broken = False

    def add(self, frame: _Frame) -> None:
        """Add a record, to be decoded later; a whole one supersedes those before it."""
        if frame.flags & _WHOLE:
            self._waiting.clear()
        self._waiting.append(frame)

    def decode(self) -> None:
        """Decode what waits, and count what cannot be."""
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            try:
                self._take(frame)
            except BadRecord:
                self.bad += 1

    def _take(self, frame: _Frame) -> None:
        """Add a record. Raises BadRecord, and takes nothing of it."""
        if frame.flags & _ANEW:
            self._keys, self._broken = [], False
        if self._broken:
            raise BadRecord("an earlier record, which may have stated its keys, could not be read")
        aggregates, gauges, new = Aggregates(), dict[str, GaugeValue](), list[tuple[Kind, str]]()
        try:
            document = json.loads(frame.payload)
            if type(document) is not dict:
                raise BadRecord("no object")
            for kind in KINDS:
                if kind in document:
                    self._decode(kind, document[kind], new, aggregates, gauges)
            known = _known(document.get("known", {}))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            self._broken = True
            raise BadRecord(str(error)) from error
        self._keys += new
        self.time = frame.time
        for kind, keys in known.items():
            self.known.setdefault(kind, set()).update(keys)
        if frame.flags & _WHOLE:
            self.aggregates, self.gauges = aggregates, gauges
        else:
            self.aggregates.merge(aggregates)
            self.gauges.update(gauges)

    def _decode(
        self,
        kind: Kind,
        part: Any,
        new: list[tuple[Kind, str]],
        aggregates: Aggregates,
        gauges: dict[str, GaugeValue],
    ) -> None:
        stated, numbers, values = part
        for key in stated:
            _checked(kind, key)
        new += [(kind, key) for key in stated]
        known, count = self._keys, len(self._keys)
        series = [known[number] if number < count else new[number - count] for number in map(_number, numbers)]
        keys = [key for found, key in series if found == kind]
        if not len(keys) == len(numbers) == len(values):
            raise BadRecord("numbers, keys and values do not match")
        if kind == "counter":
            if not _PLAIN.issuperset(map(type, values)) or not all(map(math.isfinite, values)):
                raise BadRecord("a count is no finite number")
            aggregates.counters = dict(zip(keys, values, strict=True))
        elif kind == "gauge":
            gauges.update(zip(keys, map(read_gauge, values), strict=True))
        else:
            aggregates[kind].update(zip(keys, (read_value(kind, value) for value in values), strict=True))


def _known(stated: Any) -> dict[Kind, list[str]]:
    known: dict[Kind, list[str]] = {kind: stated[kind] for kind in KINDS if kind in stated}
    for kind, keys in known.items():
        for key in keys:
            _checked(kind, key)
    return known


def _number(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise BadRecord("a key's number is none")
    return number


def read_gauge(stated: Any) -> GaugeValue:
    """Return what a record states of a gauge; raises ValueError or TypeError for anything else."""
    value, time, across = stated
    for number in (time,) if value is None else (time, value):
        if type(number) not in _PLAIN or not math.isfinite(number):
            raise BadRecord("a gauge's value is no finite number")
    if across not in ACROSS:
        raise BadRecord("a gauge's rule is none")
    return GaugeValue(value, time, across)


# -- files


class FileReader:
    """Reads one file of a slot, each time only what is new in it. One owner at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: dict[bytes, _Written] = {}
        self._begin((0, 0))

    def _begin(self, file: tuple[int, int]) -> None:
        self._file = file
        self.end = 0
        """How many bytes were read."""
        self.closed = False
        """Whether with the last record its writer had stated all."""
        self.last = b""
        """The writer of the last record."""
        self.time = 0.0
        """The time of the last record."""

    @property
    def written(self) -> dict[bytes, _Written]:
        """The writers in it, in order of their first records."""
        for each in self._written.values():
            each.decode()
        return self._written

    @property
    def bad(self) -> int:
        """How many records no writer of this format writes; they are skipped."""
        return sum(each.bad for each in self.written.values())

    def grown(self, status: os.stat_result) -> bool:
        """Whether a file of this status has something that was not read; it may be a torn record."""
        return (status.st_dev, status.st_ino) != self._file or status.st_size != self.end

    def read(self, limit: int | None = None) -> bool:
        """Read what is new, up to ``limit`` bytes of the file, and return whether there was something.

        A file that is another one now, or shorter than what was read of it, is read from its beginning, and added to
        what the earlier one had, but where the same writer states anew the whole of what it has. Raises OSError where
        it cannot be read.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != self._file or status.st_size < self.end:
                self._begin((status.st_dev, status.st_ino))
            if status.st_size == self.end:
                return False
            data = _read_from(descriptor, self.end)
        finally:
            os.close(descriptor)
        begin = self.end
        if limit is not None:
            data = data[: max(0, limit - begin)]
        for frame in _frames(data):
            self.end = begin + frame.end
            self.closed, self.last, self.time = bool(frame.flags & (_WHOLE | _CLOSES)), frame.writer, frame.time
            self._written.setdefault(frame.writer, _Written()).add(frame)
        return self.end > begin


class FileWriter:
    """Appends records of one writer to its file of a slot. One owner at a time, who holds the member's lock.

    A torn record that another writer left is cut before the first record. Raises OSError where the file cannot be made.
    """

    def __init__(self, path: Path, writer: bytes) -> None:
        """``writer`` is the writer's id, eight bytes."""
        self.path = path
        self._writer = writer
        self._keys = _Keys()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(path, flags, 0o600)
        status = os.fstat(self._descriptor)
        self._file = status.st_dev, status.st_ino
        self.end = 0
        if not stat.S_ISREG(status.st_mode):  # a FIFO would swallow what is written
            self.close()
            raise FileReplaced(f"{path} is no regular file")

    def append(
        self,
        aggregates: Aggregates,
        gauges: Mapping[str, GaugeValue],
        time: float,
        *,
        whole: bool = False,
        closes: bool = False,
        known: Mapping[Kind, Iterable[str]] = {},
    ) -> None:
        """Append one record; ``whole`` says that it is everything that this writer measured in the slot, ``closes``
        that with those before it is.

        ``known`` are series to which nothing need have happened.

        Raises :class:`FileReplaced` where the file is gone, and OSError where the disk is full; then nothing was
        appended, and the same may be tried again.
        """
        keys = _Keys() if whole else self._keys
        payload, new = _encode(aggregates, gauges, keys, known)
        if len(payload) > _LONGEST:
            raise OSError(f"a record of {len(payload)} bytes is too long")
        record = _frame(self._writer, _WHOLE * whole | _CLOSES * closes | (0 if keys.numbers else _ANEW), time, payload)
        self._cut_torn(self._checked_size())
        written = os.write(self._descriptor, record)
        if written < len(record):
            os.ftruncate(self._descriptor, self.end)  # where that fails, the next append does it
            raise OSError(f"{self.path}: only {written} of {len(record)} bytes could be written")
        self.end += written
        keys.numbers.update(new)
        self._keys = keys

    def _checked_size(self) -> int:
        """Return the file's size, once it is sure that it is the file: daemonisers close and reuse descriptors."""
        try:
            status, named = os.fstat(self._descriptor), os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            raise FileReplaced(f"{self.path}: {error}") from error
        if not (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino) == self._file:
            raise FileReplaced(f"{self.path} is another file")
        if status.st_size < self.end:
            raise FileReplaced(f"{self.path} became shorter")
        return status.st_size

    def _cut_torn(self, size: int) -> None:
        """Cut what follows the last whole record; whole records of all writers are kept."""
        if size == self.end:
            return
        begin = self.end
        for frame in _frames(_read_from(self._descriptor, begin)):
            self.end = begin + frame.end
        if self.end < size:
            os.ftruncate(self._descriptor, self.end)

    def withdraw(self) -> None:
        """Take all records back, if they are all of this writer. Needs no right to open the file."""
        data = _read_from(self._descriptor, 0)
        if all(frame.writer == self._writer for frame in _frames(data)):
            os.ftruncate(self._descriptor, 0)
            self.end = 0

    def close(self) -> None:
        """Close the file, unless its descriptor is another file's by now."""
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return
        if (status.st_dev, status.st_ino) == self._file:
            os.close(self._descriptor)


# -- a slot


class Slot(NamedTuple):
    """All that the members of a group measured in one interval."""

    aggregates: Aggregates
    """Without gauges."""
    gauges: dict[str, dict[int, GaugeValue]]
    """What each member, by number, stated of each gauge last."""
    known: Mapping[Kind, Iterable[str]] = {}
    """Series that members know, though nothing need have happened to them."""


def combine(files: Mapping[int, FileReader]) -> Slot:
    """Return the slot of which these are the files, by the number of their member, as far as they were read.

    Sums are made in the order of numbers, and in a file in that of its writers. Earlier writers of a file are processes
    that ended, so their gauges do not count, but for those with the rule ``last``: such a value holds until another one
    is set. Gauges of files that came late do not count.
    """
    aggregates = Aggregates()
    gauges: dict[str, dict[int, GaugeValue]] = {}
    known: dict[Kind, dict[str, None]] = {kind: {} for kind in KINDS}
    for number in sorted(files):
        writers, last = files[number].written, files[number].last
        for written in writers.values():
            aggregates.merge(written.aggregates)
            for kind, keys in written.known.items():
                known[kind].update(dict.fromkeys(keys))
        if number < LATE:
            for writer, written in writers.items():
                for key, stated in written.gauges.items():
                    members = gauges.setdefault(key, {})
                    if stated.across == "last":
                        before = members.get(number)
                        if before is None or before.across != "last" or before.time <= stated.time:
                            members[number] = stated
                    elif writer == last:
                        members[number] = stated
    return Slot(aggregates, {key: members for key, members in gauges.items() if members}, known)


def take(files: Mapping[int, FileReader]) -> Slot:
    """Return what was read of these files since the last call, where no record supersedes others."""
    slot = combine(files)
    for file in files.values():
        for written in file.written.values():
            written.aggregates = Aggregates()
    return slot
