"""The report: a snapshot and the flusher's state in, what page and JSON say out."""

import math
import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.series_state import DistributionTotal, Idle, Snapshot, SummedTotal, Total
from metricslib.sketch import Distribution
from metricslib.view.report import TooSlow, matcher, percentile_name, report, select
from metricslib.window import Window


def row_of(report, key, kind=None):
    """The one row of that series."""
    (row,) = [row for row in report.rows if row.key == key and kind in (None, row.kind)]
    return row


def test_a_counter_says_count_rate_and_total(registry, end_interval, look):
    """Count and rate of the last whole interval, the count of the open one, the sum of all whole ones."""
    registry.counter("hits").inc(10)
    end_interval()
    registry.counter("hits").inc(25)
    end_interval()
    registry.counter("hits").inc(4)
    row = row_of(look(), "hits")
    assert row.last == {"count": 25, "rate": 2.5}
    assert row.open == {"count": 4}
    assert row.total == {"count": 35}


def test_an_idle_counter_is_zero(registry, end_interval, look):
    """Nothing counted is a count of 0, not an absent one."""
    registry.counter("hits").inc(10)
    end_interval()
    end_interval()
    assert row_of(look(), "hits").last == {"count": 0, "rate": 0}


def test_a_timer_says_what_statsd_would_send_in_milliseconds(registry, end_interval, look):
    """All statistics of the last interval, with the percentiles asked for; only the cheap ones of the open interval."""
    timer = registry.timer("query")
    for milliseconds in range(1, 101):
        timer.observe(milliseconds / 1000)
    end_interval()
    timer.observe(0.5)
    row = row_of(look(), "query")
    assert row.last == {
        "count": 100,
        "rate": 10,
        "sum": pytest.approx(5050),
        "mean": pytest.approx(50.5),
        "min": 1,
        "max": 100,
        "std": pytest.approx(math.sqrt(833.25)),
        "median": pytest.approx(50.5),
        "p90": pytest.approx(90),
        "p99": pytest.approx(99),
    }
    assert row.open == {"count": 1, "sum": 500, "mean": 500, "min": 500, "max": 500}
    assert row.total == {"count": 100, "sum": pytest.approx(5050)}


def test_an_idle_timer_never_shows_old_percentiles(registry, end_interval, look):
    """After an interval in which nothing was timed there is a count of 0 and no other statistic."""
    registry.timer("query").observe(0.1)
    registry.histogram("bytes").observe(100)
    end_interval()
    end_interval()
    for key in ("query", "bytes"):
        assert row_of(look(), key).last == {"count": 0, "rate": 0}
        assert row_of(look(), key).open == {"count": 0}


def test_a_gauge_keeps_its_value_and_is_absent_before_it_has_one(registry, end_interval, look):
    """A gauge repeats its value; one that was never set, or only since the last tick, says nothing of that interval."""
    registry.gauge("depth").set(3)
    registry.gauge("never")
    end_interval()
    end_interval()
    registry.gauge("new").set(7)
    found = look()
    assert (row_of(found, "depth").last, row_of(found, "depth").open) == ({"value": 3}, {"value": 3})
    assert (row_of(found, "never").last, row_of(found, "never").open) == (None, None)
    assert (row_of(found, "new").last, row_of(found, "new").open) == (None, {"value": 7})
    assert row_of(found, "depth").total is None


def test_a_unique_says_how_many(registry, end_interval, look):
    """The number of different members, in the last and in the open interval."""
    for user in ("ann", "bob", "ann"):
        registry.unique("users").add(user)
    end_interval()
    registry.unique("users").add("cy")
    row = row_of(look(), "users")
    assert (row.last, row.open, row.total) == ({"count": 2}, {"count": 1}, None)


def test_before_the_first_tick_there_is_no_last_interval(registry, clock, look):
    """The report says so, instead of showing the open interval as if it were whole."""
    registry.counter("hits").inc()
    found = look()
    assert found.window is None
    assert row_of(found, "hits").last is None
    assert found.open == (clock.time(), clock.time() + 10)


def test_the_last_interval_is_told_with_start_and_end(registry, clock, end_interval, look):
    """Both are wall-clock times, and ``time`` is the moment of the report."""
    start = clock.time()
    end_interval()
    clock.advance(3)
    found = look(uptime=13.0, title="shop")
    assert found.window == (start, start + 10)
    assert (found.time, found.uptime, found.title) == (start + 13, 13.0, "shop")


def test_rows_stand_in_the_order_of_their_paths(registry, look):
    """By dotted path: a name, then its tagged series, then longer names; kinds of one name side by side."""
    for name in ("web.hits_all", "web", "web.hits.late", "db", "web-admin.hits"):
        registry.counter(name)
    registry.timer("web.hits")
    registry.counter("web.hits", tags={"route": "b"})
    registry.counter("web.hits", tags={"route": "a"})
    registry.counter("web.hits")
    assert [(row.key, row.kind) for row in look().rows] == [
        ("db", "counter"),
        ("web", "counter"),
        ("web.hits", "counter"),
        ("web.hits", "timer"),
        ("web.hits;route=a", "counter"),
        ("web.hits;route=b", "counter"),
        ("web.hits.late", "counter"),
        ("web.hits_all", "counter"),
        ("web-admin.hits", "counter"),
    ]


