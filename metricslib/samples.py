"""What a distribution stores: every sample while they are few, a log-linear sketch once they are many.

In: samples with weights, one at a time or in batches, or another distribution's. Out: what every tick asks of them. The
rest of the reading side is :mod:`~.distribution`. Sums run in the order in which samples came, or, while they are kept,
over the sorted samples, smallest first. Where all of these have one weight, it is multiplied into the sums last, and
means and the deviation are those of the samples without it, as in statsd: a weight such as 1/0.3 would round each
product, and a mean might lie beyond the largest sample. The C implementation in ``native/samples.c`` does the same
operations in the same order.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate, repeat
from operator import add, index, mul
from typing import TYPE_CHECKING, Self

from .added import added
from .buckets import bucket, bucket_counts, bucket_middle, bucket_power
from .twins import load

__all__ = ["EXACT", "Samples", "SamplesInPython"]

Row = tuple[float, float, float, float, float]
"""Weight, boundary, sum, sum of squares and mean of a share of the samples."""

EXACT = 256
"""How many samples a distribution keeps as they are before it becomes a sketch."""
_MOST = 2**31 - 1
"""What a larger limit is taken for."""


def _numbers(values: Iterable[float]) -> list[float]:
    """Return ``values`` as floats. Raises TypeError for what is no number: text, even if it would read as one."""
    return array("d", list(values)).tolist()


def _checked(values: Iterable[float]) -> list[float]:
    """As :func:`_numbers`. Raises ValueError for what is not finite."""
    numbers = _numbers(values)
    if not math.isfinite(sum(numbers)) and not all(map(math.isfinite, numbers)):
        raise ValueError("a sample must be a finite number")
    return numbers


def _checked_limit(limit: int) -> int:
    if index(limit) < 0:
        raise ValueError("a limit must be at least 0")
    return min(index(limit), _MOST)


class Samples:
    """Weighted samples as they are stored.

    One owner writes; once it has called :meth:`freeze`, anybody reads. A value that is not finite raises ValueError, as
    does a weight that is not finite and greater than 0; then nothing was added.
    """

    __slots__ = ("_buckets", "_samples", "_unit", "_weights", "count", "limit", "max", "min", "sum", "sum_squares")

    def __init__(self, values: Iterable[float] = (), *, limit: int = EXACT) -> None:
        samples = _checked(values)
        self.limit = _checked_limit(limit)
        self.count: float = 0
        self.sum: float = 0.0
        self.sum_squares: float = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._samples: list[float] = []
        self._weights: list[float] | None = None  # None: all 1
        self._buckets: dict[int, float] | None = None  # None: exact
        # The weight that all samples of a sketch share; 0: they differ; None: no sample yet.
        self._unit: float | None = None
        self._extend(samples)

    def __bool__(self) -> bool:
        return bool(self._samples) or self._buckets is not None

    @property
    def exact(self) -> bool:
        """Whether every sample is still kept as it was."""
        return self._buckets is None

    # -- writing

    def add(self, value: float, weight: float = 1) -> None:
        """Add one sample that stands for ``weight`` equal ones."""
        (value,) = _checked((value,))
        (weight,) = _numbers((weight,))
        if not 0 < weight < math.inf:
            raise ValueError("a weight must be a finite number greater than 0")
        self._add(value, 1 if weight == 1 else weight)

    def _add(self, value: float, weight: float) -> None:
        if self._buckets is not None:
            self._sketch_weighted((value,), (weight,))
            return
        self._samples.append(value)
        if self._weights is not None:
            self._weights.append(weight)
        elif weight != 1:
            self._weights = [1] * (len(self._samples) - 1) + [weight]
        if len(self._samples) > self.limit:
            self._become_sketch()

    def extend(self, values: Sequence[float]) -> None:
        """Add many samples of weight 1."""
        self._extend(_checked(values))

    def _extend(self, values: Sequence[float]) -> None:
        if self._buckets is None:
            self._samples.extend(values)
            if self._weights is not None:
                self._weights.extend(repeat(1, len(values)))
            if len(self._samples) > self.limit:
                self._become_sketch()
        elif values:
            self._sketch(values)

    @classmethod
    def extended(cls, distribution: Self | None, values: Sequence[float], limit: int) -> Self | None:
        """Return ``distribution``, which stays as it is, with samples of weight 1 added; None if there is no sample."""
        if distribution is not None and not isinstance(distribution, SamplesInPython):
            raise TypeError(f"not a distribution: {distribution!r}")
        samples = _checked(values)
        new = cls(limit=limit)
        if not samples:
            return distribution
        if distribution is not None:
            for name in SamplesInPython.__slots__:
                value = getattr(distribution, name)
                setattr(new, name, value.copy() if isinstance(value, list | dict) else value)
        new._extend(samples)
        return new

    def merge(self, other: "Samples") -> None:
        """Add all of ``other``, which stays as it is. The result is exact only if both are and the samples fit."""
        if not isinstance(other, SamplesInPython | Samples):
            raise TypeError(f"not a distribution: {other!r}")
        if other._buckets is None:
            samples, weights = [*other._samples], other._weights  # a copy, for it may be this very object
            if weights is None:
                self._extend(samples)
            else:
                for value, weight in zip(samples, [*weights], strict=True):
                    self._add(value, weight)
            return
        mine = self._become_sketch()
        for key, weight in other._buckets.items():
            mine[key] = mine.get(key, 0) + weight
        self.count += other.count
        self.sum += other.sum
        self.sum_squares += other.sum_squares
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        if other._unit is not None:  # None: no sample, only adjusted sums
            self._unit = other._unit if self._unit in (None, other._unit) else 0

    def adjust(self, sum: float, sum_squares: float) -> None:
        """Add to the sums what samples lack that stand for a bucket. There is a sketch from then on."""
        sum, sum_squares = _checked((sum, sum_squares))
        self._become_sketch()
        self.sum += sum
        self.sum_squares += sum_squares

    def freeze(self) -> Self:
        """Make the numbers readable and return the distribution; nothing may be added from now on."""
        if self._buckets is None and self._samples:
            if self._weights is None:
                self._samples.sort()
                self.count = len(self._samples)
                self.sum = reduce(add, self._samples)
                self.sum_squares = reduce(add, map(mul, self._samples, self._samples))
            else:
                pairs = sorted(zip(self._samples, self._weights, strict=True))
                self._samples = [value for value, _ in pairs]
                self._weights = [weight for _, weight in pairs]
                self.count = reduce(add, self._weights)
                unit = self._common_weight()
                weights = repeat(1) if unit else self._weights
                self.sum = reduce(add, map(mul, self._samples, weights)) * (unit or 1)
                squares = map(mul, map(mul, self._samples, self._samples), weights)
                self.sum_squares = reduce(add, squares) * (unit or 1)
            self.min = self._samples[0]
            self.max = self._samples[-1]
        return self

    def _become_sketch(self) -> dict[int, float]:
        if self._buckets is None:
            samples, weights = self._samples, self._weights
            self._samples, self._weights, self._buckets = [], None, {}
            self.count, self.sum, self.sum_squares = 0, 0.0, 0.0
            if weights is not None:
                self._sketch_weighted(samples, weights)
            elif samples:
                self._sketch(samples)
        return self._buckets

    def _sketch(self, values: Sequence[float]) -> None:
        buckets = self._become_sketch()
        for key, count in bucket_counts(values):
            buckets[key] = buckets.get(key, 0) + count
        self.count += len(values)
        self.sum = added(values, self.sum)
        self.sum_squares = added(map(mul, values, values), self.sum_squares)
        self.min = min(self.min, min(values))
        self.max = max(self.max, max(values))
        self._unit = 1 if self._unit in (None, 1) else 0

    def _sketch_weighted(self, values: Sequence[float], weights: Sequence[float]) -> None:
        buckets = self._become_sketch()
        for value, weight in zip(values, weights, strict=True):
            key = bucket(value)
            buckets[key] = buckets.get(key, 0) + weight
            self.count += weight
            self.sum += value * weight
            self.sum_squares += value * value * weight
            self.min = min(self.min, value)
            self.max = max(self.max, value)
            self._unit = weight if self._unit in (None, weight) else 0

    # -- reading, once frozen

    def powers(self) -> dict[int, float]:
        """Return the weight of the samples in (2ᵖ⁻¹, 2ᵖ] by p; -40 takes all that is less, 40 all that is more."""
        powers: dict[int, float] = {}
        if self._buckets is not None:
            keyed: Iterable[tuple[int, float]] = sorted(self._buckets.items())
        else:
            keyed = zip(map(bucket, self._samples), self._weights or repeat(1), strict=False)
        for key, weight in keyed:
            power = bucket_power(key)
            powers[power] = powers.get(power, 0) + weight
        return powers

    def _sorted(self) -> tuple[Sequence[float], Sequence[float]]:
        """Values, smallest first, and their weights; when sketched, middles of buckets."""
        if self._buckets is None:
            return self._samples, self._weights or [1] * len(self._samples)
        keys = sorted(self._buckets)
        values = [min(max(bucket_middle(key), self.min), self.max) for key in keys]
        return values, [self._buckets[key] for key in keys]

    def _common_weight(self) -> float:
        """The weight that all samples share, or 0."""
        if not self.exact:
            return self._unit or 0
        weights = self._weights
        if weights is None:
            return 1
        return weights[0] if len(set(weights)) == 1 else 0

    def _ranked(self) -> tuple[Sequence[float], Sequence[float], float]:
        """Values, smallest first, how many samples each stands for, and what one sample weighs.

        Whole numbers where all weigh the same, for sums of weights like 1/0.3 miss the ranks by a rounding error.
        """
        values, weights = self._sorted()
        unit = self._common_weight() or 1
        return values, weights if unit == 1 else [round(weight / unit) for weight in weights], unit

    @property
    def mean(self) -> float:
        """The arithmetic mean; NaN when empty."""
        if not self.count:
            return math.nan
        if self.exact and self._common_weight():
            return reduce(add, self._samples) / len(self._samples)
        return self._between(self.sum / self.count, self.min, self.max)

    @staticmethod
    def _between(mean: float, least: float, most: float) -> float:
        """A mean of weighted samples, or of middles of buckets, is rounded often; it may not leave their range."""
        return min(max(mean, least), most)

    @property
    def std(self) -> float:
        """The population's standard deviation; from the differences while exact, from the sums when sketched."""
        if not self.count:
            return math.nan
        mean = self.mean
        if not self.exact:
            return math.sqrt(max(0.0, self.sum_squares / self.count - mean * mean))
        squares = [(value - mean) * (value - mean) for value in self._samples]
        if self._weights is None or self._common_weight():
            return math.sqrt(reduce(add, squares) / len(squares))
        return math.sqrt(reduce(add, map(mul, squares, self._weights)) / self.count)

    @property
    def median(self) -> float:
        """The middle sample, or the mean of the middle two; NaN when empty."""
        values, numbers, _ = self._ranked()
        if not values:
            return math.nan
        reached = list(accumulate(numbers))
        half = reached[-1] / 2
        middle = bisect_left(reached, half)
        if reached[middle] == half:
            return (values[middle] + values[middle + 1]) / 2
        return values[middle]

    def _shares(self, percents: Sequence[float]) -> list[Row | None]:
        """Return what :meth:`~.distribution.Readable.shares` does, as plain tuples."""
        percents = _numbers(percents)
        if not self.count or not percents:
            return [None] * len(percents)
        values, numbers, unit = self._ranked()
        plain = self.exact and self._common_weight()
        reached = list(accumulate(numbers))
        sums = list(accumulate(map(mul, values, numbers)))
        squares = list(accumulate([value * value * number for value, number in zip(values, numbers, strict=True)]))
        whole = reached[-1]

        def smallest(lines: float) -> tuple[float, float]:
            """Sum and sum of squares over the smallest ``lines`` samples; the last value may count in part."""
            last = bisect_left(reached, lines)
            over = reached[last] - lines
            return sums[last] - over * values[last], squares[last] - over * values[last] * values[last]

        def share(percent: float) -> Row | None:
            lines = math.floor(abs(percent) / 100 * whole + 0.5) if whole != 1 else 1
            if lines == 0:
                return None
            if lines >= whole:
                boundary = self.max if percent > 0 else self.min
                return self.count, boundary, self.sum, self.sum_squares, self.mean
            if percent > 0:
                least, boundary = self.min, values[bisect_left(reached, lines)]
                most, (part, part_squares) = boundary, smallest(lines)
            else:
                rest = whole - lines
                least = boundary = values[min(bisect_left(reached, rest + 1), len(values) - 1)]
                most, (low, low_squares) = self.max, smallest(rest)
                part, part_squares = sums[-1] - low, squares[-1] - low_squares
            mean = part / lines if plain else self._between(part / lines, least, most)
            return lines * unit, boundary, part * unit, part_squares * unit, mean

        return [share(percent) for percent in percents]


SamplesInPython = Samples
"""Also where the C twin takes its place."""

if not TYPE_CHECKING and (_speedups := load("metricslib._speedups")) is not None:
    Samples = _speedups.Samples
