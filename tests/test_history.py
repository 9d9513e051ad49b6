"""The history: exact values, right minutes, and never more bytes than it may take."""

import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricslib.history import DAY, HEATED, HOUR, MANY, History, heat_bounds
from metricslib.sketch import Distribution
from metricslib.window import Window


def distribution(*values):
    samples = Distribution()
    for value in values:
        samples.add(value)
    return samples.freeze()


def same(found, expected):
    assert [None if value != value else value for value in found] == expected


def test_a_scalar_series_has_its_values():
    """A counter what was counted, a gauge its value, a unique the number of members; NaN before it was there."""
    history = History()
    history.append(Window(0, 10, 10, counters={"a": 0.1}, uniques={"u": frozenset("abc")}))
    history.append(Window(10, 20, 10, counters={"a": 5, "b": 2}, gauges={"g": -7.25}, uniques={"u": frozenset()}))
    a, b = history.points("counter", ["a"]), history.points("counter", ["b"])
    assert (a.ends, a.intervals, a.columns) == ([10, 20], [10, 10], {"value": [0.1, 5]})
    assert a.rates() == [0.01, 0.5]
    same(b.columns["value"], [None, 2])
    same(history.points("gauge", ["g"]).columns["value"], [None, -7.25])
    assert history.points("unique", ["u"]).columns == {"value": [3, 0]}
    same(history.points("gauge", ["unknown"]).columns["value"], [None, None])


def test_a_timer_has_count_median_p90_and_max():
    """The count exactly, the others in single precision; an idle interval has a count of 0 and no others."""
    history = History()
    history.append(Window(0, 10, 10, timers={"t": distribution(*range(1, 11))}, histograms={"h": distribution(-5, -3)}))
    history.append(Window(10, 20, 10, timers={"t": distribution()}))
    timer = history.points("timer", ["t"])
    same(timer.columns["count"], [10, 0])
    same(timer.columns["median"], [5.5, None])
    same(timer.columns["p90"], [9, None])
    same(timer.columns["max"], [10, None])
    assert timer.rates() == [1, 0]
    same(history.points("histogram", ["h"]).columns["max"], [-3, None])


def test_several_series_are_read_as_one():
    """Sums of counters and gauges, the largest unique and maximum, means of percentiles by weight."""
    history = History()
    history.append(
        Window(
            0,
            10,
            10,
            counters={"a": 1, "b": 2, "c": 4},
            uniques={"a": frozenset("xy"), "b": frozenset("z")},
            timers={"a": distribution(1, 1, 1), "b": distribution(9), "c": distribution()},
            histograms={"a": distribution(-1), "b": distribution()},
        )
    )
    assert history.points("counter", ["c", "a", "gone"]).columns == {"value": [5]}
    assert history.points("unique", ["a", "b"]).columns == {"value": [2]}
    assert history.points("timer", ["a", "b", "c"]).columns == {"count": [4], "median": [3], "p90": [3], "max": [9]}
    assert history.points("histogram", ["a", "b"]).columns["max"] == [-1]


