"""The shipper: the one member of a group that sends what all of them wrote.

Members append to files, a directory a slot (:mod:`~.record`, :mod:`~.member`). One of them sends, so that a path has
one writer on the host. Which one it is does not matter, for what is sent of a slot is a function of the slot's files
alone: any member that reads the same files sends the same.

States. A member is *waiting* or *shipping*; it ships while it has the lock on the file ``ship``. Waiting members try
the lock once a second. The kernel releases it when the process ends, however it does. A shipper sets the time of the
file at each step, so that the others see when it has stopped or spins, and say so; what they write waits in the files.

A slot, in the eyes of the shipper::

    open ──stamp──▶ ended ──all closed, or 1.2 s──▶ sent ──no queue has it──▶ delivered ──a minute──▶ folded
      └── a whole record before its end: flush() ──▶ sent so far     ▲ │                                 ▲
                                                                     └─┘ a file has grown: sent again    │
                                  ten minutes after its end: what waits goes into the backlog ───────────┘

Each living member writes a whole record when the slot has ended. Once all of them have, the slot is sent; one that is
stopped or spins holds it up for :data:`GRACE` seconds, and what it writes later sends the slot once more. Graphite
keeps the last value, so sending again is how a slot is corrected.

Closing. A slot closes a minute after every destination has confirmed it, or ten minutes after its end; then what a
destination has not confirmed is in its backlog (:mod:`~.backlog`). It is folded into the state (:mod:`~.state`). A
slot is *held* while a living member may have its file of the slot open: while the member has no file in a later one. A
held slot is not renamed, and one that was renamed is folded at a later step only, if it is still not held. So no record
is written behind the shipper's last look. A member that is stopped holds the one slot to which it wrote last.

Destinations that take a slot once (``?revise=off``) get it when it is complete, or at the end of the last member, as
:mod:`~.seals` tells.

Late slots. The directory of a slot that is closed may be made again by a member that was very late. Sending it would
overwrite the slot with less. So its files go into the oldest open slot, as those of a member of their own, and are
counted, cause ``late``. A clock that was set back by more than ten intervals lowers the mark, counted, cause
``clock_set_back``; otherwise all slots would be late until the old time comes again.

Endings. A member that ends writes, gives its number back, and *then* tries the lock. A shipper that ends sends,
releases the lock, and *then* looks again: if a file has grown and no member lives that would see it, it takes the lock
back. Of a member that ends at the same moment one of the two sends what it wrote: either it got the lock, or the
shipper had it and released it after the record was written, and sees the record.

Invariants:

- What is sent of a slot contains every record that was in its files when they were read. Files only grow, and a reader
  keeps what a deleted or replaced file had; so the values of one shipper never become less.
- A slot is marked as sent with the sizes of what was read, not of what is there. A record that is written while a slot
  is sent is growth at the next look.
- A slot whose sending failed is not marked, and is sent at the next step.
- ``delivered`` says how much of each open slot was delivered, and which must be sent once more.
- A slot is folded once; it is in the state, or it is there.

After a crash at any line: the lock is free, and the files are what the members wrote. The next shipper sends every open
slot of which ``delivered`` does not say that all of it was delivered, and the backlogs. It also sends the most recent
slots, and once more an interval later, for bytes of the dead shipper may still be on their way and overwrite what was
sent after them. One that ends before that leaves it to the next, by ``delivered``. A crash between delivery and
``delivered`` sends a slot again, which changes nothing. What a crash does to a slot that is being folded is told in
:mod:`~.state`.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .._process import register_fork_handler
from ..checkpoint import BadNote
from ..delivery.batch import Batch
from ..drops import DropCounter
from ..limits import Limits
from ..series import KINDS, Kind
from ..series_state import Total
from ..window import Window
from .backlog import Backlog
from .directory import make_private
from .member import LOCKS, Lock, Locks, Member
from .merge import KnownSeries
from .record import LATE, FileReader, Slot, combine
from .seals import Seals
from .state import SlotFiles, State, folding_name, read_state, slots_in, write_state

__all__ = ["GRACE", "MOST_SLOTS", "Delivered", "Shipper", "Waiting", "covers", "read_delivered"]

log = logging.getLogger("metricslib")

GRACE = 1.2
"""Seconds after a slot's end after which it is sent, whether or not every living member has closed it."""
MOST_SLOTS = 1000
"""Open slots that cannot be folded, because the disk does not take the state."""
_STEP = 1.0  # seconds between the shipper's steps
_TRY = 1.0  # seconds between attempts to become the shipper
_SOON = 0.05  # seconds between steps while a slot waits for a member
_REVISION = 1.0  # seconds between sendings of an open slot
_CONFIRMED = 60  # seconds from delivery until a slot closes: a server may die with what it confirmed
_CLOSING = 20.0  # seconds between closings, of several slots with one new state
_CLOSES = 600  # seconds from a slot's end until it closes in any case
_RECENT = 3  # intervals
_PATIENCE = 10  # intervals by which a clock may be set back before stamps follow it
_STUCK = 3  # intervals without a step of the shipper until the others say so
_LEAST_STUCK = 10.0  # seconds

