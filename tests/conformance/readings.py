"""How lines that statsd reads otherwise on purpose can be told to it so that it reads them as we do.

For each deviation of the list that is a matter of lines, `READINGS` says which lines it is about. Such a line is read
by our parser, whose own tests and the list's examples show that it reads it rightly, and written again in words that
both daemons understand alike. Then all that follows must be the same: names, order, arithmetic, the account.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from forwarder.parser import Sample, number, parse
from metricslib.series import join, sanitise, split

__all__ = ["READINGS", "Plain", "plain"]

_BUILT_IN = {
    *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString"),
    *("valueOf", "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__"),
}
_NOTHING = "__proto__:0|c"
"""A line that statsd counts, and forgets."""


class _Parts(NamedTuple):
    """A line, taken apart as statsd's rules say."""

    line: str
    key: str
    pieces: Sequence[Sequence[str]]
    tags: str

    @property
    def values(self) -> Sequence[tuple[str, str]]:
        """Values and types of those pieces that have both."""
        return [(piece[0], piece[1]) for piece in self.pieces if len(piece) > 1]


def _apart(line: str) -> _Parts:
    metric, _, tags = line.partition("|#")
    key, *pieces = metric.split(":")
    bits = [tag.replace(";", "_", 1).replace(":", "=", 1) for tag in tags.split("|#")[0].split(",")] if tags else []
    return _Parts(line, sanitise(";".join([key, *bits])), [piece.split("|") for piece in pieces], tags)


def _has_plain_rate(rate: str) -> bool:
    return bool(re.fullmatch(r"@(0*\.[0-9]*[1-9][0-9]*|0*1(\.0*)?)\s*", rate))


def _uncanonical(parts: _Parts) -> bool:
    _, *tags = parts.key.split(";")
    return tags != sorted(set(tags)) or any(
        not re.fullmatch("[^=]+=.+", tag)
        or tag.partition("=")[0] in [other.partition("=")[0] for other in tags[:place]]
        for place, tag in enumerate(tags)
    )


def _goes_beyond(value: str, kind: str, rate: str) -> bool:
    read = number(value)
    if read is None or not math.isfinite(read):
        return False
    weight = 1 / (number(rate[1:]) or 1)
    return not math.isfinite(read * read * weight if kind.strip() == "ms" else read * weight)


READINGS: Mapping[str, Callable[[_Parts], bool]] = {
    "rates": lambda parts: any(
        len(piece) > 2 and piece[2][:1] == "@" and not _has_plain_rate(piece[2]) for piece in parts.pieces
    ),
    "names": lambda parts: parts.key in _BUILT_IN,
    "members": lambda parts: any(value == "__proto__" for value, kind in parts.values if kind.strip() == "s"),
    "integer-names": lambda parts: bool(re.fullmatch(r"0|[1-9][0-9]{0,9}", parts.key)),
    "empty-names": lambda parts: parts.key.partition(";")[0] == "",
    "types": lambda parts: any(kind.strip() not in ("c", "ms", "g", "s", "h", "d") for _, kind in parts.values),
    "histograms": lambda parts: any(kind.strip() in ("h", "d") for _, kind in parts.values),
    "type-spaces": lambda parts: any(kind != kind.strip() for _, kind in parts.values),
    "packed-values": lambda parts: any(len(piece) == 1 for piece in parts.pieces[:-1]),
    "origins": lambda parts: any(
        re.fullmatch("T[0-9]+|c|e|card", field) for piece in parts.pieces for field in piece[2:]
    ),
    "tags-first": lambda parts: "|" in parts.tags,
    "events": lambda parts: parts.line.startswith(("_e{", "_sc|")),
    "tags": lambda parts: ";" in parts.key and _uncanonical(parts),
    "carriage-returns": lambda parts: parts.line.endswith("\r"),
    "long-keys": lambda parts: len(parts.key) > 4096,
    "not-finite": lambda parts: any(
        not math.isfinite(number(value) or 0) or "Infinity" in value for value, _ in parts.values
    ),
    "out-of-range": lambda parts: any(
        len(piece) > 1 and _goes_beyond(piece[0], piece[1], piece[2] if len(piece) > 2 else "@1")
        for piece in parts.pieces
    ),
}
"""By the id of a deviation: whether it may be about a line."""


class Plain(NamedTuple):
    """A line as both daemons understand it."""

    line: str
    deviations: frozenset[str]
    """Those because of which it is another line than before; none if it is the same."""
    timers: Mapping[str, Sequence[tuple[float, float]]]
    """What it adds to timers: values and weights by key."""
    gauges: Sequence[tuple[str, bool]]
    """What it does to gauges: whether it changes them by so much."""


def plain(line: str, aliases: dict[str, str]) -> Plain:
    """Return the line as statsd should be given it; ``aliases`` remembers names that stand for others there."""
    parts = _apart(line)
    reasons = frozenset(id for id, concerns in READINGS.items() if concerns(parts))
    if not parts.values:  # bad, whatever its key is
        reasons &= {"events", "carriage-returns"}
    read = parse(line)
    key = join(*split(read.key))
    timers: dict[str, list[tuple[float, float]]] = {}
    for sample in read.samples:
        if sample.kind == "timer":
            timers.setdefault(key, []).append((sample.value, sample.weight))
    gauges = [(key, sample.relative) for sample in read.samples if sample.kind == "gauge"]
    if reasons:
        line = _written(key, read.samples, len(read.bad), aliases) if read.received else ""
    return Plain(line, reasons, timers, gauges)


def _written(key: str, samples: Sequence[Sample], bad: int, aliases: dict[str, str]) -> str:
    if key in _BUILT_IN or key.isdecimal():
        key = aliases.setdefault(key, f"Q{len(aliases)}Q")
    pieces = [_piece(sample) for sample in samples if sample.kind != "histogram"] + ["bad"] * bad
    return ":".join([key, *pieces]) if pieces else _NOTHING


def _piece(sample: Sample) -> str:
    match sample.kind:
        case "counter":
            return f"{sample.value * sample.weight!r}|c"
        case "timer":
            return f"{sample.value!r}|ms" + (f"|@{1 / sample.weight:.20f}" if sample.weight != 1 else "")
        case "gauge":
            return f"{sample.value:+}|g" if sample.relative else f"{sample.value!r}|g"
    cannot = ":" in sample.member or sample.member == "__proto__"
    return f"{sample.member.encode().hex() if cannot else sample.member}|s"
