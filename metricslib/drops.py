"""Counters of drops and errors by cause, for the page and for the library's own metrics.

``DropCounter`` counts from anywhere: threads, signal handlers, callbacks of the garbage collector. ``DropLog`` decides
when a count is worth a warning. ``ErrorReporter`` runs code whose errors must not end a thread, counts them and logs
the first of each cause.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from ._process import log
from .attempt import from_signal_handler
from .clock import Clock

__all__ = ["QUIET", "DropCounter", "DropLog", "ErrorReporter"]

QUIET = 60.0
"""Minimum number of seconds between two warnings of one cause."""

_FULL = 256
_PATIENCE = 0.25  # seconds


class DropCounter:
    """Counts by cause. ``add`` never blocks and never raises; ``totals`` is exact and may wait for a lock."""

    __slots__ = ("_lock", "_pending", "_reported", "_totals")

    def __init__(self) -> None:
        self._pending: list[tuple[str, int]] = []
        self._totals: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: str, count: int = 1) -> None:
        """Count ``count`` more under ``cause``."""
        pending = self._pending
        pending.append((cause, count))
        if len(pending) > _FULL and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def totals(self) -> dict[str, int]:
        """Return the counts since the start by cause, in order of first appearance.

        If another call holds the lock for long (it may have been interrupted by the signal handler that calls this
        one), pending counts are left for the next call.
        """
        lock = self._lock  # a fork in between would replace it
        if lock.acquire(timeout=_PATIENCE):
            try:
                self._fold()
            finally:
                lock.release()
        return dict(self._totals)

    def fresh(self) -> dict[str, int]:
        """Return the counts since the last call, by cause. Only the library's own metrics call it."""
        totals = self.totals()
        fresh = {cause: count - self._reported[cause] for cause, count in totals.items()}
        self._reported = Counter(totals)
        return {cause: count for cause, count in fresh.items() if count}

    def _fold(self) -> None:
        taken = len(self._pending)
        for cause, count in self._pending[:taken]:
            self._totals[cause] += count
        del self._pending[:taken]


class DropLog:
    """Decides when drops are logged: the first of a cause at once, later ones at most once in :data:`QUIET` seconds.

    Not thread-safe.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._warned: dict[str, float] = {}  # time of the last warning by cause, on the monotonic clock
        self._told: dict[str, int] = {}

    def may_warn(self, cause: str) -> bool:
        """Return True if a warning is due. The next one is then due after a minute."""
        now = self._clock.monotonic()
        if now - self._warned.get(cause, -QUIET) < QUIET:
            return False
        self._warned[cause] = now
        return True

    def due(self, totals: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return the causes for which a warning is due, each with its count since the last warning."""
        due = []
        for cause, total in totals.items():
            count = total - self._told.get(cause, 0)
            if count > 0 and self.may_warn(cause):
                self._told[cause] = total
                due.append((cause, count))
        return due


class ErrorReporter:
    """Catches, counts and logs the errors of the component ``who``. ``counts`` are the errors by cause."""

    def __init__(self, who: str) -> None:
        self.counts = DropCounter()
        self._who = who
        self._logged: set[str] = set()

    def attempt(self, cause: str, work: Callable[[], object]) -> bool:
        """Call ``work``. Return True if it raised no exception; an exception is counted under ``cause``.

        An exception from a signal handler is passed on.
        """
        try:
            work()
            return True
        except Exception as error:
            if from_signal_handler(error):
                raise
            self.counts.add(cause)
            if cause not in self._logged:
                self._logged.add(cause)
                log().exception(
                    "%s: %s failed with %s; it continues, and this is logged once",
                    self._who,
                    cause,
                    type(error).__name__,
                )
            return False
