"""The window of a slot: idle series have their place, and each gauge its rule."""

import json

import pytest

from metricslib.budget import Budget
from metricslib.drops import DropCounter
from metricslib.group.merge import RESTATED, KnownSeries
from metricslib.group.record import GaugeValue, Slot
from metricslib.limits import Limits
from metricslib.sketch import NO_SAMPLES, Distribution
from metricslib.window import Aggregates

HOUR = 3600


def slot(*, gauges=None, **counters: float) -> Slot:
    found = Aggregates()
    found.counters = dict(counters)
    return Slot(found, gauges or {})


def test_a_window_has_what_the_members_measured():
    found = Aggregates()
    found.counters = {"hits": 3}
    found.timers = {"took": Distribution([1.0], limit=4).freeze()}
    found.uniques = {"users": frozenset("a")}
    window = KnownSeries().window(Slot(found, {}), 110, 10)
    assert (window.start, window.end, window.interval) == (100, 110, 10)
    assert (window.counters, window.timers, window.uniques) == (found.counters, found.timers, found.uniques)


def test_an_idle_series_is_0_until_an_hour_after_no_member_states_it():
    known = KnownSeries()
    found = slot(hits=3).aggregates
    found.timers = {"took": Distribution([1.0], limit=4).freeze()}
    found.uniques = {"users": frozenset("a")}
    known.window(Slot(found, {}), 1000, 10)
    after = known.window(slot(other=1), 1010, 10)
    assert after.counters == {"hits": 0, "other": 1}
    assert after.timers == {"took": NO_SAMPLES}
    assert after.uniques == {"users": frozenset()}
    assert "hits" in known.window(slot(), 1000 + RESTATED + HOUR, 10).counters
    assert known.window(slot(), 1010 + RESTATED + HOUR, 10).counters == {"other": 0}


def test_a_series_is_not_in_slots_before_it_was_known():
    known = KnownSeries()
    known.window(slot(old=1), 1000, 10)
    known.window(slot(new=1), 1010, 10)
    assert known.window(slot(old=2), 1000, 10).counters == {"old": 2}
    assert known.window(slot(), 1020, 10).counters == {"old": 0, "new": 0}


def test_a_series_that_a_member_knows_is_0_though_nothing_happened_to_it():
    known = KnownSeries()
    stated = {"counter": ["hits", "more"], "timer": {"took"}}
    assert known.window(Slot(slot(hits=1).aggregates, {}, stated), 1000, 10).counters == {"hits": 1, "more": 0}
    later = known.window(slot(), 1010, 10)
    assert (later.counters, later.timers) == ({"hits": 0, "more": 0}, {"took": NO_SAMPLES})


STATED = {0: GaugeValue(5, 1.0), 1: GaugeValue(3, 3.0), 2: GaugeValue(4, 2.0), 3: GaugeValue(None, 1.5)}


@pytest.mark.parametrize(
    ("across", "expected"),
    [
        ("last", {"depth;pool=a": 3}),
        ("sum", {"depth;pool=a": 12}),
        ("min", {"depth;pool=a": 3}),
        ("max", {"depth;pool=a": 5}),
        ("each", {"depth;pool=a;writer=0": 5, "depth;pool=a;writer=1": 3, "depth;pool=a;writer=2": 4}),
    ],
)
def test_each_gauge_has_its_rule(across, expected):
    stated = {number: gauge._replace(across=across) for number, gauge in STATED.items()}
    assert KnownSeries().window(slot(gauges={"depth;pool=a": stated}), 10, 10).gauges == expected


def test_a_gauge_without_a_value_is_absent():
    for across in ("last", "sum", "min", "max", "each"):
        stated = {"depth": {0: GaugeValue(None, 1.0, across)}}
        assert KnownSeries().window(slot(gauges=stated), 10, 10).gauges == {}


def test_a_gauge_that_was_set_outlives_its_holder_by_an_hour():
    known = KnownSeries()
    assert known.window(slot(gauges={"size": {0: GaugeValue(7, 1.0)}}), 9000, 10).gauges == {"size": 7}
    assert known.window(slot(), 9000 + HOUR, 10).gauges == {"size": 7}
    assert known.window(slot(), 9010 + HOUR, 10).gauges == {}


