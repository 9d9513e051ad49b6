"""Measure an executor of :mod:`concurrent.futures`::

    from metricslib.integrations import executors

    executors.instrument(pool, "thumbnails")

All series are tagged ``executor=thumbnails``: the timer ``executor.task.duration`` is how long a task ran, the timer
``executor.task.wait`` how long it waited for a thread, and the counter ``executor.task.exceptions`` counts tasks that
raised, tagged ``exception``. The gauge ``executor.tasks``, tagged ``state``, is the number of tasks that wait
(``queued``) and run (``running``).

The tasks of a ``ProcessPoolExecutor`` run in other processes. Of them, ``executor.task.duration`` is the time from
submitting to the result, and ``executor.tasks`` the number without a result (``state=unfinished``).
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from .._scope import Instruments
from ._base import InProgress, Tagged, instruments_of, monotonic_of, replace

__all__ = ["instrument"]


def instrument(executor: Executor, name: str, *, instruments: Instruments | None = None) -> None:
    """Measure the tasks of ``executor`` from now on. A second call for one executor does nothing.

    Args:
        executor: A ``ThreadPoolExecutor``, a ``ProcessPoolExecutor``, or an executor that works as one of them does.
        name: The value of the tag ``executor``.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    registry = instruments_of(instruments)
    tags = {"executor": name}
    duration = registry.timer("executor.task.duration", tags=tags)
    exceptions = Tagged(registry.counter, "executor.task.exceptions", "exception", "executor")
    now = monotonic_of(registry)

    def in_state(state: str) -> InProgress:
        return InProgress(registry.gauge("executor.tasks", tags={**tags, "state": state}))

    def threads(submit: Callable[..., Any]) -> Callable[..., Any]:
        queued, running = in_state("queued"), in_state("running")
        wait = registry.timer("executor.task.wait", tags=tags)

        def wrapper(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            submitted, place = now(), queued.begin()

            def task() -> Any:
                queued.end(place)
                began, call = now(), running.begin()
                wait.observe(max(0.0, began - submitted))
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    exceptions(type(error).__qualname__, name).inc()
                    raise
                finally:
                    running.end(call)
                    duration.observe(max(0.0, now() - began))

            try:
                future = submit(task)
            except BaseException:
                queued.end(place)
                raise
            future.add_done_callback(lambda _: queued.end(place))  # cancelled while it waited
            return future

        return wrapper

    def processes(submit: Callable[..., Any]) -> Callable[..., Any]:
        unfinished = in_state("unfinished")

        def wrapper(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            submitted, place = now(), unfinished.begin()

            def done(future: Future[Any]) -> None:
                unfinished.end(place)
                if future.cancelled():
                    return
                duration.observe(max(0.0, now() - submitted))
                error = future.exception()
                if error is not None:
                    exceptions(type(error).__qualname__, name).inc()

            try:
                future = submit(function, *args, **kwargs)
            except BaseException:
                unfinished.end(place)
                raise
            future.add_done_callback(done)
            return future

        return wrapper

    replace(executor, "submit", threads if isinstance(executor, ThreadPoolExecutor) else processes)
