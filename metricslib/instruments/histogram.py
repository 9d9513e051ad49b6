"""A histogram: the distribution of values in any unit, such as sizes."""

import math

from .._accelerate import replaced_by
from ..attempt import attempt
from ..sketch import Distribution
from .base import FULL, Instrument, all_finite, plain

__all__ = ["Histogram"]


class Histogram(Instrument):
    """Measures the distribution of values in any unit. An idle histogram has a count of 0.

    Get one with :func:`metricslib.histogram`. Percentiles and accuracy are those of a :class:`~metricslib.Timer`.
    """

    kind = "histogram"
    __slots__ = ()

    @replaced_by("observe_value")
    def observe(self, value: float) -> None:
        """Add a value.

        Safe in any thread, signal handler, greenlet or forked child. Never raises for a bad value and never waits.

        Args:
            value: An int or a float, in any unit. May be negative. A value that is not a finite number is skipped and
                counted, cause ``bad_value``.
        """
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    def _absorbed(self, state: Distribution | None, batch: list[float]) -> tuple[Distribution | None, int]:
        bad = 0
        # None: an int is too large for a float.
        values: list[float] | None = attempt(list, map(float, batch)) if plain(batch) else None
        if not (values and math.isfinite(sum(values))):
            numbers, bad = all_finite(batch)
            values = [float(number) for number in numbers]
        return Distribution.extended(state, values, self._owner.exact), bad

    def _aggregate(self, state: Distribution) -> Distribution:
        return state.freeze()
