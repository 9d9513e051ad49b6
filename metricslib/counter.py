"""A counter: how many, and so how many a second."""

import sys
from collections.abc import Sequence
from functools import reduce
from operator import add

from .instrument import FULL, Instrument, finite, plain

__all__ = ["Counter"]


def _added(total: float, numbers: Sequence[float]) -> float | None:
    """Return ``total`` and all of ``numbers``, added one after the other; None where that is not finite."""
    try:
        total = reduce(add, numbers, total)
    except OverflowError:  # an int too large for a float
        return None
    return total if abs(total) <= sys.float_info.max else None


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
        total = _added(self._total, batch) if plain(batch) else None
        if total is None:
            numbers, bad = finite(batch)
            total = _added(self._total, numbers)
            if total is None:  # finite numbers whose sum is not
                return len(batch)
        self._total = total
        return bad

    def _take(self) -> float | None:
        total, self._total = self._total, 0
        return total or None
