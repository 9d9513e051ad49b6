"""A collection: what is new, at the cost of looking at it, and without changing what a tick or flush holds."""

import pytest

from metricslib.registry import Registry
from metricslib.window import ABSENT, Aggregates, GaugeChange


@pytest.fixture
def measure(registry, clock):
    def measure(on: Registry = registry) -> None:
        on.counter("hits").inc(3)
        on.timer("took").observe(0.5)
        on.unique("users").add("ann")
        on.gauge("depth").inc(2)

    return measure


def test_each_collection_has_what_is_new(registry, measure):
    measure()
    found = registry.collect_new("group")
    assert found.counters == {"hits": 3}
    assert found.timers["took"].parts()["samples"] == [500.0]
    assert found.uniques == {"users": {"ann"}}
    assert found.gauges == {"depth": GaugeChange(2)}
    assert not registry.collect_new("group")
    measure()
    assert registry.collect_new("group").gauges == {"depth": GaugeChange(4)}


@pytest.mark.parametrize("ends", ["tick", "flush"])
def test_ticks_and_flushes_hold_the_same_with_collections_and_without(registry, clock, measure, ends):
    alone = Registry(clock=clock)
    cuts = []
    for on in (alone, registry):
        on.gauge("depth").set(7)
        of = []
        for end in (10, 20):
            for _ in range(3):
                measure(on)
                if on is registry:
                    on.collect_new("group")
            of.append(on.tick(end, 10.0) if ends == "tick" else on.flush(end, 10.0, collector="group"))
            measure(on)
            if on is registry:
                on.collect_new("group")
        cuts.append([(_of(flush.cumulative), _of(flush.delta)) for flush in of])
    assert cuts[0] == cuts[1]


def _of(window):
    timers = {key: timer.parts() for key, timer in window.timers.items()}
    return dict(window.counters), timers, dict(window.gauges), dict(window.uniques)


def test_a_collector_that_is_gone_left_nothing_collected(registry, measure):
    measure()
    registry.collect_new("group")
    registry.uncollect("group")
    assert registry.collect_new("group").counters == {"hits": 3}


def test_what_comes_after_a_tick_or_flush_is_new(registry, measure):
    registry.collect_new("group")
    measure()
    registry.flush(10, 10.0, collector="group")
    assert not registry.collect_new("group")
    measure()
    found = registry.collect_new("group")
    assert found.counters == {"hits": 3}
    assert found.gauges == {"depth": GaugeChange(4)}
    assert registry.tick(10, 10.0).cumulative.counters == {"hits": 6}


def test_a_snapshot_takes_nothing_from_a_collection_nor_the_other_way_round(registry, measure):
    measure()
    registry.snapshot()
    assert registry.collect_new("group").counters == {"hits": 3}
    measure()
    assert registry.snapshot().open.counters == {"hits": 6}
    assert registry.snapshot(only={"counter": ["hits"]}).open.counters == {"hits": 6}
    assert registry.keys("counter") == ["hits"]


def test_a_deleted_series_takes_what_was_collected_with_it(registry, measure):
    measure()
    registry.collect_new("group")
    assert registry.forget("counter", ["hits"]) == ["hits"]
    assert "hits" not in registry.tick(10, 10.0).cumulative.counters


def test_no_callback_is_read(registry):
    registry.gauge("free", read=lambda: pytest.fail("read"))
    registry.counter("hits").inc()
    assert registry.collect_new("group").counters == {"hits": 1}


def test_numbers_of_batches_reach_the_next_cut(registry):
    class Numbered:
        def collect(self) -> Aggregates:
            found = Aggregates()
            found.received = {"sender": 7}
            return found

        def forget(self, kind: str, key: str) -> None: ...

    source = Numbered()
    registry.add_source(source)
    registry.collect_new("group")
    registry.remove_source(source)
    assert registry.tick(10, 10.0).received == {"sender": 7}


def test_members_of_sets_that_are_collected_again_are_counted_once(registry):
    users = registry.unique("users")
    users.add("ann")
    registry.collect_new("group")
    once = registry.budget.members.used
    for _ in range(5):
        users.add("ann")
        registry.collect_new("group")
    assert registry.budget.members.used == once > 0


def test_a_gauge_without_a_value_is_absent(registry, clock):
    class Failing:
        def collect(self) -> Aggregates:
            found = Aggregates()
            found.gauges = {"depth": ABSENT}
            return found

        def forget(self, kind: str, key: str) -> None: ...

    registry.add_source(Failing())
    assert registry.collect_new("group").gauges["depth"] is ABSENT


def test_another_collector_gets_all_of_the_open_interval_and_the_first_goes_on(registry, measure):
    """Where a flusher without a group has flushed meanwhile, that was no collection."""
    measure()
    assert registry.collect_new("one").counters == {"hits": 3}
    measure()
    registry.flush(10, 10.0)
    assert registry.collect_new("one").counters == {"hits": 3}
    measure()
    found = registry.collect_new("other")
    assert found.counters == {"hits": 9}
    assert found.gauges == {"depth": GaugeChange(6)}
    registry.tick(10, 10.0)
    assert not registry.collect_new("other")


def test_what_was_set_is_the_whole_and_what_was_changed_or_read_a_part(registry):
    registry.gauge("set").set(1)
    registry.gauge("changed").inc()
    registry.gauge("read", read=lambda: 1)
    registry.gauge("both").inc()
    registry.gauge("both").set(1)
    registry.flush(10, 10.0)
    assert {key: registry.across(key) for key in ("set", "changed", "read", "both")} == {
        "set": "last",
        "changed": "sum",
        "read": "sum",
        "both": "last",
    }


def test_a_program_may_choose_how_the_values_of_a_gauge_are_combined(registry):
    """Whatever is done with the gauge; the last choice counts, and tagged gauges take it over."""
    registry.gauge("set", across="max").set(1)
    registry.gauge("read", lambda: 1.0, across="each")
    registry.gauge("changed", across="last").inc()
    registry.gauge("changed", across="min")
    registry.gauge("scoped", across="sum").tagged(pool="a").set(1)
    registry.gauge("scoped", across="last")
    registry.tick(10, 10)
    registry.scope("db").gauge("free", across="each").set(2)
    registry.tick(20, 10)
    rules = {key: registry.across(key) for key in registry.keys("gauge")}
    expected = {"set": "max", "read": "each", "changed": "min", "scoped": "last", "scoped;pool=a": "sum"}
    assert rules == {**expected, "db.free": "each"}


def test_a_choice_goes_with_its_gauge(registry):
    registry.gauge("g", across="max").set(1)
    registry.tick(10, 10)
    registry.forget("gauge", ["g"])
    assert registry.across("g") == "last"
