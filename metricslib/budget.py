"""The memory limit: a budget in bytes, and how much of it is in use.

A limit on the number of series does not bound memory: a key can have 64 KiB, and a set 100,000 members. So data whose
size depends on the input is also counted in bytes, against three separate shares of one budget:

======================  ======  ==================================================================================
``Budget.series``       1/2     each series that was admitted: :func:`series_cost`
``Budget.raw_keys``     1/4     keys as received that a forwarder's listeners cache; all listeners have equal parts
``Budget.members``      1/4     members of sets in the open and in the last interval: :func:`member_cost`
======================  ======  ==================================================================================

The costs are estimates on the high side: they hold for C and Python, and for a series that is sent to Graphite. They do
not include the samples of a timer, which have their own bound for each series.
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
"""Minimum of the default budget, in bytes."""
_SERIES = 1024
"""Bytes of a series without its key: aggregates, totals and table entries, about 600 at most, and the objects of its
paths."""
_KEYS = {"counter": 3, "gauge": 2, "unique": 2, "timer": 15, "histogram": 15}
"""Number of copies of a key in memory: the key itself, and one path for each statistic that is sent by default."""
_MEMBER = 192
"""Bytes of a member without its characters: the entry in a set, which is half empty, and the object."""


def series_cost(kind: Kind, key: str) -> int:
    """Return the bytes that count for a series: 1,024, plus its key once, plus once more for each of its paths."""
    return _SERIES + _KEYS[kind] * sys.getsizeof(key)


def series_costs(series: Iterable[tuple[Kind, str]]) -> list[int]:
    """Return :func:`series_cost` for each of many series."""
    size = sys.getsizeof
    return [_SERIES + _KEYS[kind] * size(key) for kind, key in series]


def member_cost(length: int) -> int:
    """Return the bytes that count for a set member of this length: 192 plus twice its length."""
    return _MEMBER + 2 * length


def members_cost(sets: Iterable[Collection[str]]) -> int:
    """Return the sum of :func:`member_cost` for all members of many sets."""
    return sum(_MEMBER * len(members) + 2 * sum(map(len, members)) for members in sets)


class Share:
    """The bytes of one share that are used and allowed. Threads and signal handlers may call :meth:`add`.

    :meth:`fits` and :meth:`add` are separate steps, so concurrent threads may exceed the share by one item each.
    """

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.cell = array("q", [0, 0])
        """The bytes counted by C, which holds no interpreter lock, and those counted by Python."""
        self._pending: list[int] = []
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return sum(self.cell) + sum(self._pending)

    def fits(self, size: int) -> bool:
        """Return whether ``size`` more bytes fit."""
        return self.used + size <= self.allowed

    def add(self, size: int) -> None:
        """Add ``size`` bytes to those used; it may be negative. Never blocks."""
        self._pending.append(size)
        if self._lock.acquire(blocking=False):  # otherwise the next call adds it
            try:
                taken = len(self._pending)
                self.cell[1] += sum(self._pending[:taken])
                del self._pending[:taken]
            finally:
                self._lock.release()

    def reset_after_fork(self) -> None:
        """In a forked child, replace the lock: a thread of the parent may have held it."""
        self._lock = threading.Lock()


class RemembersRawKeys(Protocol):
    """A listener that caches keys as received."""

    @property
    def key_bytes(self) -> int:
        """The bytes that count for cached keys."""
        ...


class Budget:
    """The memory limit of a registry and its listeners. ``max_bytes`` None stands for :func:`default_max_bytes`.

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
        """Include the cache of ``listener`` in :meth:`usage`, as long as the listener exists."""
        self._raw_keys.add(listener)

    def usage(self) -> dict[str, dict[str, int]]:
        """Return the bytes ``used`` and ``allowed`` of ``series``, ``raw_keys`` and ``members``, and in ``total``."""
        used = {
            "series": self.series.used,
            "raw_keys": sum(listener.key_bytes for listener in list(self._raw_keys)),
            "members": self.members.used,
        }
        shares = {name: {"used": size, "allowed": getattr(self, name).allowed} for name, size in used.items()}
        return {"total": {"used": sum(used.values()), "allowed": self.max_bytes}, **shares}

    def reset_after_fork(self) -> None:
        """In a forked child, reset all but the series: the other shares count data of the parent."""
        self.series.reset_after_fork()
        self.raw_keys, self.members = Share(self.raw_keys.allowed), Share(self.members.allowed)


def default_max_bytes() -> int:
    """Return a quarter of :func:`available_memory`, but at least :data:`LEAST`."""
    return max(LEAST, available_memory() // 4)


def available_memory(root: str | os.PathLike[str] = "/") -> int:
    """Return the bytes that this process can use: the smallest of the machine's memory, cgroup limits and RLIMIT_AS."""
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
    """Yield the limits of the control groups of this process and of their parents, for versions 1 and 2.

    In a container, the path of a group may be the one outside the container. Then only the top directory exists.
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
        except (OSError, ValueError):  # it does not exist, or is "max"
            pass
        if not group:
            return
        group = group.rpartition("/")[0]