def test_rows_are_limited_and_the_rest_is_told(registry, look):
    """The first by path are shown; how many there are and how many match is told."""
    for number in range(30):
        registry.counter(f"a.{number:02}")
        registry.counter(f"b.{number:02}")
    found = look(match="b.*", limit=5)
    assert [row.key for row in found.rows] == ["b.00", "b.01", "b.02", "b.03", "b.04"]
    assert (found.total, found.matched) == (60, 30)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("", "web.hits;route=u", True),
        ("web.*", "web.hits", True),
        ("web.*", "web.hits;route=u", True),
        ("*.hits", "web.hits;route=u", True),
        ("*;route=u", "web.hits;route=u", True),
        ("*.hits", "web.hits.late", False),
        ("web", "shop.web.hits", True),
        ("route=u", "web.hits;route=u", True),
        ("web.?its", "web.hits", True),
        ("web.[gh]its", "web.hits", True),
        ("web.[!h]its", "web.hits", False),
        ("a[", "a[b", False),
        ("WEB", "web.hits", False),
        ("db", "web.hits", False),
        ("web.hits+", "web.hits", False),
    ],
)
def test_a_filter_is_a_glob_or_a_word(pattern, key, matches):
    """Globs match a whole name or a whole series; a word is looked for anywhere; case counts."""
    assert matcher(pattern)(key) is matches


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_filter_can_be_asked_for(pattern, key):
    """No pattern raises, and a pattern without wildcards finds what holds it."""
    found = matcher(pattern)(key + pattern)
    assert found is True or any(character in pattern for character in "*?[")


def test_a_filter_that_backtracks_ends_soon():
    """A hostile pattern costs no more than a hostile pattern should."""
    matches = matcher("*a" * 200 + "b")
    began = time.process_time()
    assert not matches("a" * 2000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("percent", "name"), [(90, "p90"), (99.9, "p99.9"), (-10, "top10"), (90.0, "p90")])
def test_percentiles_have_names(percent, name):
    """Whole percents have no fraction, negative ones describe the largest samples."""
    assert percentile_name(percent) == name


def test_the_90th_percentile_is_always_told(registry, flusher, end_interval):
    """Whatever percentiles are sent, and once only."""
    registry.timer("query").observe(1)
    end_interval()
    for asked, told in (((), (90,)), ((50, -5), (90, 50, -5)), ((99, 90), (90, 99))):
        found = report(registry.snapshot(), flusher.status(), percentiles=asked)
        assert found.percentiles == told
        assert set(map(percentile_name, told)) <= row_of(found, "query").last.keys()


def test_a_percentile_of_no_sample_is_none(registry, end_interval, look):
    """statsd has no 1 % of two samples, and neither has the report."""
    registry.timer("query").observe(1)
    registry.timer("query").observe(2)
    end_interval()
    found = report(registry.snapshot(), look().flusher, percentiles=(1,))
    assert row_of(found, "query").last["p1"] is None


def test_what_is_no_finite_number_is_none(look):
    """Sums beyond what a double holds are neither infinite nor an error; the rest of the report stands."""
    vast = Distribution([1e300, 1.7e308, 1.7e308]).freeze()
    window = Window(0, 10, 10.0, counters={"c": 10**400}, histograms={"h": vast}, gauges={"g": math.inf})
    total, counted, rest = DistributionTotal(0), SummedTotal(0), Total(0)
    total.sum = total.count = counted.sum = math.inf
    totals = {"counter": {"c": counted}, "timer": {}, "histogram": {"h": total}, "gauge": {"g": rest}, "unique": {}}
    found = report(Snapshot(20.0, window, window, totals, {}), look().flusher)
    assert row_of(found, "c").last == {"count": None, "rate": None}
    assert row_of(found, "g").last == {"value": None}
    assert (row_of(found, "h").last["sum"], row_of(found, "h").last["max"]) == (None, 1.7e308)
    assert row_of(found, "h").total == {"count": None, "sum": None}


def test_reading_a_hundred_times_changes_no_value(registry, clock, flusher, end_interval, look):
    """A registry that was looked at holds what one holds at which nobody looked."""
    other = Registry(clock=clock)
    reads = []
    for each in (registry, other):
        each.gauge("read", read=lambda: reads.append(1) or len(reads))

    def work(each):
        each.counter("hits").inc(3)
        each.timer("query", tags={"pool": "a"}).observe(0.25)
        each.histogram("bytes").observe(12)
        each.gauge("depth").inc(2)
        each.unique("users").add("ann")

    for _ in range(3):
        for _ in range(100):
            work(registry)
            work(other)
            look()
        assert len(reads) % 2 == 0, "only a tick reads a gauge's callback"
        end_interval()
        other.tick(int(clock.time()), 10.0)
    mine, its = registry.snapshot().last, other.snapshot().last
    assert (mine.counters, mine.uniques) == (its.counters, its.uniques)
    assert mine.gauges["depth"] == its.gauges["depth"] == 600
    for kind, key in (("timer", "query;pool=a"), ("histogram", "bytes")):
        assert list(mine[kind][key].entries()) == list(its[kind][key].entries())
        assert registry.snapshot().totals[kind][key].count == other.snapshot().totals[kind][key].count == 300
    assert len(registry) == len(other)


