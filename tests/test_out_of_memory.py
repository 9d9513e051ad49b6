"""A tick that runs out of memory loses nothing and counts nothing twice: its interval goes on into the next."""

import json
import os
import subprocess
import sys

import pytest

from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.window import Aggregates
from tests.implementations import packages

KINDS = ("counter", "timer", "histogram", "gauge", "unique")


@pytest.fixture(params=[True, False], ids=["Python", "C"])
def implementation(request):
    return packages(request.param)


def failing(call, turns, error=MemoryError):
    """Wrap ``call`` such that it raises MemoryError in these of its turns."""
    turn = iter(range(10**9))

    def wrapped(*args, **kwargs):
        if next(turn) in turns:
            raise error
        return call(*args, **kwargs)

    return wrapped


def measure(registry, value):
    registry.counter("c").inc(value)
    registry.timer("t").observe(value)
    registry.histogram("h").observe(value)
    registry.gauge("g").set(value)
    registry.unique("u").add(value)


def told(window):
    return (
        window.counters["c"],
        window.timers["t"].count,
        window.histograms["h"].sum,
        window.gauges["g"],
        window.uniques["u"],
    )


class Source:
    """Has what it is given, until it is collected."""

    def __init__(self):
        self.new = Aggregates()

    def collect(self):
        new, self.new = self.new, Aggregates()
        return new

    def forget(self, kind, key):
        pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["tick", "flush", "snapshot"])
def test_what_an_instrument_gave_up_is_in_the_next_window(implementation, monkeypatch, kind, call):
    registry = implementation["metricslib.registry"].Registry(clock=ManualClock())
    measure(registry, 1)
    owner = type(getattr(registry, kind)(kind[0]))
    monkeypatch.setattr(owner, "_aggregate", failing(owner._aggregate, {0}))
    with pytest.raises(MemoryError):
        getattr(registry, call)(10, 10)
    measure(registry, 2)
    assert told(registry.tick(20, 10).cumulative) == (3, 2, 3, 2, {"1", "2"})
    assert told(registry.tick(30, 10).cumulative) == (0, 0, 0, 2, set())
    assert registry.snapshot().totals["counter"]["c"].sum == 3


@pytest.mark.parametrize("step", ["_build", "members_cost", "merge"])
def test_every_step_of_a_tick_may_fail(monkeypatch, step):
    registry, source = Registry(clock=ManualClock()), Source()
    registry.add_source(source)
    owner = {"_build": Registry, "members_cost": sys.modules[Registry.__module__], "merge": Aggregates}[step]
    for turn in range(4):
        measure(registry, 1)
        source.new.counters["c"] = 5
        start = registry.snapshot().totals["counter"]["c"].sum if turn else 0
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, failing(getattr(owner, step), {turn}))
            windows = []
            for end in range(10, 80, 10):
                try:
                    windows.append(registry.tick(end + 100 * turn, 10).cumulative)
                except MemoryError:
                    continue
        assert sum(window.counters["c"] for window in windows) == 6
        assert sum(window.timers["t"].count for window in windows) == 1
        assert registry.snapshot().totals["counter"]["c"].sum == start + 6


@pytest.mark.parametrize("turn", range(3))
def test_what_was_collected_before_a_source_failed_is_kept(turn):
    registry, sources = Registry(clock=ManualClock()), [Source() for _ in range(3)]
    for number, source in enumerate(sources):
        source.new.counters["c"] = 10**number
        source.new.received[f"s{number}"] = 1
        source.collect = failing(source.collect, {0} if number == turn else {})
        registry.add_source(source)
    with pytest.raises(MemoryError):
        registry.tick(10, 10)
    flush = registry.tick(20, 10)
    assert flush.cumulative.counters == {"c": 111}
    assert flush.received == {"s0": 1, "s1": 1, "s2": 1}
    assert registry.tick(30, 10).delta.counters == {}


