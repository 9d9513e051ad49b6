"""How much memory measuring may take: a budget in bytes, and how much of it is in use.

The number of series is bounded, but a key may have 64 KiB, and a set 100,000 members. So what a sender can make large
is counted in bytes, against three shares of one budget that cannot take from each other:

======================  ======  ==================================================================================
``Budget.series``       1/2     each series that was admitted: :func:`series_cost`
``Budget.raw_keys``     1/4     what a forwarder's listeners remember of keys as they were written; each has a part
``Budget.members``      1/4     members of sets in the open interval and the last one: :func:`member_cost`
======================  ======  ==================================================================================

The costs are estimates, and rather too high: they hold for C and Python, and for a series that is shipped to Graphite.
What the samples of a timer take is not in them. That has a bound of its own for each series.
"""

import os
import sys
import threading
import weakref
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from .errors import InvalidOption
from .series import Kind

__all__ = [
    "LEAST",
    "Budget",
    "Share",
    "available_memory",
    "default_max_bytes",
    "member_cost",
    "members_cost",
    "series_cost",
    "series_costs",
]

LEAST = 64 << 20
"""Bytes that the default budget has at least."""
_SERIES = 1024
"""Bytes of a series apart from its key: its aggregates, totals and places in tables, about 600 at most, and the objects
of its paths."""
_KEYS = {"counter": 3, "gauge": 2, "unique": 2, "timer": 15, "histogram": 15}
"""How often a series' key is in memory: the key itself, and one path for each statistic that is sent by default."""
_MEMBER = 192
"""Bytes of a member apart from its characters: the place in a set, which is half empty, and the object."""


def series_cost(kind: Kind, key: str) -> int:
    """Return the bytes that are counted for a series: 1,024, and its key once and once more for each of its paths."""
    return _SERIES + _KEYS[kind] * sys.getsizeof(key)


def series_costs(series: Iterable[tuple[Kind, str]]) -> list[int]:
    """Return what :func:`series_cost` is for each of many series."""
    size = sys.getsizeof
    return [_SERIES + _KEYS[kind] * size(key) for kind, key in series]


def member_cost(length: int) -> int:
    """Return the bytes that are counted for a set's member of that length: 192, and twice its length."""
    return _MEMBER + 2 * length


def members_cost(sets: Iterable[Collection[str]]) -> int:
    """Return what :func:`member_cost` is for all members of many sets."""
    return sum(_MEMBER * len(members) + 2 * sum(map(len, members)) for members in sets)


class Share:
    """How many bytes of one kind are in use, and how many may be. Any thread and any signal handler may add.

    :meth:`fits` and :meth:`add` are two steps: threads that take both at the same time may exceed the share by one
    thing each.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.cell = array("q", [0, 0])
        """What C has counted, which it does without the interpreter lock, and what was counted here."""
        self._pending: list[int] = []
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return sum(self.cell) + sum(self._pending)

    def fits(self, size: int) -> bool:
        """Whether there is room for so many bytes."""
        return self.used + size <= self.allowed

    def add(self, size: int) -> None:
        """Count ``size`` more bytes as used, or fewer if it is negative. Waits for nothing."""
        self._pending.append(size)
        if self._lock.acquire(blocking=False):  # otherwise the next call folds it
            try:
                taken = len(self._pending)
                self.cell[1] += sum(self._pending[:taken])
                del self._pending[:taken]
            finally:
                self._lock.release()

    def reset_after_fork(self) -> None:
        """In a forked child: the parent's thread that held the lock is not here."""
        self._lock = threading.Lock()


class RemembersRawKeys(Protocol):
    """A listener's part of what is remembered of keys."""

    @property
    def key_bytes(self) -> int:
        """How many bytes are counted for keys as they were written."""
        ...


class Budget:
    """``max_bytes`` for a registry and all that feeds it; None for :func:`default_max_bytes`.

    Raises :class:`~.errors.InvalidOption` for anything but a whole number of at least 1.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        if max_bytes is None:
            max_bytes = default_max_bytes()
        if not isinstance(max_bytes, int) or max_bytes < 1:
            raise InvalidOption("max_bytes", max_bytes, "must be a whole number of at least 1, or None")
        self.max_bytes = max_bytes
        self.series = Share(max_bytes // 2)
        self.raw_keys = Share(max_bytes // 4)
        self.members = Share(max_bytes // 4)
        self._raw_keys: weakref.WeakSet[RemembersRawKeys] = weakref.WeakSet()

    def watch_raw_keys(self, listener: RemembersRawKeys) -> None:
        """Count what ``listener`` remembers, for as long as it is in use."""
        self._raw_keys.add(listener)

    def usage(self) -> dict[str, dict[str, int]]:
        """Return the bytes ``used`` and ``allowed``: of ``series``, ``raw_keys`` and ``members``, and in ``total``."""
        used = {
            "series": self.series.used,
            "raw_keys": sum(listener.key_bytes for listener in list(self._raw_keys)),
            "members": self.members.used,
        }
        shares = {name: {"used": size, "allowed": getattr(self, name).allowed} for name, size in used.items()}
        return {"total": {"used": sum(used.values()), "allowed": self.max_bytes}, **shares}

    def reset_after_fork(self) -> None:
        """In a forked child: the series are there, but what the parent measured is not."""
        self.series.reset_after_fork()
        self.raw_keys, self.members = Share(self.raw_keys.allowed), Share(self.members.allowed)


def default_max_bytes() -> int:
    """Return a quarter of the memory that this process may have, but at least :data:`LEAST`."""
    return max(LEAST, available_memory() // 4)


def available_memory(root: str | os.PathLike[str] = "/") -> int:
    """Return the smallest of the machine's memory, the limits of its control groups and RLIMIT_AS, in bytes."""
    return min([sys.maxsize, *_machine(), *_control_groups(os.fspath(root)), *_address_space()])


def _machine() -> Iterator[int]:
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _address_space() -> Iterator[int]:
    try:
        import resource
    except ImportError:
        return
    if (soft := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        yield soft


def _control_groups(root: str) -> Iterator[int]:
    """Yield the limits of the groups that this process is in, and of those around them: version 2, and version 1.

    In a container the path of a group may be that outside, and then only the outermost directory is there.
    """
    try:
        with open(f"{root}/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if line.startswith("0::"):
            yield from _limits(f"{root}/sys/fs/cgroup", group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(f"{root}/sys/fs/cgroup/memory", group, "memory.limit_in_bytes")


def _limits(mount: str, group: str, name: str) -> Iterator[int]:
    group = group.strip("/")
    while True:
        try:
            with open(f"{mount}/{group}/{name}") as file:
                yield int(file.read())
        except (OSError, ValueError):  # not there, or "max"
            pass
        if not group:
            return
        group = group.rpartition("/")[0]
