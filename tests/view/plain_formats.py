"""The plain implementations of the page's formats, against which the fast ones are tested."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from metricslib.series import KINDS, Kind, split
from metricslib.series_state import Snapshot, Total
from metricslib.view.as_json import as_values
from metricslib.view.prometheus import _MOST, _TYPES, _UNITS, _braced, _escaped, _family, _labels, number
from metricslib.view.report import Report

__all__ = ["json_text", "prometheus_text"]

_LE = 'le="%s"'


def json_text(report: Report) -> str:
    return json.dumps(as_values(report), allow_nan=False, separators=(",", ":")) + "\n"


def prometheus_text(snapshot: Snapshot, chosen: Sequence[tuple[str, Kind]], openmetrics: bool) -> str:
    return "".join(_parts(snapshot, chosen, openmetrics=openmetrics))


def _parts(snapshot: Snapshot, chosen: Sequence[tuple[str, Kind]], *, openmetrics: bool = False) -> Iterator[str]:
    """Yield the text of the series that are chosen, metric by metric; those that are gone are left out."""
    there = [(key.partition(";")[0], kind, key) for key, kind in chosen if key in snapshot.totals[kind]]
    there.sort(key=lambda each: (each[0], KINDS.index(each[1]), each[2]))
    taken: set[str] = set()
    for (name, kind), group in groupby(there, key=lambda each: each[:2]):
        family = _family(name, kind, taken)
        keys = [key for *_, key in group]
        lines = list(_samples(snapshot, kind, family, keys, openmetrics))
        if not lines:
            continue
        of, typed = _TYPES[kind], family
        falls = kind == "counter" and any(_total(snapshot, key) < 0 for key in keys)
        if falls:
            of = "unknown" if openmetrics else "untyped"
        if kind == "counter" and (falls or not openmetrics):
            typed = f"{family}_total"
        unit = family.rpartition("_")[2]
        unit = f"# UNIT {family} {unit}\n" if openmetrics and unit in _UNITS and unit != family else ""
        yield f"# HELP {typed} {kind} {_escaped(name)}\n# TYPE {typed} {of}\n{unit}{''.join(lines)}"
    if openmetrics:
        yield "# EOF\n"


def _total(snapshot: Snapshot, key: str) -> float:
    return snapshot.totals["counter"][key].sum + snapshot.open.counters.get(key, 0)


def _samples(snapshot: Snapshot, kind: Kind, family: str, keys: Sequence[str], openmetrics: bool) -> Iterator[str]:
    open_, totals = snapshot.open[kind], snapshot.totals[kind]
    last = snapshot.last[kind] if snapshot.last else {}
    for key in keys:
        labels = _labels(split(key)[1])
        if kind == "counter":
            total = _total(snapshot, key)
            yield f"{family}_total{_braced(labels)} {number(total)}\n"
            if openmetrics and not any(_total(snapshot, each) < 0 for each in keys):
                yield from _created(family, labels, totals[key])
        elif kind == "gauge":
            if key in open_:
                yield f"{family}{_braced(labels)} {number(open_[key])}\n"
        elif kind == "unique":
            yield f"{family}{_braced(labels)} {len(last.get(key, ()))}\n"
        else:
            sampled, now = totals[key], open_.get(key)
            powers = dict(sampled.powers)
            count, whole = sampled.count, sampled.sum
            if now is not None and now.count:
                for power, weight in now.powers().items():
                    powers[power] = powers.get(power, 0) + weight
                count, whole = count + now.count, whole + now.sum
            thousand = 1000 if kind == "timer" else 1
            yield from _buckets(family, labels, powers, count, thousand)
            if not openmetrics or whole >= 0:  # OpenMetrics knows no sum that may fall
                yield f"{family}_sum{_braced(labels)} {number(whole / thousand)}\n"
                yield f"{family}_count{_braced(labels)} {number(count)}\n"
            if openmetrics:
                yield from _created(family, labels, sampled)


def _created(family: str, labels: Sequence[str], total: Total) -> Iterator[str]:
    if total.created is not None:
        yield f"{family}_created{_braced(labels)} {number(total.created)}\n"


def _buckets(
    family: str, labels: Sequence[str], powers: Mapping[int, float], count: float, thousand: int
) -> Iterator[str]:
    below = 0.0
    if powers:
        for power in range(min(powers), min(max(powers) + 1, _MOST)):
            below += powers.get(power, 0)
            bound = repr(math.ldexp(1, power) / thousand)
            yield f"{family}_bucket{_braced([*labels, _LE % bound])} {number(below)}\n"
    yield f"{family}_bucket{_braced([*labels, _LE % '+Inf'])} {number(count)}\n"
