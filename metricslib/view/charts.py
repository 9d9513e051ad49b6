"""Charts: values in, SVG out. Pure functions, without a colour of their own: the style sheet has one for each class.

A chart is stretched to the width it is given, so it has no text inside that would be stretched with it; labels stand
beside it, in an outer SVG that is not scaled. NaN, and a gap between two intervals, interrupt a line.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from .figures import step_of

__all__ = [
    "LARGE_POINTS",
    "POINTS",
    "Frame",
    "Line",
    "bars",
    "chart",
    "heat_map",
    "round_ticks",
    "spark",
    "thinned",
    "time_ticks",
]

POINTS = 120
"""Points of a small chart."""
LARGE_POINTS = 4 * POINTS
_WIDTH = 1200
_HEIGHT = 216
_LARGE = 4000
_FINE = 4
"""Units of a large chart in a pixel of its height. Coordinates are whole numbers on these fine grids."""
_COUNTS = 40
"""Height of the bars that say how many samples there were, below the bands of a timer."""
_CAP = 2.5
"""A small chart of bands ends at so many times the largest 90th percentile: one outlier must not flatten the rest."""

_SHADES = 8
"""Shades of a heat map."""


class Line(NamedTuple):
    """Values at the ends of intervals."""

    ends: Sequence[float]
    values: Sequence[float]


class Frame(NamedTuple):
    """What part of the plane is drawn, and on how many units."""

    start: float
    end: float
    low: float
    high: float
    width: float = _WIDTH
    height: float = _HEIGHT

    def x(self, time: float) -> float:
        return (time - self.start) / (self.end - self.start) * self.width

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.height - min(max(share, 0.0), 1.0) * self.height


def thinned(lines: dict[str, Line], start: float, end: float, points: int) -> dict[str, Line]:
    """Return lines of at most ``points`` values: the means of those in equal parts of the time, of ``max`` the largest.

    The lines have the same ends.
    """
    ends = next(iter(lines.values())).ends
    if len(ends) <= points:
        return lines
    slots = [math.ceil((time - start) * points / (end - start)) for time in ends]
    cuts = [0, *(place for place in range(1, len(slots)) if slots[place] != slots[place - 1]), len(slots)]
    parts = list(pairwise(cuts))
    last = [ends[until - 1] for _, until in parts]
    return {
        name: Line(last, [_one_of(line.values[since:until], name == "max") for since, until in parts])
        for name, line in lines.items()
    }


def _one_of(values: Sequence[float], largest: bool) -> float:
    mean = sum(values) / len(values)
    if mean != mean:
        values = [value for value in values if value == value]
        if not values:
            return math.nan
        mean = sum(values) / len(values)
    return max(values) if largest else mean


def _gap(ends: Sequence[float]) -> float:
    """Return the distance from which on two ends are not connected."""
    steps = sorted(later - earlier for earlier, later in pairwise(ends))
    return 2.5 * steps[len(steps) // 2] if steps else math.inf


def _pieces(frame: Frame, ends: Sequence[float], *columns: Sequence[float]) -> Iterator[list[tuple[float, ...]]]:
    """Yield connected pieces: x and the y of each column."""
    gap, last, piece = _gap(ends), -math.inf, list[tuple[float, ...]]()
    y = frame.y
    for time, *values in zip(ends, *columns, strict=True):
        whole = all(map(math.isfinite, values))
        if piece and (not whole or time - last > gap):
            yield piece
            piece = []
        if whole:
            piece.append((frame.x(time), *map(y, values)))
            last = time
    if piece:
        yield piece


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _points(pairs: Iterable[tuple[float, float]], first: str = "M") -> str:
    return first + "L".join([f"{x:.0f} {y:.0f}" for x, y in pairs])


def _line(frame: Frame, line: Line, *, steps: bool = False) -> str:
    """Return a path's data; a single point becomes a dot."""
    path = ""
    for piece in _pieces(frame, line.ends, line.values):
        if steps:
            path += _points([piece[0]])  # type: ignore[list-item]
            path += "".join(f"H{x:.0f}V{y:.0f}" for x, y in piece[1:])
        else:
            path += _points(piece)  # type: ignore[arg-type]
        if len(piece) == 1:
            path += "h1"
    return path


def _area(frame: Frame, ends: Sequence[float], high: Sequence[float], low: Sequence[float]) -> str:
    path = ""
    for piece in _pieces(frame, ends, high, low):
        path += _points([(x, y) for x, y, _ in piece]) + _points([(x, y) for x, _, y in reversed(piece)], "L") + "Z"
    return path


def _path(name: str, data: str) -> str:
    return f'<path class="{name}" d="{data}"/>' if data else ""


