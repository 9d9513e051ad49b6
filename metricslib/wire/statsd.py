"""statsd lines from a program to a statsd server: the new values of a window, without idle series.

Counters are sent as deltas, gauges as absolute values. Timers and histograms are sent as samples while these are few.
In a sketch, each bucket is one line, whose sample rate is the inverse of its weight: ``db.query:12.5|ms|@0.01`` means a
hundred samples of 12.5 ms.

Such a sample is the middle of its bucket, so the sum may be off by 0.8 %. For a forwarder, the last line of a sketch
contains corrections: the true sum of the samples minus the sum of the lines, and the same for the squares:
``db.query:99.5|ms|@1|~-3.25,40.5``. A server that does not know the field ignores it.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256

from ..series import prefixed
from ..sketch import Distribution
from ..window import Window
from .graphite import number

__all__ = ["DATAGRAM", "SEPARATOR", "encode"]

DATAGRAM = 1432
"""Number of bytes that fit into an Ethernet frame with the headers of IPv6, UDP and a tunnel."""
SEPARATOR = b"\n\n"
"""Separates the datagrams of a payload. A statsd server skips empty lines."""
_SYNTAX = frozenset(":|\n\r")


def encode(window: Window, prefix: str = "", limit: int = DATAGRAM, *, exact_sums: bool = False) -> tuple[bytes, int]:
    """Return datagrams of at most ``limit`` bytes, joined by :data:`SEPARATOR`, and the number of their lines.

    A single line longer than ``limit`` gets a datagram of its own. ``exact_sums`` adds the corrections to each sketch.
    Use it only for a server that reads or ignores the field.
    """
    lines = [line.encode() for line in _lines(window, prefix, exact_sums)]
    values = sum(line.count(b"\n") + 1 for line in lines)
    datagrams: list[bytes] = []
    packed: list[bytes] = []
    size = 0
    for line in lines:
        if packed and size + len(line) + 1 > limit:
            datagrams.append(b"\n".join(packed))
            packed, size = [], 0
        packed.append(line)
        size += len(line) + (len(packed) > 1)
    if packed:
        datagrams.append(b"\n".join(packed))
    return SEPARATOR.join(datagrams), values


def _lines(window: Window, prefix: str, exact_sums: bool) -> Iterator[str]:
    for key, count in window.counters.items():
        if count:
            head, tail = _around(key, prefix)
            yield f"{head}:{number(count)}|c{tail}"
    for kind, timings in (("ms", window.timers), ("h", window.histograms)):
        for key, distribution in timings.items():
            head, tail = _around(key, prefix)
            samples = [*_samples(distribution)]
            if exact_sums and not distribution.exact:
                samples = _adjusted(samples, distribution)
            for value, rate in samples:
                yield f"{head}:{value}|{kind}{rate}{tail}"
    for key, level in window.gauges.items():
        head, tail = _around(key, prefix)
        # A sign means a change, so a negative value is sent as 0 and a change. Both are one item, which is never split.
        yield f"{head}:{number(level)}|g{tail}" if level >= 0 else f"{head}:0|g{tail}\n{head}:{number(level)}|g{tail}"
    for key, members in window.uniques.items():
        head, tail = _around(key, prefix)
        for member in sorted(members):
            yield f"{head}:{_member(member)}|s{tail}"


def _around(key: str, prefix: str) -> tuple[str, str]:
    """Return the text before the value and the text after the type: the name, and the tags in DogStatsD's form.

    In a tag ``q=a=b``, only the first ``=`` becomes ``:``, because statsd and forwarders convert the first ``:`` to
    ``=`` and delete the others.
    """
    name, _, tags = key.partition(";")
    name = prefixed(prefix, name)
    return name, "|#" + ",".join([tag.replace("=", ":", 1) for tag in tags.split(";")]) if tags else ""


def _samples(distribution: Distribution) -> Iterator[tuple[str, str]]:
    for value, weight in distribution.entries():
        text = number(value)
        for rate in rates(weight):
            yield text, rate


def _adjusted(samples: list[tuple[str, str]], distribution: Distribution) -> list[tuple[str, str]]:
    """Return the samples of a sketch, the last of them with the corrections of the sums.

    The samples are added up in the same order as in a forwarder. If the difference has no rounding error, which is true
    if all values have the same sign, the forwarder gets exactly the sums of the sketch.
    """
    total = squares = 0.0
    for text, rate in samples:
        value, weight = float(text), _weight(rate)
        total += value * weight
        squares += value * value * weight
    total, squares = distribution.sum - total, distribution.sum_squares - squares
    if (total or squares) and math.isfinite(total) and math.isfinite(squares):
        text, rate = samples[-1]
        samples[-1] = text, f"{rate or '|@1'}|~{number(total)},{number(squares)}"
    return samples


@lru_cache(maxsize=4096)
def _weight(rate: str) -> float:
    return 1 / float(rate.removeprefix("|@")) if rate else 1.0


@lru_cache(maxsize=4096)
def rates(weight: float) -> tuple[str, ...]:
    """Return sample rates, as they follow the type, whose inverses add up to ``weight``.

    A rate is in fixed point, because statsd does not read exponents, and its inverse must be exactly an integer. One
    integer in eight is not the inverse of any rate, so such a weight is split.
    """
    if weight == 1:
        return ("",)
    inverse = 1 / weight
    for rate in (inverse, math.nextafter(inverse, 0), math.nextafter(inverse, 1)):
        if 1 / rate == weight:
            return (f"|@{Decimal(repr(rate)):f}",)
    if weight < 1 or weight != int(weight):
        return (f"|@{Decimal(repr(min(inverse, 1.0))):f}",)
    return (*rates(weight - 1), *rates(1))


def _member(text: str) -> str:
    """Return a member of a set without characters that have a meaning in a line. Distinct members stay distinct.

    A member is replaced by its digest if it contains such a character, is empty, or cannot be encoded in UTF-8. The
    latter is true for lone surrogates, which :func:`os.fsdecode` returns for file names in other encodings.
    """
    try:
        if text and not _SYNTAX.intersection(text) and text.encode():
            return text
    except UnicodeEncodeError:
        pass
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
