"""The spool: batches on their way to one destination, oldest first, until they are delivered or have to be dropped.

The account is kept in points, and balances at any moment: what was put is delivered, dropped (by cause) or waiting.

A batch at the head is taken while it is being delivered: nothing drops it meanwhile, so no point is ever counted both
as dropped and as delivered. What was delivered in the last seconds may be kept and sent again, for a Graphite server
may die with points it had only in memory. Such a repeat was delivered once and stays so in the account, whatever
becomes of it; and it happens once a batch, so that a destination that comes and goes is not sent the same again and
again.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption

__all__ = ["Batch", "Holdings", "MemorySpool", "Spool"]

_OVERHEAD = 250
"""Bytes that a batch takes beside its payload; counts towards the bound, so that many small batches are bounded too."""

_JOINED = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A piece of what is to be delivered. Two batches are the same only if they are one object."""

    stamp: int
    points: int
    """How many values or lines are in it: the unit of the account."""
    payload: bytes
    windows: int = 1
    """How many windows are sent when it is: 0 for all but the last piece of one, and for relayed points."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """A spool at one moment: ``put == delivered + sum(dropped.values()) + waiting_points``."""

    put: int
    delivered: int
    windows: int
    """How many windows are among the delivered."""
    dropped: Mapping[str, int]
    waiting_points: int
    waiting_batches: int
    """Repeats among them."""
    waiting_bytes: int
    """Those of repeats among them."""


class Spool(Protocol):
    """What a courier asks of a spool. Every method may be called from any thread; none raises for what is put in."""

    def put(self, batch: Batch) -> None:
        """Let ``batch`` wait behind all others. Over a bound the oldest are dropped, cause ``spool_full``."""
        ...

    def refuse(self, points: int, cause: str) -> None:
        """Count points that were to be put but cannot be delivered here."""
        ...

    def head(self) -> Batch | None:
        """Take and return the oldest batch, None when nothing waits. It must be settled before the next is taken."""
        ...

    def settle(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        """Say what became of the batch taken.

        ``remaining`` goes on waiting at the head, ``lost`` points are dropped, by cause, and all else was delivered.
        Raises ValueError if that is more than there was. A batch that was abandoned meanwhile is ignored.
        """
        ...

    def rewind(self, seconds: float) -> int:
        """Put what was delivered in the last ``seconds`` before the last delivery in front again; return its points.

        The batch taken then goes on waiting behind it: an older batch may hold an older value of the same slot, and
        must not be the last to arrive.
        """
        ...

    def abandon(self, cause: str) -> int:
        """Drop all that waits, the batch taken too; return its points."""
        ...

    def holdings(self) -> Holdings:
        """Return the account and what waits."""
        ...

    def forget(self) -> None:
        """In a forked child: start empty. What waits is the parent's. No lock of the parent is touched."""
        ...


class _Item:
    """A batch in the spool, with the time it was put or, once delivered, delivered."""

    __slots__ = ("batch", "repeat", "time")

    def __init__(self, batch: Batch, time: float, repeat: bool = False) -> None:
        self.batch = batch
        self.time = time
        self.repeat = repeat

    @property
    def size(self) -> int:
        return len(self.batch.payload) + _OVERHEAD


