"""What a timer or histogram holds: every sample while they are few, a log-linear sketch once they are many.

In: samples with weights, one at a time or in batches, or another distribution. Out: percentiles, sums over the smallest
or largest share of the samples, counts per bucket. Count, sum, sum of squares, minimum and maximum are always exact.

The sketch divides every power of two into 64 equal buckets, so a bucket is at most 1/64 as wide as its lower bound, and
its middle lies within 1/128 (0.8 %) of every sample in it. No logarithm is taken: exponent and top bits of the double
are the index. Buckets are ``(lower, upper]``, so counts up to a power of two are exact too, which is what Prometheus'
histograms ask. Adding two sketches bucket by bucket loses nothing, in any order. For the buckets only, magnitudes are
clamped to 2⁻⁴⁰ … 2⁴⁰; zero has a bucket of its own, and negative numbers mirror the positive ones.

A distribution is written by one owner, then frozen, and from then on read by anybody.
"""

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate, repeat
from operator import add, mul, rshift
from typing import NamedTuple

__all__ = ["EXACT", "NO_SAMPLES", "Distribution", "Share", "bucket", "bucket_middle", "bucket_power", "bucket_upper"]

EXACT = 256
"""How many samples a distribution keeps as they are before it becomes a sketch."""

_SUB_BUCKETS = 64
_MIN_POWER = -40
_MAX_POWER = 40
_MAX_KEY = (_MAX_POWER - _MIN_POWER) * _SUB_BUCKETS + 1
_MIN_POSITIVE = 2.0**_MIN_POWER
_MAX_POSITIVE = 2.0**_MAX_POWER
_BITS_SHIFT = 52 - 6  # what remains of a double's 64 bits: sign, exponent and the top six bits of the mantissa
_BITS_OFFSET = (1023 + _MIN_POWER) * _SUB_BUCKETS - 2  # makes the key of 2**-40, counted from the bits, 1


def bucket(value: float) -> int:
    """Return the key of the bucket that holds ``value``: 0 for zero, 1 to 5121 if positive, mirrored if negative.

    Keys are in the order of their values. This is the specification; :func:`_bucket_counts` does the same for a batch.
    """
    magnitude = abs(value)
    if magnitude <= _MIN_POSITIVE:
        key = 1 if magnitude else 0
    elif magnitude >= _MAX_POSITIVE:
        key = _MAX_KEY
    else:
        mantissa, exponent = math.frexp(magnitude)
        key = (exponent - 1 - _MIN_POWER) * _SUB_BUCKETS + math.ceil(mantissa * 128) - 63
    return -key if value < 0 else key


def bucket_upper(key: int) -> float:
    """Return the bound of bucket ``key`` that is farther from zero; it belongs to the bucket."""
    if key == 0:
        return 0.0
    power, step = divmod(abs(key) - 1, _SUB_BUCKETS)
    return math.copysign(math.ldexp(_SUB_BUCKETS + step, power + _MIN_POWER - 6), key)


def bucket_middle(key: int) -> float:
    """Return the value that stands for every sample in bucket ``key``."""
    if -2 < key < 2:
        return bucket_upper(key)
    return (bucket_upper(key) + bucket_upper(key - 1 if key > 0 else key + 1)) / 2


