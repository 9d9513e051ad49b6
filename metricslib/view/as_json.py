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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from math import isfinite
from typing import Any

from ..delivery import SenderStatus
from ..series import KINDS, Kind
from ..series_state import Snapshot
from .report import Report, Row, Rows, percentile_name

__all__ = ["as_json", "as_values", "parts"]


_write = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def as_json(report: Report) -> str:
    """Return the report as one JSON object, in ASCII."""
    return "".join(parts(report))


def parts(report: Report, texts: "Texts | None" = None) -> Iterator[str]:
    """Yield the text of :func:`as_json` in parts, some series at a time."""
    series = '"series":['  # in no text before it: there, its quotes are escaped
    before, _, behind = _write(as_values(report, with_series=False)).partition(series)
    yield before + series
    rows = report.rows
    found = (texts or Texts()).of(rows) if isinstance(rows, Rows) else (_write(_series(row)) for row in rows)
    comma = ""
    while block := list(islice(found, _BLOCK)):
        yield comma + ",".join(block)
        comma = ","
    yield behind + "\n"


class Texts:
    """Writes the series of a report, as the encoder of JSON writes :func:`_series`, in a fraction of its time.

    What does not change is remembered: the beginning of each series' text. Numbers are put into templates. That is the
    same text wherever all numbers are finite ints and floats; any other series is left to the encoder. Thread-safe.
    """

    def __init__(self) -> None:
        self._heads: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}

    def of(self, rows: Rows) -> Iterator[str]:
        """Yield the text of each series."""
        if sum(map(len, self._heads.values())) > 2 * len(rows) + 1000:
            self._heads = {kind: {} for kind in KINDS}
        snapshot = rows.snapshot
        kinds: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
        for key, kind in rows.chosen:
            kinds[kind].append(key)
        written: dict[Kind, Iterator[str | None]] = {
            "counter": _counters(snapshot, kinds["counter"]),
            "gauge": _gauges(snapshot, kinds["gauge"]),
            "unique": _uniques(snapshot, kinds["unique"]),
            "timer": _distributions(snapshot, "timer", kinds["timer"], rows.percents),
            "histogram": _distributions(snapshot, "histogram", kinds["histogram"], rows.percents),
        }
        heads = self._heads
        for place, (key, kind) in enumerate(rows.chosen):
            text = next(written[kind])
            if text is None:
                yield _write(_series(rows[place]))
                continue
            head = heads[kind].get(key)
            if head is None:
                empty = _series(rows[place]) | {"last": None, "open": None, "total": None}
                head = heads[kind][key] = _write(empty)[: -len('null,"open":null,"total":null}')]
            yield head + text


_BLOCK = 100
_PLAIN = frozenset((int, float))


def _counters(snapshot: Snapshot, keys: Sequence[str]) -> Iterator[str | None]:
    last, interval = (snapshot.last.counters, snapshot.last.interval) if snapshot.last else ({}, 1.0)
    open_, totals = snapshot.open.counters, snapshot.totals["counter"]
    for before, now, total in zip(
        map(last.get, keys), map(open_.get, keys), map(totals.__getitem__, keys), strict=True
    ):
        sum_ = total.sum
        plain = type(sum_) in _PLAIN and (before is None or type(before) in _PLAIN)
        if now is None or type(now) not in _PLAIN or not plain:
            yield None
            continue
        try:
            rate = 0.0 if before is None else before / interval
            finite = isfinite(rate + now + sum_)
        except OverflowError:
            finite = False
        if not finite:
            yield None
        elif before is None:
            yield f'null,"open":{{"count":{now!r}}},"total":{{"count":{sum_!r}}}}}'
        else:
            yield f'{{"count":{before!r},"rate":{rate!r}}},"open":{{"count":{now!r}}},"total":{{"count":{sum_!r}}}}}'


def _gauges(snapshot: Snapshot, keys: Sequence[str]) -> Iterator[str | None]:
    last, open_ = snapshot.last.gauges if snapshot.last else {}, snapshot.open.gauges
    for before, now in zip(map(last.get, keys), map(open_.get, keys), strict=True):
        if type(before) is not float or type(now) is not float or not isfinite(before + now):
            yield None
        else:
            yield f'{{"value":{before!r}}},"open":{{"value":{now!r}}},"total":null}}'


def _uniques(snapshot: Snapshot, keys: Sequence[str]) -> Iterator[str | None]:
    last, open_ = snapshot.last.uniques if snapshot.last else {}, snapshot.open.uniques
    for before, now in zip(map(last.get, keys), map(open_.get, keys), strict=True):
        if before is None or now is None:
            yield None
        else:
            yield f'{{"count":{len(before)}}},"open":{{"count":{len(now)}}},"total":null}}'


def _distributions(
    snapshot: Snapshot, kind: Kind, keys: Sequence[str], percents: tuple[float, ...]
) -> Iterator[str | None]:
    last, interval = (snapshot.last[kind], snapshot.last.interval) if snapshot.last else ({}, 1.0)
    open_, totals = snapshot.open[kind], snapshot.totals[kind]
    shown = ("count", "rate", "sum", "mean", "min", "max", "std", "median", *map(percentile_name, percents))
    template = "{" + ",".join(f"{_write(name)}:%r" for name in shown) + "}"
    template += ',"open":{"count":%r,"sum":%r,"mean":%r,"min":%r,"max":%r},"total":{"count":%r,"sum":%r}}'
    for before, now, total in zip(
        map(last.get, keys), map(open_.get, keys), map(totals.__getitem__, keys), strict=True
    ):
        if before is None or now is None:
            yield None
            continue
        values: tuple[float, ...]
        if before.count and now.count:
            shares = [share[1] if share else math.nan for share in before._shares(percents)]
            count = before.count
            values = (
                *(count, count / interval, before.sum, before.mean, before.min, before.max, before.std, before.median),
                *shares,
                *(now.count, now.sum, now.mean, now.min, now.max, total.count, total.sum),
            )
            yield template % values if isfinite(sum(values)) else None
        elif not before.count and not now.count and isfinite(total.sum + total.count):
            yield (
                f'{{"count":{before.count!r},"rate":{before.count / interval!r}}},"open":{{"count":{now.count!r}}},'
                f'"total":{{"count":{total.count!r},"sum":{total.sum!r}}}}}'
            )
        else:
            yield None


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
