"""What costs: the first of each order."""

import pytest

from metricslib.view.answer import View
from metricslib.view.report import TooSlow
from metricslib.view.top import top


@pytest.fixture
def rankings(flusher):
    """Call for the rows of each ranking, by its title."""
    return lambda: {each.title: [(row.key, row.told) for row in each.rows] for each in top(flusher)}


def test_each_order_has_its_first(registry, end_interval, rankings):
    """By rate, time, percentile, errors, values of tags and bytes; what is idle is in none but the last."""
    for number in range(12):
        registry.counter("hits", tags={"user": number}).inc(10 * number)
    registry.counter("errors", tags={"exception": "KeyError"}).inc(3)
    registry.counter("idle.errors")
    for _ in range(10):
        registry.timer("often").observe(0.5)
    registry.timer("seldom").observe(2)
    end_interval()
    found = rankings()
    assert found["Busiest series"][:2] == [("hits;user=11", "11/s"), ("hits;user=10", "10/s")]
    assert len(found["Busiest series"]) == 10
    assert found["Most time"] == [("often", "0.5"), ("seldom", "0.2")]
    assert found["Slowest timers"] == [("seldom", "2 s"), ("often", "500 ms")]
    assert found["Most errors"] == [("errors;exception=KeyError", "3")]
    assert found["Most values of a tag"] == [("hits", "12")]
    assert len(found["Largest series"]) == 10


def test_new_series_are_those_that_were_not_there_five_minutes_ago(registry, end_interval, rankings):
    """In a program that has just begun none is new, for all would be."""
    for number in range(10):
        registry.counter("old", tags={"n": number}).inc()
    end_interval()
    assert rankings()["Newest series"] == []
    for _ in range(31):
        end_interval()
    registry.counter("old", tags={"n": 10}).inc()
    registry.gauge("new").set(1)
    end_interval()
    assert rankings()["Newest series"] == [("old;n=10", "new"), ("new", "new")]


def test_before_the_first_interval_there_is_a_page_all_the_same(registry, flusher):
    registry.timer("t").observe(1)
    assert "Nothing was timed." in View.of(flusher).answer("GET", "", "/top").body.decode()


def test_it_ends_in_time(registry, flusher, end_interval):
    registry.counter("hits").inc()
    end_interval()
    with pytest.raises(TooSlow):
        top(flusher, lambda: False)
