"""Every number of seconds that a caller may give has bounds: infinity, NaN and negative ones end no thread."""

import math

import pytest

from metricslib import Flusher, Registry
from metricslib.delivery.batch import LONGEST, Deadline
from metricslib.errors import InvalidDestination, InvalidOption
from tests.peers import GraphitePeer

FOREVER = [math.inf, 1e300, 1e12]
NOTHING = [math.nan, -math.inf, -1.0]


@pytest.fixture
def peer():
    peer = GraphitePeer()
    yield peer
    peer.close()


@pytest.mark.parametrize("seconds", FOREVER)
def test_a_deadline_has_at_most_31_years(seconds):
    """No wait takes more than 292."""
    deadline = Deadline(seconds, lambda: 0.0)
    assert deadline.left() == LONGEST
    deadline.extend(seconds)
    assert deadline.left() == LONGEST


@pytest.mark.parametrize("seconds", NOTHING)
def test_a_deadline_that_is_no_time_has_passed(seconds):
    """NaN among them."""
    assert Deadline(seconds, lambda: 0.0).left() == 0
    deadline = Deadline(5, lambda: 0.0)
    deadline.extend(seconds)
    assert deadline.left() == 0


@pytest.mark.parametrize("seconds", FOREVER)
def test_a_flush_and_a_stop_may_take_for_ever(registry, peer, seconds):
    """They end when all is delivered."""
    flusher = Flusher(registry, peer.url, own="")
    flusher.start()
    registry.counter("a").inc(3)
    assert flusher.flush(seconds)
    registry.counter("a").inc(4)
    assert flusher.stop(seconds)
    assert peer.at("stats.counters.a.count") == [7]


@pytest.mark.parametrize("seconds", NOTHING)
def test_a_stop_without_time_still_closes_the_interval(registry, tmp_path, seconds):
    """What was measured is on the disk; only its delivery gets no time."""
    flusher = Flusher(registry, "graphite://127.0.0.1:1", own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc(3)
    assert not flusher.flush(seconds)
    assert flusher.stop(seconds)
    assert flusher.status().destinations[0].waiting_points


@pytest.mark.parametrize(
    ("option", "value"),
    [("interval", value) for value in (*FOREVER, *NOTHING, 2**30 + 1, 10**400, 0)]
    + [("grace", value) for value in (*FOREVER, *NOTHING, 10**400)],
)
def test_options_of_a_flusher_are_refused_by_name(option, value):
    """Early, where they are given."""
    with pytest.raises(InvalidOption, match=option):
        Flusher(Registry(), **{option: value})


@pytest.mark.parametrize(
    "query",
    [
        *("timeout=2d", "timeout=1e9", "timeout=inf", "timeout=-1", "timeout=nan", "timeout=" + "9" * 5000),
        *("max_age=2000w", "max_age=-1", "max_age=" + "9" * 5000),
        *("spool_bytes=1" + "0" * 15, "spool_bytes=-1", "spool_bytes=" + "9" * 5000, "replay=inf", "replay=0"),
    ],
)
def test_options_of_a_url_are_refused_by_name(query):
    """The text has no option's value in it."""
    with pytest.raises(InvalidDestination, match=query.partition("=")[0]) as caught:
        Flusher(Registry(), f"graphite://h?{query}")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("retentions", ["1s:100y", "1:200000000", "10s:1d,1s:" + "9" * 30, "1s:" + "9" * 5000])
def test_files_of_any_size_are_refused(retentions):
    """A file is filled with zeros when it is made."""
    with pytest.raises(InvalidDestination, match="retentions") as caught:
        Flusher(Registry(), f"whisper:///d?retentions={retentions}")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("query", ["rotate=" + "9" * 5000, "rotate=inf", "rotate=-1", "rotate=1&keep=" + "9" * 5000])
def test_sizes_of_files_are_refused_by_name(query):
    """Those of rotation."""
    with pytest.raises(InvalidDestination, match=r"rotate|keep") as caught:
        Flusher(Registry(), f"file:///d?{query}")
    assert len(str(caught.value)) < 200
