"""What a series takes in memory, all in: what a new process has more of with 100,000 of them than without.

Every instrument was used, an interval has ended, and every one was used again. Windows of intervals that have ended are
not in it, for there is a bound of their own to how many are kept. Nor is what was in use only while the interval ended:
the C library may keep such memory for later or give it back, and how much it keeps changes from run to run, so it is
asked to give it all back.
"""

import ctypes
import gc
import os
from collections.abc import Callable
from itertools import product
from typing import Any

from .child import IMPLEMENTATIONS, measured, missing
from .measure import Samples, Scale
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "measure", "run"]

TITLE = "Memory of a series"
_ROUNDS = 3
_FEW = 5  # samples of a timer

COUNTER, TAGGED, TIMER = "a counter", "a tagged counter", f"a timer with {_FEW} samples"
TAKEN, TAKEN_TIMER = "a counter through the aggregator", f"a timer with {_FEW} samples through the aggregator"
_GOALS = {COUNTER: 400, TAGGED: 400, TIMER: 800, TAKEN: 400, TAKEN_TIMER: 800}
ROWS = tuple(
    Row(f"{implementation}: {what}", "bytes", goal=at_most(limit) if implementation == "C" else None)
    for implementation, (what, limit) in product(IMPLEMENTATIONS, _GOALS.items())
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return bytes a series: each in a process of its own, for what is freed is not given back."""
    samples: Samples = {}
    notes: dict[str, None] = {}
    for implementation, what in product(IMPLEMENTATIONS, _GOALS):
        if why := missing(implementation, "forwarder" if what in (TAKEN, TAKEN_TIMER) else "metricslib"):
            notes[why] = None
            continue
        for _ in range(min(scale.rounds, _ROUNDS)):
            for name, costs in measured("memory", scale, implementation, what).items():
                samples.setdefault(name, []).extend(costs)
    return samples, "; ".join(notes)


def measure(scale: Scale, what: str) -> Samples:
    """Return bytes a series of one kind, with the implementation of this process."""
    from metricslib import Registry

    registry = Registry(max_series=1_000_000, max_tag_sets=1_000_000)
    use = (_taken if what in (TAKEN, TAKEN_TIMER) else _used)(registry, what, scale.series)
    _give_back()
    before = _resident()
    use()
    registry.tick(10, 10.0)
    registry._last = None  # the newest window of the history
    use()
    _give_back()
    taken = _resident() - before
    assert len(registry) >= scale.series
    return {what: [taken / scale.series]}


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc alone
        trim(0)


def _used(registry: Any, what: str, count: int) -> Callable[[], None]:
    def counter(number: int) -> None:
        registry.counter(f"shop.web.page{number}.hits").inc()

    def tagged(number: int) -> None:
        hits.tagged(page=number).inc()

    def timer(number: int) -> None:
        used = registry.timer(f"shop.web.page{number}.time")
        for sample in range(_FEW):
            used.observe(sample + number / 64)

    hits = registry.counter("shop.web.hits")
    use = {COUNTER: counter, TAGGED: tagged, TIMER: timer}[what]

    def all_of_them() -> None:
        for number in range(count):
            use(number)

    return all_of_them


def _taken(registry: Any, what: str, count: int) -> Callable[[], None]:
    from forwarder.aggregator import Aggregator

    aggregator = Aggregator(registry)
    registry.add_source(aggregator)
    aggregator.feed([b"warm:1|c\nwarm:1|ms"])

    def all_of_them() -> None:
        for number in range(count):
            if what == TAKEN:
                aggregator.feed([f"shop.web.page{number}.hits:1|c".encode()])
            else:
                lines = (f"shop.web.page{number}.time:{sample + number / 64}|ms" for sample in range(_FEW))
                aggregator.feed(["\n".join(lines).encode()])

    return all_of_them
