"""The queue of one destination: the order of batches, their bound, and the counts of all points.

::

             put                  take                     ack
    batches ─────▶ waiting ◀────────────────▶ being sent ─────▶ delivered ──▶ ResendBuffer
                   │   ▲ ▲       retry            │                                │
                   │   │ └────────────────────────┼──────── after an outage ◀──────┘
                   ▼   │ adopted from a           ▼
                dropped  dead process' file    lost (dropped, by cause)

*Order.* If sending again is harmless (Graphite keeps the last value of a slot), batches are sent in the order of
``(-stamp, sequence)``: the newest timestamp first, and first in, first out within one timestamp. This has the following
consequences. After an outage, the newest window is sent first, then the backlog. The older value of a slot never
arrives last, because it has the same timestamp and a smaller sequence than the newer one. Failed and repeated batches
keep their sequence, so they are sent before all later batches with the same timestamp. Destinations that add values up
get everything first in, first out: their key is only the sequence.

*Backlog.* Batches that were put before the last failed attempt, or found on disk, are backlog. A :class:`RateLimiter`
bounds the rate at which they are sent, so that a server is not flooded after an outage. Newer batches never wait for
it.

*Bound.* At most ``max_bytes`` wait in addition to the windows in flight: the newest one and, while an older one is
being sent, that one. A put above the bound drops the oldest batches. A window of more than ``window_bytes`` loses its
tail. Batches being sent are never dropped, so no point is counted both as dropped and as delivered.

*Counts*, in points. At any moment ``put == delivered + dropped, by cause + waiting``. A batch that is sent once more
counts as delivered once, whatever the result of the repetition.

*Payloads* are in memory or, with a :class:`~.store.Store`, in the store. The queue never holds its own lock while it
calls the store. Batches that the store finds in the files of dead processes arrive through :meth:`Queue.hand_over`. A
batch is stored before it waits here, and removed from the store after it was delivered or dropped. So after a crash at
any line it is in the store, and may be sent once more, or it was delivered.
"""

import itertools
import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption
from .batch import Batch, quantity
from .destination import Destination, Options

if TYPE_CHECKING:
    from .store import Record, Store

__all__ = [
    "ADVICE",
    "OVERHEAD",
    "REPEAT",
    "WINDOW_BYTES",
    "Entry",
    "Queue",
    "QueueStats",
    "RateLimiter",
    "ResendBuffer",
]

log = logging.getLogger("metricslib")

OVERHEAD = 250
"""Bytes of a batch without its payload. They count towards the bound, so that many small batches are bounded, too."""
REPEAT = 60.0
"""Seconds before an outage whose delivered batches are sent again after it."""
WINDOW_BYTES = 1 << 30
"""Maximum number of bytes of a window."""
_JOINED = 1 << 20  # maximum number of bytes of batches that are sent together
_BURST = 1.0  # the limit for this many seconds of a backlog may be sent at once
_QUIET = 60.0  # seconds between two warnings of one cause

ADVICE = {
    "spool_full": "set spool_bytes={max_bytes} or more in its URL",
    "too_old": "set max_age={max_age:.15g}s or more in its URL",
    "too_long": "shorten names and tags, or raise max_line (graphite+pickle: max_frame) in its URL",
    "unconfirmed": "use forwarder+tcp:// or forwarder+unix://, which counts each point exactly once",
    "refused": "start the server, or correct host and port in its URL",
    "unsupported": "send relayed points to a URL that begins with graphite, whisper or console",
    "corrupt": "check the disk of the spool directory; the damaged file has its points only",
    "bad_line": "have its sender write lines of the form PATH VALUE TIMESTAMP",
    "bad_path": "rename the series: a path must end in a name, and no other path may continue it",
    "bad_stamp": "correct the clock of its sender: a whisper file holds timestamps from 1970 to 2106",
    "bad_file": "repair or delete the file that the log names",
}
"""Advice by cause, with twice the current bound. :attr:`.destination.Destination.advice` takes precedence."""
_WINDOW_ADVICE = "one window is too large; measure less, or set the registry's max_bytes={window_bytes} or more"


