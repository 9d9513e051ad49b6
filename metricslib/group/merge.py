"""The window of a slot: what the members of a group measured, with the series that are there though nothing happened.

A series is 0 in a slot while a member that knows it lives, and for an hour more. Members state the series that they
know in the first whole record that they write, and again every half hour (:data:`RESTATED`); so a series stays for
an hour and a half after it was last stated.

The values that members state of one gauge become one by its rule. A gauge whose rule is ``last`` keeps its value for an
hour after the member that set it is gone; the others are of living members alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..series import KINDS, Kind, canonical_tags, join, split
from ..sketch import NO_SAMPLES
from ..window import Window
from .record import GaugeValue, Slot

__all__ = ["RESTATED", "KnownSeries"]

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


class KnownSeries:
    """The series of a group, and the windows of its slots. One owner."""

    def __init__(self) -> None:
        self._first: dict[Kind, dict[str, int]] = {kind: {} for kind in KINDS}
        self._last: dict[Kind, dict[str, int]] = {kind: {} for kind in KINDS}
        self._gauges: dict[str, tuple[GaugeValue, int]] = {}
        """Of the rule ``last``: the value, and the last slot in which a member stated it."""
        self._newest = 0

    def window(self, slot: Slot, stamp: int, interval: float, *, remember: bool = True) -> Window:
        """Return the window of a slot, and remember its series. Do not remember those of a slot that is not over: its
        closing records state what is known.
        """
        if remember:
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

    def _remember(self, slot: Slot, stamp: int) -> None:
        newest = stamp > self._newest
        self._newest = max(stamp, self._newest)
        for kind in _IDLE:
            first, last = self._first[kind], self._last[kind]
            stated = dict.fromkeys((*slot.aggregates[kind], *slot.known.get(kind, ())), stamp)
            new = stated.keys() - last.keys()
            first.update(dict.fromkeys(new, stamp))
            if newest:
                last.update(stated)
                for key in [key for key, seen in last.items() if seen + _KEPT < stamp]:
                    del first[key], last[key]
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
