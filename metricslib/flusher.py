"""The flusher: the background thread that ends a registry's intervals and hands its windows to the destinations.

It alone calls :meth:`~.registry.Registry.tick`, once an interval, on wall-clock multiples of it. What is delivered
where, and what happens when a destination is away, is the senders' work: the flusher never waits for a network. It
survives any error, counts it, and logs it once per cause.

A fork leaves it in the parent. In the child it starts again by itself when the child first measures something; an idle
child sends nothing.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Never

from ._default import default_registry
from ._process import at_exit, exiting, expect_forks, forks_workers, not_at_exit, notice_fork, register_fork_handler
from ._signals import deferred, renew
from .attempt import OUT_OF_MEMORY
from .budget import LEAST
from .callbacks import CallbackReader
from .checkpoint import Checkpoint, CheckpointParticipant, RegistryCheckpoint
from .clock import SYSTEM_CLOCK
from .delivery import Deadline, Dispatcher, Puts, SenderStatus, several
from .delivery.whisper import WhisperDestination
from .drops import ErrorReporter
from .errors import InvalidOption, InvalidType
from .hints import unknown_option
from .history import History
from .history_files import HistoryFiles
from .naming import Naming, expanded
from .registry import Readings, Registry
from .schedule import Schedule
from .self_metrics import SelfMetrics
from .series import Kind, text_of
from .series_state import Snapshot
from .timed_queue import Empty, TimedQueue
from .window import Flush, Source, Window

if TYPE_CHECKING:
    from .group.membership import Membership
    from .group.reading import MemberStatus, Reading

__all__ = ["Flusher", "FlusherStatus", "GroupRegistry", "Measured"]

log = logging.getLogger("metricslib")

_PAUSE = 0.5  # seconds after a tick that failed: whatever is wrong, do not spin
_LONGEST_GRACE = 86_400  # seconds
EXIT_DEADLINE = 2.0
"""Seconds that the last flush may take when the program ends, whether or not the destinations answer."""
_CALLBACKS = 0.5
"""The share of an interval, or of the time that stop() has, in which the callbacks of gauges must return."""
_LEAST_READING, _MOST_READING = 0.1, 10.0
"""Bounds of the time for callbacks, in seconds: at least this in a short stop(), at most this in a long interval."""
_POLL = 0.05
"""Seconds between checks whether another process has delivered what a flush waits for."""
_TAKEOVER = 0.75
"""The share of stop()'s time after which it closes the interval itself, because the thread hangs in a callback."""

_STAMP = "schedule/last"
"""The key of the note that has the last stamp."""


@dataclass(frozen=True, slots=True)
class FlusherStatus:
    """The state of a flusher, as shown by the page and the JSON."""

    running: bool
    """True while the background thread runs."""
    interval: int
    """The length of an interval in whole seconds."""
    prefix: str
    """The prefix, with ``{host}`` and ``{pid}`` replaced."""
    ticks: int
    """Number of intervals that have ended."""
    steps_back: int
    """How often windows followed a clock that was set back to timestamps already used."""
    lag: float
    """Delay of the last tick in seconds, without the grace."""
    errors: dict[str, int]
    """Number of errors that the flusher survived, by cause."""
    destinations: list[SenderStatus]
    """The state of each destination."""
    skipped: int = 0
    """Number of intervals without a window, because the process did not run or the clock was set forward.

    Their measurements are in the following window.
    """


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a program's metrics: of this process, or of all processes of its group."""

    registry: "Registry | GroupRegistry"
    history: History
    naming: Naming
    members: "Sequence[MemberStatus]" = ()
    """The processes of the group; empty for a process alone."""


