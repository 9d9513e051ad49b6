"""The grid: one card a metric, with the last hour of all its tag sets together, and the rail that leads to them.

A metric is a name of one kind. Which ones are shown is decided by names and tags, and by the values of the last
interval only where these are asked for; the history of the others is not read. :class:`TooSlow` is raised where
choosing takes too much processor time.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from ..history import DISTRIBUTIONS, History, Points
from ..series import KINDS, Kind
from . import charts
from .charts import Line
from .figures import short, time_of_day, with_unit
from .query import RANGES, Query
from .report import TooSlow, matcher
from .search import Search

__all__ = [
    "CARDS",
    "Card",
    "Grid",
    "Metric",
    "Rail",
    "Span",
    "TROUBLE",
    "Value",
    "card",
    "grid",
    "lines",
    "metrics_of",
    "rail",
    "read",
    "readings",
    "since",
    "span_of",
    "unit_of",
    "value",
]

CARDS = 60
"""Cards on a page."""
_BLOCK = 500
_LEAST = 300
"""Seconds that a chart has at least, also of a program that has just begun."""
_NOW, _BEFORE = 60, 360
"""A change is that of the last minute's mean against that of the five minutes before, in seconds."""
_LOUD = 0.25
"""A timer or counter of errors that rises by more than this share is marked."""
_MOST_TAGS = 12
_MOST_NAMES = 40
TROUBLE = ("error", "exception", "fail", "drop", "timeout", "reject", "refus", "invalid", "bad")
_BYTES = ("bytes", "rss", "memory")


@dataclass(frozen=True, slots=True)
class Metric:
    """A name of one kind, with its series."""

    kind: Kind
    name: str
    keys: Sequence[str]
    whole: bool = True
    """Whether these are all series of that name and kind."""

    def points(self, history: History, since: float, *, minutes: bool = False) -> Points:
        """Return what happened to it since a time."""
        return history.points(self.kind, self.keys, since, minutes=minutes, name=self.name if self.whole else "")

    def within(self, history: History, span: "Span") -> Points:
        """Return what happened to it in the time of the charts."""
        points = self.points(history, span.start, minutes=span.minutes)
        count = bisect_right(points.ends, span.end)
        if count == len(points.ends):
            return points
        columns = {field: column[:count] for field, column in points.columns.items()}
        return Points(points.ends[:count], points.intervals[:count], columns)

    @property
    def unit(self) -> str:
        return unit_of(self.kind, self.name)

    @property
    def head(self) -> str:
        """The name up to its last dot."""
        return self.name[: len(self.name) - len(self.tail)]

    @property
    def tail(self) -> str:
        return self.name.rpartition(".")[2]

    def told(self, number: float) -> str:
        """Return a value with its unit; of a counter, a rate."""
        text = " ".join(with_unit(number, self.unit)).strip() if number else "0"
        return f"{text}/s" if self.kind == "counter" else text


class Span(NamedTuple):
    """From when to when charts go."""

    start: int
    end: int
    """0: no interval has ended."""
    minutes: bool = False
    """Whether they are drawn from minutes, not from intervals."""


def span_of(history: History, query: Query) -> Span:
    """Return from when to when the charts of a request go: as asked, or to the last interval."""
    now = history.last.end if history.last else 0
    ends = history.ends()
    if query.begin or query.until:
        end = max(min(query.until or now, now), query.begin + 1)
        start = query.begin or end - RANGES[query.range]
        return Span(start, end, bool(ends) and start < ends[0] - _LEAST)
    start = since(history, RANGES[query.range])
    if query.range != "1d":
        return Span(start, now)
    minutes = history.ends(minutes=True)  # these go back further; at first there is none
    return Span(max(now - RANGES["1d"], min([start, *(end - 60 for end in minutes[:1])])), now, bool(minutes))


@dataclass(frozen=True, slots=True)
class Value:
    """A value as people read it."""

    text: str
    unit: str
    more: str = ""

    @property
    def told(self) -> str:
        """What stands behind the number."""
        return " · ".join(filter(None, (self.unit, self.more)))


@dataclass(frozen=True, slots=True)
class Card:
    """A metric in the grid."""

    metric: Metric
    value: Value
    change: str
    rises: bool
    """Whether the change is one to look at."""
    chart: str
    tags: str


