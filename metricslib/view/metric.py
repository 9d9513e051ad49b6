"""A metric's own page: its chart at full size, broken down by a tag, its distribution, and where else it is found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..flusher import Flusher, Measured
from ..history import DISTRIBUTIONS, HOUR, History, Points, heat_bounds, heat_of
from ..series import Kind, split
from ..sketch import Distribution
from ..window import Window
from . import charts, prometheus
from .cards import Metric, Span, lines, metrics_of, read, since, span_of, value
from .figures import amount, short, time_of_day
from .query import RANGES, Query
from .search import Search

__all__ = ["Detail", "Heated", "Spread", "Table", "detail", "reading"]

_ROWS = 8
"""Values of a tag that have a row of their own; the others are told together."""
_MERGED = 500
"""Series whose samples are merged for the distribution; the busiest."""
_PATHS = 12
_INTERVALS = 30
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_COLUMNS = {"median": "median", "p90": "p90", "max": "max"}


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and rows: each a text and its values."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of the last interval."""

    count: str
    percentiles: Sequence[tuple[str, str]]
    chart: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Heated:
    """A heat map, with the values at its lower and upper edge."""

    chart: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Detail:
    """All that a metric's page shows."""

    metric: Metric
    kinds: Sequence[str]
    """Other kinds of the same name."""
    figures: Sequence[tuple[str, str]]
    chart: str
    span: Span
    tags: Sequence[str]
    by: str
    breakdown: Table | None
    spread: Spread | None
    heated: Heated | None
    intervals: Table
    paths: Sequence[str]
    """Those in Graphite of one of its series."""
    prometheus: str
    """A query."""
    functions: Sequence[str]
    """Where it is measured."""


def find(flusher: Flusher | Measured, name: str, query: Query) -> tuple[Metric, list[Kind]] | None:
    """Return the metric that is called ``name``, and the other kinds of that name; None: there is none."""
    series = {
        kind: [key for key in keys if key == name or key.startswith(f"{name};")]
        for kind, keys in flusher.registry.series().items()
    }
    found = [metric for metric in metrics_of(series) if metric.name == name]
    if not found:
        return None
    metric = next((metric for metric in found if metric.kind == query.kind), found[0])
    others = [each.kind for each in found if each.kind != metric.kind]
    search = Search(query.query)
    chosen = [key for key in metric.keys if search.finds(key)]
    if chosen and len(chosen) < len(metric.keys):
        metric = Metric(metric.kind, name, chosen, False)
    return metric, others


def reading(flusher: Flusher | Measured, name: str, query: Query) -> dict[str, object] | None:
    """Return what the chart of a metric's page shows, as texts by time; None: there is no such metric."""
    found = find(flusher, name, query)
    history = flusher.history
    return found and read(found[:1], history, span_of(history, query), charts.LARGE_POINTS)


def detail(flusher: Flusher | Measured, name: str, query: Query) -> Detail | None:
    """Return the page of the metric that is called ``name``; None: there is none."""
    registry, history = flusher.registry, flusher.history
    found = find(flusher, name, query)
    if found is None:
        return None
    metric, others = found
    last = history.last
    end = last.end if last else int(registry.clock.time())
    span = span_of(history, query) if last else Span(end - RANGES[query.range], end)
    points = metric.within(history, span)
    shown = lines(metric, points)
    merged = _merged(metric, last)
    tags = _tags(metric)
    by = query.by if query.by in tags else next(iter(tags), "")
    return Detail(
        metric=metric,
        kinds=others,
        figures=_figures(metric, history, shown, merged, end),
        chart=charts.chart(metric.kind, shown, span.start, span.end, metric.told, _label(metric, query), metric.unit),
        span=span,
        tags=tags,
        by=by,
        breakdown=_breakdown(metric, history, by, end) if by and end else None,
        spread=_spread(metric, merged, query.percentiles),
        heated=_heated(metric, history, Span(since(history, HOUR), end) if span.minutes else span),
        intervals=_intervals(metric, history, end),
        paths=_paths(metric, flusher, last),
        prometheus=prometheus.query(name, [metric.kind, *others], metric.kind),
        functions=registry.functions.get(name, ()),
    )


