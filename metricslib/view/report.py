"""What the page says, as a value: a snapshot of the registry and the state of the flusher in, one frozen report out.

Nothing here reads a clock, a socket or a registry, and nothing is formatted: page and JSON are made from the same
report. Statistics are computed for the series that are shown and for no others, so that a page of a million series
stays cheap.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from heapq import nsmallest

from ..delivery import Status
from ..distribution import Readable
from ..flusher import FlusherStatus
from ..names import Tags, split
from ..series import KINDS, Kind
from ..snapshot import Snapshot
from ..totals import Total
from ..window import Window
from ..wire.graphite import number

__all__ = ["Report", "Row", "Section", "Values", "matcher", "percentile_name", "report"]

Values = Mapping[str, float | None]
"""Statistics by name; None where there is no finite number."""

Section = Mapping[str, object] | Sequence[Mapping[str, object]]
"""One more part of a report: names with what they are, or the rows of a table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One series. Timers are in milliseconds."""

    kind: Kind
    key: str
    """The canonical text: ``name;tag=value``."""
    name: str
    tags: Tags
    last: Values | None
    """In the last whole interval; None when the series has nothing to say about it."""
    open: Values | None
    """In the open interval so far."""
    total: Values | None
    """Over all whole intervals; None for kinds that have no total."""


@dataclass(frozen=True, slots=True)
class Report:
    """A program's metrics and how shipping them goes, at one moment. Times are seconds since the epoch."""

    title: str
    time: float
    uptime: float
    """Seconds since the page was set up."""
    window: tuple[float, int] | None
    """Start and end of the last whole interval; None before the first has ended."""
    open: tuple[float, int]
    """Start of the open interval, and its end to come."""
    percentiles: tuple[float, ...]
    match: str
    total: int
    """How many series there are."""
    matched: int
    """How many of them the filter lets through; ``rows`` are the first of these by path."""
    rows: tuple[Row, ...]
    dropped: Mapping[str, int]
    """What the registry refused or dropped since the start, by cause."""
    flusher: FlusherStatus
    sections: Mapping[str, Section]

    @property
    def destinations(self) -> Sequence[Status]:
        return self.flusher.destinations


def report(
    snapshot: Snapshot,
    flusher: FlusherStatus,
    *,
    percentiles: Sequence[float] = (),
    match: str = "",
    limit: int = 2_000,
    title: str = "metricslib",
    uptime: float = 0.0,
    sections: Mapping[str, Section] | None = None,
) -> Report:
    """Return the report of what ``match`` lets through (see :func:`matcher`), at most ``limit`` rows of it.

    The 90th percentile is always among the percentiles.
    """
    percents = tuple(dict.fromkeys((90.0, *percentiles)))
    matches = matcher(match)
    chosen = [(key, kind) for kind in KINDS for key in snapshot.totals[kind] if matches(key)]
    return Report(
        title=title,
        time=snapshot.time,
        uptime=uptime,
        window=None if snapshot.last is None else (snapshot.last.start, snapshot.last.end),
        open=(snapshot.open.start, snapshot.open.end),
        percentiles=percents,
        match=match,
        total=sum(len(snapshot.totals[kind]) for kind in KINDS),
        matched=len(chosen),
        rows=tuple(_row(snapshot, key, kind, percents) for key, kind in nsmallest(limit, chosen, _place)),
        dropped=snapshot.dropped,
        flusher=flusher,
        sections=sections or {},
    )


class matcher:
    """Tells whether a series' canonical text is looked for: by a glob over all of it or over its name alone.

    A pattern without ``*``, ``?`` and ``[`` looks for itself anywhere in the text; an empty one for everything.

    >>> [matcher(pattern)("web.hits;route=u") for pattern in ("web.*", "*.hits", "route=u", "web.h", "db.*")]
    [True, True, True, True, False]
    """

    def __init__(self, pattern: str) -> None:
        glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
        self._match = re.compile(translate(glob)).match
        self._all = not pattern

    def __call__(self, key: str) -> bool:
        return self._all or bool(self._match(key)) or (";" in key and bool(self._match(key.partition(";")[0])))


def percentile_name(percent: float) -> str:
    """Return ``p90`` for 90; ``top10`` for -10, which is the least of the largest ten percent."""
    return f"p{number(percent)}" if percent > 0 else f"top{number(-percent)}"


def _place(chosen: tuple[str, Kind]) -> tuple[str, int]:
    """Order by path: a name comes before its tagged series, and these before longer names."""
    key, kind = chosen
    return key.replace(".", "\1").replace(";", "\0"), KINDS.index(kind)


def _row(snapshot: Snapshot, key: str, kind: Kind, percents: tuple[float, ...]) -> Row:
    name, tags = split(key)
    last = _found(snapshot.last, kind, key, percents) if snapshot.last else None
    return Row(kind, key, name, tags, last, _found(snapshot.open, kind, key), _total(kind, snapshot.totals[kind][key]))


def _found(window: Window, kind: Kind, key: str, percents: tuple[float, ...] | None = None) -> Values | None:
    """Return the series' statistics in ``window``; only the cheap ones without ``percents``, for an open interval."""
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
    """Yield what an interval's samples say: a count of 0 and nothing else when there is none."""
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