@dataclass(frozen=True, slots=True)
class Rail:
    """What there is: numbers of metrics by prefix and kind, and of values by tag."""

    total: int
    names: Sequence[tuple[str, str, int, int]]
    """Depth, prefix, and number."""
    kinds: Sequence[tuple[Kind, int]]
    tags: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Grid:
    """A page of cards."""

    cards: Sequence[Card]
    found: int
    """How many metrics were found."""
    page: int
    pages: int
    rail: Rail
    span: Span


def unit_of(kind: Kind, name: str) -> str:
    """Return the unit of a metric's values: a timer's is known, that of others is seen in the name, if anywhere."""
    if kind == "timer":
        return "ms"
    words = name.rpartition(".")[2].lower().split("_")
    return "B" if any(word in _BYTES for word in words) else ""


def metrics_of(series: Mapping[Kind, Collection[str]], in_time: Callable[[], bool] = lambda: True) -> list[Metric]:
    """Return the metrics of all series, by name."""
    found: dict[tuple[str, Kind], list[str]] = {}
    for kind in KINDS:
        rest = iter(series[kind])
        while block := list(islice(rest, _BLOCK)):
            if not in_time():
                raise TooSlow
            for key in block:
                found.setdefault((key.partition(";")[0], kind), []).append(key)
    return [Metric(kind, name, keys) for (name, kind), keys in sorted(found.items())]


class _Page(NamedTuple):
    everything: Sequence[Metric]
    shown: Sequence[Metric]
    found: int
    page: int
    pages: int


def _page(series: Mapping[Kind, Collection[str]], history: History, query: Query, in_time: Callable[[], bool]) -> _Page:
    """Return the metrics that ``query`` asks for, those of one page."""
    everything = metrics_of(series, in_time)
    search = Search(query.query)
    match = matcher(query.match)
    end = history.last.end if history.last else 0
    chosen = list(_chosen(everything, query, in_time))
    if query.query or query.match:
        chosen = list(_found(chosen, search, match, history, in_time))
    if query.sort != "name" and end:
        chosen = _sorted(chosen, query.sort, history, end, in_time)
    pages = max(1, math.ceil(len(chosen) / CARDS))
    page = min(query.page, pages)
    return _Page(everything, chosen[(page - 1) * CARDS : page * CARDS], len(chosen), page, pages)


def grid(
    series: Mapping[Kind, Collection[str]], history: History, query: Query, in_time: Callable[[], bool] = lambda: True
) -> Grid:
    """Return the cards that ``query`` asks for."""
    page = _page(series, history, query, in_time)
    span = span_of(history, query)
    cards = [card(metric, history, span) for metric in page.shown if _still(in_time)]
    return Grid(cards, page.found, page.page, page.pages, rail(page.everything, query), span)


def readings(
    series: Mapping[Kind, Collection[str]], history: History, query: Query, in_time: Callable[[], bool] = lambda: True
) -> dict[str, object]:
    """Return what the charts of :func:`grid` show, as texts by time."""
    shown = _page(series, history, query, in_time).shown
    return read(shown, history, span_of(history, query), charts.POINTS, in_time)


def read(
    metrics: Iterable[Metric], history: History, span: Span, points: int, in_time: Callable[[], bool] = lambda: True
) -> dict[str, object]:
    """Return the values in the charts of metrics, each a number and its unit, at the times of their points."""
    ends: Sequence[float] = []
    found: dict[str, list[list[str]]] = {}
    for metric in metrics:
        _still(in_time)
        happened = metric.within(history, span)
        shown = charts.thinned(lines(metric, happened), span.start, span.end, points)
        interval = happened.intervals[-1] if happened.intervals else 0
        ends = next(iter(shown.values())).ends
        names = list(shown)
        columns = zip(*(line.values for line in shown.values()), strict=True)
        values = (value_of(metric, dict(zip(names, values, strict=True)), interval) for values in columns)
        found[f"{metric.kind}:{metric.name}"] = [[each.text, each.told] for each in values]
    return {
        "start": span.start,
        "end": span.end,
        "ends": ends,
        "times": [time_of_day(end) for end in ends],
        "values": found,
    }


def _still(in_time: Callable[[], bool]) -> bool:
    if not in_time():
        raise TooSlow
    return True


