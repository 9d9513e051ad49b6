"""A report as JSON, for programs.

The schema is stable: while ``"schema"`` is 1, members may be added, but none is changed or removed. Times are in
seconds since the epoch, durations in seconds, and values of timers in milliseconds. A number that is not finite is
``null``.

``schema``        1
``title``         title of the page
``time``          time of the report
``uptime``        seconds since the page was created
``interval``      seconds between ticks
``prefix``        prefix of every name at the destinations
``window``        ``{"start", "end"}`` of the last complete interval; null until the first has ended
``open``          ``{"start", "end"}`` of the open interval
``percentiles``   configured percentiles; in ``last`` they are named ``p90``, or ``top10`` for -10
``count``         ``{"total", "matched", "shown"}``: number of series that exist, match, and are in ``series``
``match``         the pattern; empty for all
``next``          value of ``after=`` for the next page; null on the last page
``series``        list in order of path: ``{"kind", "key", "name", "tags", "unit", "last", "open", "total"}``
``dropped``       number of things that the registry refused or dropped, by cause
``memory``        the bytes ``{"used", "allowed"}`` of ``total``, ``series``, ``raw_keys`` and ``members``
``flusher``       ``{"running", "ticks", "steps_back", "skipped", "lag", "errors"}``; errors by cause
``destinations``  a list: ``{"label", "up", "since", "age", "windows_sent", "points_sent", "bytes_sent", "errors",
                  "errors_by_type", "dropped", "waiting_batches", "waiting_points", "waiting_bytes", "last_error",
                  "nodes", "lag", "backlog_batches", "backlog_points", "replay_rate", "drained_in", "on_disk",
                  "disk_bytes", "spool_trouble", "verified", "unverified", "verify_trouble"}``; nodes a list:
                  ``{"label", "up", "since", "errors", "last_error"}``
``members``       the processes whose sums these are, see "Workers are one": ``{"number", "pid", "program", "since",
                  "rate", "written"}``; ``rate`` is what it counted and observed a second in the last interval, and
                  ``written`` when it last wrote. Empty for a process alone
``sections``      further figures by title

In ``last``: a counter has ``count`` and ``rate``; a timer or histogram those and ``sum mean min max std median`` and
the percentiles; a gauge ``value``; a unique ``count``. A timer or histogram without samples has only ``count`` and
``rate``, both 0. ``open`` has ``count``, ``sum mean min max`` or ``value``; ``total`` has ``count`` and ``sum`` over
all complete intervals. Each of the three may be null. ``unit`` is ``"ms"`` for timers and null for others.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..delivery import SenderStatus
from .report import Report, Row

__all__ = ["as_json", "as_values", "parts"]


_write = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def as_json(report: Report) -> str:
    """Return the report as one JSON object, in ASCII."""
    return "".join(parts(report))


def parts(report: Report) -> Iterator[str]:
    """Yield the text of :func:`as_json` in parts, series by series."""
    series = '"series":['  # in no text before it: there, its quotes are escaped
    before, _, behind = _write(as_values(report, with_series=False)).partition(series)
    yield before + series
    for place, row in enumerate(report.rows):
        yield "," * bool(place) + _write(_series(row))
    yield behind + "\n"


def as_values(report: Report, *, with_series: bool = True) -> dict[str, Any]:
    """Return the object of :func:`as_json`, as dictionaries, lists, strings and numbers."""
    flusher = report.flusher
    return {
        "schema": 1,
        "title": report.title,
        "time": report.time,
        "uptime": report.uptime,
        "interval": flusher.interval,
        "prefix": flusher.prefix,
        "window": report.window and _span(*report.window),
        "open": _span(*report.open),
        "percentiles": list(report.percentiles),
        "count": {"total": report.total, "matched": report.matched, "shown": len(report.rows)},
        "match": report.match,
        "next": report.next or None,
        "series": [_series(row) for row in report.rows] if with_series else [],
        "dropped": dict(report.dropped),
        "memory": {share: dict(bytes_) for share, bytes_ in report.memory.items()},
        "flusher": {
            "running": flusher.running,
            "ticks": flusher.ticks,
            "steps_back": flusher.steps_back,
            "skipped": flusher.skipped,
            "lag": flusher.lag,
            "errors": dict(flusher.errors),
        },
        "destinations": [_destination(status) for status in report.destinations],
        "members": [_plain(asdict(member)) for member in report.members],
        "sections": _plain(report.sections),
    }


def _span(start: float, end: int) -> dict[str, float]:
    return {"start": start, "end": end}


def _series(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "key": row.key,
        "name": row.name,
        "tags": dict(row.tags),
        "unit": "ms" if row.kind == "timer" else None,
        "last": row.last,
        "open": row.open,
        "total": row.total,
    }


_DESTINATION = (
    "label",
    "up",
    "since",
    "age",
    "windows_sent",
    "points_sent",
    "bytes_sent",
    "errors",
    "errors_by_type",
    "dropped",
    "waiting_batches",
    "waiting_points",
    "waiting_bytes",
    "last_error",
    "lag",
    "backlog_batches",
    "backlog_points",
    "replay_rate",
    "drained_in",
    "on_disk",
    "disk_bytes",
    "spool_trouble",
    "verified",
    "unverified",
    "verify_trouble",
)


def _destination(status: SenderStatus) -> dict[str, Any]:
    nodes = [_plain(asdict(node)) for node in status.nodes]
    return {**{name: _plain(getattr(status, name)) for name in _DESTINATION}, "nodes": nodes}


def _plain(value: object) -> Any:
    """Return ``value`` with JSON types only. Other types become strings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
