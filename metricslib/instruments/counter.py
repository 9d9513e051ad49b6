"""A counter: the number of events in an interval, and their rate per second."""

import sys
from collections.abc import Sequence

from .._accelerate import replaced_by
from ..attempt import attempt
from ..sketch import added
from .base import FULL, Instrument, all_finite, plain

__all__ = ["Counter"]


def _added(total: float, numbers: Sequence[float]) -> float | None:
    """Return ``total`` plus all of ``numbers``, added one by one, or None if the sum is not finite."""
    sum_ = attempt(added, numbers, total)  # None: an int too large for a float
    return sum_ if sum_ is not None and abs(sum_) <= sys.float_info.max else None


class Counter(Instrument):
    """Counts events. The value of an interval is the sum of its increments; an idle counter is 0.

    Get one with :func:`metricslib.counter`. Graphite receives the sum and the rate per second.
    """

    kind = "counter"
    __slots__ = ()

    @replaced_by("count")
    def inc(self, n: float = 1) -> None:
        """Add ``n`` to the counter.

        Safe in any thread, signal handler, greenlet or forked child. Never raises for a bad value and never waits.

        Args:
            n: The number of events, an int or a float. May be negative. A value that is not a finite number is skipped
                and counted, cause ``bad_value``.
        """
        pending = self._pending
        pending.append(n)
        if len(pending) > FULL:
            self._fold()

    def _absorbed(self, state: float | None, batch: list[float]) -> tuple[float, int]:
        before = state or 0
        if plain(batch) and (total := _added(before, batch)) is not None:
            return total, 0
        numbers, bad = all_finite(batch)
        for number in numbers:
            total = _added(before, (number,))
            if total is None:  # finite numbers with an infinite sum
                bad += 1
            else:
                before = total
        return before, bad

    def _aggregate(self, state: float) -> float | None:
        return state or None
