"""Windows, snapshots, expiry, sources: whatever is called in whatever order, nothing is lost or counted twice."""

import gc
import logging
import threading
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from metricslib.errors import AlreadyStarted, InvalidOption, InvalidType
from metricslib.registry import Registry
from metricslib.series import KINDS, rename
from metricslib.testing import ManualClock
from metricslib.window import Aggregates

CALLS = {"counter": "inc", "gauge": "set", "timer": "observe", "histogram": "observe", "unique": "add"}


def make(registry, kind, name="x", **tags):
    return getattr(registry, kind)(name, tags=tags or None)


def measure(instrument, value=1):
    getattr(instrument, CALLS[instrument.kind])(value)


def plain(window):
    """A window as plain values: distributions as their sorted samples."""
    return {
        kind: {
            key: sorted(value._samples) if kind in ("timer", "histogram") else value
            for key, value in window[kind].items()
        }
        for kind in KINDS
    }


class Feed:
    """A source that says what the test gives it."""

    def __init__(self, *batches):
        self.batches = list(batches)
        self.forgotten = []

    def collect(self):
        batch = self.batches.pop(0) if self.batches else {}
        if isinstance(batch, Exception):
            raise batch
        collected = Aggregates()
        for key, count in batch.items():
            collected.add("counter", key, count)
        return collected

    def forget(self, kind, key):
        self.forgotten.append((kind, key))


class NumberedFeed(Feed):
    """One that hears numbered batches."""

    def collect(self):
        collected = Aggregates()
        collected.received = self.batches.pop(0)
        return collected


