"""What the formats of the page cost with 10,000 series, beside prometheus_client with the same series; CPU time.

Of the series 65 % are counters with a tag, 15 % gauges, 15 % timers with a tag and ten samples an interval; the rest is
histograms and uniques. Before each request an interval has ended, and each series has new values. So nothing that
belongs to an interval was made by the request before.
"""

import random
import time
from collections.abc import Callable

from .child import both_implementations
from .measure import Samples, Scale, in_turn
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "Program", "measure", "run"]

TITLE = "The page with 10,000 series"
_ROUNDS = 9
_SERIES = 10_000
_SAMPLES = 10

JSON, TEXT, OPENMETRICS, PEER = "JSON", "Prometheus text", "OpenMetrics", "prometheus_client's text"
GRID, UPDATE, HISTORY = "the grid, first view", "the grid, an update", "a window into the history"
_GOALS = {JSON: 50, TEXT: 40, OPENMETRICS: None, GRID: 150, UPDATE: 20, HISTORY: None}
ROWS = tuple(
    Row(
        f"{implementation}: {what}",
        "ms",
        against=f"{implementation}: {PEER}" if what == OPENMETRICS else "",
        goal=at_most(limit) if limit and implementation == "C" else None,
    )
    for implementation in ("C", "Python")
    for what, limit in _GOALS.items()
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds an answer."""
    return both_implementations("view", scale, "metricslib")


class Program:
    """A program with that many series, and its page."""

    def __init__(self, count: int) -> None:
        from metricslib import Flusher, Registry
        from metricslib.testing import ManualClock
        from metricslib.view.answer import View

        self.clock = ManualClock()
        self.registry = Registry(clock=self.clock, max_series=2 * count, max_tag_sets=count)
        self.flusher = Flusher(self.registry, interval=10, own="")
        self.view = View.of(self.flusher)
        self._random = random.Random(7)
        self.counters = [
            self.registry.counter(f"shop.page{at % 1000}.hits", tags={"route": f"r{at // 1000}"})
            for at in range(count * 65 // 100)
        ]
        self.gauges = [self.registry.gauge(f"shop.pool{at}.free") for at in range(count * 15 // 100)]
        self.timers = [
            self.registry.timer(f"shop.query{at % 250}", tags={"table": f"t{at // 250}"})
            for at in range(count * 15 // 100)
        ]
        self.histograms = [self.registry.histogram(f"shop.size{at}") for at in range(count * 3 // 100)]
        self.uniques = [self.registry.unique(f"shop.users{at}") for at in range(count * 2 // 100)]

    def interval(self) -> None:
        """End an interval, with values before it and behind it."""
        self._fill()
        self.clock.advance(10)
        self.flusher.tick()
        self._fill()

    def _fill(self) -> None:
        pick = self._random
        for counter in self.counters:
            counter.inc(pick.randrange(1, 50))
        for gauge in self.gauges:
            gauge.set(pick.random())
        for _ in range(_SAMPLES):
            for timer in self.timers:
                timer.observe(pick.lognormvariate(-3, 1))
            for histogram in self.histograms:
                histogram.observe(pick.randrange(1, 5000))
            for unique in self.uniques:
                unique.add(pick.randrange(100))

    def ask(self, query: str) -> float:
        """Return the seconds of CPU of an answer, its body included."""
        begin = time.thread_time()
        answer = self.view.answer("GET", query)
        size = sum(map(len, answer.parts))
        took = time.thread_time() - begin
        assert answer.status == 200
        assert size > 1000
        return took


def measure(scale: Scale) -> Samples:
    """Return seconds an answer, with the implementation of this process."""
    program = Program(min(scale.series, _SERIES))
    program.interval()

    def answered(query: str, again: bool = False) -> Callable[[], float]:
        def work() -> float:
            program.interval()
            if again:
                program.ask(query)
                since = program.flusher.history.last
                assert since is not None
                program.interval()
                return program.ask(f"{query}&since={since.end}")
            return program.ask(query)

        return work

    works = {JSON: answered("format=json"), TEXT: answered("format=prometheus")}
    works |= {OPENMETRICS: answered("format=openmetrics"), PEER: _peer(program)}
    works |= {GRID: answered("format=html"), UPDATE: answered("format=html", again=True)}
    return in_turn({**works, HISTORY: _history(program)}, min(scale.rounds, _ROUNDS))


def _history(program: Program) -> Callable[[], float]:
    from metricslib.history import History

    history = History()

    def append() -> float:
        program.interval()
        window = program.flusher.history.last
        assert window is not None
        begin = time.thread_time()
        history.append(window)
        return time.thread_time() - begin

    return append


def _peer(program: Program) -> Callable[[], float]:
    """Return what renders the same series, with as many buckets as ours have, by prometheus_client."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

    registry = CollectorRegistry()
    bounds = tuple(0.001 * 2**power for power in range(2, 11))
    counters: dict[str, Counter] = {}
    timers: dict[str, Histogram] = {}
    for at in range(len(program.counters)):
        name = f"shop_page{at % 1000}_hits"
        if name not in counters:
            counters[name] = Counter(name, "hits", ["route"], registry=registry)
        counters[name].labels(f"r{at // 1000}").inc(at)
    for at in range(len(program.gauges) + len(program.uniques)):
        Gauge(f"shop_pool{at}_free", "free", registry=registry).set(at / 7)
    for at in range(len(program.timers)):
        name = f"shop_query{at % 250}_seconds"
        if name not in timers:
            timers[name] = Histogram(name, "query", ["table"], buckets=bounds, registry=registry)
        timers[name].labels(f"t{at // 250}").observe(at / 10_000)
    for at in range(len(program.histograms)):
        Histogram(f"shop_size{at}", "size", buckets=bounds, registry=registry).observe(at)

    def render() -> float:
        begin = time.thread_time()
        generate_latest(registry)
        return time.thread_time() - begin

    return render