@pytest.mark.parametrize("kind", ["counter", "gauge", "unique", "timer", "histogram"])
def test_many_series_of_a_name_are_kept_together_too(kind):
    """From the interval on in which there are many; what is read is the same as from each of them, also in minutes."""
    make = {"unique": lambda number: frozenset(map(str, range(number))), "counter": float, "gauge": float}
    make = make.get(kind, lambda number: distribution(*range(number)))
    history, keys = History(), [f"t;n={number}" for number in range(3 * MANY)]
    for end in range(10, 200, 10):
        there = keys[: end // 10 + 2] if end < 150 else keys[5:]
        values = {key: make(number + end) for number, key in enumerate(there)}
        history.append(Window(end - 10, end, 10, **{f"{kind}s": values}))
    for minutes in (False, True):
        one_by_one = history.points(kind, keys, minutes=minutes)
        together = history.points(kind, keys, minutes=minutes, name="t")
        assert together.ends == one_by_one.ends
        for field, column in one_by_one.columns.items():
            if not minutes or field not in ("median", "p90"):  # means of means: rounded otherwise
                assert together.columns[field] == pytest.approx(column, rel=1e-6, nan_ok=True)


def test_a_minute_is_its_intervals_together():
    """Sums, last values of gauges, largest uniques and maxima, means of percentiles by weight."""
    history = History()
    history.append(Window(0, 20, 20, {"a": 1}, {"t": distribution(2, 2, 2)}, {}, {"g": 5}, {"u": frozenset("xyz")}))
    history.append(Window(20, 40, 20, {"a": 2, "b": 7}, {"t": distribution()}, {}, {"g": 6}, {"u": frozenset("q")}))
    assert history.ends(minutes=True) == []
    history.append(Window(40, 60, 20, {"a": 4, "b": 0}, {"t": distribution(6)}, {}, {}, {}))

    def read(kind, key):
        return history.points(kind, [key], minutes=True).columns

    assert history.points("counter", ["a"], minutes=True).intervals == [60]
    assert read("counter", "a") == {"value": [7]}
    assert read("counter", "b") == {"value": [7]}
    assert read("gauge", "g") == {"value": [6]}
    assert read("unique", "u") == {"value": [3]}
    assert read("timer", "t") == {"count": [4], "median": [3], "p90": [3], "max": [6]}


def test_a_part_of_a_minute_has_its_own_length():
    """The first minute of a program, and one in which it was asleep: rates are right all the same."""
    history = History()
    history.append(Window(40, 50, 10, {"a": 10}))
    history.append(Window(60, 70, 10, {"a": 10}))
    minutes = history.points("counter", ["a"], minutes=True)
    assert (minutes.ends, minutes.intervals, minutes.rates()) == ([60], [10], [1])


def test_the_last_hour_is_kept_by_intervals_and_a_day_by_minutes():
    history = History()
    for end in range(30, 2 * DAY + 30, 30):
        history.append(Window(end - 30, end, 30, {"a": 1}))
    assert history.ends() == list(range(2 * DAY - HOUR + 30, 2 * DAY + 30, 30))
    assert history.ends(minutes=True) == list(range(DAY + 60, 2 * DAY + 60, 60))


def test_long_intervals_are_kept_for_a_day():
    """An interval of a minute needs no other minutes; after a change of the interval both stand in the day."""
    history = History()
    for end in range(10, 130, 10):
        history.append(Window(end - 10, end, 10, {"a": 1}))
    for end in range(180, 420, 60):
        history.append(Window(end - 60, end, 60, {"a": 6}))
    assert history.points("counter", ["a"], minutes=True).columns == {"value": [6] * 6}
    assert history.ends(minutes=True) == [60, 120, 180, 240, 300, 360]


def test_after_a_clock_set_back_stamps_increase():
    history = History()
    for end in (10, 20, 30, 40, 50, 60, 70, 20, 30):
        history.append(Window(end - 10, end, 10, {"a": end}))
    assert history.points("counter", ["a"]).columns == {"value": [10, 20, 30]}
    assert history.ends(minutes=True) == []


def test_the_history_is_bounded_in_bytes():
    """The oldest minutes go first, then the oldest intervals; the last interval stays."""
    series = {f"web.{number}": 1.0 for number in range(1000)}
    history = History(max_bytes=2_000_000)
    for end in range(10, HOUR + 10, 10):
        history.append(Window(end - 10, end, 10, series))
        assert history.used <= 2_000_000
    assert history.ends(minutes=True) == []
    assert 180 < len(history.ends()) < 360
    roomy = History(max_bytes=4_000_000)
    for end in range(20, 6 * HOUR, 20):
        roomy.append(Window(end - 20, end, 20, series))
    assert len(roomy.ends()) == 180
    assert 60 < len(roomy.ends(minutes=True)) < 359
    assert roomy.used <= 4_000_000
    tiny = History(max_bytes=1)
    tiny.append(Window(0, 10, 10, series))
    tiny.append(Window(10, 20, 10, series))
    assert tiny.ends() == [20]


def test_series_that_come_and_go_do_not_fill_it():
    """Places of series that are gone, and their keys, go with the rows that know them."""
    history = History(max_bytes=1_000_000)
    for number in range(600):
        end = 10 * number + 10
        history.append(Window(end - 10, end, 10, {f"request.{number}.{each}": 1 for each in range(200)}))
        assert history.used <= 1_000_000
    assert history.points("counter", ["request.599.7"]).columns["value"][-1] == 1
    assert len(history.ends()) > 10


def test_the_bytes_that_are_counted_are_those_that_are_taken():
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        history = History()
        for number in range(60):
            end = 10 * number + 10
            history.append(Window(end - 10, end, 10, {f"web.hits;number={each}": 1.5 for each in range(2000)}))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 < taken / history.used < 1.3


def test_the_busiest_have_heat_maps():
    history = History()
    many = {f"t{number}": distribution(*[1.0] * (number + 1)) for number in range(HEATED + 10)}
    history.append(Window(0, 10, 10, timers=many))
    assert history.heated == HEATED
    assert history.heat("timer", "t0") == []
    ((end, heat),) = history.heat("timer", "t50")
    assert (end, heat_bounds(heat.first), list(heat.weights)) == (10, (1, 1.25), [51])


def test_heat_maps_have_a_budget_of_their_own():
    history = History(heat_bytes=2_000)
    for end in range(10, 1000, 10):
        history.append(Window(end - 10, end, 10, timers={"t": distribution(1, 2, 3)}))
        assert history.heat_used <= 2_000
    ends = [end for end, _ in history.heat("timer", "t")]
    assert ends == list(range(ends[0], 1000, 10))
    assert len(history.ends()) == 99


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=400))
def test_a_heat_map_holds_each_sample_in_its_bucket(values):
    """Also of a sketch: no weight is lost, and none is further from its value than the sketch is."""
    history = History()
    history.append(Window(0, 10, 10, timers={"t": distribution(*values)}))
    ((_, heat),) = history.heat("timer", "t")
    assert sum(heat.weights) == len(values)
    if len(values) <= 256:
        for bucket, weight in enumerate(heat.weights, heat.first):
            low, high = heat_bounds(bucket)
            if low > 2.0**-39 and high < 2.0**39:
                assert weight == sum(low <= value < high for value in values)


