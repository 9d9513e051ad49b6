"""Which series a key on the wire means: asked of the registry once, then remembered, within bounds."""

import sys
from collections.abc import Sequence
from typing import Protocol

from metricslib.budget import Budget
from metricslib.drops import DropCounter
from metricslib.series import KINDS, Kind, Tags, split

__all__ = ["Keys", "Registry", "is_overflow"]


class Registry(Protocol):
    """What an aggregator asks of its registry."""

    exact: int
    drops: DropCounter
    budget: Budget

    def admit(self, kind: Kind, name: str, tags: Tags = ()) -> str | None:
        """Return the key of that series' aggregates, None to leave it out."""
        ...

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int = 0) -> list[str] | None:
        """Return the keys of many series without tags; None if they have to be admitted one by one, in order."""
        ...


class Keys:
    """Maps keys as written to keys of series.

    Remembers ``limit`` of each kind, and ``size`` bytes of all; when it would be more, all are forgotten first: they
    are learnt again from what comes. What found no room is not remembered beyond its batch, for there is no end to such
    keys.
    """

    def __init__(self, registry: Registry, limit: int, size: int) -> None:
        self.registry = registry
        self.limit = limit
        self.size = size
        self.used = 0
        """Bytes that are counted for what is remembered."""
        self.known: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}
        """For each kind, the series' key by the key as written; of those that were found and not refused."""
        self._filtered: set[tuple[Kind, str]] = set()
        self._without_room: dict[tuple[Kind, str], tuple[str | None, str]] = {}
        self._forgotten: set[tuple[Kind, str]] = set()
        self._overflowed = 0

    def start_batch(self) -> None:
        """Ask again for what found no room in the last batch."""
        self._without_room.clear()

    def find(self, kind: Kind, written: str) -> tuple[str | None, str]:
        """Return the series' key, or None and the cause: ``filtered`` or ``overflow_dropped``."""
        key = self.known[kind].get(written)
        if key is not None:
            return key, ""
        if (kind, written) in self._filtered:
            return None, "filtered"
        key, cause = self.ask(kind, written)
        if (kind, written) not in self._without_room and self._make_room(kind, written):
            if key is None:
                self._filtered.add((kind, written))
            else:
                self.known[kind][written] = key
        return key, cause

    def ask(self, kind: Kind, written: str) -> tuple[str | None, str]:
        """As :meth:`find`, and remember nothing beyond the batch."""
        if (found := self._without_room.get((kind, written))) is not None:
            return found
        key = self.registry.admit(kind, *split(written))
        cause = "" if key is not None else self._cause(kind)
        if cause == "overflow_dropped" or (key is not None and is_overflow(key)):
            self._without_room[kind, written] = key, cause
        return key, cause

    def _cause(self, kind: Kind) -> str:
        """The registry does not say why it refuses, but it counts. Only gauges are refused for want of room."""
        if kind == "gauge":
            overflowed = self.registry.drops.totals().get("overflow_dropped", 0)
            if overflowed > self._overflowed:
                self._overflowed = overflowed
                return "overflow_dropped"
        return "filtered"

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired: it must be asked for again."""
        self._forgotten.add((kind, key))

    def sweep(self) -> bool:
        """Drop what was forgotten, and what was refused; return whether there was anything forgotten.

        All at once, for one expired series leaves no other trace than among all keys.
        """
        if not self._forgotten:
            return False
        for kind, known in self.known.items():
            self.known[kind] = {written: key for written, key in known.items() if (kind, key) not in self._forgotten}
        self._filtered.clear()
        self._forgotten.clear()
        self.used = sum(_cost(written) for known in self.known.values() for written in known)
        return True

    def _make_room(self, kind: Kind, written: str) -> bool:
        """Count one more key; return False if it does not fit even alone."""
        size = _cost(written)
        if max(len(self.known[kind]), len(self._filtered)) >= self.limit or self.used + size > self.size:
            for known in self.known.values():
                known.clear()
            self._filtered.clear()
            self.used = 0
        if self.limit < 1 or size > self.size:
            return False
        self.used += size
        return True


def _cost(written: str) -> int:
    """The bytes that are counted for a key: its object, and a place in a dictionary that is half empty."""
    return 128 + sys.getsizeof(written)


def is_overflow(key: str) -> bool:
    """Whether the series takes what found no room, so that what goes there may find room later."""
    return key == "overflow" or key.endswith(";overflow=true")
