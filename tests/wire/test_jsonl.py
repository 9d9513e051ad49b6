"""A window is one line of strict JSON that says everything the window does."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from metricslib.sketch import NO_SAMPLES, Distribution
from metricslib.window import Window
from metricslib.wire import jsonl

NUMBERS = st.floats() | st.integers()
KEYS = st.text(min_size=1, max_size=10)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def read(line: bytes) -> dict:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line, parse_constant=refuse)


def test_every_kind_is_in_the_line():
    """By the documented schema: counts, statistics with the percentiles asked for, values, numbers of members."""
    window = Window(
        1_700_000_003.5,
        1_700_000_010,
        10,
        counters={"hits;route=u": 5, "idle": 0},
        timers={"query": Distribution([1, 2, 3, 4]).freeze(), "idle": NO_SAMPLES},
        histograms={"size": Distribution([7]).freeze()},
        gauges={"depth": -1.5},
        uniques={"users": frozenset("ab"), "idle": frozenset()},
    )
    assert read(jsonl.encode(window, percentiles=(50, 99.9, -25))) == {
        "schema": 1,
        "start": 1_700_000_003.5,
        "end": 1_700_000_010,
        "interval": 10,
        "counters": {"hits;route=u": 5, "idle": 0},
        "timers": {
            "query": {
                "count": 4,
                "sum": 10,
                "min": 1,
                "max": 4,
                "mean": 2.5,
                "std": math.sqrt(1.25),
                "median": 2.5,
                "p50": 2,
                "p99.9": 4,
                "top25": 4,
            },
            "idle": {"count": 0},
        },
        "histograms": {
            "size": {
                "count": 1,
                "sum": 7,
                "min": 7,
                "max": 7,
                "mean": 7,
                "std": 0,
                "median": 7,
                "p50": 7,
                "p99.9": 7,
                "top25": 7,
            }
        },
        "gauges": {"depth": -1.5},
        "uniques": {"users": 2, "idle": 0},
    }


def test_a_percentile_of_no_sample_is_left_out():
    """As in statsd: one percent of four samples is none."""
    window = Window(0, 10, 10, timers={"t": Distribution([1, 2, 3, 4]).freeze()})
    assert "p1" not in read(jsonl.encode(window, percentiles=(1,)))["timers"]["t"]


def test_the_prefix_stands_before_every_name_but_those_without():
    """As on the way to Graphite: a forwarder's own series have none."""
    window = Window(0, 10, 10, counters={"a;k=v": 1, "statsd.x": 2}, gauges={"g": 1}, uniques={"u": frozenset()})
    document = read(jsonl.encode(window, "shop.web1", unprefixed="statsd."))
    assert document["counters"] == {"shop.web1.a;k=v": 1, "statsd.x": 2}
    assert document["gauges"] == {"shop.web1.g": 1}
    assert document["uniques"] == {"shop.web1.u": 0}


def test_a_sum_beyond_doubles_is_null():
    """There is no Infinity in JSON; the rest of the line stands."""
    window = Window(0, 10, 10, histograms={"h": Distribution([1e308, 1e308]).freeze()}, counters={"c": math.inf})
    document = read(jsonl.encode(window))
    assert document["counters"]["c"] is None
    assert document["histograms"]["h"]["sum"] is None
    assert document["histograms"]["h"]["max"] == 1e308


@given(
    st.dictionaries(KEYS, NUMBERS),
    st.dictionaries(KEYS, st.lists(st.floats(allow_nan=False, allow_infinity=False))),
    st.dictionaries(KEYS, NUMBERS),
)
def test_a_line_is_one_line_of_json_whatever_is_in_it(counters, samples, gauges):
    """Names with line ends, numbers that are none: it can be read again, and nothing is missing."""
    timers = {key: Distribution(values).freeze() for key, values in samples.items()}
    document = read(jsonl.encode(Window(0, 10, 10, counters=counters, timers=timers, gauges=gauges), percentiles=(90,)))
    assert document["counters"].keys() == counters.keys()
    assert document["timers"].keys() == samples.keys()
    assert all(document["gauges"][key] == (value if math.isfinite(value) else None) for key, value in gauges.items())
