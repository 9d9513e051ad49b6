"""A counter: how many, and so how many a second."""

import math
from functools import reduce
from operator import add

from .instrument import FULL, Instrument, finite, plain

__all__ = ["Counter"]


class Counter(Instrument):
    """Adds up numbers over an interval. An idle counter is 0."""

    kind = "counter"
    __slots__ = ("_total",)

    def inc(self, n: float = 1) -> None:
        """Add ``n``, an int or a float, also negative. What is no finite number is counted as bad and skipped."""
        pending = self._pending
        pending.append(n)
        if len(pending) > FULL:
            self._fold()

    def _clear(self) -> None:
        self._total: float = 0

    def _absorb(self, batch: list[float]) -> int:
        bad = 0
        try:
            total = reduce(add, batch, self._total)
        except Exception:  # something that cannot be added
            total = math.nan
        if not plain(total):
            numbers, bad = finite(batch)
            total = reduce(add, numbers, self._total)
            if not plain(total):  # finite numbers whose sum is not
                return len(batch)
        self._total = total
        return bad

    def _take(self) -> float | None:
        total, self._total = self._total, 0
        return total or None
