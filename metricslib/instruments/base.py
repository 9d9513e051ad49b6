"""The base of all instruments: pending values, a state, and the fold that moves values into the state.

A call must never block on a lock, because a signal handler, a callback of the garbage collector, another greenlet or a
forked child could find it held for ever. So a call only appends its value to a list, which is atomic, and a **fold**
empties the list:

.. code-block:: text

    inc() ──append──> _pending ──fold, under _lock──> _state ──_take, by the flusher──> the window

Who folds:

- A call that finds more than ``FULL`` values waiting. It only tries the lock. If another thread folds, or if the caller
  is a signal handler that interrupted a fold, the call continues and its value waits for the next fold. If threads add
  values faster than one of them can fold, one call in ``FULL`` first sleeps for a millisecond (``CROWDED``). If the
  fold makes no progress, values beyond ``OVERRUN`` are dropped and counted, cause ``buffer_full``.
- The flusher, when it takes the state. Only the flusher waits for the lock, at most ``_PATIENCE`` seconds. Then it
  **steals the lock**: it replaces ``_lock`` by a new one that it holds, and folds. The holder of the old lock may be a
  stopped thread, or a thread in a signal handler that waits for this flush. Or a signal handler raised between the
  acquisition and the ``try``, and the lock would never be released.

A fold changes nothing until its end. It computes the new state from the old state and the first n values
(``_absorbed``), then ``_commit`` sets the state and deletes these values, with no call between the two statements at
which a signal handler could run. ``_commit`` first compares the lock: after a theft, or in a forked child, the cell
has another one, and the old fold discards its result. So an exception at any line leaves state and values as
they were, and no value is counted twice.

Calls append to the list ``_pending``, which is one of three, so that an ordinary call needs no further checks:

- ``_values``, the list of pending values, while the instrument is awake;
- a :class:`_WakingList` while it sleeps, because it expired or was inherited by a forked child: the first value wakes
  it;
- a :class:`_DiscardingList`, which discards all values, if a filter or a cap excluded the series.

The C implementation of :class:`Cell` adds most values to the state at once. Only unusual values, and those after them,
are pending. The number of pending values differs between the implementations, but not the results.

The fold checks the values. It counts bad ones, cause ``bad_value``.
"""

import math
import threading
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from .._accelerate import load, replaced_by
from ..attempt import attempt
from ..budget import Budget
from ..clock import Clock
from ..drops import DropCounter
from ..hints import Hinted
from ..series import Kind, Tags, canonical_tags, split, text_or_none

__all__ = [
    "CHILDREN",
    "Cell",
    "FULL",
    "Owner",
    "Instrument",
    "LONGEST",
    "all_finite",
    "all_plain_and_finite",
    "finite",
    "plain",
]

FULL = 512
"""Maximum number of pending values. A call that finds more folds them."""
CHILDREN = 4096
"""Maximum number of results of ``tagged`` that an instrument caches."""
LONGEST = 256
"""Maximum number of characters, of keys and values together, of the tags of a cached result."""


class _WakingList(list[Any]):
    """The list of a sleeping instrument: the first value that is appended wakes the instrument."""

    __slots__ = ("_cell",)

    def __init__(self, cell: "Cell") -> None:
        self._cell = cell

    def append(self, value: Any) -> None:
        self._cell._wake()
        self._cell._pending.append(value)


class _DiscardingList(list[Any]):
    """The list of an instrument that a filter or a cap excluded."""

    __slots__ = ()

    def append(self, value: Any) -> None:
        pass


_DISCARDING = _DiscardingList()


def _check_number(number: int) -> None:
    if number < 0:
        raise ValueError("must not be negative")


