"""What a statsd line costs in the forwarder's intake, against only finding the ends of the lines."""

import random
from collections.abc import Callable

from forwarder.intake import Intake
from metricslib import Registry

from .measure import Figure, compare

__all__ = ["mixed_batch", "run"]

LINES = 30  # a datagram
DATAGRAMS = 256  # a batch


def _batch(line: Callable[[random.Random], str], lines: int = LINES, datagrams: int = DATAGRAMS) -> list[bytes]:
    mind = random.Random(1)
    return ["\n".join(line(mind) for _ in range(lines)).encode() for _ in range(datagrams)]


def mixed_batch(lines: int = LINES, datagrams: int = DATAGRAMS) -> list[bytes]:
    """Return datagrams of so many lines: counters, timers and gauges 6:3:1, of 500 keys."""
    return _batch(_mixed, lines, datagrams)


def _mixed(mind: random.Random) -> str:
    key = f"shop.web{mind.randrange(500)}"
    return mind.choices([f"{key}:1|c", f"{key}:{mind.randrange(1000)}|ms", f"{key}:{mind.random():.3f}|g"], (6, 3, 1))[
        0
    ]


def _feed(batch: list[bytes]) -> Callable[[int], None]:
    intake = Intake(Registry(max_series=1_000_000))

    def work(count: int) -> None:
        for _ in range(count):
            intake.feed(batch)
        intake.collect()

    return work


def _split(batch: list[bytes]) -> Callable[[int], None]:
    def work(count: int) -> None:
        for _ in range(count):
            for datagram in batch:
                datagram.decode().split("\n")

    return work


def run() -> list[Figure]:
    """Return nanoseconds a line."""
    mixed = mixed_batch()
    counters = _batch(lambda mind: f"shop.web{mind.randrange(500)}:1|c")
    timers = _batch(lambda mind: f"shop.web{mind.randrange(500)}:{mind.random() * 100:.6f}|ms")
    works = {
        "finding the ends of lines": _split(mixed),
        "counters, 500 keys": _feed(counters),
        "counters, timers, gauges 6:3:1, 500 keys": _feed(mixed),
        "timers, all values different": _feed(timers),
    }
    return compare(works, 5, LINES * DATAGRAMS)
