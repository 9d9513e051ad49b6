"""The most frequent of any number of things, in bounded memory: the space-saving algorithm.

Ahmed Metwally, Divyakant Agrawal and Amr El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data
Streams. Proceedings of the 10th International Conference on Database Theory (ICDT), 2005, pages 398-412.

There are m counters. Who has one is counted in it. Who has none, while all are taken, gets that of the rarest: the
count goes on from where it was, and what was there before is the error. So of N in all, with m counters:

* whoever came more often than N/m has a counter;
* a count is never too low, and too high by its error at most, which is at most N/m;
* the counts add up to N.

The rarest is found in a heap of counts as they were when they were put there. Since counts only grow, the top of the
heap is the rarest as soon as it is up to date; an entry that is not is put back with its count. Each such repair
follows an increment, so adding costs O(log m) on average.
"""

from heapq import heappush, heapreplace
from typing import NamedTuple

__all__ = ["Counted", "SpaceSaving"]


class Counted(NamedTuple):
    """How often something came: at most ``estimate`` times, and at least ``estimate - error`` times."""

    key: str
    estimate: int
    error: int


class SpaceSaving:
    """Counts texts in ``capacity`` counters. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}  # only those above 0
        self._heap: list[tuple[int, str]] = []
        self.total = 0
        """How many were counted."""

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: str, times: int = 1) -> None:
        """Count ``key``, once or several times."""
        counts = self._counts
        self.total += times
        if key in counts:
            counts[key] += times
        elif len(counts) < self._capacity:
            counts[key] = times
            heappush(self._heap, (times, key))
        else:
            error, rarest = self._rarest()
            del counts[rarest]
            self._errors.pop(rarest, None)
            counts[key] = error + times
            self._errors[key] = error
            heapreplace(self._heap, (error + times, key))

    def top(self) -> list[Counted]:
        """Return all that have a counter, the most frequent first."""
        counted = [Counted(key, count, self._errors.get(key, 0)) for key, count in self._counts.items()]
        return sorted(counted, key=lambda entry: (-entry.estimate, entry.key))

    def _rarest(self) -> tuple[int, str]:
        """Bring the top of the heap up to date and return it."""
        while True:
            count, key = self._heap[0]
            now = self._counts[key]
            if count == now:
                return count, key
            heapreplace(self._heap, (now, key))
