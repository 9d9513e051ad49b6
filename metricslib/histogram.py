"""A histogram: how large things were, in any unit."""

import math
from array import array

from .distribution import Distribution
from .instrument import FULL, Instrument, finite, plain

__all__ = ["Histogram"]


class Histogram(Instrument):
    """The distribution of values over an interval. An idle histogram has count 0 and no percentile."""

    kind = "histogram"
    __slots__ = ("_distribution",)

    def observe(self, value: float) -> None:
        """Add a value, also a negative one. What is no finite number is counted as bad and skipped."""
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    def _clear(self) -> None:
        self._distribution: Distribution | None = None

    def _absorb(self, batch: list[float]) -> int:
        bad = 0
        try:
            values = array("d", batch).tolist() if plain(batch) else []
        except OverflowError:  # an int too large for a float
            values = []
        if not (values and math.isfinite(sum(values))):
            numbers, bad = finite(batch)
            values = [float(number) for number in numbers]
        if values:
            if self._distribution is None:
                self._distribution = Distribution(limit=self._home.exact)
            self._distribution.extend(values)
        return bad

    def _take(self) -> Distribution | None:
        taken, self._distribution = self._distribution, None
        return taken and taken.freeze()
