"""Clocks, which are passed as arguments so that tests can control the time. The default is the system's clock.

The wall clock is used for timestamps of windows, the monotonic clock for durations. Both return seconds as floats.
"""

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """The interface of a clock."""

    def time(self) -> float:
        """Return the wall-clock time in seconds since the epoch. It may jump."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary moment. They never decrease."""
        ...


class SystemClock:
    """The clocks of :mod:`time`, looked up at each call because tools such as freezegun replace them."""

    __slots__ = ()

    @staticmethod
    def time() -> float:
        return time.time()

    @staticmethod
    def monotonic() -> float:
        return time.perf_counter()


SYSTEM_CLOCK: Clock = SystemClock()
