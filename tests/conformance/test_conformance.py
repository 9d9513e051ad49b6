"""For the same datagrams, Graphite gets the same from statsd and from us, but for what the list of deviations says."""

import pickle

import pytest
from hypothesis import HealthCheck, given, settings

from forwarder.config import OPTIONS
from forwarder.top_keys import KeyFlush, TopKeys
from metricslib.testing import ManualClock
from metricslib.wire.graphite import decode
from metricslib.wire.pickle import encode_points

from .corpus import CASES, CRASHES, LINES
from .daemons import INTERVAL, START, Case, Crash, configured, ours, shown
from .deviations import DEVIATIONS, PAGE, Deviation, found, page
from .grammar import cases, garbage
from .judge import Tally, Unexplained, judge
from .readings import READINGS

IN_ARITHMETIC = {"weighted-timers", "mixed-rates", "gauge-deltas", "endless-sums", "top-100"}
NEWER = {"graphite": {"legacyNamespace": False}}


@pytest.mark.slow
def test_drawn_cases_give_the_same(statsd, tally):
    """Lines from a grammar, under any options and over several intervals, in the same order and to the byte."""

    @settings(max_examples=400, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(cases)
    def run(case):
        judge(case, statsd, tally)

    run()
    assert tally.cases - tally.deviating > tally.cases / 3


def test_anything_gives_the_same(statsd, tally):
    """Also lines that make no sense, of characters that mean something to a parser."""

    @settings(max_examples=700, database=None)
    @given(garbage)
    def run(case):
        judge(case, statsd, tally)

    run()


def test_every_line_of_the_corpus_gives_the_same(statsd, tally):
    """Each by itself, and between two lines that nothing may happen to."""
    for line in LINES:
        judge(Case([[line.encode("utf-8", "surrogatepass")]], NEWER), statsd, tally)
        judge(Case([[b"z:1|c\n" + line.encode("utf-8", "surrogatepass") + b"\nz:2|c"], []]), statsd, tally)


@pytest.mark.parametrize("name", CASES)
def test_every_case_of_the_corpus_gives_the_same(name, statsd, tally):
    """None of them shows a deviation."""
    assert judge(CASES[name], statsd, tally) == frozenset()


def test_what_kills_statsd_is_a_line_like_others(statsd, tally):
    """It dies of each of these lines; to us they are bad, or their names are names, and what comes next is counted."""
    for line in CRASHES:
        case = Case([[line.encode()], [b"next:1|c"]], NEWER)
        with pytest.raises(Crash):
            statsd(case)
        assert judge(case, statsd, tally)
        assert "stats.counters.next.count 1" in shown(ours(case)[1], NEWER)


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.id)
def test_every_deviation_is_as_listed(deviation: Deviation, statsd):
    """Both daemons send what the list says they do, no more and no less."""
    assert found(deviation.case, statsd) == (deviation.statsd, deviation.ours)


def test_the_list_has_every_reading_and_nothing_twice():
    """A line may only be read otherwise for a reason that the list has."""
    ids = [deviation.id for deviation in DEVIATIONS]
    assert len(ids) == len(set(ids))
    assert READINGS.keys() | IN_ARITHMETIC <= set(ids)


def test_the_page_shows_the_list():
    """If it does not: python -m tests.conformance.deviations"""
    assert PAGE.read_text("utf-8") == page()


def test_the_account_comes_in_addition():
    """What we say of ourselves beyond statsd changes nothing of the rest, but for the number of series."""
    case = CASES["idle series"]
    assert OPTIONS["own_account"]
    for with_it, without in zip(ours(case, own_account=True), ours(case), strict=True):
        rest = [line for line in shown(without, {}) if "numStats" not in line]
        more = [line for line in shown(with_it, {}) if line not in rest]
        assert [line for line in shown(with_it, {}) if line in rest] == rest
        assert more
        assert all(".statsd." in line or line.startswith("statsd.numStats") for line in more)


