"""The series of a group: the window of each slot, with the series that are there though nothing happened, and totals.

A series is 0 in a slot while a member that knows it lives, and for an hour more. Members state the series that they
know in the first whole record that they write, and again every half hour (:data:`RESTATED`); so a series stays for
an hour and a half after it was last stated.

The values that members state of one gauge become one by its rule (:data:`~..instruments.gauge.ACROSS`). A gauge whose
rule is ``last`` keeps its value for an hour after the member that set it is gone; the others are of living members.

The caps of a registry hold for the group as well: members that are each below the cap may be above it together. Series
get their place in the order of the state, then of slots, of members' numbers and of records, so that every process that
reads the same files decides the same. What is over goes to the series ``overflow``, and is counted.

Totals are of closed slots: :meth:`KnownSeries.fold` adds a slot to them once, when it closes. All that a
:class:`KnownSeries` has goes into the state (:mod:`~.state`) as a document and comes back from it to the last bit.
There is no I/O here.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from ..budget import Share
from ..checkpoint import BadNote, read_key
from ..drops import DropCounter
from ..limits import Limits, stands_in
from ..series import KINDS, Kind, Series, canonical_tags, join, split
from ..series_state import TOTALS, Total
from ..sketch import NO_SAMPLES
from ..window import Aggregates, Window
from .record import GaugeValue, Slot, read_gauge

__all__ = ["MAX_SERIES", "MAX_TAG_SETS", "RESTATED", "KnownSeries"]

MAX_SERIES = 10_000
MAX_TAG_SETS = 1_000
RESTATED = 1800
"""Seconds after which a member states again which series it knows."""
_KEPT = 3600 + RESTATED
_LAST_KEPT = 3600
_IDLE: Mapping[Kind, Any] = {
    "counter": 0,
    "timer": NO_SAMPLES,
    "histogram": NO_SAMPLES,
    "unique": frozenset[str](),
}
_BAD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class KnownSeries:
    """The series of a group, the windows of its slots, and the totals of those that are closed. One owner.

    ``limits`` has the caps; by default those of a registry.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        if limits is None:
            limits = Limits((), MAX_SERIES, MAX_TAG_SETS, DropCounter(), Share(sys.maxsize))
        self._limits = limits
        self._first: dict[Kind, dict[str, int]] = {kind: {} for kind in KINDS}
        self._last: dict[Kind, dict[str, int]] = {kind: {} for kind in KINDS}
        self._gauges: dict[str, tuple[GaugeValue, int]] = {}
        """Of the rule ``last``: the value, and the last slot in which a member stated it."""
        self._newest = 0
        self.totals: dict[Kind, dict[str, Total]] = {kind: {} for kind in KINDS}
        """Totals of all closed slots, by kind and key; a series that nothing happened to has none."""

    def window(self, slot: Slot, stamp: int, interval: float, *, remember: bool = True) -> Window:
        """Return the window of a slot, and remember its series. Do not remember those of a slot that is not over: its
        closing records state what is known.
        """
        if remember:
            slot = self._within_caps(slot)
            self._remember(slot, stamp)
        filled = {kind: self._filled(kind, slot.aggregates[kind], stamp) for kind in _IDLE}
        return Window(
            stamp - interval,
            stamp,
            interval,
            counters=filled["counter"],
            timers=filled["timer"],
            histograms=filled["histogram"],
            gauges=self._gauge_values(slot.gauges, stamp),
            uniques=filled["unique"],
        )

    def remember(self, slot: Slot, stamp: int) -> None:
        """Remember the series and gauges of a slot of which no window is needed; slots come in order."""
        slot = self._within_caps(slot)
        self._remember(slot, stamp)
        self._gauge_values(slot.gauges, stamp)

    def fold(self, slot: Slot, stamp: int, undo: dict[tuple[Kind, str], Total | None] | None = None) -> None:
        """Add a slot that closes to the totals: once, whatever its place in the order. See :meth:`undo`."""
        slot = self._within_caps(slot)
        self._remember(slot, stamp)
        for kind in _IDLE:
            totals = self.totals[kind]
            for key, value in slot.aggregates[kind].items():
                total = totals.get(key)
                if undo is not None:
                    undo.setdefault((kind, key), total and total.copy())
                if total is None:
                    total = totals[key] = TOTALS[kind](stamp)
                total.take(value, max(stamp, total.active))

    def undo(self, before: Mapping[tuple[Kind, str], Total | None]) -> None:
        """Take back calls of :meth:`fold`, to which ``before`` was given, for the state could not be written."""
        for (kind, key), total in before.items():
            if total is None:
                self.totals[kind].pop(key, None)
            else:
                self.totals[kind][key] = total

    # -- caps

    def _within_caps(self, slot: Slot) -> Slot:
        """Return the slot with what is over the caps in the series ``overflow``."""
        aggregates, known, gauges = slot.aggregates, dict(slot.known), slot.gauges
        for kind in _IDLE:
            first = self._first[kind]
            if refused := self._refused(kind, [key for key in aggregates[kind] if key not in first]):
                if aggregates is slot.aggregates:
                    aggregates = Aggregates()
                    aggregates.merge(slot.aggregates)
                for key, stand_in in refused.items():
                    value = aggregates[kind].pop(key)
                    if stand_in is not None:
                        aggregates.add(kind, stand_in, value)
            idle = [key for key in known.get(kind, ()) if key not in first and key not in refused]
            if refused := {**refused, **self._refused(kind, idle)}:
                known[kind] = [key for key in known.get(kind, ()) if key not in refused]
        if refused := self._refused("gauge", [key for key in gauges if key not in self._first["gauge"]]):
            gauges = {key: stated for key, stated in gauges.items() if key not in refused}
        return Slot(aggregates, gauges, known)

    def _refused(self, kind: Kind, new: Iterable[str]) -> dict[str, str | None]:
        """Admit new series as far as the caps allow, and return the others, each with the key that it goes to."""
        refused: dict[str, str | None] = {}
        for key in new:
            if not stands_in(key) and (admitted := self._limits.admit(Series.of_key(kind, key))) != key:
                refused[key] = admitted
        return refused

    # -- series

    def _remember(self, slot: Slot, stamp: int) -> None:
        newest = stamp > self._newest
        self._newest = max(stamp, self._newest)
        for kind in KINDS:
            first, last = self._first[kind], self._last[kind]
            active: Iterable[str] = slot.gauges if kind == "gauge" else slot.aggregates[kind]
            stated = dict.fromkeys((*active, *slot.known.get(kind, ())), stamp)
            new = stated.keys() - last.keys()
            first.update(dict.fromkeys(new, stamp))
            if newest:
                last.update(stated)
                for key in [key for key, seen in last.items() if seen + _KEPT < stamp]:
                    del first[key], last[key]
                    self.totals[kind].pop(key, None)
                    self._limits.release(Series.of_key(kind, key))
            else:
                last.update(dict.fromkeys(new, stamp))

    def _filled(self, kind: Kind, active: Mapping[str, Any], stamp: int) -> dict[str, Any]:
        first = self._first[kind]
        values = {
            key: _IDLE[kind]
            for key, seen in self._last[kind].items()
            if key not in active and first[key] <= stamp <= seen + _KEPT
        }
        values.update(active)
        return values

    def _gauge_values(self, stated: Mapping[str, Mapping[int, GaugeValue]], stamp: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for key, (gauge, seen) in list(self._gauges.items()):
            if seen + _LAST_KEPT < self._newest:
                del self._gauges[key]
            elif key not in stated and gauge.time <= stamp <= seen + _LAST_KEPT and gauge.value is not None:
                found[key] = gauge.value
        for key, members in stated.items():
            _, last = max(members.items(), key=lambda item: (item[1].time, item[0]))
            if last.across == "last":
                known, seen = self._gauges.get(key, (last, stamp))
                if known.time <= last.time:
                    self._gauges[key] = last, max(seen, stamp)
                elif known.time <= stamp <= seen + _LAST_KEPT:
                    last = known
            found.update(_values(key, last, members))
        return found

    # -- over a change of the process

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it; :meth:`restored` is the inverse."""
        return {
            "newest": self._newest,
            "series": {kind: [self._written(kind, key) for key in self._last[kind]] for kind in KINDS},
            "gauges": [[key, *gauge, seen] for key, (gauge, seen) in self._gauges.items()],
        }

    def _written(self, kind: Kind, key: str) -> list[Any]:
        entry: list[Any] = [key, self._first[kind][key], self._last[kind][key]]
        if total := self.totals[kind].get(key):
            entry += [total.active, total.sum, total.count, list(total.powers.items())]
        return entry

    @classmethod
    def restored(cls, document: Any, limits: Limits | None = None) -> Self:
        """Return what :meth:`document` wrote. Raises :class:`~..checkpoint.BadNote` for anything else."""
        made = cls(limits)
        try:
            made._newest = int(document["newest"])
            for kind in KINDS:
                for entry in document["series"][kind]:
                    made._read(kind, *entry)
            for key, value, time, across, seen in document["gauges"]:
                read_key("gauge", key)
                made._gauges[key] = read_gauge([value, time, across]), int(seen)
        except _BAD as error:
            raise BadNote(str(error)) from error
        return made

    def _read(self, kind: Kind, key: str, first: int, last: int, *total: Any) -> None:
        self._limits.restore(read_key(kind, key))
        self._first[kind][key], self._last[kind][key] = int(first), int(last)
        if total:
            active, sum, count, powers = total
            made: Any = TOTALS[kind](float(active))
            if kind != "unique":
                made.sum = sum + 0  # of a number alone
            if kind in ("timer", "histogram"):
                made.count, made.powers = float(count), {int(power): float(weight) for power, weight in powers}
            self.totals[kind][key] = made


def _values(key: str, last: GaugeValue, members: Mapping[int, GaugeValue]) -> Iterator[tuple[str, float]]:
    """Yield the gauge's key and value by the rule that was stated last: none, one, or one for each member."""
    if last.across == "each":
        for number, gauge in members.items():
            if gauge.value is not None:
                yield _tagged(key, number), gauge.value
    elif last.across == "last":
        if last.value is not None:
            yield key, last.value
    elif values := [gauge.value for gauge in members.values() if gauge.value is not None]:
        yield key, sum(values) if last.across == "sum" else min(values) if last.across == "min" else max(values)


def _tagged(key: str, number: int) -> str:
    name, tags = split(key)
    return join(name, canonical_tags([*tags, ("writer", number)]))
