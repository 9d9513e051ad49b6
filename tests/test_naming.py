"""A window's values have the paths and the arithmetic that statsd gives them."""

import math
import pickle
import socket
from dataclasses import replace

import pytest

from metricslib.errors import InvalidOption, InvalidType
from metricslib.naming import Naming, Spelled, expanded
from metricslib.sketch import NO_SAMPLES, Distribution
from metricslib.window import Window


def window(**kinds) -> Window:
    return Window(0, 10, 10, **kinds)


TIMER = Distribution([300, 100, 200, 400]).freeze()


@pytest.mark.parametrize("part", ["namespace", "counters", "gauges", "suffix", "own"])
@pytest.mark.parametrize("text", ["a b", "a\n", "a\u2003b", "a;b", "a\0", "\ud800"])
def test_a_part_that_no_line_can_hold_is_refused(part: str, text: str):
    """Graphite would skip every line, or take it for another path, and nobody would count them."""
    with pytest.raises(InvalidOption, match=f"{part} = .* must not contain white space"):
        replace(Naming(), **{part: text})  # type: ignore[arg-type]


def test_the_newer_namespace_is_the_default():
    """Rate before count, counters before timers before gauges before sets; tags come last."""
    pairs = Naming().pairs(
        window(
            counters={"hits;route=u": 5},
            timers={"idle": NO_SAMPLES},
            gauges={"depth": -1.5},
            uniques={"users": frozenset("ab")},
        )
    )
    assert list(pairs) == [
        ("stats.counters.hits.rate;route=u", 0.5),
        ("stats.counters.hits.count;route=u", 5),
        ("stats.timers.idle.count_ps", 0),
        ("stats.timers.idle.count", 0),
        ("stats.gauges.depth", -1.5),
        ("stats.sets.users.count", 2),
    ]


def test_the_legacy_namespace_is_an_option():
    """The paths of a statsd that was never told otherwise."""
    pairs = dict(
        Naming(legacy=True).pairs(
            window(counters={"a": 5}, timers={"t": TIMER}, gauges={"g": 1}, uniques={"s": frozenset("x")})
        )
    )
    assert pairs["stats.a"] == 0.5
    assert pairs["stats_counts.a"] == 5
    assert pairs["stats.timers.t.upper"] == 400
    assert pairs["stats.gauges.g"] == 1
    assert pairs["stats.sets.s.count"] == 1


def test_a_timer_has_every_statistic_in_statsds_order():
    """Per percentile five, then nine more; k = floor(90/100·4 + 0.5) = 4 of four samples."""
    assert [
        (path.removeprefix("stats.timers.t."), value) for path, value in Naming().pairs(window(timers={"t": TIMER}))
    ] == [
        ("count_90", 4),
        ("mean_90", 250),
        ("upper_90", 400),
        ("sum_90", 1000),
        ("sum_squares_90", 300000),
        ("std", math.sqrt(12500)),
        ("upper", 400),
        ("lower", 100),
        ("count", 4),
        ("count_ps", 0.4),
        ("sum", 1000),
        ("sum_squares", 300000),
        ("mean", 250),
        ("median", 250),
    ]


def test_percentiles_may_be_fractional_and_negative_and_vanish_when_they_hold_nothing():
    """99.9 is 99_9, -25 is the largest quarter, 1 percent of four samples is none."""
    pairs = Naming(percentiles=(50, 99.9, -25, 1)).pairs(window(timers={"t": TIMER}))
    found = {path.removeprefix("stats.timers.t."): value for path, value in pairs}
    assert found["upper_50"] == 200
    assert found["upper_99_9"] == 400
    assert found["lower_top25"] == 400
    assert found["count_top25"] == 1
    assert not any("_1" in path for path in found)


