"""What the page of any member shows: the sums over all members of the group, as of the last second, from their files.

Members append what they measure once a second (:mod:`~.record`), so the files have everything that is known of the
group, and every member that reads them gets the same. Reading takes no lock and changes nothing.

- *Totals* are the sums over all slots, of members that live and of those that ended. They do not depend on who holds
  which number, and so they do not fall when a worker ends and another one takes its number. Those of closed slots are
  in the state (:mod:`~.state`).
- The *open* interval is the slot of now. The *last* interval is the newest one that is complete: all living members
  have closed it, or :data:`~.shipper.GRACE` seconds have passed since its end.
- A *gauge* has the value that its rule makes of what living members stated last. A member states all its gauges in its
  first record of a slot; until then those of its last slot stand.

A slot may be folded into the state while it is read. Then all is read again, so that nothing is missed or counted
twice. A reader keeps what it has decoded: the next reading decodes only what was appended since. One reader may be used
by any number of threads.
"""

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._process import register_fork_handler
from ..checkpoint import BadNote
from ..series import KINDS, Kind
from ..series_state import TOTALS, Snapshot, Total
from ..window import Aggregates, Window
from .member import Member
from .merge import KnownSeries
from .record import GaugeValue, Slot
from .shipper import GRACE
from .state import SlotFiles, State, read_state, slots_in, unfolded

