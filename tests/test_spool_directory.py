"""With a spool directory nothing that was ended or flushed is lost: not by an outage, a stop, a kill or a restart."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush
from tests.peers import GraphitePeer, eventually, free_port

ROOT = Path(__file__).parent.parent


class Numbers:
    """A participant that notes how many flushes there were."""

    def __init__(self) -> None:
        self.number = 0
        self.told: list[int] = []
        self.restored: Mapping[str, bytes] | None = None

    def notes(self, flush: Flush, *, closes: bool) -> Mapping[str, bytes | None]:
        self.number += 1
        return {"number": b"%d" % self.number}

    def committed(self, flush: Flush) -> None:
        self.told.append(self.number)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        self.restored = notes


def run(program: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        cwd=ROOT,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_stop_in_an_outage_drops_nothing(registry: Registry, clock: ManualClock, tmp_path: Path):
    """What waits stays on disk, and the next start sends it, with the slots that it was measured in."""
    port = free_port()
    flusher = Flusher(registry, f"graphite://127.0.0.1:{port}", own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc(3)
    clock.advance(5)
    flusher.tick()
    registry.counter("a").inc(4)
    assert flusher.stop(timeout=0.2)
    (status,) = flusher.status().destinations
    assert (status.dropped, status.waiting_points, status.on_disk) == ({}, 4, False)
    peer = GraphitePeer(port)
    second = Flusher(Registry(clock=clock), f"graphite://127.0.0.1:{port}", own="", spool=str(tmp_path))
    second.start()
    eventually(lambda: not second.status().destinations[0].waiting_batches)
    assert second.status().destinations[0].on_disk
    assert second.stop()
    assert peer.at("stats.counters.a.count")[:2] == [3, 4]
    peer.close()


def test_a_deadline_is_for_delivery_and_not_for_what_comes_before_it(
    registry: Registry, clock: ManualClock, tmp_path: Path
):
    """A call that was interrupted holds up the last flush for a moment: it is on disk though nobody waits that long."""
    registry.counter("a").inc(3)
    url = f"graphite://127.0.0.1:{free_port()}?timeout=1s"
    flusher = Flusher(registry, url, own="", spool=tmp_path)
    flusher.start()
    with registry.counter("a")._lock:  # as in a signal handler in the middle of a fold
        assert flusher.stop(timeout=0.01)
    second = Flusher(Registry(clock=clock), url, own="", spool=tmp_path)
    second.start()
    assert second.status().destinations[0].waiting_points == 2
    second.stop(0.01)


def test_kill_9_loses_no_interval_that_has_ended(tmp_path: Path):
    """Of an outage of any length; the next process with the directory sends it all."""
    port = free_port()
    program = """
import os, sys
from metricslib import Flusher, Registry
from metricslib.testing import ManualClock
clock = ManualClock()
registry = Registry(clock=clock)
flusher = Flusher(registry, sys.argv[1], own="", spool=sys.argv[2])
flusher.start()
for number in range(20):
    registry.counter("a").inc(number)
    clock.advance(10)
    flusher.tick()
os.kill(os.getpid(), 9)
"""
    run(program, f"graphite://127.0.0.1:{port}?timeout=1s", str(tmp_path), code=-9)
    peer = GraphitePeer(port)
    run(
        "import sys, metricslib as metrics; metrics.start(sys.argv[1], spool=sys.argv[2])",
        f"graphite://127.0.0.1:{port}",
        str(tmp_path),
    )
    assert [value for value in peer.at("stats.counters.a.count") if value] == list(range(1, 20))
    peer.close()


def test_keepers_are_given_their_notes_at_the_next_start(registry: Registry, clock: ManualClock, tmp_path: Path):
    """Before anything is measured, and with the last of them; also those of a stop."""
    flusher, participant = Flusher(registry, own="", spool=tmp_path), Numbers()
    flusher.add_participant(participant)
    flusher.start()
    assert participant.restored == {}
    assert flusher.flush()
    flusher.stop()
    assert participant.told == [1, 2]
    second, participant = Flusher(Registry(clock=clock), own="", spool=tmp_path), Numbers()
    second.add_participant(participant)
    second.start()
    assert participant.restored
    assert participant.restored["number"] == b"2"
    second.stop()


def test_without_a_directory_nothing_is_restored(registry: Registry, clock: ManualClock):
    """There is nothing that could be."""
    flusher, participant = Flusher(registry, own=""), Numbers()
    flusher.add_participant(participant)
    flusher.start()
    flusher.stop()
    assert participant.restored is None


def test_a_destination_that_goes_in_a_change_keeps_its_backlog(registry: Registry, clock: ManualClock, tmp_path: Path):
    """It waits in the directory until the destination comes back, as does that of the others."""
    gone, stays = (f"graphite://127.0.0.1:{free_port()}?timeout=1s" for _ in range(2))
    flusher = Flusher(registry, [gone, stays], own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc()
    clock.advance(5)
    flusher.tick()
    flusher.change(stays, interval=10, naming=Naming(), timeout=0.1)
    flusher.stop(0.1)
    second = Flusher(Registry(clock=clock), [gone, stays], own="", spool=tmp_path)
    second.start()
    waiting = [status.waiting_points for status in second.status().destinations]
    assert waiting[0] == 2
    assert waiting[1] >= 2
    second.stop(0.1)


def test_a_forked_child_spools_for_itself(tmp_path: Path):
    """A preforking server in an outage: what each child measured is sent, once, by whoever comes later."""
    port = free_port()
    program = """
