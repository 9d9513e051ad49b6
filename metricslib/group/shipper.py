"""The shipper: the one member of a group that sends what all of them wrote.

Members append to files, a directory a slot (:mod:`~.record`, :mod:`~.member`). One of them sends, so that a path has
one writer on the host. Which one it is does not matter, for what is sent of a slot is a function of the slot's files
alone: any member that reads the same files sends the same.

States. A member is *waiting* or *shipping*; it ships while it has the lock on the file ``ship``. Waiting members try
the lock twice a second. The kernel releases it when the process ends, however it does.

A slot, in the eyes of the shipper::

    open ──stamp──▶ ended ──all closed, or 1.2 s──▶ sent ──all senders idle──▶ delivered ──10 min──▶ deleted
      └── a whole record before its end: flush() ──▶ sent so far     ▲ │
                                                                     └─┘ a file has grown: sent again

Each living member writes a whole record when the slot has ended. Once all of them have, the slot is sent; one that is
stopped or spins holds it up for :data:`GRACE` seconds, and what it writes later sends the slot once more. Graphite
keeps the last value, so sending again is how a slot is corrected.

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
- ``state`` says how much of each slot was delivered, and which must be sent once more. It is written aside and renamed,
  by the shipper alone.

After a crash at any line: the lock is free, and the files are what the members wrote. The next shipper sends every slot
of which ``state`` does not say that all of it was delivered. It also sends the most recent slots, and once more an
interval later, for bytes of the dead shipper may still be on their way and overwrite what was sent after them. One that
ends before that leaves it to the next, by ``state``. A crash between delivery and ``state`` sends a slot again, which
changes nothing.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._process import register_fork_handler
from ..drops import DropCounter
from ..series import KINDS
from .member import LOCKS, Lock, Locks, Member
from .record import FileReader, Slot, combine

__all__ = ["GRACE", "MOST_SLOTS", "Shipper", "SlotFiles", "covers"]

GRACE = 1.2
"""Seconds after a slot's end after which it is sent, whether or not every living member has closed it."""
_STEP = 1.0  # seconds between the shipper's steps
_TRY = 0.5  # seconds between attempts to become the shipper
_SOON = 0.05  # seconds between steps while a slot waits for a member
_REVISION = 1.0  # seconds between sendings of an open slot
_KEPT = 600  # seconds from a slot's end until it is deleted, if it was delivered
_RECENT = 3  # intervals
MOST_SLOTS = 1000

Ends = Mapping[int, int]
"""How many bytes of each member's file."""


class SlotFiles:
    """The files of one slot, each read as far as it goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.files: dict[int, FileReader] = {}

    def read(self) -> bool:
        """Read what is new in all files, and return whether there was something. What was read stays, whatever becomes
        of the files.
        """
        new = False
        try:
            entries = list(os.scandir(self._directory))
        except (FileNotFoundError, NotADirectoryError):
            return False
        for entry in entries:
            if entry.name.isdecimal():
                file = self.files.setdefault(int(entry.name), FileReader(self._directory / entry.name))
                try:
                    if file.grown(entry.stat(follow_symlinks=False)):
                        new |= file.read()
                except FileNotFoundError:  # deleted just now
                    continue
        return new

    @property
    def ends(self) -> Ends:
        """How much was read of each file."""
        return {number: file.end for number, file in self.files.items() if file.last}

    def combined(self) -> Slot:
        """Return what was read, as one."""
        return combine(self.files)


class _Slot(SlotFiles):
    """A slot, with what became of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sent: Ends = {}
        self.sent_at = -float("inf")
        self.delivered: Ends = {}
        self.looked_at = -float("inf")
        self.again: float | None = None
        """When it is to be sent once more, whether or not it has grown."""

    def asked_for(self) -> bool:
        """Whether a member has stated the whole of what it has since the slot was sent."""
        return any(file.closed and file.end != self.sent.get(number) for number, file in self.files.items())


