"""Charts: what is drawn from which values. SVG that is well formed, whatever the values."""

import doctest
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib.view import charts
from metricslib.view.charts import Line, bars, chart, heat_map, round_ticks, spark, thinned, time_ticks

NAN = math.nan
ANY = st.floats(width=32) | st.floats()
BANDS = ("median", "p90", "max", "rate")


def paths(svg):
    """By class, the data of the paths."""
    return {path.get("class"): path.get("d") for path in ElementTree.fromstring(svg).iter("path")}


def numbers(data):
    return [float(number) for number in re.findall(r"-?[0-9.]+(?:e-?[0-9]+)?", data)]


def test_the_examples_are_true():
    assert doctest.testmod(charts).failed == 0


def test_a_counter_is_an_area_below_a_line():
    """Time from left to right, zero at the bottom, the largest value below the upper edge."""
    found = paths(spark("counter", {"value": Line([10, 20, 30], [0, 5, 10])}, 0, 30, str, "hits"))
    assert found["l"] == "M400 216L800 114L1200 12"
    assert found["a"] == "M400 216L800 114L1200 12L1200 216L800 216L400 216Z"


def test_a_gauge_below_zero_has_its_zero_inside():
    found = paths(spark("gauge", {"value": Line([10, 20], [-5, 5])}, 0, 20, str, "t"))
    assert found["l"] == "M600 216L1200 12"
    assert "a" not in found


def test_a_unique_goes_in_steps():
    found = paths(spark("unique", {"value": Line([10, 20, 30], [1, 2, 2])}, 0, 30, str, "u"))
    assert re.fullmatch(r"M400 [0-9]+H800V12H1200V12", found["l"])


def test_a_timer_is_bands_with_its_count_below():
    columns = {name: Line([10, 20], [value, value]) for name, value in zip(BANDS, (1, 2, 4, 7), strict=True)}
    found = paths(spark("timer", columns, 0, 20, str, "t"))
    assert list(found) == ["b1", "b2", "l", "a2"]
    median, p90, most = (numbers(found[name])[1] for name in ("l", "b2", "b1"))
    assert most < p90 < median < 176


def test_an_outlier_does_not_flatten_a_chart():
    """It is cut off; the large chart says so."""
    most = Line([10, 20, 30], [4, 1000, 4])
    columns = {name: Line([10, 20, 30], [2, 2, 2]) for name in BANDS} | {"max": most}
    assert numbers(paths(spark("timer", columns, 0, 30, str, "t"))["l"])[1] < 140
    drawn = chart("timer", columns, 0, 30, str, "t")
    assert numbers(paths(drawn)["l"])[1] < 700
    assert "peaks to 1000" in drawn
    assert "peaks" not in chart("timer", columns | {"max": Line([10, 20, 30], [4, 5, 4])}, 0, 30, str, "t")


def test_a_small_chart_says_what_its_scale_is():
    """By a round value, with a line at its height; also below zero. The line is no value: there is none without."""
    drawn = spark("gauge", {"value": Line([10, 20], [0, 11])}, 0, 20, lambda tick: f"{tick:g} l", "g")
    assert 'class="hint" y="14.2%" dy="11">10 l</text>' in drawn
    assert 'y1="30.8" y2="30.8"' in drawn
    assert ">-4</text>" in spark("gauge", {"value": Line([10, 20], [-5, -5])}, 0, 20, lambda tick: f"{tick:g}", "g")
    assert "text" not in spark("gauge", {"value": Line([10, 20], [NAN, 0])}, 0, 20, str, "g")


@pytest.mark.parametrize("values", [[1, NAN, 2, 3], [1, math.inf, 2, 3]])
def test_where_there_is_no_value_the_line_is_interrupted(values):
    """A value that stands alone is a dot."""
    data = paths(spark("gauge", {"value": Line([10, 20, 30, 40], values)}, 0, 40, str, "g"))["l"]
    assert data.count("M") == 2
    assert data.count("h1") == 1


def test_a_program_that_slept_has_a_gap():
    data = paths(spark("gauge", {"value": Line([10, 20, 30, 90, 100], [1] * 5)}, 0, 100, str, "g"))["l"]
    assert data.count("M") == 2


def test_many_values_are_thinned_to_their_means_or_their_largest():
    line = Line(list(range(1, 1001)), [1, 3] * 500)
    found = thinned({"p90": line, "max": line}, 0, 1000, 100)
    assert (set(found["p90"].values), set(found["max"].values)) == ({2}, {3})
    assert found["max"].ends == list(range(10, 1001, 10))
    assert thinned({"value": line}, 0, 1000, 1000) == {"value": line}
    gap = Line(list(range(1, 1001)), [NAN] * 505 + [4] * 495)
    assert [value for value in thinned({"max": gap}, 0, 1000, 10)["max"].values if value == value] == [4] * 5


def test_labels_are_escaped():
    drawn = spark("gauge", {"value": Line([10], [1])}, 0, 10, str, '"><script>')
    drawn += chart("gauge", {"value": Line([10], [1])}, 0, 10, lambda tick: "<b>", '"><script>') + bars([1], "<i>")
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "<i>" not in drawn


@given(st.lists(st.tuples(ANY, ANY, ANY, ANY), max_size=400), st.sampled_from(["counter", "gauge", "unique", "timer"]))
def test_whatever_the_values_the_picture_is_well_formed(values, kind):
    """No value leaves the picture, and none is written as NaN or infinity."""
    ends = [10 * place for place in range(1, len(values) + 1)]
    columns = {name: Line(ends, [each[place] for each in values]) for place, name in enumerate(BANDS)}
    if kind != "timer":
        columns = {"value": columns["median"]}
    end = max(10, 10 * len(values))
    for drawn in (
        spark(kind, columns, 0, end, str, "s"),
        chart(kind, columns, 0, end, lambda tick: f"{tick:g}", "c"),
    ):
        for data in paths(drawn).values():
            assert not re.search("nan|inf", data)
            assert all(-0.01 <= number <= 4000 for number in numbers(data.replace("h1", "")))


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
@example(0.0, 5e-324)
def test_ticks_are_few_and_inside(one, other):
    low, high = min(one, other), max(one, other)
    ticks = round_ticks(low, high)
    assert len(ticks) <= 5
    slack = (high - low) * 1e-9
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@pytest.mark.parametrize("span", [300, 3600, 86_400, 10 * 86_400])
def test_times_are_round(span):
    ticks = time_ticks(1_700_000_123, 1_700_000_123 + span)
    assert 2 <= len(ticks) <= 7
    assert all(time % 60 == 0 for time, _ in ticks)
    assert ticks == sorted(ticks)


def test_a_heat_map_has_a_cell_for_each_bucket_with_weight():
    """Darker where there is more."""
    drawn, low, high = heat_map([(10, 4, [1, 0, 100]), (20, 5, [1])], 0, 20, "h")
    assert (low, high) == (4, 6)
    data = dict(re.findall('fill-opacity="(.*?)" d="(.*?)"', drawn))
    assert sum(path.count("M") for path in data.values()) == 3
    assert data["1.00"].count("M") == 1
    assert heat_map([], 0, 20, "h") == ("", 0, 0)
