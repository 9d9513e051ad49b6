"""The basic types of delivery: a batch of bytes, the error of a failed delivery, and the deadline of an attempt.

A batch is immutable. Its payload consists of lines, so it can be counted, and split at line ends. Graphite lines all
end with a line feed. statsd lines are grouped into datagrams, with an empty line between two datagrams.

An attempt to deliver a batch ends in one of three ways, which determine what happens to each point:

- The destination returns a mapping: points in the mapping are lost, by cause, and all others are delivered.
- It raises :class:`Undelivered`: ``remaining`` is tried again, ``lost`` is lost, and all other points are delivered.
- It raises another exception, which is a defect: the whole batch is tried again.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import MetricsError

__all__ = ["LONGEST", "Batch", "Deadline", "Undelivered", "batches_of", "count_lines", "quantity", "split_lines"]

_BATCH = 1 << 20
"""Approximate number of bytes in a batch. A server reads it within seconds, and a failed batch is sent again whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Bytes to deliver. Two batches are equal only if they are the same object."""

    stamp: int
    """The end of the points' interval, in seconds since the epoch; 0 for relayed points."""
    points: int
    """Number of values or lines: the unit of all counts."""
    payload: bytes
    windows: int = 1
    """Number of windows that are complete when it is delivered: 0 except for the last batch of a window."""


class Undelivered(MetricsError):
    """A delivery failed, completely or in part.

    ``reason`` is a text for logs, without secrets. ``remaining`` must be tried again. ``lost`` is the number of lines,
    by cause, that were not delivered and must not be sent again. All other lines were delivered. ``points`` is the
    number of remaining points if not every line is a point.
    """

    def __init__(
        self, reason: str, remaining: bytes, lost: Mapping[str, int] | None = None, *, points: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remaining = remaining
        self.lost: Mapping[str, int] = lost or {}
        self.points = points


def count_lines(payload: bytes, *, datagrams: bool = True) -> int:
    """Return the number of lines in ``payload``, without the empty ones between ``datagrams``.

    >>> count_lines(b"a 1 0\\nb 2 0\\n"), count_lines(b"a:1|c\\nb:1|c\\n\\nc:1|c"), count_lines(b"")
    (2, 3, 0)
    """
    unterminated = bool(payload) and not payload.endswith(b"\n")
    empty = payload.count(b"\n\n") if datagrams else 0  # only if necessary, because this takes most of the time
    return payload.count(b"\n") - empty + unterminated


def split_lines(payload: bytes, separator: bytes, limit: int) -> Iterator[bytes]:
    """Split ``payload`` after separators into pieces of at most ``limit`` bytes. Joined, they are ``payload``.

    A piece is longer only if it contains no separator except at its end.
    """
    start, end = 0, len(payload)
    while end - start > limit:
        cut = payload.rfind(separator, start, start + limit)
        if cut < 0 and (cut := payload.find(separator, start + limit - len(separator) + 1)) < 0:
            break
        yield payload[start : cut + len(separator)]
        start = cut + len(separator)
    if start < end:
        yield payload[start:]


def batches_of(
    stamp: int, payload: bytes, separator: bytes = b"\n", *, windows: int = 1, size: int = _BATCH
) -> list[Batch]:
    """Return ``payload`` in batches of about ``size`` bytes. The last one completes the window."""
    parts = [part.removesuffix(b"\n\n") for part in split_lines(payload, separator, size)]
    datagrams, last = separator != b"\n", len(parts) - 1
    return [
        Batch(stamp, count_lines(part, datagrams=datagrams), part, windows if place == last else 0)
        for place, part in enumerate(parts)
    ]


def quantity(count: int, noun: str) -> str:
    """Return a number with its noun, for logs.

    >>> quantity(1, "point"), quantity(2, "batch")
    ('1 point', '2 batches')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"


LONGEST = 1e9
"""Maximum number of seconds, 31 years. It replaces infinity, because waits of the operating system are limited."""


def bounded(seconds: float) -> float:
    """Return ``seconds`` as a valid duration of a wait: 0 if negative or NaN, and at most :data:`LONGEST`."""
    return max(0.0, min(seconds, LONGEST))


class Deadline:
    """The time at which an operation must end. It may be changed while the operation waits.

    It is ``seconds`` from now, at most :data:`LONGEST`. Any thread may read it, or :meth:`cut` it short. It uses the
    system's monotonic clock, saved at import, because sockets do not follow the clock of a test.
    """

    __slots__ = ("_bound", "_end", "_now", "urgent")

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + bounded(seconds)
        self._bound = math.inf
        self.urgent = False
        """True if a caller is blocked on this operation, or more waits behind it."""

    def left(self) -> float:
        """Return the remaining seconds, or 0."""
        return max(0.0, min(self._end, self._bound) - self._now())

    def cut(self, seconds: float) -> None:
        """End at most ``seconds`` from now. :meth:`extend` cannot undo this."""
        self._bound = min(self._bound, self._now() + seconds)

    @property
    def was_cut(self) -> bool:
        """True if it was cut short, because the program ends and no attempt follows."""
        return self._bound < math.inf

    def extend(self, seconds: float) -> None:
        """End ``seconds`` from now, unless it was cut to an earlier time."""
        self._end = self._now() + bounded(seconds)

    def part(self, share: float) -> "Deadline":
        """Return a deadline that ends after ``share`` of the remaining time, and never after this one."""
        return _Part(self, share)


class _Part(Deadline):
    __slots__ = ("_whole",)

    def __init__(self, whole: Deadline, share: float) -> None:
        super().__init__(whole.left() * share, whole._now)
        self._whole = whole

    def left(self) -> float:
        return min(super().left(), self._whole.left())

    @property
    def was_cut(self) -> bool:
        return super().was_cut or self._whole.was_cut
