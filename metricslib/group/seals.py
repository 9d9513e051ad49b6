"""What is sent to destinations that take each slot once (``?revise=off``), and in spite of that lacks nothing.

Graphite keeps the last value of a slot, so a slot that has grown is sent again. Other receivers keep both values, or
the first. For these a slot is *sealed* once, when it is complete: how far each file was read is written down, in the
file ``seals``, before anything is sent. What comes behind a seal, of whichever slot, belongs to the next slot that is
sealed. So each record is in exactly one seal::

    slot 10   |records of 0 and 1|late record of 1|
    slot 20   |records of 0 and 1|
              seal 10 ───────────▲
              seal 20: the late record of slot 10, and ──▲ what slot 20 has

That sums can be parted like this, records must not supersede each other: in a group with such a destination, members
write what is new alone, also when they close a slot.

Invariants: stamps of seals grow; the content of a seal is a function of the files and of ``seals``; a slot does not
close before all of it is sealed, and each of these seals is confirmed or in the backlog.

After a crash at any line: a seal that was written is sent by the next shipper with the same content, unless it was
noted as confirmed; what is in no seal goes into the next one. Something is sent twice only after a crash between the
confirmation, or the backlog, and its note.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..window import Aggregates
from .record import Slot, take
from .state import SlotFiles, write_file

__all__ = ["Seals"]

Positions = Mapping[int, Mapping[int, int]]
"""How far the files of each slot were read, by member."""


class _Seal(NamedTuple):
    stamp: int
    begin: Positions
    end: Positions


class Seals:
    """The seals of a group. The shipper's alone.

    ``send(stamp, slot)`` sends the content of a seal.
    """

    def __init__(self, folder: Path, send: Callable[[int, Slot], object], *, sync: bool = False) -> None:
        self._folder = folder
        self._send = send
        self._sync = sync
        self._forget()

    def _forget(self) -> None:
        self.last = 0
        """The stamp of the newest seal."""
        self._end: Positions = {}
        """What is in any seal, of open slots."""
        self._waiting: list[_Seal] = []
        """Seals that are not confirmed."""
        self._unsent: list[_Seal] = []
        self._content: Slot | None = None
        """Of the first of these, once it is read."""
        self._slots: dict[int, SlotFiles] = {}
        """Readers that are as far as the seals."""

    def load(self) -> None:
        """Take over from another shipper: what it sealed and was not confirmed is sent again."""
        self._forget()
        try:
            document: Any = json.loads((self._folder / "seals").read_bytes())
            self.last, self._end = int(document["last"]), _positions(document["end"])
            self._waiting = [
                _Seal(int(stamp), _positions(begin), _positions(end)) for stamp, begin, end in document["waiting"]
            ]
        except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
            self._forget()
        self._unsent = [*self._waiting]
        begin = self._waiting[0].begin if self._waiting else self._end
        self._read(begin)

    def seal(self, stamp: int, slots: Mapping[int, SlotFiles]) -> None:
        """Seal what was read of ``slots`` as that stamp, and send it; what is sealed already stays as it is."""
        if stamp > self.last:
            end = {at: dict(slot.ends) for at, slot in slots.items() if at <= stamp}
            seal = _Seal(stamp, self._end, end)
            self._write(stamp, end, [*self._waiting, seal])
            self.last, self._end = stamp, end
            self._waiting.append(seal)
            self._unsent.append(seal)

    def send(self) -> None:
        """Send what was sealed and not sent; what fails is sent by the next call."""
        while self._unsent:
            seal = self._unsent[0]
            if self._content is None:
                self._content = self._read(seal.end, seal.stamp)
            self._send(seal.stamp, self._content)
            self._content = None
            del self._unsent[0]

    def confirm(self, waiting: Collection[int]) -> None:
        """Forget seals of which no queue has anything any more."""
        unsent = {seal.stamp for seal in self._unsent}
        left = [seal for seal in self._waiting if seal.stamp in waiting or seal.stamp in unsent]
        if left != self._waiting:
            self._write(self.last, self._end, left)
            self._waiting = left

    def release(self, stamps: Iterable[int]) -> None:
        """Forget seals that are in the backlog."""
        gone = {*stamps}
        self.confirm({seal.stamp for seal in self._waiting} - gone)

    def holds(self, stamp: int, ends: Mapping[int, int]) -> bool:
        """Whether something of the slot is in no seal, or in one that is neither confirmed nor in the backlog."""
        if {**self._end.get(stamp, {})} != {**ends}:
            return True
        return any(seal.begin.get(stamp) != seal.end.get(stamp) for seal in self._waiting if seal.stamp != stamp)

    def lacks(self, slots: Mapping[int, SlotFiles]) -> bool:
        """Whether anything of these is in no seal."""
        return any({**self._end.get(at, {})} != {**slot.ends} for at, slot in slots.items() if slot.ends)

    def lower(self, mark: int) -> None:
        """Follow a clock that was set back."""
        self.last = min(self.last, mark)

    # -- content

    def _read(self, end: Positions, stamp: int = 0) -> Slot:
        """Return what the files have up to ``end`` since the last call; gauges and known series are those of a slot."""
        aggregates = Aggregates()
        content = Slot(aggregates, {}, {})
        for at in sorted(end):
            slot = self._slots.get(at)
            if slot is None:
                slot = self._slots[at] = SlotFiles(self._folder / str(at))
            slot.read(end[at])
            found = take(slot.files)
            aggregates.merge(found.aggregates)
            if at == stamp:
                content = Slot(aggregates, found.gauges, found.known)
        self._slots = {at: slot for at, slot in self._slots.items() if at in end}
        return content

    def _write(self, last: int, end: Positions, waiting: Iterable[_Seal]) -> None:
        document = {"last": last, "end": end, "waiting": [*waiting]}
        write_file(self._folder / "seals", json.dumps(document).encode(), sync=self._sync)


def _positions(document: Mapping[str, Mapping[str, int]]) -> Positions:
    return {int(stamp): {int(number): int(end) for number, end in ends.items()} for stamp, ends in document.items()}
