"""The report of the page, as a value: a snapshot of the registry and the state of the flusher in, a report out.

Nothing here reads a socket or a registry, and nothing is formatted; page and JSON are made from the same report.
:func:`select` selects the series by their keys alone, so the snapshot needs no others. A page is therefore cheap even
with a million series, and the selection has a time limit.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, cast, overload

from ..delivery import SenderStatus
from ..flusher import FlusherStatus
from ..series import KINDS, Kind, Tags, split
from ..series_state import Snapshot, Total
from ..sketch import Readable
from ..window import Window
from ..wire.graphite import number

if TYPE_CHECKING:
    from ..group.reading import MemberStatus

__all__ = [
    "Order",
    "Report",
    "Row",
    "Rows",
    "Section",
    "Selection",
    "TooSlow",
    "Values",
    "matcher",
    "percentile_name",
    "report",
    "select",
    "still_there",
]

_BLOCK = 100
"""Number of keys between two checks of the time limit."""
_REMEMBERED = 100_000
"""Series whose order is remembered."""

Values = Mapping[str, float | None]
"""Statistics by name; None for a number that is not finite."""

Section = Mapping[str, object] | Sequence[Mapping[str, object]]
"""A further section of a report: values by name, or the rows of a table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One series. Timers are in milliseconds."""

    kind: Kind
    key: str
    """The canonical text: ``name;tag=value``."""
    name: str
    tags: Tags
    last: Values | None
    """Values of the last complete interval, or None."""
    open: Values | None
    """Values of the open interval so far, or None."""
    total: Values | None
    """Sums over all complete intervals; None for kinds without totals."""


class Rows(Sequence[Row]):
    """The rows of a report, each made when it is looked at: a format may read the snapshot without them."""

    def __init__(self, snapshot: Snapshot, chosen: Sequence[tuple[str, Kind]], percents: tuple[float, ...]) -> None:
        self.snapshot = snapshot
        self.chosen = chosen
        self.percents = percents

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        if isinstance(place, slice):
            return tuple(self)[place]
        return _row(self.snapshot, *self.chosen[place], self.percents)

    def __iter__(self) -> Iterator[Row]:
        return (_row(self.snapshot, key, kind, self.percents) for key, kind in self.chosen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Report:
    """The metrics of a program and the state of their delivery. Times are in seconds since the epoch."""

    title: str
    time: float
    uptime: float
    """Seconds since the page was created."""
    window: tuple[float, int] | None
    """Start and end of the last complete interval; None until the first has ended."""
    open: tuple[float, int]
    """Start and end of the open interval."""
    percentiles: tuple[float, ...]
    match: str
    total: int
    """Number of series."""
    matched: int
    """Number of series that match; ``rows`` are the first of these by path."""
    next: str
    """The value of ``after`` for the next page: the last of ``rows``, as ``counter:web.hits``; empty on the last page.
    """
    rows: Sequence[Row]
    dropped: Mapping[str, int]
    """Number of things that the registry refused or dropped since the start, by cause."""
    memory: Mapping[str, Mapping[str, int]]
    """Bytes ``used`` and ``allowed``, see :meth:`~..budget.Budget.usage`."""
    flusher: FlusherStatus
    sections: Mapping[str, Section]
    members: "Sequence[MemberStatus]" = ()
    """The processes whose sums these are; empty for a process alone."""

    @property
    def destinations(self) -> Sequence[SenderStatus]:
        return self.flusher.destinations


class TooSlow(Exception):
    """Selecting the series took too long."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The series of a report."""

    total: int
    matched: int
    chosen: Sequence[tuple[str, Kind]]
    """Keys and kinds, by path."""
    next: str
    complete: bool = False
    """Whether the snapshot has all of them, because they were taken from it."""

    def keys(self) -> dict[Kind, list[str]]:
        """Return the keys by kind."""
        found: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
        for key, kind in self.chosen:
            found[kind].append(key)
        return found