def test_ten_thousand_series_take_well_under_a_second(registry, end_interval, look):
    """Statistics are computed for the rows that are shown, and for no others."""
    for number in range(2500):
        registry.counter(f"a.{number}").inc()
        registry.gauge(f"b.{number}").set(1)
        registry.histogram(f"c.{number}").observe(1)
        timer = registry.timer(f"d.{number}")
        for sample in range(20):
            timer.observe(sample)
    end_interval()
    began = time.process_time()
    assert len(look().rows) == 2000
    assert time.process_time() - began < 1


GLOB = st.text("ab*?[]!^-\\\n", max_size=8)


@given(GLOB, st.text("ab[]!^-\\\n", max_size=8))
def test_a_filter_matches_what_fnmatch_does(pattern, key):
    """Whatever the pieces between asterisks are."""
    assume(any(character in pattern for character in "*?["))
    assert matcher(pattern)(key) is fnmatchcase(key, pattern)


@pytest.mark.parametrize(
    "pattern", ["*" + "a" * 98 + "b", "*a" * 49 + "b", "*" + "a?" * 48 + "b*", "*[a-b]" * 16 + "c"]
)
def test_no_filter_takes_more_than_its_length_times_the_texts(pattern):
    """300 long keys that nearly match; a second is many times what any takes."""
    matches, keys = matcher(pattern), ["a" * 4000 + str(number) for number in range(300)]
    began = time.process_time()
    assert not any(map(matches, keys))
    assert time.process_time() - began < 2


SERIES = {
    "counter": [f"c.{n}" for n in range(25)] + ["c.3;a=b"],
    "timer": ["c.3", "a"],
    "histogram": [],
    "gauge": ["z"],
}


@pytest.mark.parametrize("limit", [1, 2, 7, 28, 29, 1000])
def test_pages_follow_one_another(limit):
    """Each begins behind the last series of the one before: together they are one long page."""
    series, after, found = {**SERIES, "unique": []}, "", []
    while True:
        page = select(series, "", limit, after)
        found += page.chosen
        assert (page.total, page.matched) == (29, 29)
        assert len(page.chosen) <= limit
        if not page.next:
            break
        after = page.next
    assert found == list(select(series, "", 1000).chosen)
    assert len(found) == len(set(found)) == 29


def test_a_page_behind_a_series_that_is_gone_begins_where_it_was():
    """The next is shown, whatever has left and come since."""
    series = {**SERIES, "unique": []}
    assert select(series, "", 2, "counter:b").chosen == select(series, "", 3).chosen[1:]


def test_choosing_series_has_a_limit_of_time():
    """It is looked at again and again."""
    looks = iter([True] * 5 + [False])
    series = {kind: [f"k{n}" for n in range(1000)] for kind in ("counter", "timer", "histogram", "gauge", "unique")}
    with pytest.raises(TooSlow):
        select(series, in_time=lambda: next(looks))


@pytest.mark.parametrize("stay", [{}, dict.fromkeys(["counter", "timer", "histogram", "gauge", "unique"], 1)])
def test_a_snapshot_of_some_series_says_of_them_what_the_whole_one_does(clock, stay):
    """Idle or not, sent or not, new or back in the open interval; and it changes nothing, not even their order."""
    registry = Registry(clock=clock, idle=Idle(stay))
    flusher = Flusher(registry, interval=10, own="")
    makers = (registry.counter, registry.timer, registry.histogram, registry.gauge, registry.unique)

    def use(name):
        counter, timer, histogram, gauge, unique = (make(name) for make in makers)
        counter.inc(2), timer.observe(0.5), histogram.observe(3), gauge.inc(4), unique.add(name)

    for names in (["a", "b", "c"], ["b"], []):
        for name in names:
            use(name)
        clock.advance(10)
        flusher.tick()
    use("c"), use("d")
    flusher.flush()
    use("d"), use("e")
    series, end = registry.series(), int(clock.time()) + 10
    chosen = select(series, limit=1000)
    assert len(chosen.chosen) == 25
    part = registry.snapshot(end, 10.0, chosen.keys())
    assert registry.series() == series
    found = report(part, flusher.status(), chosen)
    assert found == report(registry.snapshot(end, 10.0), flusher.status(), chosen)
    few = select(series, "[bd]", limit=3)
    shown = report(registry.snapshot(end, 10.0, few.keys()), flusher.status(), few).rows
    assert shown == tuple(row for row in found.rows if row.key in "bd")[:3]
    unknown = select({kind: ["nothing"] for kind in series})
    assert report(registry.snapshot(end, 10.0, unknown.keys()), flusher.status(), unknown).rows == ()
