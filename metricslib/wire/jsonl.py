"""A window as one line of JSON, for files that other programs read.

The schema is stable: with ``"schema": 1``, members may be added, but are never changed or removed.

``schema``       1
``start``        the start of the interval, in seconds since the epoch
``end``          the end of the interval, its timestamp; a later line with the same ``end`` replaces an earlier one
``interval``     the nominal length in seconds
``counters``     by series: the sum
``timers``       by series, in milliseconds: ``{"count", "sum", "min", "max", "mean", "std", "median"}`` and a member
                 for each percentile: ``p90``, ``p99.9``, or ``top10`` for the smallest of the largest ten percent;
                 ``{"count": 0}`` if idle
``histograms``   the same, in the histogram's unit
``gauges``       by series: the value
``uniques``      by series: the number of distinct members

A series is written ``prefix.name;tag=value``. A number that is not finite, such as a sum beyond the range of doubles,
is ``null``; NaN and Infinity do not occur. A line ends with a line feed and contains no other.
"""

import json
import math
from collections.abc import Mapping, Sequence

from ..series import prefixed
from ..sketch import Distribution
from ..window import Window
from .graphite import number

__all__ = ["encode"]


def encode(window: Window, prefix: str = "", percentiles: Sequence[float] = (), *, unprefixed: str = "\0") -> bytes:
    """Return the line of a window. Names that start with ``unprefixed`` get no prefix."""

    def named(key: str) -> str:
        return key if key.startswith(unprefixed) else prefixed(prefix, key)

    def distributions(values: Mapping[str, Distribution]) -> dict[str, dict[str, float | None]]:
        return {named(key): _statistics(value, percentiles) for key, value in values.items()}

    document = {
        "schema": 1,
        "start": window.start,
        "end": window.end,
        "interval": window.interval,
        "counters": {named(key): _finite(count) for key, count in window.counters.items()},
        "timers": distributions(window.timers),
        "histograms": distributions(window.histograms),
        "gauges": {named(key): _finite(value) for key, value in window.gauges.items()},
        "uniques": {named(key): len(members) for key, members in window.uniques.items()},
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _statistics(distribution: Distribution, percentiles: Sequence[float]) -> dict[str, float | None]:
    if not distribution.count:
        return {"count": 0}
    statistics = {
        "count": distribution.count,
        "sum": distribution.sum,
        "min": distribution.min,
        "max": distribution.max,
        "mean": distribution.mean,
        "std": distribution.std,
        "median": distribution.median,
    }
    for percent, share in zip(percentiles, distribution.shares(percentiles), strict=True):
        if share is not None:
            statistics[_percentile(percent)] = share.boundary
    return {name: _finite(value) for name, value in statistics.items()}


def _percentile(percent: float) -> str:
    return ("p" if percent > 0 else "top") + number(abs(percent))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
