"""When intervals end, and what their windows are stamped with. No thread and no clock here: only the arithmetic of
both.

Ticks fall on wall-clock multiples of the interval, so that every process fills the same slots of Graphite. A tick that
comes late ends one interval, stamped with the last boundary passed. Stamps strictly increase, also over a restart where
the last one was kept: after the clock was set back, intervals run on into one window for at most ten intervals, and
then follow the clock.
"""

from .errors import InvalidOption

__all__ = ["LONGEST", "Schedule"]

PATIENCE = 10
"""For how many intervals a clock that was set back is waited for."""


LONGEST = 1 << 30
"""Seconds that an interval may have, 34 years: its stamps are below 2^32, as Graphite's files need them."""


class Schedule:
    """Boundaries at multiples of ``interval`` whole seconds, from the wall-clock time ``now`` on."""

    def __init__(self, interval: float, now: float) -> None:
        whole = isinstance(interval, int) or (isinstance(interval, float) and interval.is_integer())
        if not whole or interval < 1 or isinstance(interval, bool):
            raise InvalidOption("interval", interval, "must be a whole number of seconds, for Graphite's stamps are")
        if interval > LONGEST:
            raise InvalidOption("interval", interval, f"must be at most {LONGEST} seconds")
        self.interval = int(interval)
        self.steps_back = 0
        """How often the clock was followed back to stamps that had been used."""
        self.skipped = 0
        """How many intervals got no stamp, because they ended late; what happened in them has that of the one after."""
        self._last: int | None = None
        self._due = self._end(now)
        self._held = 0

    def _end(self, now: float) -> int:
        return (int(now // self.interval) + 1) * self.interval

    def delay(self, now: float) -> float:
        """Return the seconds until the next tick is due; 0 when it is."""
        if now < self._due - self.interval:  # the clock was set back
            self._due = self._end(now)
        return max(0.0, self._due - now)

    def tick(self, now: float) -> int | None:
        """The interval may end now: return its stamp, or None when it must go on, because the clock was set back."""
        boundary = self._end(now) - self.interval
        late, self._due = boundary - self._due, boundary + self.interval
        if self._last is not None and boundary <= self._last:
            self._held += 1
            if self._held <= PATIENCE:
                return None
            self.steps_back += 1
        self._held = 0
        self._last = boundary
        self.skipped += max(0, late // self.interval)
        return boundary

    def resume(self, last: int, now: float) -> None:
        """Continue after an earlier process, whose last window had the stamp ``last``.

        Without this, a restart after the clock was set back would overwrite slots that were sent. A stamp that is more
        than ten intervals ahead is not waited for: stamps follow the clock at once, counted in :attr:`steps_back`.
        """
        if self._last is not None:  # the same process, which knows better
            return
        if last <= now + PATIENCE * self.interval:
            self._last = last
        else:
            self.steps_back += 1

    def changed(self, interval: float, now: float) -> "Schedule":
        """Return the schedule that goes on from here with another interval: its stamps follow those used already."""
        if interval == self.interval:
            return self
        schedule = Schedule(interval, now)
        schedule._last = self._last
        schedule.steps_back, schedule.skipped = self.steps_back, self.skipped
        return schedule

    def open_stamp(self, now: float) -> int:
        """Return the stamp that the open interval will have if it ends at the next boundary."""
        end = self._end(now)
        return end if self._last is None else max(end, self._end(self._last))

    def next_stamp(self, now: float) -> int:
        """Return the stamp of what is sent next, if that is at ``now`` and the clock was not set back."""
        return self._end(now) - self.interval if self.delay(now) == 0 else self.open_stamp(now)
