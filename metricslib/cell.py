"""Where a call leaves its value, and where a fold finds it: the part of an instrument that everybody touches at once.

``list.append`` is atomic, so a caller only appends: from any thread, signal handler, greenlet or garbage-collector
callback. The list can be swapped for one of two others, at no cost to the calls: an :class:`_Alarm`, which wakes a
sleeping instrument (one that expired, or that a fork left behind) at its first use, and a :class:`_Void`, which keeps
nothing.

The C twin puts most values into the state at once, and lets only what is unusual wait, and what comes behind it. So how
much waits differs between the twins, but never what comes out of both.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .twins import load

__all__ = ["CHILDREN", "FULL", "LONGEST", "Cell"]

FULL = 512
"""How many values may wait in a cell before whoever adds one more folds them."""
CHILDREN = 4096
"""How many ways of writing its tags an instrument remembers, for ``tagged``,"""
LONGEST = 256
"""where keys and values have at most so many characters together."""


class _Alarm(list[Any]):
    """The list of a sleeping instrument: the first value put into it wakes the instrument."""

    __slots__ = ("_cell",)

    def __init__(self, cell: "Cell") -> None:
        self._cell = cell

    def append(self, value: Any) -> None:
        self._cell._wake()
        self._cell._pending.append(value)


class _Void(list[Any]):
    """The list of an instrument that a filter or a cap left out."""

    __slots__ = ()

    def append(self, value: Any) -> None:
        pass


_VOID = _Void()


def _check_number(number: int) -> None:
    if number < 0:
        raise ValueError("must not be negative")


class Cell:
    """The values of one instrument that wait, and the state into which they are folded. Nothing here waits or raises.

    Whoever folds holds ``_lock``. ``_children`` is what ``tagged`` remembers, ``_now`` a timer's clock.
    """

    __slots__ = ("_awake", "_children", "_lock", "_now", "_pending", "_state")

    _now: Callable[[], float]

    def _wake(self) -> None:
        """A sleeping cell is in use again."""
        raise NotImplementedError

    def _fold(self) -> None:
        """Empty the cell into the state, unless somebody is at it already."""
        raise NotImplementedError

    @property
    def live(self) -> bool:
        """Whether anything is kept of what is measured here; not so when a filter or a cap left the series out."""
        return self._awake is not _VOID

    @property
    def sleeping(self) -> bool:
        """Whether the next use wakes the instrument."""
        return type(self._pending) is _Alarm

    @property
    def _waiting(self) -> int:
        """How many values wait."""
        return len(self._awake)

    def _open(self, live: bool) -> None:
        """Start anew: values, lock and all."""
        self._lock = threading.Lock()
        self._awake: list[Any] = [] if live else _VOID
        self._pending = self._awake
        self._state: Any = None
        self._children: dict[tuple[object, ...], Any] | None = None

    def _put(self, value: Any) -> None:
        """Let a value wait; whoever finds the cell full folds it."""
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    def _begin(self, limit: int) -> tuple[Any, list[Any]]:
        """Return the state, and the first ``limit`` values that wait; from now on nothing changes the state."""
        _check_number(limit)
        return self._state, self._awake[:limit]

    def _commit(self, lock: threading.Lock, state: Any, taken: int) -> bool:
        """Exchange the first ``taken`` values, which the caller still holds, for ``state``, in which they are by now.

        Return False, and do nothing, if the cell has another lock by now: another took over, because it took too long,
        or this is the child of a fork.
        """
        _check_number(taken)
        if self._lock is not lock:
            return False
        # Nothing comes between these two: the interpreter lets others in at calls and jumps only.
        self._state = state
        del self._awake[:taken]
        return True

    def _take(self) -> Any:
        """Return the state, and leave none."""
        state, self._state = self._state, None
        return state

    def _take_at_once(self) -> Any:
        """As :meth:`_take`, without the lock; ``NotImplemented`` where that cannot be, for a fold may be under way."""
        return NotImplemented

    def _drop(self, index: int) -> bool:
        """Drop one of the values that wait; return whether it was there."""
        _check_number(index)
        try:
            del self._awake[index]  # and no call: what a signal handler raises comes out of one, and may be this error
        except IndexError:  # a fold went on in this moment
            return False
        return True

    def _fall_asleep(self) -> None:
        """Wake at the next use."""
        if self.live:
            self._pending = _Alarm(self)

    def _rouse(self) -> None:
        """Be awake."""
        self._pending = self._awake


if not TYPE_CHECKING and (_speedups := load("metricslib._speedups")) is not None:
    Cell = _speedups.Cell