def bucket_power(key: int) -> int:
    """Return the least ``p`` from -40 to 40 with no sample in bucket ``key`` above 2ᵖ (but for clamped ones)."""
    return _MIN_POWER + max(0, -(-(key - 1) // _SUB_BUCKETS))


def _bucket_counts(values: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Return bucket keys with the number of ``values`` in each; the keys come straight from the bits of the doubles."""
    if min(values) <= 0.0:
        return Counter(map(bucket, values)).items()
    bits = memoryview(array("d", values)).cast("B").cast("q").tolist()
    # One less than the bits makes the bounds inclusive at the top: an exact bound falls to the bucket below.
    raw = Counter(map(rshift, map(add, bits, repeat(-1)), repeat(_BITS_SHIFT)))
    return [(min(max(key - _BITS_OFFSET, 1), _MAX_KEY), count) for key, count in raw.items()]


class Share(NamedTuple):
    """The smallest (or, for negative percents, largest) so many percent of the samples."""

    weight: float
    """How many samples the share has."""
    boundary: float
    """The largest sample of the share; the smallest for negative percents."""
    sum: float
    sum_squares: float

    @property
    def mean(self) -> float:
        return self.sum / self.weight


class Distribution:
    """Weighted samples, kept exactly up to ``limit`` of them and as a sketch beyond.

    ``count`` is the sum of the weights; it and ``sum``, ``sum_squares``, ``min`` and ``max`` may be read once the
    distribution is frozen. Sums run over the sorted samples, smallest first, while they are kept. Values must be finite
    and weights positive: whoever adds has checked them.
    """

    __slots__ = ("_buckets", "_samples", "_unit", "_weights", "count", "limit", "max", "min", "sum", "sum_squares")

    def __init__(self, values: Iterable[float] = (), *, limit: int = EXACT) -> None:
        self.limit = limit
        self.count: float = 0
        self.sum: float = 0.0
        self.sum_squares: float = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._samples: list[float] = []
        self._weights: list[float] | None = None  # None: all 1
        self._buckets: dict[int, float] | None = None  # None: exact
        self._unit: float | None = (
            None  # the weight that all samples of a sketch share; 0: they differ; None: no sample yet
        )
        self.extend(list(values))

    def __bool__(self) -> bool:
        return bool(self._samples) or self._buckets is not None

    def __repr__(self) -> str:
        kept = f"{len(self._samples)} samples" if self.exact else f"sketch of {len(self._buckets or ())} buckets"
        return f"<Distribution {kept}, count {self.count:g}>"

    @property
    def exact(self) -> bool:
        """Whether every sample is still kept as it was."""
        return self._buckets is None

    # -- writing

    def add(self, value: float, weight: float = 1) -> None:
        """Add one sample that stands for ``weight`` equal ones."""
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
        if self._buckets is None:
            self._samples.extend(values)
            if self._weights is not None:
                self._weights.extend(repeat(1, len(values)))
            if len(self._samples) > self.limit:
                self._become_sketch()
        elif values:
            self._sketch(values)

    @classmethod
    def extended(
        cls, distribution: "Distribution | None", values: Sequence[float], limit: int
    ) -> "Distribution | None":
        """Return ``distribution``, which stays as it is, with samples of weight 1 added; None if there is no sample."""
        if not values:
            return distribution
        new = cls(limit=limit)
        if distribution is not None:
            for name in cls.__slots__:
                value = getattr(distribution, name)
                setattr(new, name, value.copy() if isinstance(value, list | dict) else value)
        new.extend(values)
        return new

    def merge(self, other: "Distribution") -> None:
        """Add all of ``other``, which stays as it is. The result is exact only if both are and the samples fit."""
        if other._buckets is None:
            if other._weights is None:
                self.extend(other._samples)
            else:
                for value, weight in zip(other._samples, other._weights, strict=True):
                    self.add(value, weight)
            return
        mine = self._become_sketch()
        for key, weight in other._buckets.items():
            mine[key] = mine.get(key, 0) + weight
        self.count += other.count
        self.sum += other.sum
        self.sum_squares += other.sum_squares
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self._unit = other._unit if self._unit in (None, other._unit) else 0

    def freeze(self) -> "Distribution":
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
                self.sum = reduce(add, map(mul, self._samples, self._weights))
                self.sum_squares = reduce(add, [value * value * weight for value, weight in pairs])
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
        for key, count in _bucket_counts(values):
            buckets[key] = buckets.get(key, 0) + count
        self.count += len(values)
        self.sum = reduce(add, values, self.sum)
        self.sum_squares = reduce(add, map(mul, values, values), self.sum_squares)
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

    @property
    def mean(self) -> float:
        """The arithmetic mean; NaN when empty."""
        return self.sum / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """The population's standard deviation; from the differences while exact, from the sums when sketched."""
        if not self.count:
            return math.nan
        mean = self.mean
        if self._buckets is not None:
            return math.sqrt(max(0.0, self.sum_squares / self.count - mean * mean))
        squares = [(value - mean) * (value - mean) for value in self._samples]
        return math.sqrt(
            reduce(add, squares if self._weights is None else map(mul, squares, self._weights)) / self.count
        )

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
        if not self.count or not percents:
            return [None] * len(percents)
        values, numbers, unit = self._ranked()
        reached = list(accumulate(numbers))
        sums = list(accumulate(map(mul, values, numbers)))
        squares = list(accumulate([value * value * number for value, number in zip(values, numbers, strict=True)]))
        whole = reached[-1]

        def smallest(lines: float) -> tuple[float, float]:
            """Sum and sum of squares over the smallest ``lines`` samples; the last value may count in part."""
            if lines <= 0:
                return 0, 0
            last = min(bisect_left(reached, lines), len(reached) - 1)
            over = max(0, reached[last] - lines)
            return sums[last] - over * values[last], squares[last] - over * values[last] * values[last]

        def share(percent: float) -> Share | None:
            lines = math.floor(abs(percent) / 100 * whole + 0.5) if whole != 1 else 1
            if lines == 0:
                return None
            if lines >= whole:
                return Share(self.count, self.max if percent > 0 else self.min, self.sum, self.sum_squares)
            if percent > 0:
                low_sum, low_squares = smallest(lines)
                return Share(lines * unit, values[bisect_left(reached, lines)], low_sum * unit, low_squares * unit)
            rest = whole - lines
            low_sum, low_squares = smallest(rest)
            boundary = values[min(bisect_left(reached, rest + 1), len(values) - 1)]
            return Share(lines * unit, boundary, (sums[-1] - low_sum) * unit, (squares[-1] - low_squares) * unit)

        return [share(percent) for percent in percents]

    def below(self, bound: float) -> float:
        """Return the weight of all samples less than ``bound`` (within a bucket's width of it when sketched)."""
        values, weights = self._sorted()
        return sum(weights[: bisect_left(values, bound)])

    def powers(self) -> dict[int, float]:
        """Return the weight of the samples in (2ᵖ⁻¹, 2ᵖ] by p; -40 takes all that is less, 40 all that is more."""
        powers: dict[int, float] = {}
        if self._buckets is not None:
            keyed: Iterable[tuple[int, float]] = self._buckets.items()
        else:
            keyed = zip(map(bucket, self._samples), self._weights or repeat(1), strict=False)
        for key, weight in keyed:
            power = bucket_power(key)
            powers[power] = powers.get(power, 0) + weight
        return powers

    def entries(self) -> Iterator[tuple[float, float]]:
        """Yield values and weights, in order, that give the same buckets, minimum and maximum when added elsewhere."""
        values, weights = self._sorted()
        if self._buckets is None:
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

    def _common_weight(self) -> float:
        """The weight that all samples share, or 0."""
        if self._buckets is not None:
            return self._unit or 0
        if self._weights is None:
            return 1
        return self._weights[0] if len(set(self._weights)) == 1 else 0

    def _sorted(self) -> tuple[Sequence[float], Sequence[float]]:
        """Values, smallest first, and their weights; when sketched, middles of buckets."""
        if self._buckets is None:
            return self._samples, self._weights or [1] * len(self._samples)
        keys = sorted(self._buckets)
        values = [min(max(bucket_middle(key), self.min), self.max) for key in keys]
        return values, [self._buckets[key] for key in keys]

    def _ranked(self) -> tuple[Sequence[float], Sequence[float], float]:
        """Values, smallest first, how many samples each stands for, and what one sample weighs.

        Whole numbers where all weigh the same, for sums of weights like 1/0.3 miss the ranks by a rounding error.
        """
        values, weights = self._sorted()
        unit = self._common_weight() or 1
        return values, weights if unit == 1 else [round(weight / unit) for weight in weights], unit


NO_SAMPLES = Distribution().freeze()
"""What an idle timer had in an interval."""
