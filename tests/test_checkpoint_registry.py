"""What a registry knew comes back after a restart: totals, gauges, the open interval, the order, and nothing twice."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from metricslib.checkpoint import RegistryCheckpoint
from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.schedule import Schedule
from metricslib.series_state import Idle
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock
from metricslib.window import Aggregates, Flush, GaugeChange

INTERVAL = 10


class Run:
    """A process: a registry with its participant, which goes on from the stored, a dictionary that outlives it."""

    def __init__(self, clock: ManualClock, stored: dict[str, bytes], own: str = "", **options: Any) -> None:
        self.clock, self.stored = clock, stored
        self.registry = Registry(clock=clock, **options)
        self.start(own)

    def start(self, own: str = "") -> None:
        schedule = Schedule(INTERVAL, self.clock.time())
        self.participant = RegistryCheckpoint(
            self.registry, lambda: (schedule.next_stamp(self.clock.time()), INTERVAL), own
        )
        self.registry.add_source(self.participant)
        self.participant.restore(dict(self.stored))

    def cut(self, *, closes: bool, kept: bool = True) -> Flush:
        stamp = int(self.clock.time() // INTERVAL) * INTERVAL
        flush = self.registry.tick(stamp, INTERVAL) if closes else self.registry.flush(stamp + INTERVAL, INTERVAL)
        notes = dict(self.participant.notes(flush, closes=closes))
        self.noted = set(notes)
        if kept:
            self.stored.update({key: note for key, note in notes.items() if note is not None})
            for key in [key for key, note in notes.items() if note is None]:
                self.stored.pop(key, None)
            self.participant.committed(flush)
        return flush

    def tick(self, **how: Any) -> Flush:
        self.clock.advance(INTERVAL - self.clock.time() % INTERVAL)
        return self.cut(closes=True, **how)

    def flush(self, **how: Any) -> Flush:
        return self.cut(closes=False, **how)


@pytest.fixture
def stored() -> dict[str, bytes]:
    return {}


@pytest.fixture
def run(clock: ManualClock, stored: dict[str, bytes]) -> Any:
    """Call to start another process on the same clock and stored."""
    clock.advance(1)
    return lambda own="", **options: Run(clock, stored, own, **options)


def use_all(registry: Registry) -> None:
    registry.counter("c").inc(2)
    registry.timer("t").observe(0.5)
    registry.histogram("h").observe(3)
    registry.gauge("g").set(7)
    registry.unique("u").add("somebody")


# -- what comes back


def test_totals_and_gauges_come_back(run):
    """After a crash behind the end of an interval nothing is missing of what had ended."""
    first = run()
    use_all(first.registry)
    first.tick()
    use_all(first.registry)
    first.tick()
    before = first.registry.snapshot()
    after = run().registry.snapshot()
    for kind, series in before.totals.items():
        assert set(after.totals[kind]) == set(series)
        for key, total in series.items():
            found = after.totals[kind][key]
            assert (found.sum, found.count, found.powers, found.gauge, found.active) == (
                (total.sum, total.count, total.powers, total.gauge, total.active)
            )
    assert after.open.gauges == {"g": 7}
    assert after.open.counters == {"c": 0}
    assert after.dropped == {}


def test_totals_continue(run):
    """What is measured in the next process is added, and so on."""
    for number in range(1, 4):
        process = run()
        use_all(process.registry)
        process.tick()
        totals = process.registry.snapshot().totals
        assert totals["counter"]["c"].sum == 2 * number
        assert totals["timer"]["t"].count == number
        assert totals["timer"]["t"].powers == {9: number}


def test_a_gauge_goes_on_from_its_value(run):
    """A change by one is one more than before the restart; a value that is set is that value."""
    first = run()
    first.registry.gauge("depth").set(5)
    first.tick()
    second = run()
    second.registry.gauge("depth").inc()
    assert second.flush().cumulative.gauges == {"depth": 6}
    second.tick()
    assert run().tick().cumulative.gauges == {"depth": 6}
    last = run()
    last.registry.gauge("depth").set(1)
    assert last.tick().cumulative.gauges == {"depth": 1}


def test_the_order_is_that_of_before(run):
    """By first use, whatever order the notes come in, and what is new stands behind."""
    first = run()
    for name in ("m", "z", "a"):
        first.registry.counter(name).inc()
        first.tick()
    first.registry.counter("m").inc()
    first.tick()
    second = run()
    second.registry.counter("b").inc()
    second.registry.counter("z").inc()
    assert list(second.tick().cumulative.counters) == ["m", "z", "a", "b"]
    assert list(run().tick().cumulative.counters) == ["m", "z", "a", "b"]


def test_sources_series_come_back_as_instruments_do(run):
    """A forwarder's gauges and counters go on, too."""
    first = run()
    aggregator = Aggregator(first.registry)
    first.registry.add_source(aggregator)
    aggregator.feed([b"c;b=1;a=2:3|c\ng:5|g\nt:12|ms"])
    first.tick()
    second = run()
    aggregator = Aggregator(second.registry)
    second.registry.add_source(aggregator)
    aggregator.feed([b"c;a=2;b=1:1|c\ng:+1|g"])
    window = second.tick().cumulative
    assert (window.counters, window.gauges) == ({"c;a=2;b=1": 1}, {"g": 6})
    assert second.registry.snapshot().totals["counter"]["c;a=2;b=1"].sum == 4
    assert len(second.registry) == 3


