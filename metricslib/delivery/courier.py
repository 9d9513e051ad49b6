"""The courier: brings one destination's batches to it, one at a time, from a thread of its own.

One attempt is made at a time. After a failure the next waits, longer each time, by a random share of a bound that
doubles, so that a server that comes back is not met by everybody at once. When it is back after an outage, what was
delivered in the minute before is sent again where that is harmless. The thread survives any exception. Errors are
counted by type, and logged once until the next success.
"""

import logging
import queue
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from ..account import Account
from ..clock import SYSTEM_CLOCK, Clock
from ..wire import graphite
from . import lines
from .batch import Batch, Deadline, Undelivered
from .destination import Destination, OfNodes, OneOfMany
from .lanes import REPEAT, lanes_for
from .memory_spool import MemorySpool
from .spool import Holdings, Spool
from .status import Status

__all__ = ["Courier"]

log = logging.getLogger("metricslib")

BASE = 0.5
CAP = 30.0
"""Bounds of the wait after the first failure, and after many, in seconds."""
_MARGIN = 0.1
"""Seconds before the end of a stop at which an attempt is cut, so that its outcome is still counted."""


class Courier:
    """Delivers to ``destination`` what waits in ``spool``.

    The spool is by default one in memory with the bounds of the URL's options. ``clock`` times the waits between
    attempts, and ages; ``rng`` returns random numbers from 0 to 1. Without :meth:`start`, each :meth:`step` does what
    is due.
    """

    def __init__(
        self,
        destination: Destination,
        spool: Spool | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.destination = destination
        self.spool: Spool = spool or MemorySpool(lanes_for(destination, clock))
        self._clock = clock
        self._rng = rng
        self._begin()

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop: Deadline | None = None
        self._attempt: Deadline | None = None
        # A signal handler may stop the program at any moment: it may put into this queue, but not set an Event.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._due = 0.0
        self._failures = 0
        self._since = self._clock.time()
        self._last_success: float | None = None
        self._bytes = 0
        self._errors = Account()
        self._last_error: str | None = None
        self._last_failure = 0.0
        self._last_delivery = (0.0, 0)
        self._logged: set[str] = set()

    # -- what is to be delivered

    def relay(self, points: Sequence[graphite.Point]) -> None:
        """Let points that came from elsewhere wait, or count them as dropped, cause ``unsupported``."""
        if not self.destination.relays:
            self.spool.refuse(len(points), "unsupported")
            return
        if isinstance(self.destination, OneOfMany):
            points = self.destination.share(points)
        self.offer(*lines.batches(0, graphite.encode_points(points), windows=0))

    def offer(self, *batches: Batch) -> None:
        """Let batches wait."""
        for batch in batches:
            self.spool.put(batch)
        self.wake()

    def wake(self) -> None:
        """Something waits: deliver it when it is due."""
        if self._bell.empty():
            self._bell.put(None)
        if self._thread is not None and not self._stop:
            try:
                self.start()  # nothing should have ended the thread; if something has, it begins again
            except RuntimeError as error:
                self._survived("RuntimeError", str(error))

    def redirect(self, destination: Destination) -> None:
        """Deliver to ``destination`` from now on: the same place, with other options or names.

        What waits goes there first, as it was encoded. The bounds of the spool stay as they are.
        """
        self.destination = destination  # the one before holds nothing open between two deliveries

    # -- one step

    def step(self) -> float | None:
        """Make one attempt if one is due; return the seconds until the next is, None when nothing waits."""
        now = self._clock.monotonic()
        if now < self._due:
            return self._next()
        batch = self.spool.head(hurry=self._stop is not None)
        if batch is None:
            return self._next()
        attempt = self._attempt = Deadline(self.destination.options.timeout)
        attempt.urgent = self._stop is not None or self.spool.holdings().waiting_batches > 1
        began = self._clock.monotonic()
        if self._stop:
            attempt.cut(max(0.0, self._stop.left() - _MARGIN))
        try:
            try:
                lost = self.destination.deliver(batch.payload, attempt)
            except Undelivered as failure:
                self._settle_failed(batch, failure)
                self._failed(type(failure.__cause__ or failure).__name__, failure.reason)
            else:
                self._arrived(batch, lost)
                self._last_delivery = self._clock.monotonic() - began, len(batch.payload)
        except Exception as error:  # a defect of the destination: it must not end the thread
            self.spool.settle(batch, batch)
            self._failed(type(error).__name__, f"unexpected {type(error).__name__}", error)
        return self._next()

    def _next(self) -> float | None:
        pause = self.spool.pause()
        if pause is None:
            return None
        return max(0.0 if self._stop else pause, self._due - self._clock.monotonic())

    def _arrived(self, batch: Batch, lost: Mapping[str, int]) -> None:
        if not (self._failures and self.destination.resend and self.spool.rewind(REPEAT)):
            self.spool.settle(batch, None, lost)
        self._bytes += len(batch.payload)
        self._last_success = self._clock.monotonic()
        if self._failures:
            self._since = self._clock.time()
            log.info("%s: delivering again", self.destination.label)
        self._failures = 0
        self._logged.clear()

    def _settle_failed(self, batch: Batch, failure: Undelivered) -> None:
        if failure.remaining == batch.payload:
            self.spool.settle(batch, batch, failure.lost)
            return
        self._bytes += len(batch.payload) - len(failure.remaining)
        remaining = None
        if failure.remaining:
            points = lines.count(failure.remaining) if failure.points is None else failure.points
            remaining = Batch(batch.stamp, points, failure.remaining, batch.windows)
        self.spool.settle(batch, remaining, failure.lost)

    def _failed(self, kind: str, reason: str, error: Exception | None = None) -> None:
        if not self._failures:
            self._since = self._clock.time()
        self._due = self._clock.monotonic() + self._rng() * min(CAP, BASE * 2 ** min(self._failures, 16))
        self._failures += 1
        self._last_failure = self._clock.time()
        self._survived(kind, reason, error)

    def _survived(self, kind: str, reason: str, error: Exception | None = None) -> None:
        self._errors.add(kind)
        self._last_error = reason
        if kind not in self._logged:
            self._logged.add(kind)
            # Where it happened, but not the exception's own text: it may hold anything.
            where = "\n" + "".join(traceback.format_tb(error.__traceback__)) if error else ""
            log.warning("%s: %s; it is tried again, and logged once%s", self.destination.label, reason, where)

    # -- the thread

    def start(self) -> None:
        """Deliver in the background from now on; does nothing when begun.

        Raises RuntimeError when no thread can be begun.
        """
        if not self._alive:
            self._stop = None
            bell = self._bell = queue.SimpleQueue()  # the one before is for a thread that hung, to wake and end it
            name = f"metricslib-{self.destination.label}"
            thread = threading.Thread(target=self._run, args=(bell,), name=name, daemon=True)
            self._thread, before = thread, self._thread
            try:
                thread.start()
            except RuntimeError:
                self._thread = before
                raise

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self, bell: "queue.SimpleQueue[None]") -> None:
        me = threading.current_thread()
        while self._thread is me:
            try:
                wait = self.step()
            except Exception as error:  # a defect of the spool, say: whatever is wrong, go on, and do not spin
                self._survived(type(error).__name__, f"unexpected {type(error).__name__}", error)
                wait = 1.0
            stop = self._stop
            if stop and (wait is None or not stop.left()):
                return
            try:
                if wait != 0:
                    bell.get(timeout=min(wait, stop.left()) if stop and wait is not None else wait)
            except queue.Empty:
                pass

    def wait_idle(self, seconds: float, *, here: bool = False) -> bool:
        """Return whether nothing waits any more, as soon as that is so, or after ``seconds``.

        ``here``: where there is no thread, deliver in this one.
        """
        deadline = Deadline(seconds)
        if here and not self._alive:
            self._deliver_here(deadline)
        while self.spool.holdings().waiting_batches:
            if not deadline.left() or not self._alive:
                return False
            if attempt := self._attempt:
                attempt.urgent = True
            time.sleep(min(0.005, deadline.left()))
        return True

    def hurry(self) -> None:
        """Try at once what waits, whatever failed before."""
        self._failures, self._due = min(self._failures, 1), 0.0
        if attempt := self._attempt:
            attempt.urgent = True
        self._bell.put(None)

    def stop(self, seconds: float) -> bool:
        """Go on trying for at most ``seconds`` while something waits, then end, and return whether nothing was dropped.

        What was not is dropped, cause ``shutdown``, unless the spool outlives the process. A courier that was stopped
        may be started again.
        """
        stop = Deadline(seconds)
        dropped = sum(self.spool.holdings().dropped.values())
        self.hurry()
        if not self._alive and self.spool.holdings().waiting_batches:
            try:
                self.start()
            except RuntimeError:  # the interpreter is ending, and begins no more threads
                self._deliver_here(stop)
        if self._end_thread(stop):
            self.destination.close()
        self.end()
        return sum(self.spool.holdings().dropped.values()) == dropped

    def end(self) -> bool:
        """Without a thread: drop what waits, as :meth:`stop` does when its time is over."""
        dropped = sum(self.spool.holdings().dropped.values())
        self.spool.end("shutdown")
        return sum(self.spool.holdings().dropped.values()) == dropped

    def park(self, seconds: float) -> bool:
        """Go on trying for at most ``seconds``, then end, and keep what waits; return whether nothing does."""
        self.hurry()
        if self._end_thread(Deadline(seconds)):
            self.destination.close()
        return not self.spool.holdings().waiting_batches

    def halt(self) -> None:
        """End the thread, and keep everything else as it is."""
        self._end_thread(Deadline(_MARGIN))

    def _end_thread(self, stop: Deadline) -> bool:
        """Return whether it has ended in time."""
        self._stop = stop
        if attempt := self._attempt:
            attempt.urgent = True
            attempt.cut(max(0.0, stop.left() - _MARGIN))
        self._bell.put(None)
        thread, ended = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            thread.join(stop.left())
            ended = not thread.is_alive()
        self._thread = None
        return ended

    def _deliver_here(self, deadline: Deadline) -> None:
        """Deliver what waits in the calling thread."""
        self._thread, self._stop = threading.current_thread(), deadline
        try:
            self._run(self._bell)
        finally:
            self._thread, self._stop = None, None

    def forget(self) -> None:
        """In a forked child: thread, sockets, locks and what waits are the parent's."""
        self._begin()
        self.spool.forget()
        self.destination.close()

    # -- for the page

    def status(self) -> Status:
        """Return how delivery goes; changes nothing."""
        held = self.spool.holdings()
        last = self._last_success
        errors = self._errors.totals()
        return Status(
            label=self.destination.label,
            up=not self._failures,
            since=self._since,
            age=None if last is None else max(0.0, self._clock.monotonic() - last),
            windows_sent=held.windows,
            points_sent=held.delivered,
            bytes_sent=self._bytes,
            errors=sum(errors.values()),
            errors_by_type=errors,
            dropped=held.dropped,
            waiting_batches=held.waiting_batches,
            waiting_points=held.waiting_points,
            waiting_bytes=held.waiting_bytes,
            last_error=self._last_error,
            last_failure=self._last_failure,
            last_seconds=self._last_delivery[0],
            last_bytes=self._last_delivery[1],
            nodes=self.destination.nodes() if isinstance(self.destination, OfNodes) else (),
            lag=held.lag,
            backlog_batches=held.backlog_batches,
            backlog_points=held.backlog_points,
            replay_rate=held.replay_rate,
            drained_in=self._drained_in(held),
            on_disk=held.on_disk,
            spool_trouble=held.trouble,
        )

    def _drained_in(self, held: Holdings) -> float | None:
        if not held.backlog_points:
            return 0.0
        return held.backlog_points / held.replay_rate if held.replay_rate and not self._failures else None
