"""A gauge: a current value, which goes up and down."""

import operator
from collections.abc import Callable
from threading import current_thread, main_thread
from typing import Any, Literal, Self, get_args

from .._accelerate import replaced_by
from ..attempt import attempt, from_signal_handler
from ..window import ABSENT, GaugeChange, total
from .base import FULL, Instrument, Owner, all_plain_and_finite, finite

__all__ = ["ACROSS", "Across", "Gauge", "Read", "change_by_callback"]

Across = Literal["last", "sum", "min", "max", "each"]
"""How the values of one gauge in several processes are combined; ``each`` keeps them apart."""
ACROSS: tuple[Across, ...] = get_args(Across)
Read = Callable[[], float]
"""A callback that returns a gauge's value."""


_NO_CALLS: set[object] = set()


class _Delta(tuple[float]):
    """A change, as opposed to a new value, among the pending values of a gauge."""

    __slots__ = ()


class Gauge(Instrument):
    """Holds a value that goes up and down: the last one that was set, or that its callback returned.

    Get one with :func:`metricslib.gauge`. A gauge that was never set is absent from windows; an idle one repeats its
    value. A gauge of the decorator ``in_progress`` holds the number of calls in progress.
    """

    kind = "gauge"
    __slots__ = ("_across", "_passing", "_read", "_running", "_shown")

    def __init__(self, owner: Owner, asked: str, key: str | None) -> None:
        self._across: Across | None = None
        """The rule that the program chose; None: the one for the way in which the gauge is used."""
        self._read: Read | None = None
        self._passing = False
        """True if the value belongs to this process only, so that a restart must not restore it."""
        self._running = _NO_CALLS
        self._shown = False  # True if the last collected value counted calls in progress
        super().__init__(owner, asked, key)

    @replaced_by("set_value")
    def set(self, value: float) -> None:
        """Set the gauge to ``value``.

        Safe in any thread, signal handler, greenlet or forked child. Never raises for a bad value and never waits.

        Args:
            value: The new value, an int or a float. A value that is not a finite number is skipped and counted, cause
                ``bad_value``.
        """
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    @replaced_by("change_by")
    def inc(self, n: float = 1) -> None:
        """Add ``n`` to the value. A gauge that was never set starts at 0.

        Safe to call from anywhere, like :meth:`set`.

        Args:
            n: The change, an int or a float. A value that is not a finite number is skipped and counted, cause
                ``bad_value``.
        """
        self._change(n)

    def _change(self, n: float) -> None:
        self._put(_Delta((n,)))

    def dec(self, n: float = 1) -> None:
        """Subtract ``n`` from the value. A gauge that was never set starts at 0.

        Safe to call from anywhere, like :meth:`set`.

        Args:
            n: The change, an int or a float. A value that is not a finite number is skipped and counted, cause
                ``bad_value``.
        """
        negative = -n if type(n) is int or type(n) is float else attempt(operator.neg, n)
        if negative is None:
            self._owner.drops.add("bad_value")
        else:
            self.inc(negative)

    def _tagged(self, tags: dict[str, object]) -> Self:
        child = super()._tagged(tags)
        child._across = child._across or self._across
        return child

    def _read_by(self, read: Read) -> None:
        """From now on, call ``read`` for the value at each tick."""
        self._read = read
        self._passing = True
        if self.sleeping:
            self._wake()

    # -- calls in progress

    def _count_calls(self) -> None:
        """From now on, show the number of calls in progress."""
        if self._running is _NO_CALLS:
            self._running = set()
        self._passing = True  # no call outlives its process

    def _enter(self, call: object) -> None:
        if self._running is _NO_CALLS:  # the decorated function was unpickled
            self._count_calls()
        self._running.add(call)
        self.inc(0)  # wakes the gauge, and counts as use even if the call ends before the next tick

    def _take_state(self) -> Any:
        state = super()._take_state()
        running = len(self._running)
        if running or self._shown:
            state = GaugeChange(running)
            self._shown = running > 0
        return state

    def _forget(self) -> None:
        super()._forget()
        self._running.clear()  # these are calls of the parent
        self._shown = False

    def _absorbed(self, state: GaugeChange | None, batch: list[Any]) -> tuple[GaugeChange | None, int]:
        if all_plain_and_finite(batch):  # all of them set it
            return GaugeChange(batch[-1], 0), 0
        bad = 0
        base, delta = state or (None, 0)
        for item in batch:
            relative = type(item) is _Delta and len(item) == 1
            value = finite(item[0] if relative else item)
            if value is None:
                bad += 1
            elif relative:
                delta = total(delta, value)
            else:
                base, delta = value, 0
        return (state if bad == len(batch) else GaugeChange(base, delta)), bad


def change_by_callback(read: Read) -> GaugeChange:
    """Return the value of ``read``, or :data:`~.window.ABSENT` if it raises or does not return a finite number."""
    try:
        value = finite(read())
    except BaseException as error:  # the callback belongs to the application: its errors must not end a thread
        if from_signal_handler(error) or (not isinstance(error, Exception) and current_thread() is main_thread()):
            raise
        value = None
    return ABSENT if value is None else GaugeChange(value)
