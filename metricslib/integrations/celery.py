"""Measure the tasks of Celery's workers, whatever their pool::

    from metricslib.integrations import celery

    celery.instrument()

where the application is made, so that it runs in the workers and where tasks are sent from.

==============================  =======  =========================  ====================================================
series                          kind     tags                       what
==============================  =======  =========================  ====================================================
``messaging.process.duration``  timer    ``task``, ``state``        how long a task ran; ``state``: SUCCESS, FAILURE, …
``celery.task.wait``            timer    ``task``                   from sending, or from when it was due, to its start
``celery.tasks.active``         gauge                               tasks that run
``celery.task.retries``         counter  ``task``                   retries that tasks asked for
``celery.task.exceptions``      counter  ``task``, ``exception``    exceptions that ended tasks
==============================  =======  =========================  ====================================================

The wait compares the clocks of two hosts. It is missing for tasks from programs in which this was not called.
"""

import time
from datetime import datetime
from typing import Any

from celery import signals

from .._scope import Instruments
from ._base import InProgress, Tagged, instruments_of, monotonic_of

__all__ = ["instrument"]

SENT = "metricslib_sent"
"""The header of a task's message that has the time of sending, in seconds since the epoch."""
_RUN = "_metricslib_run"


def instrument(*, instruments: Instruments | None = None) -> None:
    """Measure all tasks from now on, of all applications in this process and its workers. A second call does nothing.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    if Tasks.connected is None:
        Tasks.connected = Tasks(instruments_of(instruments))


class Tasks:
    """The handlers of Celery's signals."""

    connected: "Tasks | None" = None

    def __init__(self, instruments: Instruments) -> None:
        self._ran = Tagged(instruments.timer, "messaging.process.duration", "task", "state")
        self._waited = Tagged(instruments.timer, "celery.task.wait", "task")
        self._retries = Tagged(instruments.counter, "celery.task.retries", "task")
        self._exceptions = Tagged(instruments.counter, "celery.task.exceptions", "task", "exception")
        self._active = InProgress(instruments.gauge("celery.tasks.active"))
        self._now = monotonic_of(instruments)
        for signal, handler in (
            (signals.before_task_publish, self.sent),
            (signals.task_prerun, self.begun),
            (signals.task_postrun, self.ended),
            (signals.task_retry, self.retried),
            (signals.task_failure, self.failed),
        ):
            signal.connect(handler, weak=False, dispatch_uid=f"{__name__}.{handler.__name__}")

    def sent(self, headers: Any = None, **_more: Any) -> None:
        if isinstance(headers, dict):
            headers.setdefault(SENT, time.time())

    def begun(self, task: Any = None, **_more: Any) -> None:
        request = task.request
        seconds = waited(request)
        if seconds is not None:
            self._waited(task.name).observe(seconds)
        setattr(request, _RUN, (self._now(), self._active.begin()))

    def ended(self, task: Any = None, state: Any = None, **_more: Any) -> None:
        run = getattr(task.request, _RUN, None)
        if run is not None:
            began, call = run
            self._active.end(call)
            self._ran(task.name, str(state or "none")).observe(max(0.0, self._now() - began))

    def retried(self, sender: Any = None, **_more: Any) -> None:
        self._retries(sender.name).inc()

    def failed(self, sender: Any = None, exception: Any = None, **_more: Any) -> None:
        self._exceptions(sender.name, type(exception).__qualname__).inc()


def waited(request: Any) -> float | None:
    """Return the seconds from when a task was sent, or was due if that was later, until now; None if unknown."""
    headers = request.headers or {}
    sent = headers.get(SENT, getattr(request, SENT, None))
    if not isinstance(sent, int | float):
        return None
    due = 0.0
    if isinstance(request.eta, str):
        try:
            due = datetime.fromisoformat(request.eta).timestamp()
        except ValueError:
            due = 0.0
    return max(0.0, time.time() - max(sent, due))
