"""The state of each series beyond the open interval: lifetime totals, the value of a gauge, and the idle time.

In: the aggregates of an interval. Out: the window of the interval, which includes idle series until they expire, and
the totals for the page. Each kind has its own class of totals, because unused fields would cost memory in every series.
One owner writes; readers get copies.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat, starmap
from struct import Struct
from typing import Any, NamedTuple, Self

from .series import KINDS, Kind
from .sketch import NO_SAMPLES
from .window import Aggregates, Window

__all__ = ["DistributionTotal", "GaugeTotal", "Idle", "SeriesStates", "Snapshot", "SummedTotal", "TOTALS", "Total"]

_POWER = Struct("=bd")


class Total:
    """The totals of a series since its start. Subclasses have the fields of their kind."""

    __slots__ = ("active", "idle", "place")

    gauge: float | None = None
    sum: float = 0
    """The sum of a counter, or of all samples."""
    count: float = 0
    """The weight of all samples."""
    created: float | None = None
    """A time before its first value, since which it counts; None if unknown, and for kinds without totals."""

    def __init__(self, active: float, created: float | None = None) -> None:
        self.active = active
        """End of the last interval with values."""
        self.idle = 0
        """Number of windows since its last value. Not counted for kinds that are always included."""
        self.place: int | None = None
        """Its position in the order of the checkpoint; None: not assigned yet."""

    @property
    def powers(self) -> dict[int, float]:
        """Weight of the samples in (2ᵖ⁻¹, 2ᵖ] by p, in a new dictionary; for timers in milliseconds."""
        return {}

    def take(self, happened: Any, end: float) -> None:
        """Add the aggregate of the interval that ended at ``end``."""
        self.active = end

    def exclude(self) -> None:
        """Called when windows no longer include the series. A gauge loses its value."""

    def add(self, later: "Total") -> None:
        """Add the totals of a later time."""
        self.active = later.active

    def copy(self) -> Self:
        """Return a copy."""
        return type(self)(self.active)


class GaugeTotal(Total):
    """The totals of a gauge: only its value."""

    __slots__ = ("gauge",)

    def __init__(self, active: float, created: float | None = None) -> None:
        self.active, self.idle, self.place = active, 0, None
        self.gauge: float | None = None

    def take(self, happened: Any, end: float) -> None:
        self.active = end
        self.gauge = happened.applied_to(self.gauge)

    def exclude(self) -> None:
        self.gauge = None

    def add(self, later: Total) -> None:
        super().add(later)
        self.gauge = self.gauge if later.gauge is None else later.gauge

    def copy(self) -> Self:
        copied = type(self)(self.active)
        copied.gauge = self.gauge
        return copied


class SummedTotal(Total):
    """The totals of a counter."""

    __slots__ = ("created", "sum")

    def __init__(self, active: float, created: float | None = None) -> None:
        self.active, self.idle, self.place = active, 0, None  # super() would double the time for each new series
        self.created = created
        self.sum: float = 0

    def take(self, happened: Any, end: float) -> None:
        self.active = end
        self.sum += happened

    def add(self, later: Total) -> None:
        super().add(later)
        self.sum += later.sum

    def copy(self) -> Self:
        copied = type(self)(self.active, self.created)  # no super(): a page copies the totals of all series
        copied.sum = self.sum
        return copied


class DistributionTotal(SummedTotal):
    """The totals of a timer or histogram: count, sum, and counts per power of two."""

    __slots__ = ("_powers", "count")

    def __init__(self, active: float, created: float | None = None) -> None:
        super().__init__(active, created)
        self.count: float = 0
        self._powers = b""  # packed, nine bytes each: a dictionary would use more memory than the rest of the object

    @property
    def powers(self) -> dict[int, float]:
        return dict(_POWER.iter_unpack(self._powers))

    @powers.setter
    def powers(self, powers: Mapping[int, float]) -> None:
        self._powers = _packed(powers)

    def take(self, happened: Any, end: float) -> None:
        # Everything that allocates memory comes first, so that a MemoryError changes nothing.
        added, count, powers = self.sum + happened.sum, self.count + happened.count, self._with(happened.powers())
        self.active, self.sum, self.count = end, added, count
        self._powers = powers

    def add(self, later: Total) -> None:
        super().add(later)
        self.count += later.count
        self._powers = self._with(later.powers)

    def _with(self, later: Mapping[int, float]) -> bytes:
        powers = dict(_POWER.iter_unpack(self._powers))
        for power, weight in later.items():
            powers[power] = powers.get(power, 0) + weight
        return _packed(powers)

    def copy(self) -> Self:
        copied = type(self)(self.active, self.created)
        copied.sum, copied.count, copied._powers = self.sum, self.count, self._powers
        return copied


def _packed(powers: Mapping[int, float]) -> bytes:
    return b"".join(starmap(_POWER.pack, powers.items()))


TOTALS: Mapping[Kind, type[Total]] = {
    "counter": SummedTotal,
    "timer": DistributionTotal,
    "histogram": DistributionTotal,
    "gauge": GaugeTotal,
    "unique": Total,
}
"""The total of each kind."""


class Idle(NamedTuple):
    """The idle series that windows do not include. By default, windows include all series.

    An excluded series keeps its lifetime totals, but a gauge loses its value. When the series has values again, it
    returns at the end of the order.
    """

    stay: Mapping[Kind, int] = {}
    """By kind, the number of windows that include a series after its last value, counting the window of that value.
    Series of other kinds are always included.
    """
    kept: frozenset[str] = frozenset()
    """Keys of series that are always included."""


class SeriesStates:
    """All live series, by kind and key, in order of first appearance."""

    def __init__(self, idle: Idle | None = None) -> None:
        self.idle = idle or Idle()
        self._totals: dict[Kind, dict[str, Total]] = {kind: {} for kind in KINDS}
        # The interval that is being added to the totals, and the number of its series that have been added.
        self._closing: tuple[Aggregates, float] | None = None
        self._added = 0

    def __getitem__(self, kind: Kind) -> dict[str, Total]:
        return self._totals[kind]

    def __len__(self) -> int:
        return sum(map(len, self._totals.values()))

    def know(self, kind: Kind, key: str, now: float, created: float | None = None) -> None:
        """Add the series to the order if it is new. It is idle until it has values."""
        totals = self._totals[kind]
        if key not in totals:
            totals[key] = TOTALS[kind](now, created)

    def window(self, open_: Aggregates, start: float, end: int, interval: float) -> Window:
        """Return the window of the interval with the values so far."""
        for kind in KINDS:
            totals, active, made = self._totals[kind], open_[kind], TOTALS[kind]
            if kind not in self.idle.stay:
                new = [key for key in active if key not in totals]
                totals.update(zip(new, map(made, repeat(end), repeat(start)), strict=False))
                continue
            for key in active:  # in this order, because returning series go to the end
                self._include_again(kind, key)
                if key not in totals:
                    totals[key] = made(end, start)
        changes = open_.gauges
        gauges = {
            key: changes[key].applied_to(total.gauge) if key in changes else total.gauge
            for key, total in self["gauge"].items()
        }
        return Window(
            start,
            end,
            interval,
            counters=self._filled("counter", 0, open_.counters),
            timers=self._filled("timer", NO_SAMPLES, open_.timers),
            histograms=self._filled("histogram", NO_SAMPLES, open_.histograms),
            gauges={key: value for key, value in gauges.items() if value is not None},
            uniques=self._filled("unique", frozenset[str](), open_.uniques),
        )

    def _filled(self, kind: Kind, idle: Any, active: Mapping[str, Any]) -> dict[str, Any]:
        values = dict.fromkeys(self._present(kind), idle)
        values.update(active)
        return values

    def part(
        self, only: Mapping[Kind, Iterable[str]], open_: Aggregates, start: float, end: int, interval: float
    ) -> tuple[Window, dict[Kind, dict[str, Total]]]:
        """Return the part of :meth:`window` with the series in ``only``, and copies of their totals."""
        totals: dict[Kind, dict[str, Total]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            for key in only.get(kind, ()):
                if known := self._totals[kind].get(key):
                    totals[kind][key] = known.copy()
                elif key in open_[kind]:
                    totals[kind][key] = TOTALS[kind](end, start)

        def filled(kind: Kind, idle: Any) -> dict[str, Any]:
            active = open_[kind]
            keys = [key for key in totals[kind] if key in active or not self._is_excluded(kind, key)]
            return {key: active.get(key, idle) for key in keys}

        changes = open_.gauges
        gauges = {
            key: changes[key].applied_to(total.gauge) if key in changes else total.gauge
            for key, total in totals["gauge"].items()
        }
        window = Window(
            start,
            end,
            interval,
            counters=filled("counter", 0),
            timers=filled("timer", NO_SAMPLES),
            histograms=filled("histogram", NO_SAMPLES),
            gauges={key: value for key, value in gauges.items() if value is not None},
            uniques=filled("unique", frozenset[str]()),
        )
        return window, totals

    def close(self, open_: Aggregates, end: float) -> None:
        """Add a complete interval to the totals, and update idle series. :meth:`window` was called with it before.

        After a MemoryError, :meth:`finish` continues.
        """
        self._closing = open_, end
        self.finish()

    def finish(self) -> None:
        """Continue :meth:`close` after a MemoryError, if necessary."""
        if self._closing is None:
            return
        open_, end = self._closing
        self.add(open_, end)
        for kind in self.idle.stay:
            self._age(kind, open_)
        self._closing = None

    def add(self, open_: Aggregates, end: float) -> None:
        """Add a complete interval to the totals. :meth:`window` was called with it before.

        After a MemoryError, the next call, with the same arguments, continues.
        """
        before, number, done = self._added, 0, 0
        try:
            for kind in KINDS:
                totals = self._totals[kind]
                for key, happened in open_[kind].items():
                    number += 1
                    if number > before and key in totals:  # the series may have been deleted since
                        totals[key].take(happened, end)
                    done = number
        except BaseException:
            self._added = max(before, done)
            raise
        self._added = 0

    def _include_again(self, kind: Kind, key: str) -> None:
        totals = self._totals[kind]
        if key in totals and self._is_excluded(kind, key):
            total = totals[key] = totals.pop(key)
            total.idle = 0
            total.place = None

    def _age(self, kind: Kind, open_: Aggregates) -> None:
        active = open_[kind]
        for key, total in self._totals[kind].items():
            total.idle = 1 if key in active else total.idle + 1
            if self._is_excluded(kind, key):
                total.exclude()

    def _is_excluded(self, kind: Kind, key: str) -> bool:
        stay = self.idle.stay.get(kind)
        return stay is not None and self._totals[kind][key].idle >= stay and key not in self.idle.kept

    def _present(self, kind: Kind) -> Iterable[str]:
        if kind not in self.idle.stay:
            return self._totals[kind]
        return [key for key in self._totals[kind] if not self._is_excluded(kind, key)]

    def idle_since(self, before: float) -> Iterator[tuple[Kind, str]]:
        """Yield the series without values at or after ``before``."""
        for kind in KINDS:
            for key, total in self._totals[kind].items():
                if total.active < before:
                    yield kind, key

    def forget(self, kind: Kind, key: str) -> None:
        """Delete an expired series."""
        self._totals[kind].pop(key, None)

    # -- over a restart

    def entries(self, of: Aggregates | None = None) -> list[tuple[Kind, str, Total]]:
        """Return the series in ``of``, or all series, with their totals."""
        return [
            (kind, key, totals[key])
            for kind, totals in self._totals.items()
            for key in (totals if of is None else of[kind])
            if key in totals
        ]

    def restore(self, earlier: Mapping[Kind, Mapping[str, Total]]) -> None:
        """Add the totals of an earlier process. Series that are not in use yet go to the end of the order."""
        for kind, totals in earlier.items():
            known = self._totals[kind]
            for key, total in totals.items():
                if key in known:
                    total.add(known[key])
                known[key] = total

    def reckon_idle(self, end: float, interval: float) -> None:
        """Set the idle time of every series as if there had been a window every ``interval`` seconds up to ``end``."""
        for kind, totals in self._totals.items():
            for key, total in totals.items():
                total.idle = 1 + max(0, int((end - total.active) // interval))
                if self._is_excluded(kind, key):
                    total.exclude()


class Snapshot(NamedTuple):
    """The state of a registry at one moment. Gauges that are read by a callback have the value of the last tick."""

    time: float
    """Wall-clock seconds since the epoch."""
    open: Window
    """The open interval so far."""
    last: Window | None
    """The last complete interval; None before the first tick."""
    totals: Mapping[Kind, Mapping[str, Total]]
    """Lifetime totals over all complete intervals, by kind and key."""
    dropped: Mapping[str, int]
    """Number of refused or dropped values and series since the start, by cause."""
