"""Graphite's API below the page: the requests that Grafana's data source and tasseo make, and their answers."""

import json
from urllib.parse import quote, urlencode

import pytest

from metricslib.flusher import Flusher
from metricslib.view.access import Page
from metricslib.view.answer import View
from metricslib.view.request import Request

ROUTE = ";route=-u"


@pytest.fixture
def ask(flusher):
    """Call with a path and parameters; return what the JSON of the answer says."""

    def ask(path, status=200, form=None, **parameters):
        query = urlencode([(name.strip("_"), value) for name, value in parameters.items()], doseq=True)
        view = View.of(flusher)
        if form is None:
            answer = view.answer("GET", query, f"/{path}")
        else:
            answer = view.answer("POST", query, f"/{path}", form=form.encode())
        assert answer.status == status, answer.body
        return json.loads(answer.body) if status == 200 else answer.body.decode()

    return ask


@pytest.fixture
def measured(registry, end_interval, clock):
    """Three intervals, the second without anything; return the stamps of their ends."""
    clock.set_time(1_700_006_410)  # not at the beginning of a minute
    end_interval()
    stamps = []
    for number in (1, 0, 3):
        registry.counter("web.hits").inc(20 * number)
        registry.counter("web.hits", tags={"route": "/u"}).inc(10 * number)
        registry.counter("web.misses").inc(number)
        registry.gauge("depth").set(number)
        for _ in range(number):
            registry.timer("db.query").observe(0.25)
        end_interval()
        stamps.append(int(clock.time()))
    return stamps


def points(found):
    """The values of an answer, by target and time, without gaps."""
    return {each["target"]: {at: value for value, at in each["datapoints"] if value is not None} for each in found}


def test_grafana_s_test_of_the_connection(ask, measured):
    """It asks for the roots, and in a newer version for the version and the functions."""
    assert ask("metrics/find", query="*") == [
        {"text": "stats", "id": "stats", "leaf": 0, "context": {}, "expandable": 1, "allowChildren": 1}
    ]
    functions = ask("functions")
    assert functions["alias"]["params"][1] == {"name": "newName", "type": "string", "required": True, "multiple": False}
    assert ask("events/get_data", from_="-1h", until="now", tags="deploy") == []


def test_the_version_is_a_text(flusher):
    answer = View.of(flusher).answer("GET", "", "/version")
    assert (answer.status, answer.body) == (200, b"1.1.10")


def test_grafana_s_query_is_a_form(ask, measured):
    """As it sends it: targets, a range in words, and how many points fit in the panel."""
    form = (
        f"target={quote('aliasByNode(stats.counters.web.*.rate, 3)')}&target={quote('stats.timers.db.query.upper_90')}"
        "&from=-1h&until=now&format=json&maxDataPoints=1000"
    )
    found = points(ask("render", form=form))
    one, two, three = measured
    assert found == {
        "hits": {one: 2, two: 0, three: 6},
        "misses": {one: 0.1, two: 0, three: 0.3},
        "stats.timers.db.query.upper_90": {one: 250, three: 250},
    }


def test_the_query_of_tasseo(ask, measured):
    """With a slash behind the path; every gap is filled, so that the last value can be read."""
    (found,) = ask("render/", target="keepLastValue(stats.timers.db.query.median)", from_="-5minutes", format="json")
    assert found["target"] == "keepLastValue(stats.timers.db.query.median)"
    assert [value for value, _ in found["datapoints"] if value is not None] == [250, 250, 250]
    assert found["datapoints"][-1] == [250, measured[-1]]


def test_points_stand_at_every_interval(ask, measured, clock):
    """``from`` is excluded and ``until`` included, as in Graphite; what is not known is null."""
    (found,) = ask("render", target="stats.gauges.depth", from_=measured[0] - 40, until=measured[2])
    assert [at for _, at in found["datapoints"]] == list(range(measured[0] - 30, measured[2] + 1, 10))
    assert [value for value, _ in found["datapoints"]] == [None, None, None, 1, 0, 3]
    assert found["tags"] == {"name": "stats.gauges.depth"}


