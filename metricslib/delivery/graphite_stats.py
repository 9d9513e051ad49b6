"""What a daemon says of itself at the end of each flush to Graphite: statsd's ``numStats``, ``graphiteStats`` and more.

In: how each delivery went. Out: paths and values, in statsd's order. All are of this one destination, and all but
``numStats`` are of before this flush, for a flush cannot say how its own delivery went:

=================================  ==========================================================================
``numStats``                       how many series the window has
``graphiteStats.calculationtime``  milliseconds that it took to write the window's lines
``processing_time``                milliseconds that it took to compute the window's values
``graphiteStats.last_exception``   when a delivery last failed, in seconds since the epoch; 0: never
``graphiteStats.last_flush``       when one last succeeded; before the first, when this began
``graphiteStats.flush_time``       milliseconds that the last window's deliveries took
``graphiteStats.flush_length``     their bytes
=================================  ==========================================================================
"""

from collections import deque

from ..clock import Clock
from ..naming import Naming
from ..wire.graphite import Pairs

__all__ = ["GraphiteStats"]


class GraphiteStats:
    """The state of one destination. Deliveries are told by one thread while another asks for the values."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_flush = round(clock.time())
        self._last_exception = 0
        self._shown = (0.0, 0)
        self._fresh: deque[tuple[float, int]] = deque(maxlen=1000)

    def delivered(self, seconds: float, length: int) -> None:
        """A payload of so many bytes arrived."""
        self._last_flush = round(self._clock.time())
        self._fresh.append((seconds, length))

    def failed(self) -> None:
        """A delivery failed."""
        self._last_exception = round(self._clock.time())

    def pairs(self, naming: Naming, series: int, processing: float, calculation: float) -> Pairs:
        """Return paths and values for the end of a window with so many series. Times are in seconds."""
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        if fresh:
            self._shown = sum(seconds for seconds, _ in fresh), sum(length for _, length in fresh)
        seconds, length = self._shown
        own = {
            "numStats": series,
            "graphiteStats.calculationtime": _milliseconds(calculation),
            "processing_time": _milliseconds(processing),
            "graphiteStats.last_exception": self._last_exception,
            "graphiteStats.last_flush": self._last_flush,
            "graphiteStats.flush_time": _milliseconds(seconds),
            "graphiteStats.flush_length": length,
        }
        return Pairs([naming.own_path(name) for name in own], [*own.values()])


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
