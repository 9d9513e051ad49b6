"""The last hour and the last day of every series, in a bounded number of bytes: what charts are drawn from.

Each window that ends becomes one *row*: for each kind an array with one place a series. A *layout* says which series
has which place; rows share it. A series that appears later gets the next place, so that older rows are only shorter.
When most places of a layout belong to series that are gone, the next row starts a new layout, and the old one goes
with its last row. So a row costs 8 bytes a counter, gauge or unique, and 20 bytes a timer or histogram: its count in
double precision, and median, 90th percentile and maximum in single precision. Appending one runs at the speed of
``map``.

A metric with many tag sets has one more place, for all of them together, so that reading it does not take longer than
reading one series: see :data:`MANY`.

A minute's rows are also added up to one row, for the day. There counters and counts are sums, gauges have their last
value, uniques their largest one, maxima are maxima, and median and 90th percentile are means weighted by count: an
approximation, for the samples themselves are gone.

For the timers and histograms with the most samples the rows also have the weight in each quarter of a power of two,
for heat maps. These have a budget of their own.

The rows are in tuples that are replaced, never changed. So one thread appends, any thread reads, and no lock is needed
that a fork could find held.
"""

import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import groupby, islice, repeat, zip_longest
from operator import attrgetter, itemgetter, mul
from typing import Final, NamedTuple

from .series import KINDS, Kind
from .sketch import Distribution
from .window import Window

__all__ = [
    "DAY",
    "DISTRIBUTIONS",
    "FIELDS",
    "HEATED",
    "HOUR",
    "MINUTE",
    "Columns",
    "Heat",
    "History",
    "Layout",
    "Points",
    "Row",
    "heat_bounds",
    "heat_of",
]

MINUTE, HOUR, DAY = 60, 3600, 86_400

DISTRIBUTIONS: Final[tuple[Kind, ...]] = ("timer", "histogram")
FIELDS: Final = ("count", "median", "p90", "max")
"""The columns of a timer or histogram; other kinds have one, ``value``."""
_QUARTERS = 4
"""Heat map buckets in a power of two."""
MANY = 8
"""A name with so many series of one kind is kept once more, as one series."""
HEATED = 100
"""How many timers and histograms have heat maps, at most."""
_ROW = 1_000
"""Bytes of a row apart from its values."""
_PLACE = 110
"""Bytes of a series' place in a layout apart from its key."""
_HEAT = 200
"""Bytes of one interval of a heat map apart from its weights."""
_P90 = (90.0,)
_END = attrgetter("end")
_NAN = math.nan

Columns = tuple["array[float]", ...]
_Merge = Callable[[Sequence[float]], float]
_MINUTE_OF: Final[dict[Kind, _Merge]] = {"counter": sum, "gauge": itemgetter(-1), "unique": max}


class Heat(NamedTuple):
    """The weight of a distribution's samples by quarters of powers of two: ``weights[i]`` for bucket ``first + i``."""

    first: int
    weights: "array[float]"


def heat_bounds(bucket: int) -> tuple[float, float]:
    """Return the bounds of a bucket of heat maps: the lower one is in it. Zero and less are in the lowest bucket."""
    return _bound(bucket), _bound(bucket + 1)


def _bound(bucket: int) -> float:
    power, quarter = divmod(bucket, _QUARTERS)
    return math.ldexp(1 + quarter / _QUARTERS, power)


_LEAST, _MOST = -40 * _QUARTERS, 40 * _QUARTERS


def _heat_bucket(value: float) -> int:
    if value <= 0:
        return _LEAST
    fraction, power = math.frexp(value)  # 0.5 <= fraction < 1
    return min(max((power - 1) * _QUARTERS + int((fraction * 2 - 1) * _QUARTERS), _LEAST), _MOST)


def heat_of(distribution: Distribution) -> Heat:
    """Return the heat of a frozen distribution that is not empty."""
    values, weights = distribution._sorted()
    first, last = _heat_bucket(values[0]), _heat_bucket(values[-1])
    found, start = array("f"), 0
    for bucket in range(first, last):
        end = bisect_left(values, _bound(bucket + 1), start)
        found.append(sum(weights[start:end]))
        start = end
    found.append(sum(weights[start:]))
    return Heat(first, found)