@pytest.mark.parametrize("rate", ["0.3", "0.1", "0.7", "0.9", "0.123", ".5"])
def test_timers_of_one_rate_have_statsds_means_and_deviations(rate, statsd):
    """To the last digit: mean, mean of each percentile, deviation and median are those of the samples as they came."""
    samples = [(number * 7919) % 251 / 10 for number in range(200)]
    lines = "\n".join(
        f"t:{sample}|ms|@{rate}\nequal:{samples[1]}|ms|@{rate}\nwhole:11|ms|@{rate}" for sample in samples
    )
    case = Case([[lines.encode()]], {**NEWER, "percentThreshold": [90, -10, 33.3, 100]})
    unscaled = ("mean", "upper", "lower", "std", "median", "count ", "count_ps ")

    def told(flushes):
        lines = (line.removeprefix("stats.timers.") for line in shown(flushes[0], NEWER))
        return [line for line in lines if line.partition(".")[2].startswith(unscaled)]

    mine = told(ours(case))
    assert mine == told(statsd(case))
    assert len(mine) == 3 * (4 * 2 + 7)
    assert "whole.mean 11" in mine


def test_reports_of_the_busiest_keys_differ_in_how_the_moment_is_written(statsd, tmp_path):
    """statsd writes it as JavaScript shows dates, we as RFC 3339 does; the rest of each line is the same."""
    case = Case([[b"b:1|c\na:1|c:2|c\nb:x|ms\nb;t=1:1|g"]], {"keyFlush": {"interval": 1000, "percent": 60}})
    top_keys = TopKeys()
    top_keys.feed(case.intervals[0])
    percent = configured(case.options).key_flush.percent
    KeyFlush(top_keys, 1, percent, str(tmp_path / "keys"), clock=ManualClock(START + INTERVAL)).report()
    statsd(case)
    theirs, mine = statsd.report, (tmp_path / "keys").read_text()
    shown = "Tue Nov 14 2023 22:13:30 GMT+0000 (Coordinated Universal Time)"
    assert theirs == f"{shown} count=2 key=b\n{shown} count=1 key=a\n"
    assert mine == theirs.replace(shown, "2023-11-14T22:13:30Z")


def test_pickled_points_differ_in_their_types(statsd):
    """statsd pickles values as texts, in the oldest protocol; we as numbers. carbon makes them floats."""
    case = Case([[b"a:3|c\nb:0.5|g"]], {"graphiteProtocol": "pickle"})
    (frame,) = statsd(case)
    theirs = pickle.loads(bytes(frame["data"])[4:])
    frames = list(encode_points(decode(ours(case)[0].encode())))
    points = [point for frame in frames for point in pickle.loads(frame[4:])]
    assert ("stats_counts.a", (START + INTERVAL, "3")) in theirs
    assert ("stats.gauges.b", (START + INTERVAL, "0.5")) in theirs
    assert all(type(stamp) is int and type(value) is str for _, (stamp, value) in theirs)
    assert ("stats_counts.a", (START + INTERVAL, 3)) in points
    assert all(type(stamp) is int and type(value) is float for _, (stamp, value) in points)
    assert [path for path, _ in points] == [path for path, _ in theirs]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [(b"a:1|c", "_counts.a "), (b"a:5|ms:7|ms", "mean "), (b"a:1|g", "gauges.a "), (b"a:1|ms|@0.5", "sum_squares ")],
)
def test_a_difference_is_found(line, wrong, statsd, monkeypatch):
    """The judge lets nothing pass that nobody listed: not a value, not a line that is missing, not another order."""
    real = ours(Case([[line]]))

    def spoilt(flush):
        lines = flush.splitlines()
        (place,) = (place for place, text in enumerate(lines) if wrong in text)
        path, value, stamp = lines[place].split(" ")
        yield [*lines[:place], f"{path} {float(value) + 1} {stamp}", *lines[place + 1 :]]
        yield lines[:place] + lines[place + 1 :]
        yield [*lines[: place - 1], lines[place], lines[place - 1], *lines[place + 1 :]]

    for lines in spoilt(real[0]):
        monkeypatch.setattr("tests.conformance.judge.ours", lambda _case, lines=lines: ["\n".join(lines)])
        with pytest.raises(Unexplained):
            judge(Case([[line]]), statsd, Tally())