def select(
    series: Mapping[Kind, Collection[str]],
    match: str = "",
    limit: int = 2_000,
    after: str = "",
    in_time: Callable[[], bool] = lambda: True,
) -> Selection:
    """Return the first ``limit`` series by path after ``after`` that match ``match`` (see :class:`matcher`).

    Raises :class:`TooSlow` as soon as ``in_time()`` is false.
    """
    matches = matcher(match)
    found: list[tuple[str, Kind]] = []
    for kind in KINDS:
        keys = iter(series[kind])
        while block := list(islice(keys, _BLOCK)):
            found += [(key, kind) for key in block if not match or matches(key)]
            if not in_time():
                raise TooSlow
    after_kind, _, after_key = after.partition(":")
    start = _place((after_key, cast(Kind, after_kind))) if after else None
    behind = found if start is None else [each for each in found if _place(each) > start]
    chosen = nsmallest(limit, behind, _place) if limit < len(behind) else sorted(behind, key=_place)
    last = f"{chosen[-1][1]}:{chosen[-1][0]}" if len(chosen) < len(behind) else ""
    return Selection(sum(map(len, series.values())), len(found), chosen, last)


class Order:
    """All series by path, as :func:`select` returns them; remembered until there are others. Not thread-safe."""

    def __init__(self) -> None:
        self._series: Sequence[Sequence[str]] = ()
        self._all = Selection(0, 0, (), "")

    def of(self, series: Mapping[Kind, Collection[str]], in_time: Callable[[], bool] = lambda: True) -> Selection:
        """Return the selection of all series. It is the same object as before if they are the same."""
        keys = [list(series[kind]) for kind in KINDS]
        if keys != self._series:
            total = sum(map(len, keys))
            self._all = replace(select(series, limit=total + 1, in_time=in_time), complete=True)
            self._series = keys if total <= _REMEMBERED else ()
        return self._all


def still_there(chosen: Sequence[tuple[str, Kind]], snapshot: Snapshot) -> Sequence[tuple[str, Kind]]:
    """Return those series that are in the snapshot: the same object if all are."""
    totals = snapshot.totals
    found = [each for each in chosen if each[0] in totals[each[1]]]
    return chosen if len(found) == len(chosen) else found


def report(
    snapshot: Snapshot,
    flusher: FlusherStatus,
    selection: Selection | None = None,
    *,
    percentiles: Sequence[float] = (),
    match: str = "",
    limit: int = 2_000,
    title: str = "metricslib",
    uptime: float = 0.0,
    memory: Mapping[str, Mapping[str, int]] | None = None,
    sections: Mapping[str, Section] | None = None,
    members: "Sequence[MemberStatus]" = (),
) -> Report:
    """Return the report of ``selection``, or of the first ``limit`` series that match.

    Series of the selection that are no longer in the snapshot are omitted. The 90th percentile is always included.
    """
    percents = tuple(dict.fromkeys((90.0, *percentiles)))
    selection = selection or select(snapshot.totals, match, limit)
    chosen = selection.chosen if selection.complete else still_there(selection.chosen, snapshot)
    return Report(
        title=title,
        time=snapshot.time,
        uptime=uptime,
        window=None if snapshot.last is None else (snapshot.last.start, snapshot.last.end),
        open=(snapshot.open.start, snapshot.open.end),
        percentiles=percents,
        match=match,
        total=selection.total,
        matched=selection.matched,
        next=selection.next,
        rows=Rows(snapshot, chosen, percents),
        dropped=snapshot.dropped,
        memory=memory or {},
        flusher=flusher,
        sections=sections or {},
        members=members,
    )


class matcher:
    """Tells whether a series' canonical text is looked for: by a glob over all of it or over its name alone.

    The pieces between asterisks are looked for one after the other, each from where the one before ended. That is right
    for globs, as a piece matches texts of one length only; and no pattern takes longer than its length times the
    text's.

    A pattern without ``*``, ``?`` and ``[`` looks for itself anywhere in the text, or with ``whole`` as all of it; an
    empty one for everything.

    >>> [matcher(pattern)("web.hits;route=u") for pattern in ("web.*", "*.hits", "route=u", "web.h", "db.*")]
    [True, True, True, True, False]
    """

    def __init__(self, pattern: str, *, whole: bool = False) -> None:
        glob = pattern if whole or any(character in pattern for character in "*?[") else f"*{pattern}*"
        pieces: list[list[str]] = [[]]
        for token in _TOKEN.findall(glob):
            if token == "*":
                pieces.append([])
            else:
                pieces[-1].append(token)
        self._all = not pattern
        self._first, *inner = map(_Piece, pieces)
        self._last = inner.pop() if inner else None
        self._inner = [piece for piece in inner if piece.length]

    def __call__(self, key: str) -> bool:
        return self._all or self._match(key) or (";" in key and self._match(key.partition(";")[0]))

    def _match(self, text: str) -> bool:
        place = self._first.length
        if not self._first.is_at(text, 0):
            return False
        if self._last is None:
            return place == len(text)
        for piece in self._inner:
            found = piece.find(text, place)
            if found < 0:
                return False
            place = found + piece.length
        end = len(text) - self._last.length
        return end >= place and self._last.is_at(text, end)


