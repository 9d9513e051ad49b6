"""What all instruments share: a buffer that anybody may append to at any moment, and a fold that empties it.

The rule is that measuring never waits for anybody. ``list.append`` is atomic, so a caller only appends: from any
thread, signal handler, greenlet or garbage-collector callback. Whoever finds the buffer full folds it into the
instrument's state, under a lock that is only tried; if another has it, the call goes on, and where the buffer is
crowded it first stands back for a moment. The flusher alone waits. Values are checked in the fold, where a bad one is
counted.

The buffer can be swapped for one of two others, at no cost to the calls: an :class:`_Alarm`, which wakes a sleeping
instrument (one that expired, or that a fork left behind) at its first use, and a :class:`_Void`, which keeps nothing.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self, SupportsFloat

from .account import Account
from .clock import Clock
from .names import Tags, canonical_tags
from .series import Kind, Series
from .window import Aggregates

__all__ = ["Home", "Instrument", "all_finite", "finite", "plain"]

FULL = 512
"""How many values may wait in an instrument's buffer before whoever adds one more folds them."""
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
CHILDREN = 4096
"""How many ways of writing its tags an instrument remembers, for :meth:`Instrument.tagged`."""
_LARGEST = 2**1023
_REMEMBERED = (str, int, bool)
_PLAIN = frozenset((int, float))


class Home(Protocol):
    """What an instrument asks of the registry it lives in."""

    clock: Clock
    account: Account
    exact: int

    def instrument(self, kind: Kind, name: str, tags: Tags) -> "Instrument":
        """Return the instrument of that series; never raises."""
        ...

    def woken(self, instrument: "Instrument") -> None:
        """A sleeping instrument is in use again; never raises."""
        ...


class _Alarm(list[Any]):
    """The buffer of a sleeping instrument: the first value put into it wakes the instrument."""

    __slots__ = ("_instrument",)

    def __init__(self, instrument: "Instrument") -> None:
        self._instrument = instrument

    def append(self, value: Any) -> None:
        self._instrument._wake()
        self._instrument._pending.append(value)


class _Void(list[Any]):
    """The buffer of an instrument that a filter or a cap left out."""

    __slots__ = ()

    def append(self, value: Any) -> None:
        pass


_VOID = _Void()


def finite(value: object) -> float | None:
    """Return ``value`` as a finite int or float, or None."""
    try:
        if type(value) is float:
            return value if math.isfinite(value) else None
        if type(value) is int:
            return value if -_LARGEST < value < _LARGEST else None
        if isinstance(value, str | bytes | bytearray) or not isinstance(value, SupportsFloat):
            return None
        number = float(value)
    except Exception:  # the value's own __float__ may raise anything
        return None
    return number if math.isfinite(number) else None


def all_finite(batch: Sequence[object]) -> tuple[list[float], int]:
    """Return the finite numbers in ``batch``, as ints and floats, and how many values were none."""
    numbers = [number for number in map(finite, batch) if number is not None]
    return numbers, len(batch) - len(numbers)


def plain(batch: Sequence[object]) -> bool:
    """Whether all in ``batch`` are ints and floats, of no subclass: what is nearly always so, and seen at C's speed."""
    return _PLAIN.issuperset(map(type, batch))


