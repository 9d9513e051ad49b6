"""What one intake has added up since the registry last asked. One owner writes; whoever takes it over reads."""

from functools import reduce
from itertools import repeat

from metricslib.distribution import Distribution
from metricslib.series import Kind
from metricslib.unique import bounded_member
from metricslib.window import Aggregates, GaugeChange, total

from .waiting import Waiting

__all__ = ["Changes", "Interval", "Tally", "amount"]

Tally = tuple[tuple[str, float], ...]
"""What is added to which counters: ints where it is whole numbers, whose sums are exact in any order."""
Changes = tuple[tuple[str, GaugeChange], ...]
"""What is done to which gauges."""

_WHOLE = 2.0**53
_BUFFERED = 1 << 16
_BUFFERED_A_SERIES = 2
_DISTRIBUTIONS: tuple[Kind, ...] = ("timer", "histogram")


def amount(number: float) -> float:
    """Return a whole number as an int, whose sums are exact in any order, as long as it is one for certain."""
    return int(number) if number.is_integer() and -_WHOLE < number < _WHOLE else number


class Interval:
    """Aggregates in the making. Distributions keep ``exact`` samples as they are, sets at most ``members``.

    Numbers are put into ``waiting`` first. Those of counters and gauges are in order there, so they must be settled
    before anything else is done to a counter or a gauge; for samples order does not matter.
    """

    __slots__ = ("_distributions", "_exact", "_members", "counters", "fractional", "gauges", "uniques", "waiting")

    def __init__(self, exact: int, members: int, waiting: Waiting) -> None:
        self._exact = exact
        self._members = members
        self._distributions: dict[tuple[Kind, str], Distribution] = {}
        self.waiting = waiting
        self.counters: dict[str, float] = {}
        self.gauges: dict[str, GaugeChange] = {}
        self.uniques: dict[str, set[str]] = {}
        self.fractional = False
        """Whether something else than whole numbers was added to a counter: from then on, their order matters."""

    def add_whole(self, tally: Tally, times: int) -> None:
        """Add whole numbers, ``times`` over."""
        counters = self.counters
        for key, whole in tally:
            counters[key] = counters.get(key, 0) + whole * times

    def add(self, tally: Tally) -> None:
        """Add any numbers; a total without end is the largest number there is."""
        for key, number in tally:
            self.counters[key] = total(self.counters.get(key, 0), number)

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
        waiting = self.waiting.by_series[kind][key]  # it has its place in the order now
        if weight == 1:
            waiting.extend(repeat(value, times))
            self.waiting.count += times
        else:
            distribution = self._distribution(kind, key)
            for _ in range(times):
                distribution.add(value, weight)

    def member(self, key: str, member: str) -> bool:
        """Add a member to a set; return whether it is in it, and not refused because the set is full."""
        members = self.uniques.setdefault(key, set())
        member = bounded_member(member)
        if len(members) < self._members:
            members.add(member)
            return True
        return member in members

    def make_room(self) -> None:
        """After a batch: see to it that not too many numbers wait."""
        # To add one number of a series costs nearly what it costs to add many. Samples cost most, so they wait longer.
        room = _BUFFERED + _BUFFERED_A_SERIES * self.waiting.series
        if self.waiting.count > room:
            self.settle()
            if self.waiting.count > room * 3 // 4:
                self._fold()

    def settle(self) -> None:
        """Add what waits for counters and gauges."""
        waiting = self.waiting
        for key, numbers in waiting.taken(waiting.by_series["counter"]):
            self._count(key, numbers)
        for key, numbers in waiting.taken(waiting.by_series["gauge"]):
            self.gauges[key] = GaugeChange(float(numbers[-1]))

    def _fold(self) -> None:
        """Add the samples that wait."""
        for kind in _DISTRIBUTIONS:
            for key, numbers in self.waiting.taken(self.waiting.by_series[kind]):
                self._distribution(kind, key).extend(list(map(float, numbers)))

    def aggregates(self) -> Aggregates:
        """Return everything. Nothing may be added any more."""
        self.settle()
        self._fold()
        aggregates = Aggregates()
        aggregates.counters = self.counters
        aggregates.gauges = self.gauges
        for kind in _DISTRIBUTIONS:
            aggregates[kind].update(
                (key, self._distribution(kind, key).freeze()) for key in self.waiting.by_series[kind]
            )
        aggregates.uniques = {key: frozenset(members) for key, members in self.uniques.items()}
        return aggregates

    def _count(self, key: str, numbers: list[float]) -> None:
        before, added = self.counters.get(key, 0), sum(numbers)
        if isinstance(before, int) and isinstance(added, int):
            self.counters[key] = total(before, added)
        else:
            self.fractional = True
            self.counters[key] = reduce(total, map(amount, map(float, numbers)), before)

    def _distribution(self, kind: Kind, key: str) -> Distribution:
        found = self._distributions.get((kind, key))
        if found is None:
            found = self._distributions[kind, key] = Distribution(limit=self._exact)
        return found
