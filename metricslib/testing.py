"""What tests of programs that measure need: time that passes when told to.

In: the moments a test wants. Out: a clock that a registry, and everything that asks a registry for the time, takes
instead of the machine's. So no test has to sleep, and a step back of the clock can be had at will.
"""

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that stands still until it is told to move.

    Wall time starts at ``time``, a whole multiple of every usual interval, so the first tick is a full interval away.
    Monotonic time starts at 0 and never goes back.

    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    2.5
    """

    def __init__(self, time: float = 1_700_006_400.0) -> None:
        self._time = time
        self._monotonic = 0.0

    def __repr__(self) -> str:
        return f"<ManualClock time {self._time}, monotonic {self._monotonic}>"

    def time(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Seconds since the clock was made, as far as :meth:`advance` moved it."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, on both clocks. Raises ValueError if negative: use :meth:`set_time` to go back."""
        if not seconds >= 0:
            raise ValueError(f"time cannot pass by {seconds!r} seconds; set_time() may go back")
        self._time += seconds
        self._monotonic += seconds

    def set_time(self, time: float) -> None:
        """Set the wall clock, forward or back, as an administrator or NTP does; monotonic time takes no notice."""
        self._time = time
