"""A process that measures and ships, for the tests of the pipeline: ``python -m tests.end_to_end.worker KIND URL …``.

``fleet URL NUMBER``  measures over three intervals what :func:`samples` says of its number
``storm URL``         counts and times in eight threads, switched as often as can be, and flushes all the time
"""

import random
import sys
import threading
from typing import NamedTuple

import metricslib as metrics
from tests.peers import eventually

TURNS = 3
THREADS = 8
CALLS = 100_000


class Samples(NamedTuple):
    """What one process measures in one turn; times in milliseconds."""

    hits: int
    few: list[float]
    """So few that they travel as they are."""
    many: list[float]
    """So many that they travel as a sketch."""
    users: set[str]


def samples(number: int, turn: int) -> Samples:
    """Return what process ``number`` measures in a turn."""
    dice = random.Random(number * 100 + turn)
    return Samples(
        dice.randrange(1000),
        [dice.randrange(1, 4000) / 8 for _ in range(50)],
        [dice.lognormvariate(3 + number / 4, 1) for _ in range(3000)],
        {f"user-{dice.randrange(500)}" for _ in range(100)},
    )


def fleet(to: str, number: int) -> None:
    flusher = metrics.start(to, interval=1)
    for turn in range(TURNS):
        measured = samples(number, turn)
        for _ in range(measured.hits):
            metrics.counter("hits").inc()
        metrics.counter("hits.tagged", tags={"process": number}).inc(measured.hits)
        for kind in ("few", "many"):
            for milliseconds in getattr(measured, kind):
                metrics.timer(kind).observe(milliseconds / 1000)
                metrics.histogram(kind).observe(milliseconds)
        metrics.gauge("level", tags={"process": number}).set(-number)
        for user in measured.users:
            metrics.unique("users").add(user)
        wait_for_tick(flusher)
    sys.exit(not metrics.stop(timeout=20))


def wait_for_tick(flusher: metrics.Flusher) -> None:
    before = flusher.status().ticks
    eventually(lambda: flusher.status().ticks > before)


def storm(to: str) -> None:
    sys.setswitchinterval(1e-6)
    metrics.start(to, interval=1)
    hits, observed, timed = metrics.counter("hits"), metrics.timer("observed"), metrics.timer("timed")

    def work(number: int) -> None:
        mine = hits.tagged(thread=number)
        for call in range(CALLS):
            hits.inc()
            mine.inc(2)
            observed.observe(call / 1e6)
            with timed.time():
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.flush()
    sys.exit(not metrics.stop(timeout=20))


if __name__ == "__main__":
    if sys.argv[1] == "fleet":
        fleet(sys.argv[2], int(sys.argv[3]))
    storm(sys.argv[2])