# -- the open interval


def test_the_open_interval_goes_on_as_sent(run):
    """In the same slot whole flushes hold what both processes measured, and fresh ones only what is new."""
    first = run()
    use_all(first.registry)
    first.tick()
    use_all(first.registry)
    first.flush()
    second = run()
    use_all(second.registry)
    second.registry.unique("u").add("else")
    flush = second.tick()
    assert flush.cumulative.start == first.registry.snapshot().last.end
    assert flush.cumulative.counters == {"c": 4}
    assert flush.cumulative.timers["t"].count == flush.cumulative.histograms["h"].count == 2
    assert flush.cumulative.uniques == {"u": {"somebody", "else"}}
    assert flush.delta.counters == {"c": 2}
    assert flush.delta.timers["t"].count == 1
    assert second.registry.snapshot().totals["counter"]["c"].sum == 6
    assert "open" not in second.stored


def test_an_open_interval_may_be_continued_again_and_again(run):
    """However often a program is started in one interval, it has one slot with all of it."""
    for number in range(1, 6):
        process = run()
        process.registry.counter("c").inc()
        process.registry.gauge("g").inc()
        flush = process.flush()
        assert (flush.cumulative.counters, flush.cumulative.gauges) == ({"c": number}, {"g": number})
        assert flush.delta.counters == {"c": 1}
    assert process.tick().cumulative.counters == {"c": 5}
    totals = run().registry.snapshot().totals
    assert (totals["counter"]["c"].sum, totals["gauge"]["g"].gauge) == (5, 5)


def test_an_open_interval_whose_time_is_over_is_not_sent_again(run, clock):
    """Its slot was committed with it; the totals have it, and so do gauges."""
    first = run()
    use_all(first.registry)
    first.flush()
    clock.advance(INTERVAL)
    second = run()
    assert second.registry.sent_as is None
    second.registry.gauge("g").inc()
    flush = second.tick()
    assert (flush.cumulative.counters, flush.cumulative.gauges) == ({"c": 0}, {"g": 8})
    assert not flush.delta.counters
    for process in (second, run(), run()):
        totals = process.registry.snapshot().totals
        assert (totals["counter"]["c"].sum, totals["timer"]["t"].count, totals["gauge"]["g"].gauge) == (2, 1, 8)


def test_an_open_interval_in_the_future_is_not_continued(run, clock):
    """After the clock was set back it has a slot of its own, and nothing that comes now belongs there."""
    first = run()
    first.registry.counter("c").inc()
    first.flush()
    clock.set_time(clock.time() - 3600)
    second = run()
    assert second.registry.sent_as is None
    assert second.tick().cumulative.counters == {"c": 0}
    assert second.registry.snapshot().totals["counter"]["c"].sum == 1


def test_a_sketch_goes_on(run):
    """A timer with more samples than are kept is one distribution over both processes, to the last bit."""
    values = [number / 7 for number in range(1, 1001)]
    parts = []
    for half in (values[:600], values[600:]):
        process = run()
        for value in half:
            process.registry.histogram("h").observe(value)
        parts.append(Distribution(half).freeze())
        flush = process.flush()
    both = Distribution()
    for part in parts:
        both.merge(part)
    found = flush.cumulative.histograms["h"]
    assert (found.count, found.sum, found.sum_squares) == (1000, both.freeze().sum, both.sum_squares)
    assert found.shares((50, 90, -10)) == both.shares((50, 90, -10))