class GroupRegistry:
    """Reads the series of a group as those of ``registry``, a member's, are read."""

    def __init__(self, registry: Registry, reading: "Reading") -> None:
        self.clock = registry.clock
        self.drops = registry.drops
        self.functions = registry.functions
        self.series = reading.series
        self._reading = reading

    def snapshot(
        self, end: int = 0, interval: float = 10.0, only: Mapping[Kind, Collection[str]] | None = None
    ) -> Snapshot:
        """Return the state of the group as :meth:`.Registry.snapshot` does; drops are those of this process."""
        return self._reading.snapshot(end, interval, only)._replace(dropped=self.drops.totals())


class _Unsent:
    """A flush that has not been put into every destination's queue yet."""

    __slots__ = ("closes", "flush", "last", "puts")

    flush: Flush

    def __init__(self, *, closes: bool, last: bool) -> None:
        self.closes = closes
        self.last = last
        """Whether it is the last flush of its slot."""
        self.puts: Puts = {}


class _LastStamp:
    """Keeps the stamp of the last closed interval over a restart: see :meth:`.Schedule.resume`."""

    def __init__(self, flusher: "Flusher") -> None:
        self._flusher = flusher

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return the stamp of the flush, or in mid-interval the one before it."""
        return {_STAMP: b"%d" % (flush.cumulative.end if closes else flush.cumulative.end - self._flusher.interval)}

    def committed(self, flush: Flush) -> None:
        """Nothing to do."""

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Continue behind the last stamp."""
        if _STAMP in notes:
            try:
                last = int(notes[_STAMP])
            except ValueError:
                self._flusher.registry.drops.add("bad_note")
            else:
                self._flusher._resume(last)


