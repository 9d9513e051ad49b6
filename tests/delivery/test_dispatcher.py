"""What one window brings is committed as one for all destinations, and arrives whole however large it is."""

import shutil
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.testing import ManualClock
from tests.peers import PATIENCE, GraphitePeer, free_port

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
