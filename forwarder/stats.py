"""What came in through a listener, and how the daemon does: for the page, the log, and statsd's ``stats``.

:class:`Counts` is the account of one listener, :class:`BadLines` the last lines that could not be read, and
:class:`DaemonStats` the few figures of the console's ``stats`` command.
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
"""How many bad lines are remembered."""
SHOWN = 200
"""How many characters of each."""
LOG_EVERY = 10.0
"""Seconds between two log messages about bad lines."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What came in since the start. ``received`` is always ``aggregated + bad`` and the sum of ``dropped``."""

    packets: int = 0
    """Datagrams, or chunks of a stream."""
    lines: int = 0
    """Those that are not empty."""
    received: int = 0
    """Pieces: one ``value|type`` each, or one Graphite point."""
    aggregated: int = 0
    """Pieces that are in a window now, or points that were passed on."""
    bad: int = 0
    """Pieces that made no sense."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Pieces left out for other reasons, by cause."""
    seen: float = field(default=0, compare=False)
    """When the last packet came, in seconds since the epoch; 0 before the first."""

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
    """Wall-clock seconds at which it was read."""
    text: str
    """Its beginning, in ASCII: everything else is escaped. Of what looks like HTTP only the first word is there."""
    reason: str


class BadLines:
    """Remembers the last bad lines, and logs one now and then. Not thread-safe but for :meth:`recent`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[str, tuple[str, int]] = {}  # since the last report: the reason, and how often
        self._recent: deque[tuple[float, str, str]] = deque(maxlen=KEPT)
        self._unlogged = 0
        self._next_log = clock.monotonic()

    def add(self, line: str, reason: str, times: int) -> None:
        """Note ``line``, which came ``times`` times, for the next report."""
        text = redacted(line.rstrip("\r")[:SHOWN])
        first_reason, before = self._found.get(text, (reason, 0))
        self._found[text] = first_reason, before + times

    def recent(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return [BadLine(time, ascii(text)[1:-1], reason) for time, text, reason in self._recent.copy()]

    def report(self) -> None:
        """Remember what was noted, each line once, and log the last one if the log may still take it."""
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
    """Moments are seconds since the epoch; None is for what has not happened yet."""

    started: float
    last_message: float | None
    bad_lines: int
    last_flush: float | None
    last_exception: float | None
    """When a delivery last failed."""
    flush_time: float
    """Seconds that the last delivery took."""
    flush_length: int
    """Its bytes."""


def daemon_stats(
    started: float, now: float, counts: Sequence[Counts], destinations: Sequence[SenderStatus]
) -> DaemonStats:
    """Return the figures of a daemon whose inputs have these ``counts``.

    Of several destinations the one counts that is worst off, so that who watches one number misses nothing: the oldest
    flush, the latest exception, the longest time and length. Where some are Graphite, only those count.
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
