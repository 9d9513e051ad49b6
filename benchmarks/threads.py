"""What a call costs when four threads do nothing else: CPU time of the threads, for with the GIL they take turns."""

import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

from .calls import ours
from .child import both_implementations
from .measure import Samples, Scale, in_turn
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "measure", "run"]

TITLE = "A call in one of four threads (CPU time)"
THREADS = 4
_MORE = 10  # times as many calls as elsewhere, so that each thread gets its turn more than once

_CALLS = ("an empty method call", "Counter.inc()", "Gauge.set(x)", "Timer.observe(x)")


def _in_threads(name: str) -> str:
    return f"{name}, {THREADS} threads"


ROWS = tuple(
    Row(f"{implementation}: {_in_threads(name)}", "ns", f"{implementation}: {name}", at_most(1.05) if place else None)
    for implementation in ("C", "Python")
    for place, name in enumerate(_CALLS)
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds of CPU a call."""
    return both_implementations("threads", scale, "metricslib")


def measure(scale: Scale) -> Samples:
    """Return seconds of CPU a call, with the implementation of this process."""
    given = ours()
    calls: tuple[Callable[..., object], ...] = (
        given["nothing"].call,
        given["counter"].inc,
        partial(given["gauge"].set, 0.25),
        partial(given["timer"].observe, 0.25),
    )
    works: dict[str, Callable[[], float]] = {}
    for name, call in zip(_CALLS, calls, strict=True):
        for label, threads in ((name, 1), (_in_threads(name), THREADS)):
            works[label] = partial(_cpu, call, threads, scale.calls * _MORE)
    return in_turn(works, scale.rounds)


def _cpu(call: Callable[[], Any], threads: int, count: int) -> float:
    taken: list[float] = []

    def work() -> None:
        begin = time.thread_time()
        for _ in repeat(None, count):
            call()
        taken.append(time.thread_time() - begin)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(taken) / (count * threads)
