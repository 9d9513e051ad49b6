"""The report as JSON: a schema that stays, and numbers that every reader takes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery import NodeStatus
from metricslib.flusher import FlusherStatus
from metricslib.series import KINDS
from metricslib.series_state import Snapshot
from metricslib.view.as_json import as_json
from metricslib.view.report import report
from metricslib.window import Window

MEMBERS = """
    schema title time uptime interval prefix window open percentiles count match next series dropped memory
    flusher destinations members sections
"""
DESTINATION = """
    label up since age windows_sent points_sent bytes_sent errors errors_by_type dropped waiting_batches
    waiting_points waiting_bytes last_error lag backlog_batches backlog_points replay_rate drained_in on_disk disk_bytes
    spool_trouble verified unverified verify_trouble nodes
"""


def strict(text):
    """Parse as a strict reader does, for whom NaN and Infinity are no numbers."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_the_schema_stays(registry, clock, end_interval, look, destination):
    """These members, of these types, under these names; see docs/reference/json.md."""
    registry.counter("web.hits", tags={"route": "u"}).inc(20)
    registry.timer("query").observe(0.25)
    registry.gauge("depth").set(3)
    registry.counter("bad").inc(None)
    start = clock.time()
    end_interval()
    registry.gauge("late").set(1)
    nodes = (NodeStatus("graphite://a:2003", False, 0.5, 2, "refused"),)
    destinations = [destination(dropped={"refused": 2}, nodes=nodes)]
    found = strict(as_json(look(destinations=destinations, uptime=13.0, prefix="shop")))
    assert list(found) == MEMBERS.split()
    assert (found["schema"], found["title"], found["time"], found["uptime"]) == (1, "metricslib", start + 10, 13.0)
    assert (found["interval"], found["prefix"], found["match"], found["percentiles"]) == (10, "shop", "", [90, 99])
    assert found["window"] == {"start": start, "end": start + 10}
    assert found["open"] == {"start": start + 10, "end": start + 20}
    assert found["count"] == {"total": 5, "matched": 5, "shown": 5}
    assert found["dropped"] == {"bad_value": 1}
    assert list(found["memory"]) == ["total", "series", "raw_keys", "members"]
    assert all(list(share) == ["used", "allowed"] for share in found["memory"].values())
    assert list(found["flusher"]) == ["running", "ticks", "steps_back", "skipped", "lag", "errors"]
    (told,) = found["destinations"]
    assert list(told) == DESTINATION.split()
    assert (told["dropped"], told["last_error"], told["age"]) == ({"refused": 2}, None, 3.5)
    (node,) = told["nodes"]
    assert node == {"label": "graphite://a:2003", "up": False, "since": 0.5, "errors": 2, "last_error": "refused"}
    series = {row["key"]: row for row in found["series"]}
    assert series["web.hits;route=u"] == {
        "kind": "counter",
        "key": "web.hits;route=u",
        "name": "web.hits",
        "tags": {"route": "u"},
        "unit": None,
        "last": {"count": 20, "rate": 2},
        "open": {"count": 0},
        "total": {"count": 20},
    }
    assert series["query"]["unit"] == "ms"
    assert series["query"]["last"]["p99"] == 250
    assert series["late"]["last"] is None
    assert series["depth"]["total"] is None


def test_before_the_first_interval_there_is_no_window(look):
    """Null, not an empty or made-up one."""
    assert strict(as_json(look()))["window"] is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_sections_of_any_content_are_strict_json(sections):
    """What JSON does not have becomes a text, and what is no finite number null."""
    empty = Snapshot(0.0, Window(0, 10, 10), None, {kind: {} for kind in KINDS}, {})
    found = report(empty, FlusherStatus(True, 10, "", 0, 0, 0.0, {}, []), sections=sections)
    assert strict(as_json(found))["sections"].keys() == sections.keys()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(look, destination, value):
    """In sections and in a destination's state too."""
    found = strict(as_json(look(destinations=[destination(age=value)], sections={"a": {"b": [value]}})))
    assert found["sections"] == {"a": {"b": [None]}}
    assert found["destinations"][0]["age"] is None


def test_the_text_is_ascii(look, destination):
    """Whatever an error says, every reader can take it."""
    text = as_json(look(destinations=[destination(last_error="\u202e\ud800é")]))
    assert text.isascii()
    assert strict(text)["destinations"][0]["last_error"] == "\u202e\ud800é"