steps = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e300, 1e300), max_size=8),
        st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.floats(-1e6, 1e6, width=32), max_size=3), max_size=3),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([3_000, 8_000, 30_000]))
def test_whatever_happens_values_are_exact_and_bytes_are_bounded(steps, room):
    """Series come and go, intervals are missed: what is kept is what was appended, the newest without a gap."""
    history, model, end = History(room), [], 0
    for ticks, scalars, samples in steps:
        end += 10 * ticks
        timers = {key: distribution(*values) for key, values in samples.items()}
        model.append((end, scalars, timers))
        history.append(Window(end - 10, end, 10, scalars, timers, gauges=scalars))
        assert history.used <= room or len(history.ends()) == 1
    kept = history.ends()
    assert kept == [end for end, _, _ in model][-len(kept) :]
    for key in "abcdefgh":
        expected = [scalars.get(key) for _, scalars, _ in model[-len(kept) :]]
        same(history.points("counter", [key]).columns["value"], expected)
        same(history.points("gauge", [key]).columns["value"], expected)
        timers = [timers.get(key) for _, _, timers in model[-len(kept) :]]
        points = history.points("timer", [key]).columns
        same(points["count"], [None if timer is None else timer.count for timer in timers])
        same(points["max"], [timer.max if timer and timer.count else None for timer in timers])
    for at, minute in enumerate(history.ends(minutes=True)):
        within = [scalars for end, scalars, _ in model if minute - 60 < end <= minute]
        for key in "abcdefgh":
            values = [scalars[key] for scalars in within if key in scalars]
            found = history.points("counter", [key], minutes=True).columns["value"][at]
            assert found == pytest.approx(sum(values)) if values else math.isnan(found)
