"""What costs: the busiest series, the slowest timers, the most errors, and what makes so many series."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from ..budget import series_cost
from ..flusher import Flusher, Measured
from ..history import DISTRIBUTIONS
from ..series import KINDS, Kind
from .cards import TROUBLE, metrics_of
from .figures import amount, short, size, with_unit
from .report import TooSlow

__all__ = ["Ranked", "Ranking", "top"]

_ROWS = 10
_RECENT = 300
"""Seconds over which errors are counted, and in which a series is new."""
_BLOCK = 500


@dataclass(frozen=True, slots=True)
class Ranked:
    """A series or metric, with what it is ranked by."""

    kind: Kind
    key: str
    told: str
    more: str = ""

    @property
    def name(self) -> str:
        return self.key.partition(";")[0]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The first of one order."""

    title: str
    of: str
    rows: Sequence[Ranked]
    none: str


def top(flusher: Flusher | Measured, in_time: Callable[[], bool] = lambda: True) -> list[Ranking]:
    """Return all rankings as of the last interval. Raises :class:`~.report.TooSlow`."""
    return [ranking(flusher, in_time) for ranking in (_busiest, _time, _slowest, _errors, _tags, _newest, _largest)]


def _checked(each: Iterable[tuple[str, Any]], in_time: Callable[[], bool]) -> Iterator[tuple[str, Any]]:
    for place, one in enumerate(each):
        if not place % _BLOCK and not in_time():
            raise TooSlow
        yield one


def _ranked(found: Iterable[tuple[float, Kind, str, str]], tell: Callable[[float], str]) -> list[Ranked]:
    first = nlargest(_ROWS, found, lambda each: (each[0], each[2]))
    return [Ranked(kind, key, tell(number), more) for number, kind, key, more in first]


def _busiest(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    last, found = flusher.history.last, list[tuple[float, Kind, str, str]]()
    if last is not None:
        for key, count in _checked(last.counters.items(), in_time):
            if count > 0:
                found.append((count / last.interval, "counter", key, ""))
        for kind in DISTRIBUTIONS:
            for key, distribution in _checked(last[kind].items(), in_time):
                if distribution.count:
                    found.append((distribution.count / last.interval, kind, key, ""))
    rows = _ranked(found, lambda rate: f"{short(rate)}/s")
    return Ranking("Busiest series", "last interval", rows, "Nothing was counted.")


def _time(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    last, found = flusher.history.last, list[tuple[float, Kind, str, str]]()
    if last is not None:
        for key, timer in _checked(last.timers.items(), in_time):
            if timer.count:
                found.append(
                    (timer.sum / 1000 / last.interval, "timer", key, f"{short(timer.count / last.interval)}/s")
                )
    return Ranking("Most time", "seconds a second", _ranked(found, short), "Nothing was timed.")


def _slowest(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    last, found = flusher.history.last, list[tuple[float, Kind, str, str]]()
    if last is not None:
        for key, timer in _checked(last.timers.items(), in_time):
            if timer.count:
                found.append((timer.percentile(90), "timer", key, f"max {' '.join(with_unit(timer.max, 'ms'))}"))
    rows = _ranked(found, lambda p90: " ".join(with_unit(p90, "ms")))
    return Ranking("Slowest timers", "p90 of the last interval", rows, "Nothing was timed.")


def _errors(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    history, found = flusher.history, list[tuple[float, Kind, str, str]]()
    since = history.last.end - _RECENT if history.last else 0
    keys = (key for key in list(flusher.registry.series()["counter"]) if any(word in key.lower() for word in TROUBLE))
    for key, _ in _checked(((key, None) for key in keys), in_time):
        count = sum(value for value in history.points("counter", [key], since).columns["value"] if math.isfinite(value))
        if count > 0:
            found.append((count, "counter", key, ""))
    return Ranking("Most errors", "last 5 min", _ranked(found, amount), "None.")


def _tags(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    found = list[tuple[float, Kind, str, str]]()
    for metric in metrics_of(flusher.registry.series(), in_time):
        values: dict[str, set[str]] = {}
        for key, _ in _checked(((key, None) for key in metric.keys), in_time):
            for part in key.split(";")[1:]:
                tag, _, of = part.partition("=")
                values.setdefault(tag, set()).add(of)
        found += ((len(of), metric.kind, metric.name, tag) for tag, of in values.items() if len(of) > 1)
    return Ranking("Most values of a tag", "each is a series at least", _ranked(found, amount), "No tag has several.")


def _newest(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    history = flusher.history
    since = history.last.end - _RECENT if history.last else 0
    rows = [Ranked(kind, key, "new") for kind in KINDS for key in history.new(kind, since)[-_ROWS:]]
    return Ranking("Newest series", "last 5 min", rows[:_ROWS], "None is new.")


def _largest(flusher: Flusher | Measured, in_time: Callable[[], bool]) -> Ranking:
    found = [
        (float(series_cost(kind, key)), kind, key, "")
        for kind, keys in flusher.registry.series().items()
        for key, _ in _checked(((key, None) for key in list(keys)), in_time)
    ]
    return Ranking("Largest series", "estimated bytes", _ranked(found, size), "There is no series.")