class Shipper:
    """Ships the slots of the group in ``member.folder``, while this process has the lock. One owner at a time.

    ``send(stamp, slot)`` sends a slot as far as it goes; if it raises, it is called again at the next step. ``drops``
    counts what is deleted before it was delivered.
    """

    def __init__(
        self,
        member: Member,
        interval: float,
        send: Callable[[int, Slot], object],
        *,
        drops: DropCounter | None = None,
        locks: Locks = LOCKS,
    ) -> None:
        self._member = member
        self._folder = member.folder
        self._interval = interval
        self._send = send
        self._drops = drops or DropCounter()
        self._locks = locks
        self._forget()
        register_fork_handler(self)

    def _forget(self) -> None:
        self._lock: Lock | None = None
        self._slots: dict[int, _Slot] = {}
        self._noted = State({}, [])

    def reset_after_fork(self) -> None:
        """In a forked child: waiting."""
        self._forget()

    @property
    def shipping(self) -> bool:
        """Whether this member ships, as of the last step."""
        return self._lock is not None

    def step(self, now: float, *, idle: bool) -> float:
        """Do what is due at the wall-clock time ``now``, and return the seconds until the next step.

        ``idle`` says that the senders have delivered all that they were given. Raises OSError where the folder cannot
        be read, and what ``send`` raises.
        """
        if self._take_lock(now):
            if idle:
                self._note_delivered(now)
            return _SOON if self._look(now) else _STEP
        return _TRY

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
                if delivered:
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
                self._take_over(now)
        return self._lock is not None

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            self._locks.release(lock)

    def _take_over(self, now: float) -> None:
        """Look what the last shipper left. This one may have been it before, and know some of the slots."""
        self._noted = noted = read_state(self._folder)
        for stamp in self._stamps():
            slot = self._slot(stamp)
            slot.sent = slot.delivered = {} if stamp in noted.again else noted.delivered.get(stamp, {})
            slot.again = None
            if stamp >= now - _RECENT * self._interval:
                slot.sent = {}
                slot.again = now + self._interval

    # -- slots

    def _stamps(self) -> list[int]:
        """Return the stamps of all slots that there are, and of those that were read and are deleted by now."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            names = []
        return sorted({int(name) for name in names if name.isdecimal()} | self._slots.keys())

    def _slot(self, stamp: int) -> _Slot:
        slot = self._slots.get(stamp)
        if slot is None:
            slot = self._slots[stamp] = _Slot(self._folder / str(stamp))
        return slot

    def _look(self, now: float, *, everything: bool = False) -> bool:
        """Send what is due, or everything that was not sent; return whether a slot waits for a member."""
        waits = False
        for stamp in self._stamps():
            slot = self._slot(stamp)
            old = stamp < now - _RECENT * self._interval
            if old and not everything and slot.looked_at <= now < slot.looked_at + self._interval:
                continue
            slot.looked_at = now
            slot.read()
            again = slot.again is not None and now >= slot.again
            if slot.ends == slot.sent and not again:
                continue
            if not everything and not self._is_due(stamp, slot, now):
                waits |= now >= stamp
                continue
            ends = slot.ends
            self._send(stamp, slot.combined())
            slot.sent, slot.sent_at = ends, now
            if again:
                slot.again = None
        self._delete_old(now)
        return waits

    def _is_due(self, stamp: int, slot: _Slot, now: float) -> bool:
        if now >= stamp + GRACE or self._all_closed(stamp, slot):
            return True
        return now < stamp and slot.asked_for() and not slot.sent_at <= now < slot.sent_at + _REVISION

    def _all_closed(self, stamp: int, slot: _Slot) -> bool:
        """Whether the last that every living member wrote into the slot was the whole of it, after the slot's end."""
        closed = {number for number, file in slot.files.items() if file.closed and file.time >= stamp}
        return bool(closed) and closed.issuperset(self._member.living())

    def _has_grown(self) -> bool:
        return any(self._slot(stamp).read() for stamp in self._stamps())

    def _delete_old(self, now: float) -> None:
        """Delete what was delivered a while ago, and of very many slots the oldest, which are counted as dropped."""
        stamps = sorted(self._slots)
        for at, stamp in enumerate(stamps):
            slot = self._slots[stamp]
            if slot.sent != slot.ends or stamp >= now - _KEPT - _RECENT * self._interval:
                continue
            if slot.delivered != slot.ends:
                if len(stamps) - at <= MOST_SLOTS:
                    continue
                self._drops.add("slots_full", _values_in(slot.combined()))
            shutil.rmtree(self._folder / str(stamp), ignore_errors=True)
            del self._slots[stamp]

    # -- what was delivered

    def _note_delivered(self, now: float) -> None:
        """The senders are idle: all that was sent was delivered. Write that down, if it is not yet."""
        for slot in self._slots.values():
            slot.delivered = slot.sent
        noted = State(
            {stamp: slot.delivered for stamp, slot in self._slots.items() if slot.delivered},
            [stamp for stamp, slot in self._slots.items() if slot.again is not None],
        )
        if noted != self._noted:
            write_state(self._folder, noted)
            self._noted = noted


def _values_in(slot: Slot) -> int:
    return sum(len(slot.aggregates[kind]) for kind in KINDS) + len(slot.gauges)


# -- the state


class State(NamedTuple):
    """What one shipper tells the next, and the members that wait for a flush."""

    delivered: Mapping[int, Ends]
    """How much of each slot."""
    again: Sequence[int]
    """Slots that must be sent once more, whether or not they grow."""


def read_state(folder: Path) -> State:
    """Return the state; an empty one where there is none."""
    try:
        document: Any = json.loads((folder / "state").read_bytes())
        delivered = {
            int(stamp): {int(number): int(end) for number, end in ends.items()}
            for stamp, ends in document["delivered"].items()
        }
        return State(delivered, [int(stamp) for stamp in document["again"]])
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return State({}, [])


def write_state(folder: Path, state: State) -> None:
    """Replace the state."""
    aside = folder / "state.new"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        json.dump(state._asdict(), file)
    os.replace(aside, folder / "state")


def covers(folder: Path, stamp: int, number: int, end: int) -> bool:
    """Whether the first ``end`` bytes of that member's file of that slot were delivered."""
    return read_state(folder).delivered.get(stamp, {}).get(number, -1) >= end
