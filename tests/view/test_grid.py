"""The grid: a card for each metric, with its last hour, and the ways to find it."""

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from metricslib.view.answer import View
from metricslib.view.cards import CARDS, grid, unit_of
from metricslib.view.query import Query


@pytest.fixture
def look_at(registry, flusher):
    """Call with parameters for the grid."""
    return lambda **asked: grid(registry.series(), flusher.history, Query(**asked))


@pytest.fixture
def cards(look_at):
    """Call with parameters; what the cards say, by name."""

    def cards(**asked):
        told = {}
        for card in look_at(**asked).cards:
            value = card.value
            told[card.metric.name] = f"{value.text} {value.unit} {value.more}".strip()
        return told

    return cards


def test_every_kind_has_its_value(registry, end_interval, cards):
    """A rate, a value, a median with the 90th percentile, a number of members, in units in which they are short."""
    registry.counter("hits").inc(1234)
    registry.gauge("depth").set(7)
    registry.gauge("rss_bytes").set(3 << 20)
    for seconds in (0.001, 0.0184, 2.5):
        registry.timer("query").observe(seconds)
    registry.histogram("basket").observe(3)
    registry.unique("users").add("ann")
    end_interval()
    assert cards() == {
        "basket": "3 median p90 3",
        "depth": "7 now",
        "hits": "123 /s",
        "query": "18.4 ms median p90 2.5 s",
        "rss_bytes": "3 MiB",
        "users": "1 in 10 s",
    }


def test_an_interval_without_samples_says_no_data(registry, end_interval, cards):
    """An idle timer, a new series and a gauge that was never set, but not an idle counter."""
    registry.timer("query").observe(1)
    registry.counter("idle")
    registry.gauge("never")
    end_interval()
    end_interval()
    registry.counter("new").inc()
    assert cards() == {"idle": "0 /s", "never": "– no value", "new": "– no data", "query": "– no data"}


def test_before_the_first_interval_ends_there_are_cards_without_charts(registry, look_at):
    registry.counter("hits").inc()
    (card,) = look_at().cards
    assert (card.value.text, card.chart) == ("–", "")


def test_charts_begin_with_the_program(registry, end_interval, look_at, clock):
    """They have at least five minutes, and at most an hour."""
    begun = clock.time()
    for number in range(400):
        registry.counter("hits").inc()
        end_interval()
        grid = look_at()
        assert grid.span.end == clock.time()
        assert grid.span.end - grid.span.start == min(max(grid.span.end - begun, 300), 3600), number


def test_charts_show_the_time_that_is_asked_for(registry, end_interval, look_at, clock):
    """The value of a card stays that of now. Times at which nothing was are empty."""
    begun = clock.time()
    for number in range(30):
        registry.gauge("depth").set(number)
        end_interval()
    (card,) = look_at(begin=begun + 100, until=begun + 200).cards
    assert card.value.text == "29"
    assert card.chart.count("L") == 9
    assert look_at(begin=begun + 100).span.end == clock.time()
    for begin, until in ((1, 0), (1, 2), (0, 1), (999_999_999_998, 999_999_999_999), (begun, 999_999_999_999)):
        assert len(look_at(begin=begin, until=until).cards) == 1
    assert look_at(begin=begun, until=999_999_999_999).span.end == clock.time()


def test_values_are_what_the_charts_show(registry, flusher, end_interval, clock):
    """As texts by time, with the kind and name of their card; on a metric's page its own alone."""
    begun = clock.time()
    for number in range(3):
        registry.counter("hits", tags={"a": "b"}).inc(10 * number)
        registry.timer("query")
        end_interval()
    ends = [begun + 10, begun + 20, begun + 30]
    times = ["00:00:10", "00:00:20", "00:00:30"]
    hits = [["0", "/s"], ["1", "/s"], ["2", "/s"]]
    view = View.of(flusher)
    found = json.loads(view.answer("GET", "values=1").body)
    assert (found["ends"], found["times"], found["end"]) == (ends, times, begun + 30)
    assert found["values"] == {"counter:hits": hits, "timer:query": [["–", "no data"]] * 3}
    assert json.loads(view.answer("GET", "values=1", "/series/hits").body)["values"] == {"counter:hits": hits}
    assert view.answer("GET", "values=1", "/series/none").status == 404


def test_tag_sets_of_a_name_are_one_card(registry, end_interval, look_at):
    """Which says how many there are; a name of two kinds has two cards."""
    for status in (200, 404, 500):
        registry.counter("hits", tags={"route": "u", "status": status}).inc(10)
    registry.timer("hits").observe(1)
    end_interval()
    counter, timer = look_at().cards
    assert (counter.value.text, counter.tags) == ("3", "route × 3 status")
    assert (timer.metric.kind, timer.tags) == ("timer", "")


def test_a_change_is_told_and_marked_where_it_is_trouble(registry, end_interval, look_at):
    """The last minute against the five before; a counter that rises is no trouble, one of errors is, and so is a
    timer."""
    names = ("hits", "errors", "steady")
    for number in range(36):
        for name in names:
            registry.counter(name).inc(20 if number >= 30 and name != "steady" else 10)
        registry.timer("query").observe(2 if number >= 30 else 0.1)
        end_interval()
    found = {card.metric.tail: (card.change, card.rises) for card in look_at().cards}
    assert found == {
        "errors": ("+100 %", True),
        "hits": ("+100 %", False),
        "query": ("× 20", True),
        "steady": ("0 %", False),
    }
    assert [card.metric.tail for card in look_at(sort="change").cards] == ["query", "errors", "hits", "steady"]


