"""Executors of threads and of processes."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from metricslib.integrations import executors

TAG = "executor=pool"


def divide(number):
    return 1 / number


def test_tasks_of_threads(registry, clock, tick, measured):
    """What runs and what waits is shown; times are those of each task."""
    began, go_on = threading.Event(), threading.Event()

    def wait():
        began.set()
        assert go_on.wait(60)
        return "done"

    with ThreadPoolExecutor(1) as pool:
        executors.instrument(pool, "pool", instruments=registry)
        executors.instrument(pool, "pool", instruments=registry)
        first = pool.submit(wait)
        assert began.wait(60)
        second, third = pool.submit(divide, 0), pool.submit(divide, 1)
        third.cancel()
        gauges = tick().cumulative.gauges  # ten seconds pass
        assert gauges == {f"executor.tasks;{TAG};state=running": 1, f"executor.tasks;{TAG};state=queued": 1}
        go_on.set()
        assert first.result(60) == "done"
        assert isinstance(second.exception(60), ZeroDivisionError)
    window = tick().cumulative
    duration, wait_time = (window.timers[f"executor.task.{name};{TAG}"] for name in ("duration", "wait"))
    assert (duration.count, duration.max, duration.min) == (2, 10_000, 0)
    assert (wait_time.count, wait_time.max) == (1, 10_000)  # the first one's was in the interval before
    assert window.counters[f"executor.task.exceptions;exception=ZeroDivisionError;{TAG}"] == 1
    assert set(window.gauges.values()) == {0}


def test_tasks_of_processes(registry, measured):
    """From submitting to the result; arguments and functions are sent as they are."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        executors.instrument(pool, "pool", instruments=registry)
        assert list(pool.map(divide, [1, 2])) == [1, 0.5]
        assert isinstance(pool.submit(divide, 0).exception(60), ZeroDivisionError)
    assert measured() == {
        f"executor.task.duration;{TAG}": 3,
        f"executor.task.exceptions;exception=ZeroDivisionError;{TAG}": 1,
        f"executor.tasks;{TAG};state=unfinished": 0,
    }


def test_a_pool_that_is_shut_down_has_no_task(registry, measured):
    """What it refuses is not in progress."""
    pool = ThreadPoolExecutor(1)
    executors.instrument(pool, "pool", instruments=registry)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(divide, 1)
    assert measured() == {f"executor.tasks;{TAG};state=queued": 0}