Ends = Mapping[int, int]
"""How many bytes of each member's file."""


class Waiting(Protocol):
    """What one destination has not confirmed; a :class:`~..delivery.queue.Queue`."""

    def stamps(self) -> Collection[int]:
        """Return the slots of which something waits."""
        ...

    def batches(self, stamps: Collection[int]) -> list[Batch]:
        """Return what waits of these slots, in the order of stamps."""
        ...

    def put_backlog(self, batches: Sequence[Batch]) -> None:
        """Let what an earlier shipper left wait, behind what waits already."""
        ...


class _Slot(SlotFiles):
    """A slot, with what became of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sent: Ends = {}
        self.sent_at = -float("inf")
        self.delivered: Ends = {}
        self.delivered_at = -float("inf")
        self.looked_at = -float("inf")
        self.again: float | None = None
        """When it is to be sent once more, whether or not it has grown."""

    def asked_for(self) -> bool:
        """Whether a member has stated the whole of what it has since the slot was sent."""
        return any(file.closed and file.end != self.sent.get(number) for number, file in self.files.items())


class Shipper:
    """Ships the slots of the group in ``member.folder``, while this process has the lock. One owner at a time.

    ``send(window)`` passes a slot on as far as it goes; if it raises, it is called again at the next step. ``queues()``
    returns what waits for each destination, by label. ``send_once(window)`` passes a slot on to destinations that take
    each slot once; None: there are none. ``limits()`` returns the caps of the group's series. ``drops``
    counts what is late or lost. ``sync``: the disk is to have it, not only the page cache.
    """

    def __init__(
        self,
        member: Member,
        interval: float,
        send: Callable[[Window], object],
        queues: Callable[[], Mapping[str, Waiting]] = dict,
        send_once: Callable[[Window], object] | None = None,
        *,
        limits: Callable[[], Limits | None] = lambda: None,
        drops: DropCounter | None = None,
        locks: Locks = LOCKS,
        sync: bool = False,
    ) -> None:
        self._member = member
        self._folder = member.folder
        self._interval = interval
        self._send = send
        self._queues = queues
        self._send_once = send_once
        self._limits = limits
        self._drops = drops or DropCounter()
        self._locks = locks
        self._sync = sync
        self._forget()
        register_fork_handler(self)

    def _forget(self) -> None:
        self._lock: Lock | None = None
        self._slots: dict[int, _Slot] = {}
        self._folding: dict[str, int] = {}
        self._renamed: dict[str, _Slot] = {}
        """What this process renamed, and has not folded yet. It may be deleted by now."""
        self._state = State()
        self._known = KnownSeries(self._limits())
        self._backlogs: dict[str, Backlog] = {}
        self._seals = Seals(self._folder, self._send_sealed, sync=self._sync) if self._send_once else None
        self._noted = Delivered({}, [])
        self._closed_at = -float("inf")
        self._stuck = False

    def reset_after_fork(self) -> None:
        """In a forked child: waiting."""
        self._forget()

    @property
    def shipping(self) -> bool:
        """Whether this member ships, as of the last step."""
        return self._lock is not None

    def step(self, now: float) -> float:
        """Do what is due at the wall-clock time ``now``, and return the seconds until the next step.

        Raises OSError where the folder cannot be read or written, and what ``send`` raises.
        """
        if not self._take_lock(now):
            self._watch(now)
            return _TRY
        self._show_life(now)
        self._follow_clock(now)
        self._note_delivered(now)
        waits = self._look(now)
        if not self._closed_at <= now < self._closed_at + max(self._interval, _CLOSING):
            self._closed_at = now
            self._close(now)
        return _SOON if waits else _STEP

    def ship_now(self, now: float) -> None:
        """Send all that was not sent, the open slot too, if this member ships or no member does."""
        if self._take_lock(now):
            self._look(now, everything=True)

    def end(self, now: float, deliver: Callable[[], bool]) -> bool:
        """Send what is there, the open slot too, and wait no more for the lock; the member has left the group before.

        ``deliver()`` waits for the senders, and returns whether they have delivered everything. Returns True if all of
        it was delivered, or if another member ships what is left.
        """
        while self._take_lock(now):
            try:
                self._look(now, everything=True)
                delivered = deliver()
                self._note_delivered(now)
            finally:
                self._release()
            if not delivered or not self._has_grown() or self._member.living():
                return delivered
        return True

    def give_up(self) -> None:
        """Ship no more, and leave what is there to others."""
        self._release()

    # -- the lock

    def _take_lock(self, now: float) -> bool:
        if self._lock is not None and not self._lock.in_place:  # the folder was deleted, or the file replaced
            self._release()
        if self._lock is None:
            try:
                self._lock = self._locks.acquire(self._folder / "ship")
            except FileNotFoundError:  # no member has written yet
                return False
            if self._lock is not None:
                self._stuck = False
                self._take_over(now)
        return self._lock is not None

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            self._locks.release(lock)

    def _take_over(self, now: float) -> None:
        """Look what the last shipper left. This one may have been it before, and know some of the slots."""
        self._restore_state()
        self._noted = noted = read_delivered(self._folder)
        self._slots = {stamp: slot for stamp, slot in self._slots.items() if not self._state.closed(stamp)}
        self._closed_at = now
        for stamp in self._open_slots(now):
            slot = self._slot(stamp)
            slot.sent = slot.delivered = {} if stamp in noted.again else noted.delivered.get(stamp, {})
            slot.delivered_at = now
            slot.again = None
            if stamp >= now - _RECENT * self._interval:
                slot.sent = {}
                slot.again = now + self._interval
        for label, queue in self._queues().items():
            found = self._backlog(label).read()
            waiting = queue.stamps()
            queue.put_backlog([batch for batch in found if batch.stamp not in waiting])
        if self._seals:
            self._seals.load()

    def _restore_state(self) -> None:
        try:
            state = read_state(self._folder)
            if state.folds < self._state.folds:  # the folder was deleted: what this process knows of it stays
                write_state(self._folder, self._state, sync=self._sync)
            elif state.folds > self._state.folds:
                self._state, self._known = state, state.known(self._limits())
        except BadNote:
            self._drops.add("bad_note")
            self._state, self._known = State(), KnownSeries(self._limits())

    def _show_life(self, now: float) -> None:
        assert self._lock is not None
        os.utime(self._lock.descriptor, (now, now))

    def _watch(self, now: float) -> None:
        """Say it once if the shipper has stopped, or spins. What was written waits until it goes on or ends."""
        try:
            ship = os.stat(self._folder / "ship", follow_symlinks=False)
        except FileNotFoundError:
            return
        silent = now - ship.st_mtime
        if silent <= max(_STUCK * self._interval, _LEAST_STUCK):
            self._stuck = False
        elif not self._stuck:
            self._stuck = True
            log.warning(
                "process %d, which ships for this group, has not run for %d s: nothing is sent until it goes on or"
                " ends; what is measured is kept in %s",
                self._locks.holder(self._folder / "ship"),
                silent,
                self._folder,
            )

    # -- slots

    def _open_slots(self, now: float) -> list[int]:
        """Return the stamps of open slots: those that there are, and those that were read and are deleted by now.

        Files of slots that are closed go into the oldest one.
        """
        stamps, self._folding = slots_in(self._folder)
        closing = {*self._folding.values(), *(int(name.partition(".")[0]) for name in self._renamed)}
        late = {stamp for stamp in stamps if self._state.closed(stamp) or stamp in closing}
        found = sorted((stamps | self._slots.keys()) - late)
        for stamp in sorted(late):
            target = found[0] if found else (int(now // self._interval) + 1) * int(self._interval)
            self._move_late(stamp, target)
            self._slot(target).looked_at = -float("inf")
            found = found or [target]
        return found

    def _move_late(self, stamp: int, target: int) -> None:
        directory, into = self._folder / str(stamp), self._folder / str(target)
        make_private(into)
        for name in os.listdir(directory):
            number = LATE
            while (into / str(number)).exists():
                number += 1
            file = FileReader(directory / name)
            file.read()
            os.rename(directory / name, into / str(number))
            self._drops.add("late", _values_in(combine({0: file})))
        os.rmdir(directory)

    def _slot(self, stamp: int) -> _Slot:
        slot = self._slots.get(stamp)
        if slot is None:
            slot = self._slots[stamp] = _Slot(self._folder / str(stamp))
        return slot

    def _look(self, now: float, *, everything: bool = False) -> bool:
        """Send what is due, or everything that was not sent; return whether a slot waits for a member."""
        waits = False
        for stamp in self._open_slots(now):
            slot = self._slot(stamp)
            old = stamp < now - _RECENT * self._interval
            if old and not everything and slot.looked_at <= now < slot.looked_at + self._interval:
                continue
            slot.looked_at = now
            new = slot.read()
            again = slot.again is not None and now >= slot.again
            if slot.ends == slot.sent and not again:
                if new:  # an earlier shipper has sent it
                    self._known.remember(slot.combined(), stamp)
                continue
            if not everything and not self._is_due(stamp, slot, now):
                waits |= now >= stamp
                continue
            ends = slot.ends
            self._send(self._known.window(slot.combined(), stamp, self._interval))
            slot.sent, slot.sent_at = ends, now
            if again:
                slot.again = None
        if self._seals:
            self._seal(now, last=everything and not self._member.living())
        return waits

    def _seal(self, now: float, *, last: bool) -> None:
        """Seal what is complete, or at the end of the last member all, and send it."""
        assert self._seals
        for stamp in sorted(self._slots):
            slot = self._slots[stamp]
            if slot.ends and (now >= stamp + GRACE or self._all_closed(stamp, slot)):
                self._seals.seal(stamp, self._slots)
        if last and self._seals.lacks(self._slots):  # the open slot; the next one for what came behind its seal
            self._seals.seal(max(max(self._slots), self._seals.last + int(self._interval)), self._slots)
        self._seals.send()

    def _send_sealed(self, stamp: int, slot: Slot) -> None:
        assert self._send_once
        self._send_once(self._known.window(slot, stamp, self._interval))

    def _is_due(self, stamp: int, slot: _Slot, now: float) -> bool:
        if now >= stamp + GRACE or self._all_closed(stamp, slot):
            return True
        if stamp > now + _PATIENCE * self._interval:  # the clock was set back
            return True
        return now < stamp and slot.asked_for() and not slot.sent_at <= now < slot.sent_at + _REVISION

    def _all_closed(self, stamp: int, slot: _Slot) -> bool:
        """Whether the last that every living member wrote into the slot was the whole of it, after the slot's end."""
        closed = {number for number, file in slot.files.items() if file.closed and file.time >= stamp}
        return bool(closed) and closed.issuperset(self._member.living())

    def _has_grown(self) -> bool:
        stamps, _ = slots_in(self._folder)
        return any(self._slot(stamp).read() for stamp in stamps)

    # -- what was delivered

    def _note_delivered(self, now: float) -> None:
        """Write down what no queue has any more, if that is not written yet. All of what was sent was in the queues."""
        waiting = set[int]()
        for label, queue in self._queues().items():
            stamps = queue.stamps()
            waiting.update(stamps)
            self._backlog(label).keep(stamps)
        if self._seals:
            self._seals.confirm(waiting)
        for stamp, slot in self._slots.items():
            if stamp not in waiting and slot.delivered != slot.sent:
                slot.delivered, slot.delivered_at = slot.sent, now
        noted = Delivered(
            {stamp: slot.delivered for stamp, slot in self._slots.items() if slot.delivered},
            [stamp for stamp, slot in self._slots.items() if slot.again is not None],
        )
        if noted != self._noted:
            _write_delivered(self._folder, noted)
            self._noted = noted

    def _backlog(self, label: str) -> Backlog:
        backlog = self._backlogs.get(label)
        if backlog is None:
            backlog = self._backlogs[label] = Backlog(self._folder, label, sync=self._sync)
        return backlog

    # -- closing

    def _close(self, now: float) -> None:
        """Fold what was renamed at an earlier step, and rename what closes now."""
        living = set(self._member.living())
        self._fold(now, living)
        closing = [stamp for stamp, slot in self._slots.items() if self._closes(stamp, slot, now)]
        closing = [stamp for stamp in closing if not self._is_held(stamp, self._slots[stamp], living)]
        try:
            self._keep_undelivered(closing)
            for stamp in sorted(closing):
                self._rename(stamp)
        except OSError:
            self._bound_slots(now)
            raise

    def _closes(self, stamp: int, slot: _Slot, now: float) -> bool:
        confirmed = slot.delivered == slot.sent and now >= slot.delivered_at + _CONFIRMED
        if now < stamp or slot.again is not None or not (confirmed or now >= stamp + _CLOSES):
            return False
        slot.read()
        return slot.ends == slot.sent and not (self._seals and self._seals.holds(stamp, slot.ends))

    def _is_held(self, stamp: int, slot: SlotFiles, living: Collection[int]) -> bool:
        """Whether a living member may have its file of the slot open."""
        return any(
            number in living and not any(later > stamp and number in self._slots[later].files for later in self._slots)
            for number in slot.files
        )

    def _keep_undelivered(self, closing: Collection[int]) -> None:
        undelivered = {stamp for stamp in closing if self._slots[stamp].delivered != self._slots[stamp].sent}
        if undelivered:
            for label, queue in self._queues().items():
                if batches := queue.batches(undelivered):
                    self._backlog(label).append(batches)
            if self._seals:
                self._seals.release(undelivered)

    def _rename(self, stamp: int) -> None:
        name, slot = folding_name(stamp, self._state.folds), self._slots[stamp]
        try:
            os.rename(self._folder / str(stamp), self._folder / name)
            slot.move_to(self._folder / name)
        except FileNotFoundError:  # deleted; what was read of it counts
            pass
        self._renamed[name] = slot
        del self._slots[stamp]

    def _fold(self, now: float, living: Collection[int]) -> None:
        """Add what was renamed to the state, delete it, and what the state has already."""
        done = [name for name in self._folding if name in self._state.names]
        folded, undo = dict[str, int](), dict[tuple[Kind, str], Total | None]()
        for name in sorted({*self._folding, *self._renamed} - {*done}):
            stamp = int(name.partition(".")[0])
            slot = self._renamed.get(name) or SlotFiles(self._folder / name)
            slot.read()
            if not self._is_held(stamp, slot, living):
                self._known.fold(slot.combined(), stamp, undo)
                folded[name] = stamp
        if folded:
            mark = max(self._state.mark, *(stamp for stamp in folded.values() if stamp <= now), 0)
            open_ = [stamp for stamp in self._slots if stamp <= mark]
            state = State(mark, self._state.folds + 1, sorted(open_), [*done, *folded], self._known.document())
            try:
                write_state(self._folder, state, sync=self._sync)
            except OSError:  # they are folded when the disk takes it
                self._known.undo(undo)
                raise
            self._state = state
            self._renamed = {name: slot for name, slot in self._renamed.items() if name not in folded}
        for name in (*done, *folded):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _follow_clock(self, now: float) -> None:
        """Lower the mark if the clock was set back by more than stamps wait for."""
        if now < self._state.mark - _PATIENCE * self._interval:
            self._drops.add("clock_set_back")
            mark = int(now - _RECENT * self._interval)
            open_ = [stamp for stamp in self._state.open if stamp <= mark]
            state = self._state._replace(mark=mark, folds=self._state.folds + 1, open=open_)
            write_state(self._folder, state, sync=self._sync)
            self._state = state
            if self._seals:
                self._seals.lower(mark)

    def _bound_slots(self, now: float) -> None:
        """Of very many slots that cannot be folded delete the oldest, and count what no queue has."""
        for stamp in sorted(self._slots)[:-MOST_SLOTS]:
            slot = self._slots[stamp]
            if self._closes(stamp, slot, now):
                if slot.delivered != slot.ends:
                    self._drops.add("slots_full", _values_in(slot.combined()))
                shutil.rmtree(slot.directory, ignore_errors=True)
                del self._slots[stamp]


