"""Files of a history, so that charts start full: in another process of the group, and after a restart.

One process writes, the one that ships; any process reads. What it writes are the rows of :mod:`~.history`, bytes as
they are in memory. A file, called a *segment*, has the rows of intervals or those of minutes::

    hour-TIME-ID, day-TIME-ID    when the segment was begun, in milliseconds since the epoch, and a random id

    magic "mlh1" | length of the header | length of all that follows | checksum | header | columns | heat maps

The header is JSON: the end and the length of the row, the keys that are new in this segment, by kind, the length of the
columns by kind, and whose heat maps follow. The first row of a segment so states all keys; a reader adds them to a
layout as the writer did, and gets the same places.

Invariants:

- A segment has one writer, and is only appended to. A writer that begins, or whose write failed, begins a new segment.
- Reading ends before a record that is not whole, and goes on there the next time.
- A segment is deleted by the writer when all its rows are too old for a history, or when there are too many bytes. A
  history that has read it keeps its rows.
- A row that stands in several segments is the one in the youngest.
"""

import json
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ._process import register_fork_handler
from .clock import SYSTEM_CLOCK, Clock
from .history import DAY, DISTRIBUTIONS, HOUR, Columns, Heat, History, Layout, Row
from .series import KINDS, Kind
from .window import Window

__all__ = ["HistoryFiles"]

_HEAD = struct.Struct("<4sIII")
_MAGIC = b"mlh1"
_SEGMENT = 4 << 20  # bytes after which a new one is begun
_SEGMENTS = 6  # in the time for which rows are kept
_NAMES = {False: "hour", True: "day"}
_KEPT = {"hour": HOUR, "day": DAY}
_write = json.JSONEncoder(separators=(",", ":")).encode


class _Segment:
    """What this process knows of a segment."""

    def __init__(self) -> None:
        self.end = 0
        """How many bytes of it were read or written."""
        self.first = 0
        self.newest = 0
        """The ends of its oldest and its newest row."""
        self.layout: Layout | None = None
        self.known: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        """By kind, how many places its records have stated."""


