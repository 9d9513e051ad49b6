"""Aggregates the lines of one listener, in Python. This is the specification.

In: batches of datagrams, or blocks of complete lines from a stream. Out: :class:`~metricslib.window.Aggregates`, and
counts of the input. Lines are parsed and aggregated one by one, in order. For the same bytes, the C implementation
(:mod:`~.aggregator_c`) returns the same aggregates and counts, to the last bit. If it was built, it replaces the class
here, because it is faster.

Each ``value|type`` of a line is one sample, which is either aggregated, bad, or dropped with a cause. So
``received = aggregated + bad + dropped`` holds whenever the lock is free.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metricslib._accelerate import load
from metricslib.budget import Share, member_cost
from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.instruments.unique import MEMBERS, bounded_member
from metricslib.series import Kind
from metricslib.sketch import Distribution
from metricslib.window import Aggregates, GaugeChange, total

from .parser import Sample, parse
from .raw_keys import Keys, SourceRegistry
from .stats import BadLine, BadLines, Counts

__all__ = ["Aggregator", "PythonAggregator"]

_WHOLE = 2.0**53
"""Every integer up to this number can be represented exactly as a float."""


def _amount(number: float) -> float:
    """Return an integral number as an int, because ints add up exactly, in any order."""
    return int(number) if number.is_integer() and -_WHOLE < number < _WHOLE else number


class _Interval:
    """The aggregates of the open interval. Distributions keep ``exact`` samples before they become sketches, a set
    keeps at most ``members``, and all sets share ``room``.
    """

    def __init__(self, exact: int, members: int, room: Share) -> None:
        self._exact = exact
        self._members = members
        self._room = room
        self._size = 0
        self._counters: dict[str, float] = {}
        self._gauges: dict[str, GaugeChange] = {}
        self._distributions: dict[Kind, dict[str, Distribution]] = {"timer": {}, "histogram": {}}
        self._uniques: dict[str, set[str]] = {}

    def add(self, key: str, sample: Sample) -> bool:
        """Add one sample to the series ``key``. Return False if it is a new member of a full set."""
        kind, value, weight, relative, member, sum, sum_squares = sample
        if kind == "counter":
            self._counters[key] = total(self._counters.get(key, 0), _amount(value * weight))
        elif kind == "gauge":
            self._gauges[key] = self._changed(key, value) if relative else GaugeChange(value)
        elif kind == "unique":
            return self._add_member(key, bounded_member(member))
        else:
            distributions = self._distributions[kind]
            if key not in distributions:
                distributions[key] = Distribution(limit=self._exact)
            distributions[key].add(value, weight)
            if sum or sum_squares:
                distributions[key].adjust(sum, sum_squares)
        return True

    def _changed(self, key: str, delta: float) -> GaugeChange:
        before = self._gauges.get(key, GaugeChange(None))
        if before.base is None:
            return before.then(GaugeChange(None, delta))
        return GaugeChange(total(before.base, delta))  # the value is known: deltas are added one by one, as in statsd

    def _add_member(self, key: str, member: str) -> bool:
        members = self._uniques.setdefault(key, set())
        if member in members:
            return True
        size = member_cost(len(member.encode("utf-8", "surrogatepass")))
        if len(members) >= self._members or not self._room.fits(size):
            return False
        members.add(member)
        self._size += size
        self._room.add(size)
        return True

    def aggregates(self) -> Aggregates:
        """Return the aggregates. Nothing may be added afterwards."""
        aggregates = Aggregates()
        aggregates.counters = self._counters
        aggregates.gauges = self._gauges
        for kind, distributions in self._distributions.items():
            aggregates[kind].update((key, distribution.freeze()) for key, distribution in distributions.items())
        aggregates.uniques = {key: frozenset(members) for key, members in self._uniques.items()}
        self._room.add(-self._size)
        return aggregates


class PythonAggregator:
    """A source of ``registry``, fed by one listener. Feeding, collecting and reading the counts exclude each other.

    In an interval, a set keeps at most ``members`` members, and all sets together keep as many as the registry's budget
    allows. Further members are dropped and counted, cause ``unique_full``. At most ``keys`` raw keys of each kind are
    cached, in at most ``key_bytes`` bytes (by default from the budget). The cache should have room for more keys than
    there are live series.
    """

    def __init__(
        self,
        registry: SourceRegistry,
        *,
        clock: Clock = SYSTEM_CLOCK,
        members: int = MEMBERS,
        keys: int = 1 << 20,
        key_bytes: int | None = None,
    ) -> None:
        budget = registry.budget
        self._keys = Keys(registry, keys, budget.raw_keys.allowed if key_bytes is None else key_bytes)
        budget.watch_raw_keys(self)
        self._bounds = registry.exact, members, budget.members
        self._interval = _Interval(*self._bounds)
        self._collecting = threading.Lock()
        self._unfinished: _Interval | None = None
        self._lock = threading.Lock()
        self._clock = clock
        self._seen = 0.0
        self._bad_lines = BadLines(clock)
        self._packets = self._lines = self._aggregated = self._bad = 0
        self._dropped: Counter[str] = Counter()
        self._collected = Counts()

    # -- for the listener

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Aggregate datagrams or blocks of complete lines. Never raises for them; invalid UTF-8 is replaced."""
        with self._lock:
            self._keys.sweep()
            self._keys.start_batch()
            self._packets += len(chunks)
            self._seen = self._clock.time()
            for chunk in chunks:
                for line in chunk.decode("utf-8", "replace").split("\n"):
                    self._take(line)
        self._bad_lines.report()

    def drop(self, cause: str, count: int = 1) -> None:
        """Count samples that the listener had to drop."""
        with self._lock:
            self._dropped[cause] += count

    def flush(self) -> None:
        """Do nothing, because everything that was fed is in the next collection."""

    # -- for the registry

    def collect(self) -> Aggregates:
        """Return the aggregates since the last call. After a MemoryError, the next call returns them."""
        with self._collecting:
            if self._unfinished is None:
                with self._lock:
                    fresh, counts = _Interval(*self._bounds), self._counts()
                    self._unfinished, self._interval, self._collected = self._interval, fresh, counts
            aggregates = self._unfinished.aggregates()
            self._unfinished = None
        return aggregates

    def forget(self, kind: Kind, key: str) -> None:
        """Forget an expired series, so that the registry is asked again when it returns."""
        with self._lock:
            self._keys.forget(kind, key)

    # -- for the page

    def counts(self) -> Counts:
        """Return the counts since the start."""
        with self._lock:
            return self._counts()

    def collected(self) -> Counts:
        """Return the counts at the last collection, of exactly the samples that have been collected."""
        return self._collected

    @property
    def key_bytes(self) -> int:
        """Bytes of the cached raw keys."""
        return self._keys.used

    def bad_lines(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return self._bad_lines.recent()

    def _counts(self) -> Counts:
        dropped = dict(self._dropped)
        received = self._aggregated + self._bad + sum(dropped.values())
        return Counts(self._packets, self._lines, received, self._aggregated, self._bad, dropped, self._seen)

    # -- one line; the lock is held

    def _take(self, line: str) -> None:
        parsed = parse(line)
        self._lines += parsed.received > 0
        if parsed.skipped:
            self._dropped[parsed.skipped] += 1
        if parsed.bad:
            self._bad += len(parsed.bad)
            self._bad_lines.add(line, parsed.bad[0], len(parsed.bad))
        for sample in parsed.samples:
            key, refusal = self._keys.find(sample.kind, parsed.key)
            if key is None:
                self._dropped[refusal] += 1
            elif self._interval.add(key, sample):
                self._aggregated += 1
            else:
                self._dropped["unique_full"] += 1


if TYPE_CHECKING or load("forwarder._aggregator") is None:
    Aggregator = PythonAggregator
else:
    from .aggregator_c import CAggregator as Aggregator