import os, sys, metricslib as metrics
metrics.start(sys.argv[1], prefix="w{pid}", spool=sys.argv[2])
counter = metrics.counter("a")
counter.inc(1)
metrics.flush(0)
pids = [os.getpid()]
for number in range(2):
    if (pid := os.fork()) == 0:
        counter.inc(10 + number)
        metrics.stop(0.1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    pids.append(pid)
counter.inc(1)
metrics.stop(0.1)
print(*pids)
"""
    pids = run(program, f"graphite://127.0.0.1:{port}?timeout=1s", str(tmp_path)).split()
    peer = GraphitePeer(port)
    run(
        "import sys, metricslib as metrics; metrics.start(sys.argv[1], spool=sys.argv[2]); metrics.flush()",
        f"graphite://127.0.0.1:{port}",
        str(tmp_path),
    )
    assert [sum(peer.at(f"stats.counters.w{pid}.a.count")) for pid in pids] == [2, 10, 11]
    peer.close()


def test_a_slow_destination_spools_and_delays_nobody(clock: ManualClock, tmp_path: Path):
    """It drops nothing, what it has not read waits on disk, and the others get everything at once."""
    registry, peer = Registry(clock=clock), GraphitePeer()
    with socket.create_server(("127.0.0.1", 0)) as slow:
        urls = [f"graphite://127.0.0.1:{slow.getsockname()[1]}?timeout=60s", peer.url]
        flusher = Flusher(registry, urls, own="", spool=tmp_path)
        flusher.start()
        for number in range(1, 6):
            registry.counter("a").inc(number)
            clock.advance(10)
            flusher.tick()
        eventually(lambda: len([value for value in peer.at("stats.counters.a.count") if value]) == 5)
        eventually(lambda: not flusher.status().destinations[1].waiting_points)  # it hears of that a moment later
        first, second = flusher.status().destinations
        assert (first.dropped, second.dropped) == ({}, {})
        assert first.waiting_points >= 10
        assert second.waiting_points == 0
        began = time.monotonic()
        assert flusher.stop(1)
        assert time.monotonic() - began < 30
    peer.close()


def test_live_windows_go_before_the_backlog(registry: Registry, clock: ManualClock, tmp_path: Path):
    """After an outage the newest window arrives first; the page tells how long the rest will take."""
    port = free_port()
    flusher = Flusher(registry, f"graphite://127.0.0.1:{port}?replay=1&timeout=1s", own="", spool=tmp_path)
    flusher.start()
    for number in range(1, 11):
        registry.counter("a").inc(number)
        clock.advance(10)
        flusher.tick()
    eventually(lambda: flusher.status().destinations[0].backlog_points >= 20)
    assert flusher.status().destinations[0].drained_in is None
    peer = GraphitePeer(port)
    registry.counter("a").inc(100)
    clock.advance(10)
    flusher.tick()
    eventually(lambda: 100 in peer.at("stats.counters.a.count"))
    eventually(lambda: flusher.status().destinations[0].up)
    (status,) = flusher.status().destinations
    assert status.replay_rate <= 1
    assert status.backlog_points >= 10
    assert status.drained_in
    assert status.drained_in >= 10
    assert flusher.stop(20)  # which does not wait for the rate
    assert [value for value in peer.at("stats.counters.a.count") if value] == [*range(1, 11), 100]
    peer.close()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_in_an_outage_keeps_everything(tmp_path: Path):
    """A handler that stops the flusher, in the middle of anything, leaves all of it on disk."""
    port = free_port()
    program = """
import os, signal, sys, metricslib as metrics
metrics.start(sys.argv[1], interval=1, spool=sys.argv[2], prefix="p")
counter = metrics.counter("a")
made = 0
def end(*_):
    metrics.stop(0.1)
    raise SystemExit(0)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 1.3)
try:
    while True:
        counter.inc()
        made += 1
        if made % 1000 == 0:
            metrics.flush(0)
finally:
    print(made)
"""
    made = int(run(program, f"graphite://127.0.0.1:{port}?timeout=1s", str(tmp_path)))
    peer = GraphitePeer(port)
    run(
        "import sys, metricslib as metrics; metrics.start(sys.argv[1], spool=sys.argv[2])",
        f"graphite://127.0.0.1:{port}",
        str(tmp_path),
    )
    assert 0 <= sum(peer.at("stats.counters.p.a.count")) - made <= 1
    peer.close()
    assert signal.SIGALRM
