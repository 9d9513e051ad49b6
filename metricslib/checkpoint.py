"""The checkpoint: state that survives a restart, stored in the spool together with the windows.

Each part of the program with such state is a :class:`CheckpointParticipant`: the registry, the schedule, the list of
received batches in a forwarder. A flush is stored as follows:

.. code-block:: text

    participants ──notes(flush)──> notes, by key ──┐
                                                   ├── one transaction ──> spool ──> committed(flush)
    registry ──────flush()───────> windows ────────┘

1. Every participant returns its notes for the flush.
2. Notes and windows go into the spool in one transaction. So the notes always match the windows there: they are the
   totals after these windows, or the number of a client's last batch in them. A crash before the end of the
   transaction loses both, and a crash after it loses neither.
3. ``committed()`` of each participant is called. Only now may a participant forget its notes, or acknowledge a batch
   to its client.

At a start, each participant gets all notes of the previous process.

The notes of the registry (:class:`RegistryCheckpoint`):

- At the end of an interval, totals and gauges of the series that changed. So the work depends on the measurements,
  not on the number of series.
- During an interval, the part of the open interval that was sent. The end of the interval deletes this note.
- When a series expires or is deleted, its notes are deleted.

Notes are JSON as Python writes it, in which a number may also be NaN or Infinity. Reading restores the exact state:
numbers to the last bit, each sample, and each bucket of a sketch. The file may be damaged or edited, so a note that
could not have been written raises :class:`BadNote`, and only values that calls could have produced get into a registry.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from .drops import ErrorReporter
from .registry import Registry
from .series import KINDS, Kind, Series
from .series_state import TOTALS, DistributionTotal, GaugeTotal, SummedTotal, Total
from .sketch import Distribution, Restored
from .window import Aggregates, Flush, GaugeChange, OpenInterval

__all__ = [
    "BadNote",
    "CheckpointParticipant",
    "Checkpoint",
    "RegistryCheckpoint",
    "read_key",
    "read_open",
    "read_total",
    "read_value",
    "write_open",
    "write_total",
    "write_value",
]

_write = json.JSONEncoder(separators=(",", ":"), default=float).encode  # sources may use number types of their own
_LARGEST_BUCKET = 5121
_MOST_SAMPLES = 2**31 - 1
_HEAVIEST = 2.0**53  # units in a bucket


class BadNote(ValueError):
    """A note is damaged, or was edited."""


# -- checks of the values in a note


@contextmanager
def _nothing_but_bad_notes() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadNote(str(error)) from error


def _require(condition: bool) -> None:
    if not condition:
        raise BadNote("a part of it cannot be")


def _number(value: Any) -> float:
    """Return ``value`` if it is a number; a sum may also be NaN or infinite."""
    _require(type(value) is float or type(value) is int)
    return value  # type: ignore[no-any-return]


def _finite(value: Any) -> float:
    _require(math.isfinite(_number(value)))
    return value  # type: ignore[no-any-return]


def _not_negative(value: Any) -> float:
    _require(_finite(value) >= 0)
    return value  # type: ignore[no-any-return]


def _positive(value: Any) -> float:
    _require(_finite(value) > 0)
    return value  # type: ignore[no-any-return]


def _whole(value: Any, least: int, most: int) -> int:
    _require(type(value) is int and least <= value <= most)
    return value  # type: ignore[no-any-return]


# -- a series' totals


def write_total(total: Total) -> bytes:
    """Return ``total`` as a note, without the number of idle windows, which changes with every window."""
    note: dict[str, Any] = {"place": total.place, "active": total.active}
    if total.created is not None:
        note["created"] = total.created
    if total.gauge is not None:
        note["gauge"] = total.gauge
    if total.sum or total.count:
        note["sum"], note["count"] = total.sum, total.count
    if total.powers:
        note["powers"] = total.powers
    return _write(note).encode()


def read_total(kind: Kind, note: bytes) -> Total:
    """Return the total in a note of :func:`write_total` for a series of this kind. Raises :class:`BadNote`."""
    with _nothing_but_bad_notes():
        document = json.loads(note)
        total = TOTALS[kind](_finite(document["active"]))
        total.place = _whole(document["place"], 0, 2**63)
        if isinstance(total, GaugeTotal) and "gauge" in document:
            total.gauge = _finite(document["gauge"])
        if isinstance(total, SummedTotal):
            total.sum = _number(document.get("sum", 0))
            total.created = _finite(document["created"]) if "created" in document else None
        if isinstance(total, DistributionTotal):
            total.count = _not_negative(document.get("count", 0))
            weights = document.get("powers", {}).items()
            total.powers = {_whole(int(power), -40, 40): _not_negative(weight) for power, weight in weights}
        return total


def read_key(kind: Kind, key: str) -> Series:
    """Return the series with the key ``key``. Raises :class:`BadNote` if the key is not canonical."""
    series = Series.of_key(kind, key)
    _require(series.key == key)
    return series


# -- the open interval


def write_open(interval: OpenInterval) -> bytes:
    """Return an open interval as a note."""
    document: dict[str, Any] = {"start": interval.start, "end": interval.end}
    for kind in KINDS:
        write = _WRITERS[kind]
        document[kind] = {key: write(value) for key, value in interval.sent[kind].items()}
    return _write(document).encode()


def read_open(note: bytes) -> tuple[OpenInterval, int]:
    """Return the interval in a note of :func:`write_open`, and the number of series that were omitted as invalid.

    Raises :class:`BadNote` if the note has no interval.
    """
    sent, bad = Aggregates(), 0
    with _nothing_but_bad_notes():
        document = json.loads(note)
        interval = OpenInterval(_finite(document["start"]), _whole(document["end"], 0, 2**63), sent)
        for kind in KINDS:
            for key, value in document[kind].items():
                try:
                    sent[kind][key] = _read_value(kind, key, value)
                except BadNote:
                    bad += 1
    return interval, bad


def write_value(kind: Kind, value: Any) -> Any:
    """Return the aggregate of one series of this kind as a JSON value."""
    return _WRITERS[kind](value)


def read_value(kind: Kind, value: Any) -> Any:
    """Return the aggregate in a JSON value of :func:`write_value`. Raises :class:`BadNote` for any other value."""
    with _nothing_but_bad_notes():
        return _READERS[kind](value)


def _read_value(kind: Kind, key: str, value: Any) -> Any:
    with _nothing_but_bad_notes():
        read_key(kind, key)
        return _READERS[kind](value)


def _write_distribution(distribution: Distribution) -> dict[str, Any]:
    parts = {name: part for name, part in distribution.parts().items() if part is not None}
    if "buckets" in parts:
        parts["buckets"] = sorted(parts["buckets"].items())
    return parts


def _read_distribution(parts: Mapping[str, Any]) -> Distribution:
    limit = _whole(parts["limit"], 1, _MOST_SAMPLES)
    if "buckets" in parts:
        return _read_sketch(parts, limit)
    distribution = Distribution(limit=limit)
    samples = [_finite(sample) for sample in parts["samples"]]
    if "weights" in parts:
        for sample, weight in zip(samples, parts["weights"], strict=True):
            distribution.add(sample, _positive(weight))
    else:
        distribution.extend(samples)
    return distribution.freeze()


def _read_sketch(parts: Mapping[str, Any], limit: int) -> Restored:
    buckets = {
        _whole(bucket, -_LARGEST_BUCKET, _LARGEST_BUCKET): _positive(weight) for bucket, weight in parts["buckets"]
    }
    if not buckets:  # no samples, but the sums may have been corrected
        return Restored({}, limit=limit, sum=_number(parts["sum"]), sum_squares=_number(parts["sum_squares"]))
    least, most, unit = _finite(parts["min"]), _finite(parts["max"]), _not_negative(parts["unit"])
    _require(least <= most)
    _require(not unit or all(0.5 <= weight / unit <= _HEAVIEST for weight in buckets.values()))
    return Restored(
        buckets,
        limit=limit,
        count=_positive(parts["count"]),
        sum=_number(parts["sum"]),
        sum_squares=_number(parts["sum_squares"]),
        min=least,
        max=most,
        unit=unit,
    )


def _read_gauge(value: Any) -> GaugeChange:
    base, delta = value
    absent = type(base) is float and math.isnan(base)
    return GaugeChange(base if base is None or absent else _finite(base), _finite(delta))


def _read_members(value: Any) -> frozenset[str]:
    _require(type(value) is list and bool(value) and all(type(member) is str for member in value))
    return frozenset(value)


_WRITERS: Mapping[Kind, Callable[[Any], Any]] = {
    "counter": lambda count: count,
    "timer": _write_distribution,
    "histogram": _write_distribution,
    "gauge": list,
    "unique": sorted,
}
_READERS: Mapping[Kind, Callable[[Any], Any]] = {
    "counter": _finite,
    "timer": _read_distribution,
    "histogram": _read_distribution,
    "gauge": _read_gauge,
    "unique": _read_members,
}


class CheckpointParticipant(Protocol):
    """A part of the program with notes that are stored with each flush. Only the flushing thread calls it.

    The keys of its notes begin with a word of its own: ``sender/…``, ``series/…``.
    """

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return the notes that changed with ``flush``, by key. None deletes a note.

        ``closes`` is True if the flush ends its interval, and False if it is in the middle of it.
        """
        ...

    def committed(self, flush: Flush) -> None:
        """Called when flush and notes are in the spool: on disk, if there is a spool directory that works."""
        ...

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Restore the state of the previous process. ``notes`` are those of all participants."""
        ...


class Checkpoint:
    """All participants of a flusher. An error of one is counted in ``errors``, and does not affect the others."""

    def __init__(self) -> None:
        self._participants: list[CheckpointParticipant] = []

    def add(self, participant: CheckpointParticipant) -> None:
        """Add a participant, from the next flush on."""
        self._participants.append(participant)

    def commit(
        self,
        flush: Flush,
        commit: Callable[[Mapping[str, bytes | None]], object],
        errors: ErrorReporter,
        *,
        closes: bool,
    ) -> None:
        """Collect the notes for ``flush``, call ``commit`` to store both, then ``committed()`` of the participants.

        Participants whose ``notes()`` failed do not get ``committed()``. Raises MemoryError if ``commit`` does; then it
        may be tried again.
        """
        notes: dict[str, bytes | None] = {}
        noted: list[CheckpointParticipant] = []
        for participant in self._participants:
            if errors.attempt("notes", partial(_note, participant, flush, closes, notes)):
                noted.append(participant)
        short: list[MemoryError] = []

        def kept() -> None:
            try:
                commit(notes)
            except MemoryError as error:
                short.append(error)
                raise

        if errors.attempt("commit", kept):
            for participant in noted:
                errors.attempt("kept", partial(participant.committed, flush))
        if short:
            raise short[0]

    def restore(self, notes: Mapping[str, bytes], errors: ErrorReporter) -> None:
        """Pass the notes to all participants."""
        for participant in self._participants:
            errors.attempt("restore", partial(participant.restore, notes))


def _note(participant: CheckpointParticipant, flush: Flush, closes: bool, notes: dict[str, bytes | None]) -> None:
    notes.update(participant.notes(flush, closes=closes))


_OPEN = "open"
_SERIES = "series"

_Totals = dict[Kind, dict[str, Total]]


class RegistryCheckpoint:
    """Keeps the state of ``registry``. ``next_slot`` returns the stamp of its next window, and the interval in seconds.

    It is also a source of the registry, so that ``forget`` is called for expired series. Series whose names begin with
    ``own`` describe this process: they are not restored, except for the part of the open interval that was sent. In the
    drop counter of the registry, bad notes have the cause ``bad_note``, and series above a cap ``not_restored``.
    """

    def __init__(self, registry: Registry, next_slot: Callable[[], tuple[int, int]], own: str = "") -> None:
        self._registry = registry
        self._next_slot = next_slot
        self._own = f"{own}." if own else "\0"
        self._next = 0  # the next number in the order of series
        self._unseen = False  # True if there may be series without notes
        self._left: deque[str] = deque()  # keys of notes, from any thread
        self._pending: dict[str, bytes | None] = {}  # notes that may not be stored yet

    # -- a source without aggregates

    def collect(self) -> Aggregates:
        """Return nothing."""
        return Aggregates()

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired or was deleted: the next flush deletes its note."""
        self._left.append(_key(kind, key))

    # -- a participant

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return the changes with ``flush``, and earlier ones that were not stored."""
        pending = self._pending
        while self._left:  # first, because a series that is used again has a new note
            pending[self._left.popleft()] = None
        if self._unseen:
            self._unseen = False
            known, _ = self._registry.remembered()
            pending.update(self._noted(known, closes=False))
        changed, opened = self._registry.remembered(flush)
        pending.update(self._noted(changed, closes=closes))
        pending[_OPEN] = None if closes or opened is None else write_open(opened)
        return pending

    def committed(self, flush: Flush) -> None:
        """The notes of ``flush`` are stored."""
        self._pending = {}

    def _noted(self, totals: list[tuple[Kind, str, Total]], *, closes: bool) -> Iterator[tuple[str, bytes]]:
        """Yield notes of the series that changed. During an interval, these are only new series."""
        for kind, key, total in totals:
            if key.startswith(self._own) or not key.isascii():  # a key that is not ASCII could not be restored
                continue
            new = total.place is None
            if new:
                total.place = self._next
                self._next += 1
            if new or closes:
                yield _key(kind, key), write_total(total)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Restore the notes of an earlier process. Only the first call does, because later the registry is newer."""
        self._unseen = True
        series = {key: note for key, note in notes.items() if key.startswith(f"{_SERIES}/")}
        if self._registry.restored:
            self._start_over([*series, _OPEN])
            return
        stamp, interval = self._next_slot()
        totals = self._read(series)
        opened = self._read_open(notes[_OPEN], totals, stamp) if _OPEN in notes else None
        self._next = 1 + max((total.place or 0 for known in totals.values() for total in known.values()), default=-1)
        self._registry.restore(totals, opened, stamp, interval)
        if opened:  # if the interval is over, it changed totals
            for kind in KINDS:
                both = opened.sent[kind].keys() & totals[kind].keys()
                self._pending.update({_key(kind, key): write_total(totals[kind][key]) for key in both})

    def _start_over(self, keys: list[str]) -> None:
        """Make the next flush replace all notes by the current state."""
        self._pending.update(dict.fromkeys(keys))
        for _, _, total in self._registry.remembered()[0]:
            total.place = None

    def _read(self, notes: Mapping[str, bytes]) -> _Totals:
        found = []
        for note_key, note in notes.items():
            try:
                series = _series(note_key)
                found.append((series, read_total(series.kind, note)))
            except BadNote:
                self._registry.drops.add("bad_note")
                self._pending[note_key] = None
        found.sort(key=lambda entry: entry[1].place or 0)
        totals: _Totals = {kind: {} for kind in KINDS}
        for series, total in found:
            if self._admit(series):
                totals[series.kind][series.key] = total
        return totals

    def _read_open(self, note: bytes, totals: _Totals, stamp: int) -> OpenInterval | None:
        try:
            opened, bad = read_open(note)
        except BadNote:
            self._registry.drops.add("bad_note")
            return None
        if bad:
            self._registry.drops.add("bad_note", bad)
        for kind in KINDS:
            for key in [key for key in opened.sent[kind] if key not in totals[kind]]:
                own = key.startswith(self._own)
                goes_on = own and kind != "gauge" and opened.end == stamp
                if not goes_on and (own or not self._admit(Series.of_key(kind, key))):
                    del opened.sent[kind][key]
        return opened

    def _admit(self, series: Series) -> bool:
        if self._registry.readmit(series):
            return True
        note_key = _key(series.kind, series.key)
        if note_key not in self._pending:  # it may be in the open interval, too
            self._registry.drops.add("not_restored")
        self._pending[note_key] = None
        return False


def _key(kind: Kind, key: str) -> str:
    return f"{_SERIES}/{kind}/{key}"


def _series(note_key: str) -> Series:
    """Return the series to which a note belongs. Raises :class:`~.checkpoint.BadNote`."""
    _, _, rest = note_key.partition("/")
    for kind in KINDS:
        if rest.startswith(f"{kind}/"):
            return read_key(kind, rest.removeprefix(f"{kind}/"))
    raise BadNote("no kind of series")
