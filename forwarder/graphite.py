"""Relays Graphite lines with their own timestamps, without the registry and its windows.

In: blocks of complete lines ``path value timestamp`` from a stream. Out: lists of points for a function, which is
called when there are enough points, or when the listener requests it.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.delivery.batch import quantity

from .parser import Point, parse_point
from .stats import BadLine, BadLines, Counts

__all__ = ["Relay"]

log = logging.getLogger("forwarder")


class Relay:
    """Parses points, and passes them to ``relay`` in lists of at most ``batch``. Fed by one listener.

    If ``relay`` raises an exception, it is logged, and the points are dropped, cause ``relay_error``.
    """

    def __init__(
        self, relay: Callable[[list[Point]], None], *, batch: int = 10_000, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._relay = relay
        self._batch = batch
        self._clock = clock
        self._lock = threading.Lock()
        self._points: list[Point] = []
        self._bad_lines = BadLines(clock)
        self._packets = self._lines = self._passed = self._bad = 0
        self._seen = 0.0
        self._dropped: Counter[str] = Counter()

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Process blocks of complete lines. Never raises for their content."""
        text = b"\n".join(chunks).decode("utf-8", "replace")
        now = self._clock.time()
        with self._lock:
            self._packets += len(chunks)
            self._seen = now
            for line in text.split("\n"):
                if line and not line.isspace():
                    self._take(line, now)
        self._bad_lines.report()

    def drop(self, cause: str, count: int = 1) -> None:
        """Count lines that the listener had to drop."""
        with self._lock:
            self._dropped[cause] += count

    def flush(self) -> None:
        """Pass on all points. The listener calls this once a second, and before it closes a connection."""
        with self._lock:
            self._pass_on()

    def counts(self) -> Counts:
        """Return the counts since the start, without points that have not been passed on yet."""
        with self._lock:
            dropped = dict(self._dropped)
            received = self._passed + self._bad + sum(dropped.values())
            return Counts(self._packets, self._lines, received, self._passed, self._bad, dropped, self._seen)

    def bad_lines(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return self._bad_lines.recent()

    def _take(self, line: str, now: float) -> None:
        self._lines += 1
        point = parse_point(line, now)
        if point == "bad":
            self._bad += 1
            self._bad_lines.add(line, "no point", 1)
        elif isinstance(point, str):
            self._dropped[point] += 1
        else:
            self._points.append(point)
            if len(self._points) >= self._batch:
                self._pass_on()

    def _pass_on(self) -> None:
        if not self._points:
            return
        points, self._points = self._points, []
        try:
            self._relay(points)
        except Exception:
            if "relay_error" not in self._dropped:
                log.exception("could not pass on %s; the exception is logged once", quantity(len(points), "point"))
            self._dropped["relay_error"] += len(points)
        else:
            self._passed += len(points)