@pytest.mark.parametrize("error", [MemoryError, SystemError], ids=["no memory", "no memory for a frame"])
@pytest.mark.parametrize("turn", range(5))
@pytest.mark.parametrize("total", ["SummedTotal", "DistributionTotal", "GaugeTotal", "Total"])
def test_totals_are_finished_after_the_tick(monkeypatch, turn, total, error):
    """The window is out already, so the tick does not fail."""
    totals = sys.modules["metricslib.series_state"]
    registry = Registry(clock=ManualClock())
    for number in range(5):
        for kind, call in zip(KINDS, ("inc", "observe", "observe", "set", "add"), strict=True):
            getattr(getattr(registry, kind)(f"{kind}{number}"), call)(1)
    with monkeypatch.context() as patched:
        patched.setattr(getattr(totals, total), "take", failing(getattr(totals, total).take, {turn}, error))
        assert len(registry.tick(10, 10).cumulative) == 25
        found = registry.snapshot().totals
    assert [found["counter"][f"counter{number}"].sum for number in range(5)] == [1] * 5
    assert [found["timer"][f"timer{number}"].count for number in range(5)] == [1] * 5
    assert [found["gauge"][f"gauge{number}"].gauge for number in range(5)] == [1] * 5
    assert registry.drops.totals() == {"out_of_memory": 1}


@pytest.mark.parametrize("step", ["_counts", "aggregates"])
def test_an_intake_goes_on_with_what_it_collected(implementation, monkeypatch, step):
    registry = implementation["metricslib.registry"].Registry(clock=ManualClock())
    module = implementation["forwarder.aggregator"]
    aggregator = getattr(module, "PythonAggregator" if step == "aggregates" else "Aggregator")(registry)
    registry.add_source(aggregator)
    aggregator.feed([b"c:1|c\nt:1|ms\nh:1|h\ng:1|g\nu:1|s"])
    with monkeypatch.context() as patched:
        if step == "_counts":
            patched.setattr(aggregator, "_counts", failing(aggregator._counts, {0}))
        else:
            patched.setattr(module._Interval, "aggregates", failing(module._Interval.aggregates, {0}))
        with pytest.raises(MemoryError):
            registry.tick(10, 10)
    aggregator.feed([b"c:2|c\nt:2|ms\nh:2|h\ng:2|g\nu:2|s"])
    windows = [registry.tick(20, 10).cumulative, registry.tick(30, 10).cumulative]
    assert sum(window.counters["c"] for window in windows) == 3
    assert sum(window.timers["t"].count for window in windows) == 2
    assert frozenset().union(*(window.uniques["u"] for window in windows)) == {"1", "2"}
    assert aggregator.collected().aggregated == 10


def test_numbered_batches_stay_with_their_numbers(monkeypatch):
    from forwarder.aggregator import Aggregator
    from forwarder.dedup import Deduplicator
    from metricslib.wire.numbered import Numbered

    registry, senders = Registry(clock=ManualClock()), Deduplicator()
    aggregators = [Aggregator(registry) for _ in range(2)]
    for number, aggregator in enumerate(aggregators):
        senders.add_aggregator(aggregator)
        senders.take(Numbered(f"s{number}", 7, b"c:1|c\n"), aggregator)
    monkeypatch.setattr(aggregators[1], "collect", failing(aggregators[1].collect, {0}))
    with pytest.raises(MemoryError):
        senders.collect()
    aggregates = senders.collect()
    assert (aggregates.counters, aggregates.received) == ({"c": 2}, {"s0": 7, "s1": 7})
    assert not senders.collect().counters


# -- the flusher


@pytest.fixture
def shipping(tmp_path):
    """A flusher to two files, and a call that returns what counters each holds."""
    registry = Registry(clock=ManualClock())
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    flusher = Flusher(registry, [f"file://{file}?revise=off" for file in files], own="")

    def seen():
        for sender in flusher._dispatcher:
            sender.start()
        flusher._dispatcher.wait_idle(sys.modules["metricslib.delivery"].Deadline(60))
        return [[json.loads(line)["counters"]["c"] for line in file.read_text().splitlines()] for file in files]

    yield registry, flusher, seen
    flusher._dispatcher.stop_now()