def test_cards_are_found_by_prefix_kind_tag_and_search(registry, end_interval, cards):
    registry.counter("web.hits", tags={"route": "/u"}).inc(5)
    registry.counter("web.hits", tags={"route": "/v"}).inc(50)
    registry.timer("web.time").observe(0.3)
    registry.counter("website").inc()
    end_interval()
    assert list(cards(prefix="web")) == ["web.hits", "web.time"]
    assert list(cards(kind="timer")) == ["web.time"]
    assert list(cards(tag="route")) == ["web.hits"]
    assert cards(query="route=/u") == {"web.hits": "0.5 /s"}
    assert cards(query="count > 10") == {"web.hits": "5 /s"}
    assert cards(query="web and p90 > 200") == {"web.time": "300 ms median p90 300"}
    assert cards(match="*.hits") == {"web.hits": "5.5 /s"}
    assert cards(query="nothing") == {}


def test_the_rail_counts_what_there_is(registry, look_at):
    """Prefixes open on the way to the one that is chosen."""
    for name in ("web.a.hits", "web.a.misses", "web.b", "db"):
        registry.counter(name, tags={"route": name})
    registry.gauge("depth")
    rail = look_at().rail
    assert rail.names == [("db", "db", 1, 0), ("depth", "depth", 1, 0), ("web", "web", 3, 0)]
    assert rail.kinds == [("counter", 4), ("gauge", 1)]
    assert rail.tags == [("route", 4)]
    assert look_at(prefix="web.a").rail.names[2:] == [
        ("web", "web", 3, 0),
        ("a", "web.a", 2, 1),
        ("hits", "web.a.hits", 1, 2),
        ("misses", "web.a.misses", 1, 2),
        ("b", "web.b", 1, 1),
    ]


def test_pages_hold_sixty_cards(registry, flusher, look_at):
    """Every card is on one page; a page too far is the last."""
    for number in range(150):
        registry.counter(f"c{number:03}")
    found = [card.metric.tail for page in (1, 2, 3) for card in look_at(page=page).cards]
    assert found == [f"c{number:03}" for number in range(150)]
    assert len(look_at().cards) == CARDS == 60
    assert look_at(page=99).page == 3
    html = View.of(flusher).answer("GET", "page=2&kind=counter").body.decode()
    assert re.findall('rel="(?:prev|next)" href="(.*?)"', html) == [
        "./?kind=counter&amp;page=1",
        "./?kind=counter&amp;page=3",
    ]


def test_the_largest_values_come_first_and_those_without_last(registry, end_interval, cards):
    for name, value in (("low", 1), ("high", 9), ("middle", 5)):
        registry.gauge(name).set(value)
    registry.gauge("never")
    end_interval()
    assert list(cards(sort="value")) == ["high", "middle", "low", "never"]


def test_links_keep_to_what_was_asked(registry, flusher):
    registry.counter("web.hits", tags={"route": "u"})
    html = View.of(flusher).answer("GET", "query=a%26b%22&sort=change&prefix=web&refresh=5").body.decode()
    assert '<meta http-equiv="refresh" content="5">' in html
    assert 'value="a&amp;b&#34;"' in html
    assert 'href="./?query=a%26b%22&amp;prefix=web&amp;tag=route&amp;sort=change&amp;refresh=5"' in html
    assert '<input type="hidden" name="prefix" value="web">' in html
    assert "http-equiv" not in View.of(flusher).answer("GET", "").body.decode()


@pytest.mark.parametrize(
    ("kind", "name", "unit"),
    [
        ("timer", "x", "ms"),
        ("gauge", "a.rss", "B"),
        ("histogram", "upload_bytes", "B"),
        ("counter", "bytes.count", ""),
    ],
)
def test_units_are_seen_in_names(kind, name, unit):
    assert unit_of(kind, name) == unit


class Loaded(HTMLParser):
    """What a page loads, and what in it is code."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.inline = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.inline += [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and not attributes.get("src")):
            self.inline.append(tag)
        self.loads += [attributes[name] for name in ("src", "href") if name in attributes and tag in ("script", "link")]


@pytest.mark.parametrize("path", ["/", "/health", "/series/hits"])
def test_a_page_loads_its_own_files_alone_and_has_nothing_inline(registry, flusher, end_interval, path):
    registry.timer("hits", tags={"a": "b"}).observe(1)
    end_interval()
    found = Loaded(View.of(flusher).answer("GET", "", path).body.decode())
    assert found.inline == []
    assert len(found.loads) == 3
    assert all(re.fullmatch(r"(\.|\.\.)/assets/\w+\.[0-9a-f]{12}\.(css|js|svg)", url) for url in found.loads)


def test_text_that_turns_the_page_around_is_not_shown(registry, flusher, end_interval):
    """Names and tags have no right-to-left override; what a reader asks for is shown as it is, and escaped."""
    registry.counter("<script>\u202egpj", tags={"a\u202e": "b\u202egpj.exe<i>"}).inc()
    end_interval()
    for path in ("/", "/top", "/health", "/series/scriptgpj", "/board"):
        html = View.of(flusher).answer("GET", "match=%3Cscript%3E", path).body.decode()
        assert "\u202e" not in html, path
        assert "<script>" not in html, path
        assert "<i>g" not in html, path


def test_a_view_of_very_many_series_takes_bounded_processor_time(registry, flusher, end_interval):
    """All that look at every series give up after two seconds of it."""
    for number in range(900):
        registry.counter("hits", tags={"id": number})
    end_interval()
    times = itertools.count()
    view = View(lambda: flusher, spent=lambda: next(times))
    for path, query in (
        ("/", ""),
        ("/", "query=a*b"),
        ("/", "values=1"),
        ("/top", ""),
        ("/board", "series=hits"),
        ("/health", ""),
    ):
        times = itertools.count()
        assert view.answer("GET", query, path).status == 503, path
        assert next(times) < 20