@dataclass(slots=True, eq=False)
class Entry:
    """A batch that waits or is being sent."""

    sequence: int
    """Increases with each put; negative for batches found on disk."""
    stamp: int
    points: int
    windows: int
    length: int
    """Bytes of the payload."""
    time: float
    """Time at which it was queued, on the monotonic clock."""
    batch: Batch | None
    """None if the payload is in the store."""
    id: int = 0
    """The key in the store; 0: not stored."""
    group: int = 0
    """The number of its window; 0: none."""
    repeat: bool = False
    """True if it was delivered before."""
    taken: bool = False
    """True while it is being sent."""

    @property
    def size(self) -> int:
        return self.length + OVERHEAD

    @property
    def last_line(self) -> bytes:
        """The last line; empty if the payload is in the store."""
        payload = self.batch.payload if self.batch else b""
        return payload[payload.rfind(b"\n", 0, -1) + 1 :]

    @property
    def counted(self) -> int:
        """Number of points that count: 0 for a repetition."""
        return 0 if self.repeat else self.points


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue at one moment: ``put == delivered + sum(dropped.values()) + waiting_points``."""

    put: int
    delivered: int
    windows: int
    """Number of delivered windows."""
    dropped: Mapping[str, int]
    waiting_points: int
    waiting_batches: int
    """Waiting batches, including repetitions. Batches that are being sent together are one."""
    waiting_bytes: int
    """Bytes of waiting batches, including repetitions."""
    backlog_batches: int = 0
    """Waiting batches that belong to a backlog."""
    backlog_points: int = 0
    """Points in these batches, including repetitions."""
    lag: float = 0.0
    """Seconds for which the oldest batch has waited."""
    replay_rate: float = 0.0
    """Maximum number of points per second of a backlog."""
    on_disk: bool = False
    """True if new data survives the process."""
    disk_bytes: int = 0
    """The part of ``waiting_bytes`` that is on disk and survives the process."""
    trouble: str | None = None
    """Why data is not on disk, or what was wrong with the files, as a sentence, or None."""


class RateLimiter:
    """Limits a rate to ``limit`` points per second, after an initial burst of the points of one second."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._paid = 0.0  # time at which the points sent so far are used up at the limit
        self.rate = limit
        """The current rate in points per second, which is below ``limit`` if the destination is slower."""

    def wait(self, now: float) -> float:
        """Return the seconds until more points may be sent."""
        return max(0.0, self._paid - now - _BURST)

    def spend(self, points: int, began: float, now: float) -> None:
        """Count ``points`` that were sent between ``began`` and ``now``."""
        if points:
            seconds = points / self._limit
            self._paid = max(self._paid, began) + seconds
            self.rate = points / max(seconds, now - began)


