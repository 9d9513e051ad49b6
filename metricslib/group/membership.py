"""A flusher's part in a group: what its registry measured goes into files, and, while it ships, from files to Graphite.

Once a second what is new is appended to the open slot, and at the slot's end, at ``flush()`` and at ``stop()`` one
record of all that this member measured in the slot, which supersedes the others. The
:class:`~.shipper.Shipper` is asked once a second, and after each of these, for what it has to do.

Invariants:

- Each thing measured is in the files of exactly one slot, whatever fails and however late an interval ends. What a
  record could not take (the disk is full) stays here, and goes into the next one.
- A whole record has what this writer has in that slot. That is the registry's open interval, unless part of that went
  to another slot or part of another interval came into this one; then what was written is added up here.
- A member states its gauges in its first record of a slot and in each whole one, and a series that it knows in the
  record that closes its first slot, and every half hour.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..series import KINDS, Kind
from ..window import Aggregates, Flush, Window
from .directory import folder_name, group_directory, process_group
from .member import Member
from .merge import RESTATED
from .reading import GroupReader, Reading
from .record import FORMAT, GaugeValue
from .shipper import Shipper, Waiting, covers

if TYPE_CHECKING:
    from ..naming import Naming
    from ..registry import Registry

__all__ = ["Membership", "folder_of"]

_SECOND = 1.0
_TOGETHER = 0.5  # seconds by which a record may be early, so that the thread wakes up once a second and not twice


def folder_of(destinations: Sequence[str], naming: "Naming", interval: int, once: Sequence[str] = ()) -> Path:
    """Return the folder of the group that ships the same to ``destinations``, labels without options; to those in
    ``once`` each slot once.

    Without destinations, it is the folder of the processes that one server or one command started, for their page.

    Raises :class:`~.directory.Unusable` where there is no place for it.
    """
    here = [label if "//" in label else f"{label} in {os.getcwd()}" for label in destinations]  # file:relative.jsonl
    what = [naming.prefix, naming.namespace, naming.legacy, *(sorted(here) or [process_group()])]
    how: dict[str, object] = {"interval": interval, "naming": naming, "format": FORMAT}
    if once:
        how["once"] = sorted(once)
    name = folder_name(what, how)
    return group_directory(os.environ.get("METRICSLIB_GROUP_DIR")) / name


class Membership:
    """The part of a flusher, which ends the intervals of ``registry``, in the group of ``folder``. One owner at a time.

    ``send(window)`` passes a window of the group to the senders, ``queues()`` returns what waits for each of them, and
    ``own`` is the name of the library's own metrics. ``send_once`` passes a window to those that take each slot once,
    if there are any; then records do not supersede each other.
    """

    def __init__(
        self,
        folder: Path,
        registry: "Registry",
        interval: int,
        own: str,
        send: Callable[[Window], object],
        queues: Callable[[], Mapping[str, Waiting]],
        send_once: Callable[[Window], object] | None = None,
    ) -> None:
        self.folder = folder
        self.user = os.geteuid()
        """The user who may write there."""
        self._registry = registry
        self._interval = interval
        self._own = f"{own}." if own else ""
        self._member = Member(folder, interval)
        self._shipper = Shipper(
            self._member, interval, send, queues, send_once, limits=registry.limits_of_group, drops=registry.drops
        )
        self._additive = send_once is not None
        self._reader = GroupReader(self._member, interval)
        self._alone = False
        """Whether the folder had nothing when this member began, and no other one has been seen there since."""
        self._pending = Aggregates()
        """Of what was collected, what is in no record."""
        self._slot: int | None = None
        """The slot that the records of the open interval went to; None: there is none yet."""
        # What was written into the slot, where that is not the registry's open interval. It may have begun before.
        self._written: Aggregates | None = Aggregates()
        self._gauges: dict[str, GaugeValue] = {}
        self._stated: dict[Kind, set[str]] = {kind: set() for kind in KINDS}
        self._stated_at = -float("inf")
        self._next_record = 0.0
        self._next_step = 0.0
        self._last: tuple[int, int, int] | None = None

    @property
    def forked(self) -> bool:
        """Whether this is the copy of a process that forked without Python's hooks."""
        return self._member.forked

    @property
    def shipping(self) -> bool:
        """Whether this process ships what the group measures."""
        return self._shipper.shipping

    def begin(self, now: float) -> None:
        """Take a number, and ship if no other member does. Raises OSError if the folder cannot be used."""
        self._member.join()
        self._alone = {"members", "ship"}.issuperset(os.listdir(self.folder))
        self._shipper.step(now)
        self._take(now)  # of the open interval what this group has not got yet

    def read(self, now: float) -> Reading | None:
        """Return what all members measured; None: it is this one alone, and its registry has all. From any thread.

        Raises OSError where the files cannot be read.
        """
        if self._alone and len(self._member.numbers()) > 1:
            self._alone = False
        return None if self._alone else self._reader.read(now)

    def step(self, slot: int, now: float) -> float:
        """Do what is due at ``now``, where ``slot`` is the open one, and return the seconds until something is.

        Raises OSError for the disk.
        """
        ships = not 0 < self._next_step - now <= _SECOND  # it is due, or the clock was set back
        records = not 0 < self._next_record - now <= (_TOGETHER if ships else _SECOND)
        try:
            if records:
                self._next_record = now + _SECOND
                self._collect(slot, now)
        finally:
            if ships:
                self._next_step = now + _SECOND  # if this fails
                self._next_step = now + self._shipper.step(now)
        return min(self._next_record, self._next_step) - now

    # -- records

    def _collect(self, slot: int, now: float) -> None:
        changed = self._take(now)
        if self._pending or changed:
            self._append(slot, changed, now)

    def _take(self, now: float) -> dict[str, GaugeValue]:
        """Take what is new out of the registry, and return the gauges that changed."""
        new = self._registry.collect_new(self.folder)
        changed = {key: self._stated_as(key, change.applied_to(None), now) for key, change in new.gauges.items()}
        self._gauges.update(changed)
        new.gauges = {}
        self._pending.merge(new)
        return changed

    def _stated_as(self, key: str, value: float | None, now: float) -> GaugeValue:
        across = "max" if self._own and key.startswith(self._own) else self._registry.across(key)
        return GaugeValue(value, now, across)

    def close(self, flush: Flush, now: float, *, closes: bool) -> None:
        """State all that was measured in the slot of ``flush``; ``closes``: the interval is over.

        Raises OSError where that cannot be written; then it is in the next record.
        """
        new = flush.new
        if new.gauges:
            new = Aggregates()
            new.merge(flush.new)
            new.gauges = {}
        self._pending.merge(new)
        values = flush.cumulative.gauges
        for key in flush.new.gauges:
            self._gauges[key] = self._stated_as(key, values.get(key), now)
        for key, value in values.items():
            if key not in self._gauges:
                self._gauges[key] = self._stated_as(key, value, flush.cumulative.start)
        if gone := self._gauges.keys() - values.keys() - flush.new.gauges.keys():
            self._gauges = {key: gauge for key, gauge in self._gauges.items() if key not in gone}
        if not 0 <= now - self._stated_at < RESTATED:
            self._stated = {kind: set() for kind in KINDS}
            self._stated_at = now
        known: dict[Kind, set[str]] = {
            kind: flush.cumulative[kind].keys() - self._stated[kind] for kind in KINDS if kind != "gauge"
        }
        slot = self._member.slot_for(flush.cumulative.end)
        try:
            self._move_to(slot)
            content = flush.active
            if self._written is not None:
                content = Aggregates()
                content.merge(self._written)
                content.merge(self._pending)
            if self._additive:
                self._member.append(slot, self._pending, self._gauges, now, closes=True, known=known)
            else:
                self._member.append(slot, content, self._gauges, now, whole=True, known=known)
        except BaseException:
            if closes:
                self._slot, self._written = None, Aggregates()
            raise
        self._has_written(slot)
        self._next_step = 0.0  # the shipper is to see it at once
        if closes:  # earlier whole records are superseded; a reader may skip them
            for kind, keys in known.items():
                self._stated[kind] |= keys
            self._slot, self._written = None, None

    def _append(self, slot: int, changed: dict[str, GaugeValue], now: float) -> None:
        slot = self._member.slot_for(slot)
        first = slot != self._slot
        self._move_to(slot)
        self._member.append(slot, self._pending, self._gauges if first else changed, now)
        self._has_written(slot)

    def _move_to(self, slot: int) -> None:
        if self._slot not in (None, slot):  # what is in the other slot stays there
            self._written = Aggregates()

    def _has_written(self, slot: int) -> None:
        if self._written is not None:
            self._written.merge(self._pending)
        self._slot, self._pending = slot, Aggregates()

    # -- shipping

    def ship_now(self, now: float) -> None:
        """Send all that is there if this process ships; the open slot, too."""
        self._shipper.ship_now(now)

    def delivered(self) -> bool:
        """Whether all that this member wrote was delivered, by whichever process ships."""
        return self._member.end is None or covers(self.folder, *self._member.end)

    def give_up(self) -> None:
        """End after :meth:`begin` alone, of which nothing was written."""
        self._registry.uncollect(self.folder)
        self._member.leave()
        self._shipper.give_up()

    def withdraw(self) -> None:
        """End, and take back what was written into the open slot, for another group has it now.

        Where the file has records of others, too, or is closed, it stays.
        """
        self._member.withdraw()
        self._shipper.give_up()

    def leave(self, now: float, deliver: Callable[[], bool]) -> bool:
        """End: what was written is shipped by another process, or now. See :meth:`~.shipper.Shipper.end`."""
        self._member.leave()
        return self._shipper.end(now, deliver)
