"""What waits for one destination, in which order, and the account of it. No lock, no payload read, no disk: the spools
have those.

There are two lanes. Where sending again is harmless, an outage makes a *backlog* of all that waits; what comes later is
*live*, and goes first. The backlog replays beside it, at a bounded rate. A batch whose stamp is in the backlog joins
it, so that an older value of a slot is never the last to arrive. Destinations that add up have one lane, first in,
first out.

The account is kept in points, and balances at any moment: what was put is delivered, dropped (by cause) or waiting.

What is taken is being delivered: nothing drops it meanwhile, so no point is ever counted both as dropped and as
delivered. What was delivered in the last seconds may be kept and sent again, for a Graphite server may die with points
it had only in memory. Such a repeat was delivered once and stays so in the account, whatever becomes of it; and it
happens once a batch, so that a destination that comes and goes is not sent the same again and again.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption
from .batch import Batch
from .destination import Destination
from .items import OVERHEAD, Item, Taken
from .replay import Kept, Pace
from .spool import Holdings

__all__ = ["Lanes", "lanes_for"]

_JOINED = 1 << 20
REPEAT = 60.0
"""How many seconds of delivered batches are sent again after an outage."""


class Lanes:
    """At most ``max_bytes`` wait, none longer than ``max_age`` seconds (None: for ever).

    With ``keep``, what was delivered in that many seconds is kept for :meth:`rewind`, in at most a quarter of
    ``max_bytes`` on top. An item larger than the bound is dropped at once. With ``join``, items that wait together are
    taken together, up to about a mebibyte, with ``join`` between their payloads. With ``replay``, what is live goes
    first, and the backlog at that many points a second; None: first in, first out.
    """

    def __init__(
        self,
        max_bytes: int = 64 << 20,
        max_age: float | None = None,
        *,
        keep: float = 0,
        join: bytes | None = None,
        replay: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not max_bytes > 0:
            raise InvalidOption("max_bytes", max_bytes, "must be a number of bytes above 0")
        if max_age is not None and not max_age > 0:
            raise InvalidOption("max_age", max_age, "must be a number of seconds above 0, or None")
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._join = join is not None
        self.separator = join or b""
        self._replay = replay
        self._one_lane = replay is None
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Start empty, with a new account."""
        self.taken: Taken | None = None
        self.freed: list[int] = []
        """Ids of what waits no more, for whoever keeps it on disk to take away."""
        self._live: deque[Item] = deque()
        self._backlog: deque[Item] = deque()
        self._stamps: Counter[int] = Counter()  # in the backlog, and on their way out of it
        self._kept = Kept(self._keep, self._max_bytes // 4)
        self._pace = Pace(self._replay) if self._replay else None
        self._size = 0
        self._put = 0
        self._delivered = 0
        self._windows = 0
        self._points = 0
        self._backlog_points = 0  # repeats among them
        self._dropped: Counter[str] = Counter()

    # -- in

    def put(self, item: Item) -> None:
        """Let ``item`` wait behind all others of its lane. Over a bound the oldest are dropped, cause ``spool_full``.

        What cannot fit beside what is on its way is dropped itself.
        """
        self._put += item.points
        self._drop_old()
        taken = sum(one.size for one in self.taken.items) if self.taken else 0
        if taken + item.size > self._max_bytes:
            self._drop(item, "spool_full")
            return
        self._add(item, live=self._one_lane or not self._stamps[item.stamp])
        self._drop_over()

    def adopt(self, items: Iterable[Item]) -> None:
        """Let what was found on disk wait in front of all others, as it is older."""
        self._shelve()
        for item in reversed(list(items)):
            self._put += item.points
            self._add(item, live=self._one_lane, left=True)
        self._drop_over()

    def refuse(self, points: int, cause: str) -> None:
        """Count points that were to be put but cannot be delivered here."""
        self._put += points
        self._dropped[cause] += points

    # -- out

    def take(self, *, hurry: bool = False) -> Taken | None:
        """Return what is on its way, or else take the oldest of what is live, or else of the backlog if it is due.

        With ``hurry`` the backlog is due at any rate.
        """
        if self.taken is None:
            self._drop_old()
            live = bool(self._live)
            now = self.clock.monotonic()
            if live or (self._backlog and (hurry or not self._wait(now))):
                self.taken = Taken(self._together(self._lane(live)), live, now)
        return self.taken

    def pause(self) -> float | None:
        """Return the seconds until something may be taken; None when nothing waits."""
        if self.taken or self._live:
            return 0.0
        return self._wait(self.clock.monotonic()) if self._backlog else None

    def _wait(self, now: float) -> float:
        return self._pace.wait(now) if self._pace else 0.0

    def settle(
        self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None
    ) -> Item | None:
        """Say what became of the batch taken, see :meth:`~.spool.Spool.settle`; return what remains as a new item.

        All that waits is then a backlog. Where the whole batch remains, it is its old items that go on waiting.
        """
        lost = lost or {}
        delivered = batch.points - sum(lost.values()) - (remaining.points if remaining else 0)
        if delivered < 0:
            raise ValueError("more remains or was lost than there was")
        taken = self.taken
        if taken is None or taken.batch is not batch:
            return None
        if self._pace and not taken.live:
            self._pace.spend(delivered, taken.began, self.clock.monotonic())
        if remaining is batch:
            self._put_back(taken, front=not taken.live)
            self._shelve()
            return None
        first = taken.items[0]
        rest = Item(remaining, first.time, first.id, repeat=first.repeat) if remaining else None
        self._replace(taken, rest)
        if not first.repeat:
            self._delivered += delivered
            self._dropped.update(lost)
            if delivered and not remaining:
                self._windows += batch.windows
                self._kept.add(batch, self.clock.monotonic())
        return rest

    def rewind(self, seconds: float) -> int:
        """Put what was delivered in the last ``seconds`` before the last delivery in front again; return its points.

        All that waits is then a backlog behind it, what is on its way as well: an older batch may hold an older value
        of the same slot, and must not be the last to arrive.
        """
        points = 0
        now = self.clock.monotonic()
        for batch in self._kept.rewound(seconds):
            item = Item(batch, now, repeat=True)
            if self._size + item.size > self._max_bytes:
                break
            if self.taken:
                self._put_back(self.taken, front=True)
            self._shelve()
            self._add(item, live=self._one_lane, left=True)
            points += batch.points
        return points

    def lose(self, items: Iterable[Item], cause: str) -> None:
        """Drop some of the items taken, whose payload cannot be read; the others go on waiting where they were."""
        taken, bad = self.taken, set(map(id, items))
        if taken is None:
            return
        self.taken = None
        for item in reversed(taken.items):
            if id(item) in bad:
                self._remove(item, live=taken.live)
                self._drop(item, cause)
            else:
                self._lane(taken.live).appendleft(item)

    def abandon(self, cause: str, *, but_on_disk: bool = False) -> int:
        """Drop all that waits, what is on its way too; return its points. ``but_on_disk``: that goes on waiting."""
        before = self._points
        for item in self._sift(lambda item: but_on_disk and item.batch is None):
            self._drop(item, cause)
        return before - self._points

    def let_go(self) -> None:
        """What waits on disk is somebody else's from now on, or will be found there again: here it was never put."""
        self._put -= sum(item.points for item in self._sift(lambda item: item.batch is not None))

    def _sift(self, stays: Callable[[Item], bool]) -> list[Item]:
        """Take out, and return, what does not stay; what is on its way goes on waiting."""
        if self.taken:
            self._put_back(self.taken, front=True)
        gone = []
        for live in (True, False):
            lane = self._lane(live)
            for item in [lane.popleft() for _ in range(len(lane))]:
                if stays(item):
                    lane.append(item)
                else:
                    self._remove(item, live=live)
                    gone.append(item)
        return gone

    # -- what waits

    def waiting(self) -> Iterator[Item]:
        """Yield all that waits, what is on its way first."""
        yield from self.taken.items if self.taken else ()
        yield from self._backlog
        yield from self._live

    def holdings(self) -> Holdings:
        """Return the account and what waits."""
        taken = len(self.taken.items) if self.taken else 0
        items = len(self._live) + len(self._backlog) + taken
        replayed = bool(self.taken and not self.taken.live)
        return Holdings(
            self._put,
            self._delivered,
            self._windows,
            dict(self._dropped),
            self._points,
            items - taken + bool(taken),
            self._size - items * OVERHEAD,
            backlog_batches=len(self._backlog) + replayed,
            backlog_points=self._backlog_points,
            lag=self._lag(),
            replay_rate=self._pace.rate if self._pace else 0.0,
        )

    def _lag(self) -> float:
        first = [lane[0].time for lane in (self._live, self._backlog) if lane]
        if self.taken:
            first.append(self.taken.items[0].time)
        return max(0.0, self.clock.monotonic() - min(first)) if first else 0.0

    # -- the lanes

    def _lane(self, live: bool) -> deque[Item]:
        return self._live if live else self._backlog

    def _add(self, item: Item, *, live: bool, left: bool = False) -> None:
        lane = self._lane(live)
        (lane.appendleft if left else lane.append)(item)
        self._size += item.size
        self._points += 0 if item.repeat else item.points
        if not live:
            self._mark(item)

    def _remove(self, item: Item, *, live: bool) -> None:
        """Count ``item`` out, which has left its lane."""
        self._size -= item.size
        self._points -= 0 if item.repeat else item.points
        if not live:
            self._backlog_points -= item.points
            self._stamps[item.stamp] -= 1
            if not self._stamps[item.stamp]:
                del self._stamps[item.stamp]

    def _mark(self, item: Item) -> None:
        """Count ``item`` in as part of the backlog."""
        self._backlog_points += item.points
        self._stamps[item.stamp] += 1

    def _shelve(self) -> None:
        """Make a backlog of all that waits."""
        while self._live and not self._one_lane:
            self._backlog.append(item := self._live.popleft())
            self._mark(item)

    def _put_back(self, taken: Taken, *, front: bool) -> None:
        """Let what was taken wait again, in the backlog if there are two lanes."""
        self.taken = None
        lane = self._lane(self._one_lane)
        if taken.live and not self._one_lane:
            for item in taken.items:
                self._mark(item)
        if front or self._one_lane:
            lane.extendleft(reversed(taken.items))
        else:
            lane.extend(taken.items)

    def _replace(self, taken: Taken, rest: Item | None) -> None:
        self.taken = None
        for item in taken.items:
            self._remove(item, live=taken.live)
        self.freed += [item.id for item in taken.items if item.id and not (rest and rest.id == item.id)]
        if rest:
            self._add(rest, live=self._one_lane, left=self._one_lane or not taken.live)
            self._shelve()

    def _together(self, lane: deque[Item]) -> Sequence[Item]:
        items = [lane.popleft()]
        length = items[0].length
        while self._join and lane and length + lane[0].length <= _JOINED and lane[0].repeat == items[0].repeat:
            items.append(lane.popleft())
            length += items[-1].length
        return items

    # -- what is dropped

    def _drop(self, item: Item, cause: str) -> None:
        """Account for ``item``, which is in no lane any more."""
        if not item.repeat:
            self._dropped[cause] += item.points
        if item.id:
            self.freed.append(item.id)

    def _drop_over(self) -> None:
        while self._size > self._max_bytes and (self._backlog or self._live):
            self._drop_first("spool_full", live=not self._backlog)

    def _drop_old(self) -> None:
        if self._max_age is not None:
            before = self.clock.monotonic() - self._max_age
            for live in (True, False):
                while self._lane(live) and self._lane(live)[0].time < before:
                    self._drop_first("too_old", live=live)

    def _drop_first(self, cause: str, *, live: bool) -> None:
        item = self._lane(live).popleft()
        self._remove(item, live=live)
        self._drop(item, cause)


def lanes_for(destination: Destination, clock: Clock = SYSTEM_CLOCK) -> Lanes:
    """Return the lanes of a destination, with the bounds of its URL's options."""
    options = destination.options
    harmless = destination.resend and not destination.deltas
    # Deltas that may be sent again are numbered: one batch says where it ends, and what was delivered is safe.
    numbered = destination.resend and destination.deltas
    return Lanes(
        options.spool_bytes,
        options.max_age,
        keep=REPEAT if harmless else 0,
        join=b"" if numbered else None,
        replay=options.replay if harmless else None,
        clock=clock,
    )
