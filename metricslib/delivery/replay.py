"""What is sent again after an outage, and how fast a backlog goes out beside what is new."""

from collections import deque
from collections.abc import Iterator

from .batch import Batch
from .items import Item

__all__ = ["Kept", "Pace"]

_BURST = 1.0
"""Seconds of replay that may go out at once."""


class Pace:
    """At most ``limit`` points a second, but for those of the first second."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._paid = 0.0  # until when what went out takes at the limit
        self.rate = limit
        """Points a second that went out last: fewer than ``limit`` where the destination is slower."""

    def wait(self, now: float) -> float:
        """Return the seconds until more may go out."""
        return max(0.0, self._paid - now - _BURST)

    def spend(self, points: int, began: float, now: float) -> None:
        """So many points have gone out between ``began`` and ``now``."""
        if points:
            seconds = points / self._limit
            self._paid = max(self._paid, began) + seconds
            self.rate = points / max(seconds, now - began)


class Kept:
    """Batches delivered in the last ``seconds``, within ``max_bytes``."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._size = 0

    def add(self, batch: Batch, now: float) -> None:
        """``batch`` was delivered."""
        if not self._seconds:
            return
        self._items.append(Item(batch, now))
        self._size += self._items[-1].size
        while self._items and (self._items[0].time < now - self._seconds or self._size > self._max_bytes):
            self._size -= self._items.popleft().size

    def rewound(self, seconds: float) -> Iterator[Batch]:
        """Yield what was delivered in the ``seconds`` before the last delivery, the last first, and keep nothing."""
        items, self._items, self._size = self._items, deque(), 0
        for item in reversed(items):
            if item.batch and item.time >= items[-1].time - seconds:
                yield item.batch