class MemorySpool:
    """Keeps batches in memory: at most ``max_bytes`` of them, none longer than ``max_age`` seconds (None: for ever).

    With ``keep``, what was delivered in that many seconds is kept for :meth:`rewind`, in at most a quarter of
    ``max_bytes`` on top. A batch larger than the bound is dropped at once. With ``join``, batches that wait together
    are taken as one of about a mebibyte at most, with ``join`` between their payloads.
    """

    def __init__(
        self,
        max_bytes: int = 64 << 20,
        max_age: float | None = None,
        *,
        keep: float = 0,
        join: bytes | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not max_bytes > 0:
            raise InvalidOption("max_bytes", max_bytes, "must be a number of bytes above 0")
        if max_age is not None and not max_age > 0:
            raise InvalidOption("max_age", max_age, "must be a number of seconds above 0, or None")
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._join = join
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        # Re-entrant, for a signal handler may stop the program while the same thread is reading the holdings.
        self._lock = threading.RLock()
        self._waiting: deque[_Item] = deque()
        self._taken: _Item | None = None
        self._kept: deque[_Item] = deque()
        self._size = 0
        self._kept_size = 0
        self._put = 0
        self._delivered = 0
        self._windows = 0
        self._points = 0
        self._dropped: Counter[str] = Counter()

    def put(self, batch: Batch) -> None:
        with self._lock:
            self._put += batch.points
            self._drop_old()
            item = _Item(batch, self._clock.monotonic())
            taken = self._taken.size if self._taken else 0
            if taken + item.size > self._max_bytes:
                self._dropped["spool_full"] += batch.points
                return
            self._append(item)
            while self._size > self._max_bytes:
                self._drop(self._waiting.popleft(), "spool_full")

    def refuse(self, points: int, cause: str) -> None:
        with self._lock:
            self._put += points
            self._dropped[cause] += points

    def head(self) -> Batch | None:
        with self._lock:
            if self._taken is None:
                self._drop_old()
                self._taken = self._next() if self._waiting else None
            return self._taken.batch if self._taken else None

    def settle(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        lost = lost or {}
        delivered = batch.points - sum(lost.values()) - (remaining.points if remaining else 0)
        if delivered < 0:
            raise ValueError("more remains or was lost than there was")
        with self._lock:
            item = self._taken
            if item is None or item.batch is not batch:
                return
            self._taken = None
            self._remove(item)
            if remaining:
                self._append(_Item(remaining, item.time, item.repeat), left=True)
            if item.repeat:
                return
            self._delivered += delivered
            for cause, points in lost.items():
                self._dropped[cause] += points
            if delivered and not remaining:
                self._windows += batch.windows
                self._keep_delivered(batch)

    def rewind(self, seconds: float) -> int:
        points = 0
        with self._lock:
            since = self._kept[-1].time - seconds if self._kept else 0.0
            now = self._clock.monotonic()
            while self._kept and self._kept[-1].time >= since:
                item = self._kept.pop()
                if self._size + item.size > self._max_bytes:
                    break
                if self._taken:
                    self._waiting.appendleft(self._taken)
                    self._taken = None
                self._append(_Item(item.batch, now, repeat=True), left=True)
                points += item.batch.points
            self._kept.clear()
            self._kept_size = 0
        return points

    def abandon(self, cause: str) -> int:
        with self._lock:
            before = self._points
            if self._taken:
                self._drop(self._taken, cause)
                self._taken = None
            while self._waiting:
                self._drop(self._waiting.popleft(), cause)
            return before

    def holdings(self) -> Holdings:
        with self._lock:
            batches = len(self._waiting) + (self._taken is not None)
            size = self._size - batches * _OVERHEAD
            dropped = dict(self._dropped)
            return Holdings(self._put, self._delivered, self._windows, dropped, self._points, batches, size)

    # -- the lock is held

    def _append(self, item: _Item, *, left: bool = False) -> None:
        (self._waiting.appendleft if left else self._waiting.append)(item)
        self._size += item.size
        self._points += 0 if item.repeat else item.batch.points

    def _remove(self, item: _Item) -> None:
        self._size -= item.size
        self._points -= 0 if item.repeat else item.batch.points

    def _next(self) -> _Item:
        """Take the oldest batch out of those that wait, and with ``join`` as many more as fit."""
        items = [self._waiting.popleft()]
        if self._join is None:
            return items[0]
        size = len(items[0].batch.payload)
        while self._waiting and size + len(self._waiting[0].batch.payload) <= _JOINED:
            items.append(self._waiting.popleft())
            size += len(items[-1].batch.payload)
        if len(items) == 1:
            return items[0]
        batches = [item.batch for item in items]
        payload = self._join.join([batch.payload for batch in batches])
        points, windows = sum(batch.points for batch in batches), sum(batch.windows for batch in batches)
        joined = _Item(Batch(batches[0].stamp, points, payload, windows), items[0].time)
        self._size += joined.size - sum(item.size for item in items)
        return joined

    def _drop(self, item: _Item, cause: str) -> None:
        self._remove(item)
        if not item.repeat:
            self._dropped[cause] += item.batch.points

    def _drop_old(self) -> None:
        if self._max_age is not None:
            before = self._clock.monotonic() - self._max_age
            while self._waiting and self._waiting[0].time < before:
                self._drop(self._waiting.popleft(), "too_old")

    def _keep_delivered(self, batch: Batch) -> None:
        if not self._keep:
            return
        item = _Item(batch, self._clock.monotonic())
        self._kept.append(item)
        self._kept_size += item.size
        while self._kept and (self._kept[0].time < item.time - self._keep or self._kept_size > self._max_bytes // 4):
            self._kept_size -= self._kept.popleft().size
