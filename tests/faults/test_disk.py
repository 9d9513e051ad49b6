"""What the disk under a forwarder's spool does wrong, while Graphite is away: full, read-only, damaged.

Beside the Graphite that is away there is another that is not, and has all that was sent. What the first has in the end
is compared with that, line by line, and with what the forwarder says that it dropped.
"""

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import Forwarder, GraphitePeer, eventually, free_port
from tests.sockets import send

Slot = tuple[str, int]

READ_ONLY = Path("/sys/kernel/spool")
"""Where nobody can make a directory, root included."""


class Outage:
    """A forwarder with a spool directory, and a Graphite that is away until :meth:`over`."""

    def __init__(self, start: Callable[..., Forwarder], spool: Path) -> None:
        self._start = start
        self.spool = spool
        self._healthy = GraphitePeer()
        self._failing: GraphitePeer | None = None
        self._port = free_port()
        self._flags = (
            *("--listen", "tcp://127.0.0.1:0", "--interval", "1", "--stop-timeout", "3"),
            *("--to", self._healthy.url, "--to", f"graphite://127.0.0.1:{self._port}?timeout=1s"),
        )
        self.begin()

    def begin(self) -> None:
        """Start the forwarder, in another slot than the one before."""
        ended = max((stamp for _, stamp in self._healthy.values), default=0)
        eventually(lambda: time.time() > ended)
        self.process = self._start(*self._flags, "--spool", str(self.spool))
        self.process.ready()

    def intervals(self, number: int) -> None:
        for _ in range(number):
            send(self.process.ready()["tcp"], "hits:1|c\n")
            self.process.ticks()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.process.page()["destinations"][1]
        return found

    def allow(self, bytes_a_file: int) -> None:
        """Let the forwarder's files have so many bytes: with 0, each write fails as on a disk that is full."""
        resource.prlimit(self.process.process.pid, resource.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))

    def over(self) -> None:
        self._failing = GraphitePeer(self._port)
        eventually(lambda: not self.status()["waiting_batches"])

    def end(self) -> int:
        """Tell the forwarder to end; return how many points it says that it dropped, all of them for that reason."""
        assert self.process.end(signal.SIGTERM) == 0
        assert "are dropped" not in self.process.log
        if "are lost" not in self.process.log:
            return 0
        lost = r"(\d+) points for (\S+) were in memory alone and are lost, cause shutdown\n"
        found = re.search(lost, self.process.log)
        assert found, self.process.log
        assert found[2] == f"graphite://127.0.0.1:{self._port}"
        return int(found[1])

    def missing(self) -> set[Slot]:
        """What was sent, and is not in the Graphite that was away. The counts in it are as they were sent."""
        assert self._failing
        sent, arrived = self._healthy.values, self._failing.values
        assert arrived
        assert arrived.keys() <= sent.keys()
        assert [slot for slot in arrived if arrived[slot] != sent[slot] and slot[0].endswith("hits.count")] == []
        return sent.keys() - arrived.keys()

    def close(self) -> None:
        self._healthy.close()
        if self._failing:
            self._failing.close()


@pytest.fixture
def outage(forwarder: Callable[..., Forwarder], tmp_path: Path) -> Iterator[Callable[..., Outage]]:
    """Call, with another spool directory if wanted, for an outage with a disk under it."""
    begun: list[Outage] = []

    def begin(spool: Path = tmp_path / "spool") -> Outage:
        begun.append(Outage(forwarder, spool))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def full(outage: Callable[..., Outage]) -> Outage:
    """It becomes full in the outage."""
    found = outage()
    found.intervals(1)
    assert found.status()["on_disk"]
    found.allow(0)
    return found


def read_only(outage: Callable[..., Outage]) -> Outage:
    return outage(READ_ONLY)


@pytest.mark.parametrize("trouble", [full, read_only])
def test_a_disk_that_refuses_costs_nothing_while_the_forwarder_lives(outage, trouble):
    """What waits is in memory, the page and the log say why, and all of it arrives after the outage."""
    graphite = trouble(outage)
    graphite.intervals(3)
    status = graphite.status()
    assert (status["on_disk"], status["dropped"]) == (False, {})
    assert status["spool_trouble"]
    assert graphite.process.log.count("is kept in memory until it can be written") == 1
    graphite.over()
    assert graphite.end() == 0
    assert graphite.missing() == set()


@pytest.mark.parametrize("trouble", [full, read_only])
def test_what_a_disk_refused_is_dropped_at_the_end_and_counted(outage, trouble, tmp_path: Path):
    """Cause ``shutdown``. What it had taken before is there for the next start: all in all, what was sent."""
    graphite = trouble(outage)
    graphite.intervals(3)
    dropped = graphite.end()
    graphite.spool = tmp_path / "spool"
    graphite.begin()
    graphite.intervals(1)
    graphite.over()
    assert graphite.end() == 0
    assert len(graphite.missing()) == dropped > 0


@pytest.mark.faults
def test_a_disk_that_has_room_again_is_used_again(outage):
    """After half a minute: then what was in memory is on it, and outlives the forwarder."""
    graphite = full(outage)
    graphite.intervals(3)
    assert not graphite.status()["on_disk"]
    graphite.allow(resource.RLIM_INFINITY)
    eventually(lambda: graphite.status()["on_disk"])
    assert graphite.end() == 0
    graphite.begin()
    graphite.over()
    assert graphite.end() == 0
    assert graphite.missing() == set()


# -- damage


def spool_file(directory: Path) -> Path:
    (file,) = directory.glob("*.sqlite")
    return file


def test_a_bit_that_flipped_costs_its_batch(outage):
    """Cause ``corrupt``: what arrived and that are what was sent."""
    graphite = outage()
    graphite.intervals(3)
    assert graphite.end() == 0
    file = spool_file(graphite.spool)
    content = file.read_bytes()
    line = max(re.findall(rb"stats\.counters\.hits\.count 1 \d+", content))
    file.write_bytes(content.replace(line, bytes([line[0] ^ 1]) + line[1:]))
    graphite.begin()
    graphite.over()
    dropped = graphite.status()["dropped"]
    assert graphite.end() == 0
    assert set(dropped) == {"corrupt"}
    assert len(graphite.missing()) == dropped["corrupt"]


def test_a_truncated_file_is_set_aside(outage):
    """Service goes on; the page and the log name the file. What cannot be read of it is dropped, cause ``corrupt``:
    what arrived and that are what was sent.
    """
    graphite = outage()
    graphite.intervals(3)
    assert graphite.end() == 0
    file = spool_file(graphite.spool)
    os.truncate(file, file.stat().st_size // 2)
    graphite.begin()
    graphite.intervals(1)
    status = graphite.status()
    assert status["on_disk"]
    assert set(status["dropped"]) == {"corrupt"}
    assert graphite.process.log.count("a damaged file was set aside") == 1
    graphite.over()
    assert graphite.end() == 0
    (aside,) = graphite.spool.glob("*.corrupt-*")
    assert aside.name in status["spool_trouble"]
    assert len(graphite.missing()) == status["dropped"]["corrupt"]