def since(history: History, span: int) -> int:
    """Return where a chart begins that ends now: ``span`` seconds before, or when the history began."""
    ends = history.ends()
    if not ends or history.last is None:
        return 0
    begun = ends[0] - int(history.last.interval)
    return max(ends[-1] - span, min(begun, ends[-1] - _LEAST))


def _chosen(everything: Sequence[Metric], query: Query, in_time: Callable[[], bool]) -> Iterator[Metric]:
    inside = f"{query.prefix}."
    for place, metric in enumerate(everything):
        if query.prefix and metric.name != query.prefix and not metric.name.startswith(inside):
            continue
        if query.kind and metric.kind != query.kind:
            continue
        if query.tag and not any(f";{query.tag}=" in key for key in metric.keys):
            continue
        if not place % _BLOCK and not in_time():
            raise TooSlow
        yield metric


def _found(
    metrics: Sequence[Metric], search: Search, match: matcher, history: History, in_time: Callable[[], bool]
) -> Iterator[Metric]:
    """Yield the metrics with those of their series that are looked for."""
    for metric in metrics:
        keys = []
        rest = iter(metric.keys)
        while block := list(islice(rest, _BLOCK)):
            if not in_time():
                raise TooSlow
            keys += [key for key in block if match(key) and search.finds(key)]
        if search.reads_values:
            keys = [key for key in keys if search.holds(_now(metric.kind, key, history))]
        if keys:
            yield Metric(metric.kind, metric.name, keys, len(keys) == len(metric.keys))


def _now(kind: Kind, key: str, history: History) -> dict[str, float]:
    points = history.points(kind, [key], since=history.last.end - 1 if history.last else 0)
    values = {field: column[-1] for field, column in points.columns.items() if column}
    if kind != "gauge" and points.ends:
        values["rate"] = points.rates()[-1]
        values.setdefault("count", values.get("value", math.nan))
    return values


def _sorted(
    metrics: Sequence[Metric], sort: str, history: History, end: int, in_time: Callable[[], bool]
) -> list[Metric]:
    """Return the metrics with the largest values, or the largest changes, first; those without at the end."""
    keyed = []
    for place, metric in enumerate(metrics):
        if not place % 50 and not in_time():
            raise TooSlow
        recent = metric.points(history, since=end - _BEFORE)
        main = lines(metric, recent)[_MAIN[metric.kind]]
        if sort == "value":
            now = next((value for value in reversed(main.values) if value == value), math.nan)
            rank = -now if now == now else math.inf
        else:
            before, now = _two_means(main, end)
            rank = -abs(math.log((now + 1e-9) / (before + 1e-9))) if min(now, before) >= 0 else 0.0
            rank = rank if rank == rank else math.inf
        keyed.append((rank, metric.name, metric))
    return [metric for *_, metric in sorted(keyed, key=lambda each: each[:2])]


# -- values


_MAIN: Mapping[Kind, str] = {
    "counter": "value",
    "gauge": "value",
    "unique": "value",
    "timer": "median",
    "histogram": "median",
}


def lines(metric: Metric, points: Points) -> dict[str, Line]:
    """Return what a metric's chart is drawn from; counters as rates."""
    if metric.kind == "counter":
        return {"value": Line(points.ends, points.rates())}
    found = {field: Line(points.ends, column) for field, column in points.columns.items() if field != "count"}
    if metric.kind in DISTRIBUTIONS:
        found["rate"] = Line(points.ends, points.rates())
    return found


def _two_means(line: Line, end: int) -> tuple[float, float]:
    """Return the means of the five minutes before the last one, and of that."""
    parts: tuple[list[float], list[float]] = ([], [])
    for time, value in zip(line.ends, line.values, strict=True):
        if time > end - _BEFORE and math.isfinite(value):
            parts[time > end - _NOW].append(value)
    before, now = (sum(part) / len(part) if part else math.nan for part in parts)
    return before, now


def value(metric: Metric, shown: Mapping[str, Line], interval: float) -> Value:
    """Return the last value of a metric."""
    last = {name: line.values[-1] if line.values else math.nan for name, line in shown.items()}
    return value_of(metric, last, interval)


