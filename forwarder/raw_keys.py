"""Maps raw keys, as written in lines, to series: a bounded cache of the registry's answers."""

import sys
from collections.abc import Sequence
from typing import Protocol

from metricslib.budget import Budget
from metricslib.drops import DropCounter
from metricslib.series import KINDS, Kind, Tags, split

__all__ = ["Keys", "SourceRegistry", "is_overflow"]


class SourceRegistry(Protocol):
    """The methods of a registry that a source uses."""

    exact: int
    drops: DropCounter
    budget: Budget

    def admit(self, kind: Kind, name: str, tags: Tags = ()) -> str | None:
        """Return the key of the series, or None if it is excluded."""
        ...

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int = 0) -> list[str] | None:
        """Return the keys of many series without tags, or None if they must be admitted one by one, in order."""
        ...


class Keys:
    """Maps raw keys to keys of series.

    Caches at most ``limit`` keys of each kind, and ``size`` bytes in total. When it is full, it is cleared and filled
    again. Keys of series above a cap of the registry are cached only during a batch, because their number is unlimited.
    """

    def __init__(self, registry: SourceRegistry, limit: int, size: int) -> None:
        self.registry = registry
        self.limit = limit
        self.size = size
        self.used = 0
        """Bytes of all cached keys."""
        self.known: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}
        """For each kind, the key of the series by raw key. Excluded series are not included."""
        self._filtered: set[tuple[Kind, str]] = set()
        self._without_room: dict[tuple[Kind, str], tuple[str | None, str]] = {}
        self._forgotten: set[tuple[Kind, str]] = set()
        self._overflowed = 0

    def start_batch(self) -> None:
        """Forget the keys above a cap of the last batch."""
        self._without_room.clear()

    def find(self, kind: Kind, written: str) -> tuple[str | None, str]:
        """Return the key of the series, or None and the cause: ``filtered`` or ``overflow_dropped``."""
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
        """Like :meth:`find`, but cache nothing beyond the batch."""
        if (found := self._without_room.get((kind, written))) is not None:
            return found
        key = self.registry.admit(kind, *split(written))
        cause = "" if key is not None else self._cause(kind)
        if cause == "overflow_dropped" or (key is not None and is_overflow(key)):
            self._without_room[kind, written] = key, cause
        return key, cause

    def _cause(self, kind: Kind) -> str:
        """Return the cause from the counts of the registry. Only gauges are dropped above a cap."""
        if kind == "gauge":
            overflowed = self.registry.drops.totals().get("overflow_dropped", 0)
            if overflowed > self._overflowed:
                self._overflowed = overflowed
                return "overflow_dropped"
        return "filtered"

    def forget(self, kind: Kind, key: str) -> None:
        """Forget an expired series, so that the registry is asked again."""
        self._forgotten.add((kind, key))

    def sweep(self) -> bool:
        """Remove forgotten and excluded keys. Return True if there were forgotten ones.

        They are removed together, because finding the raw keys of one series takes a pass over all keys.
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
        """Make room for one more key. Return False if it does not fit into an empty cache."""
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
    """Return the bytes of a key: its object, and its share of a half-empty dictionary."""
    return 128 + sys.getsizeof(written)


def is_overflow(key: str) -> bool:
    """Return True if the series collects the values of series above a cap, which may be admitted later."""
    return key == "overflow" or key.endswith(";overflow=true")
