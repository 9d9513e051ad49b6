"""What all instruments share: values that wait, a state, and the fold that moves values into the state.

A call must never wait: not for a lock that a signal handler, a callback of the garbage collector, a switch of greenlets
or a fork could find held. So a call only appends its value to a list, which is atomic, and a **fold** empties the list:

.. code-block:: text

    inc() ──append──> _pending ──fold, under _lock──> _state ──_take, by the flusher──> the window

Who folds:

- A call that finds more than ``FULL`` values waiting. It only tries the lock. If another thread folds, or if the caller
  is a signal handler that interrupted a fold, the call goes on and its value waits for the next fold. Where threads add
  values faster than one of them can fold, one call in ``FULL`` first sleeps for a millisecond (``CROWDED``). If the
  fold makes no progress, values beyond ``OVERRUN`` are dropped and counted, cause ``buffer_full``.
- The flusher, when it takes the state. It alone waits for the lock, at most ``_PATIENCE``. Then it **steals the lock**:
  it replaces ``_lock`` by a new one that it holds, and folds itself. The other may be a thread that was stopped, a
  signal handler that waits for this very flush, or code that raised between taking the lock and the ``try``, in which
  case the lock would never be released.

A fold changes nothing until its end. It computes the new state from the old state and the first n values
(``_absorbed``), then ``_commit`` sets the state and deletes these values, with no call between the two statements at
which a signal handler could run. ``_commit`` first compares the lock: after a theft, or in the child of a fork, the
cell has another one, and the old fold throws its result away. So an exception at any line leaves state and values as
they were, and no value is counted twice.

The list has three forms, chosen by ``_pending``, so that an ordinary call pays nothing for the others:

- the list itself, while the instrument is awake;
- an :class:`_Alarm`, while it sleeps (it expired, or a fork left it behind): the first value wakes it;
- a :class:`_Void`, which keeps nothing, where a filter or a cap left the series out.

The C implementation of :class:`Cell` puts most values into the state at once, and lets only unusual values wait, and
those behind them. How much waits differs between the implementations, but never what comes out.

Values are checked in the fold; a bad one is counted there, cause ``bad_value``.
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


CROWDED = 16 * FULL
"""From how many on callers stand back for a moment, one call in ``FULL``, to let the fold catch up.

Folding costs about what filling does. Of eight threads that do nothing else, the one that folds would have an eighth of
the time, and the buffer would grow without end. It is a moment, not a wait for the fold's end: where that cannot be, as
in a signal handler that interrupted it, the call goes on.
"""
_MOMENT = 0.001  # seconds
_PATIENCE = 0.25  # seconds, for the flusher
OVERRUN = 1 << 20
"""How many may wait while the fold is held up; what comes then is dropped and counted, cause ``buffer_full``."""
_LARGEST = 2**1023
_REMEMBERED = frozenset((str, int, bool))
"""The types of tag values that equal no value with another text, now or later: not 0.0, which is equal to -0.0."""
_PLAIN = frozenset((int, float))
_TEXTS = (str, bytes, bytearray)
_its_float = attrgetter("__float__")


def _characters(tags: dict[str, object]) -> int:
    """How many characters the keys and those values have that are strings."""
    return sum(map(len, tags)) + sum(len(value) for value in tags.values() if type(value) is str)


class Owner(Protocol):
    """What an instrument asks of the registry it lives in."""

    clock: Clock
    drops: DropCounter
    budget: Budget
    exact: int

    def instrument(self, kind: Kind, name: str, tags: Tags) -> "Instrument":
        """Return the instrument of that series; never raises."""
        ...

    def hold_members(self, size: int) -> None:
        """Go on counting ``size`` bytes of members of a set, which were just taken from their instrument."""
        ...

    def woken(self, instrument: "Instrument") -> None:
        """A sleeping instrument is in use again; never raises."""
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
    """Return the finite numbers in ``batch``, as ints and floats, and how many values were none."""
    numbers = [number for number in map(finite, batch) if number is not None]
    return numbers, len(batch) - len(numbers)


def plain(batch: Sequence[object]) -> bool:
    """Whether all in ``batch`` are ints and floats, of no subclass: what is nearly always so, and seen at C's speed."""
    return _PLAIN.issuperset(map(type, batch))