class ResendBuffer:
    """The batches delivered in the last ``seconds``, at most ``max_bytes``: a server may have lost them from memory."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self.seconds = seconds
        self.max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._size = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, entry: Entry) -> None:
        """Add ``entry``, which was delivered at its ``time``."""
        if not self.seconds:
            return
        self._entries.append(entry)
        self._size += entry.size
        while self._entries and (self._entries[0].time < entry.time - self.seconds or self._size > self.max_bytes):
            self._size -= self._entries.popleft().size

    def take(self, room: int) -> list[Entry]:
        """Empty the buffer, and return the batches of the ``seconds`` before the last delivery, oldest first.

        If they have more than ``room`` bytes, return only the newest.
        """
        entries, size = self._entries, self._size
        self._entries, self._size = deque(), 0
        while entries and size > room:
            size -= entries.popleft().size
        return list(entries)

    def take_ending(self, lines: Collection[bytes], room: int) -> list[Entry]:
        """Remove and return the batches that end with one of ``lines``, and later ones for the same slots.

        If they have more than ``room`` bytes, return only the newest.
        """
        # By timestamp. The buffer is in order of delivery, and the batches of one slot are delivered in order of puts.
        first: dict[int, int] = {}
        for entry in self._entries:
            if entry.last_line in lines:
                first.setdefault(entry.stamp, entry.sequence)
        chosen = [entry for entry in self._entries if entry.sequence >= first.get(entry.stamp, entry.sequence + 1)]
        size = sum(entry.size for entry in chosen)
        while chosen and size > room:
            size -= chosen.pop(0).size
        gone = set(map(id, chosen))
        self._entries = deque(entry for entry in self._entries if id(entry) not in gone)
        self._size -= size
        return chosen


class Queue:
    """The batches that wait for one destination. Thread-safe.

    ``max_bytes``, ``max_age``: bounds in bytes, and in seconds of waiting (None: no bound).
    ``window_bytes``: the maximum number of bytes of a window.
    ``keep``: seconds for which delivered batches are kept for repetition, in a quarter of ``max_bytes`` in addition.
    ``join``: waiting batches are sent together, up to about 1 MiB, with this separator between their payloads.
    ``replay``: maximum number of points per second of a backlog, newest timestamp first; None: first in, first out.
    ``advice``: advice for the log by cause of drops, if it differs from :data:`ADVICE`.
    ``label``: the label of the destination, for the log and the store.
    ``store``: the store of payloads; None: in memory.
    ``once``: batches that were being sent when the process died must not be sent again; they are dropped, cause
    ``unconfirmed``.
    """

    def __init__(
        self,
        max_bytes: int = 64 << 20,
        max_age: float | None = None,
        *,
        keep: float = 0,
        join: bytes | None = None,
        replay: float | None = None,
        once: bool = False,
        window_bytes: int = WINDOW_BYTES,
        advice: Mapping[str, str] | None = None,
        label: str = "",
        store: "Store | None" = None,
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
        self._replay = replay
        self._once = once
        self._window_bytes = window_bytes
        self._advice = {**ADVICE, **(advice or {})}
        self._store = store
        self._clock = clock
        self.label = label
        self.wake: Callable[[], object] = lambda: None
        """Called by the store's thread after batches were found on disk."""
        self.reset_after_fork()
        self.place = store.register(label, self.hand_over) if store else label
        """The name of the queue in the store."""

    @classmethod
    def to(
        cls,
        destination: Destination,
        *,
        window_bytes: int = WINDOW_BYTES,
        store: "Store | None" = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "Queue":
        """Return the queue of a destination, with the bounds of its URL's options."""
        options, again = destination.options, destination.resend
        harmless = again and not destination.deltas
        # Deltas that may be sent again are numbered batches: they need no separator, and no repetition after an outage.
        return cls(
            options.spool_bytes,
            options.max_age,
            keep=REPEAT if harmless else 0,
            join=b"" if again and destination.deltas else None,
            replay=options.replay if harmless else None,
            once=destination.deltas and not again,
            window_bytes=window_bytes,
            advice=destination.advice,
            label=destination.label,
            store=store,
            clock=clock,
        )

    def reset_after_fork(self) -> None:
        """In a forked child, start empty, because the data belongs to the parent. Takes no lock."""
        # Re-entrant, because a signal handler may stop the program while the same thread reads the statistics.
        self._lock = threading.RLock()
        # The store's thread never waits for the lock, because its holder may wait for the store's thread.
        self._found: SimpleQueue[tuple[list[Record], Mapping[str, int]]] = SimpleQueue()
        self._waiting: OrderedDict[int, Entry] = OrderedDict()  # by sequence, in the order in which to drop them
        self._order: list[tuple[int, int]] = []  # a heap of keys; removed entries, and those being sent, are skipped
        self._taken: list[Entry] = []
        self._batch: Batch | None = None  # the batch being sent, after it was read
        self._began = 0.0
        self._next, self._first = 0, 0  # sequences of the next batch, and of the first one that was found on disk
        self._backlog_end = 0  # sequences below this are backlog
        self._groups = itertools.count(1)  # numbers of windows
        self._group = self._sending = 0  # the newest window, and the one from which a batch was sent last
        self._group_sizes: Counter[int] = Counter()  # waiting bytes of each window
        self._freed: list[int] = []  # ids to remove from the store
        self._recent = ResendBuffer(self._keep, self._max_bytes // 4)
        self._limiter = RateLimiter(self._replay) if self._replay else None
        self._size = self._put = self._delivered = self._windows = self._points = 0
        self._dropped: Counter[str] = Counter()
        self._unlogged: Counter[tuple[str, str]] = Counter()  # points, by cause and advice
        self._logged: dict[tuple[str, str], float] = {}

    def change(self, options: Options) -> None:
        """Apply the bounds of other options. The one for bytes applies from the next put."""
        with self._lock:
            self._max_bytes, self._max_age = options.spool_bytes, options.max_age
            self._recent.max_bytes = self._max_bytes // 4
            if self._replay is not None:
                self._replay = options.replay
                self._limiter = RateLimiter(options.replay)

    # -- in

    def put(self, batches: Sequence[Batch]) -> None:
        """Queue the batches of one window, or other batches that belong together. Never raises."""
        entries = self.entries(batches)
        if self._store:
            self._store.put(self.records(entries))
        self.admit(entries)

    def entries(self, batches: Sequence[Batch]) -> list[Entry]:
        """Return ``batches`` as entries. If the window is larger than ``window_bytes``, its tail is dropped."""
        now, size, entries = self._clock.monotonic(), 0, list[Entry]()
        group = next(self._groups) if any(batch.windows for batch in batches) else 0
        for batch in batches:
            size += len(batch.payload) + OVERHEAD
            if size > self._window_bytes:
                self.refuse(sum(one.points for one in batches[len(entries) :]), "spool_full", _WINDOW_ADVICE)
                break
            id = self._store.new_id() if self._store else 0
            length = len(batch.payload)
            entries.append(Entry(0, batch.stamp, batch.points, batch.windows, length, now, batch, id, group))
        return entries

    def records(self, entries: Iterable[Entry]) -> "list[Record]":
        """Return ``entries`` as records of the store."""
        from .store import Record

        age = self._clock.time() - self._clock.monotonic()
        return [Record(e.id, self.place, e.time + age, e.batch, e.length) for e in entries if e.id and e.batch]

    def admit(self, entries: Sequence[Entry]) -> None:
        """Queue ``entries``, which are in the store. Above the bound, the oldest are dropped, cause ``spool_full``."""
        with self._lock:
            self._take_in()
            self._drop_old()
            for entry in entries:
                entry.sequence, self._next = self._next, self._next + 1
                self._group = max(self._group, entry.group)
                entry.batch = None if entry.id else entry.batch
                self._put += entry.points
                self._add(entry)
            self._drop_over()
        self._after()

    def refuse(self, points: int, cause: str, advice: str = "") -> None:
        """Count points that cannot be delivered to this destination as dropped."""
        with self._lock:
            self._put += points
            self._drop(points, cause, advice)
        self._after()

    def hand_over(self, records: "list[Record]", lost: Mapping[str, int]) -> None:
        """Queue batches that the store found on disk, and count ``lost`` points. Called by the store's thread."""
        self._found.put((records, lost))
        self.wake()

    def _take_in(self) -> None:
        while not self._found.empty():
            records, lost = self._found.get()
            for cause, points in lost.items():
                self._put += points
                self._drop(points, cause)
            now, wall = self._clock.monotonic(), self._clock.time()
            group = stamp = 0
            for record in reversed(records):
                batch = record.batch
                self._first -= 1
                if batch.windows or batch.stamp != stamp:  # the last batch of a window
                    group, stamp = self._first if batch.windows else 0, batch.stamp
                time = now - max(0.0, wall - record.put)
                entry = Entry(
                    self._first, stamp, batch.points, batch.windows, record.length, time, None, record.id, group
                )
                self._put += entry.points
                if record.taken and self._once:
                    self._drop(entry.points, "unconfirmed")
                    self._freed.append(entry.id)
                else:
                    self._add(entry, first=True)

    def put_backlog(self, batches: Sequence[Batch]) -> None:
        """Queue batches of an earlier process as a backlog, after all waiting batches of the same slots."""
        entries = self.entries(batches)
        with self._lock:
            for entry in reversed(entries):
                self._first -= 1
                entry.sequence = self._first
                self._put += entry.points
                self._add(entry, first=True)
            self._drop_over()
        self._after()
        if entries:
            self.wake()

    # -- out

    def take(self, *, hurry: bool = False) -> Batch | None:
        """Return the batch to send, or None if none waits, or only a backlog that is not due yet.

        Call :meth:`ack` or :meth:`retry` before another batch is taken. With ``hurry``, the backlog is due at once.
        Raises the store's error if it cannot be read.
        """
        while True:
            with self._lock:
                self._take_in()
                self._drop_old()
                taken = self._taken = self._taken or self._select(hurry)
                batch = self._batch
            self._after()
            if not taken or batch:
                return batch
            batches = [self._read(entry) for entry in taken]
            whole = [one for one in batches if one]
            if self._store and self._once and len(whole) == len(taken):
                self._store.mark([entry.id for entry in taken], True)
            with self._lock:
                if self._taken is not taken:
                    continue
                if len(whole) == len(taken):
                    self._batch = _joined(whole, self._join)
                    continue
                self._put_back()
                for entry, one in zip(taken, batches, strict=True):
                    if one is None:
                        self._drop_entry(entry, "corrupt")

    def wait(self) -> float | None:
        """Return the seconds until there is a batch to send, or None if nothing waits."""
        with self._lock:
            self._take_in()
            head = self._head()
            return 0.0 if self._taken else None if head is None else self._due_in(head)

    def _read(self, entry: Entry) -> Batch | None:
        if entry.batch or not self._store:
            return entry.batch
        return self._store.read(entry.id)

    def _select(self, hurry: bool) -> list[Entry]:
        head = self._head()
        if head is None or not (hurry or self._due_in(head) == 0):
            return []
        self._began, self._sending = self._clock.monotonic(), head.group
        taken, length = list[Entry](), 0
        while head and (not taken or self._joins(taken[0], head, length)):
            heappop(self._order)
            head.taken = True
            taken.append(head)
            length += head.length
            head = self._head()
        return taken

    def _joins(self, first: Entry, other: Entry, length: int) -> bool:
        return self._join is not None and length + other.length <= _JOINED and first.repeat == other.repeat

    def _head(self) -> Entry | None:
        while self._order:
            entry = self._waiting.get(self._order[0][1])
            if entry and not entry.taken:
                return entry
            heappop(self._order)
        return None

    def _due_in(self, head: Entry) -> float:
        return self._limiter.wait(self._clock.monotonic()) if self._limiter and self._is_backlog(head) else 0.0

    # -- outcomes

    def ack(self, batch: Batch, lost: Mapping[str, int] | None = None, *, resend: bool = False) -> None:
        """Count ``batch`` as delivered, except for ``lost`` points, by cause. After :meth:`drop_all`, do nothing.

        ``resend``: the destination is back after an outage, and may have died with points in memory. So the batches
        that were delivered in the :data:`REPEAT` seconds before are sent once more. Raises ValueError if ``lost``
        exceeds the points of the batch.
        """
        self._settle(batch, None, lost or {}, resend)

    def retry(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        """Queue ``batch``, or what remains of it, again. All other points were delivered, or are ``lost``, by cause.

        All waiting batches become a backlog. Raises ValueError if ``remaining`` and ``lost`` exceed the batch.
        """
        self._settle(batch, remaining or batch, lost or {}, False)

    def _settle(self, batch: Batch, remaining: Batch | None, lost: Mapping[str, int], resend: bool) -> None:
        delivered = batch.points - sum(lost.values()) - (remaining.points if remaining else 0)
        if delivered < 0:
            raise ValueError("more remains or was lost than there was")
        with self._lock:
            taken = self._taken
            if batch is not self._batch or not taken:
                return
            first = taken[0]
            if self._limiter and self._is_backlog(first):
                self._limiter.spend(delivered, self._began, self._clock.monotonic())
            self._taken, self._batch = [], None
            if remaining is batch:
                for entry in taken:
                    self._push(entry)
            else:
                self._finish(taken, remaining)
                if not first.repeat:
                    self._delivered += delivered
                    for cause, points in lost.items():
                        self._drop(points, cause)
                    self._windows += batch.windows if delivered and not remaining else 0
            if remaining:
                self._sending = 0
                self._backlog_end = self._next
            else:
                self._resend(first, batch if delivered else None, resend)
        if self._store and remaining:
            if remaining is not batch and first.id:
                self._store.put(self.records([first]))
                first.batch = None
            if self._once:
                self._store.mark([entry.id for entry in taken], False)
        self._after()

    def _finish(self, taken: Sequence[Entry], remaining: Batch | None) -> None:
        """Remove the batches that were sent. What remains of them takes the position of the first one."""
        for entry in taken[1:] if remaining else taken:
            self._remove(entry)
            if entry.id:
                self._freed.append(entry.id)
        if remaining:
            first = taken[0]
            self._count(first, -1)
            first.batch, first.length = remaining, len(remaining.payload)
            first.points, first.windows = remaining.points, remaining.windows
            self._count(first, 1)
            self._push(first)

    def _resend(self, first: Entry, batch: Batch | None, resend: bool) -> None:
        """Add the delivered ``batch`` to the resend buffer. After an outage, queue the buffered batches again.

        They keep their sequences. Of each slot, only the last window is sent again. It has everything that is in the
        earlier ones, and they would overwrite it if the process ended before it is sent again. Relayed points have no
        slot: if older ones are sent again, ``batch`` is also sent again, after them.
        """
        if not self._keep:
            return
        now = self._clock.monotonic()
        repeats = self._recent.take(self._max_bytes - self._size) if resend else []
        last = {one.stamp: one.group for one in (*repeats, first)}
        repeats = [one for one in repeats if not one.stamp or one.group == last[one.stamp]]
        if batch:
            size = len(batch.payload)
            kept = replace(first, batch=batch, points=batch.points, length=size, time=now, id=0, repeat=True)
            if any(one.stamp == kept.stamp and one.sequence < kept.sequence for one in repeats):
                repeats.append(kept)
            elif not first.repeat:
                self._recent.add(kept)
        for one in reversed(repeats):
            one.time = now
            self._add(one, first=True)
        if repeats:
            self._backlog_end = self._next

    def keep(self, seconds: float) -> None:
        """Keep delivered batches in the resend buffer for at least ``seconds``."""
        with self._lock:
            self._keep = self._recent.seconds = max(seconds, self._keep)

    def resend(self, lines: Collection[bytes]) -> list[bytes] | None:
        """Queue delivered batches again that end with one of ``lines``. Return the lines of those still in the buffer.

        Batches that were delivered later for the same slots are also sent again, after them. Return None while a batch
        for these slots is being sent, because it could be newer, and the older value would arrive last. Then the caller
        must try again later.
        """
        with self._lock:
            busy = {entry.stamp for entry in self._taken}
            if busy & {entry.stamp for entry in self._recent if entry.last_line in lines}:
                return None
            again = self._recent.take_ending(lines, self._max_bytes - self._size)
            for one in reversed(again):
                one.time = self._clock.monotonic()
                self._add(one, first=True)
        if again:
            self.wake()
        return [one.last_line for one in again if one.last_line in lines]

    # -- the end

    def drop_all(self, cause: str) -> int:
        """Drop all waiting batches, including the one being sent. Return the number of their points."""
        return self._drop_all(cause, lambda entry: False)

    def drop_unsaved(self, cause: str) -> int:
        """Drop the batches that would not survive the end of the process. Return the number of their points."""
        if not self._store:
            return self.drop_all(cause)
        lacking = self._store.save()
        return self._drop_all(cause, lambda entry: _on_disk(entry, lacking))

    def forget_stored(self) -> None:
        """Forget batches on disk, as if they had never been put. Another process, or this one, will find them again."""
        lacking = self._store.unsaved() if self._store else None
        with self._lock:
            self._take_in()
            self._put_back()
            for entry in [entry for entry in self._waiting.values() if _on_disk(entry, lacking)]:
                self._remove(entry)
                self._put -= entry.counted

    def _drop_all(self, cause: str, stays: Callable[[Entry], bool]) -> int:
        with self._lock:
            self._take_in()
            before = self._points
            self._put_back()
            for entry in [entry for entry in self._waiting.values() if not stays(entry)]:
                self._drop_entry(entry, cause)
            points = before - self._points
        self._after(last=True)
        return points

    # -- state

    def __len__(self) -> int:
        """Return the number of waiting batches. Those being sent together are one."""
        with self._lock:
            self._take_in()
            return len(self._waiting) - max(0, len(self._taken) - 1)

    def stamps(self) -> set[int]:
        """Return the timestamps of the batches that wait or are being sent."""
        with self._lock:
            self._take_in()
            return {entry.stamp for entry in self._waiting.values()}

    def batches(self, stamps: Collection[int]) -> list[Batch]:
        """Return the batches of these slots in memory, including those being sent, by timestamp and order of puts."""
        with self._lock:
            found = [entry for entry in self._waiting.values() if entry.stamp in stamps and entry.batch]
            found.sort(key=lambda entry: (entry.stamp, entry.sequence))
            return [entry.batch for entry in found if entry.batch]

    def stats(self) -> QueueStats:
        """Return the counts, and the state of the queue."""
        store = self._store
        unsaved = store.unsaved() if store else None
        with self._lock:
            self._take_in()
            batches = len(self._waiting)
            stored = sum(entry.length for entry in self._waiting.values() if _on_disk(entry, unsaved)) if store else 0
            backlog = [entry.points for entry in self._waiting.values() if self._limiter and self._is_backlog(entry)]
            now = self._clock.monotonic()
            stats = QueueStats(
                self._put,
                self._delivered,
                self._windows,
                dict(self._dropped),
                self._points,
                len(self),
                self._size - batches * OVERHEAD,
                len(backlog),
                sum(backlog),
                now - min((entry.time for entry in self._waiting.values()), default=now),
                self._limiter.rate if self._limiter else 0.0,
            )
        self._after()
        return replace(stats, on_disk=store.on_disk, disk_bytes=stored, trouble=store.trouble) if store else stats

    # -- the lock is held

    def _is_backlog(self, entry: Entry) -> bool:
        return entry.sequence < self._backlog_end

    def _add(self, entry: Entry, *, first: bool = False) -> None:
        self._waiting[entry.sequence] = entry
        if first:
            self._waiting.move_to_end(entry.sequence, last=False)
        self._push(entry)
        self._count(entry, 1)

    def _remove(self, entry: Entry) -> None:
        del self._waiting[entry.sequence]
        self._count(entry, -1)

    def _count(self, entry: Entry, sign: int) -> None:
        """Add ``entry`` to the counts of waiting batches (sign 1), or remove it (-1)."""
        self._size += sign * entry.size
        self._points += sign * entry.counted
        if entry.group and not entry.repeat:
            self._group_sizes[entry.group] += sign * entry.size
            if not self._group_sizes[entry.group]:
                del self._group_sizes[entry.group]

    def _push(self, entry: Entry) -> None:
        entry.taken = False
        heappush(self._order, self._key(entry))
        if len(self._order) > 2 * len(self._waiting) + 64:
            self._order = [self._key(one) for one in self._waiting.values() if not one.taken]
            heapify(self._order)

    def _key(self, entry: Entry) -> tuple[int, int]:
        return (0 if self._replay is None else -entry.stamp, entry.sequence)

    def _put_back(self) -> None:
        """Queue the batches being sent again, at their positions."""
        taken, self._taken, self._batch = self._taken, [], None
        for entry in taken:
            self._push(entry)

    def _drop_over(self) -> None:
        if self._size <= self._max_bytes:
            return
        in_flight = {self._group, self._sending} - {0}
        while self._size - sum(self._group_sizes[group] for group in in_flight) > self._max_bytes:
            droppable = (e for e in self._waiting.values() if not e.taken and (e.repeat or e.group not in in_flight))
            if (entry := next(droppable, None)) is None:
                return
            self._drop_entry(entry, "spool_full")

    def _drop_old(self) -> None:
        if self._max_age is not None:
            before = self._clock.monotonic() - self._max_age
            aging = itertools.takewhile(lambda e: e.repeat or e.time < before, self._waiting.values())
            for entry in [e for e in aging if e.time < before and not e.taken]:
                self._drop_entry(entry, "too_old")

    def _drop_entry(self, entry: Entry, cause: str) -> None:
        self._remove(entry)
        self._drop(entry.counted, cause)
        if entry.id:
            self._freed.append(entry.id)

    def _drop(self, points: int, cause: str, advice: str = "") -> None:
        if points:
            self._dropped[cause] += points
            if cause != "shutdown":  # the dispatcher logs this cause in one line for all destinations
                self._unlogged[cause, advice or self._advice.get(cause, "")] += points

    # -- without the lock

    def _after(self, *, last: bool = False) -> None:
        """Do the work for which the lock must not be held: remove finished batches from the store, and log drops.

        ``last``: the process may end now, so delayed warnings are logged, too.
        """
        if self._freed and self._store:
            freed, self._freed = self._freed, []
            self._store.ack(freed)
        if self._unlogged:
            with self._lock:
                now = self._clock.monotonic()
                due = [key for key in self._unlogged if last or now - self._logged.get(key, -_QUIET) >= _QUIET]
                self._logged.update(dict.fromkeys(due, now))
                drops = [(*key, self._unlogged.pop(key)) for key in due]
            bounds = {"max_bytes": self._max_bytes, "max_age": self._max_age or 0, "window_bytes": self._window_bytes}
            twice = {name: 2 * bound for name, bound in bounds.items()}
            for cause, advice, points in drops:
                change = advice and f": {advice.format_map(twice)}"
                log.warning("%s: %s dropped, cause %s%s", self.label, quantity(points, "point"), cause, change)


def _on_disk(entry: Entry, unsaved: set[int] | None) -> bool:
    """Return True if a batch survives the process. ``unsaved``: ids of those that do not (None: all)."""
    return unsaved is not None and entry.id != 0 and entry.id not in unsaved


def _joined(batches: Sequence[Batch], separator: bytes | None) -> Batch:
    """Return several batches as one, with ``separator`` between their payloads."""
    if len(batches) == 1:
        return batches[0]
    payload = (separator or b"").join([batch.payload for batch in batches])
    points, windows = sum(batch.points for batch in batches), sum(batch.windows for batch in batches)
    return Batch(batches[0].stamp, points, payload, windows)
