"""The page of health: unharmed by whatever names and errors it has to show, true about what is missing."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery import NodeStatus, SenderStatus
from metricslib.flusher import Flusher, FlusherStatus
from metricslib.history import History
from metricslib.series_state import Snapshot, SummedTotal
from metricslib.view.answer import View
from metricslib.view.query import Query
from metricslib.view.render import Strip, health_page
from metricslib.view.report import report
from metricslib.window import Window


def page(report, query=None):
    strip = Strip("web1", 10, 0, "3 s", [], [])
    return health_page("./", query or Query(), report.title, strip, report, History())


TAGS = """
    a b body button dd dialog div dl dt form h1 h2 head header html i kbd li link main meta nav p script section span
    table tbody td th thead title tr ul
"""
ATTRIBUTES = """
    aria-current aria-label aria-labelledby charset class content data-end data-interval data-live defer href id lang
    method name rel role
    scope src tabindex title
"""


class Parsed(HTMLParser):
    """Tags, attributes and text of a page, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.rows = set(), [], [], []
        self.in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data):
        self.text.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, path):
        (found,) = [row for row in self.rows if row and row[0] == path]
        return found


def test_the_top_tells_when_and_how_much(registry, clock, end_interval, look):
    """Interval, last window in UTC and its age, uptime, prefix, number of series, what was dropped or went wrong."""
    clock.set_time(1_700_006_400)
    registry.counter("hits").inc("no number")
    end_interval()
    clock.advance(3)
    text = " ".join(
        Parsed(page(look(uptime=3700, prefix="shop.web1", errors={"tick": 2}, steps_back=1, skipped=3))).text
    )
    for told in (
        "2023-11-15 00:00:00 – 00:00:10 UTC",
        "(3 s ago)",
        "10 s",
        "1 h 1 min",
        "shop.web1",
        "bad_value 1",
        "tick 2",
        "1 ×",
        "3 intervals, told in the one after",
        "not running",
    ):
        assert told in text


def test_without_a_whole_interval_the_page_says_when_the_first_ends(clock, look):
    """Nobody has to guess why there is nothing yet."""
    clock.advance(4)
    text = " ".join(" ".join(Parsed(page(look(running=True))).text).split())
    assert "none yet; the first ends in 6 s" in text
    assert "sent nowhere" in text
    assert "not running" not in text


def test_destinations_tell_how_they_are(look, clock, destination):
    """State, age of the last success, what was sent, waits, failed and was dropped by cause, and the last error."""
    down = destination(
        label="statsd://b:8125", up=False, age=None, errors=3, dropped={"refused": 1234}, last_error="<refused>"
    )
    new = destination(label="file:///x", age=None)
    clock.set_time(1_700_000_000 + 7260)
    found = Parsed(page(look(destinations=[destination(), down, new])))
    label = "graphite://graphite.example:2003"
    assert found.row(label) == [
        label,
        "up for 2 h 1 min",
        "3 s ago",
        "12",
        "3,456",
        "7 MiB",
        "0 B",
        "memory",
        "0",
        "0",
        "",
    ]
    assert found.row("statsd://b:8125")[1:3] == ["down for 2 h 1 min", "–"]
    assert found.row("file:///x")[1:3] == ["not tried yet", "–"]
    assert found.row("statsd://b:8125")[8:] == ["3", "refused 1,234", "<refused>"]


def test_a_destination_that_is_behind_tells_how_far(look, destination):
    """Where its batches wait, since when, how much of them is a backlog and how long that takes; and what is wrong."""
    late = destination(
        waiting_batches=3,
        waiting_bytes=4096,
        lag=120.0,
        backlog_points=1_200_000,
        replay_rate=20_000.0,
        drained_in=60.0,
        on_disk=True,
        spool_trouble="a <damaged> file was set aside",
    )
    text = page(look(destinations=[late]))
    assert "behind by 2 min" in text
    assert "backlog points: 1,200,000, 20,000 a second, drained in 1 min" in text
    assert "a &lt;damaged&gt; file was set aside" in text
    assert "<td>disk</td>" in text
    down = destination(waiting_batches=1, lag=0.5, backlog_points=10, replay_rate=0.0, drained_in=None)
    text = page(look(destinations=[down]))
    assert "behind" not in text
    assert "backlog points: 10</div>" in text


def test_a_full_disk_still_holds_what_it_took_before(look, destination):
    """What is put now is in memory alone; the page says how much is not."""
    text = page(look(destinations=[destination(on_disk=False, waiting_bytes=5 << 20, disk_bytes=3 << 20)]))
    assert "<td>disk 3 MiB, the rest in memory</td>" in text


def test_a_destination_tells_what_of_it_is_verified(look, clock, destination):
    """Up to when, what is missing, and why nothing can be said; none of it where nothing is verified."""
    asked = destination(verified=int(clock.time()) - 20, unverified=1_234, verify_trouble="<no> answer")
    text = page(look(destinations=[asked]))
    assert "verified up to 20 s ago" in text
    assert "unverified points: 1,234" in text
    assert "&lt;no&gt; answer" in text
    assert "verified" not in page(look(destinations=[destination()]))


