"""Calls the callbacks of gauges within a time limit, so that one that hangs cannot stop the delivery.

One thread, kept from tick to tick, calls them in turn. When a call takes a fifth of the time, another thread takes
over the rest, and the first ends when its call returns. At the end of the time, callbacks that have not returned are
left out. A callback is not called again before its last call has returned. So it occupies at most one thread, and if it
hangs for ever, it delays a single tick. While :data:`MOST` callbacks hang, none is called.

The log names a callback that was left out once. The result of a late callback is discarded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from ._process import log
from .instruments.gauge import Gauge, Read, change_by_callback
from .timed_queue import Empty, TimedQueue
from .window import GaugeChange

__all__ = ["MOST", "CallbackReader", "TimeLeft"]

MOST = 32
"""Maximum number of threads that hang in callbacks at the same time."""
_SLICE = 0.05  # seconds until a changed deadline is noticed


class TimeLeft(Protocol):
    """What a :class:`~.delivery.batch.Deadline` offers here."""

    def left(self) -> float:
        """Seconds left, or 0."""
        ...


class _Call(NamedTuple):
    gauge: Gauge
    read: Read


class _Job:
    """The callbacks of one tick: the pending ones, and the results of the others."""

    def __init__(self, calls: Iterable[_Call]) -> None:
        self.waiting = deque(calls)
        self.changes: dict[Gauge, GaugeChange] = {}
        self.returned: TimedQueue[None] = TimedQueue()


_Jobs = TimedQueue[_Job | None]


class CallbackReader:
    """Runs callbacks in its own threads. Only one thread at a time may call :meth:`read`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In a forked child: forget the threads, which only the parent has."""
        self._jobs: _Jobs | None = None  # the queue of the thread that runs the next job
        self._pending: dict[Gauge, _Call] = {}  # callbacks that have not returned
        self._logged: set[str] = set()  # keys of gauges
        self._here: tuple[_Job, float] | None = None  # the job that runs in the calling thread, and its start

    def read(self, gauges: Sequence[Gauge], deadline: TimeLeft) -> Mapping[Gauge, GaugeChange]:
        """Return the results of the callbacks of ``gauges``, without those that do not return before ``deadline``.

        If no thread can be started, they are called in this one, without a time limit.
        """
        began = time.monotonic()
        job = _Job([_Call(gauge, gauge._read) for gauge in gauges if gauge._read and not self._hangs(gauge)])
        if len(self._pending) >= MOST:
            self._log("", "%d callbacks of gauges hang; no other is called until one of them returns", MOST)
            return {}
        missing, waited = len(job.waiting), 0.0
        self._pending.update((call.gauge, call) for call in job.waiting)
        if missing:
            self._hand_over(job)
        while missing and (left := deadline.left()):
            try:
                job.returned.get(timeout=min(left, _SLICE))
                missing, waited = missing - 1, 0.0
            except Empty:
                waited += _SLICE
                if waited * 4 > left and job.waiting and len(self._pending) - len(job.waiting) < MOST:
                    self.stop()
                    self._hand_over(job)
                    waited = 0.0
        if missing:
            self.stop()  # the thread hangs; the next tick starts another one
        return self._outcome(job, gauges, began)

    @property
    def unbounded(self) -> bool:
        """True while callbacks run in the calling thread, without a time limit."""
        return self._here is not None

    def interrupt(self, gauges: Sequence[Gauge]) -> Mapping[Gauge, GaugeChange]:
        """While :attr:`unbounded`: return the results so far to another thread, and stop calling callbacks."""
        if self._here is None:
            return {}
        (job, began), self._here = self._here, None
        return self._outcome(job, gauges, began)

    def _outcome(self, job: _Job, gauges: Sequence[Gauge], began: float) -> Mapping[Gauge, GaugeChange]:
        """Return the results in time, and log callbacks that hang. Those not called yet are called at the next tick."""
        changes = job.changes.copy()
        with suppress(IndexError):
            while True:
                self._returned(job.waiting.pop())
        text = "gauge %s: its callback has not returned within %.1f s; the gauge is left out until it does"
        for gauge in gauges:
            if gauge not in changes and self._hangs(gauge):
                self._log(gauge.key, text, gauge.key, time.monotonic() - began)
        return changes

    def stop(self) -> None:
        """End the thread. If a callback is running, the thread ends when it returns."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _hangs(self, gauge: Gauge) -> bool:
        pending = self._pending.get(gauge)
        return pending is not None and pending.read is gauge._read  # another callback may have been registered since

    def _hand_over(self, job: _Job) -> None:
        if self._jobs is None:
            jobs: _Jobs = TimedQueue()
            thread = threading.Thread(target=self._run, args=(jobs,), name="metricslib-callbacks", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is ending
                self._here = here = job, time.monotonic()
                try:
                    self._call(job, lambda: self._here is here)
                finally:
                    if self._here is here:
                        self._here = None
                return
            self._jobs = jobs
        self._jobs.put(job)

    def _run(self, jobs: _Jobs) -> None:
        while (job := jobs.get()) is not None:
            self._call(job, lambda: self._jobs is jobs)

    def _call(self, job: _Job, may_go_on: Callable[[], bool]) -> None:
        while may_go_on():
            try:
                call = job.waiting.popleft()
            except IndexError:
                return
            try:
                job.changes[call.gauge] = change_by_callback(call.read)
            finally:
                self._returned(call)
                job.returned.put(None)

    def _returned(self, call: _Call) -> None:
        if self._pending.get(call.gauge) is call:
            del self._pending[call.gauge]

    def _log(self, about: str, text: str, *arguments: object) -> None:
        if about not in self._logged:
            self._logged.add(about)
            log().warning(text, *arguments)
