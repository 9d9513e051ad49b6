"""Text for Prometheus, read by prometheus_client's own parsers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.view.answer import View, accepted

PARSERS = {"prometheus": parse_text, "openmetrics": parse_openmetrics}


@pytest.fixture(params=PARSERS)
def scrape(request, flusher):
    """Call for the samples of a scrape, by name and labels, in one format after the other."""

    def scrape(query=""):
        answer = View.of(flusher).answer("GET", f"format={request.param}&{query}")
        assert answer.status == 200
        families = list(PARSERS[request.param](answer.body.decode()))
        assert len({family.name for family in families}) == len(families)
        samples = [sample for family in families for sample in family.samples]
        found = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}
        assert len(found) == len(samples)
        return {key: value for key, value in found.items() if not key[0].endswith("_created")}

    return scrape


def test_counters_are_totals_with_the_open_interval(registry, end_interval, scrape):
    hits = registry.counter("web.hits", tags={"route": "/u", "status": 200})
    hits.inc(5)
    end_interval()
    hits.inc(2)
    labels = (("route", "-u"), ("status", "200"))
    assert scrape() == scrape() == {("web_hits_total", *labels): 7}
    end_interval()
    assert scrape() == {("web_hits_total", *labels): 7}


def test_gauges_and_uniques_are_gauges(registry, end_interval, scrape):
    """A gauge without a value is not there; a unique has the members of the last whole interval."""
    registry.gauge("depth").set(-2.5)
    registry.gauge("never")
    registry.unique("users").add("ann")
    assert scrape() == {("depth",): -2.5, ("users",): 0}
    end_interval()
    assert scrape() == {("depth",): -2.5, ("users",): 1}


def test_timers_are_histograms_in_seconds(registry, end_interval, scrape):
    """Bounds are powers of two of a millisecond, counts are exact, over intervals and in the open one."""
    timer = registry.timer("query", tags={"pool": "a"})
    for seconds in (0.001, 0.0015, 0.004):
        timer.observe(seconds)
    end_interval()
    timer.observe(0.0041)
    found = scrape()
    pool = ("pool", "a")
    buckets = {dict(labels)["le"]: value for (name, *labels), value in found.items() if name == "query_seconds_bucket"}
    assert buckets == {"0.001": 1, "0.002": 2, "0.004": 3, "0.008": 4, "+Inf": 4}
    assert found["query_seconds_count", pool] == 4
    assert found["query_seconds_sum", pool] == pytest.approx(0.0106)


def test_histograms_have_their_own_unit(registry, scrape):
    for value in (-3, 0, 1, 700):
        registry.histogram("basket").observe(value)
    found = scrape()
    assert found["basket_bucket", ("le", "+Inf")] == 4
    assert found["basket_bucket", ("le", "1.0")] == 3
    assert found["basket_bucket", ("le", "512.0")] == 3
    assert found["basket_bucket", ("le", "1024.0")] == 4
    assert found["basket_sum",] == 698
    registry.timer("idle")
    assert scrape()["idle_seconds_bucket", ("le", "+Inf")] == 0


def test_names_and_labels_become_legal_and_stay_different(registry, scrape):
    registry.counter("web.hits").inc(1)
    registry.counter("web_hits").inc(2)
    registry.gauge("web.hits").set(3)
    registry.counter("5xx_total").inc(4)
    registry.timer("wait_seconds").observe(1)
    registry.counter("tags", tags={"a-b": 1, "a.b": 2, "le": 3, "1": 4}).inc(5)
    found = scrape()
    assert found["web_hits_total",] == 1
    assert found["web_hits_counter_total",] == 2
    assert found["web_hits_gauge",] == 3
    assert found["_5xx_total",] == 4
    assert found["wait_seconds_count",] == 1
    assert found["tags_total", ("_1", "4"), ("a_b", "1"), ("a_b2", "2"), ("le2", "3")] == 5


def test_openmetrics_says_since_when_a_series_counts(flusher, registry, clock, end_interval):
    """That is the start of the interval in which it was first seen, and stays so."""

    def created():
        text = View.of(flusher).answer("GET", "format=openmetrics").body.decode()
        samples = [sample for family in parse_openmetrics(text) for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.name.endswith("_created")}

    start = clock.time()
    registry.counter("hits").inc()
    clock.advance(3)
    assert created() == {"hits_created": start}
    end_interval()
    registry.timer("query").observe(1)
    registry.gauge("depth").set(1)
    registry.counter("falls").inc(-1)
    registry.counter("falls", tags={"or": "not"}).inc()  # of a type that is unknown, nothing is created
    end_interval()
    assert created() == {"hits_created": start, "query_seconds_created": start + 10}


def test_units_are_declared_where_names_have_them(flusher, registry):
    registry.counter("sent.bytes").inc()
    registry.timer("query").observe(1)
    registry.gauge("bytes").set(1)
    text = View.of(flusher).answer("GET", "format=openmetrics").body.decode()
    units = {family.name: family.unit for family in parse_openmetrics(text)}
    assert units == {"sent_bytes": "bytes", "query_seconds": "seconds", "bytes": ""}


def test_no_gauge_gets_the_name_of_a_sample_of_another_metric(registry, scrape):
    registry.counter("hits").inc(1)
    registry.gauge("hits_created").set(2)
    registry.histogram("size").observe(3)
    registry.gauge("size_bucket").set(4)
    found = scrape()
    assert (found["hits_total",], found["hits_created_gauge",]) == (1, 2)
    assert (found["size_count",], found["size_bucket_gauge",]) == (1, 4)


def test_what_is_scraped_may_be_chosen(registry, scrape):
    registry.counter("web.hits").inc()
    registry.counter("db.hits").inc()
    assert scrape("match=web.*") == {("web_hits_total",): 1}


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["counter", "gauge", "timer", "histogram", "unique"]), st.text(max_size=12)),
        st.floats(-1e308, 1e308),
        max_size=12,
    ),
    st.sampled_from(sorted(PARSERS)),
)
def test_whatever_is_measured_can_be_read(values, form):
    """Every counter has its value; no name is there twice."""
    from metricslib.flusher import Flusher

    registry = Registry(clock=ManualClock())
    for (kind, name), value in values.items():
        made = getattr(registry, kind)(name or "x", tags={name or "x": name})
        getattr(made, {"gauge": "set", "counter": "inc", "unique": "add"}.get(kind, "observe"))(value)
    text = View.of(Flusher(registry)).answer("GET", f"format={form}").body.decode()
    families = list(PARSERS[form](text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    counters = sorted(sample.value for sample in samples if sample.name.endswith("_total"))
    merged = registry.snapshot().open.counters.values()
    assert counters == sorted(map(float, merged))


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,/;q=0.1"
)
OLD_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "html"),
        ("*/*", "prometheus"),
        (BROWSER, "html"),
        ("application/json", "json"),
        ("application/json, */*;q=0.1", "json"),
        ("text/html;q=0.5, application/json;q=0.9", "json"),
        (PROMETHEUS, "openmetrics"),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", "prometheus"),
        ("text/plain", "prometheus"),
        ("text/plain;version=1.0.0", "html"),
        ("text/html, text/plain;q=0.5", "html"),
        (OLD_PROMETHEUS, "openmetrics"),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "prometheus"),
        ("application/json;q=0", "html"),
        ("application/json;q=x,;;,=", "html"),
    ],
)
def test_who_asks_gets_what_it_reads(flusher, registry, accept, form):
    """A parameter wins over the header."""
    assert accepted(accept) == form
    registry.counter("hits").inc()
    types = {"html": "text/html", "json": "application/json", "openmetrics": "application/openmetrics-text"}
    headers = dict(View.of(flusher).answer("GET", "", accept=accept).headers)
    assert headers["Content-Type"].startswith(types.get(form, "text/plain; version=0.0.4"))
    headers = dict(View.of(flusher).answer("GET", "format=json", accept=accept).headers)
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e308, -0.0, 5.0, 10**400])
def test_numbers_are_written_as_prometheus_reads_them(value):
    from metricslib.view.prometheus import number

    read = next(iter(parse_text(f"# TYPE x gauge\nx {number(value)}\n"))).samples[0].value
    expected = math.inf if value == 10**400 else value
    assert read == expected or (math.isnan(read) and math.isnan(expected))