def test_a_spelled_number_keeps_its_spelling_in_names():
    """``90.0`` is 90_0 and no duplicate of 90; what it is a percentage of is the same. Copies keep it."""
    naming = Naming(percentiles=(90, Spelled("90.0"), Spelled("-25.50"), 90.0), bins=(("", (Spelled("250.0"), 300)),))
    copied = pickle.loads(pickle.dumps(naming.percentiles))
    assert [percent.text for percent in copied[1:]] == ["90.0", "-25.50"]
    found = {path.removeprefix("stats.timers.t."): value for path, value in naming.pairs(window(timers={"t": TIMER}))}
    assert (found["upper_90"], found["upper_90_0"], found["lower_top25_50"]) == (400, 400, 400)
    assert (found["histogram.bin_250_0"], found["histogram.bin_300"]) == (2, 0)
    assert len(found) == 3 * 5 + 9 + 2


@pytest.mark.parametrize("text", ["", "x", " 1", "1_0", "0x1", "nan", "inf", "1e", "٣"])
def test_what_is_no_number_cannot_be_spelled(text):
    """Names have no room for anything else."""
    with pytest.raises(ValueError, match="is not a number"):
        Spelled(text)


def test_histogram_bins_are_exclusive_at_the_top_and_go_to_the_first_match():
    """The first entry whose text is in the key counts; ``inf`` takes the rest."""
    bins = (("t", (150, 300.5, math.inf)), ("", (1,)))
    pairs = Naming(bins=bins).pairs(window(timers={"t": TIMER, "u": Distribution([0.5, 1]).freeze()}))
    found = dict(pairs)
    assert [found[f"stats.timers.t.histogram.bin_{bin}"] for bin in ("150", "300_5", "inf")] == [1, 2, 1]
    assert found["stats.timers.u.histogram.bin_1"] == 1


def test_prefix_suffix_and_namespace_have_their_places_and_vanish_with_their_dots():
    """A prefix is inside the namespace, so a series has one path whichever way it is shipped."""
    naming = Naming(prefix="shop.web1", suffix="x", namespace="", counters="", gauges="g", own="statsd")
    pairs = naming.pairs(window(counters={"hits;a=b": 1, "statsd.seen": 2}, gauges={"d": 3}))
    assert [path for path, _ in pairs] == [
        "shop.web1.hits.rate.x;a=b",
        "shop.web1.hits.count.x;a=b",
        "statsd.seen.rate.x",
        "statsd.seen.count.x",
        "g.shop.web1.d.x",
    ]


def test_counts_and_timer_statistics_can_be_left_out():
    """flush_counts and calculated are statsd's options of the same meaning."""
    naming = Naming(flush_counts=False, calculated=("count", "upper_90"))
    pairs = naming.pairs(window(counters={"a": 5}, timers={"t": TIMER, "idle": NO_SAMPLES}))
    assert [path for path, _ in pairs] == [
        "stats.counters.a.rate",
        "stats.timers.t.upper_90",
        "stats.timers.t.count",
        "stats.timers.idle.count",
    ]


def test_timer_statistics_can_be_chosen_as_statsd_does():
    """A whole percent's end becomes ``_percent``, a fraction's only its fraction; ``histogram`` is all bins."""
    naming = Naming(
        percentiles=(90, -10, 99.9), bins=(("t", (150, math.inf)),), calculated=("upper_percent", "lower_percent")
    )
    found = [path.removeprefix("stats.timers.t.") for path, _ in naming.pairs(window(timers={"t": TIMER}))]
    assert found == ["upper_90"]  # of four samples the largest tenth has none
    naming = Naming(percentiles=(99.9,), bins=(("t", (150, math.inf)),), calculated=("upper_99_percent", "histogram"))
    found = [path.removeprefix("stats.timers.t.") for path, _ in naming.pairs(window(timers={"t": TIMER}))]
    assert found == ["upper_99_9", "histogram.bin_150", "histogram.bin_inf"]


def test_a_percentile_given_twice_is_sent_once():
    """Two values for a path and stamp would be one too many."""
    assert Naming(percentiles=(90, 50, 90.0)).percentiles == (90, 50)