@pytest.mark.parametrize(
    ("target", "name", "values"),
    [
        ("alias(stats.gauges.depth, 'how deep')", "how deep", [1, 0, 3]),
        ("sumSeries(stats.counters.web.*.count)", "sumSeries({both})", [21, 0, 63]),
        ("averageSeries(stats.counters.web.*.count)", "averageSeries({both})", [10.5, 0, 31.5]),
        ("maxSeries(stats.counters.web.{{hits,misses}}.count)", "maxSeries({both})", [20, 0, 60]),
        ("minSeries(stats.counters.web.hits.count,stats.gauges.depth)", None, [1, 0, 3]),
        ("scale(stats.gauges.depth, 0.5)", "scale(stats.gauges.depth,0.5)", [0.5, 0, 1.5]),
        ("offset(stats.gauges.depth,-1)", "offset(stats.gauges.depth,-1)", [0, -1, 2]),
        ("consolidateBy(stats.gauges.depth,'max')", None, [1, 0, 3]),
        ("seriesByTag('route=-u')", f"stats.counters.web.hits.rate{ROUTE}", None),
        ("seriesByTag('name=~stats.counters.*.count', 'route=~^-u|x$')", f"stats.counters.web.hits.count{ROUTE}", None),
        (f"stats.counters.web.hits.count{ROUTE}", f"stats.counters.web.hits.count{ROUTE}", [10, 0, 30]),
        ("group(stats.gauges.depth)", "stats.gauges.depth", [1, 0, 3]),
    ],
)
def test_targets(ask, measured, target, name, values):
    both = "stats.counters.web.hits.count,stats.counters.web.misses.count"
    found = points(ask("render", target=target.replace("{{", "{").replace("}}", "}"), from_=measured[0] - 10))
    if name:
        assert name.format(both=both) in found
    if values:
        assert list(next(iter(found.values())).values()) == values


def test_points_become_fewer(ask, measured):
    """Each stands for several, at a multiple of its step; the mean if nothing else was asked for."""
    parameters = {"from_": measured[0] - 10, "until": measured[2], "maxDataPoints": 2}
    found = ask("render", target=["stats.gauges.depth", "consolidateBy(stats.gauges.depth,'sum')"], **parameters)
    assert [len(each["datapoints"]) <= 3 for each in found] == [True, True]
    assert sum(value for value, _ in found[1]["datapoints"]) == 4
    assert all(at % 20 == 0 for each in found for _, at in each["datapoints"])


def test_paths_are_found_by_their_parts(ask, measured):
    assert [each["id"] for each in ask("metrics/find", query="stats.*")] == [
        "stats.counters",
        "stats.gauges",
        "stats.timers",
    ]
    leaves = ask("metrics/find", query="stats.counters.web.{hits,misses}.[a-m]*")
    assert [(each["id"], each["leaf"]) for each in leaves] == [
        ("stats.counters.web.hits.count", 1),
        ("stats.counters.web.misses.count", 1),
    ]
    assert ask("metrics/find", query="stats.g", format="completer") == {
        "metrics": [{"path": "stats.gauges.", "name": "gauges", "is_leaf": "0"}]
    }
    assert ask("metrics/expand", query=["stats.gauges.*", "stats.c*"]) == {
        "results": ["stats.counters", "stats.gauges.depth"]
    }
    assert ask("metrics/expand", query="stats.g*", groupByExpr=1) == {"results": {"stats.g*": ["stats.gauges"]}}
    assert "stats.timers.db.query.median" in ask("metrics/index.json")
    assert not [path for path in ask("metrics/index.json") if ";" in path]


def test_tags_are_completed(ask, measured):
    assert ask("tags/autoComplete/tags", tagPrefix="r") == ["route"]
    assert ask("tags/autoComplete/values", tag="route", expr="name=~stats.counters.*") == ["-u"]
    assert ask("tags") == [{"tag": "name"}, {"tag": "route"}]
    assert ask("tags/route") == {"tag": "route", "values": [{"value": "-u", "count": 2}]}
    assert ask("tags/findSeries", expr="route!=") == [
        f"stats.counters.web.hits.count{ROUTE}",
        f"stats.counters.web.hits.rate{ROUTE}",
    ]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"target": "movingAverage(a.b, 10)"}, "movingAverage"),
        ({"target": "alias(a.b"}, "parenthesis"),
        ({"target": "alias(a.b)"}, "needs 2 arguments"),
        ({"target": "scale(a.b, 'x')"}, "is no float"),
        ({"target": "a.b)"}, "no target"),
        ({"target": "'text'"}, "no target"),
        ({"target": ""}, None),
        ({"target": "alias(" * 30 + "a"}, "in one another"),
        ({"target": "x" * 5000}, "4096 characters"),
        ({"target": "a.{b,c"}, "brace"),
        ({"target": "seriesByTag('a=~(b+)+$')"}, "may only have"),
        ({"target": "a", "from_": "yesterday-ish"}, "from"),
        ({"target": "a", "from_": "now", "until": "-1h"}, "before until"),
        ({"target": "a", "format": "png"}, "json"),
        ({"target": "a", "maxDataPoints": "0"}, "maxDataPoints"),
    ],
)
def test_an_error_names_what_is_wrong(ask, measured, parameters, says):
    if says is None:
        assert ask("render", **parameters) == []
    else:
        assert says in ask("render", 400, **parameters)


