"""The benchmarks themselves: what they would say is not judged here, only that they say it."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.chart import PANELS, drawn
from benchmarks.rows import Row, at_least, at_most, judge, table

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_row_is_measured(tmp_path):
    """All of them run, and the JSON has every row of every table: with figures, or why there are none."""
    file = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())["results"]
    assert {name: [found["what"] for found in results[name]] for name in results} == {
        name: [row.what for row in benchmark.ROWS] for name, benchmark in BENCHMARKS.items()
    }
    for name, benchmark in BENCHMARKS.items():
        for row, found in zip(benchmark.ROWS, results[name], strict=True):
            assert found["note"] or (found["cost"] is not None and (row.goal is None) == (found["met"] is None))
            assert found["what"] in done.stdout


def test_one_benchmark_can_be_run_alone(tmp_path):
    """Each headline number is repeated by its name."""
    file = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "benchmarks", "imports", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=280, check=True)
    assert json.loads(file.read_text())["results"].keys() == {"imports"}


SAMPLES = {"ours": [2.0, 3.0, 10.0], "theirs": [8.0, 9.0, 10.0], "nothing": [0.0, 0.0, 0.0]}


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row("ours", "s", "theirs", at_most(0.34)), 1 / 3, True),
        (Row("ours", "s", "theirs", at_most(0.33)), 1 / 3, False),
        (Row("ours", "s", "theirs", at_least(3)), 3, True),
        (Row("ours", "s", "theirs", at_least(3.1)), 3, False),
        (Row("ours", "s", "theirs"), 1 / 3, None),
        (Row("ours", "s", goal=at_most(3)), None, True),
        (Row("ours", "ms", goal=at_most(2999)), None, False),
        (Row("nothing", "", goal=at_most(0)), None, True),
        (Row("absent", "s", "theirs", at_most(1)), None, None),
        (Row("ours", "s", "absent", at_most(1)), None, None),
    ],
)
def test_a_goal_is_for_the_median_of_the_ratios(row, ratio, met):
    """Rounds are compared one by one, the middle one counts, and what is missing is neither met nor missed."""
    result = judge(row, SAMPLES, "not built")
    assert result.ratio == (None if ratio is None else pytest.approx(ratio))
    assert result.met is met
    assert (result.note == "not built") == ("absent" in (row.what, row.against))


def test_the_table_says_which_goals_are_missed():
    """A goal has its mark beside it, and a row without figures the reason."""
    rows = (Row("ours", "s", "theirs", at_most(1)), Row("theirs", "s", "ours", at_most(1)), Row("absent", "s"))
    lines = table("Title", [judge(row, SAMPLES, "not built") for row in rows]).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[2:]] == ["met", "NOT MET", "not built"]


def test_the_chart_shows_what_was_measured():
    """Its bars are samples of the benchmarks, each as long as the logarithm of its cost; others are left out."""
    rows = [row for benchmark in BENCHMARKS.values() for row in benchmark.ROWS]
    measured = {row.what for row in rows} | {row.against for row in rows}
    bars = [bar.what for panel in PANELS for group in panel.groups.values() for bar in group]
    assert {*bars} <= measured
    svg = ET.fromstring(drawn({bars[0]: 10.0, bars[1]: 100.0, bars[2]: 1000.0}))
    widths = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == pytest.approx([0, widths[2] / 2, widths[2]])


def test_nothing_measured_is_an_empty_chart():
    """Where no bar has a cost there is no scale either."""
    assert list(ET.fromstring(drawn({})).iter("{http://www.w3.org/2000/svg}rect")) == []