class Flusher:
    """Ends the intervals of a registry, and sends its windows to destinations.

    Use it for a registry of your own; for the default registry use :func:`metricslib.start`. Every registry has at most
    one running flusher. All methods may be called from any thread.

    Args:
        registry: The registry.
        to: One destination URL, or several. Without a destination, intervals end and are kept for the page.
        interval: The length of an interval in whole seconds.
        prefix: The prefix of every name. ``{host}`` and ``{pid}`` in it are replaced.
        percentiles: The percentiles to send for timers and histograms, from -100 to 100 except 0.
        naming: A :class:`~metricslib.naming.Naming`, which replaces ``prefix`` and ``percentiles``.
        own: The name of the library's own metrics; empty to send none.
        history: The last windows of another flusher, to continue with them on the page.
        grace: Seconds from the end of an interval until its window is closed, at most 86,400. A program that receives
            measurements of the same interval from other programs waits for them in this time.
        spool: A directory in which undelivered data, and the state of the registry, survive the process. None: they are
            kept in memory.
        group: ``"host"``: processes of this user on this host that send the same series to the same Graphite servers or
            files send as one. None: this process sends alone.

    Raises:
        InvalidDestination: If a URL is invalid.
        InvalidOption: If an argument has an invalid value.
        InvalidType: If ``registry`` is not a registry.
    """

    def __init__(
        self,
        registry: Registry,
        to: str | Iterable[str] = (),
        *,
        interval: float = 10,
        prefix: str = "",
        percentiles: Sequence[float] = (90,),
        naming: Naming | None = None,
        own: str = "metricslib",
        history: History | None = None,
        grace: float = 0.0,
        spool: str | os.PathLike[str] | None = None,
        group: Literal["host"] | None = "host",
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option(Flusher.__init__, unknown)
        if not isinstance(registry, Registry):
            raise InvalidType("registry", registry, "a Registry")
        self.registry = registry
        self.to = several(to)
        self.history = history or History()
        self._naming = naming or Naming(prefix=prefix, percentiles=tuple(percentiles))
        self.own = text_of(own)
        """The name of the library's own metrics; empty: there are none."""
        if not 0 <= grace <= _LONGEST_GRACE:
            raise InvalidOption("grace", grace, f"must be a number of seconds from 0 to {_LONGEST_GRACE}")
        self._grace = grace
        if group not in ("host", None):
            raise InvalidOption("group", group, 'must be "host" or None')
        self._group = group
        self.spool = os.fspath(spool) if spool else None
        """The spool directory; None: what is not delivered waits in memory."""
        self._schedule = Schedule(interval, self._now())
        self._errors = ErrorReporter("flusher")
        self._checkpoint = Checkpoint()
        self._state = RegistryCheckpoint(registry, self._next_slot, self._naming.own or own) if spool else None
        if self._state:
            self._checkpoint.add(_LastStamp(self))  # first, for the registry's participant asks for the next stamp
            self._checkpoint.add(self._state)
        self._ticks = 0
        self.turns = 0
        """How often an interval was ended, or kept open because the clock was set back: what a watchdog watches."""
        self._lag = 0.0
        self.copied_by_fork = False
        """True in a forked child while its copy of the parent's running flusher has not been started or stopped."""
        self.has_page = False
        """Whether a page shows it; see :meth:`for_page`."""
        self._prepare()
        register_fork_handler(self)

    def _prepare(self) -> None:
        """Make what a process must make for itself: destinations, and everything with a lock in it."""
        self.naming = replace(self._naming, prefix=expanded(self._naming.prefix))
        self._dispatcher = Dispatcher(
            self.to,
            self.naming,
            clock=self.registry.clock,
            directory=self.spool,
            window_bytes=max(LEAST, self.registry.budget.max_bytes),
        )
        statuses = self._dispatcher.statuses
        self._self_metrics = SelfMetrics(self.own, self.registry.drops, self._errors.counts, statuses)
        self._thread: threading.Thread | None = None
        self._newest_thread: threading.Thread | None = None  # kept after stop(), so that the thread knows itself
        self._membership: Membership | None = None
        self._history_files: HistoryFiles | None = None
        self._callbacks = CallbackReader()
        self._callback_deadline = Deadline(0.0)  # for the callbacks that are being read
        self._stop_deadline: Deadline | None = None  # None: stop() was not called
        self._closed = False  # whether the last interval is sent
        self._abandoned = set[threading.Thread]()  # threads that did not end in time
        self._in_caller = False  # started while the interpreter ends and starts no threads: callers do the work
        # Wakes the thread: None to look again, an Event to flush and set it. A signal handler may call stop() while
        # this thread of the program is inside put() or set(); it may put into this queue again, but not set an Event.
        self._wakeups: TimedQueue[threading.Event | None] = TimedQueue()
        self._flushing = threading.Lock()
        self._unsent: _Unsent | None = None

    @property
    def interval(self) -> int:
        """The flush interval in whole seconds."""
        return self._schedule.interval

    @property
    def running(self) -> bool:
        """Whether the background thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def __repr__(self) -> str:
        return f"<Flusher every {self.interval} s to {[sender.destination.label for sender in self._dispatcher]}>"

    # -- start, flush, stop

    def start(self) -> None:
        """Start the background thread. Does nothing if it is running.

        :meth:`stop` is called when the program ends, except if ``start()`` is called by a function registered with
        :mod:`atexit`: such a function must call :meth:`stop` itself, and the log says so. Newer versions of Python
        start no threads at that time; :meth:`flush` and :meth:`stop` then deliver in the calling thread.

        In the master of uWSGI, which loads the program and then forks, nothing is started: each worker does that at its
        first measurement, and what was measured before the fork is not sent.

        Raises:
            AlreadyStarted: If another flusher ends the intervals of this registry.
            RuntimeError: If no thread can be started. Nothing has been started then, and the call may be repeated.
        """
        notice_fork()
        if self.running or self._in_caller:
            return
        expect_forks()
        if forks_workers():
            self.copied_by_fork = True  # each worker starts it at its first measurement
            return
        forked = self.copied_by_fork
        if forked:
            self._begin_in_child()
        try:
            with ExitStack() as undo:
                self._acquire(undo, forked)
                undo.pop_all()
        except BaseException:
            if forked:  # the next measurement tries again
                self.copied_by_fork = True
                self.registry.on_first_use(self._first_use_in_child)
            raise
        if forked:
            renew()
        if exiting():
            log.warning("started while the program ends: call stop() as well, or the measurements are not sent")
        if forked and self._membership is None and self._dispatcher.shared and "{pid}" not in self._naming.prefix:
            log.warning(
                "this forked process (pid %d) ships the same paths as its parent, and Graphite keeps only the last"
                " value: give it a prefix with {pid}, or send to a forwarder",
                os.getpid(),
            )

    def _acquire(self, undo: ExitStack, forked: bool) -> None:
        """Take all that a running flusher has; ``undo`` gives back what was taken before one of these steps fails."""
        self.registry.claim(self)
        undo.callback(self.registry.release, self)
        undo.callback(self._dispatcher.stop_now)
        notes = self._dispatcher.open(own=not forked)
        if self._state:
            self._add_source(self._state, undo)
            self._checkpoint.restore(notes, self._errors)
        if self.own:
            self._add_source(self._self_metrics, undo)
        self._stop_deadline, self._closed = None, False
        at_exit(self.stop)
        undo.callback(not_at_exit, self.stop)
        self._join_group()
        undo.callback(self._give_up_group)
        try:
            self._dispatcher.start()
            thread = threading.Thread(target=self._run, name="metricslib-flusher", daemon=True)
            self._newest_thread = thread  # before it begins: it must know itself at its first tick
            thread.start()
        except RuntimeError:
            if not exiting():
                raise
            self._in_caller = True
        else:
            self._thread = thread

    def _group_folder(self) -> Path | None:
        """Return the folder of the group of processes that ship the same as this one; None: it ships alone.

        Raises OSError where there is no place for it.
        """
        shared = self._dispatcher.shared
        if (
            self._group is None  # as the caller wishes
            # Destinations that add up need no group, for each process sends its own increments. The page does.
            or not (shared or (self.has_page and self.registry is default_registry))
            or "{pid}" in self._naming.prefix  # no other process has these paths
            or self.spool is not None  # undelivered data and the checkpoint are in files of this process alone
            or self.registry.clock is not SYSTEM_CLOCK  # its slots are not those of other processes
            or self._grace  # its intervals end later than those of other processes
            or os.name != "posix"  # the group needs record locks
        ):
            return None
        from .group.membership import folder_of  # with what Windows has not

        once = [destination.label for destination in shared if not destination.revise]
        return folder_of([destination.label for destination in shared], self.naming, self.interval, once)

    def _join_group(self) -> None:
        """Ship together with the other processes on this host that ship the same, if that can be."""
        self._membership = self._history_files = None
        try:
            if folder := self._group_folder():
                from .group.listing import clear_other_boots, clear_pages, describe, rivals
                from .group.membership import Membership

                self._history_files = HistoryFiles(self.history, folder / "history")
                member = Membership(
                    folder,
                    self.registry,
                    self.interval,
                    self.own,
                    self._send_for_group,
                    self._dispatcher.shared_queues,
                    None if all(each.revise for each in self._dispatcher.shared) else self._send_once_for_group,
                )
                member.begin(self._now())
                self._membership = member
                destinations = [destination.label for destination in self._dispatcher.shared]
                namespace = f"{self.naming.namespace} {self.naming.legacy}"
                describe(folder, self.naming.prefix, destinations, self.interval, namespace)
                for other in rivals(folder):
                    log.warning(
                        "other processes write the same paths with another interval, other names or other destinations,"
                        " and overwrite the values of this one: start all with the same options; they are in %s",
                        other,
                    )
                clear_other_boots(folder.parent, self._now())
                if not destinations:
                    clear_pages(folder.parent)
        except OSError as error:
            self._history_files = None
            if self._dispatcher.shared:
                log.warning("this process ships alone, and others that ship the same overwrite its values: %s", error)
            else:
                log.warning("the page shows this process alone: %s", error)

    def _check_group(self) -> None:
        """After a change of the user, join the group of the new one."""
        if self._membership is not None and self._membership.user != os.geteuid():
            self._change_group()

    def _change_group(self) -> None:
        """Join the group that is right now. It gets all of the open interval, and the one before keeps none of it."""
        if self._membership is not None:
            with suppress(OSError):  # of which the next step warns
                if self._membership.folder == self._group_folder():
                    return
            self._safely("group", self._membership.withdraw)
        self._join_group()

    def _give_up_group(self) -> None:
        member, self._membership = self._membership, None
        if member is not None:
            member.give_up()

    def _send_once_for_group(self, window: Window) -> None:
        puts: Puts = {}
        self._dispatcher.encode(Flush(window, window), self._safely, puts, whole=True, shared=True, revise=False)
        self._dispatcher.commit(puts, {})

    def _send_for_group(self, window: Window) -> None:
        puts: Puts = {}
        self._dispatcher.encode(Flush(window, window), self._safely, puts, whole=True, shared=True, revise=True)
        self._dispatcher.commit(puts, {})
        if window.end <= self._now():
            self._remember(window)

    def _remember(self, window: Window) -> None:
        """Take the window of an interval that is over into the history."""
        if self._history_files is None:
            self.history.append(window)
        else:
            self._safely("history", partial(self._history_files.put, window))

    def _add_source(self, source: Source, undo: ExitStack) -> None:
        self.registry.add_source(source)
        undo.callback(self.registry.remove_source, source)

    def flush(self, timeout: float = 5.0) -> bool:
        """Send the open interval so far. The interval continues; the complete interval is sent with the same timestamp.

        Never raises an exception.

        Args:
            timeout: Seconds to wait for the delivery.

        Returns:
            True if everything was delivered in time.
        """
        notice_fork()
        deadline = Deadline(timeout)
        if self.running and threading.current_thread() is not self._thread:
            done = threading.Event()
            self._wakeups.put(done)
            if not done.wait(deadline.left()):
                return False
        else:
            self._safely("flush", self._flush)
        delivered = self._dispatcher.wait_idle(deadline, here=self._in_caller)
        member = self._membership
        if member is not None and not member.shipping and self._dispatcher.shared:  # another process delivers it
            while not member.delivered():
                if not deadline.left():
                    return False
                time.sleep(_POLL)
        return delivered

    def flush_soon(self) -> None:
        """Ask the background thread for a flush, and return at once.

        Does nothing with a spool directory and a destination with ``revise=off``: a flush would commit data before that
        destination's queue has it, and a kill would lose it. The next tick sends it.
        """
        if self.spool is None or all(sender.destination.revise for sender in self._dispatcher):
            self._wakeups.put(threading.Event())

    def stop(self, timeout: float = EXIT_DEADLINE) -> bool:
        """Send the open interval, wait for its delivery, and end the background thread.

        The registry can still be used, and the flusher may be started again.

        Args:
            timeout: Seconds to wait for the delivery. Data that is not delivered in time stays in the spool directory
                for the next start; without one it is dropped and counted, cause ``shutdown``. Computing the interval
                and writing it to the spool directory may take two seconds, even if ``timeout`` is shorter.

        Returns:
            True if nothing was lost.
        """
        notice_fork()
        with deferred():
            return self._stop(Deadline(timeout))

    def _stop(self, deadline: Deadline) -> bool:
        thread, self._thread = self._thread, None
        if thread is None and not self._in_caller:
            self.copied_by_fork = False
            self.registry.release(self)
            return True
        self._in_caller = False
        not_at_exit(self.stop)
        patience = Deadline(max(deadline.left(), EXIT_DEADLINE))
        self._close(thread, deadline, patience)
        dropped = self._dispatcher.dropped()
        group = self._membership.folder if self._membership is not None else None
        self._safely("group", partial(self._leave_group, deadline, here=thread is None))
        complete = self._dispatcher.dropped() == dropped
        kept = self._dispatcher.stop(deadline, patience, group)
        self._callbacks.stop()
        sources = [source for source in (self._self_metrics if self.own else None, self._state) if source]
        for source in sources:
            self._safely("last collection", partial(self.registry.remove_source, source, patience.left()))
        self.registry.release(self)
        return kept and complete and self._closed

    def _close(self, thread: threading.Thread | None, deadline: Deadline, patience: Deadline) -> None:
        """Have the thread send the open interval and end. Where it does not come to that, do it here."""
        self._stop_deadline = deadline
        self._callback_deadline.cut(max(_LEAST_READING, deadline.left() * _CALLBACKS))
        self._wakeups.put(None)
        if thread is None:
            self._safely("final flush", self._flush_last)
        elif thread is not threading.current_thread():
            thread.join(deadline.left() * _TAKEOVER)
            if self._callbacks.unbounded:
                self._abandoned.add(thread)
                readings = self.registry.readings(self._callbacks.interrupt)
                self._safely("final flush", partial(self._flush_last, readings))
            else:
                thread.join(patience.left())
            if thread.is_alive():
                self._abandoned.add(thread)
            if not self._closed:
                log.warning("the last interval could not be closed in time, and is not sent")

    def change(
        self, to: str | Iterable[str], *, interval: float, naming: Naming, timeout: float = EXIT_DEADLINE
    ) -> None:
        """Change destinations, interval or names while running, in the middle of an interval.

        The whole open interval is sent with the new names, and nothing of it with the old ones. A destination that
        remains (compared without its options) still receives its undelivered data.

        Args:
            to: The new destination URLs.
            interval: The new length of an interval in whole seconds.
            naming: The new names.
            timeout: Seconds in which removed destinations can receive their undelivered data. The rest is kept until
                the destination is added again: in the spool directory, or in memory within the bounds of its spool. The
                log shows the amount. At most 16 removed destinations are kept; beyond that, data in memory for the one
                that was removed first is dropped and counted, cause ``shutdown``.

        Raises:
            InvalidDestination: If a URL is invalid. Nothing has changed then.
            InvalidOption: If an argument has an invalid value. Nothing has changed then.
        """
        to = several(to)
        filled = replace(naming, prefix=expanded(naming.prefix))
        schedule = self._schedule.changed(interval, self._now())
        change = self._dispatcher.prepare(to, filled)
        with self._flushing:
            change(self.running)
            self.to, self._schedule = to, schedule
            self._naming, self.naming = naming, filled
            if self.running:
                self._change_group()
        self._wakeups.put(None)
        for status in self._dispatcher.stop_removed(Deadline(timeout)):
            self._self_metrics.remove(status)

    def status(self) -> FlusherStatus:
        """Return the state of the flusher and of its destinations. Changes nothing."""
        return FlusherStatus(
            self.running,
            self.interval,
            self.naming.prefix,
            self._ticks,
            self._schedule.steps_back,
            self._lag,
            self._errors.counts.totals(),
            self._dispatcher.statuses(),
            self._schedule.skipped,
        )

    def for_page(self) -> None:
        """Have the page show all processes of this program, also where they ship nothing together.

        That is for the default registry: others are of this process alone.
        """
        if self.has_page:
            return
        self.has_page = True
        if self.running:
            with self._flushing:
                if self._membership is None:
                    self._join_group()

    @property
    def directories(self) -> list[str]:
        """The directories of its ``whisper://`` destinations."""
        destinations = (sender.destination for sender in self._dispatcher)
        return [each.directory for each in destinations if isinstance(each, WhisperDestination)]

    def measured(self) -> Measured:
        """Return what the page shows: all that the group measured, as of the last second. Changes nothing."""
        member = self._membership
        reading: Reading | None = None

        def read() -> None:
            nonlocal reading
            if member is not None:
                reading = member.read(self._now())

        self._safely("group", read)
        if reading is None:
            return Measured(self.registry, self.history, self.naming)
        if self._history_files is not None:
            self._safely("history", partial(self._history_files.refresh, reading.last))
        history = copy(self.history)
        history.last = reading.last
        return Measured(GroupRegistry(self.registry, reading), history, self.naming, reading.members)

    def add_participant(self, participant: CheckpointParticipant) -> None:
        """Commit what ``participant`` notes together with each flush, and tell it when that is done."""
        self._checkpoint.add(participant)

    def relay(self, points: Sequence[tuple[str, float, int]]) -> None:
        """Send points that have their own path and timestamp to every destination, without prefix and not as part of a
        window.

        Destinations that cannot carry points, such as statsd servers, count them as dropped, cause ``unsupported``.

        Args:
            points: Path, value, and timestamp in seconds since the epoch, of each point.
        """
        self._dispatcher.relay(points)

    # -- the thread

    def _now(self) -> float:
        """The time by which intervals end."""
        return self.registry.clock.time() - self._grace

    def _next_slot(self) -> tuple[int, int]:
        return self._schedule.next_stamp(self._now()), self.interval

    def _resume(self, last: int) -> None:
        self._schedule.resume(last, self._now())

    def _run(self) -> None:
        while self._stop_deadline is None and not self._is_abandoned():
            if not self._safely("tick", self._turn):
                time.sleep(_PAUSE)
        self._safely("final flush", self._flush_last)
        while self._wakeups:
            if asked := self._wakeups.get():
                asked.set()

    def _turn(self) -> None:
        """Wait for the next tick or for something asked of the thread, and do it."""
        now = self._now()
        delay = self._schedule.delay(now)
        if delay == 0:
            self.tick()
            return
        if self._membership is not None:
            delay = min(delay, self._step_group(now))
        try:
            asked = self._wakeups.get(timeout=min(delay, self.interval))
        except Empty:
            return
        if asked and self._stop_deadline:
            self._wakeups.put(asked)  # _run() answers it after the final flush
        elif asked:
            try:
                self._flush()
            finally:
                asked.set()

    def _step_group(self, now: float) -> float:
        """Do what is due in the group, and return the seconds until something is. The interval is open at ``now``."""
        delay = _PAUSE

        def step() -> None:
            nonlocal delay
            if self._membership is not None:
                slot = self._schedule.open_stamp(now)
                delay = self._membership.step(slot, now)

        with self._flushing:
            if not self._is_abandoned():
                self._check_group()
                self._safely("group", step)
        return delay

    def _leave_group(self, deadline: Deadline, *, here: bool) -> None:
        member, self._membership = self._membership, None
        if member is not None:
            member.leave(self._now(), lambda: self._dispatcher.wait_idle(deadline, here=here))

    def tick(self) -> None:
        """End the interval now, if it is due by the clock of the registry.

        The background thread calls it. Call it in tests that use a clock of their own.
        """
        readings = self._read_callbacks()
        with self._flushing:
            if not self._is_abandoned():
                self._tick(self._now(), readings)

    def _read_callbacks(self) -> Readings:
        """Ask the callbacks of gauges, before anything else is done, for they may take long.

        In the background thread there is a bound on that. Others, such as a test's, call them as they are.
        """
        if threading.current_thread() is not self._newest_thread:
            return self.registry.readings()
        self._callback_deadline = Deadline(min(_MOST_READING, self.interval * _CALLBACKS))
        if self._stop_deadline:
            self._callback_deadline.cut(max(_LEAST_READING, self._stop_deadline.left() * _CALLBACKS))
        return self.registry.readings(partial(self._callbacks.read, deadline=self._callback_deadline))

    def _tick(self, now: float, readings: Readings) -> None:
        self._check_group()
        stamp = self._schedule.tick(now)
        if stamp is not None:
            self._lag = now - stamp
            self._end_overdue(stamp)
            self._end(stamp, readings)
        self.turns += 1

    def _end(self, stamp: int, readings: Readings) -> None:
        try:
            self._send()
            unsent = _Unsent(closes=True, last=True)  # before the interval ends, for this needs memory
            unsent.flush = self.registry.tick(stamp, self.interval, readings)
        except OUT_OF_MEMORY:  # the interval goes on into the next
            self._schedule.skipped += 1
            raise
        self._unsent = unsent
        self._ticks += 1
        self._state_in_group(unsent)
        self._send()

    def _end_overdue(self, stamp: int) -> None:
        """If part of the open interval was sent for a slot that is over by now, end the interval with that timestamp.

        For example: ``flush()`` at 12:00:09 sends the slot that ends at 12:00:10, and the machine sleeps until 12:05.
        """
        sent_as = self.registry.sent_as
        if sent_as is not None and sent_as != stamp:
            self._end(sent_as, {})  # gauges were read when it was sent

    def _flush(self, readings: Readings | None = None, *, final: bool = False) -> None:
        if readings is None:
            readings = self._read_callbacks()
        with self._flushing:
            if self._is_abandoned():
                return
            self._check_group()
            now = self._now()
            if self._schedule.delay(now) == 0:
                self._tick(now, readings)
            stamp = self._schedule.use_open_stamp(now)
            self._end_overdue(stamp)
            self._send()
            unsent = _Unsent(closes=False, last=final)
            collector = None if self._membership is None else self._membership.folder
            unsent.flush = self.registry.flush(stamp, self.interval, readings, collector=collector)
            self._unsent = unsent
            self._state_in_group(unsent)
            self._send()
            if self._membership is not None and not final:
                self._safely("group", partial(self._membership.ship_now, self._now()))
            self._closed = final

    def _flush_last(self, readings: Readings | None = None) -> None:
        self._flush(readings, final=True)

    def _state_in_group(self, unsent: _Unsent) -> None:
        if self._membership is not None:
            close = partial(self._membership.close, unsent.flush, self._now(), closes=unsent.closes)
            self._safely("group", close)

    def _is_abandoned(self) -> bool:
        """Whether this is a thread that stop() could not wait for. It must not disturb what was started since."""
        return threading.current_thread() in self._abandoned

    def _send(self) -> None:
        """Put the last flush into the queue of every destination that does not have it yet.

        Destinations with ``revise=off`` get only the last flush of a slot. Raises MemoryError if memory ran out; then
        it is tried again before the next flush is made, which is why every flush begins with this.
        """
        unsent = self._unsent
        if unsent is None:
            return
        flush = unsent.flush
        shared = False if self._membership is not None else None  # what is shared is sent for the whole group
        self._dispatcher.encode(flush, self._safely, unsent.puts, whole=unsent.last, shared=shared)
        self._checkpoint.commit(
            flush, partial(self._dispatcher.commit, unsent.puts), self._errors, closes=unsent.closes
        )
        self._unsent = None
        if unsent.closes and self._membership is None:  # else that of the group comes
            self._remember(flush.cumulative)

    def _safely(self, cause: str, work: Callable[[], object]) -> bool:
        return self._errors.attempt(cause, work)

    # -- fork

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's thread and sockets, and wait for the child's first measurement."""
        self.copied_by_fork = self.copied_by_fork or self._thread is not None or self._in_caller
        self._dispatcher.reset_after_fork()
        self._callbacks.forget()
        self._thread, self._stop_deadline, self._in_caller = None, None, False
        self._unsent = self._membership = None
        self._errors = ErrorReporter("flusher")
        self._flushing = threading.Lock()
        self._wakeups = TimedQueue()
        if self.copied_by_fork:
            self.registry.on_first_use(self._first_use_in_child)

    def _first_use_in_child(self) -> None:
        if self.copied_by_fork:  # it was not started or stopped since
            self._safely("start in a forked child", self.start)

    def _begin_in_child(self) -> None:
        self.copied_by_fork = False
        self._schedule = Schedule(self.interval, self._now())
        self._checkpoint, self._state = Checkpoint(), None  # a child keeps no notes
        self._prepare()
