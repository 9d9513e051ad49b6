"""What a line costs that is fed to the forwarder's aggregator from memory, and what two threads do together.

A batch is 256 datagrams of 30 lines, the most that a listener hands over. No sender takes a core.
"""

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import count as count_up

from .child import both_implementations
from .measure import Samples, Scale, in_turn, seconds
from .rows import Row, at_least, at_most

__all__ = ["ROWS", "TITLE", "batch", "measure", "mixed", "run"]

TITLE = "A line fed to the aggregator from memory"
LINES = 30  # a datagram
DATAGRAMS = 256  # a batch
_BATCHES = 400  # a round, at the normal scale

SPLIT = "finding the ends of lines, in Python"
ONE, TWO = "mixed, one thread", "mixed, two threads"
TIMERS = "timers, all values different"
UNUSUAL, VALUES = "unusual: hex, exponents, white space, origins", "a value, 100 a line"
NEW = "new keys, first tick included"
WORKLOADS = (SPLIT, "counters, 500 keys", ONE, TIMERS, UNUSUAL, VALUES, TWO, NEW)
_VALUES = 100


def _row(implementation: str, name: str) -> Row:
    if name == TIMERS:
        return Row(
            f"{implementation}: {name}",
            "ns",
            f"{implementation}: {ONE}",
            at_most(1.2) if implementation == "C" else None,
        )
    if name in (UNUSUAL, VALUES):
        return Row(
            f"{implementation}: {name}",
            "ns",
            f"{implementation}: {ONE}",
            at_most(3 if name == UNUSUAL else 1) if implementation == "C" else None,
        )
    if name == NEW:
        return Row(f"{implementation}: {name}", "µs", goal=at_most(4) if implementation == "C" else None)
    if name == TWO:
        return Row(
            f"{implementation}: {name}",
            "ns",
            f"{implementation}: {ONE}",
            at_least(1.7) if implementation == "C" else None,
        )
    return Row(f"{implementation}: {name}", "ns", f"{implementation}: {SPLIT}" if name != SPLIT else "")


ROWS = tuple(_row(implementation, name) for implementation in ("C", "Python") for name in WORKLOADS)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds a line."""
    return both_implementations("aggregator", scale, "forwarder")


def batch(line: Callable[[random.Random], str]) -> list[bytes]:
    """Return a batch of datagrams of such lines."""
    mind = random.Random(1)
    return ["\n".join(line(mind) for _ in range(LINES)).encode() for _ in range(DATAGRAMS)]


def mixed(mind: random.Random) -> str:
    """Return a counter's, a timer's or a gauge's line, 6:3:1, of one of 500 keys."""
    key = mind.randrange(500)
    value, kind = ((1, "c"), (mind.randrange(1000), "ms"), (mind.randrange(1000), "g"))[(key % 10 > 5) + (key % 10 > 8)]
    return f"shop.web.{key}:{value}|{kind}"


def unusual(mind: random.Random) -> str:
    """Return a line that is not written in the plainest way, of one of 500 keys."""
    number = mind.randrange(1, 1000)
    forms = (f"{number:#x}|c", f"{number}e-1|ms", f" {number} |ms", f"+{number}|c|@1e-1", f"{number} |c|c:ci-{number}")
    key = mind.randrange(500)
    return f"shop.web.{key}:{forms[key % len(forms)]}"


def many_values(mind: random.Random) -> str:
    """Return a line of a timer with 100 values."""
    return f"shop.web.{mind.randrange(500)}:{':'.join(str(mind.randrange(1000)) for _ in range(_VALUES))}|ms"


def measure(scale: Scale) -> Samples:
    """Return seconds a line, with the implementation of this process."""
    from metricslib import _accelerate as _accelerate

    fast = _accelerate.load("forwarder._aggregator") is not None
    count = max(1, (_BATCHES if fast else _BATCHES // 20) * scale.calls // 40_000)
    lines = batch(mixed)
    counters = batch(lambda mind: f"shop.web.{mind.randrange(500)}:1|c")
    timers = batch(lambda mind: f"shop.web.{mind.randrange(500)}:{mind.random() * 100:.6f}|ms")
    numbers = count_up()
    new = [datagram for _ in range(min(count, 5)) for datagram in batch(lambda mind: f"shop.web.{next(numbers)}:1|c")]
    works: tuple[Callable[[int], int], ...] = (
        partial(_split, lines),
        _feed(counters),
        _feed(lines),
        _feed(timers),
        _feed(batch(unusual)),
        _feed(batch(many_values)[: DATAGRAMS // _VALUES], _VALUES),
        _in_two_threads(lines),
    )
    lines_of = dict(zip((name for name in WORKLOADS if name != NEW), works, strict=True))
    timed = {name: partial(_a_line, work, count) for name, work in lines_of.items()}
    return in_turn({**timed, NEW: partial(_new_keys, new)}, scale.rounds)


def _a_line(work: Callable[[int], int], count: int) -> float:
    lines = 0

    def timed() -> None:
        nonlocal lines
        lines = work(count)

    return seconds(timed) / lines


def _split(datagrams: list[bytes], count: int) -> int:
    for _ in range(count):
        for datagram in datagrams:
            datagram.decode().split("\n")
    return count * LINES * DATAGRAMS


def _feed(datagrams: list[bytes], values: int = 1) -> Callable[[int], int]:
    from forwarder.aggregator import Aggregator
    from metricslib import Registry

    aggregator = Aggregator(Registry(max_series=1_000_000))

    def work(count: int) -> int:
        for _ in range(count):
            aggregator.feed(datagrams)
        aggregator.collect()
        return count * LINES * len(datagrams) * values

    return work


def _new_keys(datagrams: list[bytes]) -> float:
    """Feed lines of keys that were never seen, end the interval, name all paths; return seconds of CPU for each key."""
    from forwarder.aggregator import Aggregator
    from metricslib import Registry
    from metricslib.naming import Naming

    registry = Registry(max_series=1_000_000)
    aggregator = Aggregator(registry)
    registry.add_source(aggregator)
    begin = time.thread_time()
    aggregator.feed(datagrams)
    Naming().pairs(registry.tick(10, 10).cumulative)
    return (time.thread_time() - begin) / (LINES * len(datagrams))


def _in_two_threads(datagrams: list[bytes]) -> Callable[[int], int]:
    feeds = [_feed(datagrams), _feed(datagrams)]

    def work(count: int) -> int:
        threads = [threading.Thread(target=feed, args=(count,)) for feed in feeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(feeds) * count * LINES * DATAGRAMS

    return work
