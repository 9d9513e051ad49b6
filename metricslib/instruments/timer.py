"""A timer: the distribution of durations. It accepts seconds and stores milliseconds, the usual unit in Graphite."""

import math
import sys
from collections.abc import Callable
from itertools import repeat
from operator import mul
from types import TracebackType
from typing import Any, Never, Self

from .._accelerate import replaced_by
from ..attempt import attempt
from ..sketch import Distribution
from .base import FULL, Instrument, Owner, all_finite, plain

__all__ = ["Span", "Timer"]

_ENDLESS = sys.float_info.max / 1000  # seconds; converted to milliseconds, longer durations are infinite


class Span:
    """One measurement of a timer: of a ``with`` block, or from :meth:`start` to :meth:`stop`.

    Get one with :meth:`Timer.time`. Spans are independent of each other: those of one timer may nest and overlap. A
    span may be started again and keeps its tags. One span should be used by one thread at a time.
    """

    __slots__ = ("_discarded", "_end", "_now", "_start", "_tags", "_timer")

    def __init__(self, timer: "Timer") -> None:
        self._timer = timer
        self._now = timer._now
        self._tags: dict[str, object] | None = None
        self._discarded = False
        self._start: float | None = None
        self._end: float | None = None

    def start(self) -> Self:
        """Start the span. If it is running, start it again and discard the time so far.

        Returns:
            The span itself.
        """
        self._end = None
        self._discarded = False
        self._start = self._now()
        return self

    def stop(self) -> None:
        """Stop the span and add its duration to the timer. If it is not running, do nothing."""
        now = self._now()  # first, because a clock may be a function that uses this span
        if self._start is None or self._end is not None:
            return
        self._end = now
        if not self._discarded:
            timer = self._timer if self._tags is None else self._timer.tagged(**self._tags)
            timer.observe(self.elapsed)

    __enter__ = start

    def __call__(self, *_: object) -> Never:
        """Raise a TypeError. Unlike timers of some other libraries, a span is not a decorator."""
        raise TypeError("a Span cannot be called; to time a function, use @metrics.timed(name)")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the start or, after :meth:`stop`, from start to stop. Never negative; 0 before the start."""
        if self._start is None:
            return 0.0
        return max(0.0, (self._now() if self._end is None else self._end) - self._start)

    def tag(self, /, **tags: object) -> None:
        """Add the duration to the timer that also has these tags, like :meth:`Timer.tagged`.

        Args:
            **tags: The tags. Values of any type are converted with ``str()``.
        """
        self._tags = {**(self._tags or {}), **tags}

    def discard(self) -> None:
        """Do not add the current run to the timer. After another :meth:`start` the span measures again."""
        self._discarded = True


class Timer(Instrument):
    """Measures durations. An interval has their count, sum, extremes and percentiles; an idle timer has a count of 0.

    Get one with :func:`metricslib.timer`. Durations are passed in seconds; the page and Graphite show milliseconds. Up
    to 256 samples per interval (``exact`` of the registry) are kept, and percentiles are exact. With more, they are
    within 1 % of a sample; count, sum, minimum and maximum stay exact.
    """

    kind = "timer"
    __slots__ = ()

    def __init__(self, owner: Owner, asked: str, key: str | None) -> None:
        self._now = owner.clock.monotonic
        super().__init__(owner, asked, key)

    @replaced_by("observe_seconds")
    def observe(self, seconds: float) -> None:
        """Add a duration.

        Safe in any thread, signal handler, greenlet or forked child. Never raises for a bad value and never waits.

        Args:
            seconds: The duration in seconds, an int or a float. A value that is negative or not a finite number is
                skipped and counted, cause ``bad_value``.
        """
        pending = self._pending
        pending.append(seconds)
        if len(pending) > FULL:
            self._fold()

    @replaced_by("time")
    def time(self) -> Span:
        """Measure a block of code.

        Use the span as a context manager, which also measures a block that raises an exception, or call its ``start()``
        and ``stop()``.

        Returns:
            A new :class:`~metricslib.Span`, which is not started yet.
        """
        return Span(self)

    @replaced_by("call")
    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``function``, and add the duration of the call, even if it raises an exception."""
        start = self._now()
        try:
            return function(*args, **kwargs)
        finally:
            self.observe(max(0.0, self._now() - start))

    def _absorbed(self, state: Distribution | None, batch: list[float]) -> tuple[Distribution | None, int]:
        bad = 0
        # None: an int is too large for a float.
        values: list[float] | None = attempt(list, map(mul, batch, repeat(1000.0))) if plain(batch) else None
        if not (values and math.isfinite(sum(values)) and min(values) >= 0):
            numbers, bad = all_finite(batch)
            values = [number * 1000.0 for number in numbers if 0 <= number < _ENDLESS]
            bad += len(numbers) - len(values)
        return Distribution.extended(state, values, self._owner.exact), bad

    def _aggregate(self, state: Distribution) -> Distribution:
        return state.freeze()