def _label(metric: Metric, query: Query) -> str:
    return f"{metric.kind} {metric.name}, the last {query.range}"


def _tags(metric: Metric) -> list[str]:
    """Return the keys of its tags that have several values first."""
    values: dict[str, set[str]] = {}
    for key in metric.keys:
        for tag, of in split(key)[1]:
            values.setdefault(tag, set()).add(of)
    return sorted(values, key=lambda tag: (len(values[tag]) == 1, tag))


def _figures(
    metric: Metric, history: History, shown: Mapping[str, charts.Line], merged: Distribution | None, end: int
) -> list[tuple[str, str]]:
    recent = metric.points(history, since=end - 900)
    if metric.kind in DISTRIBUTIONS:
        figures = []
        if merged is not None:
            names = ("median", "p90", "p95", "p99")
            figures = [
                (metric.told(merged.percentile(percent)), name)
                for name, percent in zip(names, _PERCENTILES, strict=True)
            ]
            figures.append((metric.told(merged.max), "max"))
        return figures + [(f"{short(rate)}/s", f"over {told}") for rate, told in _rates(recent, end)]
    now = value(metric, lines(metric, recent), recent.intervals[-1] if recent.intervals else 0)
    figures = [(f"{now.text} {now.unit}".replace(" /s", "/s"), "now" if metric.kind == "counter" else "")]
    if metric.kind == "counter":
        return figures + [(metric.told(rate), f"over {told}") for rate, told in _rates(recent, end)]
    there = [number for number in shown["value"].values if math.isfinite(number)]
    if there:
        figures += [(metric.told(min(there)), "lowest"), (metric.told(max(there)), "highest")]
    return figures


def _rates(points: Points, end: int) -> list[tuple[float, str]]:
    """Return the rates over 1, 5 and 15 minutes, of what of these there was."""
    counts = points.columns["value" if "value" in points.columns else "count"]
    found = []
    for minutes in (1, 5, 15):
        within = [
            (count, interval)
            for time, interval, count in zip(points.ends, points.intervals, counts, strict=True)
            if time > end - 60 * minutes and math.isfinite(count)
        ]
        if within:
            found.append((sum(count for count, _ in within) / sum(length for _, length in within), f"{minutes} min"))
    return found


# -- the last interval


def _merged(metric: Metric, last: Window | None) -> Distribution | None:
    if last is None or metric.kind not in DISTRIBUTIONS:
        return None
    there = [last[metric.kind].get(key) for key in metric.keys]
    busy = sorted((each for each in there if each is not None and each.count), key=lambda each: -each.count)
    if not busy:
        return None
    both = Distribution(limit=max(each.limit for each in busy))
    for each in busy[:_MERGED]:
        both.merge(each)
    return both.freeze()


def _spread(metric: Metric, merged: Distribution | None, percents: Sequence[float]) -> Spread | None:
    if merged is None:
        return None
    heat = heat_of(merged)
    percentiles = [(f"p{percent:g}", metric.told(merged.percentile(percent))) for percent in percents]
    low, high = heat_bounds(heat.first)[0], heat_bounds(heat.first + len(heat.weights) - 1)[1]
    return Spread(
        amount(round(merged.count)),
        percentiles,
        charts.bars(heat.weights, f"distribution of {metric.name} in the last interval"),
        metric.told(low),
        metric.told(high),
    )


def _heated(metric: Metric, history: History, span: Span) -> Heated | None:
    if metric.kind not in DISTRIBUTIONS:
        return None
    columns = [
        (time, heat.first, heat.weights)
        for key in islice(metric.keys, 100)
        for time, heat in history.heat(metric.kind, key, since=span.start)
        if time <= span.end
    ]
    drawn, low, high = charts.heat_map(columns, span.start, span.end, f"heat map of {metric.name} ")
    return Heated(drawn, metric.told(heat_bounds(low)[0]), metric.told(heat_bounds(high)[1])) if drawn else None


