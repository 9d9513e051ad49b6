"""Timing for noisy machines: everything in turn, for several rounds, so that what disturbs one disturbs all alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["FULL", "NORMAL", "QUICK", "SCALES", "Samples", "Scale", "in_turn"]

Samples = dict[str, list[float]]
"""What a thing cost, round by round: seconds, bytes or a number, for one call, line or series."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to do."""

    name: str
    rounds: int
    calls: int
    """In a round of one kind of call."""
    burst: float
    """Seconds that one receiver is sent to in a round."""
    offered: float
    """Seconds that a daemon is offered a steady load."""
    series: int


QUICK = Scale("quick", rounds=2, calls=800, burst=0.02, offered=1.0, series=2_000)
NORMAL = Scale("normal", rounds=15, calls=40_000, burst=0.4, offered=20.0, series=100_000)
FULL = Scale("full", rounds=31, calls=40_000, burst=1.0, offered=60.0, series=100_000)
SCALES = {scale.name: scale for scale in (QUICK, NORMAL, FULL)}


def in_turn(works: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Do each work in turn, ``rounds`` times after one that does not count; each returns what it cost."""
    samples: Samples = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            cost = work()
            if number:
                samples[name].append(cost)
    return samples


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