@pytest.mark.parametrize("text", ["1700006400", "-1d", "now-1h", "18:30_20231114", "20231114", "-2weeks"])
def test_times_may_be_written_as_in_graphite(ask, measured, text):
    ask("render", target="stats.gauges.depth", from_=text, maxDataPoints=10)


def test_a_request_is_bounded(ask, measured, flusher):
    """In points, and in processor time."""
    assert "too many points" in ask("render", 400, target="stats.*.depth", from_="100000000", until="1700006440")
    spent = iter([0.0, *[3.0] * 1000])
    view = View(lambda: flusher, clock=flusher.registry.clock, spent=lambda: next(spent))
    assert view.answer("GET", "target=stats.*.depth", "/render").status == 503


def test_an_hour_ago_there_are_minutes(registry, ask, end_interval, clock):
    """A count is the sum of a minute, a rate its mean."""
    start = int(clock.time()) // 60 * 60 + 60
    clock.set_time(start)
    for _ in range(400):
        registry.counter("hits").inc(5)
        end_interval()
    (found,) = ask("render", target="stats.counters.hits.count", from_=start, until=start + 600)
    assert found["datapoints"] == [[30, start + 60 * number] for number in range(1, 11)]
    (found,) = ask("render", target="stats.counters.hits.rate", from_=start, until=start + 600)
    assert found["datapoints"][0] == [0.5, start + 60]


def test_whisper_files_answer_for_what_the_history_has_not(tmp_path, registry, clock):
    """Other statistics, and the time before the program began."""
    whisper = pytest.importorskip("whisper")
    now = 1_700_006_400
    clock.set_time(now)
    flusher = Flusher(registry, f"whisper://{tmp_path}", interval=10, own="")
    (tmp_path / "stats" / "gauges").mkdir(parents=True)
    file = str(tmp_path / "stats" / "gauges" / "depth.wsp")
    whisper.create(file, [(10, 1000)])
    whisper.update_many(file, [(now - 1000, 7.0)], now=now)
    registry.gauge("depth").set(1)
    clock.advance(10)
    flusher.tick()
    view = View.of(flusher)

    def asked(query, path="/render"):
        return json.loads(view.answer("GET", query, path).body)

    old = points(asked(f"target=stats.gauges.depth&from={now - 1010}&until={now - 990}"))
    assert old == {"stats.gauges.depth": {now - 1000: 7}}
    new = points(asked(f"target=stats.gauges.depth&from={now}&until={now + 10}"))
    assert new == {"stats.gauges.depth": {now + 10: 1}}
    (tmp_path / "stats" / "gauges" / "other.wsp").write_bytes(b"damaged")
    assert [each["text"] for each in asked("query=stats.gauges.*", "/metrics/find")] == ["depth", "other"]
    assert asked("target=stats.gauges.other")[0]["datapoints"] == []
    assert "stats.gauges.other" in asked("", "/metrics/index.json")
    assert asked("target=..%2F..%2Fetc.passwd&from=-1h") == []
    flusher.stop(0)


def test_a_form_needs_the_token_as_every_request_does(flusher):
    page = Page(flusher, "page", token="a token that is long enough")
    for path in ("/render", "/render/", "/metrics/find", "/metrics/expand"):
        for method in ("GET", "POST"):
            assert page.answer(Request(method, path, body=b"target=a&query=a")).status == 401
    bearer = {"authorization": "Bearer a token that is long enough"}
    answer = page.answer(Request("POST", "/render", headers=bearer, body=b"target=a"))
    assert (answer.status, answer.body) == (200, b"[]")
    assert page.answer(Request("POST", "/version", headers=bearer)).status == 405