class Cell:
    """The pending values of one instrument, and the state into which they are folded. No method blocks or raises.

    A fold holds ``_lock``. ``_children`` is the cache of ``tagged``, ``_now`` the clock of a timer.
    """

    __slots__ = ("_values", "_children", "_lock", "_now", "_pending", "_state")

    _now: Callable[[], float]

    def _wake(self) -> None:
        """Called when a sleeping cell gets a value."""
        raise NotImplementedError

    def _fold(self) -> None:
        """Fold the pending values into the state, unless another fold is under way."""
        raise NotImplementedError

    @property
    def live(self) -> bool:
        """True if values are kept, False if a filter or a cap excluded the series."""
        return self._values is not _DISCARDING

    @property
    def sleeping(self) -> bool:
        """True if the next value wakes the instrument."""
        return type(self._pending) is _WakingList

    @property
    def _pending_count(self) -> int:
        """The number of pending values."""
        return len(self._values)

    def _open(self, live: bool) -> None:
        """Set the initial state, with a new lock and no values."""
        self._lock = threading.Lock()
        self._values: list[Any] = [] if live else _DISCARDING
        self._pending = self._values
        self._state: Any = None
        self._children: dict[tuple[object, ...], Any] | None = None

    def _put(self, value: Any) -> None:
        """Append a value, and fold if the cell is full."""
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    def _begin(self, limit: int) -> tuple[Any, list[Any]]:
        """Begin a fold: return the state, and the first ``limit`` pending values. The caller holds the lock."""
        _check_number(limit)
        return self._state, self._values[:limit]

    def _commit(self, lock: threading.Lock, state: Any, taken: int) -> bool:
        """End a fold: set ``state``, which includes the first ``taken`` pending values, and delete these values.

        The caller still has references to them, so that no destructor runs here. Return False, and do nothing, if the
        cell has another lock: the flusher has stolen it, or this is a forked child.
        """
        _check_number(taken)
        if self._lock is not lock:
            return False
        # Atomic: the interpreter switches threads, and runs signal handlers, only at calls and jumps.
        self._state = state
        del self._values[:taken]
        return True

    def _take(self) -> Any:
        """Return the state, and set it to None. The caller holds the lock."""
        state, self._state = self._state, None
        return state

    def _take_at_once(self) -> Any:
        """Like :meth:`_take`, without the lock. ``NotImplemented`` if that is unsafe: a fold may be under way."""
        return NotImplemented

    def _drop(self, index: int) -> bool:
        """Drop one pending value. Return False if it does not exist any more."""
        _check_number(index)
        try:
            del self._values[index]  # not by a call, from which an IndexError of a signal handler could come
        except IndexError:  # a fold has just deleted it
            return False
        return True

    def _fall_asleep(self) -> None:
        """Arrange that the next value calls :meth:`_wake`."""
        if self.live:
            self._pending = _WakingList(self)

    def _end_sleep(self) -> None:
        """End the sleep."""
        self._pending = self._values


if not TYPE_CHECKING and (_speedups := load("metricslib._speedups")) is not None:
    Cell = _speedups.Cell


CROWDED = 16 * FULL
"""Number of pending values above which one call in ``FULL`` sleeps for ``_MOMENT``, so that the fold catches up.

To fold a value takes about as long as to append it. If eight threads only append, the one that folds gets an eighth of
the time, and the list would grow without bound. The call does not wait for the end of the fold, because that may depend
on the call: it may be in a signal handler that interrupted the fold.
"""
_MOMENT = 0.001  # seconds
_PATIENCE = 0.25  # seconds until the flusher steals the lock
OVERRUN = 1 << 20
"""Maximum number of pending values while no fold makes progress. More are dropped, cause ``buffer_full``."""
_LARGEST = 2**1023
_REMEMBERED = frozenset((str, int, bool))
"""Types whose equal values have the same text, now and later. Not float: 0.0 equals -0.0."""
_PLAIN = frozenset((int, float))
_TEXTS = (str, bytes, bytearray)
_its_float = attrgetter("__float__")


def _characters(tags: dict[str, object]) -> int:
    """Return the number of characters of the keys, and of the values that are strings."""
    return sum(map(len, tags)) + sum(len(value) for value in tags.values() if type(value) is str)


class Owner(Protocol):
    """The interface of a registry for its instruments."""

    clock: Clock
    drops: DropCounter
    budget: Budget
    exact: int

    def instrument(self, kind: Kind, name: str, tags: Tags) -> "Instrument":
        """Return the instrument of a series. Never raises."""
        ...

    def hold_members(self, size: int) -> None:
        """Continue to count ``size`` bytes of members of a set, which have just been taken from their instrument."""
        ...

    def woken(self, instrument: "Instrument") -> None:
        """Called when a sleeping instrument gets a value. Never raises."""
        ...


