"""The arithmetic of ticks and timestamps, without a thread and without a clock.

Graphite stores one value per series and slot, and slots begin at multiples of the interval. A second value for a slot
replaces the first, so a timestamp that is used twice loses a window without a trace. This gives three rules:

1. Ticks are due at multiples of the interval on the wall clock, not every N seconds after the start. So all processes
   fill the same slots, and a restart continues in the next one.
2. A tick is stamped with the boundary at which its interval ended.
3. Timestamps strictly increase, also over a restart if the last one was stored (:meth:`Schedule.resume`). That of an
   open interval counts as used once part of it was sent (:meth:`Schedule.use_open_stamp`).

With an interval of 10 seconds, a tick that runs late, and a clock that is set back by 20 seconds:

.. code-block:: text

    clock     100   110   120   130   140   150   | 130   140   150   160
    tick           110   120   -     -     150    | -     -     -     160
                           (late)            (set back: the window stays open)
    stamp          110   120               150                        160

*A late tick*: a suspended machine or a slow callback can skip boundaries. One window then covers all of the time since
the last tick, and takes the last boundary that has passed. Its values cannot be divided among the missed slots, because
they were aggregated as they arrived; :attr:`Schedule.skipped` counts these slots.

*A clock that was set back*: the next boundaries have been used, so :meth:`Schedule.tick` returns None and the window
stays open until the clock has passed the last timestamp. After ``PATIENCE`` such ticks the old time was probably the
wrong one. Then timestamps follow the clock, may overwrite slots, and :attr:`Schedule.steps_back` counts this.

*A clock that was set forward* looks like a late tick.

The wall-clock time is an argument of each method, so that tests need no sleeps. Durations and time limits elsewhere use
the monotonic clock, which is not affected when the wall clock is set (:mod:`~metricslib.clock`).
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
            raise InvalidOption("interval", interval, "must be a whole number of seconds, as Graphite's timestamps are")
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
        if now < self._due - self.interval:  # the clock was set back: do not sleep until it has caught up
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
            following = last + self.interval  # part of it may have been sent: if it is over, it is not sent again
            self._last = following if following <= now else last
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

    def use_open_stamp(self, now: float) -> int:
        """Return the timestamp of the open interval, which is sent in part, so that no earlier timestamp follows."""
        stamp = self.open_stamp(now)
        self._last = stamp - self.interval
        return stamp

    def next_stamp(self, now: float) -> int:
        """Return the timestamp of the next window at ``now``."""
        boundary = self._end(now) - self.interval
        ends = self.delay(now) == 0 and (self._last is None or boundary > self._last)
        return boundary if ends else self.open_stamp(now)
