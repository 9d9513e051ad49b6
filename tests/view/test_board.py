"""The board: big numbers, and what they mean."""

import doctest
import html
import re

import pytest

from metricslib.errors import InvalidOption, InvalidType
from metricslib.view import board as module
from metricslib.view.answer import View
from metricslib.view.board import board
from metricslib.view.boards import board as named
from metricslib.view.query import Query


@pytest.fixture
def look_at(registry, flusher):
    """Call with a query string; for each tile its name, field, text and state."""

    def look_at(text):
        shown = board(registry.series(), flusher.history, Query.parse(text))
        return [(tile.name, tile.field, f"{tile.text} {tile.unit}".strip(), tile.state) for tile in shown.tiles]

    return look_at


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


def test_every_kind_has_its_number(registry, end_interval, look_at):
    """In the order in which they are asked for; a field of a timer is one of four, by default the median."""
    registry.counter("hits").inc(1234)
    registry.gauge("depth").set(-7)
    for seconds in (0.001, 0.0184, 2.5):
        registry.timer("query").observe(seconds)
    registry.unique("users").add("ann")
    end_interval()
    assert look_at("series=depth,hits,query,query:p90,query:max,query:rate,users,none") == [
        ("depth", "", "−7", ""),
        ("hits", "", "123 /s", ""),
        ("query", "median", "18.4 ms", ""),
        ("query", "p90", "2.5 s", ""),
        ("query", "max", "2.5 s", ""),
        ("query", "rate", "0.3 /s", ""),
        ("users", "", "1", ""),
        ("none", "", "–", ""),
    ]


def test_thresholds_belong_to_the_series_at_their_place(registry, end_interval, look_at):
    """The last one to all that follow. Where the critical one is lower, small values are bad."""
    for name, value in (("a", 5), ("b", 15), ("c", 25), ("d", 1)):
        registry.gauge(name).set(value)
    end_interval()
    assert [state for *_, state in look_at("series=a,b,c&warn=10&crit=20")] == ["ok", "warn", "crit"]
    assert [state for *_, state in look_at("series=a,b,c&warn=4,20&crit=10,30")] == ["warn", "ok", "warn"]
    assert [state for *_, state in look_at("series=c,b,a,none&warn=20&crit=10")] == ["ok", "warn", "crit", "none"]
    assert [state for *_, state in look_at("series=a,b&crit=10")] == ["ok", "crit"]


def test_tags_choose_among_the_series_of_a_name(registry, end_interval, look_at):
    registry.counter("hits", tags={"route": "u", "status": 200}).inc(10)
    registry.counter("hits", tags={"route": "u", "status": 500}).inc(20)
    registry.counter("hits", tags={"route": "v", "status": 500}).inc(40)
    end_interval()
    found = look_at("series=hits,hits;status=500,hits;route=u;status=500,hits;route=w")
    assert [text for _, _, text, _ in found] == ["7 /s", "6 /s", "2 /s", "–"]


def test_the_board_is_a_page(registry, flusher, end_interval):
    """With a word for each state, the thresholds in the chart, and links that keep to what was asked."""
    registry.gauge("depth").set(5)
    end_interval()
    html = View.of(flusher).answer("GET", "series=depth&warn=3&crit=9&night=1&title=Wall", "/board").body.decode()
    assert '<html lang="en" class="night">' in html
    assert '<span class="state">warning</span>' in html
    assert html.count('class="mark warn"') == 1
    assert "<title>Wall" in html
    assert 'href="?series=depth&amp;warn=3&amp;crit=9&amp;title=Wall&amp;range=1h"' in html
    assert re.search("<form class=.make", View.of(flusher).answer("GET", "", "/board").body.decode())


@pytest.mark.parametrize("text", ["warn=x", "crit=nan", "warn=inf", "series=" + "a," * 61])
def test_a_board_that_cannot_be_is_refused(registry, flusher, text):
    answer = View.of(flusher).answer("GET", text, "/board")
    assert answer.status == 400
    assert text.partition("=")[0] in answer.body.decode()


def test_a_metric_may_be_called_as_a_page_is(registry, flusher):
    for name in ("board", "health", "top", "render"):
        registry.counter(name)
        assert f"<title>{name} ·" in View.of(flusher).answer("GET", "", f"/series/{name}").body.decode()


def test_a_program_names_its_boards(registry, end_interval, flusher):
    """The view of boards links to them, whatever their titles are; one that is named again is replaced."""
    registry.gauge("depth").set(15)
    end_interval()
    named("The <shop> & more", ["depth", "query:p90"], warn=1.5, crit=[10, 4], night=True, registry=registry)
    named("The <shop> & more", "depth", warn=10, registry=registry)
    view = View(lambda: flusher)
    page = view.answer("GET", "", "/board").body.decode()
    (link,) = re.findall(r'<li><a href="([^"]*)">([^<]*)</a></li>', page)
    assert link[1] == "The &lt;shop&gt; &amp; more"
    query = html.unescape(link[0]).rpartition("?")[2]
    board_page = view.answer("GET", query, "/board").body.decode()
    assert "<h1>The &lt;shop&gt; &amp; more</h1>" in board_page
    assert "warning" in board_page


@pytest.mark.parametrize(
    ("title", "series", "limits", "error"),
    [
        ("", ["a"], {}, InvalidType),
        (5, ["a"], {}, InvalidType),
        ("x", [], {}, InvalidOption),
        ("x", ["a,b"], {}, InvalidType),
        ("x", [5], {}, InvalidType),
        ("x", ["a"] * 61, {}, InvalidOption),
        ("x", ["a"], {"warn": float("nan")}, InvalidOption),
        ("x", ["a"], {"crit": ["much"]}, InvalidOption),
    ],
)
def test_a_board_that_cannot_be_is_a_mistake(registry, title, series, limits, error):
    with pytest.raises(error):
        named(title, series, **limits, registry=registry)
    assert registry.boards == {}


def test_boards_are_bounded(registry):
    """At a hundred a further one is refused, and one that is there can still be replaced."""
    for number in range(100):
        named(str(number), ["a"], registry=registry)
    named("5", ["b"], registry=registry)
    with pytest.raises(InvalidOption, match="at most 100"):
        named("100", ["a"], registry=registry)
