"""The distribution of a timer or histogram: it keeps few samples exactly, and many as a log-linear sketch.

In: samples with weights, one at a time or in batches, or another distribution. Out: percentiles, sums over the smallest
or largest share of the samples, counts per bucket. Count, sum, sum of squares, minimum and maximum are always exact.

**Buckets.** Every power of two is divided into 64 equal buckets, so a bucket is at most 1/64 as wide as its lower
bound, and its middle lies within 1/128 (0.8 %) of every sample in it. The index needs no logarithm, because it consists
of the exponent and the top bits of the double. Buckets are ``(lower, upper]``, so counts up to a power of two are exact
too, as Prometheus histograms require. Magnitudes are clamped to 2⁻⁴⁰ … 2⁴⁰. Zero has a bucket of its own, and the
buckets of negative numbers mirror those of positive ones. Adding two sketches bucket by bucket loses nothing, in any
order.

**Sums.** While all samples are kept, they are sorted and added smallest first. In a sketch, they are added in order of
arrival. If all samples have the same weight, the sums are multiplied by it at the end, and mean and deviation are those
of the samples without weights, as in statsd. Otherwise, a weight such as 1/0.3 would round each product, and the mean
could exceed the largest sample. The C implementation in ``native/samples.c`` does the same operations in the same
order.

One owner adds samples and then freezes the distribution; from then on any thread may read it. A distribution from a
checkpoint (:class:`Restored`) is read like any other.

The file contains, in this order: addition, buckets, the storage of samples (:class:`Samples`, also in C), the
statistics (:class:`Readable`), and both together (:class:`Distribution`).
"""

import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from itertools import accumulate, repeat
from operator import add, index, mul
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ._accelerate import load

__all__ = [
    "Distribution",
    "EXACT",
    "NO_SAMPLES",
    "Readable",
    "Restored",
    "Samples",
    "SamplesInPython",
    "Share",
    "added",
    "bucket",
    "bucket_counts",
    "bucket_middle",
    "bucket_power",
    "bucket_upper",
    "merged",
]

added: Callable[[Iterable[float], float], float]
"""Return the second argument plus all numbers of the first, added one by one, in C and in every version of Python.

It is a function in C, as :func:`~.attempt.attempt` requires.
"""

if sys.version_info >= (3, 12):  # sum() compensates for rounding errors from here on
    added = partial(reduce, add)
else:
    added = sum


_SUB_BUCKETS = 64
_MIN_POWER = -40
_MAX_POWER = 40
_MAX_KEY = (_MAX_POWER - _MIN_POWER) * _SUB_BUCKETS + 1
_MIN_POSITIVE = 2.0**_MIN_POWER
_MAX_POSITIVE = 2.0**_MAX_POWER
_BITS_SHIFT = 52 - 6  # leaves sign, exponent and the top six bits of the mantissa of a double
_BITS_OFFSET = (1023 + _MIN_POWER) * _SUB_BUCKETS - 2  # so that the key of 2**-40, computed from the bits, is 1
# Subtracted from the bits before the shift. The final 1 makes the upper bounds inclusive: an exact bound belongs to the
# bucket below it. Zero, whose bits are 0, gets a key below those of all positive numbers.
_BITS_BASE = (_BITS_OFFSET << _BITS_SHIFT) + 1
_ZERO = -_BITS_BASE >> _BITS_SHIFT
_SIGN = 1 << 63 - _BITS_SHIFT


def bucket(value: float) -> int:
    """Return the key of the bucket that holds ``value``: 0 for zero, 1 to 5121 if positive, mirrored if negative.

    Keys are in the order of their values. This is the specification; :func:`bucket_counts` does the same for a batch.
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
    """Return the value that represents every sample in bucket ``key``."""
    if -2 < key < 2:
        return bucket_upper(key)
    return (bucket_upper(key) + bucket_upper(key - 1 if key > 0 else key + 1)) / 2


def bucket_power(key: int) -> int:
    """Return the smallest ``p`` from -40 to 40 with no sample in bucket ``key`` above 2ᵖ, except clamped ones."""
    return _MIN_POWER + max(0, -(-(key - 1) // _SUB_BUCKETS))


def bucket_counts(values: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Return bucket keys with the number of ``values`` in each. The keys are computed from the bits of the doubles."""
    all_bits = memoryview(array("d", values)).cast("B").cast("q").tolist()
    counts = Counter([(bits - _BITS_BASE) >> _BITS_SHIFT for bits in all_bits])
    if min(counts) > 0 and max(counts) <= _MAX_KEY:
        return counts.items()
    return [(_clamped(key), count) for key, count in counts.items()]


