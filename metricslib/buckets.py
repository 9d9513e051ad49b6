"""The buckets of a sketch: which bucket holds a value, and what a bucket stands for.

Every power of two is divided into 64 equal buckets, so a bucket is at most 1/64 as wide as its lower bound, and its
middle lies within 1/128 (0.8 %) of every sample in it. No logarithm is taken: exponent and top bits of the double are
the index. Buckets are ``(lower, upper]``, so counts up to a power of two are exact too, which is what Prometheus'
histograms ask. Magnitudes are clamped to 2⁻⁴⁰ … 2⁴⁰; zero has a bucket of its own, and negative numbers mirror the
positive ones.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["bucket", "bucket_counts", "bucket_middle", "bucket_power", "bucket_upper"]

_SUB_BUCKETS = 64
_MIN_POWER = -40
_MAX_POWER = 40
_MAX_KEY = (_MAX_POWER - _MIN_POWER) * _SUB_BUCKETS + 1
_MIN_POSITIVE = 2.0**_MIN_POWER
_MAX_POSITIVE = 2.0**_MAX_POWER
_BITS_SHIFT = 52 - 6  # what remains of a double's 64 bits: sign, exponent and the top six bits of the mantissa
_BITS_OFFSET = (1023 + _MIN_POWER) * _SUB_BUCKETS - 2  # makes the key of 2**-40, counted from the bits, 1
# What is taken off the bits first. One of it makes the bounds inclusive at the top: an exact bound falls to the bucket
# below. And zero, whose bits are 0, falls below all positive numbers.
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
