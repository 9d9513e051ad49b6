"""What the end of an interval costs: collecting what the aggregator has, the window, the names, the lines for Graphite.

100,000 counters and 10,000 timers of five samples each; CPU time, for one series. Meanwhile another thread feeds the
aggregator a datagram at a time, and notes the longest time between two that were taken.
"""

import threading
import time
from collections.abc import Callable, Iterator

from .aggregator import LINES
from .child import both_implementations
from .measure import Samples, Scale, in_turn
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "Interval", "measure", "run"]

TITLE = "The end of an interval"
_ROUNDS = 5
_TIMERS = 10  # one in so many is a timer
_SAMPLES = 5

TICK, NAMING = "collecting and the window, a series", "naming and encoding, a series"
WHOLE, STALL = "all of it, a series", "longest stall of the aggregator"
ROWS = tuple(
    row
    for implementation in ("C", "Python")
    for row in (
        Row(f"{implementation}: {TICK}", "µs"),
        Row(f"{implementation}: {NAMING}", "µs"),
        Row(f"{implementation}: {WHOLE}", "µs", goal=at_most(3) if implementation == "C" else None),
        Row(f"{implementation}: {STALL}", "ms", goal=at_most(50) if implementation == "C" else None),
    )
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds a series, and seconds."""
    return both_implementations("ticks", scale, "forwarder")


class Interval:
    """A forwarder's registry, aggregator and destination without the sockets, and an interval's lines."""

    def __init__(self, counters: int) -> None:
        from forwarder.aggregator import Aggregator
        from metricslib.delivery import open_destination
        from metricslib.naming import Naming
        from metricslib.registry import Registry

        self.registry = Registry(max_series=1_000_000, max_tag_sets=10_000)
        self.aggregator = Aggregator(self.registry)
        self.registry.add_source(self.aggregator)
        self.destination = open_destination("graphite://127.0.0.1:9", Naming())
        self.series = counters + counters // _TIMERS
        self._batches = list(_batches(counters))
        self._stamp = int(time.time())

    def fill(self) -> None:
        """Let something happen to each series."""
        for batch in self._batches:
            self.aggregator.feed(batch)

    def end(self) -> tuple[float, float]:
        """End the interval; return the seconds of CPU for the window, and for its lines."""
        self._stamp += 10
        begin = time.thread_time()
        cut = self.registry.tick(self._stamp, 10.0)
        ticked = time.thread_time()
        batches = self.destination.encode(cut)
        assert batches
        return ticked - begin, time.thread_time() - ticked


def _batches(counters: int) -> Iterator[list[bytes]]:
    lines = [f"shop.web.page{number}.hits:{number * 7919 % 5000 + 1}|c" for number in range(counters)]
    for sample in range(_SAMPLES):
        lines += [f"shop.db.query{number}:{number * 31 % 997 / 8 + sample}|ms" for number in range(counters // _TIMERS)]
    datagrams = ["\n".join(lines[at : at + LINES]).encode() for at in range(0, len(lines), LINES)]
    for at in range(0, len(datagrams), 256):
        yield datagrams[at : at + 256]


def measure(scale: Scale) -> Samples:
    """Return seconds a series, and seconds, with the implementation of this process."""
    interval = Interval(scale.series)
    parts: dict[str, float] = {}

    def tick() -> float:
        interval.fill()
        ticked, encoded = interval.end()
        parts.update({NAMING: encoded / interval.series, WHOLE: (ticked + encoded) / interval.series})
        return ticked / interval.series

    def stall() -> float:
        interval.fill()
        with Feeder(interval.aggregator.feed) as feeder:
            interval.end()
        return feeder.longest

    works: dict[str, Callable[[], float]] = {TICK: tick}
    works |= {name: lambda name=name: parts[name] for name in (NAMING, WHOLE)}  # type: ignore[misc]
    return in_turn({**works, STALL: stall}, min(scale.rounds, _ROUNDS))


class Feeder:
    """A thread that feeds a datagram at a time while the block under it runs, and how long it was held up at most."""

    def __init__(self, feed: Callable[[list[bytes]], object]) -> None:
        self._feed = feed
        self._done = False
        self._thread = threading.Thread(target=self._work)
        self.longest = 0.0

    def __enter__(self) -> "Feeder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()

    def _work(self) -> None:
        datagrams = [b"shop.web.page1.hits:1|c\nshop.db.query1:3|ms"]
        before = time.perf_counter()
        while not self._done:
            self._feed(datagrams)
            now = time.perf_counter()
            self.longest = max(self.longest, now - before)
            before = now