def test_a_gauge_that_was_summed_ends_with_its_holder():
    known = KnownSeries()
    known.window(slot(gauges={"free": {0: GaugeValue(7, 1.0, "sum")}}), 1000, 10)
    assert known.window(slot(), 1010, 10).gauges == {}


def test_a_dead_holder_s_later_value_wins_over_an_earlier_one_that_is_stated_again():
    known = KnownSeries()
    known.window(slot(gauges={"size": {0: GaugeValue(7, 5.0), 1: GaugeValue(2, 1.0)}}), 1000, 10)
    assert known.window(slot(gauges={"size": {1: GaugeValue(2, 1.0)}}), 1010, 10).gauges == {"size": 7}


@pytest.fixture
def limits() -> Limits:
    return Limits((), 4, 2, DropCounter(), Budget().series)


def test_series_above_the_caps_of_the_group_go_to_overflow_and_are_counted(limits):
    """In the order of the slot, which is that of members and records; what is known stays."""
    known = KnownSeries(limits)
    first = known.window(slot(**{"a;t=1": 1, "a;t=2": 2, "a;t=3": 4, "b": 8}), 1000, 10)
    assert first.counters == {"a;t=1": 1, "a;t=2": 2, "b": 8, "a;overflow=true": 4}
    stated = {"counter": ["d", "e"], "timer": ["f"]}
    gauges = {"g": {0: GaugeValue(1, 1.0)}}
    second = known.window(Slot(slot(c=1, d=2, b=4).aggregates, gauges, stated), 1010, 10)
    assert second.counters == {"a;t=1": 0, "a;t=2": 0, "a;overflow=true": 0, "c": 1, "b": 4, "overflow": 2}
    assert (second.timers, second.gauges) == ({}, {})
    assert limits.drops.totals() == {"overflow": 4, "overflow_dropped": 1}


def test_a_series_that_is_gone_makes_room_for_another(limits):
    known = KnownSeries(limits)
    known.window(slot(a=1, b=1, c=1, d=1), 1000, 10)
    late = 1010 + RESTATED + HOUR
    known.window(slot(), late, 10)
    assert known.window(slot(e=1), late + 10, 10).counters == {"e": 1}


def test_what_is_known_comes_back_to_the_last_bit(limits):
    found = Aggregates()
    found.counters = {"hits;a=1": 0.1 + 0.2, "none": 0}
    found.timers = {"took": Distribution([1.5, 700.0], limit=4).freeze()}
    found.uniques = {"users": frozenset("a")}
    known = KnownSeries()
    gauges = {"size": {0: GaugeValue(0.1, 5.0)}, "free": {0: GaugeValue(3, 5.0, "sum")}}
    known.fold(Slot(found, gauges), 1000)
    known.fold(Slot(found, gauges), 990)
    known.window(Slot(Aggregates(), gauges, {"counter": ["idle"]}), 1010, 10)
    document = json.loads(json.dumps(known.document()))
    again = KnownSeries.restored(document, limits)
    assert again.document() == known.document()
    assert again.window(slot(), 1020, 10) == known.window(slot(), 1020, 10)
    total = again.totals["timer"]["took"]
    assert (total.active, total.count, total.sum, total.powers) == (1000, 4, 1403.0, {1: 2, 10: 2})
    assert again.totals["counter"]["hits;a=1"].sum == 2 * (0.1 + 0.2)


def test_folding_can_be_taken_back():
    known = KnownSeries()
    known.fold(slot(a=1), 1000)
    undo: dict = {}
    known.fold(slot(a=2, b=3), 1010, undo)
    known.fold(slot(a=4), 1020, undo)
    known.undo(undo)
    assert {key: total.sum for key, total in known.totals["counter"].items()} == {"a": 1}


def test_the_rule_that_was_stated_last_counts():
    """As while a new version of the program is rolled out."""
    stated = {0: GaugeValue(5, 1.0, "sum"), 1: GaugeValue(3, 2.0, "max")}
    assert KnownSeries().window(slot(gauges={"depth": stated}), 10, 10).gauges == {"depth": 5}
    stated = {0: GaugeValue(5, 3.0, "sum"), 1: GaugeValue(3, 2.0, "max")}
    assert KnownSeries().window(slot(gauges={"depth": stated}), 10, 10).gauges == {"depth": 8}
