"""A flusher that is told to go on otherwise, in the middle of an interval, loses nothing and sends nothing twice."""

from collections.abc import Iterator

import pytest

from metricslib.errors import InvalidDestination, InvalidOption
from metricslib.flusher import Flusher
from metricslib.naming import Naming
from metricslib.registry import Registry
from tests.peers import FOREVER, GraphitePeer, eventually, free_port
from tests.sockets import PATIENCE, datagram_server


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


@pytest.fixture
def start(registry: Registry, peer: GraphitePeer):
    """Start flushers that end with the test, before their peer."""
    flushers = []

    def start(to, **options):
        flushers.append(Flusher(registry, to, **options))
        flushers[-1].start()
        return flushers[-1]

    yield start
    for flusher in flushers:
        flusher.stop(1)


def test_the_open_interval_goes_out_under_the_new_names_alone(start, registry, peer):
    """Nothing is flushed under the old names, for Graphite would keep a part of the interval there."""
    flusher = start(peer.url, prefix="old")
    registry.counter("a").inc(1)
    flusher.change(peer.url, interval=10, naming=Naming(prefix="new", percentiles=(50,)))
    registry.counter("a").inc(2)
    registry.timer("t").observe(1)
    assert flusher.stop()
    assert peer.at("stats.counters.new.a.count") == [3]
    assert peer.at("stats.timers.new.t.upper_50") == [1000]
    assert not any(".old." in path for path, _ in peer.values)


def test_history_and_ticks_go_on(start, registry, clock, peer):
    """The page sees one flusher, before and after; no slot is sent twice."""
    flusher = start(peer.url)
    clock.advance(10)
    flusher.tick()
    flusher.change(peer.url, interval=60, naming=Naming(prefix="new"))
    flusher.tick()  # too early: it would send a slot that was sent already
    clock.advance(60)
    flusher.tick()
    status = flusher.status()
    assert (status.ticks, status.interval, status.prefix) == (2, 60, "new")
    assert flusher.history.points("counter", []).intervals == [10, 60]


def test_what_waits_for_a_destination_that_stays_is_still_delivered(start, registry, clock):
    """An outage and a reload at once cost nothing: old slots keep their old names."""
    port = free_port()
    flusher = start(f"graphite://127.0.0.1:{port}?timeout=1s", prefix="old")
    registry.counter("a").inc(1)
    clock.advance(10)
    flusher.tick()
    eventually(lambda: flusher.status().destinations[0].errors)
    flusher.change(f"graphite://127.0.0.1:{port}?timeout=2s", interval=10, naming=Naming(prefix="new"))
    registry.counter("a").inc(2)
    back = GraphitePeer(port)
    assert flusher.stop(20)
    assert back.at("stats.counters.old.a.count") == [1]
    assert back.at("stats.counters.new.a.count") == [2]
    back.close()


def test_a_destination_that_goes_gets_what_waits_for_it(start, registry, clock, peer):
    """Whole intervals that it was promised; the open one goes to the new destination alone."""
    other = GraphitePeer()
    flusher = start(peer.url)
    registry.counter("a").inc(1)
    clock.advance(10)
    flusher.tick()
    flusher.change(other.url, interval=10, naming=Naming())
    registry.counter("a").inc(2)
    assert flusher.stop()
    assert peer.at("stats.counters.a.count") == [1]
    assert other.at("stats.counters.a.count") == [2]
    assert [status.label for status in flusher.status().destinations] == [other.url]
    other.close()


@pytest.mark.parametrize("spool", [False, True])
def test_what_waits_for_a_destination_that_goes_waits_until_it_comes_back(
    start, registry, clock, peer, caplog, tmp_path, spool
):
    """An empty file, say, that was read during an outage: no slot is lost, and none is sent there meanwhile."""
    port = free_port()
    gone = f"graphite://127.0.0.1:{port}"
    flusher = start(gone, own="", spool=tmp_path if spool else None)
    registry.counter("a").inc(1)
    clock.advance(10)
    flusher.tick()
    for to in ([], [peer.url]):
        flusher.change(to, interval=10, naming=Naming(), timeout=0.1)
        registry.counter("a").inc(2)
        clock.advance(10)
        flusher.tick()
    where = f"in {tmp_path} until it is one again" if spool else "in memory until it is one again, or the program ends"
    assert [record.message for record in caplog.records if "no longer a destination" in record.message] == [
        f"{gone} is no longer a destination; waiting {where}: 2 points"
    ]
    (kept,) = [status for status in flusher.status().destinations if status.label == gone]
    assert (kept.waiting_points, kept.dropped, kept.on_disk) == (2, {}, spool)
    back = GraphitePeer(port)
    flusher.change([gone, peer.url], interval=10, naming=Naming())
    registry.counter("a").inc(4)
    assert flusher.flush(20)
    assert back.at("stats.counters.a.count") == [1, 4]
    assert peer.at("stats.counters.a.count") == [2, 4]
    assert flusher.stop()
    assert [status.label for status in flusher.status().destinations] == [gone, peer.url]
    back.close()


def test_what_waits_on_disk_for_a_destination_that_went_is_there_after_a_restart(start, registry, clock, tmp_path):
    """Also if others went after it, and it is no longer known to the process."""
    port = free_port()
    gone = f"graphite://127.0.0.1:{port}"
    flusher = start(gone, own="", spool=tmp_path)
    registry.counter("a").inc(1)
    clock.advance(10)
    flusher.tick()
    flusher.change([], interval=10, naming=Naming(), timeout=0.1)
    assert flusher.stop()  # nothing was dropped
    back = GraphitePeer(port)
    second = Flusher(Registry(clock=clock), gone, own="", spool=tmp_path)
    second.start()
    assert second.flush(20)
    assert back.at("stats.counters.a.count") == [1, 0]
    assert second.stop()
    back.close()


