"""A gauge: how much there is now."""

from collections.abc import Callable
from typing import Any

from .instrument import FULL, Home, Instrument, finite
from .series import Series
from .window import ABSENT, Aggregates, GaugeChange

__all__ = ["Gauge"]


class _Delta(tuple[float]):
    """A change among the values of a gauge's buffer."""

    __slots__ = ()


class Gauge(Instrument):
    """Holds the last number it was set to, or that its callback returned. A gauge never set is absent."""

    kind = "gauge"
    __slots__ = ("_change", "_read")

    def __init__(self, home: Home, series: Series, key: str | None) -> None:
        self._read: Callable[[], float] | None = None
        super().__init__(home, series, key)

    def set(self, value: float) -> None:
        """Make ``value`` the gauge's value. What is no finite number is counted as bad and skipped."""
        pending = self._pending
        pending.append(value)
        if len(pending) > FULL:
            self._fold()

    def inc(self, n: float = 1) -> None:
        """Add ``n`` to the value; a gauge never set starts from 0."""
        pending = self._pending
        pending.append(_Delta((n,)))
        if len(pending) > FULL:
            self._fold()

    def dec(self, n: float = 1) -> None:
        """Take ``n`` from the value; a gauge never set starts from 0."""
        try:
            self.inc(-n)
        except Exception:  # what cannot be negated
            self._home.account.add("bad_value")

    def _read_by(self, read: Callable[[], float]) -> None:
        """Ask ``read`` for the value at each tick from now on."""
        self._read = read
        if self.sleeping:
            self._wake()

    def _clear(self) -> None:
        self._change: GaugeChange | None = None

    def _absorb(self, batch: list[Any]) -> int:
        bad = 0
        change = self._change
        for item in batch:
            relative = type(item) is _Delta
            numbers, wrong = finite(item if relative else (item,))
            bad += wrong
            for number in numbers:
                new = GaugeChange(None, number) if relative else GaugeChange(number)
                change = change.then(new) if change else new
        self._change = change
        return bad

    def _take(self) -> GaugeChange | None:
        change, self._change = self._change, None
        return change

    def _collect_callback(self, into: Aggregates) -> None:
        """Read the callback, if there is one, into ``into``. Called at ticks alone."""
        if self._read is None:
            return
        try:
            numbers, bad = finite((self._read(),))
        except Exception:  # the callback is the application's
            numbers, bad = [], 1
        if bad:
            self._home.account.add("bad_callback")
        into.gauges[self.key] = GaugeChange(numbers[0]) if numbers else ABSENT