def all_plain_and_finite(batch: Sequence[Any]) -> bool:
    """Whether all in ``batch`` are plain finite numbers; False may also mean that their sum is not."""
    total = attempt(sum, batch) if plain(batch) else None  # None: an int is too large for a float, as the sum may be
    return total is not None and attempt(math.isfinite, total) is True


class Instrument(Cell, metaclass=Hinted):
    """One series' instrument. Every method may be called at any time from anywhere, and none raises for a bad value."""

    kind: ClassVar[Kind]
    __slots__ = ("__weakref__", "_asked", "_owner", "key")

    def __init__(self, owner: Owner, asked: str, key: str | None) -> None:
        """``asked`` is the key that the program asked for; ``key`` what it is sent as, None when it is left out."""
        self._asked = asked
        self.key = asked if key is None else key
        self._owner = owner
        self._open(key is not None)

    def __dir__(self) -> list[str]:
        return dir(type(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as a reference: where it is unpickled, it is the instrument of that series there."""
        return self._owner.instrument, (self.kind, self.name, self.tags)

    @property
    def name(self) -> str:
        """The name that the program asked for."""
        return self._asked.partition(";")[0]

    @property
    def tags(self) -> Tags:
        """The tags that the program asked for."""
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
        way = (*tags.items(), *types)  # with the types, for 1 == 1.0 == True
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
        """Empty the cell into the state, unless somebody is at it already."""
        lock = self._lock  # another one after a fork in the middle
        waiting = self._waiting
        stand_back = CROWDED < waiting < OVERRUN and waiting % FULL == 0
        if lock.acquire(timeout=_MOMENT if stand_back else 0):
            try:
                self._absorb_waiting(lock)
            except (MemoryError, RecursionError):  # the values wait for the next fold
                self._owner.drops.add("fold_error")
            finally:
                lock.release()
        elif self._waiting > OVERRUN and self._drop(OVERRUN):
            self._owner.drops.add("buffer_full")

    def _absorb_waiting(self, lock: threading.Lock) -> None:
        """Compute the new state aside, then exchange it for the values in it. The caller has taken ``lock``.

        Whatever breaks in between, such as an exception of a signal handler, leaves state and values as they were.
        """
        # No further than OVERRUN: what is beyond may be dropped by others at any moment.
        if self._waiting:
            state, batch = self._begin(OVERRUN)
            state, bad = self._absorbed(state, batch)
            if self._commit(lock, state, len(batch)) and bad:
                self._owner.drops.add("bad_value", bad)

    # -- what each kind does; the lock is held

    def _absorbed(self, state: Any, batch: list[Any]) -> tuple[Any, int]:
        """Return the state (None: that of a new interval) with a batch of raw values added, and how many were bad.

        ``state`` stays as it is, or is such that adding the batch once more changes nothing.
        """
        raise NotImplementedError

    def _aggregate(self, state: Any) -> Any:
        """Return the state, which is not None, as what happened in the interval; None if that is nothing."""
        return state

    # -- for the registry

    def _take_state(self) -> Any:
        """Take what is new, for :meth:`_aggregate`; None if that is nothing. Called by the flusher alone."""
        state = self._take_at_once()
        return self._take_locked() if state is NotImplemented else state

    def _take_locked(self) -> Any:
        """Fold what waits, and take the state.

        From a fold that is held up it takes over, under another lock, and the other finds that out when it goes on. Its
        thread may be stopped, or run a signal handler that waits for this very flush; or the handler raised between the
        taking of the lock and the ``try``, and nobody would ever release it.
        """
        lock = self._lock
        if not lock.acquire(timeout=_PATIENCE):
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        try:
            self._absorb_waiting(lock)
            return self._take()
        finally:
            lock.release()

    def _wake(self) -> None:
        self._rouse()
        self._owner.woken(self)

    def _forget(self) -> None:
        """Start anew, as a forked child must: values, lock and all."""
        self._open(self.live)
        self._fall_asleep()
