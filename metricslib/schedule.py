"""The arithmetic of ticks and timestamps, without a thread and without a clock.

Ticks are at multiples of the interval of the wall clock, so that every process fills the same slots of Graphite. A late
tick ends one interval, and uses the last boundary that has passed as its timestamp. Timestamps strictly increase, also
over a restart if the last one was stored. After the clock was set back, values are collected in one window for at most
ten intervals; then timestamps follow the clock.
"""

from .errors import InvalidOption

__all__ = ["LONGEST", "Schedule"]

PATIENCE = 10
"""Number of intervals to wait for a clock that was set back."""


LONGEST = 1 << 30
"""Maximum length of an interval in seconds, 34 years: timestamps stay below 2^32, as Graphite's files require."""


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
        """How often timestamps followed the clock back to values already used."""
        self.skipped = 0
        """Number of intervals without a timestamp, because a tick was late. Their values are in the next interval."""
        self._last: int | None = None
        self._due = self._end(now)
        self._held = 0

    def _end(self, now: float) -> int:
        return (int(now // self.interval) + 1) * self.interval

    def delay(self, now: float) -> float:
        """Return the seconds until the next tick is due, or 0."""
        if now < self._due - self.interval:  # the clock was set back
            self._due = self._end(now)
        return max(0.0, self._due - now)

    def tick(self, now: float) -> int | None:
        """Return the timestamp of the interval that ends now, or None if it continues after a step back."""
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
        """Continue after an earlier process, whose last window had the timestamp ``last``.

        Otherwise a restart after the clock was set back would overwrite slots that were sent. A timestamp more than ten
        intervals ahead is ignored: timestamps follow the clock at once, counted in :attr:`steps_back`.
        """
        if self._last is not None:  # the same process, whose own timestamp is newer
            return
        if last <= now + PATIENCE * self.interval:
            self._last = last
        else:
            self.steps_back += 1

    def changed(self, interval: float, now: float) -> "Schedule":
        """Return a schedule with another interval, whose timestamps follow those already used."""
        if interval == self.interval:
            return self
        schedule = Schedule(interval, now)
        schedule._last = self._last
        schedule.steps_back, schedule.skipped = self.steps_back, self.skipped
        return schedule

    def open_stamp(self, now: float) -> int:
        """Return the timestamp of the open interval if it ends at the next boundary."""
        end = self._end(now)
        return end if self._last is None else max(end, self._end(self._last))

    def next_stamp(self, now: float) -> int:
        """Return the timestamp of the next window at ``now``, unless the clock was set back."""
        return self._end(now) - self.interval if self.delay(now) == 0 else self.open_stamp(now)