# -- what is noted when


def test_an_end_of_interval_notes_what_something_happened_to(run):
    """So a million idle series cost nothing."""
    process = run()
    for number in range(50):
        process.registry.counter(f"c{number}").inc()
    process.tick()
    assert len(process.noted) == 51
    process.registry.counter("c7").inc()
    process.registry.gauge("g").set(1)
    process.tick()
    assert process.noted == {"series/counter/c7", "series/gauge/g", "open"}
    process.tick()
    assert process.noted == {"open"}


def test_what_a_flush_took_is_noted_by_the_end_of_the_interval(run):
    """Also where nothing happened since."""
    process = run()
    process.registry.counter("c").inc()
    process.flush()
    assert "open" in process.stored
    process.tick()
    assert run().registry.snapshot().totals["counter"]["c"].sum == 1


def test_what_was_not_kept_is_noted_again(run):
    """A disk that was full for an interval costs no total: the next flush that is kept has all of it."""
    process = run()
    process.registry.counter("old").inc()
    process.registry.gauge("gone").set(1)
    process.tick()
    process.registry.counter("old").inc()
    process.registry.counter("new").inc()
    process.registry.forget("gauge", ["gone"])
    process.tick(kept=False)
    assert len(process.stored) == 2
    process.tick()
    totals = run().registry.snapshot().totals
    assert {key: total.sum for key, total in totals["counter"].items()} == {"old": 2, "new": 1}
    assert not totals["gauge"]


def test_what_is_deleted_or_expires_takes_its_note_along(run, stored):
    """And when it comes again, it begins anew."""
    process = run(expire=15)
    for name in ("deleted", "idle"):
        process.registry.counter(name).inc()
    process.registry.counter("again").inc(5)
    process.tick()
    process.registry.forget("counter", ["deleted", "again"])
    process.registry.counter("again").inc()
    for _ in range(4):
        process.registry.counter("again").inc()
        process.tick()
    assert set(stored) == {"series/counter/again"}
    assert run().registry.snapshot().totals["counter"]["again"].sum == 5


def test_a_series_that_is_deleted_after_a_restart_does_not_come_back(run, stored):
    """Though the new process never used it."""
    first = run()
    use_all(first.registry)
    first.tick()
    second = run()
    assert second.registry.forget("gauge", ["g"]) == ["g"]
    second.tick()
    assert "g" not in run().registry.snapshot().totals["gauge"]


# -- what is of one process alone


class Own:
    """What a process says of itself."""

    def collect(self):
        collected = Aggregates()
        collected.add("counter", "own.sent;destination=old", 1)
        collected.add("gauge", "own.age;destination=old", GaugeChange(3))
        return collected

    def forget(self, kind, key):
        pass


@pytest.mark.parametrize("away", [0, INTERVAL])
def test_what_a_process_says_of_itself_begins_anew(run, clock, stored, away):
    """A destination that is no longer one is not told of for ever; but in the slot that goes on, counts add up."""
    first = run("own")
    first.registry.add_source(Own())
    first.tick()
    assert not stored
    first.flush()
    clock.advance(away)
    second = run("own")
    assert len(second.registry) == 0
    window = second.tick().cumulative
    assert (window.counters, window.gauges) == ({} if away else {"own.sent;destination=old": 1}, {})
    assert not run("own").registry.snapshot().totals["counter"]


def test_gauges_of_what_is_in_a_process_do_not_come_back(run, stored):
    """How many calls are under way, and what a callback says, is known only by who lives."""
    first = run()

    @first.registry.in_progress("calls")
    def killed():
        first.flush()
        first.tick()
        first.flush()
        return run().tick().cumulative.gauges

    first.registry.gauge("queue", read=lambda: 5)
    first.registry.gauge("set").set(1)
    assert killed() == {"set": 1}
    assert first.registry.snapshot().open.gauges == {"calls": 0, "queue": 5, "set": 1}


# -- caps, expiry, idle series