class Layout:
    """Which series has which place in the rows; it follows from the order in which they were added."""

    __slots__ = ("bytes", "groups", "places")

    def __init__(self) -> None:
        self.places: dict[Kind, dict[str, int]] = {kind: {} for kind in KINDS}
        self.groups: dict[Kind, dict[str, list[int]]] = {kind: {} for kind in KINDS}
        """The places of all series of a name."""
        self.bytes = 0

    def add(self, kind: Kind, keys: Iterable[str]) -> None:
        places, groups = self.places[kind], self.groups[kind]
        for key in keys:
            if key not in places:
                place = places[key] = len(places)
                name = key.partition(";")[0]
                group = groups.setdefault(name, [])
                group.append(place)
                self.bytes += sys.getsizeof(key) + _PLACE
                if len(group) == MANY:
                    places[_all_of(name)] = len(places)
                    self.bytes += sys.getsizeof(key) + _PLACE

    def keys(self, kind: Kind, begin: int = 0) -> list[str]:
        """Return the series from a place on, without what stands for all series of a name."""
        return [key for key in islice(self.places[kind], begin, None) if not key.endswith(";*")]

    def mostly_gone(self, window: Window) -> bool:
        """Whether most places belong to series that the window does not have."""
        return sum(map(len, self.places.values())) > 2.5 * len(window) + 100


def _all_of(name: str) -> str:
    """Return what stands for all series of a name among the keys; a series cannot be called so."""
    return f"{name};*"


class Row:
    """One interval or one minute. NaN stands for a series that was not there; an idle timer has count 0."""

    __slots__ = ("bytes", "columns", "end", "heat", "heat_bytes", "interval", "layout")

    def __init__(self, end: int, interval: float, layout: Layout, columns: dict[Kind, Columns]):
        self.end = end
        self.interval = interval
        self.layout = layout
        self.columns = columns
        self.bytes = _ROW + sum(len(column) * column.itemsize for of in columns.values() for column in of)
        self.heat: dict[tuple[Kind, str], Heat] = {}
        self.heat_bytes = 0

    def add_heat(self, kind: Kind, key: str, heat: Heat) -> None:
        """Add the heat map of a series."""
        self.heat[kind, key] = heat
        self.heat_bytes += _HEAT + len(heat.weights) * heat.weights.itemsize

    def column(self, kind: Kind, field: int, layout: Layout) -> Sequence[float]:
        """Return a column as it would be in ``layout``."""
        column = self.columns[kind][field]
        if layout is self.layout:
            return column
        place = self.layout.places[kind].get
        size = len(column)
        places = (place(key, size) for key in layout.places[kind])
        return [column[at] if at < size else _NAN for at in places]


class Points(NamedTuple):
    """The values of one series, or of several together, in a row of intervals. NaN: there was none."""

    ends: list[int]
    """The ends of the intervals, in seconds since the epoch."""
    intervals: list[float]
    """Their lengths in seconds."""
    columns: dict[str, list[float]]
    """Values by field: ``value``, or those in :data:`FIELDS`."""

    def rates(self) -> list[float]:
        """Return what was counted a second: of a counter, or of a timer's or histogram's samples."""
        counts = self.columns["value" if "value" in self.columns else "count"]
        return [count / interval for count, interval in zip(counts, self.intervals, strict=True)]


