"""Which series a key on the wire means: asked of the registry once, then remembered, within bounds."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from metricslib.account import Account
from metricslib.names import Tags, split
from metricslib.series import KINDS, Kind

__all__ = ["Keys", "Registry", "is_overflow"]


class Registry(Protocol):
    """What an intake asks of its registry."""

    exact: int
    account: Account

    def admit(self, kind: Kind, name: str, tags: Tags = ()) -> str | None:
        """Return the key of that series' aggregates, None to leave it out."""
        ...

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int = 0) -> list[str] | None:
        """Return the keys of many series without tags; None if they have to be admitted one by one, in order."""
        ...


class Keys:
    """Maps keys as written to keys of series. Remembers ``limit`` of each kind; the oldest half makes room for more."""

    def __init__(self, registry: Registry, limit: int) -> None:
        self.registry = registry
        self.limit = limit
        self.known: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}
        """For each kind, the series' key by the key as written; of those that were found and not refused."""
        self._refused: dict[tuple[Kind, str], str] = {}
        self._forgotten: set[tuple[Kind, str]] = set()
        self._overflowed = 0

    def find(self, kind: Kind, written: str) -> str | None:
        """Return the series' key, None if the series is refused."""
        known = self.known[kind]
        key = known.get(written)
        if key is None and (kind, written) not in self._refused:
            key, cause = self.ask(kind, written)
            if key is None:
                _make_room(self._refused, self.limit)
                self._refused[kind, written] = cause
            else:
                _make_room(known, self.limit)
                known[written] = key
        return key

    def ask(self, kind: Kind, written: str) -> tuple[str | None, str]:
        """Ask the registry; return the series' key, or None and the cause: ``filtered`` or ``overflow_dropped``."""
        key = self.registry.admit(kind, *split(written))
        return key, "" if key is not None else self._cause(kind)

    def refusal(self, kind: Kind, written: str) -> str:
        """Return the cause for which :meth:`find` just returned None: ``filtered`` or ``overflow_dropped``."""
        return self._refused[kind, written]

    def _cause(self, kind: Kind) -> str:
        """The registry does not say why it refuses, but it counts. Only gauges are refused for want of room."""
        if kind == "gauge":
            overflowed = self.registry.account.totals().get("overflow_dropped", 0)
            if overflowed > self._overflowed:
                self._overflowed = overflowed
                return "overflow_dropped"
        return "filtered"

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired: it must be asked for again."""
        self._forgotten.add((kind, key))

    def sweep(self) -> bool:
        """Drop what was forgotten, and what may find room now; return whether there was anything forgotten.

        All at once, for one expired series leaves no other trace than among all keys.
        """
        if not self._forgotten:
            return False
        for kind, known in self.known.items():
            self.known[kind] = {
                written: key
                for written, key in known.items()
                if (kind, key) not in self._forgotten and not is_overflow(key)
            }
        self._refused.clear()
        self._forgotten.clear()
        return True


def is_overflow(key: str) -> bool:
    """Whether the series takes what found no room, so that what goes there may find room later."""
    return key == "overflow" or key.endswith(";overflow=true")


def _make_room(cache: dict[Any, str], limit: int) -> None:
    if len(cache) >= limit:
        for entry in list(islice(cache, limit - limit // 2)):
            del cache[entry]
