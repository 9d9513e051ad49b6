"""What one window brings is committed as one for all destinations, and arrives whole however large it is."""

import shutil
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.testing import ManualClock
from tests.peers import GraphitePeer, free_port
from tests.sockets import PATIENCE

COUNTERS = 9_000


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "disk"])
def test_a_window_larger_than_the_spool_arrives_whole(
    registry: Registry, clock: ManualClock, tmp_path: Path, spool: bool, caplog: pytest.LogCaptureFixture
):
    """While Graphite is up, as one batch after the other is put and sent."""
    peer = GraphitePeer()
    flusher = Flusher(registry, f"{peer.url}?spool_bytes=100000", own="", spool=tmp_path if spool else None)
    flusher.start()
    for number in range(COUNTERS):
        registry.counter(f"shop.frontend.requests.endpoint{number:07d}.hits").inc()
    for _ in range(2):
        clock.advance(10)
        flusher.tick()
        assert flusher.flush(PATIENCE)
    (status,) = flusher.status().destinations
    flusher.stop()
    peer.close()
    assert status.dropped == {}
    assert len({path for path, _ in peer.values}) == 2 * COUNTERS
    assert sum(value for (path, _), value in peer.values.items() if path.endswith(".count")) == COUNTERS
    assert caplog.records == []


def test_a_spool_directory_that_is_removed_is_made_anew_at_the_next_tick(
    registry: Registry, clock: ManualClock, tmp_path: Path
):
    """What waited in an outage is in it, and outlives the process."""
    away, spool = f"graphite://127.0.0.1:{free_port()}?timeout=1s", tmp_path / "spool"
    flusher = Flusher(registry, away, own="", spool=spool)
    flusher.start()
    registry.counter("a").inc()
    clock.advance(10)
    flusher.tick()
    shutil.rmtree(spool)
    clock.advance(10)
    flusher.tick()
    (status,) = flusher.status().destinations
    assert status.on_disk
    assert "removed from it while in use" in str(status.spool_trouble)
    waiting = status.waiting_points
    flusher.stop(0.1)
    second = Flusher(Registry(clock=clock), away, own="", spool=spool)
    second.start()
    assert second.status().destinations[0].waiting_points >= waiting > 2
    second.stop(0.1)


def test_a_window_larger_than_the_memory_budget_loses_its_tail(clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    """And says how much that is; what comes first arrives."""
    monkeypatch.setattr("metricslib.flusher.LEAST", 1 << 20)
    peer = GraphitePeer()
    small = Registry(clock=clock, max_bytes=1 << 20, max_series=100_000)
    flusher = Flusher(small, peer.url, own="")
    flusher.start()
    monkeypatch.setattr(small.budget.series, "allowed", 1 << 30)  # else there would be no such window
    for number in range(COUNTERS):
        small.counter(f"shop.frontend.requests.endpoint{number:07d}.hits").inc()
    clock.advance(10)
    flusher.tick()
    assert flusher.flush(PATIENCE)
    (status,) = flusher.status().destinations
    flusher.stop()
    peer.close()
    assert set(status.dropped) == {"spool_full"}
    assert status.points_sent + status.dropped["spool_full"] == 2 * 2 * COUNTERS
    assert status.dropped["spool_full"] > 0
    assert len(peer.values) == status.points_sent
