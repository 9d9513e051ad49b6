"""The sender: delivers the queue of one destination, one batch at a time, in a thread of its own.

::

             ┌─────────────── a batch waits and is due ────────────┐
             │                                                     ▼
    idle / waiting ◀── delivered: the queue acks it ───────── delivering
             ▲                                                     │
             └── failed: the queue keeps it, Backoff delays it ◀───┘

:meth:`Sender.step` makes an attempt if one is due, but never before ``Backoff.due``. The destination has the sockets.
The thread calls :meth:`Sender.step`, and then sleeps until the next attempt is due or until it is woken.

After a failure, the next attempt waits for a random part of a bound that doubles with each failure, so that clients do
not all reconnect to a recovered server at once. After an outage, the batches delivered in the minute before it are sent
once more if that is harmless. The thread survives any exception. Errors are counted by type, and logged once until the
next success.

A destination is *up* while it confirms deliveries: no attempt has failed since the last success, and none has been in
progress, or due, for longer than :data:`CONFIRMS` seconds.
"""

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..clock import SYSTEM_CLOCK, Clock
from ..drops import DropCounter
from ..timed_queue import Empty, TimedQueue
from ..wire import graphite
from .batch import Batch, Deadline, Undelivered, batches_of, count_lines
from .destination import Destination, NodeStatus
from .queue import Queue, QueueStats

if TYPE_CHECKING:
    from .verify import Verifier

__all__ = ["CONFIRMS", "Backoff", "Sender", "SenderStatus"]

log = logging.getLogger("metricslib")

CONFIRMS = 5.0
"""Seconds within which a destination must confirm a delivery to count as up."""
_MARGIN = 0.1
"""Seconds before the end of a stop at which an attempt is cut, so that its outcome is still counted."""


@dataclass(frozen=True, slots=True)
class SenderStatus:
    """The state of the delivery to one destination, for the page, the JSON and the library's own metrics.

    Counts are since the start, or the fork.
    """

    label: str
    """The URL without secrets."""
    up: bool
    """True while the destination confirms deliveries, and before the first."""
    since: float
    """Time of the last change of ``up``, in seconds since the epoch.

    After a restart in an outage, the time at which the oldest undelivered data was put into the queue.
    """
    age: float | None
    """Seconds since the last successful delivery; None before the first."""
    windows_sent: int
    """Windows delivered."""
    points_sent: int
    """Points delivered."""
    bytes_sent: int
    """Bytes delivered, including repetitions after an outage, which windows and points do not include."""
    errors: int
    """Failed attempts and other errors."""
    errors_by_type: Mapping[str, int]
    """The same, by type of error."""
    dropped: Mapping[str, int]
    """Dropped points, by cause."""
    waiting_batches: int
    """Undelivered batches."""
    waiting_points: int
    """Undelivered points."""
    waiting_bytes: int
    """Bytes of undelivered data."""
    last_error: str | None
    """The last error as a sentence, without secrets, or None."""
    last_failure: float = 0.0
    """Time of the last failed attempt, in seconds since the epoch; 0: never."""
    last_seconds: float = 0.0
    """Duration of the last successful attempt in seconds."""
    last_bytes: int = 0
    """Bytes delivered by the last successful attempt."""
    nodes: Sequence[NodeStatus] = ()
    """The servers of a cluster with ``pick``; otherwise empty."""
    lag: float = 0.0
    """Age of the oldest undelivered data in seconds; 0 if there is none."""
    backlog_batches: int = 0
    """Batches that wait since an outage, and are sent after new data."""
    backlog_points: int = 0
    """Points in these batches, including repetitions."""
    replay_rate: float = 0.0
    """Points of the backlog that are sent per second; 0 while the destination is down."""
    drained_in: float | None = 0.0
    """Estimated seconds until the backlog is sent; None while the destination is down."""
    on_disk: bool = False
    """True if new data survives the process."""
    disk_bytes: int = 0
    """The part of ``waiting_bytes`` that is on disk; the rest is in memory."""
    spool_trouble: str | None = None
    """Why new data is not on disk although a spool directory is set, or what was wrong in it; None if all is well."""
    verified: int | None = None
    """With ``verify=``: the timestamp up to which Graphite shows everything delivered; None: nothing yet."""
    unverified: int = 0
    """Points that were delivered but that Graphite does not show, even if they were sent again."""
    verify_trouble: str | None = None
    """Why verification is not possible at the moment: a sentence, or None."""