def value_of(metric: Metric, last: Mapping[str, float], interval: float) -> Value:
    """Return the value of a metric in an interval."""
    main = last[_MAIN[metric.kind]]
    if not math.isfinite(main):
        return Value("–", "no data" if metric.kind != "gauge" else "no value")
    if metric.kind == "counter":
        text, unit = with_unit(main, metric.unit)
        return Value(text, f"{unit}/s" if unit else "/s")
    if metric.kind == "unique":
        return Value(short(main), f"in {interval:g} s")
    text, unit = with_unit(main, metric.unit)
    if metric.kind == "gauge":
        return Value(text, unit or "now")
    p90 = " ".join(with_unit(last["p90"], metric.unit)).removesuffix(unit).strip()
    return Value(text, f"{unit} median".strip(), f"p90 {p90}" if math.isfinite(last["p90"]) else "")


def _change(metric: Metric, main: Line, end: int) -> tuple[str, bool]:
    before, now = _two_means(main, end)
    if not (math.isfinite(before) and math.isfinite(now)) or before <= 0:
        return "", False
    share = now / before - 1
    if abs(share) < 0.005:
        return "0 %", False
    text = f"{abs(share) * 100:.0f} %" if share < 10 else f"× {short(share + 1, 2)}"
    troubled = metric.kind == "timer" or any(word in metric.name.lower() for word in TROUBLE)
    return f"{'+' if 0 < share < 10 else '−' if share < 0 else ''}{text}", share > _LOUD and troubled


def card(metric: Metric, history: History, span: Span) -> Card:
    """Return the card of a metric: its value now, and what happened in the time of the charts."""
    points = metric.within(history, span)
    shown = lines(metric, points)
    label = f"{metric.kind} {metric.name}"
    drawn = charts.spark(metric.kind, shown, *span[:2], metric.told, label, metric.unit) if points.ends else ""
    end = history.last.end if history.last else 0
    if span.minutes or span.end != end:
        points = metric.points(history, since=end - _BEFORE)
        shown = lines(metric, points)
    now = value(metric, shown, points.intervals[-1] if points.intervals else 0)
    change, rises = _change(metric, shown[_MAIN[metric.kind]], end)
    return Card(metric, now, change, rises, drawn, _tags(metric))


def _tags(metric: Metric) -> str:
    """Return how many tag sets there are, by what."""
    values: dict[str, set[str]] = {}
    for key in islice(metric.keys, 1000):
        for part in key.split(";")[1:]:
            tag, _, of = part.partition("=")
            values.setdefault(tag, set()).add(of)
    told = [tag if len(of) == 1 else f"{len(of)} {tag.removesuffix('s')}s" for tag, of in values.items()]
    return " × ".join(told[:3]) + (" …" if len(told) > 3 else "")


# -- the rail


def rail(everything: Sequence[Metric], query: Query) -> Rail:
    """Return what there is, with the prefixes that lead to the chosen one."""
    tops = Counter(metric.name.partition(".")[0] for metric in everything)
    names: list[tuple[str, str, int, int]] = []
    for top in sorted(tops)[:_MOST_NAMES]:
        names.append((top, top, tops[top], 0))
        prefix = top
        if query.prefix == top or query.prefix.startswith(f"{top}."):
            names += _below(everything, prefix, query.prefix, 1)
    kinds = Counter(metric.kind for metric in everything)
    tags: dict[str, set[str]] = {}
    for metric in everything:
        for key in metric.keys:
            for part in key.split(";")[1:]:
                tag, _, of = part.partition("=")
                tags.setdefault(tag, set()).add(of)
    counts = sorted(((tag, len(of)) for tag, of in tags.items()), key=lambda each: (-each[1], each[0]))
    return Rail(len(everything), names, [(kind, kinds[kind]) for kind in KINDS if kinds[kind]], counts[:_MOST_TAGS])


def _below(everything: Sequence[Metric], prefix: str, chosen: str, depth: int) -> Iterator[tuple[str, str, int, int]]:
    inside = f"{prefix}."
    parts = Counter(
        metric.name[len(inside) :].partition(".")[0] for metric in everything if metric.name.startswith(inside)
    )
    for part in sorted(parts)[:_MOST_NAMES]:
        whole = f"{inside}{part}"
        yield part, whole, parts[part], depth
        if depth < 4 and (chosen == whole or chosen.startswith(f"{whole}.")):
            yield from _below(everything, whole, chosen, depth + 1)
