"""What is remembered of a registry over a restart, as bytes: a series' totals, and the interval that is open.

In: values. Out: JSON as Python writes it, in which a number may also be NaN or Infinity; and back. Nothing is lost on
the way: numbers come back to the last bit, samples as samples, sketches bucket by bucket. What is read may be anything:
whatever is not as it would be written raises :class:`BadNote`, so that nothing gets into a registry that a call could
not have put there.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .distribution import Distribution, Restored
from .series import KINDS, Kind, Series
from .totals import TOTALS, DistributionTotal, GaugeTotal, SummedTotal, Total
from .window import Aggregates, GaugeChange, OpenInterval

__all__ = [
    "BadNote",
    "read_key",
    "read_open",
    "read_total",
    "read_value",
    "write_open",
    "write_total",
    "write_value",
]

_write = json.JSONEncoder(separators=(",", ":"), default=float).encode  # a source may count with numbers of its own
_LARGEST_BUCKET = 5121
_MOST_SAMPLES = 2**31 - 1
_HEAVIEST = 2.0**53  # units in a bucket


class BadNote(ValueError):
    """A note that is not as it was written."""


# -- what may be in a note


@contextmanager
def _nothing_but_bad_notes() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadNote(str(error)) from error


def _require(condition: bool) -> None:
    if not condition:
        raise BadNote("a part of it cannot be")


def _number(value: Any) -> float:
    """Any number: what a sum can be."""
    _require(type(value) is float or type(value) is int)
    return value  # type: ignore[no-any-return]


def _finite(value: Any) -> float:
    _require(math.isfinite(_number(value)))
    return value  # type: ignore[no-any-return]


def _not_negative(value: Any) -> float:
    _require(_finite(value) >= 0)
    return value  # type: ignore[no-any-return]


def _positive(value: Any) -> float:
    _require(_finite(value) > 0)
    return value  # type: ignore[no-any-return]


def _whole(value: Any, least: int, most: int) -> int:
    _require(type(value) is int and least <= value <= most)
    return value  # type: ignore[no-any-return]


# -- a series' totals


def write_total(total: Total) -> bytes:
    """Return all of ``total`` but for how many windows it is idle, which changes by itself."""
    note: dict[str, Any] = {"place": total.place, "active": total.active}
    if total.gauge is not None:
        note["gauge"] = total.gauge
    if total.sum or total.count:
        note["sum"], note["count"] = total.sum, total.count
    if total.powers:
        note["powers"] = total.powers
    return _write(note).encode()


def read_total(kind: Kind, note: bytes) -> Total:
    """Return what :func:`write_total` wrote of a series of that kind. Raises :class:`BadNote` for anything else."""
    with _nothing_but_bad_notes():
        document = json.loads(note)
        total = TOTALS[kind](_finite(document["active"]))
        total.place = _whole(document["place"], 0, 2**63)
        if isinstance(total, GaugeTotal) and "gauge" in document:
            total.gauge = _finite(document["gauge"])
        if isinstance(total, SummedTotal):
            total.sum = _number(document.get("sum", 0))
        if isinstance(total, DistributionTotal):
            total.count = _not_negative(document.get("count", 0))
            weights = document.get("powers", {}).items()
            total.powers = {_whole(int(power), -40, 40): _not_negative(weight) for power, weight in weights}
        return total


def read_key(kind: Kind, key: str) -> Series:
    """Return the series of which ``key`` is the canonical text. Raises :class:`BadNote` if it is none."""
    series = Series.of_key(kind, key)
    _require(series.key == key)
    return series


# -- the open interval


def write_open(interval: OpenInterval) -> bytes:
    """Return the whole of an open interval."""
    document: dict[str, Any] = {"start": interval.start, "end": interval.end}
    for kind in KINDS:
        write = _WRITERS[kind]
        document[kind] = {key: write(value) for key, value in interval.sent[kind].items()}
    return _write(document).encode()


def read_open(note: bytes) -> tuple[OpenInterval, int]:
    """Return what :func:`write_open` wrote, and how many series in it make no sense, and are left out.

    Raises :class:`BadNote` where there is no interval.
    """
    sent, bad = Aggregates(), 0
    with _nothing_but_bad_notes():
        document = json.loads(note)
        interval = OpenInterval(_finite(document["start"]), _whole(document["end"], 0, 2**63), sent)
        for kind in KINDS:
            for key, value in document[kind].items():
                try:
                    sent[kind][key] = _read_value(kind, key, value)
                except BadNote:
                    bad += 1
    return interval, bad


def write_value(kind: Kind, value: Any) -> Any:
    """Return what happened to one series of that kind, as JSON can hold it."""
    return _WRITERS[kind](value)


def read_value(kind: Kind, value: Any) -> Any:
    """Return what :func:`write_value` wrote. Raises :class:`BadNote` for anything else."""
    with _nothing_but_bad_notes():
        return _READERS[kind](value)


def _read_value(kind: Kind, key: str, value: Any) -> Any:
    with _nothing_but_bad_notes():
        read_key(kind, key)
        return _READERS[kind](value)


def _write_distribution(distribution: Distribution) -> dict[str, Any]:
    parts = {name: part for name, part in distribution.parts().items() if part is not None}
    if "buckets" in parts:
        parts["buckets"] = sorted(parts["buckets"].items())
    return parts


def _read_distribution(parts: Mapping[str, Any]) -> Distribution:
    limit = _whole(parts["limit"], 1, _MOST_SAMPLES)
    if "buckets" in parts:
        return _read_sketch(parts, limit)
    distribution = Distribution(limit=limit)
    samples = [_finite(sample) for sample in parts["samples"]]
    if "weights" in parts:
        for sample, weight in zip(samples, parts["weights"], strict=True):
            distribution.add(sample, _positive(weight))
    else:
        distribution.extend(samples)
    return distribution.freeze()


def _read_sketch(parts: Mapping[str, Any], limit: int) -> Restored:
    buckets = {
        _whole(bucket, -_LARGEST_BUCKET, _LARGEST_BUCKET): _positive(weight) for bucket, weight in parts["buckets"]
    }
    if not buckets:  # whose sums may have been adjusted
        return Restored({}, limit=limit, sum=_number(parts["sum"]), sum_squares=_number(parts["sum_squares"]))
    least, most, unit = _finite(parts["min"]), _finite(parts["max"]), _not_negative(parts["unit"])
    _require(least <= most)
    _require(not unit or all(0.5 <= weight / unit <= _HEAVIEST for weight in buckets.values()))
    return Restored(
        buckets,
        limit=limit,
        count=_positive(parts["count"]),
        sum=_number(parts["sum"]),
        sum_squares=_number(parts["sum_squares"]),
        min=least,
        max=most,
        unit=unit,
    )


def _read_gauge(value: Any) -> GaugeChange:
    base, delta = value
    absent = type(base) is float and math.isnan(base)
    return GaugeChange(base if base is None or absent else _finite(base), _finite(delta))


def _read_members(value: Any) -> frozenset[str]:
    _require(type(value) is list and bool(value) and all(type(member) is str for member in value))
    return frozenset(value)


_WRITERS: Mapping[Kind, Callable[[Any], Any]] = {
    "counter": lambda count: count,
    "timer": _write_distribution,
    "histogram": _write_distribution,
    "gauge": list,
    "unique": sorted,
}
_READERS: Mapping[Kind, Callable[[Any], Any]] = {
    "counter": _finite,
    "timer": _read_distribution,
    "histogram": _read_distribution,
    "gauge": _read_gauge,
    "unique": _read_members,
}
