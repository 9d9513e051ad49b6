"""What delivery is about: a batch of bytes, the error that says it did not arrive, and the deadline of an attempt.

Everything else in this folder is built on these three. A batch is immutable, and its payload consists of lines, which
can be counted, and split where a line ends. Lines of Graphite all end in a newline. Lines of statsd are grouped into
datagrams, with an empty line between two datagrams.

An attempt to deliver a batch ends in one of three ways, and each point of the batch has exactly one fate:

- the destination returns: all of it is delivered, save what the returned mapping says was lost, by cause;
- it raises :class:`Undelivered`: ``remaining`` is to be tried again, ``lost`` is lost, the rest was delivered;
- it raises anything else, which is a defect: the whole batch is tried again.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import MetricsError

__all__ = ["LONGEST", "Batch", "Deadline", "Undelivered", "batches_of", "count_lines", "quantity", "split_lines"]

_BATCH = 1 << 20
"""Bytes in a batch, about: what a server takes within seconds, and must be sent again if it does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Bytes to deliver. Two batches are equal only if they are the same object."""

    stamp: int
    """The end of the interval that the points belong to, in seconds since the epoch; 0 for relayed points."""
    points: int
    """How many values or lines are in it: the unit of all accounts."""
    payload: bytes
    windows: int = 1
    """How many windows are complete once it is delivered: 0 for all but the last batch of a window."""


class Undelivered(MetricsError):
    """A delivery failed, wholly or in part.

    ``reason`` is a text for logs, without secrets. ``remaining`` must be tried again. ``lost`` counts, by cause, lines
    that were not delivered and must not be sent again. All other lines were delivered. ``points`` is the number of
    remaining points where not every line is one.
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
    """Return how many lines are in ``payload``, empty ones between ``datagrams`` left out.

    >>> count_lines(b"a 1 0\\nb 2 0\\n"), count_lines(b"a:1|c\\nb:1|c\\n\\nc:1|c"), count_lines(b"")
    (2, 3, 0)
    """
    unterminated = bool(payload) and not payload.endswith(b"\n")
    empty = payload.count(b"\n\n") if datagrams else 0  # to look for them takes longer than all the rest
    return payload.count(b"\n") - empty + unterminated


def split_lines(payload: bytes, separator: bytes, limit: int) -> Iterator[bytes]:
    """Cut ``payload`` after a separator into pieces of at most ``limit`` bytes; joined, they are ``payload``.

    Only what has no separator for longer than that makes a longer piece.
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
    """Return ``payload`` in batches of about ``size`` bytes; the last one stands for the window."""
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
"""Seconds, 31 years. A caller's infinity is this: no wait of the operating system takes more than 292 years."""


def bounded(seconds: float) -> float:
    """Return a number of seconds that can be waited: 0 for a negative one and for NaN, :data:`LONGEST` at most."""
    return max(0.0, min(seconds, LONGEST))


class Deadline:
    """A moment by which an operation must end. It may be moved while the operation waits.

    It is ``seconds`` from now, :data:`LONGEST` at most. Any thread may read it, or :meth:`cut` it short. It uses the
    machine's own monotonic clock, taken once at import, because sockets do not follow a test's clock.
    """

    __slots__ = ("_bound", "_end", "_now", "urgent")

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + bounded(seconds)
        self._bound = math.inf
        self.urgent = False
        """True if a caller is blocked on this operation, or more waits behind it."""

    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, min(self._end, self._bound) - self._now())

    def cut(self, seconds: float) -> None:
        """End at most ``seconds`` from now; :meth:`extend` cannot undo that."""
        self._bound = min(self._bound, self._now() + seconds)

    def extend(self, seconds: float) -> None:
        """End ``seconds`` from now, unless it was cut to be earlier."""
        self._end = self._now() + bounded(seconds)

    def part(self, share: float) -> "Deadline":
        """Return a deadline that ends when ``share`` of the time left has passed, and never after this one."""
        return _Part(self, share)


class _Part(Deadline):
    __slots__ = ("_whole",)

    def __init__(self, whole: Deadline, share: float) -> None:
        super().__init__(whole.left() * share, whole._now)
        self._whole = whole

    def left(self) -> float:
        return min(super().left(), self._whole.left())
