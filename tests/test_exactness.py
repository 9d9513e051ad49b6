"""Nothing is lost or counted twice: eight threads measure with all their might while ticks, flushes and snapshots run.

Threads switch every microsecond. The sums over all fresh parts, and over all whole windows, are exactly what was made.
"""

import sys
import threading
from collections import Counter as Tally
from importlib import import_module

import pytest

from metricslib.instruments.base import FULL, OVERRUN
from metricslib.instruments.counter import Counter
from metricslib.registry import Registry
from metricslib.testing import ManualClock

THREADS = 8
TURNS = 80
"""At least so often the reader flushes in while all measure."""


@pytest.fixture(autouse=True)
def switching():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Reader:
    """Cuts windows without a pause, each time in another way, and adds up what they hold."""

    def __init__(self, registry, clock):
        self.registry = registry
        self.delta, self.cumulative = Tally(), Tally()
        self.uniques = set()
        self.turns = self.waiting = 0
        self._clock = clock
        self._turned = threading.Condition()

    def paced(self, times):
        """Count up to `times`, in so many parts that the reader takes its turns meanwhile."""
        part = times // TURNS
        for turn in range(TURNS):
            with self._turned:
                self._turned.wait_for(lambda: self.turns > turn)  # noqa: B023  -- waited for here and now
            yield from range(turn * part, turn * part + part)

    def turn(self):
        """Flush once."""
        match self.turns % 4:
            case 0:
                self._clock.advance(10)
                flush = self.registry.tick(int(self._clock.time()), 10)
                self._add(self.cumulative, flush.cumulative)
                self._add(self.delta, flush.delta)
            case 1 | 2:
                self._add(self.delta, self.registry.flush(int(self._clock.time()) + 10, 10).delta)
            case 3:
                self.registry.snapshot()
        instruments = self.registry._active_instruments()
        self.waiting = max(self.waiting, *(instrument._pending_count for instrument in instruments))
        with self._turned:
            self.turns += 1
            self._turned.notify_all()

    def finish(self):
        """Flush a last time, to the end of the interval."""
        while self.turns % 4:
            self.turn()
        self.turn()

    def _add(self, tally, window):
        tally.update({("counter", key): value for key, value in window.counters.items()})
        for kind in ("timer", "histogram"):
            for key, distribution in window[kind].items():
                tally[kind, key] += distribution.count
                tally[kind + ".sum", key] += distribution.sum
                assert sum(distribution.powers().values()) == distribution.count
        for members in window.uniques.values():
            self.uniques |= members


def measure_in_threads(reader, *works):
    """Run every work in eight threads (each gets its number) while the reader reads, then read a last time."""
    errors = []
    start = threading.Barrier(THREADS * len(works) + 1)

    def run(work, number):
        start.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work, number)) for work in works for number in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        reader.turn()
    for thread in threads:
        thread.join()
    reader.finish()
    assert errors == []
    assert reader.turns > TURNS
    assert reader.registry.drops.totals() == {}
    return reader


@pytest.fixture
def reader():
    clock = ManualClock()
    return Reader(Registry(clock=clock), clock)


@pytest.mark.parametrize("full", [FULL, 3])
def test_a_counter_counts_every_increment(reader, monkeypatch, full):
    """8 × 100,000, and buffers stay far below their bound; also if they are folded at every turn."""
    monkeypatch.setattr(import_module("metricslib.instruments.counter"), "FULL", full)
    counter = reader.registry.counter("x")

    def work(_):
        for _ in reader.paced(100_000):
            counter.inc()

    measure_in_threads(reader, work)
    assert reader.delta["counter", "x"] == reader.cumulative["counter", "x"] == 800_000
    assert reader.waiting < OVERRUN // 2  # of 800,000, had nobody stood back
    assert reader.registry.snapshot().totals["counter"]["x"].sum == 800_000


@pytest.mark.parametrize("full", [FULL, 3])
def test_a_timer_counts_every_observation(reader, monkeypatch, full):
    """8 × 100,000: counts, sums, and the lifetime counts of every power of two."""
    monkeypatch.setattr(import_module("metricslib.instruments.timer"), "FULL", full)
    timer = reader.registry.timer("x")

    def work(number):
        seconds = 2.0**number / 1000
        for _ in reader.paced(100_000):
            timer.observe(seconds)

    measure_in_threads(reader, work)
    assert reader.delta["timer", "x"] == reader.cumulative["timer", "x"] == 800_000
    assert reader.delta["timer.sum", "x"] == pytest.approx(25_500_000)
    assert reader.cumulative["timer.sum", "x"] == pytest.approx(25_500_000)
    assert reader.registry.snapshot().totals["timer"]["x"].powers == dict.fromkeys(range(8), 100_000)
    assert reader.waiting < OVERRUN // 2  # of 800,000, had nobody stood back


