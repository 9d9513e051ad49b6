"""The aggregates of one interval: a :class:`Window`, which the registry passes to history, page and destinations.

:class:`Aggregates` is its mutable form, with the values of one source since its last collection. Aggregates of one
interval are added up in any order, whether they come from threads, sockets or other processes.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from .series import KINDS, Kind
from .sketch import Distribution, merged

__all__ = ["ABSENT", "Aggregates", "Flush", "GaugeChange", "OpenInterval", "Source", "Window", "total"]


def total(one: float, other: float) -> float:
    """Return the sum of two finite numbers, or the largest finite number if the sum is beyond it.

    So a single absurd value can neither make a total infinite for ever nor raise an exception in a tick.
    """
    both = one + other
    return max(-sys.float_info.max, min(both, sys.float_info.max))


class GaugeChange(NamedTuple):
    """A change of a gauge: set to ``base`` (None: not set), then changed by ``delta``."""

    base: float | None
    delta: float = 0

    def then(self, later: "GaugeChange") -> "GaugeChange":
        return later if later.base is not None else GaugeChange(self.base, total(self.delta, later.delta))

    def applied_to(self, value: float | None) -> float | None:
        """Return the value of the gauge after this change, or None."""
        if self.base is None:
            return total(value or 0, self.delta)
        return None if math.isnan(self.base) else total(self.base, self.delta)


ABSENT = GaugeChange(math.nan)
"""The gauge has no value, because its callback failed."""


class Aggregates:
    """The values of series since the last collection. Series without new values are absent.

    Keys are canonical, ``name;tag=value``. Only one thread may change an object at a time.
    """

    __slots__ = ("counters", "gauges", "histograms", "received", "timers", "uniques")

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.timers: dict[str, Distribution] = {}
        self.histograms: dict[str, Distribution] = {}
        self.gauges: dict[str, GaugeChange] = {}
        self.uniques: dict[str, frozenset[str]] = {}
        self.received: dict[str, int] = {}
        """The number of the last contained numbered batch, by sender."""

    def __getitem__(self, kind: Kind) -> dict[str, Any]:
        values: dict[str, Any] = getattr(self, kind + "s")
        return values

    def __bool__(self) -> bool:
        return any(self[kind] for kind in KINDS)

    def add(self, kind: Kind, key: str, value: Any) -> None:
        """Add to the value of one series.

        Args:
            kind: The kind of the series.
            key: Its key.
            value: For a counter a number; for a timer or histogram a frozen distribution; for a gauge a
                ``GaugeChange``; for a unique a frozenset of its members.
        """
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
        """Add all values of ``later``.

        Args:
            later: Aggregates from a later time. They are not changed.
        """
        for kind in KINDS:
            mine, theirs = self[kind], later[kind]
            if not mine:
                mine.update(theirs)
            elif kind == "counter":  # most series are counters, and a call for each takes longer than all the rest
                for key, value in theirs.items():
                    mine[key] = total(mine[key], value) if key in mine else value
            else:
                for key, value in theirs.items():
                    self.add(kind, key, value)
        for sender, number in later.received.items():
            self.received[sender] = max(number, self.received.get(sender, 0))

    def of(self, only: Mapping[Kind, Iterable[str]]) -> "Aggregates":
        """Return the part with the series in ``only``."""
        part = Aggregates()
        for kind, keys in only.items():
            values = self[kind]
            part[kind].update((key, values[key]) for key in keys if key in values)
        return part

    def window(self, whole: "Window") -> "Window":
        """Return a window with these values, and values of gauges from ``whole``. Nothing may be added afterwards."""
        gauges = {key: whole.gauges[key] for key in self.gauges if key in whole.gauges}
        of = (whole.start, whole.end, whole.interval)
        return Window(*of, self.counters, self.timers, self.histograms, gauges, self.uniques)


class Window:
    """The aggregates of one interval. Immutable.

    Each mapping is by key, ``name;tag=value``, in order of first appearance. An idle counter is 0, an idle timer or
    histogram is empty, an idle gauge keeps its value. A gauge that was never set is absent.

    Attributes:
        start: The end of the previous window, in seconds since the epoch.
        end: The end of the interval in whole seconds since the epoch: its timestamp.
        interval: The nominal length in seconds, from which rates are computed.
        counters: The sum of each counter.
        timers: The durations of each timer, in milliseconds.
        histograms: The values of each histogram.
        gauges: The value of each gauge.
        uniques: The members of each unique.
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
            raise AttributeError(f"a window is frozen: its {name} cannot be changed")
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
        """True, even if the window has no series."""
        return True


class Flush(NamedTuple):
    """The result of a flush or tick: two views of the interval."""

    cumulative: Window
    """The interval from its start, as required for a slot of Graphite. It includes idle series."""
    delta: Window
    """The values since the previous flush, as required for a statsd server. It has no idle series."""
    received: Mapping[str, int] = {}
    """The number of the last numbered batch that is new in this flush, by sender."""
    active: Aggregates = Aggregates()
    """The aggregates of the interval; in mid-interval, valid until the next flush."""
    new: Aggregates = Aggregates()
    """The values since the last collection; see :meth:`.Registry.collect_new`."""

    @property
    def whole(self) -> Window:
        """The former name of :attr:`cumulative`; to be removed after the next release."""
        return _renamed("whole", "cumulative", self.cumulative)

    @property
    def fresh(self) -> Window:
        """The former name of :attr:`delta`; to be removed after the next release."""
        return _renamed("fresh", "delta", self.delta)


def _renamed(former: str, name: str, window: Window) -> Window:
    from warnings import warn

    warn(f"Flush.{former} is called Flush.{name} now", DeprecationWarning, stacklevel=3)
    return window


class OpenInterval(NamedTuple):
    """The part of the open interval that was sent in its middle."""

    start: float
    end: int
    """The timestamp with which it was sent."""
    sent: Aggregates


class Source(Protocol):
    """Supplies a registry with aggregates from elsewhere, such as the listeners of a forwarder."""

    def collect(self) -> Aggregates:
        """Return the aggregates since the last call. Called by one thread at a time.

        After a MemoryError nothing may be lost: the next call must return it.
        """
        ...

    def forget(self, kind: Kind, key: str) -> None:
        """Free the memory of a series, which has expired or was deleted."""
        ...
