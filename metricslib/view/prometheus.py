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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby

from ..series import KINDS, Kind, Tags, split
from ..series_state import Snapshot

__all__ = ["OPENMETRICS", "TEXT", "Plans", "number", "parts", "query"]

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
_WHOLE = 1 << 53
_REMEMBERED = 100_000


def parts(
    snapshot: Snapshot, chosen: Sequence[tuple[str, Kind]], *, openmetrics: bool = False, plans: "Plans | None" = None
) -> Iterator[str]:
    """Yield the text of the series that are chosen, metric by metric; the snapshot must have them."""
    write = {"counter": _counters, "gauge": _gauges, "unique": _uniques}
    for family in (plans or Plans()).of(chosen):
        lines, of = write.get(family.kind, _distributions)(snapshot, family, openmetrics), family.type
        if not lines:
            continue
        typed = family.name
        falls = (
            family.kind == "counter" and " -" in lines and any(_total(snapshot, each.key) < 0 for each in family.series)
        )
        if falls:
            lines = _counters(snapshot, family, openmetrics=False)  # a type that is unknown has no time of creation
            of = "unknown" if openmetrics else "untyped"
        if family.kind == "counter" and (falls or not openmetrics):
            typed = f"{family.name}_total"
        unit = f"# UNIT {family.name} {family.unit}\n" if openmetrics and family.unit else ""
        yield f"# HELP {typed} {family.help}\n# TYPE {typed} {of}\n{unit}{lines}"
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


class _Series:
    """A series of a family, and what of its text does not change."""

    __slots__ = ("braced", "inside", "key", "line", "range", "template")

    def __init__(self, family: str, kind: Kind, key: str) -> None:
        labels = _labels(split(key)[1])
        self.key = key
        self.braced = _braced(labels)
        self.line = f"{family}{'_total' if kind == 'counter' else ''}{self.braced}"
        """What stands before the value of a counter, gauge or unique."""
        self.inside = "".join(f"{label}," for label in labels)
        """Its labels, with a comma behind each."""
        self.range = (0, -1)
        self.template = ""
        """The lines of a histogram whose buckets are those of ``range``, with ``%s`` for the numbers."""


class _Family:
    """The series of a metric."""

    __slots__ = ("help", "kind", "name", "series", "type", "unit")

    def __init__(self, name: str, kind: Kind, taken: set[str], keys: Iterable[str]) -> None:
        self.kind = kind
        self.name = _family(name, kind, taken)
        self.type = _TYPES[kind]
        self.help = f"{kind} {_escaped(name)}"
        unit = self.name.rpartition("_")[2]
        self.unit = unit if unit in _UNITS and unit != self.name else ""
        self.series = [_Series(self.name, kind, key) for key in keys]


class Plans:
    """What does not change from scrape to scrape: families, names and labels of the last series that were chosen.

    They are remembered as long as the same object is given, up to 100,000 series. Thread-safe.
    """

    def __init__(self) -> None:
        self._last: tuple[Sequence[tuple[str, Kind]], Sequence[_Family]] = (), ()

    def of(self, chosen: Sequence[tuple[str, Kind]]) -> Sequence[_Family]:
        """Return the families of these series, in the order of names."""
        last, families = self._last
        if last is chosen:
            return families
        there = [(key.partition(";")[0], kind, key) for key, kind in chosen]
        there.sort(key=lambda each: (each[0], KINDS.index(each[1]), each[2]))
        taken: set[str] = set()
        families = [
            _Family(name, kind, taken, [key for *_, key in group])
            for (name, kind), group in groupby(there, key=lambda each: each[:2])
        ]
        if len(chosen) <= _REMEMBERED:
            self._last = chosen, families
        return families


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


def _counters(snapshot: Snapshot, family: _Family, openmetrics: bool) -> str:
    open_, totals, name = snapshot.open.counters, snapshot.totals["counter"], family.name
    lines = []
    for each in family.series:
        key = each.key
        known = totals[key]
        total = known.sum + open_.get(key, 0)
        if type(total) is int and -_WHOLE < total < _WHOLE:
            lines.append(f"{each.line} {total}\n")
        else:
            lines.append(f"{each.line} {number(total)}\n")
        if openmetrics and known.created is not None:
            lines.append(f"{name}_created{each.braced} {number(known.created)}\n")
    return "".join(lines)


def _gauges(snapshot: Snapshot, family: _Family, openmetrics: bool) -> str:
    open_ = snapshot.open.gauges
    return "".join([f"{each.line} {number(open_[each.key])}\n" for each in family.series if each.key in open_])


def _uniques(snapshot: Snapshot, family: _Family, openmetrics: bool) -> str:
    last = snapshot.last.uniques if snapshot.last else {}
    return "".join([f"{each.line} {len(last.get(each.key, ()))}\n" for each in family.series])


def _distributions(snapshot: Snapshot, family: _Family, openmetrics: bool) -> str:
    open_, totals, name = snapshot.open[family.kind], snapshot.totals[family.kind], family.name
    thousand = 1000 if family.kind == "timer" else 1
    lines = []
    for each in family.series:
        total, now = totals[each.key], open_.get(each.key)
        powers = total.powers  # a new dictionary each time
        count, whole = total.count, total.sum
        if now is not None and now.count:
            for power, weight in now.powers().items():
                powers[power] = powers.get(power, 0) + weight
            count, whole = count + now.count, whole + now.sum
        first = min(powers) if powers else 0
        end = min(max(powers) + 1, _MOST) if powers else 0
        if each.range != (first, end):
            each.template = _buckets(name, each, first, end, thousand)
            each.range = first, end
        below = [*accumulate([powers.get(power, 0) for power in range(first, end)]), count]
        numbers = _numbers(below)
        total_sum = number(whole / thousand)
        if openmetrics and whole < 0:  # OpenMetrics knows no sum that may fall
            lines.append((each.template % (*numbers, 0, 0)).rsplit("\n", 3)[0] + "\n")
        else:
            lines.append(each.template % (*numbers, total_sum, numbers[-1]))
        if openmetrics and total.created is not None:
            lines.append(f"{name}_created{each.braced} {number(total.created)}\n")
    return "".join(lines)


def _buckets(name: str, of: _Series, first: int, end: int, thousand: int) -> str:
    """Return the lines of the buckets with these powers, of the one for all samples, of the sum and the count."""
    bounds = [repr(math.ldexp(1, power) / thousand) for power in range(first, end)]
    start, braced = f"{name}_bucket{{{of.inside}".replace("%", "%%"), of.braced.replace("%", "%%")
    buckets = "".join([f'{start}le="{bound}"}} %s\n' for bound in (*bounds, "+Inf")])
    return f"{buckets}{name}_sum{braced} %s\n{name}_count{braced} %s\n"


def _numbers(values: Sequence[float]) -> Sequence[object]:
    """Return what the numbers are written as; the last is the largest of them."""
    try:
        whole = list(map(int, values))
        if whole == values and -_WHOLE < whole[-1] < _WHOLE and min(whole) >= 0:
            return whole
    except (OverflowError, ValueError):
        pass
    return [number(value) for value in values]


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
            return str(whole) if whole == value and abs(whole) < _WHOLE else repr(float(value))
    except OverflowError:  # an int that no float can hold
        pass
    return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