def finite(value: object) -> float | None:
    """Return ``value`` as a finite int or float, or None."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is int:
        return value if -_LARGEST < value < _LARGEST else None
    if issubclass(type(value), _TEXTS) or attempt(_its_float, type(value)) is None:
        return None
    number = attempt(float, value)
    return None if number is None or not math.isfinite(number) else number


def all_finite(batch: Sequence[object]) -> tuple[list[float], int]:
    """Return the finite numbers in ``batch``, as ints and floats, and the number of other values."""
    numbers = [number for number in map(finite, batch) if number is not None]
    return numbers, len(batch) - len(numbers)


def plain(batch: Sequence[object]) -> bool:
    """Return True if all values are ints and floats, not of subclasses: the usual case, which C finds out quickly."""
    return _PLAIN.issuperset(map(type, batch))


def all_plain_and_finite(batch: Sequence[Any]) -> bool:
    """Return True if all values are plain finite numbers. False may also mean that their sum is not finite."""
    total = attempt(sum, batch) if plain(batch) else None  # None: an int is too large for a float, as the sum may be
    return total is not None and attempt(math.isfinite, total) is True


class Instrument(Cell, metaclass=Hinted):
    """One series' instrument. Every method may be called at any time from anywhere, and none raises for a bad value."""

    kind: ClassVar[Kind]
    __slots__ = ("__weakref__", "_asked", "_owner", "key")

    def __init__(self, owner: Owner, asked: str, key: str | None) -> None:
        """``asked`` is the key that the program requested, ``key`` the one that is sent, or None if it is excluded."""
        self._asked = asked
        self.key = asked if key is None else key
        self._owner = owner
        self._open(key is not None)

    def __dir__(self) -> list[str]:
        return dir(type(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a reference: unpickling returns the instrument of the same series in that process."""
        return self._owner.instrument, (self.kind, self.name, self.tags)

    @property
    def name(self) -> str:
        """The name that the program requested."""
        return self._asked.partition(";")[0]

    @property
    def tags(self) -> Tags:
        """The tags that the program requested."""
        return split(self._asked)[1] if ";" in self._asked else ()

    @replaced_by("tagged")
    def tagged(self, /, **tags: object) -> Self:
        """Return the instrument with the same kind and name, and with these additional tags.

        The instrument is a separate series. It is created at first use; the same tags always return the same object. On
        a hot path, keep the returned instrument. Never raises and never waits.

        Args:
            **tags: The tags. Values of any type are converted with ``str()``; if that raises an exception, it is
                counted, cause ``bad_tag``, and all tags of this call are ignored. A tag replaces one with the same key
                of this instrument.

        Returns:
            The instrument. Above the registry's ``max_tag_sets``, the one of the series ``name;overflow=true``.
        """
        types = tuple(map(type, tags.values()))
        if not _REMEMBERED.issuperset(types):
            return self._tagged(tags)
        way = (*tags.items(), *types)  # with the types, because 1 == True
        children = self._children
        child: Self | None = None if children is None else children.get(way)
        if child is None:
            child = self._tagged(tags)
            if child is not self and _characters(tags) <= LONGEST:
                children = self._children
                if children is None or len(children) >= CHILDREN:
                    self._children = children = {}
                children[way] = child
        return child

    def _tagged(self, tags: dict[str, object]) -> Self:
        name, tagged, _ = self._asked.partition(";")
        pairs: list[tuple[str, object]] = [*self.tags] if tagged else []
        for pair in tags.items():
            key, text = map(text_or_none, pair)
            if key is None or text is None:
                self._owner.drops.add("bad_tag")
                return self
            pairs.append((key, text))
        child = self._owner.instrument(self.kind, name, canonical_tags(pairs))
        assert type(child) is type(self)
        return child

    # -- folding

    def _fold(self) -> None:
        """Fold the pending values into the state, unless another fold is under way."""
        lock = self._lock  # read once: a fork in the middle replaces it
        waiting = self._pending_count
        stand_back = CROWDED < waiting < OVERRUN and waiting % FULL == 0
        if lock.acquire(timeout=_MOMENT if stand_back else 0):
            try:
                self._absorb_pending(lock)
            except (MemoryError, RecursionError):  # the values wait for the next fold
                self._owner.drops.add("fold_error")
            finally:
                lock.release()
        elif self._pending_count > OVERRUN and self._drop(OVERRUN):
            self._owner.drops.add("buffer_full")

    def _absorb_pending(self, lock: threading.Lock) -> None:
        """Compute the new state, then set it and delete the values in it. The caller holds ``lock``.

        An exception in between, of a signal handler for example, leaves state and values as they were.
        """
        # Not beyond OVERRUN: other threads may drop those values at any moment.
        if self._pending_count:
            state, batch = self._begin(OVERRUN)
            state, bad = self._absorbed(state, batch)
            if self._commit(lock, state, len(batch)) and bad:
                self._owner.drops.add("bad_value", bad)

    # -- for subclasses; the lock is held

    def _absorbed(self, state: Any, batch: list[Any]) -> tuple[Any, int]:
        """Return the state with a batch of raw values added, and the number of bad values. None is the initial state.

        ``state`` is not changed, or only so that adding the batch again gives the same result.
        """
        raise NotImplementedError

    def _aggregate(self, state: Any) -> Any:
        """Return the aggregate of a state, which is not None; None if nothing happened in the interval."""
        return state

    # -- for the registry

    def _take_state(self) -> Any:
        """Return the state since the last call, for :meth:`_aggregate`, or None. Only the flusher calls it."""
        state = self._take_at_once()
        return self._take_locked() if state is NotImplemented else state

    def _take_locked(self) -> Any:
        """Fold the pending values, and take the state."""
        lock = self._lock
        if not lock.acquire(timeout=_PATIENCE):  # steal it: see the module's docstring
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        try:
            self._absorb_pending(lock)
            return self._take()
        finally:
            lock.release()

    def _wake(self) -> None:
        self._end_sleep()
        self._owner.woken(self)

    def _forget(self) -> None:
        """In a forked child, discard state and values, replace the lock, and sleep."""
        self._open(self.live)
        self._fall_asleep()
