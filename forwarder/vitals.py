"""How a daemon is, in the few numbers that statsd's ``stats`` has: since when it runs, what came, how flushing goes."""

from collections.abc import Sequence
from dataclasses import dataclass

from metricslib.delivery import SenderStatus

from .counts import Counts

__all__ = ["Vitals", "vitals"]


@dataclass(frozen=True, slots=True)
class Vitals:
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


def vitals(started: float, now: float, counts: Sequence[Counts], destinations: Sequence[SenderStatus]) -> Vitals:
    """Return the vitals of a daemon whose doors have these ``counts``.

    Of several destinations the one counts that is worst off, so that who watches one number misses nothing: the oldest
    flush, the latest exception, the longest time and length. Where some are Graphite, only those count.
    """
    chosen = [status for status in destinations if status.label.startswith("graphite")] or destinations
    flushes = [started if status.age is None else now - status.age for status in chosen]
    return Vitals(
        started,
        max((count.seen for count in counts), default=0) or None,
        sum(count.bad for count in counts),
        min(flushes, default=None),
        max((status.last_failure for status in chosen), default=0) or None,
        max((status.last_seconds for status in chosen), default=0),
        max((status.last_bytes for status in chosen), default=0),
    )