def test_caps_hold_for_what_comes_back(run, stored):
    """Who was there first stays; who finds no room is counted, and its note goes."""
    first = run()
    for number in range(6):
        first.registry.counter("c", {"n": number}).inc()
        first.registry.counter(f"d{number}").inc()
    first.tick()
    second = run(max_series=7, max_tag_sets=3)
    assert len(second.registry) == 7
    assert second.registry.snapshot().dropped == {"not_restored": 5}
    assert list(second.flush().cumulative.counters) == ["c;n=0", "d0", "c;n=1", "d1", "c;n=2", "d2", "d3"]
    second.registry.counter("c", {"n": 5}).inc()
    assert second.tick().cumulative.counters["c;overflow=true"] == 1
    assert len(stored) == 8
    third = run(max_series=7, max_tag_sets=3)
    assert len(third.registry) == 7
    assert third.registry.snapshot().dropped == {}


def test_an_instrument_of_a_series_that_came_back_takes_no_more_room(run):
    """The series is the same."""
    first = run(max_series=2)
    first.registry.counter("a").inc()
    first.registry.counter("b").inc()
    first.tick()
    second = run(max_series=2)
    second.registry.counter("b").inc()
    assert second.tick().cumulative.counters == {"a": 0, "b": 1}


def test_what_was_idle_for_long_leaves_in_time(run, clock):
    """Expiry counts from the last use, in whichever process."""
    first = run(expire=60)
    first.registry.counter("c").inc()
    first.tick()
    clock.advance(40)
    second = run(expire=60)
    second.tick()
    assert len(second.registry) == 1
    second.tick()
    second.tick()
    assert len(second.registry) == 0


@pytest.mark.parametrize(("away", "value"), [(15, {"g": 3}), (45, {})])
def test_idle_series_leave_windows_as_if_nothing_had_been(run, clock, away, value):
    """A gauge that repeats its value three times does so over a restart, and no more often."""
    idle = Idle({"gauge": 4, "counter": 1})
    first = run(idle=idle)
    first.registry.gauge("g").set(3)
    first.registry.counter("c").inc()
    first.tick()
    clock.advance(away)
    second = run(idle=idle)
    window = second.tick().cumulative
    assert (window.gauges, window.counters) == (value, {})
    second.registry.counter("c").inc()
    assert second.tick().cumulative.counters == {"c": 1}
    assert second.registry.snapshot().totals["counter"]["c"].sum == 2


# -- what was measured before the start


