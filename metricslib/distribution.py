"""What a timer or histogram holds: every sample while they are few, a log-linear sketch once they are many.

In: samples with weights, one at a time or in batches, or another distribution. Out: percentiles, sums over the smallest
or largest share of the samples, counts per bucket. Count, sum, sum of squares, minimum and maximum are always exact.

How samples are stored is :mod:`~.samples`, and what the sketch's buckets are :mod:`~.buckets`. Adding two sketches
bucket by bucket loses nothing, in any order.

A distribution is written by one owner, then frozen, and from then on read by anybody. One that was written down and
read again after a restart is read like any other (:class:`Restored`).
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .samples import EXACT, Samples, SamplesInPython

__all__ = ["EXACT", "NO_SAMPLES", "Distribution", "Readable", "Restored", "Share", "merged"]


class Share(NamedTuple):
    """The smallest (or, for negative percents, largest) so many percent of the samples."""

    weight: float
    """How many samples the share has."""
    boundary: float
    """The largest sample of the share; the smallest for negative percents."""
    sum: float
    sum_squares: float
    mean: float


if TYPE_CHECKING:
    _Stored = Samples
else:
    _Stored = object


class Readable(_Stored):
    """What stored samples say once they are frozen, whichever twin stores them."""

    __slots__ = ()

    def __repr__(self) -> str:
        kept = f"{len(self._samples)} samples" if self.exact else f"sketch of {len(self._buckets or ())} buckets"
        return f"<Distribution {kept}, count {self.count:g}>"

    def percentile(self, percent: float) -> float:
        """Return the boundary of the smallest ``percent`` percent of the samples; NaN when there is none."""
        (share,) = self.shares((percent,))
        return math.nan if share is None else share.boundary

    def shares(self, percents: Sequence[float]) -> list[Share | None]:
        """Return, for each percent, the smallest so many percent of the samples, or the largest for a negative percent.

        The share of n samples has ``floor(|percent| / 100 · n + 0.5)`` of them, as in statsd; it is None when that is
        none. A single sample is in every share. Where all samples weigh the same, n is their number, otherwise the sum
        of the weights.
        """
        return [row and Share(*row) for row in self._shares(percents)]

    def below(self, bound: float) -> float:
        """Return the weight of all samples less than ``bound`` (within a bucket's width of it when sketched)."""
        values, weights = self._sorted()
        return sum(weights[: bisect_left(values, bound)])

    def entries(self) -> Iterator[tuple[float, float]]:
        """Yield values and weights, in order, that give the same buckets, minimum and maximum when added elsewhere."""
        values, weights = self._sorted()
        if self.exact:
            yield from zip(values, weights, strict=True)
            return
        unit, last = self._common_weight(), len(values) - 1
        for index, (value, weight) in enumerate(zip(values, weights, strict=True)):
            least = [self.min] * (index == 0)
            most = [self.max] * (index == last and not (least and self.min == self.max))
            if unit == 1:  # each extreme stands for itself, so that the others keep to the middle
                yield from ((extreme, 1) for extreme in least)
                if weight > len(least) + len(most):
                    yield value, weight - len(least) - len(most)
                yield from ((extreme, 1) for extreme in most)
            elif least and most:
                part = unit or weight // 2 or weight / 2
                yield self.min, part
                yield self.max, weight - part
            else:
                yield (*least, *most, value)[0], weight

    def parts(self) -> dict[str, Any]:
        """Return all that is stored, by name: ``limit``, and either ``samples`` and ``weights`` (None: all 1), or what
        :class:`Restored` takes.
        """
        if self.exact:
            return {"limit": self.limit, "samples": self._samples, "weights": self._weights}
        names = ("limit", "count", "sum", "sum_squares", "min", "max")
        return {**{name: getattr(self, name) for name in names}, "unit": self._unit, "buckets": self._buckets}


class Distribution(Readable, Samples):
    """Weighted samples, kept exactly up to ``limit`` of them and as a sketch beyond.

    ``count`` is the sum of the weights; it and ``sum``, ``sum_squares``, ``min`` and ``max`` may be read once the
    distribution is frozen. Sums run over the sorted samples, smallest first, while they are kept. A value that
    is not finite raises ValueError, as does a weight that is not finite and greater than 0.
    """

    __slots__ = ()


if TYPE_CHECKING:
    _InPython = Distribution
else:

    class _InPython(Readable, SamplesInPython):
        __slots__ = ()


class Restored(_InPython):
    """A sketch as it once was, put together from its parts instead of from samples.

    Stored in Python beside either twin. It takes in distributions of both; the other way round there is :func:`merged`.
    """

    __slots__ = ()

    def __init__(
        self,
        buckets: Mapping[int, float] | None = None,
        *,
        limit: int,
        count: float = 0,
        sum: float = 0.0,
        sum_squares: float = 0.0,
        min: float = math.inf,
        max: float = -math.inf,
        unit: float | None = None,
    ) -> None:
        """``unit`` is what every sample weighs, 0 where they differ; without ``buckets`` there is no sample yet."""
        super().__init__(limit=limit)
        if buckets is not None:
            self._buckets, self._unit = dict(buckets), unit
            self.count, self.sum, self.sum_squares, self.min, self.max = count, sum, sum_squares, min, max


def merged(one: Distribution, other: Distribution) -> Distribution:
    """Return both in a new, frozen distribution; they stay as they are."""
    restored = isinstance(one, Restored) or isinstance(other, Restored)
    both = (Restored if restored else Distribution)(limit=max(one.limit, other.limit))
    both.merge(one)
    both.merge(other)
    return both.freeze()


NO_SAMPLES = Distribution().freeze()
"""What an idle timer had in an interval."""
