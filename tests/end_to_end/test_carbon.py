"""What was measured is what a real carbon-cache has in its files: every kind, every statistic, plain and tagged."""

import math
import random
import signal
import statistics
import time
from collections.abc import Iterator
from functools import partial

import pytest

from metricslib import Flusher, Registry
from metricslib.delivery import Deadline, Sender, open_destination
from metricslib.naming import Naming
from tests.peers import eventually

from .conftest import Carbon, recent_clock

INTERVALS = 6
TAGS = {"route": "/u", "status": 200}
TAGGED = ";route=-u;status=200"


def expected_timer(samples: list[float]) -> dict[str, float]:
    """statsd's statistics of samples in milliseconds, worked out here once more from their definitions."""
    ordered = sorted(samples)
    share = ordered[: math.floor(0.9 * len(ordered) + 0.5)] if len(ordered) > 1 else ordered
    return {
        "count_90": len(share),
        "mean_90": sum(share) / len(share),
        "upper_90": share[-1],
        "sum_90": sum(share),
        "sum_squares_90": sum(value * value for value in share),
        "std": statistics.pstdev(ordered),
        "upper": ordered[-1],
        "lower": ordered[0],
        "count": len(ordered),
        "count_ps": len(ordered) / 10,
        "sum": sum(ordered),
        "sum_squares": sum(value * value for value in ordered),
        "mean": statistics.fmean(ordered),
        "median": statistics.median(ordered),
    }


