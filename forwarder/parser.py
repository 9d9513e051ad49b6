"""Parses lines: statsd's protocol with DogStatsD's additions, and Graphite's plain text. No I/O, no state.

In: one line as text, without its line feed. Out: a :class:`Sample` for each ``value|type``, or the reason why it is
bad. No text makes a function raise an exception. A bad sample does not affect the others in its line.

A statsd line is ``key[:value|type[|@rate]]…[|#tag,tag]``. The dialects of the protocol differ; these are the rules:

* Carriage returns at the end belong to the line ending. White space around a type is ignored.
* The first ``|#`` begins the tags, and the next ``|`` ends them. Further fields after the tags belong to the last
  sample. The first ``:`` of each tag is the ``=`` of Graphite's form. The key may contain tags in Graphite's form.
* A value without a type has the type and the rate of the next sample with a type: ``a:1:2:3|c`` is three counts
  (DogStatsD). In a set, such values and their colons form one member: ``users:urn:x|s`` has the member ``urn:x``.
* The field after the type is a rate, ``@`` and a number in (0, 1] without sign or leading white space; or DogStatsD's
  timestamp (``T`` and digits) or origin (``c:…``, ``e:…``, ``card:…``), which are ignored. Any other field in this
  place, also an empty one, makes the sample bad. Further unknown fields, and a second rate, are ignored.
* After the rate of a timer or histogram, ``~`` and two numbers separated by a comma correct the sums. The first number
  is the true sum of the samples minus the product of value and weight. The second is the same for the squares.
  metricslib writes this field for a bucket, so that sums stay exact. A second such field, or one with numbers that are
  not finite, is ignored.
* Numbers have the syntax of JavaScript's ``Number()`` and must be finite. A set accepts any text; an empty text is
  ``0``.
* A gauge whose value begins with a sign is changed by the value.
* DogStatsD's events and service checks are not metrics: each counts as one sample, with a cause of its own.
"""

import math
import re
from typing import NamedTuple

from metricslib.series import Kind, canonical_path

__all__ = ["KINDS", "LONGEST_KEY", "Line", "Point", "Sample", "number", "parse", "parse_point", "with_tags"]

LONGEST_KEY = 4096
"""Maximum number of characters of a key, including its tags. Longer keys make a line bad."""

KINDS: dict[str, Kind] = {
    "c": "counter",
    "ms": "timer",
    "g": "gauge",
    "s": "unique",
    "h": "histogram",
    "d": "histogram",
}
"""The kind of series for each type of the protocol."""

_WHITE = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""The white space that JavaScript removes around a number."""
# No digit can match in two ways, so matching takes linear time.
_UNSIGNED = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_DECIMAL = re.compile(rf"[+-]?{_UNSIGNED}")
_RATE = re.compile(rf"@{_UNSIGNED}")
_OTHER_BASE = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_TIME = re.compile(r"T[0-9]+")
_SUMS = re.compile(rf"~([+-]?{_UNSIGNED}),([+-]?{_UNSIGNED})")
_ORIGINS = frozenset(("c", "e", "card"))


class Sample(NamedTuple):
    """A valid ``value|type``."""

    kind: Kind
    value: float = 0.0
    weight: float = 1.0
    """The number of samples that this one represents: 1 / rate. Not used for gauges and sets."""
    relative: bool = False
    """True if ``value`` changes a gauge, False if it sets it."""
    member: str = ""
    """The member of a set."""
    sum: float = 0.0
    """For a distribution: the sum of the samples minus ``weight`` times ``value``."""
    sum_squares: float = 0.0
    """The same for the squares."""


class Line(NamedTuple):
    """A parsed statsd line."""

    key: str
    """Name and tags in Graphite's form, as written; :func:`metricslib.series.split` makes them canonical. No colon."""
    samples: tuple[Sample, ...] = ()
    bad: tuple[str, ...] = ()
    """The reason for each bad sample."""
    skipped: str = ""
    """``event`` or ``service_check`` if the line is one; then ``samples`` and ``bad`` are empty."""

    @property
    def received(self) -> int:
        """The number of samples, good and bad, where an event or service check counts as one."""
        return len(self.samples) + len(self.bad) + bool(self.skipped)


def number(text: str) -> float | None:
    """Return the number that JavaScript reads in ``text``, which may be infinite, or None if it is not a number.

    >>> number(" 5 "), number("0x10"), number("1_0"), number("Infinity")
    (5.0, 16.0, None, None)
    """
    trimmed = text.strip(_WHITE)
    if _DECIMAL.fullmatch(trimmed):
        return float(trimmed) + 0.0  # turns -0 into 0, which JavaScript writes for both
    if _OTHER_BASE.fullmatch(trimmed):
        try:
            return float(int(trimmed, 0))
        except OverflowError:
            return math.inf
    return 0.0 if text and not trimmed else None


# -- statsd


def parse(line: str) -> Line:
    """Parse a statsd line. An empty line has no samples."""
    line = line.rstrip("\r")
    if not line:
        return Line("")
    if line.startswith("_e{"):
        return Line("", skipped="event")
    if line.startswith("_sc|"):
        return Line("", skipped="service_check")
    metric, _, rest = line.partition("|#")
    tags, _, after = rest.partition("|")
    key, *texts = metric.split(":")
    key = with_tags(key, tags)
    samples, bad = _read(_fields(texts), after.split("|"))
    if not samples and not bad:
        bad = ["no value"]
    if len(key) > LONGEST_KEY:
        samples, bad = [], ["key too long"] * (len(samples) + len(bad))
    return Line(key, tuple(samples), tuple(bad))


