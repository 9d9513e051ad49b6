"""Tools for tests of programs that measure: a clock that the test controls.

Pass it to a registry as ``clock``. A test then needs no sleeps, and can set the clock back.
"""

__all__ = ["ManualClock"]


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