def _scale(values: Iterable[float], *, zero: bool = True) -> tuple[float, float]:
    there = [value for value in values if math.isfinite(value)]
    low, high = (min(there), max(there)) if there else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        high = low + 1
    return low, min(high + (high - low) * 0.06, 1.7e308)


def _is_some(value: float) -> bool:
    return math.isfinite(value) and value != 0


def _bands(frame: Frame, median: Line, p90: Line, most: Line) -> str:
    return (
        _path("b1", _area(frame, most.ends, most.values, p90.values))
        + _path("b2", _area(frame, p90.ends, p90.values, median.values))
        + _path("l", _line(frame, median))
    )


def _svg(inside: str, width: float, height: float, name: str, label: str) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {_number(width)} {_number(height)}" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(label)}">{inside}</svg>'
    )


def _capped(p90: Line, most: Line) -> tuple[float, float]:
    """Return the scale of bands: one outlier must not flatten the rest."""
    low, high = _scale(most.values)
    return low, min(high, _scale(value * _CAP for value in p90.values)[1])


def spark(
    kind: str,
    columns: dict[str, Line],
    start: float,
    end: float,
    told: Callable[[float], str],
    label: str,
    unit: str = "",
    marks: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """Return a small chart: by kind of series from the lines ``value``, or ``median``, ``p90``, ``max``, ``rate``.

    One round value has a line and a text, which ``told`` writes: it says what the scale is. ``marks`` have lines, too,
    of a class of their name.
    """
    columns = thinned(columns, start, end, POINTS)
    below = ""
    if "median" in columns:
        median, p90, most, rate = (columns[name] for name in ("median", "p90", "max", "rate"))
        frame = Frame(start, end, *_capped(p90, most), height=_HEIGHT - _COUNTS)
        counts = Frame(start, end, *_scale(rate.values), height=_COUNTS - 12)
        below = _path("a2", _area(counts, rate.ends, rate.values, [0.0] * len(rate.values)))
        below = below and f'<g transform="translate(0 {_HEIGHT - _COUNTS + 12})">{below}</g>'
        inside = _bands(frame, median, p90, most)
    else:
        frame = Frame(start, end, *_scale(columns["value"].values))
        inside = _scalar(frame, kind, columns["value"])
    hint = ""
    main = columns.get("max", columns.get("value"))
    ticks = round_ticks(frame.low, frame.high, 3, unit) if main and any(map(_is_some, main.values)) else []
    if tick := max(ticks, key=abs, default=0.0):
        y = frame.y(tick)
        inside = f'<line class="gr" x1="0" x2="{_WIDTH}" y1="{_number(y)}" y2="{_number(y)}"/>{inside}'
        side = 11 if y < 0.8 * _HEIGHT else -3
        hint = f'<text class="hint" y="{_number(100 * y / _HEIGHT)}%" dy="{side}">{escape(told(tick))}</text>'
    for name, limit in marks.items():
        if frame.low <= limit <= frame.high:
            at = _number(frame.y(limit))
            inside += f'<line class="mark {escape(name)}" x1="0" x2="{_WIDTH}" y1="{at}" y2="{at}"/>'
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none"'
    return f'<svg class="spark" role="img" aria-label="{escape(label)}"><svg {box}>{inside}{below}</svg>{hint}</svg>'


def _scalar(frame: Frame, kind: str, line: Line) -> str:
    zero = [min(max(0.0, frame.low), frame.high)] * len(line.ends)
    if kind == "unique":
        return _path("l", _line(frame, line, steps=True))
    area = _path("a", _area(frame, line.ends, line.values, zero)) if kind == "counter" else ""
    return area + _path("l", _line(frame, line))


def chart(
    kind: str,
    columns: dict[str, Line],
    start: float,
    end: float,
    told: Callable[[float], str],
    label: str,
    unit: str = "",
    height: int = 240,
) -> str:
    """Return a large chart with axes; ``told`` writes a value with its unit. What it cuts off stands in it as text."""
    columns = thinned(columns, start, end, LARGE_POINTS)
    shown = [columns[name] for name in ("median", "p90", "max") if name in columns] or [columns["value"]]
    low, high = _capped(*shown[1:]) if len(shown) == 3 else _scale(shown[0].values)
    frame = Frame(start, end, low, high, _LARGE, height * _FINE)
    inside = _bands(frame, *shown) if len(shown) == 3 else _scalar(frame, kind, shown[0])
    ticks = round_ticks(low, high, unit=unit)
    values = [(frame.y(tick) / _FINE, told(tick)) for tick in ticks]
    times = [(frame.x(tick) / _LARGE * 100, text) for tick, text in time_ticks(start, end)]
    lines = "".join(f'<line class="gr" x1="0" x2="100%" y1="{_number(y)}" y2="{_number(y)}"/>' for y, _ in values)
    texts = "".join(
        f'<text class="ax" x="100%" dx="10" y="{_number(y + 4)}">{escape(text)}</text>' for y, text in values
    )
    peak = max((value for value in shown[-1].values if math.isfinite(value)), default=high)
    if peak > high:
        texts += f'<text class="ax" x="0" y="11">peaks to {escape(told(peak))}</text>'
    texts += "".join(
        f'<text class="ax" x="{_number(x)}%" y="{height + 17}" text-anchor="middle">{text}</text>' for x, text in times
    )
    box = f"0 0 {_LARGE} {height * _FINE}"
    return (
        f'<svg class="chart" height="{height + 24}" role="img" aria-label="{escape(label)}">{lines}'
        f'<svg width="100%" height="{height}" viewBox="{box}" preserveAspectRatio="none">{inside}</svg>'
        f"{texts}</svg>"
    )


def bars(weights: Sequence[float], label: str, height: int = 110) -> str:
    """Return a histogram: one bar for each weight."""
    width, most = 600 / max(len(weights), 1), max(weights, default=0) or 1
    inside = "".join(
        f'<rect class="col" x="{_number(place * width)}" y="{_number(height - weight / most * height)}"'
        f' width="{_number(max(width - min(2, width / 5), 0.5))}" height="{_number(weight / most * height)}"/>'
        for place, weight in enumerate(weights)
        if weight
    )
    return _svg(inside, 600, height, "bars", label)


def heat_map(
    columns: Sequence[tuple[float, int, Sequence[float]]], start: float, end: float, label: str, height: int = 120
) -> tuple[str, int, int]:
    """Return a heat map, and its first and last bucket. A column is an end, its first bucket, and the weights."""
    slots: dict[int, dict[int, float]] = {}
    count = 180
    for time, first, weights in columns:
        slot = slots.setdefault(min(max(int((time - start) / (end - start) * count), 0), count - 1), {})
        for bucket, weight in enumerate(weights, first):
            if weight:
                slot[bucket] = slot.get(bucket, 0) + weight
    buckets = [bucket for slot in slots.values() for bucket in slot]
    if not buckets:
        return "", 0, 0
    low, high = min(buckets), max(buckets)
    most = max(max(slot.values()) for slot in slots.values() if slot)
    tall, wide = height / (high - low + 1), 1000 / count
    cell = f"h{_number(wide)}v{_number(tall)}h-{_number(wide)}z"
    shades: dict[int, str] = {}
    for place, slot in sorted(slots.items()):
        for bucket, weight in slot.items():
            shade = max(1, round(_SHADES * math.log1p(weight) / math.log1p(most)))
            corner = f"M{_number(place * wide)} {_number(height - (bucket - low + 1) * tall)}"
            shades[shade] = shades.get(shade, "") + corner + cell
    inside = "".join(
        f'<path class="h" fill-opacity="{shade / _SHADES:.2f}" d="{data}"/>' for shade, data in sorted(shades.items())
    )
    return _svg(inside, 1000, height, "heat", label), low, high


# -- axes


def round_ticks(low: float, high: float, most: int = 5, unit: str = "") -> list[float]:
    """Return at most ``most`` round numbers from ``low`` to ``high``, round as they are written with their unit.

    >>> round_ticks(0, 38), round_ticks(0, 1.06), round_ticks(-3, 9)
    ([0.0, 10.0, 20.0, 30.0], [0.0, 0.25, 0.5, 0.75, 1.0], [-2.5, 0.0, 2.5, 5.0, 7.5])
    >>> round_ticks(0, 5 << 20, unit="B") == [0, 2 << 20, 4 << 20]
    True
    """
    step = step_of(max(abs(low), abs(high)), unit)
    return [tick * step for tick in _round_ticks(low / step, high / step, most)]


def _round_ticks(low: float, high: float, most: int) -> list[float]:
    span = high - low
    if not (math.isfinite(span) and span / most > 0):  # the smallest numbers have no fifth
        return []
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * power
        if step and math.floor(high / step) - math.ceil(low / step) + 1 <= most:
            return [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return []


_STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def time_ticks(start: float, end: float, most: int = 6) -> list[tuple[float, str]]:
    """Return at most ``most`` round times of day, in UTC, with their texts; none at the very edge."""
    span = end - start
    step = next((step for step in _STEPS if span / step <= most), _STEPS[-1] * math.ceil(span / most / _STEPS[-1]))
    first = math.ceil((start + span * 0.03) / step)
    times = [place * step for place in range(first, first + most + 1)]
    form = "%H:%M" if step >= 60 else "%H:%M:%S"
    return [(time, datetime.fromtimestamp(time, UTC).strftime(form)) for time in times if time < end - span * 0.03]
