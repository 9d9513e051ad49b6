"""Deleting series: what was measured before is gone, what comes after is all there, and nothing else is touched."""

import gc
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from metricslib.registry import Registry
from metricslib.series import KINDS
from metricslib.testing import ManualClock

CALLS = {"counter": "inc", "gauge": "set", "timer": "observe", "histogram": "observe", "unique": "add"}
LINES = {"counter": b"x:1|c", "gauge": b"x:1|g", "timer": b"x:1|ms", "histogram": b"x:1|h", "unique": b"x:1|s"}


def measure(registry, kind, name="x", value=1):
    instrument = getattr(registry, kind)(name)
    getattr(instrument, CALLS[kind])(value)
    return instrument


def told(window, kind, key="x"):
    """What a window says of a series, None if nothing; of distributions the count."""
    value = window[kind].get(key)
    return value.count if kind in ("timer", "histogram") and value is not None else value


AFTER = {"counter": 5, "gauge": 5, "timer": 1, "histogram": 1, "unique": {"5"}}
"""What a window says of a series for which one 5 was measured."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ticks", [0, 1, 2])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_deleted_series_is_gone(registry, tick, clock, kind, ticks, flushed):
    """At once, from open interval, totals and count, whether it is new, old, or was flushed in mid-interval."""
    measure(registry, kind)
    measure(registry, kind, "other")
    for _ in range(ticks):
        tick()
        measure(registry, kind)
    if flushed:
        registry.flush(int(clock.time()) + 10, 10)
        measure(registry, kind)
    assert registry.forget(kind, ["x"]) == ["x"]
    snapshot = registry.snapshot()
    assert set(snapshot.totals[kind]) == {"other"}
    assert "x" not in snapshot.open[kind]
    assert len(registry) == 1
    flush = tick()
    assert set(flush.cumulative[kind]) == {"other"}
    assert "x" not in flush.delta[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_held_instrument_begins_the_series_anew(registry, tick, kind):
    """What is measured after the deletion is in the next window, and nothing from before."""
    held = measure(registry, kind)
    tick()
    measure(registry, kind)
    registry.forget(kind, ["x"])
    getattr(held, CALLS[kind])(5)
    flush = tick()
    assert told(flush.cumulative, kind) == told(flush.delta, kind) == AFTER[kind]
    assert getattr(registry, kind)("x") is held
    assert len(registry) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_begins_the_series_anew(registry, tick, clock, kind):
    """An aggregator forgets the key, drops what it held, and takes what comes next."""
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    aggregator.feed([LINES[kind]] * 3)
    tick()
    aggregator.feed([LINES[kind]] * 2)
    assert registry.forget(kind, ["x"]) == ["x"]
    assert told(registry.snapshot().open, kind) is None
    aggregator.feed([LINES[kind].replace(b"1", b"5")])
    assert told(tick().cumulative, kind) == AFTER[kind]
    assert len(registry) == 1


def test_a_changed_gauge_starts_from_nothing(registry, tick, clock):
    """After its deletion a gauge that is changed, and not set, starts from 0."""
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    aggregator.feed([b"g:100|g"])
    tick()
    registry.forget("gauge", ["g"])
    aggregator.feed([b"g:+5|g"])
    assert tick().cumulative.gauges == {"g": 5}


def test_only_that_kind_is_deleted(registry, tick):
    """Series of other kinds with the same key stay."""
    for kind in KINDS:
        measure(registry, kind)
    registry.forget("timer", ["x"])
    window = tick().cumulative
    assert [kind for kind in KINDS if "x" in window[kind]] == [kind for kind in KINDS if kind != "timer"]


def test_keys_that_nobody_has_are_left_out(registry):
    """The answer is what there was, in the order in which it was asked for, each once."""
    for name in "abc":
        measure(registry, "counter", name)
    assert registry.forget("counter", iter(["c", "no", "a", "c"])) == ["c", "a"]
    assert registry.forget("counter", ["c", "a"]) == []
    assert registry.drops.totals() == {"deleted": 2}


def test_a_callback_gauge_stays_deleted(registry, tick):
    """Nobody asks its callback any more, until it is registered again."""
    held = registry.gauge("x", read=lambda: 7)
    assert tick().cumulative.gauges == {"x": 7}
    registry.forget("gauge", ["x"])
    assert tick().cumulative.gauges == {}
    assert registry.gauge("x", read=lambda: 8) is held
    assert tick().cumulative.gauges == {"x": 8}


def test_an_instrument_that_nobody_holds_is_freed(registry):
    """Deleting gives memory back."""
    parent = registry.counter("x")
    dead = weakref.ref(parent.tagged(route="u"))
    parent.tagged(route="u").inc()
    assert registry.forget("counter", ["x;route=u"]) == ["x;route=u"]
    gc.collect()
    assert dead() is None


def test_what_was_deleted_makes_room(clock, tick):
    """Under a cap there is room for as many as were deleted."""
    registry = Registry(clock=clock, max_series=10)
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    aggregator.feed([f"k{number}:1|c".encode() for number in range(11)])
    assert registry.forget("counter", [f"k{number}" for number in range(4)]) == ["k0", "k1", "k2", "k3"]
    aggregator.feed([b"k10:1|c"])
    assert told(registry.snapshot().open, "counter", "k10") == 1


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["measure", "feed", "forget", "tick", "flush"]))))
def test_a_window_has_what_came_since_the_deletion(events):
    """Whatever the order of instruments, lines, deletions, flushes and ticks: each counted thing is there once."""
    clock = ManualClock()
    registry = Registry(clock=clock)
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    expected: dict[str, int] = {}
    for kind, event in [*events, ("counter", "tick")]:
        if event == "measure":
            measure(registry, kind)
            expected[kind] = expected.get(kind, 0) + 1
        elif event == "feed":
            aggregator.feed([LINES[kind]])
            expected[kind] = expected.get(kind, 0) + 1
        elif event == "forget":
            assert registry.forget(kind, ["x"]) == (["x"] if kind in expected else [])
            expected.pop(kind, None)
        elif event == "flush":
            registry.flush(int(clock.time()) + 10, 10)
        else:
            clock.advance(10)
            window = registry.tick(int(clock.time()), 10).cumulative
            assert {kind for kind in KINDS if "x" in window[kind]} == set(expected)
            for kind in ("counter", "timer", "histogram"):
                assert told(window, kind) == expected.get(kind)
            assert len(registry) == len(expected)
            expected = dict.fromkeys(expected, 0)


def test_deleting_while_lines_come_in_loses_nothing_else(registry, clock):
    """Threads feed, another deletes one series again and again: the others are exact."""
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    rounds = []
    enough = threading.Event()

    def feed():
        while not enough.is_set():
            aggregator.feed([b"x:1|c\ny:1|c", b"t:1|ms"] * 10)
            rounds.append(1)

    feeders = [threading.Thread(target=feed) for _ in range(3)]
    for feeder in feeders:
        feeder.start()
    deletions = 0
    while deletions < 50:
        deletions += len(registry.forget("counter", ["x"]))
    enough.set()
    for feeder in feeders:
        feeder.join()
    window = registry.tick(int(clock.time()) + 10, 10).cumulative
    assert window.counters["y"] == window.timers["t"].count == 10 * len(rounds)
    assert window.counters.get("x", 0) <= 10 * len(rounds)
    assert registry.drops.totals() == {"deleted": deletions}
