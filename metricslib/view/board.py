"""A board for a wall: big numbers over small charts, with a colour and a shape for each that crosses a threshold.

What is on it stands in the address: ``board?series=web.hits,db.query:p90&warn=100,50&crit=200,80``. A threshold belongs
to the series at its place; the last one to all that follow. Where ``crit`` is below ``warn``, small values are bad.
"""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ..history import DISTRIBUTIONS, History
from ..series import KINDS, Kind, split
from . import charts
from .cards import Metric, Span, lines, span_of
from .figures import short, with_unit
from .query import Query
from .report import TooSlow

__all__ = ["Board", "Tile", "board", "state"]

_BLOCK = 500
_WORDS = {"ok": "ok", "warn": "warning", "crit": "critical", "none": "no value"}
_FIELDS = ("median", "p90", "max", "rate")


@dataclass(frozen=True, slots=True)
class Tile:
    """One number of a board."""

    name: str
    field: str
    """What of a timer or histogram it is."""
    metric: Metric | None
    """None: there is no such series."""
    text: str
    unit: str
    state: str
    """``ok``, ``warn``, ``crit``, or ``none`` where there is no value; empty without thresholds."""
    chart: str

    @property
    def told(self) -> str:
        return _WORDS.get(self.state, "")


@dataclass(frozen=True, slots=True)
class Board:
    """The tiles, and from when to when their charts go."""

    tiles: Sequence[Tile]
    span: Span


def state(value: float, warn: float, crit: float) -> str:
    """Return what a value means; a threshold that is not a number is none.

    >>> [state(value, 10, 20) for value in (9, 10, 20)], [state(value, 20, 10) for value in (21, 20, 10)]
    (['ok', 'warn', 'crit'], ['ok', 'warn', 'crit'])
    >>> state(5, math.nan, math.nan), state(math.nan, 10, 20), state(15, 10, math.nan)
    ('', 'none', 'warn')
    """
    if warn != warn and crit != crit:
        return ""
    if value != value:
        return "none"
    sign = -1 if crit < warn else 1
    if value * sign >= crit * sign:
        return "crit"
    return "warn" if value * sign >= warn * sign else "ok"


def board(
    series: Mapping[Kind, Collection[str]], history: History, query: Query, in_time: Callable[[], bool] = lambda: True
) -> Board:
    """Return the board that ``query`` asks for."""
    asked = [_parts(text) for text in query.series]
    found = _found(series, {split(key)[0] for key, _ in asked}, in_time)
    span = span_of(history, query)
    tiles = []
    for place, (key, field) in enumerate(asked):
        if not in_time():
            raise TooSlow
        warn, crit = (
            limits[min(place, len(limits) - 1)] if limits else math.nan for limits in (query.warn, query.crit)
        )
        tiles.append(_tile(found, history, span, key, field, warn, crit))
    return Board(tiles, span)


def _parts(text: str) -> tuple[str, str]:
    """Return the series and the field of a text such as ``db.query:p90``: no series has a colon in it."""
    key, colon, field = text.rpartition(":")
    return (key, field) if colon else (text, "")


def _found(
    series: Mapping[Kind, Collection[str]], names: Collection[str], in_time: Callable[[], bool]
) -> dict[str, dict[Kind, list[str]]]:
    """Return the series of these names."""
    found: dict[str, dict[Kind, list[str]]] = {}
    for kind in KINDS:
        rest = iter(series[kind])
        while block := list(islice(rest, _BLOCK)):
            if not in_time():
                raise TooSlow
            for key in block:
                name = key.partition(";")[0]
                if name in names:
                    found.setdefault(name, {}).setdefault(kind, []).append(key)
    return found


def _tile(
    found: Mapping[str, Mapping[Kind, Sequence[str]]],
    history: History,
    span: Span,
    key: str,
    field: str,
    warn: float,
    crit: float,
) -> Tile:
    name, tags = split(key)
    for kind, there in found.get(name, {}).items():
        keys = [each for each in there if set(tags) <= set(split(each)[1])] if tags else there
        if keys and (kind in DISTRIBUTIONS) >= (field in _FIELDS and field != "rate"):
            break
    else:
        return Tile(key, field, None, "–", "", state(math.nan, warn, crit), "")
    metric = Metric(kind, name, keys, not tags)
    shown = lines(metric, metric.within(history, span))
    column = field if field in shown else "median" if kind in DISTRIBUTIONS else "value"
    values = shown[column].values
    value = values[-1] if values else math.nan
    marks = {name: limit for name, limit in (("warn", warn), ("crit", crit)) if limit == limit}
    rate = column == "rate"
    text, unit = "–", ""
    if math.isfinite(value):
        text, unit = (short(value), "") if rate else with_unit(value, metric.unit)
        unit += "/s" * (rate or kind == "counter")
    spark = functools.partial(charts.spark, start=span.start, end=span.end, label=f"{kind} {key}", marks=marks)
    drawn = ""
    if values and rate:
        drawn = spark("gauge", {"value": shown["rate"]}, told=lambda tick: f"{short(tick)}/s")
    elif values:
        drawn = spark(kind, shown, told=metric.told, unit=metric.unit)
    return Tile(key, column if kind in DISTRIBUTIONS else "", metric, text, unit, state(value, warn, crit), drawn)
