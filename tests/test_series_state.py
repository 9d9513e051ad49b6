"""What is known of each series beyond the open interval: its place, its value, its lifetime totals."""

from hypothesis import given
from hypothesis import strategies as st

from metricslib.series import KINDS
from metricslib.series_state import TOTALS, DistributionTotal, Idle, SeriesStates
from metricslib.sketch import Distribution
from metricslib.window import ABSENT, Aggregates, GaugeChange


def aggregates(**kinds):
    made = Aggregates()
    for kind, values in kinds.items():
        for key, value in values.items():
            made.add(kind, key, value)
    return made


def samples(*values):
    return Distribution(values).freeze()


def close(states, open_, end=10):
    window = states.window(open_, end - 10, end, 10)
    states.close(open_, end)
    return window


def test_idle_series_have_their_place_in_every_window():
    """A counter is 0, a timer empty, a unique has no member, a gauge repeats its value, and one without is absent."""
    states = SeriesStates()
    for kind in KINDS:
        states.know(kind, "x", 0)
    states.know("gauge", "y", 0)
    close(states, aggregates(gauge={"y": GaugeChange(5)}))
    window = close(states, Aggregates(), 20)
    assert window.counters == {"x": 0}
    assert (window.timers["x"].count, window.histograms["x"].count) == (0, 0)
    assert window.uniques == {"x": frozenset()}
    assert window.gauges == {"y": 5}
    assert len(states) == 6


def test_the_order_is_that_of_first_appearance():
    """Whether idle or active, and in every window after."""
    states = SeriesStates()
    states.know("counter", "b", 0)
    assert list(close(states, aggregates(counter={"c": 1, "a": 1})).counters) == ["b", "c", "a"]
    assert list(close(states, aggregates(counter={"a": 1, "b": 1})).counters) == ["b", "c", "a"]


def test_a_window_may_be_looked_at_without_ending_the_interval():
    """Only closing adds to totals and values."""
    states, open_ = SeriesStates(), aggregates(counter={"c": 1}, gauge={"g": GaugeChange(None, 1)})
    for _ in range(3):
        assert states.window(open_, 0, 10, 10).counters == {"c": 1}
        assert states.window(open_, 0, 10, 10).gauges == {"g": 1}
    assert states["counter"]["c"].sum == 0
    close(states, open_)
    assert states["counter"]["c"].sum == 1
    assert close(states, open_, 20).gauges == {"g": 2}


@given(st.lists(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=40), min_size=1, max_size=5))
def test_lifetime_totals_are_the_sums_over_all_windows(intervals):
    """Count and sum, and for every power of two how many samples lie at or below it: Prometheus' histograms."""
    states = SeriesStates()
    for number, values in enumerate(intervals):
        close(states, aggregates(timer={"t": Distribution(values, limit=4).freeze()}), 10 * number)
    total, everything = states["timer"]["t"], [value for values in intervals for value in values]
    assert total.count == len(everything)
    assert abs(total.sum - sum(everything)) < 1e-9 * sum(everything)
    for power in range(-12, 22):
        below = sum(weight for p, weight in total.powers.items() if p <= power)
        assert below == sum(value <= 2.0**power for value in everything)


def test_an_absent_gauge_leaves_the_window_and_comes_back():
    """Its callback failed in between."""
    states, seen = SeriesStates(), []
    for change in (GaugeChange(1), ABSENT, None, GaugeChange(None, 3)):
        seen.append(dict(close(states, aggregates(gauge={"g": change} if change else {})).gauges))
    assert seen == [{"g": 1}, {}, {}, {"g": 3}]


def test_a_series_is_idle_since_the_end_of_the_last_interval_in_which_something_happened():
    """Of any kind; a new one since it became known."""
    states = SeriesStates()
    states.know("counter", "new", 15)
    close(states, aggregates(counter={"a": 1}, unique={"u": frozenset("x")}, gauge={"g": GaugeChange(1)}), 10)
    close(states, aggregates(counter={"a": 1}, timer={"t": samples(1)}), 20)
    assert set(states.idle_since(10)) == set()
    assert set(states.idle_since(11)) == {("unique", "u"), ("gauge", "g")}
    assert set(states.idle_since(20)) == {("unique", "u"), ("gauge", "g"), ("counter", "new")}
    states.forget("unique", "u")
    states.forget("unique", "u")
    assert ("unique", "u") not in set(states.idle_since(11))


def test_a_copy_of_a_total_stays_as_it_was():
    """What a reader holds does not change under it."""
    total = DistributionTotal(5)
    total.sum, total.powers = 3, {1: 2}
    copied = total.copy()
    total.sum, total.powers = 4, {1: 3}
    assert (copied.active, copied.sum, copied.powers, copied.gauge, copied.count) == (5, 3, {1: 2}, None, 0)
    for made in TOTALS.values():
        assert made(5).copy().powers == {}


def test_idle_series_can_leave_the_windows():
    """At once by default, or after some windows; they come back at the end of the order, and totals go on."""
    states = SeriesStates(Idle({"counter": 1, "gauge": 2}))
    first = close(states, aggregates(counter={"a": 1, "b": 1}, gauge={"g": GaugeChange(5), "h": GaugeChange(1)}))
    assert (list(first.counters), first.gauges) == (["a", "b"], {"g": 5, "h": 1})
    second = close(states, aggregates(counter={"b": 2}, gauge={"h": GaugeChange(None, 1)}), 20)
    assert (second.counters, second.gauges) == ({"b": 2}, {"g": 5, "h": 2})
    third = close(states, aggregates(counter={"b": 3, "a": 1, "c": 1}), 30)
    assert (list(third.counters), third.gauges) == (["b", "a", "c"], {"h": 2})
    fourth = close(states, aggregates(gauge={"h": GaugeChange(None, 1), "g": GaugeChange(None, 1)}), 40)
    assert fourth.counters == {}
    assert fourth.gauges == {"h": 1, "g": 1}  # what left has no value any more
    assert states["counter"]["b"].sum == 6


def test_who_comes_back_stands_behind_who_is_new_before():
    """Among those of one interval the order is that in which something happened to them."""
    states = SeriesStates(Idle({"timer": 1}))
    close(states, aggregates(timer={"a": samples(1)}))
    close(states, Aggregates(), 20)
    window = close(states, aggregates(timer={"b": samples(1), "a": samples(1)}), 30)
    assert list(window.timers) == ["b", "a"]


def test_some_series_stay_whatever_their_kind():
    """And keep their place in the order, as those of other kinds do."""
    states = SeriesStates(Idle({"counter": 1}, frozenset({"own"})))
    states.know("counter", "own", 0)
    close(states, aggregates(counter={"a": 1}, unique={"u": frozenset("x")}))
    window = close(states, aggregates(counter={"b": 1}), 20)
    assert list(window.counters.items()) == [("own", 0), ("b", 1)]
    assert window.uniques == {"u": frozenset()}