# -- tables


def _fields(metric: Metric) -> list[str]:
    if metric.kind in DISTRIBUTIONS:
        return ["rate", *_COLUMNS]
    return ["rate"] if metric.kind == "counter" else ["value"]


def _cells(metric: Metric, points: Mapping[str, float], rate: float) -> list[str]:
    told = []
    for field in _fields(metric):
        number = rate if field == "rate" else points[field]
        text = f"{short(number)}/s" if field == "rate" else metric.told(number)
        told.append(text if math.isfinite(number) else "–")
    return told


def _breakdown(metric: Metric, history: History, by: str, end: int) -> Table:
    """Return the values of a tag, the busiest or largest first, over the last five minutes."""
    keys: dict[str, list[str]] = {}
    for key in metric.keys:
        keys.setdefault(dict(split(key)[1]).get(by, "–"), []).append(key)
    weighed = []
    for of, some in keys.items():
        points = history.points(metric.kind, some, since=end - 300)
        counts = points.columns["count" if metric.kind in DISTRIBUTIONS else "value"]
        weighed.append((-sum(count for count in counts if math.isfinite(count)), of, some))
    weighed.sort(key=lambda each: each[:2])
    weighed = [each for each in weighed if each[0] or each[1] != "–"]  # the parent of tagged series is often idle
    rows = [(of, _row(metric, history, some, end)) for _, of, some in weighed[:_ROWS]]
    if len(weighed) > _ROWS:
        rest = [key for *_, some in weighed[_ROWS:] for key in some]
        rows.append((f"others ({amount(len(weighed) - _ROWS)})", _row(metric, history, rest, end)))
    return Table(_fields(metric), rows)


def _row(metric: Metric, history: History, keys: Sequence[str], end: int) -> list[str]:
    points = history.points(metric.kind, keys, since=end - 300)
    last: dict[str, float] = {}
    for field, column in points.columns.items():
        there = [number for number in column if math.isfinite(number)]
        last[field] = (max(there) if field == "max" else there[-1]) if there else math.nan
    counts = [] if metric.kind == "gauge" else [rate for rate in points.rates() if math.isfinite(rate)]
    return _cells(metric, last, sum(counts) / len(counts) if counts else math.nan)


def _intervals(metric: Metric, history: History, end: int) -> Table:
    """Return the last intervals, the newest first."""
    points = metric.points(history, since=end - HOUR)
    rates = [math.nan] * len(points.ends) if metric.kind == "gauge" else points.rates()
    rows = []
    for place in range(len(points.ends) - 1, max(-1, len(points.ends) - 1 - _INTERVALS), -1):
        values = {field: points.columns[field][place] for field in points.columns}
        counts = values.get("count", values.get("value", math.nan))
        told = [amount(counts) if math.isfinite(counts) else "–"] if metric.kind != "gauge" else []
        told += _cells(metric, values, rates[place]) if metric.kind != "unique" else []
        rows.append((time_of_day(points.ends[place]), told))
    columns = ["count"] * (metric.kind != "gauge") + (_fields(metric) if metric.kind != "unique" else [])
    return Table(columns, rows)


def _busy(happened: float | Distribution) -> bool:
    return bool(happened.count if isinstance(happened, Distribution) else happened)


def _paths(metric: Metric, flusher: Flusher | Measured, last: Window | None) -> list[str]:
    """Return the paths in Graphite of the metric's first series in which something happens."""
    if last is None:
        return []
    values = last[metric.kind]
    there = [key for key in metric.keys if key in values]
    if not there:
        return []
    key = next((key for key in there if metric.kind in ("gauge", "unique") or _busy(values[key])), there[0])
    one: dict[str, Mapping[str, object]] = {f"{metric.kind}s": {key: values[key]}}
    window = Window(last.start, last.end, last.interval, **one)  # type: ignore[arg-type]
    return list(replace(flusher.naming).pairs(window).paths)[:_PATHS]