def test_what_a_daemon_says_of_itself_has_statsds_paths():
    """In the legacy namespace numStats stands outside of it, as in statsd; the suffix is behind all of it."""
    names = ("numStats", "graphiteStats.last_flush")
    assert [Naming(own="statsd", legacy=True, namespace="x").own_path(name) for name in names] == [
        "statsd.numStats",
        "stats.statsd.graphiteStats.last_flush",
    ]
    assert [Naming(own="fw", prefix="p", namespace="", suffix="s").own_path(name) for name in names] == [
        "fw.numStats.s",
        "fw.graphiteStats.last_flush.s",
    ]


def test_histograms_have_a_namespace_of_their_own():
    """A histogram and a timer of one name do not overwrite each other."""
    paths = [path for path, _ in Naming().pairs(window(timers={"x": TIMER}, histograms={"x": TIMER}))]
    assert len(paths) == len(set(paths)) == 28


def test_what_is_no_finite_number_is_left_out():
    """A sum beyond the largest double has no text that Graphite reads."""
    pairs = dict(Naming().pairs(window(histograms={"h": Distribution([1e200, 1e200]).freeze()})))
    assert "stats.histograms.h.sum_squares" not in pairs
    assert pairs["stats.histograms.h.upper"] == 1e200


def test_finite_numbers_are_sent_though_their_sum_is_not():
    """Each statistic is looked at for itself."""
    pairs = dict(Naming().pairs(window(timers={"t": Distribution([1.7e308]).freeze()})))
    assert {*Naming().pairs(window(timers={"t": TIMER})).paths} - pairs.keys() == {
        "stats.timers.t.sum_squares_90",
        "stats.timers.t.sum_squares",
    }
    assert pairs["stats.timers.t.sum"] == pairs["stats.timers.t.upper_90"] == 1.7e308


@pytest.mark.parametrize("options", [{}, {"bins": (("7", (1, math.inf)),), "calculated": ("histogram", "upper_90")}])
@pytest.mark.parametrize("kind", ["counters", "timers", "histograms", "gauges", "uniques"])
def test_many_new_series_have_the_paths_that_each_has_alone(kind, options, monkeypatch):
    """Also more than are built at once, with tags or without, with the prefix or not, and with bins of their own."""
    monkeypatch.setattr("metricslib.naming._BLOCK", 16)
    value = {"counters": 1, "gauges": 1, "uniques": frozenset()}.get(kind, TIMER)
    known = {f"web.{number}{tags}": value for number in range(0, 50, 3) for tags in ("", ";a=b;c=d=e")}
    new = {f"{name}.{number}{tags}": value for number in range(25) for name in ("web", "own") for tags in ("", ";t=1")}
    options = {"prefix": "shop", "own": "own", "suffix": "x", **options}
    naming, expected = Naming(**options), []
    for key in {**known, **new}:
        expected += Naming(**options).pairs(window(**{kind: {key: value}}))
    naming.pairs(window(**{kind: known}))
    assert list(naming.pairs(window(**{kind: {**known, **new}}))) == expected


def test_paths_are_forgotten_with_their_series():
    """A program whose series come and go does not grow."""
    naming = Naming()
    for number in range(5000):
        naming.pairs(window(counters={f"series{number}": 1}))
    assert sum(map(len, naming._paths.values())) <= 1100


def test_a_prefix_may_hold_host_and_pid():
    """Two processes may share a configuration and still write different paths."""
    host = socket.gethostname().split(".")[0]
    assert expanded("shop.{host}").startswith("shop.")
    assert host.replace("/", "-") in expanded("{host}.x") or not host.isascii()
    assert expanded("shop.{pid}").removeprefix("shop.").isdigit()
    assert expanded(".a b/c.") == "a_b-c"
    for wrong in ("{hots}", "{", "{0}", "{host.__class__}", "{host!r}", "{{host}}"):
        with pytest.raises(InvalidOption, match="prefix"):
            expanded(wrong)
    with pytest.raises(InvalidType, match="prefix must be a string, not 5"):
        expanded(5)


@pytest.mark.parametrize("percent", [0, 101, -100.5, "90", None])
def test_a_percentile_that_means_nothing_is_refused_by_name(percent: object):
    """A mistake at set-up is heard early."""
    with pytest.raises(InvalidOption, match="percentiles"):
        Naming(percentiles=(percent,))  # type: ignore[arg-type]
