"""Graphite's plaintext lines: ``path value timestamp\\n``, in both directions.

Numbers are written as in JavaScript, and so as in statsd: the shortest text that converts back to the same number.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Pairs", "Point", "decode", "encode", "encode_points", "number"]

Point = tuple[str, float, int]
"""A path, its value, and its timestamp in whole seconds since the epoch."""

_EXACT_INTEGERS = 2**53
_BLOCK = 4096
"""Number of lines that are built at once. Other threads can run between blocks, and a block fits into the cache."""


@dataclass(slots=True)
class Pairs:
    """Paths and their values, in two lists in the same order, because a tick may have a million of them.

    Iteration yields pairs.
    """

    paths: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.paths, self.values, strict=True)


def number(value: float) -> str:
    """Return the shortest text of a finite number, in the format of JavaScript.

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
    """Convert ``1.5e-07`` to ``1.5e-7``, and exponents from -6 to 20 to plain decimals, as JavaScript does."""
    mantissa, _, power = text.partition("e")
    exponent = int(power)
    if not -7 < exponent < 21:
        return f"{mantissa.removesuffix('.0')}e{exponent:+d}"
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.lstrip("-").replace(".", "")
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    return f"{sign}{digits.ljust(exponent + 1, '0')}"


def encode(pairs: Pairs, stamp: int) -> bytes:
    """Return the lines of the values of a window. Paths contain no white space; values are finite."""
    rest = _Rest(stamp).__getitem__
    blocks = []
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        parts = pairs.paths[block] * 2
        parts[::2], parts[1::2] = pairs.paths[block], map(rest, pairs.values[block])
        blocks.append("".join(parts).encode())
    return b"".join(blocks)


class _Rest(dict[float, str]):
    """The text after the path, by value. Many values are equal, and equal values have the same text."""

    def __init__(self, stamp: int) -> None:
        self._stamp = stamp

    def __missing__(self, value: float) -> str:
        rest = self[value] = f" {number(value)} {self._stamp}\n"
        return rest


def encode_points(points: Iterable[Point]) -> bytes:
    """Return the lines of points, each with its own timestamp."""
    return "".join([f"{path} {number(value)} {stamp}\n" for path, value, stamp in points]).encode()


def decode(payload: bytes) -> Iterator[Point]:
    """Yield the points of lines from :func:`encode`. Lines without a finite value are skipped."""
    for line in payload.decode().splitlines():
        try:
            path, value, stamp = line.split()
            point = path, float(value), int(stamp)
        except ValueError:
            continue
        if math.isfinite(point[1]):
            yield point
