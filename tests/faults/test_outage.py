"""An outage of an hour, in simulated time, with a bound in force: what arrives and what is dropped is what was sent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from metricslib import Registry
from metricslib.delivery import Queue, Sender, open_destination
from metricslib.delivery.store import Store
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush
from tests.peers import GraphitePeer, free_port

INTERVALS = 360
POINTS = 3
"""In each interval."""


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize(
    ("bound", "cause", "left"), [("spool_bytes=50000", "spool_full", None), ("max_age=20m", "too_old", 120)]
)
def test_an_hour_costs_what_is_over_the_bound(
    registry: Registry,
    clock: ManualClock,
    tick: Callable[[], Flush],
    tmp_path: Path,
    place: str,
    bound: str,
    cause: str,
    left: int | None,
):
    """The newest windows arrive, whole, the very newest first; the older are dropped, by that cause. Together they are
    all that was sent.
    """
    port = free_port()
    destination = open_destination(f"graphite://127.0.0.1:{port}?timeout=5s&{bound}", Naming())
    store = Store(tmp_path, clock=clock) if place == "disk" else None
    if store:
        store.open()
    sender = Sender(destination, Queue.to(destination, store=store, clock=clock), clock=clock, rng=lambda: 0.5)
    sent: list[bytes] = []
    for number in range(INTERVALS):
        registry.counter("hits").inc(number)
        registry.gauge("depth").set(number / 8)
        batches = destination.encode(tick())
        sent += [line for batch in batches for line in batch.payload.splitlines()]
        sender.put(*batches)
        sender.step()
    assert sender.status().errors > INTERVALS * 10 // 30
    graphite = GraphitePeer(port)
    while (wait := sender.step()) is not None:
        clock.advance(wait)
    graphite.close()
    if store:
        store.close()
    status, arrived = sender.status(), graphite.received.splitlines()
    assert (status.waiting_points, set(status.dropped)) == (0, {cause})
    assert status.points_sent + status.dropped[cause] == len(sent) == INTERVALS * POINTS
    assert sorted(arrived) == sorted(sent[-status.points_sent :])
    assert arrived[:POINTS] == sent[-POINTS:]
    assert len(arrived) % POINTS == 0
    assert left is None or abs(len(arrived) // POINTS - left) <= 1
