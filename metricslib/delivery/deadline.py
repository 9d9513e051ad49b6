"""A moment by which something must be over, and which may be moved while it is waited for."""

import math
import time
from collections.abc import Callable

__all__ = ["LONGEST", "Deadline"]


LONGEST = 1e9
"""Seconds, 31 years. A caller's infinity is this: no wait of the operating system takes more than 292 years."""


def bounded(seconds: float) -> float:
    """Return a number of seconds that can be waited: 0 for a negative one and for NaN, :data:`LONGEST` at most."""
    return max(0.0, min(seconds, LONGEST))


class Deadline:
    """Ends ``seconds`` from now, :data:`LONGEST` at most. Any thread may ask it, or :meth:`cut` it short.

    It runs by the machine's own monotonic clock, taken once at import, for sockets do not live in a test's time.
    """

    __slots__ = ("_bound", "_end", "_now", "urgent")

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + bounded(seconds)
        self._bound = math.inf
        self.urgent = False
        """Whether somebody waits for the end of what this is the deadline of, so that it should come soon."""

    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, min(self._end, self._bound) - self._now())

    def cut(self, seconds: float) -> None:
        """End at most ``seconds`` from now, and let nobody put that off."""
        self._bound = min(self._bound, self._now() + seconds)

    def extend(self, seconds: float) -> None:
        """End ``seconds`` from now, unless it was cut to be earlier."""
        self._end = self._now() + bounded(seconds)

    def part(self, share: float) -> "Deadline":
        """Return one that ends when ``share`` of what is left has passed, and never after this one."""
        return _Part(self, share)


class _Part(Deadline):
    __slots__ = ("_whole",)

    def __init__(self, whole: Deadline, share: float) -> None:
        super().__init__(whole.left() * share, whole._now)
        self._whole = whole

    def left(self) -> float:
        return min(super().left(), self._whole.left())
