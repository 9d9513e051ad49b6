"""Tools for tests of programs that measure: what a block measured, and a clock that the test controls.

::

    with capture() as metrics:
        greet("Ada")
    assert metrics.counter("greetings", polite=True) == 1

Under pytest, the fixture ``metrics`` captures what a test measures: see :mod:`~.pytest_plugin`. A
:class:`ManualClock` is given to a registry as ``clock``. A test then needs no sleeps, and can set the clock back.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ._default import default_registry
from .registry import Registry
from .series import KINDS, Kind, series_of
from .sketch import Distribution
from .window import Aggregates, GaugeChange

__all__ = ["Captured", "ManualClock", "Number", "Values", "capture"]


@contextmanager
def capture(registry: Registry = default_registry) -> "Iterator[Captured]":
    """Capture what is measured in a ``with`` block, whatever was measured before.

    Flushers, ticks and other captures are not disturbed, and do not disturb. Values may be read in the block and after
    it. What other threads measure meanwhile is captured, too.

    In the block, :func:`metricslib.start` sends nothing and joins no group, so the program under test may call it.

    Args:
        registry: The registry of the program. The default is that of the functions of the package.
    """
    from ._shipping import isolated

    captured = Captured(registry)
    with isolated():
        registry.copy_to(captured.aggregates)
        try:
            yield captured
        finally:
            registry.end_copy(captured.aggregates)


class Captured:
    """What was measured. Its text lists everything: ``print(metrics)``.

    A tag whose key is no identifier is given as ``**{"http.status": 200}``.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.aggregates = Aggregates()

    def counter(self, name: str, /, **tags: object) -> "Number":
        """Return the sum of what was counted; 0 if nothing was.

        Args:
            name: The name of the series, with that of its scope.
            tags: Its tags, all of them.
        """
        return Number(self._found("counter", name, tags) or 0, self)

    def gauge(self, name: str, /, **tags: object) -> "Number | None":
        """Return the last value of a gauge, or None if it has none.

        If the gauge has a callback, it is called now. A gauge that was only changed, by ``inc()`` and ``dec()``, began
        at 0.

        Args:
            name: The name of the series, with that of its scope.
            tags: Its tags, all of them.
        """
        change: GaugeChange | None = self._found("gauge", name, tags)
        key = series_of("gauge", name, tags).key
        for gauge, now in self._registry.readings().items():
            if gauge.key == key:
                change = now
        value = None if change is None else change.applied_to(0)
        return None if value is None else Number(value, self)

    def timer(self, name: str, /, **tags: object) -> "Values":
        """Return the durations of a timer, in seconds.

        Args:
            name: The name of the series, with that of its scope.
            tags: Its tags, all of them.
        """
        return Values(self._found("timer", name, tags), self, 1000)

    def histogram(self, name: str, /, **tags: object) -> "Values":
        """Return the values of a histogram.

        Args:
            name: The name of the series, with that of its scope.
            tags: Its tags, all of them.
        """
        return Values(self._found("histogram", name, tags), self)

    def unique(self, name: str, /, **tags: object) -> frozenset[str]:
        """Return the members of a unique.

        Args:
            name: The name of the series, with that of its scope.
            tags: Its tags, all of them.
        """
        return self._found("unique", name, tags) or frozenset()

    def _found(self, kind: Kind, name: str, tags: Mapping[str, object]) -> Any:
        self._registry.update_copies()
        return self.aggregates[kind].get(series_of(kind, name, tags).key)

    def __str__(self) -> str:
        return "\n".join(self._lines()) or "nothing"

    def __repr__(self) -> str:
        return f"<captured {'; '.join(self._lines()) or 'nothing'}>"

    def _lines(self) -> list[str]:
        self._registry.update_copies()
        rows = [(kind, key, value) for kind in KINDS for key, value in self.aggregates[kind].items()]
        return [f"{kind} {key}: {self._shown(kind, value)}" for kind, key, value in rows]

    def _shown(self, kind: Kind, value: Any) -> str:
        if kind == "counter":
            return repr(Number(value, self))
        if kind == "unique":
            return ", ".join(sorted(value))
        if kind != "gauge":
            return repr(Values(value, self, 1000 if kind == "timer" else 1))
        last = value.applied_to(0)
        return "no value" if last is None else f"{Number(last, self)!r}" + " in all" * (value.base is None)


class Number(float):
    """A number that was measured. If an assertion about it fails under pytest, all that was measured is shown."""

    captured: Captured

    def __new__(cls, value: float, captured: Captured) -> "Number":
        made = super().__new__(cls, value)
        made.captured = captured
        return made

    def __repr__(self) -> str:
        return repr(int(self)) if self.is_integer() else super().__repr__()


class Values:
    """Values of a timer, in seconds, or of a histogram. Without any, all but ``count`` and ``sum`` are NaN.

    Up to 256 values an interval are kept as they are; of more, percentiles are within 1 %.
    """

    def __init__(self, found: Distribution | None, captured: Captured, scale: float = 1) -> None:
        self._all = found
        self._captured = captured
        self._scale = scale

    @property
    def count(self) -> Number:
        """How many there are."""
        return Number(self._all.count if self._all else 0, self._captured)

    @property
    def sum(self) -> Number:
        """Their sum."""
        return self._number(self._all.sum if self._all else 0)

    @property
    def min(self) -> Number:
        """The least."""
        return self._number(self._all.min if self._all else math.nan)

    @property
    def max(self) -> Number:
        """The largest."""
        return self._number(self._all.max if self._all else math.nan)

    @property
    def mean(self) -> Number:
        """Their mean."""
        return self._number(self._all.mean if self._all else math.nan)

    @property
    def median(self) -> Number:
        """The median."""
        return self._number(self._all.median if self._all else math.nan)

    def percentile(self, percent: float) -> Number:
        """Return a percentile, as statsd computes it.

        Args:
            percent: From 0 to 100; negative: of the largest.
        """
        return self._number(self._all.percentile(percent) if self._all else math.nan)

    def _number(self, value: float) -> Number:
        return Number(value / self._scale, self._captured)

    def __repr__(self) -> str:
        if not self._all:
            return "no values"
        unit = " s" if self._scale != 1 else ""
        return f"{self.count!r} from {self.min:.6g}{unit} to {self.max:.6g}{unit}, sum {self.sum:.6g}{unit}"


class ManualClock:
    """A clock for tests, which stands still until it is moved.

    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    2.5

    Args:
        time: The initial wall-clock time in seconds since the epoch. The default is a multiple of every usual interval,
            so the first tick is a full interval away. Monotonic time starts at 0.
    """

    def __init__(self, time: float = 1_700_006_400.0) -> None:
        self._time = time
        self._monotonic = 0.0

    def __repr__(self) -> str:
        return f"<ManualClock time {self._time}, monotonic {self._monotonic}>"

    def time(self) -> float:
        """Return the wall-clock time in seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Return the seconds by which :meth:`advance` has moved the clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward.

        Args:
            seconds: The number of seconds, at least 0.

        Raises:
            ValueError: If ``seconds`` is negative. Use :meth:`set_time` to set the wall clock back.
        """
        if not seconds >= 0:
            raise ValueError(f"time cannot pass by {seconds!r} seconds; set_time() may go back")
        self._time += seconds
        self._monotonic += seconds

    def set_time(self, time: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does. Monotonic time does not change.

        Args:
            time: The new wall-clock time in seconds since the epoch.
        """
        self._time = time
