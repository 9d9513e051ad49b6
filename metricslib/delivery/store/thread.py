"""The only thread that uses SQLite. Other threads pass it work and wait for the result.

If a process forks while a thread is inside SQLite, the child may find locks of the library that are held for ever. So a
fork waits until the thread is outside, for at most a second. If it could not wait, the child does not use SQLite. Only
the thread's own frame refers to the open file, so a child can neither use it nor close it by garbage collection.

::

    caller                     thread                      fork
    do(work) ──▶ inbox ──▶ with outside: work(disk)        before: outside.acquire()
        ◀────── answer                                     parent: outside.release()
                           every `every` seconds: idle     child:  everything new, no thread
"""

import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..._process import register_fork_handler
from ...clock import SYSTEM_CLOCK, Clock
from ...timed_queue import Empty, TimedQueue
from ..batch import Deadline

__all__ = ["Gone", "StoreThread"]

Result = TypeVar("Result")
Work = Callable[[Any], object]

_PATIENCE = 1.0
"""Seconds for which a fork waits."""


class Gone(Exception):
    """The thread does not exist, or does not answer."""


class StoreThread:
    """Runs functions one by one in a thread, with the object that ``make`` returns, which no other thread may use.

    ``idle`` is called with this object every ``every`` seconds, even if the thread is busy. It must not raise.
    """

    def __init__(self, make: Callable[[], Any], idle: Work, every: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._make = make
        self._idle = idle
        self._every = every
        self._clock = clock
        self.tainted = False
        """True in the child of a fork that could not wait, because SQLite may hang there."""
        self._renew()
        _threads.add(self)
        register_fork_handler(self)

    def _renew(self) -> None:
        self._inbox: TimedQueue[tuple[Work, TimedQueue[tuple[object, BaseException | None]]] | None] = TimedQueue()
        self._thread: threading.Thread | None = None
        self._outside = threading.Lock()
        self._paused_by: int | None = None

    def start(self) -> None:
        """Start the thread, unless it is running. Raises :class:`Gone` if there can be none, or SQLite is unusable."""
        if self.tainted:
            raise Gone("forked while the spool was being written")
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, args=(self._inbox,), name="metricslib-spool", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is shutting down
                raise Gone(str(error)) from None
            self._thread = thread

    def do(self, work: Callable[[Any], Result], patience: float = math.inf) -> Result:
        """Run ``work`` in the thread, and return its result or raise its exception.

        Raises :class:`Gone` if there is no thread, or after ``patience`` seconds; then ``work`` may still run later.
        """
        thread = self._thread
        if thread is None:
            raise Gone("not open")
        if self._paused_by == threading.get_ident():  # a signal handler that runs while this thread forks
            raise Gone("forking")
        deadline = Deadline(patience)
        answer: TimedQueue[tuple[Any, BaseException | None]] = TimedQueue()
        self._inbox.put((work, answer))
        while True:
            try:
                result, error = answer.get(timeout=min(1.0, deadline.left()))
            except Empty:
                if thread.is_alive() and deadline.left():
                    continue
                raise Gone("no answer") from None
            if error:
                raise error
            done: Result = result
            return done

    def stop(self, timeout: float) -> None:
        """Stop the thread after its pending work, and wait at most ``timeout`` seconds for its end."""
        thread, self._thread = self._thread, None
        if thread:
            self._inbox.put(None)
            self._inbox = TimedQueue()
            thread.join(timeout)

    def _run(self, inbox: "TimedQueue[Any]") -> None:
        disk = self._make()
        looked = self._clock.monotonic()
        while True:
            idle = False
            try:
                asked = inbox.get(timeout=max(0.0, looked + self._every - self._clock.monotonic()))
            except Empty:
                idle = True
            else:
                if asked is None:
                    return
                work, answer = asked
                with self._outside:
                    outcome = _outcome(work, disk)
                answer.put(outcome)
                del asked, work, answer, outcome
            if idle or self._clock.monotonic() - looked >= self._every:  # even if the inbox is never empty
                with self._outside:
                    self._idle(disk)
                looked = self._clock.monotonic()

    # -- forks

    def pause(self) -> None:
        """Before a fork: wait until the thread is outside SQLite, and keep it there."""
        if self._outside.acquire(timeout=_PATIENCE):
            self._paused_by = threading.get_ident()

    def resume(self) -> None:
        """After a fork, in the parent: let the thread continue."""
        if self._paused_by is not None:
            self._paused_by = None
            self._outside.release()

    def reset_after_fork(self) -> None:
        """After a fork, in the child: discard the thread and its open file, which belong to the parent."""
        self.tainted = self.tainted or self._paused_by is None
        self._renew()


def _outcome(work: Work, disk: Any) -> tuple[object, BaseException | None]:
    try:
        return work(disk), None
    except Exception as error:
        return None, error.with_traceback(None)  # a traceback refers to the open file


_threads: weakref.WeakSet[StoreThread] = weakref.WeakSet()


def _all(call: Callable[[StoreThread], None]) -> None:
    for thread in list(_threads):
        call(thread)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _all(StoreThread.pause), after_in_parent=lambda: _all(StoreThread.resume))