_TOKEN = re.compile(r"\[!?+\]?+[^]]*+\]|.", re.DOTALL)
"""A character of a glob: ``a``, ``?``, ``*`` or ``[a-z]``."""


class _Piece:
    """A part between two asterisks: a fixed number of characters, each of them fixed, any, or one of a set."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.length = len(tokens)
        self._text = "".join(tokens)
        self._pattern: re.Pattern[str] | None = None
        if any(token == "?" or len(token) > 1 for token in tokens):
            self._pattern = re.compile("".join(map(_translated, tokens)), re.DOTALL)

    def is_at(self, text: str, place: int) -> bool:
        if self._pattern:
            return self._pattern.match(text, place) is not None
        return text.startswith(self._text, place)

    def find(self, text: str, place: int) -> int:
        """Return its first position in ``text`` from ``place`` on, or -1."""
        if self._pattern is None:
            return text.find(self._text, place)
        found = self._pattern.search(text, place)
        return found.start() if found else -1


def _translated(token: str) -> str:
    """Return a token as a regular expression, as :func:`fnmatch.translate` does, without its additions."""
    whole = translate(token)
    return whole[whole.index(":") + 1 : whole.rindex(")")]


def percentile_name(percent: float) -> str:
    """Return ``p90`` for 90; ``top10`` for -10, which is the least of the largest ten percent."""
    return f"p{number(percent)}" if percent > 0 else f"top{number(-percent)}"


def _place(chosen: tuple[str, Kind]) -> tuple[str, int]:
    """Return the sort key by path: a name comes before its tagged series, and these before longer names."""
    key, kind = chosen
    return key.replace(".", "\1").replace(";", "\0"), KINDS.index(kind)


def _row(snapshot: Snapshot, key: str, kind: Kind, percents: tuple[float, ...]) -> Row:
    name, tags = split(key)
    last = _found(snapshot.last, kind, key, percents) if snapshot.last else None
    return Row(kind, key, name, tags, last, _found(snapshot.open, kind, key), _total(kind, snapshot.totals[kind][key]))


def _found(window: Window, kind: Kind, key: str, percents: tuple[float, ...] | None = None) -> Values | None:
    """Return the statistics of a series in ``window``; without ``percents``, only those of an open interval."""
    value = window[kind].get(key)
    if value is None:
        return None
    if kind == "gauge":
        return _finite({"value": value})
    if isinstance(value, Readable):
        return _finite(dict(_statistics(value, window.interval, percents)))
    count = value if kind == "counter" else len(value)
    if kind == "unique" or percents is None:
        return _finite({"count": count})
    return _finite({"count": count, "rate": _rate(count, window.interval)})


def _statistics(
    distribution: Readable, interval: float, percents: tuple[float, ...] | None
) -> Iterator[tuple[str, float | None]]:
    """Yield the statistics of the samples of an interval; without samples, only the count."""
    yield "count", distribution.count
    if percents is not None:
        yield "rate", _rate(distribution.count, interval)
    if distribution.count:
        yield "sum", distribution.sum
        yield "mean", distribution.mean
        yield "min", distribution.min
        yield "max", distribution.max
        if percents is not None:
            yield "std", distribution.std
            yield "median", distribution.median
            for percent, share in zip(percents, distribution.shares(percents), strict=True):
                yield percentile_name(percent), None if share is None else share.boundary


def _total(kind: Kind, total: Total) -> Values | None:
    if kind == "counter":
        return _finite({"count": total.sum})
    if kind in ("timer", "histogram"):
        return _finite({"count": total.count, "sum": total.sum})
    return None


def _rate(count: float, interval: float) -> float | None:
    try:
        return count / interval
    except OverflowError:  # an int that no float can hold
        return None


def _finite(values: dict[str, float | None]) -> Values:
    return {name: value if value is not None and _is_finite(value) else None for name, value in values.items()}


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