@pytest.mark.parametrize("spool", [False, True])
def test_of_many_destinations_that_went_the_first_is_forgotten(
    start, registry, clock, peer, monkeypatch, tmp_path, spool
):
    """What waits for it in memory is dropped, which is counted; what waits on disk is found when it comes back."""
    monkeypatch.setattr("metricslib.delivery.dispatcher.PARKED", 1)
    port = free_port()
    first, second = f"graphite://127.0.0.1:{port}", f"graphite://127.0.0.1:{free_port()}"
    flusher = start(first, own="", spool=tmp_path if spool else None)
    registry.counter("a").inc(1)
    for to in (second, peer.url):
        clock.advance(10)
        flusher.tick()
        flusher.change(to, interval=10, naming=Naming(), timeout=0.1)
    assert [status.label for status in flusher.status().destinations] == [peer.url, second]
    back = GraphitePeer(port)
    flusher.change(first, interval=10, naming=Naming(), timeout=0.1)
    assert flusher.flush(20)
    assert back.at("stats.counters.a.count") == ([1, 0] if spool else [0])
    assert flusher.stop() == spool
    back.close()


def test_what_a_destination_that_goes_cannot_take_is_counted(start, registry, clock, peer, monkeypatch):
    """Where it is not kept, its points are dropped, cause ``shutdown``, which the next window says."""
    monkeypatch.setattr("metricslib.delivery.dispatcher.PARKED", 0)
    gone = f"graphite://127.0.0.1:{free_port()}"
    flusher = start(gone)
    registry.counter("a").inc(1)
    clock.advance(10)
    flusher.tick()
    flusher.change(peer.url, interval=10, naming=Naming(), timeout=0.2)
    assert flusher.stop()
    dropped = {path: value for (path, _), value in peer.values.items() if "points_dropped.count" in path}
    assert len(dropped) == 1
    path, points = dropped.popitem()
    assert "cause=shutdown" in path
    assert points >= 2


def test_own_metrics_count_nothing_twice(start, registry, clock, peer):
    """A destination that goes and comes back starts counting anew; its series do not."""
    other = GraphitePeer()
    flusher = start(peer.url)
    for url in (other.url, peer.url, other.url, peer.url):
        clock.advance(10)
        flusher.tick()
        assert flusher.flush()
        flusher.change(url, interval=10, naming=Naming())
    clock.advance(10)
    flusher.tick()
    assert flusher.flush()
    sent = registry.counter("metricslib.windows_sent", tags={"destination": f"graphite_127.0.0.1_{peer.port}"}).key
    snapshot = registry.snapshot()
    assert snapshot.totals["counter"][sent].sum + snapshot.open.counters[sent] == 3 * 2  # a tick and a flush each time
    assert flusher.stop()
    other.close()


def test_a_statsd_destination_gets_each_event_once(start, registry, peer):
    """What it was sent before the change is not sent again after it."""
    with datagram_server() as server:
        url = f"statsd://127.0.0.1:{server.getsockname()[1]}"
        flusher = start(url, own="")
        registry.counter("a").inc(1)
        assert flusher.flush()
        flusher.change(url, interval=10, naming=Naming(prefix="new"))
        registry.counter("a").inc(2)
        assert flusher.stop()
        assert [server.recv(1000), server.recv(1000)] == [b"a:1|c", b"new.a:2|c"]


def test_a_mistake_changes_nothing(start, registry, peer):
    """It raises what the constructor raises, and the flusher goes on as it was."""
    flusher = start(peer.url, prefix="old")
    for error, to, interval, naming in (
        (InvalidDestination, "grafite://h", 10, Naming()),
        (InvalidOption, peer.url, 0.5, Naming()),
        (InvalidOption, peer.url, 10, Naming(prefix="{nobody}")),
    ):
        with pytest.raises(error):
            flusher.change([peer.url, to], interval=interval, naming=naming)
    registry.counter("a").inc(1)
    assert flusher.stop()
    assert peer.at("stats.counters.old.a.count") == [1]


def test_one_that_is_not_started_can_be_changed_too(registry, peer):
    """It begins with what it was told last."""
    flusher = Flusher(registry, "graphite://127.0.0.1:1", prefix="old")
    flusher.change(peer.url, interval=10, naming=Naming(prefix="new"))
    flusher.start()
    registry.counter("a").inc(1)
    assert flusher.stop()
    assert peer.at("stats.counters.new.a.count") == [1]


def test_in_a_group_the_open_interval_is_in_that_of_the_new_names_alone(peer):
    """And where the group stays the same, nothing is counted twice."""
    registry = Registry()
    flusher = Flusher(registry, peer.url, interval=FOREVER, prefix="old", own="")
    flusher.start()
    registry.counter("a").inc(1)
    assert flusher.flush(PATIENCE)
    flusher.change(f"{peer.url}?timeout=3", interval=FOREVER, naming=Naming(prefix="old"))
    registry.counter("a").inc(2)
    assert flusher.flush(PATIENCE)
    assert peer.at("stats.counters.old.a.count") == [3]
    flusher.change(peer.url, interval=FOREVER, naming=Naming(prefix="new"))
    registry.counter("a").inc(4)
    assert flusher.stop(PATIENCE)
    assert peer.at("stats.counters.new.a.count") == [7]
    peer.values.clear()
    after = Flusher(Registry(), peer.url, interval=FOREVER, prefix="old", own="")
    after.start()
    after.registry.counter("a").inc(10)
    assert after.stop(PATIENCE)
    assert peer.at("stats.counters.old.a.count") == [10]
