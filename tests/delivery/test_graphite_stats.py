"""A daemon's flushes to Graphite end with what statsd says of itself there."""

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.delivery.graphite_stats import GraphiteStats
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Cut, Window
from metricslib.wire import graphite

NAMING = Naming(own="statsd")


def told(stats: GraphiteStats) -> dict[str, float]:
    return {path.rpartition(".")[2]: value for path, value in stats.pairs(NAMING, 3, 0.0021, 0.0039)}


def test_they_stand_in_statsds_order():
    """Times are in whole milliseconds; before the first delivery, the last flush is the start."""
    assert list(GraphiteStats(ManualClock(1000.4)).pairs(NAMING, 3, 0.0021, 0.0039)) == [
        ("stats.statsd.numStats", 3),
        ("stats.statsd.graphiteStats.calculationtime", 4),
        ("stats.statsd.processing_time", 2),
        ("stats.statsd.graphiteStats.last_exception", 0),
        ("stats.statsd.graphiteStats.last_flush", 1000),
        ("stats.statsd.graphiteStats.flush_time", 0),
        ("stats.statsd.graphiteStats.flush_length", 0),
    ]


def test_they_speak_of_the_deliveries_before():
    """All batches of the window before are counted together, and stay until there are newer ones."""
    clock = ManualClock(1000)
    stats = GraphiteStats(clock)
    clock.advance(10)
    stats.delivered(0.25, 1000)
    stats.delivered(0.5, 24)
    clock.advance(10)
    stats.failed()
    for _ in range(2):
        values = told(stats)
        assert (values["last_flush"], values["last_exception"]) == (1010, 1020)
        assert (values["flush_time"], values["flush_length"]) == (750, 1024)


def test_only_a_daemons_window_ends_with_them(refused_port: int):
    """They are of the destination whose payload they close."""
    window = Window(0, 10, 10, counters={"a": 5})
    cut = Cut(window, window)
    clock = ManualClock(1000)
    destination = open_destination(f"graphite://127.0.0.1:{refused_port}", NAMING, clock=clock)
    (batch,) = destination.encode(cut)
    paths = [path for path, _, _ in graphite.decode(batch.payload)]
    assert paths[:3] == ["stats.counters.a.rate", "stats.counters.a.count", "stats.statsd.numStats"]
    with pytest.raises(Undelivered):
        destination.deliver(batch.payload, Deadline(5))
    (batch,) = destination.encode(cut)
    values = {path: value for path, value, _ in graphite.decode(batch.payload)}
    assert values["stats.statsd.graphiteStats.last_exception"] == 1000
    (batch,) = open_destination("graphite://host", Naming()).encode(cut)
    assert batch.points == 2