class HistoryFiles:
    """The files in ``directory`` of what is also in ``history``. Thread-safe. The directory's parent must be there."""

    def __init__(
        self,
        history: History,
        directory: Path,
        *,
        random: Callable[[int], bytes] = os.urandom,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.history = history
        self.directory = directory
        self._random = random
        self._clock = clock
        self._segments: dict[str, _Segment] = {}
        self._writing: dict[str, str] = {}
        """Of each sort, the segment to which this process writes."""
        self._layout = Layout()
        """The last one that was read; only what is read changes it."""
        self._guard = threading.Lock()
        register_fork_handler(self)

    def reset_after_fork(self) -> None:
        """In a forked child: the parent's segments are another process's."""
        self._guard = threading.Lock()
        self._segments, self._writing = {}, {}

    def refresh(self, last: Window | None = None) -> None:
        """Take into the history what another process has written since, and after that ``last`` if it is newer.

        Raises OSError.
        """
        with self._guard:
            self._refresh()
            self.history.forget_after(self._clock.time())
            ends = self.history.ends()
            if last is not None and (not ends or ends[-1] < last.end):
                self.history.put(last)

    def put(self, window: Window) -> None:
        """Take a window into the history, and write its row. Raises OSError; then it is in the history alone."""
        with self._guard:
            try:
                if not self._writing:
                    self._refresh()
            finally:
                self.history.forget_after(self._clock.time())
                rows = self.history.put(window)
            for place, row in enumerate(rows):
                self._append(row, _NAMES[place > 0])
            self._delete_old(window.end)

    # -- reading

    def _refresh(self) -> None:
        try:
            names = [name for name in os.listdir(self.directory) if name.partition("-")[0] in _KEPT]
        except FileNotFoundError:
            return
        self._segments = {name: segment for name, segment in self._segments.items() if name in names}
        for name in sorted(names, key=_begun):
            if name not in self._writing.values():
                try:
                    self.history.insert(self._read(name))
                except FileNotFoundError:  # deleted just now
                    continue

    def _read(self, name: str) -> Iterator[tuple[Row, bool]]:
        """Yield the rows of a segment that are new, and whether they are minutes."""
        segment = self._segments.setdefault(name, _Segment())
        path = self.directory / name
        if os.stat(path, follow_symlinks=False).st_size <= segment.end:
            return
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            file.seek(segment.end)
            data = file.read()
        at = 0
        while len(data) - at >= _HEAD.size:
            magic, length, whole, checksum = _HEAD.unpack_from(data, at)
            body = memoryview(data)[at + _HEAD.size : at + _HEAD.size + whole]
            if magic != _MAGIC or len(body) < whole or zlib.crc32(body) != checksum:
                return
            try:
                row = self._decode(segment, json.loads(bytes(body[:length])), body[length:])
            except (LookupError, TypeError, ValueError):  # of another version: nothing behind it can be read
                return
            at += _HEAD.size + whole
            segment.end += _HEAD.size + whole
            segment.first = segment.first or row.end
            segment.newest = max(segment.newest, row.end)
            yield row, name.startswith("day")

    def _decode(self, segment: _Segment, header: Any, data: memoryview) -> Row:
        layout = segment.layout
        if layout is None:
            layout = self._layout  # the same as before, if it has the same series
            if any(layout.keys(kind) != header["new"].get(kind, []) for kind in KINDS):
                layout = self._layout = Layout()
        for kind in KINDS:
            layout.add(kind, header["new"].get(kind, ()))
        segment.layout = layout
        at = 0

        def taken(typecode: str, size: int) -> "array[float]":
            nonlocal at
            column: array[float] = array(typecode)
            end = at + size * column.itemsize
            column.frombytes(data[at:end])
            at = end
            if len(column) != size:
                raise ValueError("a column is too short")
            return column

        columns: dict[Kind, Columns] = {
            kind: tuple(taken(typecode, header["sizes"][kind]) for typecode in _typecodes(kind)) for kind in KINDS
        }
        row = Row(header["end"], header["interval"], layout, columns)
        for kind, key, first, size in header["heat"]:
            row.add_heat(kind, key, Heat(first, taken("f", size)))
        return row

    # -- writing

    def _append(self, row: Row, sort: str) -> None:
        name = self._writing.get(sort, "")
        segment = self._segments.get(name)
        if segment is None or not self._goes_into(segment, row, sort):
            name = self._writing[sort] = f"{sort}-{int(self._clock.time() * 1000)}-{self._random(8).hex()}"
            segment = self._segments[name] = _Segment()
            segment.layout, segment.first = row.layout, row.end
        record = _encoded(row, segment.known)
        try:
            self._write(name, record)
        except OSError:  # part of it may be there
            del self._writing[sort]
            raise
        segment.end += len(record)
        segment.newest = max(segment.newest, row.end)
        segment.known = {kind: len(row.layout.places[kind]) for kind in KINDS}

    def _goes_into(self, segment: _Segment, row: Row, sort: str) -> bool:
        age = row.end - segment.first
        return segment.layout is row.layout and segment.end < _SEGMENT and age < _KEPT[sort] // _SEGMENTS

    def _write(self, name: str, record: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.directory / name, flags, 0o600)
        except FileNotFoundError:
            os.mkdir(self.directory, 0o700)
            descriptor = os.open(self.directory / name, flags, 0o600)
        try:
            written = os.write(descriptor, record)
        finally:
            os.close(descriptor)
        if written < len(record):
            raise OSError(f"{self.directory / name}: only {written} of {len(record)} bytes could be written")

    def _delete_old(self, now: int) -> None:
        """Delete segments whose rows are too old, and where there are too many bytes first the oldest minutes."""
        left = sum(segment.end for segment in self._segments.values())
        names = [
            name for sort in ("day", "hour") for name in sorted(self._segments, key=_begun) if name.startswith(sort)
        ]
        for name in names:
            segment = self._segments[name]
            old = segment.newest <= now - _KEPT[name.partition("-")[0]]
            if name not in self._writing.values() and (old or left > self.history.max_bytes):
                left -= segment.end
                del self._segments[name]
                try:
                    os.unlink(self.directory / name)
                except FileNotFoundError:
                    continue


def _begun(name: str) -> tuple[int, str]:
    _, begun, _ = name.split("-")
    return int(begun), name


def _typecodes(kind: Kind) -> str:
    return "dfff" if kind in DISTRIBUTIONS else "d"


def _encoded(row: Row, known: dict[Kind, int]) -> bytes:
    header = {
        "end": row.end,
        "interval": row.interval,
        "new": {kind: keys for kind in KINDS if (keys := row.layout.keys(kind, known[kind]))},
        "sizes": {kind: len(row.columns[kind][0]) for kind in KINDS},
        "heat": [(kind, key, heat.first, len(heat.weights)) for (kind, key), heat in row.heat.items()],
    }
    columns = [column.tobytes() for kind in KINDS for column in row.columns[kind]]
    written = _write(header).encode()
    body = b"".join((written, *columns, *(heat.weights.tobytes() for heat in row.heat.values())))
    return _HEAD.pack(_MAGIC, len(written), len(body), zlib.crc32(body)) + body