def test_what_was_measured_before_is_added(run, clock, stored):
    """A program may measure, and end intervals, before it is told where its spool is."""
    first = run()
    first.registry.counter("c").inc(1)
    first.registry.gauge("g").set(5)
    first.tick()
    second = Registry(clock=clock)
    second.counter("new").inc()
    second.counter("c").inc(10)
    clock.advance(10)
    second.tick(int(clock.time() // 10) * 10, 10)
    second.counter("c").inc(100)
    process = Run.__new__(Run)
    process.clock, process.stored, process.registry = clock, stored, second
    process.start()
    window = process.tick().cumulative
    assert (window.counters, window.gauges) == ({"c": 100, "new": 0}, {"g": 5})
    for registry in (second, run().registry):
        totals = registry.snapshot().totals["counter"]
        assert {key: total.sum for key, total in totals.items()} == {"c": 111, "new": 1}


def test_a_second_start_in_one_process_adds_nothing(run):
    """The registry knows better than any note, and the stored then says what it knows."""
    process = run()
    process.registry.counter("c").inc()
    process.tick()
    process.registry.counter("c").inc()
    process.registry.counter("flushed").inc()
    process.flush()
    process.registry.remove_source(process.participant)
    process.registry.counter("c").inc()
    process.registry.forget("counter", ["flushed"])
    process.stored["series/counter/stale"] = process.stored["series/counter/c"]
    process.start()
    assert process.tick().cumulative.counters == {"c": 2}
    totals = run().registry.snapshot().totals["counter"]
    assert {key: total.sum for key, total in totals.items()} == {"c": 3}


# -- what is no note


@pytest.mark.parametrize(
    "broken",
    [
        {"series/counter/x": b"{"},
        {"series/counter/x y": b'{"place":0,"active":1}'},
        {"series/nonsense/x": b'{"place":0,"active":1}'},
        {"series/": b"", "series": b""},
        {"open": b'{"start":0}'},
        {"open": b"\xff"},
    ],
)
def test_broken_notes_are_counted_and_cost_nothing_else(run, stored, broken):
    """They go with the next flush; notes of other checkpoint are not looked at."""
    first = run()
    use_all(first.registry)
    first.tick()
    stored.update({**broken, "sender/abc": b"\xff"})
    second = run()
    second.registry.gauge("g").inc()
    assert second.tick().cumulative.gauges == {"g": 8}
    assert second.registry.snapshot().dropped == {"bad_note": 1}
    assert not {key for key in broken if key != "series"} & set(stored)
    assert "sender/abc" in stored


def test_one_broken_series_of_the_open_interval_is_left_out(run, stored):
    """The others go on."""
    first = run()
    first.registry.counter("a").inc()
    first.registry.counter("b").inc()
    first.flush()
    stored["open"] = stored["open"].replace(b'"a":1', b'"a":null')
    second = run()
    assert second.tick().cumulative.counters == {"a": 0, "b": 1}
    assert second.registry.snapshot().dropped == {"bad_note": 1}


# -- any life after any other


class Noting:
    """Stands between a flusher and the participant: keeps the notes in the stored, and the flushes."""

    def __init__(self, participant: RegistryCheckpoint, stored: dict[str, bytes], cuts: list[Flush]) -> None:
        self.participant, self.stored, self.cuts = participant, stored, cuts

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        self.cuts.append(flush)
        self.noted = dict(self.participant.notes(flush, closes=closes))
        return {}

    def committed(self, flush: Flush) -> None:
        for key, note in self.noted.items():
            self.stored.pop(key, None)
            if note is not None:
                self.stored[key] = note
        self.participant.committed(flush)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        self.participant.restore(notes)


class Lives:
    """One program after the other, with a flusher that ticks when it is due; and what they measured."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.stored: dict[str, bytes] = {}
        self.cuts: list[Flush] = []
        self.measured = self.uncut = 0
        self.begin()

    def begin(self) -> None:
        self.registry = Registry(clock=self.clock)
        self.flusher = Flusher(self.registry, interval=INTERVAL, own="")
        schedule = self.flusher._schedule
        participant = RegistryCheckpoint(self.registry, lambda: (schedule.next_stamp(self.clock.time()), INTERVAL))
        self.registry.add_source(participant)
        noting = Noting(participant, self.stored, self.cuts)
        noting.restore(self.stored)
        self.flusher.add_participant(noting)

    def measure(self, number: int) -> None:
        self.registry.counter("c").inc(number)
        self.registry.gauge("g").inc(number)
        for _ in range(number):
            self.registry.histogram("h").observe(number)
        self.measured += number
        self.uncut += number

    def tick(self) -> None:
        if self.flusher._schedule.delay(self.clock.time()) == 0:
            self.flusher.tick()
            self.uncut = 0

    def flush(self) -> None:
        self.flusher.flush()
        self.uncut = 0

    def stop(self) -> None:
        self.flush()
        self.begin()

    def die(self) -> None:
        self.measured -= self.uncut
        self.uncut = 0
        self.begin()


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["tick", "flush", "stop", "die"]),
            st.integers(1, 300),
            st.sampled_from([0.5, 3.0, 10.0, 10.0, 47.5]),
        ),
        max_size=40,
    )
)
def test_lives_follow_each_other_without_a_seam(steps):
    """Whenever programs are stopped or killed: each slot holds what was cut for it by all of them, totals and gauges
    what was ever cut, and only what was in no cut is lost.
    """
    lives = Lives()
    for step in steps:
        if isinstance(step, str):
            getattr(lives, step)()
        elif isinstance(step, int):
            lives.measure(step)
        else:
            lives.clock.advance(step)
    lives.flush()
    for read in (lambda window: window.counters.get("c", 0), lambda window: count(window.histograms.get("h"))):
        slots: dict[int, float] = {}
        for flush in lives.cuts:
            slots[flush.cumulative.end] = slots.get(flush.cumulative.end, 0) + read(flush.delta)
            assert read(flush.cumulative) == slots[flush.cumulative.end]
        assert sum(slots.values()) == lives.measured
    lives.begin()
    lives.clock.advance(INTERVAL)
    lives.tick()
    totals = lives.registry.snapshot().totals
    if lives.measured:
        assert totals["counter"]["c"].sum == totals["gauge"]["g"].gauge == totals["histogram"]["h"].count
        assert totals["counter"]["c"].sum == lives.measured
    assert lives.registry.snapshot().dropped == {}


def count(distribution: Distribution | None) -> float:
    return distribution.count if distribution else 0
