"""Graphite's plaintext lines: ``path value timestamp\\n``, in both directions.

Numbers are written as JavaScript writes them, which is how statsd writes them: the shortest text that reads back the
same.
"""

import math
from collections.abc import Iterable, Iterator

__all__ = ["Point", "decode", "encode", "encode_points", "number"]

Point = tuple[str, float, int]
"""A path, its value, and its timestamp in whole seconds since the epoch."""

_EXACT_INTEGERS = 2**53


def number(value: float) -> str:
    """Return a finite number's shortest text, in JavaScript's form.

    >>> [number(x) for x in (5.0, 0.1 + 0.2, 1e21, 1e-7, 1e20, 0.00001)]
    ['5', '0.30000000000000004', '1e+21', '1e-7', '100000000000000000000', '0.00001']
    """
    if type(value) is int and -_EXACT_INTEGERS <= value <= _EXACT_INTEGERS:
        return str(value)
    text = repr(float(value))
    if text.endswith(".0"):
        return text[:-2] if text != "-0.0" else "0"
    return _from_exponent(text) if "e" in text else text


def _from_exponent(text: str) -> str:
    """Turn ``1.5e-07`` into ``1.5e-7``, and write out what JavaScript writes out: exponents from -6 to 20."""
    mantissa, _, power = text.partition("e")
    exponent = int(power)
    if not -7 < exponent < 21:
        return f"{mantissa.removesuffix('.0')}e{exponent:+d}"
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    return f"{sign}{digits.ljust(exponent + 1, '0')}"


def encode(pairs: Iterable[tuple[str, float]], stamp: int) -> bytes:
    """Return the lines of one window's values. Paths hold no white space; values are finite."""
    rest = _Rest(stamp)
    return "".join([path + rest[value] for path, value in pairs]).encode()


class _Rest(dict[float, str]):
    """What stands behind the path in a line of that value. Many are the same, and equal numbers have one text."""

    def __init__(self, stamp: int) -> None:
        self._stamp = stamp

    def __missing__(self, value: float) -> str:
        rest = self[value] = f" {number(value)} {self._stamp}\n"
        return rest


def encode_points(points: Iterable[Point]) -> bytes:
    """Return the lines of points that have a timestamp each."""
    return "".join([f"{path} {number(value)} {stamp}\n" for path, value, stamp in points]).encode()


def decode(payload: bytes) -> Iterator[Point]:
    """Yield the points of lines that :func:`encode` wrote; what is no finite point is skipped."""
    for line in payload.decode().splitlines():
        try:
            path, value, stamp = line.split()
            point = path, float(value), int(stamp)
        except ValueError:
            continue
        if math.isfinite(point[1]):
            yield point
