"""Many who cannot wait, and one call that helps them all. No I/O, no clock: the time is told."""

from collections.abc import Callable

__all__ = ["PATIENCE", "REST", "Syncs"]

REST = 0.5
"""Seconds of rest between two calls, at least."""
PATIENCE = 10.0
"""Seconds after which a call that helped nobody is made again, if somebody asks."""


class Syncs:
    """Calls ``sync`` for many who ask: one call at a time, and before the next a rest of as long as the last one took,
    but at least :data:`REST` seconds.
    """

    def __init__(self, sync: Callable[[], object]) -> None:
        self._sync = sync
        self._called: float | None = None  # when; None when that is done
        self._again = False  # whether somebody asked since
        self._rested = 0.0
        self.due: float | None = None
        """When :meth:`keep_time` has something to do; None: never."""

    def ask(self, now: float) -> None:
        """Somebody cannot wait."""
        self._again = self._called is not None
        self.due = max(now, self._rested) if self._called is None else self._called + PATIENCE

    def keep_time(self, now: float) -> None:
        """Call if it is time to."""
        if self.due is not None and now >= self.due:
            self._called, self._again, self.due = now, False, None
            self._sync()

    def done(self, now: float, *, again: bool) -> None:
        """What was asked for is there; ``again`` says whether anybody still waits."""
        if self._called is not None:
            self._rested = now + max(REST, now - self._called)
        self._called = None
        self.due = self._rested if again and (self._again or self.due is not None) else None
        self._again = False
