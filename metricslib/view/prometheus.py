"""A registry as text for Prometheus: its format 0.0.4, and OpenMetrics 1.0.

What a scrape gets are totals since the start, the open interval included, so that a scrape between two ticks misses
nothing and changes nothing.

=========  =========================  ================================================================================
kind       type                       samples
=========  =========================  ================================================================================
counter    counter                    ``NAME_total``
gauge      gauge                      ``NAME``
timer      histogram                  ``NAME_seconds_bucket``, ``_sum``, ``_count``; bounds are 2ᵖ milliseconds
histogram  histogram                  ``NAME_bucket``, ``_sum``, ``_count``; bounds are powers of two
unique     gauge                      ``NAME``: the members in the last whole interval
=========  =========================  ================================================================================

OpenMetrics has ``NAME_created``, too, for what counts: a time before its first value.

Counts of buckets are exact. The buckets are those from the lowest to the highest that has a sample. In names and tag
keys every character that Prometheus does not allow becomes ``_``. Where two metrics would get the same name, the later
one in order of names gets its kind at the end, and a number if that is taken too; a tag whose label is taken gets
a number, and so does one that would be ``le``. A counter that was counted down below zero has no type, for Prometheus
knows none that falls.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from ..series import KINDS, Kind, Tags, split
from ..series_state import Snapshot, Total

__all__ = ["OPENMETRICS", "TEXT", "number", "parts", "query"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ILLEGAL = re.compile(r"[^a-zA-Z0-9_]")
_TYPES: Mapping[Kind, str] = {
    "counter": "counter",
    "gauge": "gauge",
    "timer": "histogram",
    "histogram": "histogram",
    "unique": "gauge",
}
_SUFFIXES: Mapping[str, Sequence[str]] = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}
_UNITS = ("seconds", "bytes")
"""Units that a name in OpenMetrics declares if it ends with them."""
_MOST = 40
"""The power that takes all that is more."""
_LE = 'le="%s"'


def parts(snapshot: Snapshot, chosen: Sequence[tuple[str, Kind]], *, openmetrics: bool = False) -> Iterator[str]:
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


def query(name: str, kinds: Sequence[Kind], kind: Kind) -> str:
    """Return a query of what the page shows of a metric, of a name of these kinds."""
    taken: set[str] = set()
    families = {each: _family(name, each, taken) for each in KINDS if each in kinds}
    family = families[kind]
    if kind == "counter":
        return f"sum(rate({family}_total[5m]))"
    if _TYPES[kind] == "histogram":
        return f"histogram_quantile(0.9, sum by (le) (rate({family}_bucket[5m])))"
    return f"sum({family})" if kind == "gauge" else family


def _family(name: str, kind: Kind, taken: set[str]) -> str:
    base = _ILLEGAL.sub("_", name)
    if base[:1].isdigit():
        base = f"_{base}"
    if kind == "counter":
        base = base.removesuffix("_total") or "total"
    suffixes = _SUFFIXES[_TYPES[kind]]
    unit = "_seconds" if kind == "timer" else ""
    again = 1
    stem = base.removesuffix(unit) if unit else base
    family = f"{stem}{unit}"
    while any(f"{family}{suffix}" in taken for suffix in suffixes):
        family = f"{stem}_{kind}{again if again > 1 else ''}{unit}"
        again += 1
    taken.update(f"{family}{suffix}" for suffix in suffixes)
    return family


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
            if openmetrics and total >= 0:
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


def _labels(tags: Tags) -> list[str]:
    taken = {"le"}
    found = []
    for key, value in tags:
        label = _ILLEGAL.sub("_", key)
        label = f"_{label}" if label[:1].isdigit() or not label else re.sub("^_+", "_", label)  # __ is reserved
        plain, again = label, 2
        while label in taken:
            label, again = f"{plain}{again}", again + 1
        taken.add(label)
        found.append(f'{label}="{_escaped(value, quote=True)}"')
    return found


def _braced(labels: Sequence[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def number(value: float) -> str:
    """Return a number as Prometheus reads it."""
    try:
        if math.isfinite(value):
            whole = int(value)
            return str(whole) if whole == value and abs(whole) < 1 << 53 else repr(float(value))
    except OverflowError:  # an int that no float can hold
        pass
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