def with_tags(key: str, tags: str) -> str:
    """Return ``key``, a line's text before the first colon, with the line's ``tags`` in Graphite's form."""
    return key + ";" + ";".join([_tag(tag) for tag in tags.split(",")]) if tags else key


def _tag(tag: str) -> str:
    return tag.replace(";", "_", 1).replace(":", "=", 1).replace(":", "")


def _fields(texts: list[str]) -> list[list[str]]:
    """Return the fields of each sample, without DogStatsD's origins, whose colons do not separate samples."""
    groups: list[list[str]] = []
    for text in texts:
        fields = text.split("|")
        if groups and len(groups[-1]) > 2 and groups[-1][-1] in _ORIGINS:
            groups[-1][-1:] = fields[1:]
        else:
            groups.append(fields)
    return groups


def _read(groups: list[list[str]], after: list[str]) -> tuple[list[Sample], list[str]]:
    """Return the samples and the reasons of the bad samples of a line. ``after`` are the fields after the tags."""
    samples: list[Sample] = []
    bad: list[str] = []
    values: list[str] = []  # values whose type follows later
    for index, (value, *fields) in enumerate(groups):
        values.append(value)
        if not fields:
            continue
        kind = KINDS.get(fields[0].strip(_WHITE))
        weight = _weight(fields[1:], after if index == len(groups) - 1 else [])
        if kind == "unique":
            values = [":".join(values)]
        for text in values:
            sample = _sample(kind, text, weight) if kind else "unknown type"
            if isinstance(sample, str):
                bad.append(sample)
            else:
                samples.append(sample)
        if kind in ("timer", "histogram") and isinstance(sample, Sample):
            sum, sum_squares = _sums(fields[1:])
            samples[-1] = sample._replace(sum=sum, sum_squares=sum_squares)
        values = []
    bad += ["no type"] * len(values)
    return samples, bad


def _weight(fields: list[str], after: list[str]) -> float:
    """Return 1 / rate, or 1 for a sample without a rate, or NaN if the fields are bad."""
    if fields and not (fields[0].startswith("@") or _TIME.fullmatch(fields[0])):
        return math.nan
    for field in (*fields, *after):
        if field.startswith("@"):
            written = field.rstrip(_WHITE)
            if not _RATE.fullmatch(written):
                return math.nan
            rate = float(written[1:])
            weight = 1 / rate if 0 < rate <= 1 else math.nan
            return weight if math.isfinite(weight) else math.nan
    return 1.0


def _sums(fields: list[str]) -> tuple[float, float]:
    """Return the corrections of the sums in the first such field, or zeros."""
    for match in filter(None, map(_SUMS.fullmatch, fields)):
        sums = float(match[1]), float(match[2])
        return sums if all(map(math.isfinite, sums)) else (0.0, 0.0)
    return 0.0, 0.0


def _sample(kind: Kind, text: str, weight: float) -> Sample | str:
    """Return a sample, or the reason why it is bad."""
    if math.isnan(weight):
        return "bad rate"
    if kind == "unique":
        return Sample(kind, member=text or "0")
    value = number(text)
    if value is None:
        return "bad value"
    # The largest number that is added up later: for distributions, the squares.
    reach = value if kind == "gauge" else value * weight if kind == "counter" else value * value * weight
    if not math.isfinite(reach):
        return "value out of range"
    if kind == "timer" and value < 0:
        return "negative time"
    return Sample(kind, value, weight, kind == "gauge" and text[0] in "+-")


# -- Graphite

Point = tuple[str, float, int]
"""Path, value, and timestamp in whole seconds since the epoch."""

_LAST_STAMP = 2**32 - 1  # whisper stores a timestamp in four bytes
_NOT_IN_PATH = re.compile(r"[\x00-\x20\x7f-\x9f\ufffd]")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


def parse_point(line: str, now: float) -> Point | str:
    """Return the point of a line ``path value timestamp``, or the cause of a drop: ``bad`` or ``not_finite``.

    The timestamps ``-1`` and ``N`` mean ``now``. Tags are returned in canonical order. A path may contain any
    characters except white space, control characters and U+FFFD, which replaces invalid UTF-8.
    """
    fields = line.split()
    if len(fields) != 3:
        return "bad"
    path = _path(fields[0])
    value = number(fields[1])
    stamp = now if fields[2] == "N" else number(fields[2])
    if stamp == -1:
        stamp = now
    if path is None or stamp is None or not 0 <= stamp <= _LAST_STAMP:
        return "bad"
    if value is None:
        return "not_finite" if _NOT_FINITE.fullmatch(fields[1]) else "bad"
    return (path, value, int(stamp)) if math.isfinite(value) else "not_finite"


def _path(text: str) -> str | None:
    if len(text) > LONGEST_KEY or _NOT_IN_PATH.search(text):
        return None
    return canonical_path(text) if ";" in text else text