def _clamped(key: int) -> int:
    """Return the bucket key for a key that was computed from the bits of any number."""
    if key < _ZERO:
        return -_clamped(key + _SIGN)
    return min(max(key, 1), _MAX_KEY) if key > _ZERO else 0


Row = tuple[float, float, float, float, float]
"""Weight, boundary, sum, sum of squares and mean of a share of the samples."""

EXACT = 256
"""Number of samples that a distribution keeps before it becomes a sketch."""
_MOST = 2**31 - 1
"""The maximum limit. Larger ones are reduced to it."""


def _numbers(values: Iterable[float]) -> list[float]:
    """Return ``values`` as floats. Raises TypeError for any other type, such as text, even if it contains a number."""
    return array("d", list(values)).tolist()


def _checked(values: Iterable[float]) -> list[float]:
    """Like :func:`_numbers`, but raise ValueError for a number that is not finite."""
    numbers = _numbers(values)
    if not math.isfinite(sum(numbers)) and not all(map(math.isfinite, numbers)):
        raise ValueError("a sample must be a finite number")
    return numbers


def _checked_limit(limit: int) -> int:
    if index(limit) < 0:
        raise ValueError("a limit must be at least 0")
    return min(index(limit), _MOST)


class Samples:
    """The storage of weighted samples.

    One owner writes. After :meth:`freeze`, any thread may read. A value that is not finite raises ValueError, and so
    does a weight that is not finite and greater than 0. Then nothing has been added.
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
        # The common weight of all samples of a sketch; 0: weights differ; None: no sample yet.
        self._unit: float | None = None
        self._extend(samples)

    def __bool__(self) -> bool:
        return bool(self._samples) or self._buckets is not None

    @property
    def exact(self) -> bool:
        """True if all samples are kept; False for a sketch."""
        return self._buckets is None

    # -- writing

    def add(self, value: float, weight: float = 1) -> None:
        """Add one sample, which counts ``weight`` times."""
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
        """Return a copy of ``distribution`` with samples of weight 1 added, or None if there is no sample."""
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
        """Add all samples of ``other``, which is not changed. The result is exact if both are and the samples fit."""
        if not isinstance(other, SamplesInPython | Samples):
            raise TypeError(f"not a distribution: {other!r}")
        if other._buckets is None:
            samples, weights = [*other._samples], other._weights  # a copy, because it may be this object
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
        """Correct the sums of samples that represent buckets. This converts the samples to a sketch."""
        sum, sum_squares = _checked((sum, sum_squares))
        self._become_sketch()
        self.sum += sum
        self.sum_squares += sum_squares

    def freeze(self) -> Self:
        """Compute the statistics, and return the distribution. Nothing may be added afterwards."""
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
        """Return the weight of the samples in (2ᵖ⁻¹, 2ᵖ] by p; -40 includes all smaller ones, 40 all larger ones."""
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
        """The values, smallest first, and their weights. In a sketch, the values are the middles of buckets."""
        if self._buckets is None:
            return self._samples, self._weights or [1] * len(self._samples)
        keys = sorted(self._buckets)
        values = [min(max(bucket_middle(key), self.min), self.max) for key in keys]
        return values, [self._buckets[key] for key in keys]

    def _common_weight(self) -> float:
        """The common weight of all samples, or 0 if weights differ."""
        if not self.exact:
            return self._unit or 0
        weights = self._weights
        if weights is None:
            return 1
        return weights[0] if len(set(weights)) == 1 else 0

    def _ranked(self) -> tuple[Sequence[float], Sequence[float], float]:
        """The values, smallest first, the number of samples that each represents, and the weight of one sample.

        If all samples have the same weight, the numbers are integers, because sums of weights such as 1/0.3 would miss
        the ranks by a rounding error.
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
        """Keep a mean, which has accumulated rounding errors, within the range of the samples."""
        return min(max(mean, least), most)

    @property
    def std(self) -> float:
        """The standard deviation of the population. A sketch computes it from the sums, not from the differences."""
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
        """Return the same as :meth:`~.sketch.Readable.shares`, as plain tuples."""
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
            """Sum and sum of squares of the smallest ``lines`` samples. Only a part of the last value may count."""
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
"""The Python implementation, even if ``Samples`` is the C implementation."""