class Instrument:
    """One series' instrument. Every method may be called at any time from anywhere, and none raises for a bad value."""

    kind: ClassVar[Kind]
    __slots__ = ("__weakref__", "_awake", "_children", "_home", "_lock", "_pending", "_state", "key", "name", "tags")

    def __init__(self, home: Home, series: Series, key: str | None) -> None:
        """``series`` is what the program asked for; ``key`` what it is sent as, None when it is left out."""
        self.name = series.name
        self.tags = series.tags
        self.key = series.key if key is None else key
        self._home = home
        self._awake: list[Any] = _VOID if key is None else []
        self._pending = self._awake
        self._lock = threading.Lock()
        self._children: dict[tuple[object, ...], Self] | None = None
        self._state: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def tagged(self, /, **tags: object) -> Self:
        """Return the instrument of the same kind and name that also has these tags, made at first use.

        Tag values may be of any type that has a ``str()``. A tag given here wins over one of the same key on this
        instrument. Over the registry's cap of tag sets a name, it is the instrument of the series
        ``name;overflow=true``.
        """
        try:
            # 1 == 1.0 == True are one dictionary key but three tag values: hence the types.
            return self._children[(*tags.items(), *map(type, tags.values()))]  # type: ignore[index]
        except Exception:  # not there yet, or what the values' own __hash__ and __eq__ raise
            return self._tagged(tags)

    def _tagged(self, tags: dict[str, object]) -> Self:
        try:
            child = self._home.instrument(self.kind, self.name, canonical_tags([*self.tags, *tags.items()]))
        except Exception:  # a tag's own __str__ may raise anything
            self._home.account.add("bad_tag")
            return self
        assert type(child) is type(self)
        # Only values that are equal to nothing with another text, now or later: not 0.0, which is equal to -0.0.
        if all(type(value) in _REMEMBERED for value in tags.values()):
            children = self._children
            if children is None or len(children) >= CHILDREN:
                self._children = children = {}
            children[(*tags.items(), *map(type, tags.values()))] = child
        return child

    # -- the buffer

    def _fold(self) -> None:
        """Empty the buffer into the state, unless somebody is at it already."""
        lock = self._lock  # another one after a fork in the middle
        waiting = len(self._awake)
        stand_back = CROWDED < waiting < OVERRUN and waiting % FULL == 0
        if lock.acquire(timeout=_MOMENT if stand_back else 0):
            try:
                self._absorb_pending(lock)
            except (MemoryError, RecursionError):  # the values wait for the next fold
                self._home.account.add("fold_error")
            finally:
                lock.release()
        elif len(self._awake) > OVERRUN:
            try:
                self._awake.pop(OVERRUN)
            except IndexError:  # the fold went on in this moment
                return
            self._home.account.add("buffer_full")

    def _absorb_pending(self, lock: threading.Lock) -> None:
        """Compute the new state aside, then exchange it for the values in it. The caller has taken ``lock``.

        Whatever breaks in between, such as an exception of a signal handler, leaves state and buffer as they were.
        """
        pending = self._awake
        # No further than OVERRUN: what is beyond may be dropped by others at any moment.
        if taken := min(len(pending), OVERRUN):
            state, bad = self._absorbed(self._state, pending[:taken])
            if self._lock is not lock:  # it took too long and another took over, or this is the child of a fork
                return
            # Nothing comes between these two: the interpreter lets others in at calls and jumps only.
            self._state = state
            del pending[:taken]
            if bad:
                self._home.account.add("bad_value", bad)

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

    @property
    def live(self) -> bool:
        """Whether anything is kept of what is measured here; not so when a filter or a cap left the series out."""
        return self._awake is not _VOID

    @property
    def sleeping(self) -> bool:
        """Whether the next use wakes the instrument."""
        return type(self._pending) is _Alarm

    def _collect(self, into: Aggregates) -> None:
        """Move what is new into ``into``. Called by the flusher alone.

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
            self._absorb_pending(lock)
            state, self._state = self._state, None
        finally:
            lock.release()
        if state is not None and (value := self._aggregate(state)) is not None:
            into.add(self.kind, self.key, value)

    def _sleep(self) -> None:
        """Tell home at the next use."""
        if self.live:
            self._pending = _Alarm(self)

    def _wake(self) -> None:
        self._pending = self._awake
        self._home.woken(self)

    def _forget(self) -> None:
        """Start anew, as a forked child must: values, lock and all."""
        self._lock = threading.Lock()
        if self.live:
            self._awake = []
        self._state = None
        self._sleep()