class History:
    """Keeps what happened in at most ``max_bytes``: the last hour by intervals, and of a day as many minutes as there
    is room for. ``heat_bytes`` is the room for heat maps.

    Where there is not room for both, the oldest minutes go first, then the oldest intervals; the last one always stays.
    With intervals of a minute or more there are no minutes, and the intervals are kept for a day.
    """

    def __init__(self, max_bytes: int = 64 << 20, heat_bytes: int = 8 << 20) -> None:
        self.max_bytes = max_bytes
        self.heat_bytes = heat_bytes
        self.last: Window | None = None
        """The last window."""
        self._rows: tuple[Row, ...] = ()
        self._minutes: tuple[Row, ...] = ()
        self._layout = Layout()
        self._heated: frozenset[tuple[Kind, str]] = frozenset()

    def append(self, window: Window) -> list[Row]:
        """Take the window that follows the last one. What stands at later times, from a clock set back, goes.

        Returns the rows that were made: that of the interval first, then those of minutes that are over.
        """
        self._forget_from(window.end)
        return self.put(window)

    def put(self, window: Window) -> list[Row]:
        """Take a window of any time, in the place of the one that was there. Returns what :meth:`append` does."""
        row = self._row_of(window)
        self._rows = tuple(old for old in self._rows if old.end != row.end)
        newest = self._rows[-1] if self._rows else None
        new_minute = newest is None or _minute_of(newest) != _minute_of(row)
        self._add_heat(row, window, anew=new_minute or row.interval >= MINUTE)
        self._rows = _with(self._rows, row)
        made = [row]
        if row.interval < MINUTE:
            over = set[int]()
            if row.end % MINUTE == 0 or (newest and _minute_of(newest) > _minute_of(row)):
                over.add(_minute_of(row))
            if newest and newest.interval < MINUTE and _minute_of(newest) < _minute_of(row):
                over.add(_minute_of(newest))
            made += [self._end_minute(minute) for minute in sorted(over)]
        self._make_room()
        if self.last is None or window.end >= self._rows[-1].end:
            self.last = window
        return made

    def insert(self, rows: Iterable[tuple[Row, bool]]) -> None:
        """Take rows of intervals and, marked with True, of minutes, that another history has made."""
        for row, minute in rows:
            if minute:
                self._minutes = _with(self._minutes, row)
            else:
                self._rows = _with(self._rows, row)
        if self._rows:
            self._make_room()

    def forget_after(self, now: float) -> None:
        """Forget what stands in the future, because the clock was set back."""
        if self._rows and self._rows[-1].end > now + 1:
            self._forget_from(int(now) + 2)

    def _forget_from(self, end: int) -> None:
        if self._rows and self._rows[-1].end >= end:
            self._rows = tuple(old for old in self._rows if old.end < end)
            self._minutes = tuple(old for old in self._minutes if old.end < end)

    def _row_of(self, window: Window) -> Row:
        if self._layout.mostly_gone(window):
            self._layout = Layout()
        for kind in KINDS:
            if not window[kind].keys() <= self._layout.places[kind].keys():
                self._layout.add(kind, window[kind])
        columns = _columns(window, self._layout)
        _add_groups(columns, self._layout)
        return Row(window.end, window.interval, self._layout, columns)

    def points(
        self, kind: Kind, keys: Sequence[str], since: float = 0, *, minutes: bool = False, name: str = ""
    ) -> Points:
        """Return what happened to the series of ``keys`` together in the intervals that end after ``since``.

        Counters, gauges and counts are added, of uniques the largest counts, of maxima the largest; medians and 90th
        percentiles are means weighted by count. ``name`` says that ``keys`` are all series of that name there are, for
        which they need not be looked at one by one.
        """
        rows = [row for row in self._chosen(minutes) if row.end > since]
        fields = FIELDS if kind in DISTRIBUTIONS else ("value",)
        values: list[list[float]] = [[] for _ in fields]
        for layout, run in groupby(rows, key=attrgetter("layout")):
            known = layout.places[kind]
            places = sorted(known[key] for key in keys if key in known)
            whole = known.get(_all_of(name), -1) if name else -1
            for row in run:
                columns = row.columns[kind]
                place = whole if whole >= 0 else places[0] if len(places) == 1 else -1
                if 0 <= place < len(columns[0]):
                    for number, column in enumerate(columns):
                        values[number].append(column[place])
                else:
                    for number, value in enumerate(_together(kind, columns, places)):
                        values[number].append(value)
        return Points([row.end for row in rows], [row.interval for row in rows], dict(zip(fields, values, strict=True)))

    def heat(self, kind: Kind, key: str, since: float = 0) -> list[tuple[int, Heat]]:
        """Return the heat map of a timer or histogram: ends of intervals, and what was in them."""
        found = ((row.end, row.heat.get((kind, key))) for row in self._rows if row.end > since)
        return [(end, heat) for end, heat in found if heat is not None]

    def new(self, kind: Kind, since: float) -> list[str]:
        """Return the series that appeared after ``since``, the newest last; none if the history is younger itself."""
        rows = self._rows
        before = next((row for row in reversed(rows) if row.end <= since), None)
        if before is None:
            return []
        old = before.layout.places[kind]
        size = len(before.columns[kind][0])
        alive = rows[-1].layout.places[kind]
        return [key for key in list(alive) if not key.endswith(";*") and old.get(key, size) >= size]

    def keys(self, kind: Kind) -> list[str]:
        """Return the series of a kind that are in the newest interval's layout, in order of first appearance."""
        rows = self._rows
        return [key for key in list(rows[-1].layout.places[kind]) if not key.endswith(";*")] if rows else []

    @property
    def heated(self) -> int:
        """How many series have heat maps now."""
        return len(self._heated or (self._rows[-1].heat if self._rows else ()))

    def ends(self, *, minutes: bool = False) -> list[int]:
        """Return the ends of the intervals, or of the minutes, that are kept."""
        return [row.end for row in self._chosen(minutes)]

    def _chosen(self, minutes: bool) -> Iterable[Row]:
        if not minutes:
            return self._rows
        return sorted([*self._minutes, *(row for row in self._rows if row.interval >= MINUTE)], key=lambda row: row.end)

    @property
    def used(self) -> int:
        """Bytes in use, heat maps not counted."""
        rows = (*self._rows, *self._minutes)
        return sum(row.bytes for row in rows) + sum(layout.bytes for layout in {row.layout for row in rows})

    @property
    def heat_used(self) -> int:
        """Bytes in use for heat maps."""
        return sum(row.heat_bytes for row in self._rows)

    def _end_minute(self, minute: int) -> Row:
        row = _minute([row for row in self._rows if _minute_of(row) == minute])
        self._minutes = _with(self._minutes, row)
        return row

    def _make_room(self) -> None:
        """Let go what is too old, and then the oldest minutes and intervals for which there is no room."""
        now = self._rows[-1].end
        self._rows = tuple(row for row in self._rows if row.end > now - (HOUR if row.interval < MINUTE else DAY))
        self._minutes = tuple(row for row in self._minutes if row.end > now - DAY)
        over = self.used - self.max_bytes
        if over > 0:
            sharing = Counter(row.layout for row in (*self._minutes, *self._rows))
            gone = 0
            for row in (*self._minutes, *self._rows[:-1]):
                gone += 1
                over -= row.bytes
                sharing[row.layout] -= 1
                if not sharing[row.layout]:
                    over -= row.layout.bytes
                if over <= 0:
                    break
            self._rows = self._rows[max(0, gone - len(self._minutes)) :]
            self._minutes = self._minutes[gone:]

    def _add_heat(self, row: Row, window: Window, *, anew: bool) -> None:
        """Add the heat of the busiest; who these are is found out anew each minute."""
        if len(self._heated) < HEATED or anew:
            counts = (
                (distribution.count, (kind, key))
                for kind in DISTRIBUTIONS
                for key, distribution in window[kind].items()
                if distribution.count
            )
            self._heated = frozenset(of for _, of in nlargest(HEATED, counts)) or self._heated
        for kind, key in self._heated:
            distribution = window[kind].get(key)
            if distribution is not None and distribution.count:
                row.add_heat(kind, key, heat_of(distribution))
        over = sum(row.heat_bytes for row in self._rows) + row.heat_bytes - self.heat_bytes
        for old in (*self._rows, row):
            if over <= 0:
                break
            over -= old.heat_bytes
            old.heat, old.heat_bytes = {}, 0