def turn(registry, flusher):
    registry.counter("c").inc()
    registry.clock.advance(10)
    flusher._safely("tick", flusher.tick)


@pytest.mark.parametrize("turns", [{0}, {1}, {0, 1, 2}])
def test_an_interval_that_could_not_be_encoded_is_sent_later(shipping, monkeypatch, turns):
    """To each destination once, and to the others as well. While that fails, the open interval goes on."""
    registry, flusher, seen = shipping
    _, second = (sender.destination for sender in flusher._dispatcher)
    monkeypatch.setattr(second, "encode", failing(second.encode, turns))
    for _ in range(6):
        turn(registry, flusher)
    first, other = seen()
    assert first == other
    assert sum(first) == 6
    status = flusher.status()
    assert status.errors[f"encode for {second.label}"] == len(turns)
    assert status.ticks + status.skipped == 6


@pytest.mark.parametrize("step", ["entries", "admit"])
def test_an_interval_that_could_not_be_put_is_sent_later(shipping, monkeypatch, step):
    registry, flusher, seen = shipping
    _, second = flusher._dispatcher
    monkeypatch.setattr(second.queue, step, failing(getattr(second.queue, step), {0}))
    for _ in range(3):
        turn(registry, flusher)
    assert seen() == [[1, 1, 1], [1, 1, 1]]


def test_a_tick_without_memory_is_one_of_the_next(shipping, monkeypatch):
    registry, flusher, seen = shipping
    monkeypatch.setattr(registry, "_build", failing(registry._build, {0, 2}))
    for _ in range(4):
        turn(registry, flusher)
    assert seen() == [[2, 2], [2, 2]]
    assert flusher.status().skipped == 2


# -- with a real limit

LIMITED = """
import resource
from forwarder.aggregator import Aggregator
from metricslib.registry import Registry
registry = Registry(max_series=10**6, max_bytes=1 << 40)
aggregator = Aggregator(registry, key_bytes=1 << 40)
registry.add_source(aggregator)
count = 60_000
def feed():
    for start in range(0, count, 100):
        keys = range(start, start + 100)
        aggregator.feed([b"\\n".join(b"c%d:1|c\\nt%d:%d|ms\\nu:%d|s" % (key, key, key, key) for key in keys)])
feed()
for number in range(5_000):
    registry.counter(f"own{number}").inc()
    registry.unique("v").add(number)
def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
failed, stamp, total, times, members, own = 0, 0, 0, 0, set(), 0
room = 0
while True:
    stamp += 10
    resource.setrlimit(resource.RLIMIT_AS, (size() + room, -1))
    try:
        window = registry.tick(stamp, 10).cumulative
    except MemoryError:
        failed += 1
        room += 1 << 20
        continue
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    break
for window in (window, registry.tick(stamp + 10, 10).cumulative):
    total += sum(value for key, value in window.counters.items() if key.startswith("c"))
    own += sum(value for key, value in window.counters.items() if key.startswith("own"))
    times += sum(timer.count for timer in window.timers.values())
    members |= window.uniques["u"] | window.uniques["v"]
totals = registry.snapshot().totals
print(failed, total, own, times, len(members), sum(each.sum for each in totals["counter"].values()),
      sum(each.count for each in totals["timer"].values()), aggregator.counts().dropped)
"""


@pytest.mark.parametrize("pure", ["1", "0"], ids=["Python", "C"])
def test_a_process_at_its_limit_loses_nothing(pure):
    """Ticks with a megabyte of memory more each time, until there is enough for one."""
    packages(pure == "1")
    run = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        env={**os.environ, "METRICSLIB_PURE": pure, "PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"},
        check=True,
    )
    failed, *rest = run.stdout.split(maxsplit=7)
    assert int(failed) > 3
    assert rest == ["60000", "5000", "60000", "60000", "65000", "60000", "{}\n"]
