"""The distribution of a timer or histogram: every sample while there are few, a log-linear sketch when there are many.

In: samples with weights, one at a time or in batches, or another distribution. Out: percentiles, sums over the smallest
or largest share of the samples, counts per bucket. Count, sum, sum of squares, minimum and maximum are always exact.

**Buckets.** Every power of two is divided into 64 equal buckets, so a bucket is at most 1/64 as wide as its lower
bound, and its middle lies within 1/128 (0.8 %) of every sample in it. No logarithm is taken: exponent and top bits of
the double are the index. Buckets are ``(lower, upper]``, so counts up to a power of two are exact too, as Prometheus
histograms require. Magnitudes are clamped to 2⁻⁴⁰ … 2⁴⁰; zero has a bucket of its own, and negative numbers mirror the
positive ones. Adding two sketches bucket by bucket loses nothing, in any order.

**Sums** run in the order in which samples came or, while samples are stored, over the sorted samples, smallest first.
Where all of these have one weight, the weight is multiplied into the sums last, and mean and deviation are those of the
samples without it, as in statsd: a weight such as 1/0.3 would round each product, and a mean might exceed the largest
sample. The C implementation in ``native/samples.c`` does the same operations in the same order.

A distribution is written by one owner, then frozen; from then on any thread may read it. One that was read from a
checkpoint (:class:`Restored`) is read like any other.

The file in order: addition, buckets, how samples are stored (:class:`Samples`, also in C), what is read from them
(:class:`Readable`), and the two together (:class:`Distribution`).
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
"""Return the second argument plus all numbers of the first, added one after the other, in C and every Python version.

It is a function in C, so that it may be given to :func:`~.attempt.attempt`.
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
_BITS_SHIFT = 52 - 6  # what remains of a double's 64 bits: sign, exponent and the top six bits of the mantissa
_BITS_OFFSET = (1023 + _MIN_POWER) * _SUB_BUCKETS - 2  # makes the key of 2**-40, counted from the bits, 1
# What is taken off the bits first. One of it makes the bounds inclusive at the top: an exact bound falls to the bucket
# below. Zero, whose bits are 0, falls below all positive numbers.
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
    """Return the value that stands for every sample in bucket ``key``."""
    if -2 < key < 2:
        return bucket_upper(key)
    return (bucket_upper(key) + bucket_upper(key - 1 if key > 0 else key + 1)) / 2


def bucket_power(key: int) -> int:
    """Return the least ``p`` from -40 to 40 with no sample in bucket ``key`` above 2ᵖ (but for clamped ones)."""
    return _MIN_POWER + max(0, -(-(key - 1) // _SUB_BUCKETS))


def bucket_counts(values: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Return bucket keys with the number of ``values`` in each; the keys come straight from the bits of the doubles."""
    all_bits = memoryview(array("d", values)).cast("B").cast("q").tolist()
    counts = Counter([(bits - _BITS_BASE) >> _BITS_SHIFT for bits in all_bits])
    if min(counts) > 0 and max(counts) <= _MAX_KEY:
        return counts.items()
    return [(_clamped(key), count) for key, count in counts.items()]


def _clamped(key: int) -> int:
    """Return the key of the bucket that is meant by one counted from the bits of any number."""
    if key < _ZERO:
        return -_clamped(key + _SIGN)
    return min(max(key, 1), _MAX_KEY) if key > _ZERO else 0


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

    One owner writes. After :meth:`freeze`, any thread reads. A value that is not finite raises ValueError, as
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
        """Return what :meth:`~.sketch.Readable.shares` does, as plain tuples."""
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
"""The Python implementation, also where ``Samples`` is the one in C."""

if not TYPE_CHECKING and (_speedups := load("metricslib._speedups")) is not None:
    Samples = _speedups.Samples


class Share(NamedTuple):
    """The given percentage of the samples: the smallest ones, or the largest ones if it is negative."""

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
    """What can be read from frozen samples, whichever implementation stores them."""

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
        for place, (value, weight) in enumerate(zip(values, weights, strict=True)):
            least = [self.min] * (place == 0)
            most = [self.max] * (place == last and not (least and self.min == self.max))
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

    It is stored in Python, whichever implementation is in use, and takes in distributions of both. :func:`merged` does
    the reverse.
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