def _add_groups(columns: dict[Kind, Columns], layout: Layout) -> None:
    """Fill the places of all series of a name."""
    for kind, groups in layout.groups.items():
        places = layout.places[kind]
        for name, group in groups.items():
            if len(group) >= MANY:
                whole = places[_all_of(name)]
                for column, value in zip(columns[kind], _together(kind, columns[kind], group), strict=True):
                    column[whole] = value


def _with(rows: tuple[Row, ...], row: Row) -> tuple[Row, ...]:
    """Return rows in order of their ends, with ``row`` in the place of the one that has its end."""
    if not rows or rows[-1].end < row.end:
        return (*rows, row)
    place = bisect_left(rows, row.end, key=_END)
    return (*rows[:place], row, *rows[place + (rows[place].end == row.end) :])


def _minute_of(row: Row) -> int:
    return (row.end - 1) // MINUTE


# -- from a window to a row


def _columns(window: Window, layout: Layout) -> dict[Kind, Columns]:
    columns: dict[Kind, Columns] = {}
    for kind, places in layout.places.items():
        find = window[kind].get
        if kind in DISTRIBUTIONS:
            columns[kind] = _distributions(map(find, places), len(places))
        elif kind == "unique":
            sets = map(find, places)
            columns[kind] = (array("d", [_NAN if members is None else len(members) for members in sets]),)
        else:
            columns[kind] = (array("d", map(find, places, repeat(_NAN))),)
    return columns