def test_the_servers_behind_a_destination_tell_how_they_are(look, clock, destination):
    """Each one's state and its last error, under the destination's name."""
    nodes = (
        NodeStatus("graphite://a:2003", False, 1_700_000_000.0, 3, "<refused>"),
        NodeStatus("graphite://b:2003", True, 1_700_000_000.0, 0, None),
    )
    clock.set_time(1_700_000_060)
    text = page(look(destinations=[destination(label="graphite://a:2003,b:2003", nodes=nodes)]))
    assert [
        " ".join(" ".join(Parsed(node).text).split()) for node in re.findall('<div title="node">.*?</div>', text)
    ] == [
        "graphite://a:2003 down for 1 min <refused>",
        "graphite://b:2003 up for 1 min",
    ]


def test_sections_are_shown_as_they_are_given(look):
    """A mapping as names and values, a list of mappings as a table; mappings in them by name."""
    sections = {
        "DropCounter": {
            "received": 12345,
            "dropped": {"overflow": 5},
            "bad": {},
            "on": True,
            "rate": 0.5,
            "none": None,
        },
        "Listeners": [{"address": "udp://x", "lines": 10}, {"address": "tcp://y", "open": [1, 2]}],
    }
    text = page(look(sections=sections))
    found = Parsed(text)
    assert "<h2>DropCounter</h2>" in text
    assert re.findall("<dd>(.*?)</dd>", text)[-6:] == ["12,345", "overflow 5", "–", "True", "0.5", "–"]
    assert found.row("udp://x") == ["udp://x", "10", "–"]
    assert found.row("tcp://y") == ["tcp://y", "–", "1, 2"]


HOSTILE = st.text(max_size=30) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='x",
        "</td></table>",
        "]]>",
        "&lt;",
        "\0",
    ]
)


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_hostile_texts_stay_texts(name, label, cause, title):
    """Whatever stands in names, labels, errors, titles and sections: no tag and no attribute comes out of it."""
    window = Window(0, 10, 10.0, counters={name: 1.0})
    totals = {kind: {} for kind in ("timer", "histogram", "gauge", "unique")} | {"counter": {name: SummedTotal(0)}}
    status = SenderStatus(
        label=label,
        up=False,
        since=0.0,
        age=1.0,
        windows_sent=0,
        points_sent=0,
        bytes_sent=0,
        errors=1,
        errors_by_type={label: 1},
        dropped={cause: 1},
        waiting_batches=0,
        waiting_points=0,
        waiting_bytes=0,
        last_error=label,
    )
    flusher = FlusherStatus(True, 10, name, 1, 0, 0.0, {cause: 1}, [status])
    sections = {title: {name: label, cause: {title: [name]}}, label: [{name: cause, title: label}]}
    found = report(Snapshot(20.0, window, window, totals, {cause: 1}), flusher, title=title, sections=sections)
    parsed = Parsed(page(found, Query(match=name)).replace("\0", ""))
    assert parsed.tags <= set(TAGS.split())
    assert {name for name, _ in parsed.attributes} <= set(ATTRIBUTES.split())
    assert label.replace("\0", "").split() == [] or "".join(label.replace("\0", "").split()) in "".join(
        "".join(parsed.text).split()
    )


@pytest.mark.parametrize("text", ["\ud800", "\0", "\x85", "\u202e"])
def test_odd_characters_do_not_break_the_page(look, destination, text):
    """Half of a surrogate pair, NUL, control characters: shown as well as can be."""
    assert "</html>" in page(look(destinations=[destination(last_error=text)]))


def test_health_says_what_to_do_about_drops(registry, flusher, end_interval):
    """For each cause its advice; which gauges fail; and what is near a cap. Nothing of it while all is well."""
    html = View.of(flusher).answer("GET", "", "/health").body.decode()
    assert 'id="dropped"' not in html
    assert 'id="near"' not in html
    assert "<dt>Threads</dt>" in html
    registry.gauge("<broken>", read=lambda: 1 / 0)
    registry.counter("hits").inc(float("nan"))
    for number in range(900):
        registry.counter("users", tags={"id": number})
    end_interval()
    html = View.of(flusher).answer("GET", "", "/health").body.decode()
    assert "let the callbacks of gauges return finite numbers" in html
    assert "pass finite numbers to instruments" in html
    assert "<b>tag sets of users</b> 900 of 1,000" in html
    assert "<b>broken</b> its callback failed" in html
    assert "series</b>" not in html


def test_health_shows_the_queues_over_time(registry, clock):
    """Those of the library's own metrics that speak of them, by destination."""
    flusher = Flusher(registry, interval=10)
    for name in ("spool_bytes", "points_sent", "callbacks"):
        registry.gauge(f"metricslib.{name}", tags={"destination": "graphite"}).set(5)
    clock.advance(10)
    flusher.tick()
    html = View.of(flusher).answer("GET", "", "/health").body.decode()
    assert re.findall("series/metricslib.([a-z_]*)", html) == ["spool_bytes", "points_sent"]