def test_all_kinds_at_once_count_every_call(reader):
    """Histogram, unique, a gauge that goes up and down, timed blocks and tagged children, side by side."""
    registry, each = reader.registry, 4_000
    histogram, unique, gauge, timer = (
        registry.histogram("h"),
        registry.unique("u"),
        registry.gauge("g"),
        registry.timer("t"),
    )

    def observe(_):
        for _ in reader.paced(each):
            histogram.observe(3)

    def add(number):
        for member in reader.paced(each):
            unique.add(number * each + member)

    def change(number):
        for _ in reader.paced(each):
            gauge.inc(3)
            gauge.dec(2)

    def time(_):
        for _ in reader.paced(each):
            with timer.time():
                pass

    def count(number):
        for turn in reader.paced(each):
            registry.counter("c").tagged(turn=turn % 10, even=number % 2 == 0).inc(2)

    measure_in_threads(reader, observe, add, change, time, count)
    made = THREADS * each
    for tally in (reader.delta, reader.cumulative):
        assert (tally["histogram", "h"], tally["histogram.sum", "h"], tally["timer", "t"]) == (made, 3 * made, made)
        counted = {key: value for (kind, key), value in tally.items() if kind == "counter" and value}
        assert counted == {f"c;even={even};turn={turn}": made // 10 for turn in range(10) for even in (True, False)}
    assert reader.uniques == {str(member) for member in range(made)}
    assert registry.snapshot().open.gauges == {"g": made}


def test_batches_that_overflow_a_small_buffer_are_kept_or_counted(reader, monkeypatch):
    """When folds cannot keep up, what is dropped is on the account: made = aggregated + dropped."""
    monkeypatch.setattr("metricslib.instruments.base.OVERRUN", 600)
    counter = reader.registry.counter("x")

    def work(_):
        for _ in reader.paced(20_000):
            counter.inc()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with counter._lock:  # hold the folds up for a moment
            reader.registry.drops.totals()
        reader.turn()
    for thread in threads:
        thread.join()
    reader.finish()
    dropped = reader.registry.drops.totals()
    assert reader.delta["counter", "x"] + dropped.get("buffer_full", 0) == THREADS * 20_000
    assert reader.delta == reader.cumulative


@pytest.fixture
def interleave(monkeypatch):
    """Let other threads act at the worst moment of a fold: between the copy of what waits and its deletion."""

    def interleaved(act):
        begin = Counter._begin

        def begin_and_act(counter, limit):
            begun = begin(counter, limit)
            act()
            return begun

        monkeypatch.setattr(Counter, "_begin", begin_and_act)

    return interleaved


def test_what_comes_while_a_fold_is_under_way_waits_for_the_next(reader, interleave):
    """The fold deletes what it copied, and nothing that others put in meanwhile."""
    counter = reader.registry.counter("x")
    interleave(lambda: counter.inc(1000))
    counter._put(1)
    assert reader.registry.tick(10, 10).delta.counters == {"x": 1}
    assert reader.registry.tick(20, 10).delta.counters == {"x": 1000}


def test_what_is_dropped_from_a_full_buffer_was_not_folded(reader, interleave, monkeypatch):
    """Two threads put a value into a full buffer and are stopped; the fold begins; then they find it full."""
    monkeypatch.setattr("metricslib.instruments.base.OVERRUN", 10)
    counter = reader.registry.counter("x")
    interleave(lambda: (counter._fold(), counter._fold()))
    for _ in range(12):
        counter._put(1)
    reader.finish()
    reader.finish()
    assert reader.registry.drops.totals() == {"buffer_full": 2}
    assert reader.delta["counter", "x"] == 10


def test_a_thread_that_finds_a_full_buffer_no_longer_full_drops_nothing(reader, monkeypatch):
    """It was stopped after its look at the length; what is there now may be in another's fold already."""
    monkeypatch.setattr("metricslib.instruments.base.OVERRUN", 10)
    counter = reader.registry.counter("x")
    for _ in range(10):
        counter._put(1)
    with counter._lock, monkeypatch.context() as patch:
        patch.setattr(Counter, "_pending_count", 11)
        counter._fold()
    assert reader.registry.drops.totals() == {}
    assert reader.registry.tick(10, 10).delta.counters == {"x": 10}
