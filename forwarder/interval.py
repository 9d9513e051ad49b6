"""What one intake has added up since the registry last asked. One owner writes; whoever takes it over reads."""

from itertools import repeat
from typing import NamedTuple

from metricslib.distribution import Distribution
from metricslib.series import Kind
from metricslib.unique import bounded_member
from metricslib.window import Aggregates, GaugeChange, total

__all__ = ["Changes", "Interval", "Tally"]

Tally = tuple[tuple[str, float], ...]
"""What is added to which counters: ints where it is whole numbers, whose sums are exact in any order."""
Changes = tuple[tuple[str, GaugeChange], ...]
"""What is done to which gauges."""

_BUFFERED = 1 << 16


class _Samples(NamedTuple):
    """A timer or histogram: samples of weight 1 wait, for a distribution takes many of them much faster than each."""

    waiting: list[float]
    distribution: Distribution


class Interval:
    """Aggregates in the making. Distributions keep ``exact`` samples as they are, sets at most ``members``."""

    __slots__ = ("_exact", "_members", "_waiting", "counters", "distributions", "fractional", "gauges", "uniques")

    def __init__(self, exact: int, members: int) -> None:
        self._exact = exact
        self._members = members
        self._waiting = 0
        self.counters: dict[str, float] = {}
        self.gauges: dict[str, GaugeChange] = {}
        self.distributions: dict[Kind, dict[str, _Samples]] = {"timer": {}, "histogram": {}}
        self.uniques: dict[str, set[str]] = {}
        self.fractional = False
        """Whether something else than whole numbers was added to a counter: from then on, their order matters."""

    def add_whole(self, tally: Tally, times: int) -> None:
        """Add whole numbers, ``times`` over."""
        counters = self.counters
        for key, amount in tally:
            counters[key] = counters.get(key, 0) + amount * times

    def add(self, tally: Tally) -> None:
        """Add any numbers; a total without end is the largest number there is."""
        for key, amount in tally:
            self.counters[key] = total(self.counters.get(key, 0), amount)

    def change(self, changes: Changes) -> None:
        """Change gauges."""
        for key, change in changes:
            before = self.gauges.get(key)
            if before is None or change.base is not None:
                self.gauges[key] = change
            elif before.base is None:
                self.gauges[key] = before.then(change)
            else:  # where the value is known, deltas are added to it one by one, as statsd does
                self.gauges[key] = GaugeChange(total(before.base, change.delta))

    def sample(self, kind: Kind, key: str, value: float, weight: float, times: int) -> None:
        """Add equal samples to a timer or histogram."""
        samples = self.distributions[kind].get(key)
        if samples is None:
            samples = self.distributions[kind][key] = _Samples([], Distribution(limit=self._exact))
        if weight == 1:
            samples.waiting.extend(repeat(value, times))
            self._waiting += times
            if self._waiting > _BUFFERED:
                self._fold()
        else:
            for _ in range(times):
                samples.distribution.add(value, weight)

    def member(self, key: str, member: str) -> bool:
        """Add a member to a set; return whether it is in it, and not refused because the set is full."""
        members = self.uniques.setdefault(key, set())
        member = bounded_member(member)
        if len(members) < self._members:
            members.add(member)
            return True
        return member in members

    def aggregates(self) -> Aggregates:
        """Return everything. Nothing may be added any more."""
        self._fold()
        aggregates = Aggregates()
        aggregates.counters = self.counters
        aggregates.gauges = self.gauges
        for kind, table in self.distributions.items():
            aggregates[kind].update((key, samples.distribution.freeze()) for key, samples in table.items())
        aggregates.uniques = {key: frozenset(members) for key, members in self.uniques.items()}
        return aggregates

    def _fold(self) -> None:
        for table in self.distributions.values():
            for waiting, distribution in table.values():
                if waiting:
                    distribution.extend(waiting)
                    waiting.clear()
        self._waiting = 0
