"""Time comes in as an argument: one small protocol, and the system's own clock as its default.

Wall time stamps windows; monotonic time measures durations. Both are seconds as floats.
"""

import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


class Clock(Protocol):
    """What the library asks of a clock."""

    def time(self) -> float:
        """Wall-clock seconds since the epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...


class SystemClock:
    """The machine's clocks, looked up at each call so that tools which replace :mod:`time` (freezegun) are honoured."""

    __slots__ = ()

    @staticmethod
    def time() -> float:
        return time.time()

    @staticmethod
    def monotonic() -> float:
        return time.perf_counter()


SYSTEM_CLOCK: Clock = SystemClock()