__all__ = ["GroupReader", "MemberStatus", "Reading"]

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A living member of a group. Times are in seconds since the epoch."""

    number: int
    """The lowest number that was free when it began."""
    pid: int | None
    """Its process; None where it did not say."""
    program: str
    """The base name of the program."""
    since: float | None
    """When it became a member."""
    rate: float
    """How much it counted and observed a second, in the last interval."""
    written: float | None
    """When it last wrote a record."""


class Reading:
    """The state of a group at one moment, which never changes."""

    def __init__(
        self,
        time: float,
        open_: Window,
        last: Window | None,
        closed: Mapping[Kind, Mapping[str, Total]],
        slots: Mapping[int, Aggregates],
        members: Sequence[MemberStatus],
    ) -> None:
        self.time = time
        self.open = open_
        self.last = last
        self.members = members
        self._closed = closed  # totals of closed slots
        self._slots = slots  # all others but the open one, by stamp

    def series(self, *kinds: Kind) -> dict[Kind, list[str]]:
        """Return the keys of all series, or of those of these kinds, by kind and in order of first appearance."""
        found: dict[Kind, list[str]] = {}
        for kind in kinds or KINDS:
            parts: list[Mapping[str, Any]] = [self._closed[kind]]
            parts += [aggregates[kind] for aggregates in self._slots.values()]
            parts += [window[kind] for window in (self.last, self.open) if window is not None]
            found[kind] = list(dict.fromkeys(key for part in parts for key in part))
        return found

    def snapshot(
        self, end: int = 0, interval: float = 10.0, only: Mapping[Kind, Collection[str]] | None = None
    ) -> Snapshot:
        """Return totals, the open interval and the last one, as :meth:`.Registry.snapshot` does.

        Drops are not in it: each process counts its own. ``end`` and ``interval`` are those of the group.
        """
        only = self.series() if only is None else only
        totals: dict[Kind, dict[str, Total]] = {}
        for kind, keys in only.items():
            closed = self._closed[kind]
            totals[kind] = {key: closed[key].copy() if key in closed else TOTALS[kind](self.open.start) for key in keys}
            if kind == "gauge":
                continue
            for stamp, aggregates in self._slots.items():
                values = aggregates[kind]
                for key, total in totals[kind].items():
                    if key in values:
                        total.take(values[key], stamp)
        return Snapshot(self.time, self.open, self.last, totals, {})


class GroupReader:
    """Reads the files of the group that ``member`` is in. Thread-safe."""

    def __init__(self, member: Member, interval: int) -> None:
        self._member = member
        self._folder = member.folder
        self._interval = interval
        self._state_file: tuple[int, ...] = ()
        self._state = State()
        self._closed = KnownSeries()  # what the state has
        self._known = KnownSeries()  # and what was read since
        self._slots: dict[int, _ReadSlot] = {}
        self._guard = threading.Lock()
        register_fork_handler(self)

    def reset_after_fork(self) -> None:
        """In a forked child: another thread of the parent may have been reading."""
        self._guard = threading.Lock()
        self._slots = {}

    def read(self, now: float) -> Reading:
        """Return the state of the group. Raises OSError where its files cannot be read."""
        with self._guard:
            self._read_slots()
            living = self._member.living()
            end = (int(now // self._interval) + 1) * self._interval
            ended = [stamp for stamp in self._slots if stamp < end]
            opened = [stamp for stamp in self._slots if stamp >= end]
            last = self._last_window([stamp for stamp in ended if self._is_complete(stamp, now, living)])
            open_ = Slot(Aggregates(), self._gauges(living), {})
            for stamp in opened:  # several after the clock was set back
                open_.aggregates.merge(self._slots[stamp].all.aggregates)
            return Reading(
                now,
                self._known.window(open_, end, self._interval, remember=False),
                last,
                self._closed.totals,
                {stamp: self._slots[stamp].all.aggregates for stamp in ended},
                [self._status(number) for number in living],
            )

    def _read_slots(self) -> None:
        """Read the state and what is new in all other slots, in order of stamp, as of one moment.

        If the shipper folds meanwhile, all is read again.
        """
        for _ in range(_ATTEMPTS):
            self._read_state()
            there = slots_in(self._folder)
            slots: dict[int, _ReadSlot] = {}
            for stamp, name in unfolded(self._state, *there):
                slot = slots[stamp] = self._slots.get(stamp) or _ReadSlot(self._folder / name)
                slot.move_to(self._folder / name)
                slot.read()
            if slots_in(self._folder) == there and _identity(self._folder / "state") == self._state_file:
                self._slots = slots
                return
        raise OSError(f"{self._folder} changes faster than it can be read")

    def _read_state(self) -> None:
        file = _identity(self._folder / "state")
        if file != self._state_file:
            try:
                state = read_state(self._folder)
                self._closed, self._known = state.known(), state.known()
            except BadNote:  # the shipper counts it, and begins anew
                state, self._closed, self._known = State(), KnownSeries(), KnownSeries()
            self._state_file, self._state = file, state
            for slot in self._slots.values():
                slot.window = None

    def _is_complete(self, stamp: int, now: float, living: Sequence[int]) -> bool:
        files = self._slots[stamp].files
        closed = {number for number, file in files.items() if file.closed and file.time >= stamp}
        return now >= stamp + GRACE or closed.issuperset(living)

    def _last_window(self, complete: Sequence[int]) -> Window | None:
        """Return the window of the newest complete slot, of which series are known from those before it."""
        for stamp in complete:
            slot = self._slots[stamp]
            if slot.window is None:
                slot.window = self._known.window(slot.all, stamp, self._interval)
        return self._slots[complete[-1]].window if complete else None

    def _gauges(self, living: Sequence[int]) -> dict[str, dict[int, GaugeValue]]:
        """Return what each living member stated last."""
        stated: dict[str, dict[int, GaugeValue]] = {}
        for number in living:
            for slot in reversed(self._slots.values()):
                if (file := slot.files.get(number)) is not None and file.last:
                    for key, value in file.written[file.last].gauges.items():
                        stated.setdefault(key, {})[number] = value
                    break
        return stated

    def _status(self, number: int) -> MemberStatus:
        about = _about(self._folder / "members" / f"{number}.json")
        files = [file for slot in self._slots.values() if (file := slot.files.get(number)) is not None and file.last]
        closed = next((file for file in reversed(files) if file.closed), None)
        counted = 0.0
        if closed is not None:
            counted = sum(_counted(closed.written[closed.last].aggregates))
        return MemberStatus(
            number,
            about.get("pid"),
            about.get("program") or "",
            about.get("since"),
            counted / self._interval,
            max((file.time for file in files), default=None),
        )


class _ReadSlot(SlotFiles):
    """A slot with its sum, which is made anew when a file has grown."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.all = Slot(Aggregates(), {}, {})
        self.window: Window | None = None

    def read(self, limits: Mapping[int, int] | None = None) -> bool:
        new = super().read(limits)
        if new:
            self.all, self.window = self.combined(), None
        return new


def _counted(aggregates: Aggregates) -> Iterator[float]:
    yield from aggregates.counters.values()
    for distributions in (aggregates.timers, aggregates.histograms):
        yield from (distribution.count for distribution in distributions.values())


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; empty if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _about(path: Path) -> Mapping[str, Any]:
    """Return what a member says of itself; nothing where it says nothing."""
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
