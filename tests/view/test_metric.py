"""A metric's own page."""

import re

import pytest

from metricslib.view.answer import View
from metricslib.view.metric import detail
from metricslib.view.query import Query


@pytest.fixture
def look_at(flusher):
    """Call with a name and parameters for the page of that metric."""
    return lambda name, **asked: detail(flusher, name, Query(**asked))


def test_a_timer_has_percentiles_and_rates(registry, end_interval, look_at):
    """Percentiles of all tag sets together, exactly; rates over what there was of 1, 5 and 15 minutes."""
    for number in range(1, 101):
        registry.timer("query", tags={"pool": number % 2}).observe(number / 1000)
    end_interval()
    found = look_at("query")
    assert found.figures == [
        ("50 ms", "median"),
        ("90 ms", "p90"),
        ("95 ms", "p95"),
        ("99 ms", "p99"),
        ("100 ms", "max"),
        ("10/s", "over 1 min"),
        ("10/s", "over 5 min"),
        ("10/s", "over 15 min"),
    ]
    assert found.spread.count == "100"
    assert (found.spread.low, found.spread.high) == ("1 ms", "112 ms")
    assert found.heated is not None
    assert found.intervals.columns == ["count", "rate", "median", "p90", "max"]


def test_a_breakdown_has_the_busiest_values_of_a_tag_and_the_rest_together(registry, end_interval, look_at):
    for number in range(12):
        registry.counter("hits", tags={"route": f"r{number:02}", "ok": "yes"}).inc(100 * (12 - number))
    registry.counter("hits")
    end_interval()
    found = look_at("hits")
    assert found.tags == ["route", "ok"]
    assert found.by == "route"
    assert found.breakdown.rows[0] == ("r00", ["120/s"])
    assert found.breakdown.rows[-1] == ("others (4)", ["100/s"])
    assert len(found.breakdown.rows) == 9
    assert look_at("hits", by="ok").breakdown.rows == [("yes", ["780/s"])]
    assert look_at("hits", query="route=r00").figures[0] == ("120/s", "now")


def test_a_gauge_has_its_value_and_its_extremes(registry, end_interval, look_at):
    for value in (5, 9, 7):
        registry.gauge("depth").set(value)
        end_interval()
    assert look_at("depth").figures == [("7 now", ""), ("5", "lowest"), ("9", "highest")]
    assert [cells for _, cells in look_at("depth").intervals.rows] == [["7"], ["9"], ["5"]]


def test_ranges_go_from_five_minutes_to_a_day(registry, end_interval, look_at):
    """The day is drawn from minutes, or from intervals while there is none."""
    for _ in range(3):
        registry.counter("hits").inc()
        end_interval()
    assert 'class="l"' in look_at("hits", range="1d").chart
    for _ in range(60):
        registry.counter("hits").inc()
        end_interval()
    for range_ in ("5m", "1h", "1d"):
        assert 'class="l"' in look_at("hits", range=range_).chart


def test_paths_in_graphite_are_those_that_are_sent(registry, flusher, end_interval, look_at):
    """Of a series in which something happens; the flusher's own cache of paths stays."""
    registry.counter("hits")
    registry.counter("hits", tags={"a": "b"}).inc()
    end_interval()
    assert look_at("hits").paths == ["stats.counters.hits.rate;a=b", "stats.counters.hits.count;a=b"]


def test_a_name_of_two_kinds_has_two_pages(registry, flusher, look_at):
    registry.counter("x")
    registry.timer("x")
    assert (look_at("x").metric.kind, look_at("x").kinds) == ("counter", ["timer"])
    assert look_at("x", kind="timer").metric.kind == "timer"
    assert look_at("y") is None
    assert View.of(flusher).answer("GET", "", "/series/y").status == 404


def test_a_name_may_be_written_with_slashes(registry, flusher):
    registry.counter("web.hits")
    for path in ("/series/web.hits", "/series/web/hits"):
        assert "<title>web.hits" in View.of(flusher).answer("GET", "", path).body.decode()


def test_before_the_first_interval_there_is_a_page_all_the_same(registry, flusher):
    for make in (registry.counter, registry.timer, registry.gauge, registry.histogram, registry.unique):
        make("x", tags={"a": "b"})
        name = make.__name__
        html = View.of(flusher).answer("GET", f"kind={name}&range=1d", "/series/x").body.decode()
        assert re.search(f"<p>{name} · a", html)


@pytest.mark.parametrize("kind", ["counter", "timer", "gauge", "histogram", "unique"])
def test_every_kind_has_its_page(registry, flusher, end_interval, kind):
    """Also after an interval in which nothing happened, and with the largest numbers there are."""
    made = getattr(registry, kind)("x")
    for value in (1e300, -1e300, 5):
        getattr(made, {"gauge": "set", "counter": "inc", "unique": "add"}.get(kind, "observe"))(value)
        end_interval()
    for _ in range(8):
        end_interval()
        assert View.of(flusher).answer("GET", "", "/series/x").status == 200
        assert View.of(flusher).answer("GET", "sort=change", "/").status == 200


def test_percentiles_can_be_asked_for(registry, flusher, end_interval, look_at):
    for number in range(1, 101):
        registry.timer("query").observe(number / 1000)
    end_interval()
    found = look_at("query", percentiles=(25.0, 99.9)).spread.percentiles
    assert found == [("p25", "25 ms"), ("p99.9", "100 ms")]
    html = View.of(flusher).answer("GET", "percentiles=25,99.9", "/series/query").body.decode()
    assert 'name="percentiles" value="25, 99.9"' in html


def test_the_page_says_which_functions_are_measured(registry, look_at, end_interval):
    """By decorators, also of a scope; at most three of a name."""

    @registry.timed("work")
    def one(): ...

    @registry.scope("shop").counted("sales")
    def two(): ...

    for number in range(9):
        registry.timed("work")(type(f"Call{number}", (), {"__call__": lambda self: None, "__module__": "shop"})())
    assert look_at("work").functions[:2] == (f"{__name__}.{one.__qualname__}", "shop.Call0")
    assert len(look_at("work").functions) == 3
    assert look_at("shop.sales").functions == (f"{__name__}.{two.__qualname__}",)
    registry.counter("hits")
    assert look_at("hits").functions == ()


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("counter", "sum(rate(web_hits_total[5m]))"),
        ("gauge", "sum(web_hits)"),
        ("unique", "web_hits"),
        ("timer", "histogram_quantile(0.9, sum by (le) (rate(web_hits_seconds_bucket[5m])))"),
        ("histogram", "histogram_quantile(0.9, sum by (le) (rate(web_hits_bucket[5m])))"),
    ],
)
def test_the_query_for_prometheus_names_a_series_that_is_scraped(registry, flusher, look_at, kind, query):
    made = getattr(registry, kind)("web.hits")
    getattr(made, {"gauge": "set", "counter": "inc", "unique": "add"}.get(kind, "observe"))(1)
    assert look_at("web.hits").prometheus == query
    scraped = View.of(flusher).answer("GET", "format=prometheus").body.decode()
    assert re.search(rf"^{re.findall(r'web_hits[a-z_]*', query)[0]}\b", scraped, re.MULTILINE)
