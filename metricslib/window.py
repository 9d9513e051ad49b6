"""What happened in one interval, frozen: the value that travels from the registry to history, page and destinations.

:class:`Aggregates` is its open form: what one source saw since it was last asked. Aggregates of one interval add up, in
any order, whether they come from threads, from sockets or from other processes.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from .series import KINDS, Kind
from .sketch import Distribution, merged

__all__ = ["ABSENT", "Aggregates", "Cut", "GaugeChange", "OpenInterval", "Source", "Window", "total"]


def total(one: float, other: float) -> float:
    """Return the sum of two finite numbers, as the largest number there is where the sum has no end.

    So a single absurd value can neither turn a total into infinity for good nor raise in the middle of a tick.
    """
    both = one + other
    return max(-sys.float_info.max, min(both, sys.float_info.max))


class GaugeChange(NamedTuple):
    """What happened to a gauge: set to ``base`` (None: not set), then changed by ``delta``."""

    base: float | None
    delta: float = 0

    def then(self, later: "GaugeChange") -> "GaugeChange":
        return later if later.base is not None else GaugeChange(self.base, total(self.delta, later.delta))

    def applied_to(self, value: float | None) -> float | None:
        """Return the gauge's value after this change; None when it has none."""
        if self.base is None:
            return total(value or 0, self.delta)
        return None if math.isnan(self.base) else total(self.base, self.delta)


ABSENT = GaugeChange(math.nan)
"""The gauge has no value now: its callback failed."""


class Aggregates:
    """What happened to each series since it was last asked for; series with nothing new are not in it.

    Keys are canonical series texts; distributions are frozen. One owner writes.
    """

    __slots__ = ("counters", "gauges", "histograms", "received", "timers", "uniques")

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.timers: dict[str, Distribution] = {}
        self.histograms: dict[str, Distribution] = {}
        self.gauges: dict[str, GaugeChange] = {}
        self.uniques: dict[str, frozenset[str]] = {}
        self.received: dict[str, int] = {}
        """By sender, the number of the last of its numbered batches that is in this."""

    def __getitem__(self, kind: Kind) -> dict[str, Any]:
        values: dict[str, Any] = getattr(self, kind + "s")
        return values

    def __bool__(self) -> bool:
        return any(self[kind] for kind in KINDS)

    def add(self, kind: Kind, key: str, value: Any) -> None:
        """Add what happened to one series: by kind a number, frozen distribution, :class:`GaugeChange` or frozenset."""
        values = self[kind]
        if key not in values:
            values[key] = value
        elif kind == "counter":
            values[key] = total(values[key], value)
        elif kind == "gauge":
            values[key] = values[key].then(value)
        elif kind == "unique":
            values[key] |= value
        else:
            values[key] = merged(values[key], value)

    def merge(self, later: "Aggregates") -> None:
        """Add all that happened in ``later``, which stays as it is."""
        for kind in KINDS:
            mine, theirs = self[kind], later[kind]
            if not mine:
                mine.update(theirs)
            else:
                for key, value in theirs.items():
                    self.add(kind, key, value)
        for sender, number in later.received.items():
            self.received[sender] = max(number, self.received.get(sender, 0))

    def of(self, only: Mapping[Kind, Iterable[str]]) -> "Aggregates":
        """Return what happened to the series in ``only``."""
        part = Aggregates()
        for kind, keys in only.items():
            values = self[kind]
            part[kind].update((key, values[key]) for key in keys if key in values)
        return part

    def window(self, whole: "Window") -> "Window":
        """Return what is in this as a part of ``whole``, where gauges have their values. Nothing may be added then."""
        gauges = {key: whole.gauges[key] for key in self.gauges if key in whole.gauges}
        of = (whole.start, whole.end, whole.interval)
        return Window(*of, self.counters, self.timers, self.histograms, gauges, self.uniques)


class Window:
    """One interval. Keys are canonical series texts (``name;tag=value``), in order of first appearance.

    ``end`` is the stamp: the aligned end of the interval, in whole seconds since the epoch. ``start`` is where the
    previous window ended. ``interval`` is the nominal length in seconds, by which rates are computed. Timers are in
    milliseconds. An idle counter is 0, an idle distribution is empty, a gauge keeps its value; a gauge that has none is
    not in it.
    """

    __slots__ = ("start", "end", "interval", "counters", "timers", "histograms", "gauges", "uniques")

    def __init__(
        self,
        start: float,
        end: int,
        interval: float,
        counters: Mapping[str, float] = {},
        timers: Mapping[str, Distribution] = {},
        histograms: Mapping[str, Distribution] = {},
        gauges: Mapping[str, float] = {},
        uniques: Mapping[str, frozenset[str]] = {},
    ) -> None:
        self.start: Final = start
        self.end: Final = end
        self.interval: Final = interval
        self.counters: Final = counters
        self.timers: Final = timers
        self.histograms: Final = histograms
        self.gauges: Final = gauges
        self.uniques: Final = uniques

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"a window is frozen: its {name} stays as it is")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Window) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        return f"Window({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def __getitem__(self, kind: Kind) -> Mapping[str, Any]:
        values: Mapping[str, Any] = getattr(self, kind + "s")
        return values

    def __len__(self) -> int:
        return sum(len(self[kind]) for kind in KINDS)

    def __bool__(self) -> bool:
        """Also an interval without series happened."""
        return True


class Cut(NamedTuple):
    """What a flush takes out of a registry: the same interval, seen twice."""

    whole: Window
    """The interval from its start until now, or to its end: what a slot in Graphite must hold.

    Idle series are in it.
    """
    fresh: Window
    """What is new since the previous cut: what a statsd server adds up. Idle series are not in it."""
    received: Mapping[str, int] = {}
    """By sender, the number of the last of its numbered batches that is new in this cut."""
    active: Aggregates = Aggregates()
    """What happened in the interval until now, in mid-interval as long as no other cut is made."""


class OpenInterval(NamedTuple):
    """The interval that is open, as far as it was sent in its middle."""

    start: float
    end: int
    """The stamp under which it was sent."""
    sent: Aggregates


class Source(Protocol):
    """What feeds a registry from outside, such as the forwarder's intake."""

    def collect(self) -> Aggregates:
        """Return what is new since the last call, and forget it. Called by one thread at a time.

        After a MemoryError nothing is forgotten: the next call returns it.
        """
        ...

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired: free what is kept for it."""
        ...