if not TYPE_CHECKING and (_speedups := load("metricslib._speedups")) is not None:
    Samples = _speedups.Samples


class Share(NamedTuple):
    """The given percentage of the samples: the smallest ones, or the largest ones if it is negative."""

    weight: float
    """The number of samples in the share."""
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
    """The statistics of frozen samples, for both implementations of the storage."""

    __slots__ = ()

    def __repr__(self) -> str:
        kept = f"{len(self._samples)} samples" if self.exact else f"sketch of {len(self._buckets or ())} buckets"
        return f"<Distribution {kept}, count {self.count:g}>"

    def percentile(self, percent: float) -> float:
        """Return the boundary of the smallest ``percent`` percent of the samples, or NaN if that share is empty."""
        (share,) = self.shares((percent,))
        return math.nan if share is None else share.boundary

    def shares(self, percents: Sequence[float]) -> list[Share | None]:
        """Return, for each percentage, the share of the smallest samples, or of the largest ones if it is negative.

        As in statsd, a share of n samples has ``floor(|percent| / 100 · n + 0.5)`` samples. It is None if this is 0. A
        single sample is in every share. If all samples have the same weight, n is their number, otherwise the sum of
        the weights.
        """
        return [row and Share(*row) for row in self._shares(percents)]

    def below(self, bound: float) -> float:
        """Return the weight of all samples below ``bound``. In a sketch, this is exact to the width of a bucket."""
        values, weights = self._sorted()
        return sum(weights[: bisect_left(values, bound)])

    def entries(self) -> Iterator[tuple[float, float]]:
        """Yield values and weights, in order. Adding them elsewhere gives the same buckets, minimum and maximum."""
        values, weights = self._sorted()
        if self.exact:
            yield from zip(values, weights, strict=True)
            return
        unit, last = self._common_weight(), len(values) - 1
        for place, (value, weight) in enumerate(zip(values, weights, strict=True)):
            least = [self.min] * (place == 0)
            most = [self.max] * (place == last and not (least and self.min == self.max))
            if unit == 1:  # each extreme represents only itself, and the other samples the middle of the bucket
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
        """Return the stored data by name: ``limit``, and either ``samples`` and ``weights`` (None: all 1), or the
        arguments of :class:`Restored`.
        """
        if self.exact:
            return {"limit": self.limit, "samples": self._samples, "weights": self._weights}
        names = ("limit", "count", "sum", "sum_squares", "min", "max")
        return {**{name: getattr(self, name) for name in names}, "unit": self._unit, "buckets": self._buckets}


class Distribution(Readable, Samples):
    """Weighted samples: up to ``limit`` are kept exactly, more as a sketch.

    ``count`` is the sum of the weights. ``count``, ``sum``, ``sum_squares``, ``min`` and ``max`` may be read after the
    distribution is frozen. While all samples are kept, sums are computed over the sorted samples, smallest first. A
    value that is not finite raises ValueError, and so does a weight that is not finite and greater than 0.
    """

    __slots__ = ()


if TYPE_CHECKING:
    _InPython = Distribution
else:

    class _InPython(Readable, SamplesInPython):
        __slots__ = ()


class Restored(_InPython):
    """A sketch that is restored from its stored data.

    It is stored in Python even if the C implementation is in use, and can merge distributions of both implementations.
    :func:`merged` does the reverse.
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
        """``unit`` is the common weight of all samples, or 0 if weights differ. ``buckets``: None without a sample."""
        super().__init__(limit=limit)
        if buckets is not None:
            self._buckets, self._unit = dict(buckets), unit
            self.count, self.sum, self.sum_squares, self.min, self.max = count, sum, sum_squares, min, max


def merged(one: Distribution, other: Distribution) -> Distribution:
    """Return both in a new, frozen distribution. Neither is changed."""
    restored = isinstance(one, Restored) or isinstance(other, Restored)
    both = (Restored if restored else Distribution)(limit=max(one.limit, other.limit))
    both.merge(one)
    both.merge(other)
    return both.freeze()


NO_SAMPLES = Distribution().freeze()
"""The distribution of an idle timer."""