class Program:
    """A program that measures something different in every interval, and remembers what Graphite must hold of it."""

    def __init__(self, destination: str) -> None:
        self.clock = recent_clock()
        self.registry = Registry(clock=self.clock)
        self.flusher = Flusher(self.registry, destination, interval=10, prefix="shop.web1", own="")
        self.random = random.Random(7)
        self.stamps: list[int] = []
        self.expected: dict[str, list[float | None]] = {}

    def interval(self) -> None:
        """Measure for one interval, and let it end."""
        for tags, suffix in (({}, ""), (TAGS, TAGGED)):
            count = self.random.randint(0, 50)
            counter = self.registry.counter("hits", tags=tags)
            for _ in range(count):
                counter.inc()
            self._expect(f"stats.counters.shop.web1.hits.count{suffix}", count)
            self._expect(f"stats.counters.shop.web1.hits.rate{suffix}", count / 10)

            samples = [self.random.randint(1, 4000) / 8 for _ in range(self.random.randint(1, 200))]
            for kind, factor in (("timer", 1000), ("histogram", 1)):
                instrument = getattr(self.registry, kind)("query", tags=tags)
                for sample in samples:
                    instrument.observe(sample / factor)
                for statistic, value in expected_timer(samples).items():
                    self._expect(f"stats.{kind}s.shop.web1.query.{statistic}{suffix}", value)

            level = self.random.uniform(-5, 5)
            self.registry.gauge("depth", tags=tags).set(level)
            self._expect(f"stats.gauges.shop.web1.depth{suffix}", level)

            members = {self.random.randint(0, 30) for _ in range(40)}
            for member in members:
                self.registry.unique("users", tags=tags).add(member)
            self._expect(f"stats.sets.shop.web1.users.count{suffix}", len(members))
        self.clock.advance(10)
        self.stamps.append(int(self.clock.time() // 10 * 10))
        self.flusher.tick()

    def _expect(self, path: str, value: float) -> None:
        self.expected.setdefault(path, []).append(value)

    def check(self, carbon: Carbon) -> None:
        """Compare every path's file with what was measured: no gap, no double, no difference beyond rounding."""
        assert len(self.expected) == 2 * (2 + 14 + 14 + 1 + 1)
        last = list(self.expected)[-1]
        eventually(lambda: carbon.read(last, self.stamps)[-1] is not None)
        for path, values in self.expected.items():
            close = pytest.approx(values, rel=1e-12, abs=1e-9)
            eventually(partial(self._holds, carbon, path, close), or_else=path)

    def _holds(self, carbon: Carbon, path: str, values: object) -> bool:
        return carbon.read(path, self.stamps) == values

    def undelivered(self) -> int:
        return sum(status.waiting_points for status in self.flusher.status().destinations)


@pytest.fixture
def program(carbon: Carbon) -> Iterator[Program]:
    program = Program(carbon.url)
    program.flusher.start()
    yield program
    program.flusher.stop(timeout=0)


def test_everything_measured_is_in_the_files(carbon: Carbon, program: Program):
    """Counters, timers, histograms, gauges and sets, plain and tagged, over several intervals, read back from disk."""
    for _ in range(INTERVALS):
        program.interval()
    assert program.flusher.flush(timeout=30)
    program.check(carbon)


def test_an_outage_leaves_no_gap_and_no_double(carbon: Carbon, program: Program):
    """Carbon is killed with points in its memory, and is away for some intervals: all are in the files, once each."""
    program.interval()
    assert program.flusher.flush(timeout=30)
    program.check(carbon)  # so that it is not killed while it makes a file, which it would leave broken
    program.interval()
    assert program.flusher.flush(timeout=30)
    carbon.stop(signal.SIGKILL)
    for _ in range(3):
        program.interval()
    assert program.undelivered() > 0
    carbon.start()
    program.interval()
    eventually(lambda: program.undelivered() == 0)
    program.check(carbon)
    assert all(not status.dropped for status in program.flusher.status().destinations)


def test_a_flush_in_mid_interval_is_replaced_by_the_whole_interval(carbon: Carbon, program: Program):
    """What flush() sends early shares its slot with what the tick sends: the slot ends up whole."""
    counter = program.registry.counter("early")
    counter.inc(3)
    assert program.flusher.flush(timeout=30)
    counter.inc(4)
    program.interval()
    assert program.flusher.flush(timeout=30)
    eventually(lambda: carbon.read("stats.counters.shop.web1.early.count", program.stamps) == [7])


def test_pickle_brings_what_lines_bring(carbon: Carbon):
    """Windows and relayed points, sent as lines and in frames of pickle: the files hold the same numbers to the bit."""
    clock = recent_clock()
    registry = Registry(clock=clock)
    rng = random.Random(7)
    for number in range(1200):  # more than two frames
        registry.gauge(f"g.{number}").set(rng.uniform(-1, 1) * 10 ** rng.randint(-20, 20))
    registry.counter("hits", tags=TAGS).inc(3)
    stamp = int(clock.time() // 10 * 10 + 10)
    flush = registry.tick(stamp, 10)
    for name, url in (("lines", carbon.url), ("pickle", carbon.pickle_url)):
        sender = Sender(open_destination(url, Naming(prefix=name)))
        sender.put(*sender.destination.encode(flush))
        sender.relay([(f"{name}.relayed;k=é", 1e300, stamp)])
        while sender.step() is not None:
            pass
        assert sender.status().points_sent == 1203

    paths = [f"stats.gauges.%s.g.{number}" for number in range(1200)]
    paths += ["stats.counters.%s.hits.count" + TAGGED, "%s.relayed;k=é"]

    def read(name: str) -> list[float | None]:
        return [carbon.read(path % name, [stamp])[0] for path in paths]

    eventually(lambda: None not in read("pickle") + read("lines"))
    assert read("pickle") == read("lines")
    assert read("pickle")[-2:] == [3, 1e300]


@pytest.mark.parametrize("scheme", ["graphite", "graphite+pickle"])
def test_a_line_that_carbon_cannot_read_costs_nothing_else(carbon: Carbon, scheme: str):
    """carbon reads a line of 16,384 bytes and a frame of a mebibyte, and closes the connection at a longer one."""
    longest = {"graphite": 16_384, "graphite+pickle": 1 << 20}[scheme]
    stamp = int(time.time() // 10 * 10 - 100)
    url, option = (carbon.url, "") if scheme == "graphite" else (carbon.pickle_url, "?max_frame=1048576")
    destination = open_destination(url + option, Naming())
    tail = f" 1 {stamp}"
    fits = "x" * (longest - (len(tail) if scheme == "graphite" else 64)) + tail
    lines = ["before" + tail, fits, "between" + tail, "x" + fits, "behind" + tail]
    assert destination.deliver("".join(f"{line}\n" for line in lines).encode(), Deadline(30)) == {"too_long": 1}
    for path in ("before", "between", "behind"):
        eventually(lambda path=path: carbon.read(path, [stamp]) == [1], or_else=path)  # type: ignore[misc]


def test_no_two_series_share_a_path_in_graphite(carbon: Carbon):
    """carbon drops a tag called ``name``, and puts ``a..b`` into the file of ``a.b``."""
    clock = recent_clock()
    registry = Registry(clock=clock)
    registry.gauge("hits").set(1)
    for number, name in enumerate(("x", "y"), 2):
        registry.gauge("hits", tags={"name": name}).set(number)
    registry.gauge("a.b").set(4)
    assert registry.gauge("a..b") is registry.gauge(".a.b") is registry.gauge("a.b")
    stamp = int(clock.time() // 10 * 10 + 10)
    destination = open_destination(carbon.url, Naming())
    for batch in destination.encode(registry.tick(stamp, 10)):
        assert destination.deliver(batch.payload, Deadline(30)) == {}
    expected = {"hits": 1, "hits;name_=x": 2, "hits;name_=y": 3, "a.b": 4}
    for path, value in expected.items():
        eventually(partial(lambda path, value: carbon.read(f"stats.gauges.{path}", [stamp]) == [value], path, value))