def _distributions(found: Iterable[Distribution | None], size: int) -> Columns:
    count = array("d", bytes(8 * size))
    median, p90, most = (array("f", [_NAN]) * size for _ in range(3))
    for place, distribution in enumerate(found):
        if distribution is None:
            count[place] = _NAN
        elif distribution.count:
            count[place] = distribution.count
            median[place] = distribution.median
            p90[place] = distribution._shares(_P90)[0][1]  # type: ignore[index]  # there are samples
            most[place] = distribution.max
    return count, median, p90, most


# -- several values in one


def _minute(rows: Sequence[Row]) -> Row:
    layout = rows[-1].layout
    columns: dict[Kind, Columns] = {}
    for kind in KINDS:
        of = [[row.column(kind, field, layout) for row in rows] for field in range(len(rows[-1].columns[kind]))]
        if kind in DISTRIBUTIONS:
            counts, medians, p90s, most = of
            count = _merged(counts, sum)
            median, p90 = (_mean(counts, column, count) for column in (medians, p90s))
            columns[kind] = (array("d", count), array("f", median), array("f", p90), array("f", _merged(most, max)))
        else:
            columns[kind] = (array("d", _merged(of[0], _MINUTE_OF[kind])),)
    _add_groups(columns, layout)
    return Row((_minute_of(rows[-1]) + 1) * MINUTE, sum(row.interval for row in rows), layout, columns)


def _mean(counts: Iterable[Sequence[float]], values: Iterable[Sequence[float]], whole: list[float]) -> Iterator[float]:
    """Yield the means of a place's values, weighted by count."""
    sums = _merged([list(map(mul, *pair)) for pair in zip(counts, values, strict=True)], sum)
    return (weighted / count if count else _NAN for weighted, count in zip(sums, whole, strict=True))


def _merged(columns: Iterable[Sequence[float]], merge: _Merge) -> list[float]:
    """Return one value a place from all that are no NaN; NaN where there is none."""
    places = list(zip_longest(*columns, fillvalue=_NAN))
    merged = list(map(merge, places))
    for place, value in enumerate(merged):
        if value != value:
            merged[place] = _all(places[place], merge)
    return merged


def _all(values: Sequence[float], merge: _Merge) -> float:
    """Merge what is no NaN. A sum with a NaN is one, and so is a maximum that begins with one: the rule is fast."""
    value = merge(values)
    if value == value:
        return value
    there = [value for value in values if value == value]
    return merge(there) if there else _NAN


def _together(kind: Kind, columns: Columns, places: Sequence[int]) -> Iterator[float]:
    """Yield the values of several series of one row together, by field."""
    places = places[: bisect_left(places, len(columns[0]))]
    if not places:
        yield from repeat(_NAN, len(columns))
    elif len(places) == 1:
        yield from (column[places[0]] for column in columns)
    elif kind not in DISTRIBUTIONS:
        yield _all(itemgetter(*places)(columns[0]), max if kind == "unique" else sum)
    else:
        counts, medians, p90s, most = (itemgetter(*places)(column) for column in columns)
        count = _all(counts, sum)
        yield count
        for values in (medians, p90s):
            yield _all(list(map(mul, counts, values)), sum) / count if count else _NAN
        yield _all(most, max)