class Backoff:
    """The time of the next attempt: after a random share of a bound that doubles with each consecutive failure.

    ``rng`` returns random numbers from 0 to 1.
    """

    BASE = 0.5
    """The bound after the first failure, in seconds."""
    CAP = 30.0
    """The bound after many failures, in seconds."""

    def __init__(self, rng: Callable[[], float] = random.random) -> None:
        self._rng = rng
        self.failures = 0
        """Number of consecutive failures."""
        self.due = 0.0
        """The time of the next attempt, on a monotonic clock."""

    def failed(self, now: float) -> None:
        """Count a failure."""
        self.due = now + self._rng() * min(self.CAP, self.BASE * 2 ** min(self.failures, 16))
        self.failures += 1

    def succeeded(self) -> None:
        """Reset after a success."""
        self.failures, self.due = 0, 0.0

    def hurry(self) -> None:
        """Make the next attempt due at once, and the waits after it short."""
        self.failures, self.due = min(self.failures, 1), 0.0


class Sender:
    """Delivers the batches in ``queue`` to ``destination``. The default queue is in memory, with the bounds of the URL.

    ``clock`` measures the waits between attempts, and ages; ``rng`` returns random numbers from 0 to 1. Without
    :meth:`start`, each call of :meth:`step` makes an attempt if one is due.
    """

    def __init__(
        self,
        destination: Destination,
        queue: Queue | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.destination = destination
        self.queue = Queue.to(destination, clock=clock) if queue is None else queue
        self.queue.wake = self.wake
        self._clock = clock
        self._rng = rng
        self._reset()

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop_by: Deadline | None = None
        self._attempt: Deadline | None = None
        # A signal handler, which may stop the program at any time, can put into this queue, but must not set an Event.
        self._wakeups: TimedQueue[None] = TimedQueue()
        self._backoff = Backoff(self._rng)
        self._due_since: float | None = None  # time since which a batch has been due without confirmation
        self._since = self._clock.time()
        self._dropped_before = 0  # points, at the begin of the outage
        self._last_success: float | None = None
        self._bytes = 0
        self._errors = DropCounter()
        self._last_error: str | None = None
        self._last_failure = 0.0
        self._last_delivery = (0.0, 0)
        self._logged: set[str] = set()
        self.verifier: Verifier | None = None
        """Verifies deliveries; None unless the destination's URL has the option ``verify``."""
        self._verify()

    def _verify(self) -> None:
        url = self.destination.options.verify
        if self.verifier and self.verifier.url == url:
            return
        if self.verifier:
            self.verifier.stop()
            self.verifier = None
        if url:
            from .verify import KEEP, Verifier  # here, because it imports an HTTP client

            label, timeout = self.destination.label, self.destination.options.timeout
            self.queue.keep(KEEP)
            self.verifier = Verifier(label, url, self.queue.resend, timeout=timeout, clock=self._clock)
            if self._alive:
                self.verifier.start()

    # -- in

    def relay(self, points: Sequence[graphite.Point]) -> None:
        """Queue relayed points, or count them as dropped, cause ``unsupported``."""
        if not self.destination.relays:
            self.queue.refuse(len(points), "unsupported")
            return
        self.put(*batches_of(0, graphite.encode_points(self.destination.share(points)), windows=0))

    def put(self, *batches: Batch) -> None:
        """Queue batches that belong together."""
        self.queue.put(batches)
        self.wake()

    def wake(self) -> None:
        """Wake the thread, because there are new batches."""
        if self._due_since is None:
            self._due_since = self._clock.monotonic()
        if not self._wakeups:
            self._wakeups.put(None)
        if self._thread is not None and not self._stop_by:
            try:
                self.start()  # start the thread again if it died, which should not happen
            except RuntimeError as error:
                self._report("RuntimeError", str(error))

    def redirect(self, destination: Destination) -> None:
        """Deliver to ``destination`` from now on, which is the same receiver with other options or names.

        Waiting batches stay as they were encoded; the bounds of the new options apply to them.
        """
        self.destination = destination  # the old one need not be closed: it has no open connection between deliveries
        self.queue.change(destination.options)
        self._verify()

    # -- one step

    def step(self, now: float | None = None) -> float | None:
        """Make an attempt if one is due at ``now``. Return the seconds until the next, or None if nothing waits."""
        now = self._clock.monotonic() if now is None else now
        if now >= self._backoff.due and (batch := self.queue.take(hurry=self._stop_by is not None)):
            self._deliver(batch, now)
        wait = self.queue.wait()
        if wait != 0:  # no batch is due, so there is nothing to confirm
            self._due_since = None
        elif self._due_since is None:
            self._due_since = self._clock.monotonic()
        if wait is None:
            return None
        return max(0.0 if self._stop_by else wait, self._backoff.due - self._clock.monotonic())

    def _deliver(self, batch: Batch, began: float) -> None:
        attempt = self._attempt = Deadline(self.destination.options.timeout)
        attempt.urgent = self._stop_by is not None or len(self.queue) > 1
        if self._stop_by:
            attempt.cut(max(0.0, self._stop_by.left() - _MARGIN))
        try:
            try:
                lost = self.destination.deliver(batch.payload, attempt)
            except Undelivered as failure:
                self._keep(batch, failure)
                self._failed(type(failure.__cause__ or failure).__name__, failure.reason)
            else:
                self.queue.ack(batch, lost, resend=self._backoff.failures > 0 and self.destination.resend)
                self._succeeded(batch, began)
        except Exception as error:  # a defect of the destination must not end the thread
            self.queue.retry(batch)
            self._failed(type(error).__name__, f"unexpected {type(error).__name__}", error)
        finally:
            self._attempt = None

    def _keep(self, batch: Batch, failure: Undelivered) -> None:
        remaining = failure.remaining
        if not remaining:
            self.queue.ack(batch, failure.lost)
        elif remaining == batch.payload:
            self.queue.retry(batch, None, failure.lost)
        else:
            points = count_lines(remaining) if failure.points is None else failure.points
            self.queue.retry(batch, Batch(batch.stamp, points, remaining, batch.windows), failure.lost)
        self._bytes += len(batch.payload) - len(remaining)

    def _succeeded(self, batch: Batch, began: float) -> None:
        now = self._clock.monotonic()
        self._bytes += len(batch.payload)
        self._last_delivery = now - began, len(batch.payload)
        self._last_success, self._due_since = now, None
        if self._backoff.failures:
            self._report_recovery(batch)
        self._backoff.succeeded()
        self._logged.clear()
        if self.verifier:
            self.verifier.delivered(batch)

    def _report_recovery(self, batch: Batch) -> None:
        """Say what became of the points of the outage that ends now, with the delivery of ``batch``."""
        now = self._clock.time()
        held, lasted = self.queue.stats(), max(0.0, now - self._since)
        self._since = now
        dropped = sum(held.dropped.values()) - self._dropped_before
        log.log(
            logging.WARNING if dropped else logging.INFO,
            "%s: delivering again after %.0f s; kept %s: %d points%s",
            self.destination.label,
            lasted,
            "in the spool directory" if held.on_disk else "in memory",
            held.waiting_points + batch.points,
            f", dropped: {dropped}" if dropped else "",
        )

    def _failed(self, kind: str, reason: str, error: Exception | None = None) -> None:
        self._last_failure = self._clock.time()
        if not self._backoff.failures:
            # The outage may be older than this process. Then it began at the latest when the oldest batch was queued.
            held = self.queue.stats()
            self._since = self._last_failure - (held.lag if self._last_success is None else 0.0)
            self._dropped_before = sum(held.dropped.values())
        self._backoff.failed(self._clock.monotonic())
        self._report(kind, reason, error)

    def _report(self, kind: str, reason: str, error: Exception | None = None) -> None:
        self._errors.add(kind)
        self._last_error = reason
        if kind not in self._logged:
            self._logged.add(kind)
            # The traceback, without the exception's message, which may contain secrets.
            where = "\n" + "".join(traceback.format_tb(error.__traceback__)) if error else ""
            log.warning("%s: %s; trying again; logged once%s", self.destination.label, reason, where)

    # -- the thread

    def start(self) -> None:
        """Start the thread, unless it is running. Raises RuntimeError if no thread can be started."""
        if not self._alive:
            self._stop_by = None
            wakeups = self._wakeups = TimedQueue()  # a thread that hung keeps its own
            name = f"metricslib-{self.destination.label}"
            thread = threading.Thread(target=self._run, args=(wakeups,), name=name, daemon=True)
            self._thread, before = thread, self._thread
            try:
                thread.start()
            except RuntimeError:
                self._thread = before
                raise
            if self.verifier:
                self.verifier.start()

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self, wakeups: "TimedQueue[None]") -> None:
        me = threading.current_thread()
        while self._thread is me:
            try:
                wait = self.step()
            except Exception as error:  # a defect, for example of the queue: continue, but not in a busy loop
                self._report(type(error).__name__, f"unexpected {type(error).__name__}", error)
                wait = 1.0
            stop = self._stop_by
            if stop and (wait is None or not stop.left()):
                return
            try:
                if wait != 0:
                    wakeups.get(timeout=min(wait, stop.left()) if stop and wait is not None else wait)
            except Empty:
                pass

    def wait_idle(self, seconds: float, *, here: bool = False) -> bool:
        """Wait at most ``seconds`` until the queue is empty. Return True if it is.

        ``here``: if there is no thread, deliver in the calling one.
        """
        deadline = Deadline(seconds)
        if here and not self._alive:
            self._deliver_here(deadline)
        while len(self.queue):
            if not deadline.left() or not self._alive:
                return False
            if attempt := self._attempt:
                attempt.urgent = True
            time.sleep(min(0.005, deadline.left()))
        return True

    def hurry(self) -> None:
        """Make an attempt now, even after failures."""
        self._backoff.hurry()
        if attempt := self._attempt:
            attempt.urgent = True
        self._wakeups.put(None)

    def stop(self, seconds: float) -> bool:
        """Deliver waiting data for at most ``seconds``, and stop the thread. Return True if nothing was dropped.

        If data waits and no thread is running, one is started. Data that was not delivered is dropped, cause
        ``shutdown``, unless it is on disk. The sender may be started again.
        """
        stop = Deadline(seconds)
        dropped = self._dropped()
        self.hurry()
        if not self._alive and len(self.queue):
            try:
                self.start()
            except RuntimeError:  # the interpreter is shutting down, and starts no more threads
                self._deliver_here(stop)
        if self._stop_thread(stop):
            self.destination.close()
        self.queue.drop_unsaved("shutdown")
        return self._dropped() == dropped

    def park(self, seconds: float) -> bool:
        """Deliver for at most ``seconds``, stop the thread, and keep waiting data. Return True if there is none."""
        self.hurry()
        if self._stop_thread(Deadline(seconds)):
            self.destination.close()
        return not len(self.queue)

    def stop_now(self) -> None:
        """Stop the thread, without any other change."""
        self._stop_thread(Deadline(_MARGIN))

    def _dropped(self) -> int:
        return sum(self.queue.stats().dropped.values())

    def _stop_thread(self, stop: Deadline) -> bool:
        """Stop the thread. Return True if it has ended in time."""
        self._stop_by = stop
        if attempt := self._attempt:
            attempt.urgent = True
            attempt.cut(max(0.0, stop.left() - _MARGIN))
        self._wakeups.put(None)
        if self.verifier:
            self.verifier.stop()
        thread, ended = self._thread, True
        if thread is not None and thread is not threading.current_thread():
            thread.join(stop.left())
            ended = not thread.is_alive()
        self._thread = None
        return ended

    def _deliver_here(self, deadline: Deadline) -> None:
        """Deliver waiting data in the calling thread."""
        self._thread, self._stop_by = threading.current_thread(), deadline
        try:
            self._run(self._wakeups)
        finally:
            self._thread, self._stop_by = None, None

    def reset_after_fork(self) -> None:
        """In a forked child, discard thread, sockets, locks and waiting data, which belong to the parent."""
        self.queue.reset_after_fork()  # first, because its lock may be held for ever
        self._reset()
        self.destination.close()

    # -- for the page

    def status(self) -> SenderStatus:
        """Return the state of the delivery. Changes nothing."""
        held = self.queue.stats()
        last, now = self._last_success, self._clock.monotonic()
        errors = self._errors.totals()
        late = self._late(now)
        return SenderStatus(
            label=self.destination.label,
            up=not self._backoff.failures and not late,
            since=self._clock.time() - late if late and not self._backoff.failures else self._since,
            age=None if last is None else max(0.0, now - last),
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
            nodes=self.destination.nodes(),
            lag=held.lag,
            backlog_batches=held.backlog_batches,
            backlog_points=held.backlog_points,
            replay_rate=0.0 if self._backoff.failures else held.replay_rate,
            drained_in=self._drained_in(held),
            on_disk=held.on_disk,
            disk_bytes=held.disk_bytes,
            spool_trouble=held.trouble,
            verified=self.verifier.verified if self.verifier else None,
            unverified=self.verifier.unverified if self.verifier else 0,
            verify_trouble=self.verifier.trouble if self.verifier else None,
        )

    def _late(self, now: float) -> float:
        """Return the seconds for which a batch has been due without confirmation, or 0 within :data:`CONFIRMS`."""
        since, attempt = self._due_since, self._attempt
        if since is None or now - since <= CONFIRMS:
            return 0.0
        numbered = self.destination.deltas and self.destination.resend
        if numbered and attempt and attempt.left():  # a forwarder confirms at the end of its own interval
            return 0.0
        return now - since

    def _drained_in(self, held: QueueStats) -> float | None:
        if not held.backlog_points:
            return 0.0
        return held.backlog_points / held.replay_rate if held.replay_rate and not self._backoff.failures else None
