"""Counts of a listener and figures of the daemon, for the page, the log, and the ``stats`` command of the console.

:class:`Counts` has the counts of one listener, :class:`BadLines` its last bad lines, and :class:`DaemonStats` the
figures of the ``stats`` command.
"""

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from metricslib.clock import Clock
from metricslib.delivery import SenderStatus

from .foreign import redacted

__all__ = ["BadLine", "BadLines", "Counts", "DaemonStats", "daemon_stats"]

log = logging.getLogger("forwarder")

KEPT = 20
"""Number of bad lines that are kept."""
SHOWN = 200
"""Maximum number of characters of a kept bad line."""
LOG_EVERY = 10.0
"""Minimum number of seconds between two log messages about bad lines."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Input since the start. ``received`` is always ``aggregated`` plus ``bad`` plus the sum of ``dropped``."""

    packets: int = 0
    """Datagrams, or chunks of a stream."""
    lines: int = 0
    """Lines that are not empty."""
    received: int = 0
    """Samples, one for each ``value|type``, or Graphite points."""
    aggregated: int = 0
    """Samples that are in windows, or points that were passed on."""
    bad: int = 0
    """Bad samples or points."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Dropped samples or points, by cause."""
    seen: float = field(default=0, compare=False)
    """Time of the last packet, in seconds since the epoch; 0 before the first."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.packets + other.packets,
            self.lines + other.lines,
            self.received + other.received,
            self.aggregated + other.aggregated,
            self.bad + other.bad,
            Counter(self.dropped) + Counter(other.dropped),
            max(self.seen, other.seen),
        )


class BadLine(NamedTuple):
    """One bad line."""

    time: float
    """Time in seconds since the epoch."""
    text: str
    """The beginning of the line, in ASCII with escapes. Of a line that looks like HTTP, only the first word."""
    reason: str


class BadLines:
    """Keeps the last bad lines, and logs one from time to time. Only :meth:`recent` is thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[str, tuple[str, int]] = {}  # since the last report: reason and number of samples, by line
        self._recent: deque[tuple[float, str, str]] = deque(maxlen=KEPT)
        self._unlogged = 0
        self._next_log = clock.monotonic()

    def add(self, line: str, reason: str, times: int) -> None:
        """Add ``line``, which has ``times`` bad samples, to the next report."""
        text = redacted(line.rstrip("\r")[:SHOWN])
        first_reason, before = self._found.get(text, (reason, 0))
        self._found[text] = first_reason, before + times

    def recent(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return [BadLine(time, ascii(text)[1:-1], reason) for time, text, reason in self._recent.copy()]

    def report(self) -> None:
        """Keep the added lines, each once, and log the last one if a message is due."""
        if self._found:
            now = self._clock.time()
            self._recent.extend((now, text, reason) for text, (reason, _) in self._found.items())
            self._unlogged += sum(times for _, times in self._found.values())
            self._found.clear()
        if self._unlogged and (now := self._clock.monotonic()) >= self._next_log:
            last = self.recent()[-1]
            log.warning('bad line, %s: "%s" (%d bad since the last warning)', last.reason, last.text, self._unlogged)
            self._unlogged = 0
            self._next_log = now + LOG_EVERY


@dataclass(frozen=True, slots=True)
class DaemonStats:
    """Figures of the daemon. Times are in seconds since the epoch, or None."""

    started: float
    last_message: float | None
    bad_lines: int
    last_flush: float | None
    last_exception: float | None
    """Time of the last failed delivery."""
    flush_time: float
    """Duration of the last delivery in seconds."""
    flush_length: int
    """Bytes of the last delivery."""


def daemon_stats(
    started: float, now: float, counts: Sequence[Counts], destinations: Sequence[SenderStatus]
) -> DaemonStats:
    """Return the figures of a daemon from the ``counts`` of its inputs and the state of its destinations.

    With several destinations, each figure is the worst one: the oldest flush, the latest exception, the longest time
    and length. If there are Graphite destinations, others are ignored.
    """
    chosen = [status for status in destinations if status.label.startswith("graphite")] or destinations
    flushes = [started if status.age is None else now - status.age for status in chosen]
    return DaemonStats(
        started,
        max((count.seen for count in counts), default=0) or None,
        sum(count.bad for count in counts),
        min(flushes, default=None),
        max((status.last_failure for status in chosen), default=0) or None,
        max((status.last_seconds for status in chosen), default=0),
        max((status.last_bytes for status in chosen), default=0),
    )
