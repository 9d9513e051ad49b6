"""JSON and Prometheus's text are what their plain implementations write, to the last byte, request after request."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.view.answer import View
from metricslib.view.as_json import Texts, parts
from metricslib.view.prometheus import Plans
from metricslib.view.prometheus import parts as prometheus_parts
from metricslib.view.query import Query
from metricslib.view.report import Order, Rows, select
from metricslib.window import Aggregates

from .plain_formats import json_text, prometheus_text

NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e12, 1e12) | st.sampled_from([0.1, 1e308, 2**53 + 1, 10**400])
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["counter", "gauge", "timer", "histogram", "unique"]),
        st.sampled_from(["a", "a.b", "a_b", "a.b_total", "c_seconds", "sent.bytes", "\u00e9"]),
        st.sampled_from([{}, {"route": "/u"}, {"le": "1", "a.b": "x", "a-b": "y"}]),
        NUMBERS,
        st.booleans(),
    ),
    max_size=12,
)


class Odd(float):
    """A number of a source that is written otherwise than a float."""

    def __repr__(self):
        return "odd"

    __str__ = __repr__


class Source:
    def collect(self):
        found = Aggregates()
        found.counters["odd"] = Odd(2.5)
        found.gauges = {}
        return found

    def forget(self, kind, key):
        pass


@settings(max_examples=60)
@given(st.lists(CALLS, min_size=1, max_size=3), st.booleans())
def test_fast_and_plain_write_the_same(intervals, with_source):
    registry = Registry(clock=(clock := ManualClock()))
    flusher = Flusher(registry, interval=10, percentiles=(90, 0.5, -10), own="")
    if with_source:
        registry.add_source(Source())
    view, texts, plans, order = View.of(flusher), Texts(), Plans(), Order()
    for calls in intervals:
        for kind, name, tags, value, ends in calls:
            made = getattr(registry, kind)(name, tags=tags)
            method = {"gauge": "set", "counter": "inc", "unique": "add"}.get(kind, "observe")
            if math.isfinite(value if abs(value) < 1e300 else 0):
                getattr(made, method)(value)
            if ends:
                clock.advance(10)
                flusher.tick()
        report = view.report(Query(format="json"))
        assert "".join(parts(report, texts)) == "".join(parts(report)) == json_text(report)
        assert isinstance(report.rows, Rows)
        snapshot = report.rows.snapshot
        chosen = order.of(snapshot.totals).chosen
        assert chosen is order.of(snapshot.totals).chosen
        assert list(chosen) == list(select(snapshot.totals).chosen)
        for openmetrics in (False, True):
            found = "".join(prometheus_parts(snapshot, chosen, openmetrics=openmetrics, plans=plans))
            assert found == prometheus_text(snapshot, chosen, openmetrics)


@pytest.mark.parametrize("form", ["json", "prometheus", "openmetrics"])
def test_what_is_remembered_follows_the_series(registry, flusher, end_interval, form):
    """A new series appears, and a deleted one goes, in the text of the same view."""
    view = View.of(flusher)

    def text(of=view):
        return of.answer("GET", f"format={form}").body.decode()

    for number in range(3):
        registry.counter(f"hits{number}").inc()
        end_interval()
        if form != "json":
            assert text() == text(View.of(flusher))
        assert f"hits{number}" in text()
    registry.forget("counter", ["hits1"])
    assert "hits1" not in text()
    assert "hits2" in text()