def _values_in(slot: Slot) -> int:
    return sum(len(slot.aggregates[kind]) for kind in KINDS) + len(slot.gauges)


class Delivered(NamedTuple):
    """What one shipper tells the next of open slots, and the members that wait for a flush."""

    delivered: Mapping[int, Ends]
    """How much of each slot."""
    again: Sequence[int]
    """Slots that must be sent once more, whether or not they grow."""


def _write_delivered(folder: Path, delivered: Delivered) -> None:
    """Write it in place. Where that is torn, nothing is said to be delivered, and it is sent again, which changes
    nothing; and a rename takes longer than all else that a shipper does when nothing happens.
    """
    descriptor = os.open(folder / "delivered", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        content = json.dumps(delivered._asdict()).encode()
        os.ftruncate(descriptor, os.pwrite(descriptor, content, 0))
    finally:
        os.close(descriptor)


def read_delivered(folder: Path) -> Delivered:
    """Return what was delivered; nothing where nothing says so."""
    try:
        document: Any = json.loads((folder / "delivered").read_bytes())
        delivered = {
            int(stamp): {int(number): int(end) for number, end in ends.items()}
            for stamp, ends in document["delivered"].items()
        }
        return Delivered(delivered, [int(stamp) for stamp in document["again"]])
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return Delivered({}, [])


def covers(folder: Path, stamp: int, number: int, end: int) -> bool:
    """Whether the first ``end`` bytes of that member's file of that slot were delivered."""
    return read_delivered(folder).delivered.get(stamp, {}).get(number, -1) >= end