# -- instruments


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_kind_name_and_tags_return_the_same_object(registry, kind):
    """However they are written; other kinds are other series."""
    one = make(registry, kind, "web hits", b=2, a=1)
    assert one is make(registry, kind, "web_hits", a="1", b="2")
    assert one is make(registry, kind, "web_hits;b=2;a=1")
    assert one is not make(registry, kind, "web_hits")
    assert len({make(registry, each) for each in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [None, 5, b"x", "", ["x"]])
def test_a_wrong_name_raises_early(registry, kind, name):
    """It is a mistake of set-up."""
    with pytest.raises(InvalidType, match="name must be a non-empty string"):
        make(registry, kind, name)


@pytest.mark.parametrize("tags", [[("a", 1)], "a=1", 5])
def test_tags_are_a_mapping(registry, tags):
    """Anything else raises early."""
    for use in (registry.counter, registry.scope, registry.gauge):
        with pytest.raises(InvalidType, match="tags must be a mapping"):
            use("x", tags=tags)


def test_a_scope_puts_a_name_and_tags_in_front(registry):
    """Scopes nest; tags given later win; tags may stand in any of the names."""
    db = registry.scope("db", tags={"pool": "main", "tier": 1})
    assert db.counter("hits").key == "db.hits;pool=main;tier=1"
    assert db.counter("hits") is registry.counter("db.hits", tags={"pool": "main", "tier": 1})
    assert db.timer("query", tags={"pool": "side"}).key == "db.query;pool=side;tier=1"
    assert db.timer("query;pool=side").key == "db.query;pool=side;tier=1"
    assert db.scope("replica", tags={"tier": 2}).gauge("lag").key == "db.replica.lag;pool=main;tier=2"
    assert registry.scope("db;pool=x").counter("hits").key == "db.hits;pool=x"
    assert registry.scope("a b").counter("c d", tags={"e f": 1}).key == "a_b.c_d;e_f=1"
    assert registry.scope("s", tags={"a b": 1}).counter("x", tags={"a_b": 2}).key == "s.x;a_b=2"
    with pytest.raises(InvalidType):
        registry.scope("")
    with pytest.raises(InvalidType):
        db.counter("")


@pytest.mark.parametrize(
    "option",
    [{"exact": 0}, {"exact": 1.5}, {"exact": None}, {"expire": 0}, {"expire": -1}, {"expire": float("nan")}],
)
def test_an_option_that_means_nothing_is_refused_early(option):
    """By name, with the bad value."""
    (name,) = option
    with pytest.raises(InvalidOption, match=name):
        Registry(**option)


def test_a_registry_has_one_flusher(registry):
    """The second that would end its intervals is told of the first."""
    registry.claim("one")
    registry.claim("one")
    with pytest.raises(AlreadyStarted, match="one"):
        registry.claim("two")
    registry.release("two")
    registry.release("one")
    registry.claim("two")


# -- intervals


def test_a_window_runs_from_the_end_of_the_last_one(registry, clock):
    """The first from the creation of the registry; rates use the nominal interval."""
    start = clock.time()
    one = registry.tick(int(start) + 7, 10).cumulative
    two = registry.tick(int(start) + 17, 10).cumulative
    assert (one.start, one.end, one.interval) == (start, int(start) + 7, 10)
    assert (two.start, two.end) == (int(start) + 7, int(start) + 17)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flush_sends_the_interval_so_far_and_the_tick_all_of_it(registry, kind):
    """Whole: what a slot must hold in the end. Fresh: what no cut had before."""
    instrument, cuts = make(registry, kind), []
    for value, end in ((1, "flush"), (2, "flush"), (None, "flush"), (3, "tick"), (4, "tick")):
        if value is not None:
            measure(instrument, value)
        cuts.append(getattr(registry, end)(10, 10))
    scale = 1000 if kind == "timer" else 1
    values = {
        "counter": lambda *numbers: sum(numbers),
        "gauge": lambda *numbers: numbers[-1],
        "unique": lambda *numbers: frozenset(map(str, numbers)),
    }.get(kind, lambda *numbers: [number * scale for number in numbers])
    assert [plain(flush.cumulative)[kind]["x"] for flush in cuts] == [
        values(1),
        values(1, 2),
        values(1, 2),
        values(1, 2, 3),
        values(4),
    ]
    assert [plain(flush.delta)[kind].get("x") for flush in cuts] == [values(1), values(2), None, values(3), values(4)]


def test_a_window_stays_as_it_is(registry, tick):
    """Whatever happens later."""
    counter, timer = registry.counter("c"), registry.timer("t")
    counter.inc()
    timer.observe(1)
    cuts = [registry.flush(10, 10), tick()]
    before = [(plain(flush.cumulative), plain(flush.delta)) for flush in cuts]
    for _ in range(3):
        counter.inc()
        timer.observe(2)
        registry.flush(20, 10)
        registry.snapshot()
        tick()
    assert [(plain(flush.cumulative), plain(flush.delta)) for flush in cuts] == before


def test_series_stand_in_order_of_first_appearance(registry, tick):
    """Whether they were idle or active then, and whether a snapshot came in between."""
    for name in "cab":
        registry.counter(name)
    registry.counter("b").inc()
    registry.snapshot()
    registry.counter("d").inc()
    assert list(tick().cumulative.counters) == ["c", "a", "b", "d"]


def test_two_series_that_a_filter_gives_one_name_are_one(clock):
    """They add up in every window."""
    registry = Registry(clock=clock, filters=[rename("*", "all")])
    registry.counter("a").inc(1)
    registry.counter("b").inc(2)
    registry.timer("a").observe(1)
    registry.timer("b").observe(2)
    window = registry.tick(10, 10).cumulative
    assert window.counters == {"all": 3}
    assert sorted(window.timers["all"]._samples) == [1000, 2000]


# -- snapshots


def test_a_snapshot_shows_the_open_interval_the_last_window_and_lifetime_totals(registry, clock, tick):
    """At one moment, and it stays so."""
    counter, timer = registry.counter("c"), registry.timer("t")
    assert registry.snapshot().last is None
    counter.inc(3)
    timer.observe(1)
    last = tick().cumulative
    counter.inc(2)
    registry.flush(20, 10)
    counter.inc(4)
    registry.drops.add("bad_value", 7)
    snapshot = registry.snapshot(end=20, interval=10.0)
    assert (snapshot.time, snapshot.open.start, snapshot.open.end) == (clock.time(), last.end, 20)
    assert snapshot.open.counters == {"c": 6}
    assert snapshot.open.timers["t"].count == 0
    assert snapshot.last is last
    assert snapshot.totals["counter"]["c"].sum == 3
    assert (snapshot.totals["timer"]["t"].count, snapshot.totals["timer"]["t"].powers) == (1, {10: 1})
    assert snapshot.dropped == {"bad_value": 7}
    timer.observe(1)
    tick()
    assert snapshot.totals["counter"]["c"].sum == 3
    assert snapshot.totals["timer"]["t"].powers == {10: 1}
    assert snapshot.dropped == {"bad_value": 7}


VALUES = st.integers(0, 500).map(lambda number: number / 4)


class Reading(RuleBasedStateMachine):
    """A registry against a model that keeps every measurement in lists: any calls, in any order."""

    names = Bundle("names")

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.registry = Registry(clock=self.clock)
        self.end = int(self.clock.time())
        self.known = {kind: [] for kind in KINDS}
        self.fresh = {kind: {} for kind in KINDS}
        self.whole = {kind: {} for kind in KINDS}
        self.gauges = {}
        self.totals = {}
        self.last = None

    @rule(target=names, name=st.sampled_from(["a", "b", "c;t=1", "c;t=2"]))
    def name(self, name):
        return name

    def measured(self, kind, name, value):
        if name not in self.known[kind]:
            self.known[kind].append(name)
        for model in (self.fresh, self.whole):
            model[kind].setdefault(name, []).append(value)

    @rule(kind=st.sampled_from(KINDS), name=names)
    def create(self, kind, name):
        make(self.registry, kind, name)
        if name not in self.known[kind]:
            self.known[kind].append(name)

    @rule(name=names, value=st.integers(1, 2**30) | VALUES.filter(bool), times=st.sampled_from([1, 2, 600]))
    def inc(self, name, value, times):
        for _ in range(times):
            self.registry.counter(name).inc(value)
            self.measured("counter", name, value)

    @rule(name=names, value=VALUES, call=st.sampled_from(["set", "inc", "dec"]))
    def change(self, name, value, call):
        getattr(self.registry.gauge(name), call)(value)
        now = self.gauges.get(name) or 0
        self.gauges[name] = {"set": value, "inc": now + value, "dec": now - value}[call]
        self.measured("gauge", name, value)

    @rule(kind=st.sampled_from(["timer", "histogram"]), name=names, value=VALUES, times=st.sampled_from([1, 3, 300]))
    def observe(self, kind, name, value, times):
        for _ in range(times):
            make(self.registry, kind, name).observe(value)
            self.measured(kind, name, value * 1000 if kind == "timer" else value)

    @rule(name=names, member=st.integers(0, 9))
    def add(self, name, member):
        self.registry.unique(name).add(member)
        self.measured("unique", name, str(member))

    @rule()
    def snapshot(self):
        snapshot = self.registry.snapshot()
        self.is_whole(snapshot.open)
        assert (snapshot.last and snapshot.last.end) == self.last
        for kind in ("counter", "timer", "histogram"):
            assert {name: total.sum for name, total in snapshot.totals[kind].items()} == {
                name: self.totals.get((kind, name), (0, 0))[1] for name in self.known[kind]
            }
            if kind != "counter":
                assert {name: total.count for name, total in snapshot.totals[kind].items()} == {
                    name: self.totals.get((kind, name), (0, 0))[0] for name in self.known[kind]
                }

    @rule()
    def flush(self):
        self.cut(self.registry.flush(self.end + 10, 10))

    @rule()
    def tick(self):
        self.clock.advance(10)
        self.end += 10
        self.cut(self.registry.tick(self.end, 10))
        for kind in KINDS:
            for name, values in self.whole[kind].items():
                if kind != "unique":
                    count, total = self.totals.get((kind, name), (0, 0))
                    self.totals[kind, name] = count + len(values), total + sum(values)
        self.whole = {kind: {} for kind in KINDS}
        self.last = self.end

    def cut(self, flush):
        self.is_whole(flush.cumulative)
        assert {kind: set(flush.delta[kind]) for kind in KINDS} == {kind: set(self.fresh[kind]) for kind in KINDS}
        self.agree(flush.delta, self.fresh)
        self.fresh = {kind: {} for kind in KINDS}

    def is_whole(self, window):
        for kind in KINDS:
            expected = self.known[kind] if kind != "gauge" else [n for n in self.known[kind] if n in self.gauges]
            assert set(window[kind]) == set(expected)
        self.agree(window, self.whole)

    def agree(self, window, model):
        for name, total in window.counters.items():
            assert total == sum(model["counter"].get(name, ()))
        for kind in ("timer", "histogram"):
            for name, kept in window[kind].items():
                values = sorted(model[kind].get(name, ()))
                assert (kept.count, kept.sum) == (len(values), sum(values))
                assert not values or (kept.min, kept.max) == (values[0], values[-1])
                assert kept.exact == (len(values) <= 256)
        for name, members in window.uniques.items():
            assert members == set(model["unique"].get(name, ()))
        assert all(self.gauges[name] == value for name, value in window.gauges.items())

    @invariant()
    def nothing_is_dropped(self):
        assert self.registry.drops.totals() == {}


TestReading = Reading.TestCase
TestReading.__doc__ = "Reading changes nothing; wholes and freshes are the model's, after any calls in any order."
TestReading.settings = settings(max_examples=60, stateful_step_count=40)


# -- expiry


@pytest.fixture
def expiring(clock):
    return Registry(clock=clock, expire=30)


@pytest.fixture
def pass_time(expiring, clock):
    """Call to let so many intervals of 10 s end; returns the last flush."""

    def pass_time(intervals=1):
        flush = None
        for _ in range(intervals):
            clock.advance(10)
            flush = expiring.tick(int(clock.time()), 10)
        return flush

    return pass_time


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_series_leaves(expiring, pass_time, kind):
    """After `expire` seconds, give or take an interval; one in use stays, however long."""
    idle, busy = make(expiring, kind, "idle"), make(expiring, kind, "busy")
    measure(idle)
    for _ in range(10):
        measure(busy)
        window = pass_time().cumulative
    assert list(window[kind]) == ["busy"]
    assert set(expiring.snapshot().totals[kind]) == {"busy"}
    assert len(expiring) == 1
    for _ in range(3):
        measure(busy)
        assert "idle" not in pass_time().cumulative[kind]
    assert idle.sleeping


def test_a_series_stays_for_as_long_as_it_may(expiring, pass_time):
    """Not a window less than `expire`."""
    expiring.counter("x").inc()
    pass_time()
    for _ in range(3):
        assert "x" in pass_time().cumulative.counters


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("idle_intervals", range(9))
def test_a_held_instrument_wakes_when_used_and_loses_nothing(expiring, pass_time, kind, idle_intervals):
    """Whenever it is used: awake, going to sleep, leaving, gone; from then on it is as any other."""
    instrument = make(expiring, kind, tier="gold")
    measure(instrument, 1)
    pass_time(1 + idle_intervals)
    for value in (2, 3):
        for _ in range(600):
            measure(instrument, value)
        flush = pass_time()
        for window in (flush.delta, flush.cumulative):
            kept = window[kind]["x;tier=gold"]
            assert kept == {"counter": 600 * value, "gauge": value, "unique": frozenset(str(value))}.get(kind, kept)
            assert kind not in ("timer", "histogram") or kept.count == 600
    assert len(expiring) == 1
    assert make(expiring, kind, tier="gold") is instrument


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_a_sleeping_instrument_gives_the_same_object(expiring, pass_time, kind):
    """Asking does not wake it: only use does."""
    instrument = make(expiring, kind)
    measure(instrument)
    for _ in range(12):
        pass_time()
        assert make(expiring, kind) is instrument
    assert "x" not in pass_time().cumulative[kind]


def test_a_call_under_way_while_the_instrument_goes_to_sleep_or_leaves_is_not_lost(expiring, pass_time):
    """A thread was stopped between finding the buffer and appending to it; it goes on much later.

    In the C implementation there is no such moment: the call as a whole comes later.
    """
    for intervals in range(9):
        counter = expiring.counter(f"x{intervals}")
        counter.inc()
        pass_time()
        go_on = counter._pending.append if hasattr(counter, "_pending") else counter.inc
        pass_time(intervals)
        go_on(5)
        assert pass_time().delta.counters == {counter.key: 5}


def test_an_instrument_used_in_the_moment_it_leaves_stays(expiring, pass_time, monkeypatch):
    """Between the look at who is idle and the leaving."""
    counter = expiring.counter("x")
    counter.inc()
    pass_time(5)
    assert counter.sleeping
    forget = expiring._states.forget

    def use_and_forget(kind, key):
        counter.inc(7)
        forget(kind, key)

    monkeypatch.setattr(expiring._states, "forget", use_and_forget)
    pass_time()
    assert not counter.sleeping
    counter.inc(1)
    assert pass_time().delta.counters == {"x": 8}
    assert len(expiring) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_of_what_the_program_dropped_is_freed(expiring, pass_time, kind):
    """Also of children, while their parent is in use; and what is made anew is another object."""
    parent = make(expiring, kind)
    gone = [weakref.ref(make(expiring, kind, f"other{number}")) for number in range(5)]
    gone += [weakref.ref(parent.tagged(user=number)) for number in range(5)]
    for reference in gone:
        measure(reference())
    for _ in range(7):
        measure(parent)
        pass_time()
    gc.collect()
    assert [reference() for reference in gone] == [None] * 10
    assert len(expiring) == 1
    measure(parent.tagged(user=0))
    assert "x;user=0" in pass_time().delta[kind]


def test_tag_sets_that_left_make_room_for_new_ones(clock):
    """Also for one that was sent to the overflow before, and that the parent remembers so."""
    registry = Registry(clock=clock, expire=30, max_tag_sets=2)
    counter = registry.counter("x")
    for number in range(3):
        counter.tagged(user=number).inc()
    for _ in range(8):
        clock.advance(10)
        registry.tick(int(clock.time()), 10)
    counter.tagged(user=2).inc()
    clock.advance(10)
    assert registry.tick(int(clock.time()), 10).delta.counters == {"x;user=2": 1}


def test_threads_that_use_a_series_while_it_comes_and_goes_lose_nothing(clock):
    """It expires at every other tick, in the middle of their calls."""
    registry, stop, made, seen = Registry(clock=clock, expire=0.001), threading.Event(), [], 0

    def work():
        count, counter = 0, registry.counter("x")
        while not stop.is_set():
            counter.inc()
            registry.counter("y").inc()
            count += 1
            if count % 50 == 0:
                stop.wait(0.0005)  # long enough for some ticks to see it idle
        made.append(count)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    left = ticks = 0
    while left < 300 and ticks < 100_000:
        ticks += 1
        clock.advance(10)
        fresh = registry.tick(int(clock.time()), 10).delta.counters
        seen += fresh.get("x", 0) + fresh.get("y", 0)
        left += "x" not in registry._states["counter"]
    stop.set()
    for thread in threads:
        thread.join()
    for _ in range(3):
        clock.advance(10)
        fresh = registry.tick(int(clock.time()), 10).delta.counters
        seen += fresh.get("x", 0) + fresh.get("y", 0)
    assert left == 300
    assert seen == 2 * sum(made)


def test_a_gauge_with_a_callback_does_not_expire(expiring, pass_time):
    """It is read at each tick, also when it has nothing to say."""
    expiring.gauge("x", read=lambda: None)
    expiring.gauge("y", read=lambda: 1)
    pass_time(10)
    assert len(expiring) == 2
    assert pass_time().cumulative.gauges == {"y": 1}


def test_nothing_in_it_is_not_nothing(registry, tick):
    """A registry without series is a registry, and a window without series happened: both are true."""
    assert registry
    assert tick().cumulative
    assert registry.snapshot().last
    assert (len(registry), len(tick().cumulative)) == (0, 0)


def test_without_expiry_all_series_stay(registry, tick):
    """The default."""
    registry.counter("x")
    for _ in range(100):
        assert tick().cumulative.counters == {"x": 0}


# -- sources


def test_what_a_source_collects_is_part_of_every_window(registry, tick):
    """Beside the instruments, in the same series too."""
    feed = Feed({"x": 1}, {"x": 2, "y": 5})
    registry.add_source(feed)
    registry.counter("x").inc(10)
    assert registry.flush(10, 10).delta.counters == {"x": 11}
    flush = tick()
    assert flush.delta.counters == {"x": 2, "y": 5}
    assert flush.cumulative.counters == {"x": 13, "y": 5}
    assert tick().cumulative.counters == {"x": 0, "y": 0}


def test_the_numbers_of_what_was_received_are_in_the_cut_that_holds_it(registry, tick):
    """In that one alone, whatever a snapshot asked for in between."""
    registry.add_source(NumberedFeed({"a": 5}, {"b": 1, "a": 7}, {}))
    registry.snapshot()
    assert registry.flush(10, 10).received == {"a": 7, "b": 1}
    assert tick().received == {}


def test_a_source_that_goes_is_asked_a_last_time(registry, tick):
    """And never again."""
    feed = Feed({"x": 1}, {"x": 2})
    registry.add_source(feed)
    registry.remove_source(feed)
    assert tick().cumulative.counters == {"x": 1}
    assert feed.batches == [{"x": 2}]


def test_a_source_that_fails_stops_nobody(registry, tick, caplog):
    """It is counted and logged, and asked again next time."""
    registry.add_source(Feed(RuntimeError("broken"), {"x": 1}))
    registry.counter("y").inc()
    assert tick().cumulative.counters == {"y": 1}
    assert registry.drops.totals() == {"source_error": 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert tick().delta.counters == {"x": 1}


def test_a_source_is_told_what_expired(expiring, pass_time):
    """So it can free what it keeps; if it fails in that, the tick goes on."""

    class Failing(Feed):
        def forget(self, kind, key):
            super().forget(kind, key)
            raise RuntimeError("broken")

    feeds = [Failing({"x": 1}), Feed({"x": 1})]
    for feed in feeds:
        expiring.add_source(feed)
    pass_time(10)
    assert [feed.forgotten for feed in feeds] == [[("counter", "x")]] * 2
    assert pass_time().cumulative.counters == {}
    assert expiring.drops.totals() == {"source_error": 1}


def test_a_source_asks_under_which_key_to_report(clock):
    """Filters and caps hold for it too."""
    registry = Registry(clock=clock, filters=[rename("old", "new")], max_tag_sets=1)
    assert registry.admit("counter", "old") == "new"
    assert registry.admit("counter", "x", (("a", "1"),)) == "x;a=1"
    assert registry.admit("counter", "x", (("a", "2"),)) == "x;overflow=true"
    assert registry.admit("gauge", "g", (("a", "1"),)) == "g;a=1"
    assert registry.admit("gauge", "g", (("a", "2"),)) is None


# -- locks


def test_ticks_and_snapshots_exclude_each_other_and_do_not_wait_for_ever(registry, monkeypatch):
    """A source that asks for a snapshot of its own registry gets an error, not a dead program."""
    monkeypatch.setattr("metricslib.registry._LOCK_TIMEOUT", 0.01)
    errors = []

    class Asking:
        def collect(self):
            try:
                registry.snapshot()
            except TimeoutError as error:
                errors.append(error)
            return Aggregates()

    registry.add_source(Asking())
    registry.counter("x").inc()
    assert registry.tick(10, 10).cumulative.counters == {"x": 1}
    assert len(errors) == 1


def test_callbacks_are_read_without_the_lock(registry):
    """One that takes long stops no page, and may ask for a snapshot itself."""
    open_before = []

    def read():
        open_before.append(registry.snapshot().open.gauges)
        return 1

    registry.gauge("x", read=read)
    assert registry.tick(10, 10).cumulative.gauges == {"x": 1}
    assert open_before == [{}]


def test_making_instruments_waits_for_no_tick(registry):
    """A tick that takes long stops no program."""
    with registry._lock:
        registry.counter("x").tagged(a=1).inc()
        registry.gauge("y", read=lambda: 1)
    assert registry.tick(10, 10).cumulative.counters == {"x": 0, "x;a=1": 1}
