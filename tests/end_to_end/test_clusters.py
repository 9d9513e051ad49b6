"""A cluster gets from us, node by node, what carbon-c-relay would send it."""

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.delivery import Deadline, open_destination
from metricslib.delivery.hash_ring import HASHES, Node, Ring
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from tests.end_to_end.conftest import Carbon, recent_clock
from tests.peers import FOREVER, eventually, free_port
from tests.sockets import listens, send

NAMES = 3000


class Receiver:
    """Listens on a host of its own in 127/8, and keeps all lines that arrive."""

    def __init__(self, host: str) -> None:
        self._server = socket.create_server((host, 0))
        self.port: int = self._server.getsockname()[1]
        self._received: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._received.append(bytearray())
            threading.Thread(target=self._read, args=(connection, self._received[-1]), daemon=True).start()

    def _read(self, connection: socket.socket, received: bytearray) -> None:
        with connection:
            while chunk := connection.recv(65536):
                received += chunk

    @property
    def lines(self) -> list[str]:
        return sorted(line for received in self._received for line in received.decode().splitlines())

    def forget(self) -> None:
        self._received.clear()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def start_receivers() -> Iterator[Callable[[str, Sequence[str | None]], tuple[list[Node], list[Receiver]]]]:
    """Call for a receiver for each instance, and the nodes they are, of which no two meet in a position of the ring.

    carbon-c-relay forgets one of two positions that are the same, where carbon moves one on.
    """
    started: list[Receiver] = []

    def start(hash: str, instances: Sequence[str | None]) -> tuple[list[Node], list[Receiver]]:
        for attempt in count(1):
            receivers = [Receiver(f"127.0.{attempt}.{number}") for number in range(1, len(instances) + 1)]
            started.extend(receivers)
            nodes = [
                Node(f"127.0.{attempt}.{number}", receiver.port, instance)
                for number, (receiver, instance) in enumerate(zip(receivers, instances, strict=True), 1)
            ]
            if not meet(nodes, hash):
                return nodes, receivers
        raise AssertionError

    yield start
    for receiver in started:
        receiver.close()


def meet(nodes: Sequence[Node], hash: str) -> bool:
    position, key = HASHES[hash]
    positions = [position(key(node, number)) for node in nodes for number in range(100)]
    return len(set(positions)) < len(positions)


class CRelay:
    """carbon-c-relay before a cluster."""

    def __init__(self, directory: Path, nodes: Sequence[Node], hash: str, replicas: int, *flags: str) -> None:
        self.port = free_port()
        members = [f"{node.host}:{node.port}" + (f"={node.instance}" if node.instance else "") for node in nodes]
        configuration = directory / "relay.conf"
        configuration.write_text(
            f"listen type linemode 127.0.0.1:{self.port} proto tcp;\n"
            f"cluster graphite {hash} replication {replicas} {' '.join(members)};\n"
            "match * send to graphite stop;\n"
        )
        program = shutil.which("carbon-c-relay") or ""
        self._log = (directory / "relay.log").open("wb")
        command = [program, "-s", "-f", str(configuration), *flags]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        eventually(lambda: listens(self.port), or_else="a relay that listens")

    def send(self, lines: Sequence[str]) -> None:
        send(f"tcp://127.0.0.1:{self.port}", "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        self._log.close()


def url(nodes: Sequence[Node], hash: str, replicas: int = 1, tags: str = "on") -> str:
    return f"graphite://{','.join(map(str, nodes))}?hash={hash}&replicas={replicas}&tags={tags}&timeout=30s"


@pytest.mark.parametrize(("replicas", "tags"), [(1, "on"), (2, "off")])
@pytest.mark.parametrize("instances", [("a", "b", "c"), (None, None, None)], ids=["instances", "no instances"])
@pytest.mark.parametrize("hash", HASHES)
def test_nodes_get_what_carbon_c_relay_would_send_them(
    hash: str,
    instances: Sequence[str | None],
    replicas: int,
    tags: str,
    start_receivers: Callable[[str, Sequence[str | None]], tuple[list[Node], list[Receiver]]],
    tmp_path: Path,
    need: Callable[..., None],
):
    """A window and relayed points, plain and tagged, through our flusher: each node has the very lines that it has from
    the relay when that is sent all of them. The relay leaves tags out of the hash, unless it takes them for names.
    """
    need("carbon-c-relay")
    nodes, receivers = start_receivers(hash, instances)
    registry = Registry()
    flusher = Flusher(registry, url(nodes, hash, replicas, tags), interval=FOREVER, prefix="shop", own="")
    flusher.start()
    for number in range(NAMES):
        registry.gauge(f"depth.{number}", tags={"host": f"web{number}", "dc": "n"} if number % 3 == 0 else {}).set(
            number
        )
    flusher.relay([(f"servers.web{number}.cpu", number, 1_700_000_000) for number in range(NAMES)])
    assert flusher.stop(60)

    def all_arrived() -> bool:
        return sum(len(receiver.lines) for receiver in receivers) == 2 * NAMES * replicas

    eventually(all_arrived)
    ours = [receiver.lines for receiver in receivers]
    assert min(map(len, ours)) > NAMES * replicas / 4
    for receiver in receivers:
        receiver.forget()
    flags = () if tags == "off" else ("-c", "-_:#;=")  # characters of a name
    relay = CRelay(tmp_path, nodes, hash, replicas, *flags)
    try:
        relay.send(sorted({line for lines in ours for line in lines}))
        eventually(all_arrived)
    finally:
        relay.close()
    assert [receiver.lines for receiver in receivers] == ours


def test_the_longest_line_goes_through_carbon_c_relay(start_receivers, tmp_path: Path, need: Callable[..., None]):
    """It reads longer ones than carbon, before it resets the connection."""
    need("carbon-c-relay")
    nodes, (receiver,) = start_receivers("carbon_ch", ("a",))
    relay = CRelay(tmp_path, nodes, "carbon_ch", 1)
    try:
        destination = open_destination(f"graphite://127.0.0.1:{relay.port}", Naming())
        lines = [f"{name} 1 1700000000" for name in ("a", "x" * 16_371, "y" * 16_372, "z")]
        assert destination.deliver("".join(f"{line}\n" for line in lines).encode(), Deadline(30)) == {"too_long": 1}
        eventually(lambda: len(receiver.lines) == 3)
        assert receiver.lines == [lines[0], lines[1], lines[3]]
    finally:
        relay.close()


def test_the_daemon_sends_to_a_cluster(forwarder, start_receivers):
    """What it hears in statsd's lines and in Graphite's ends at the nodes of the ring."""
    nodes, receivers = start_receivers("carbon_ch", ("a", "b", "c"))
    process = forwarder(
        "--listen", "tcp://127.0.0.1:0", "--listen", "graphite://127.0.0.1:0", "--to", url(nodes, "carbon_ch")
    )
    addresses = process.ready()
    send(
        addresses["graphite"].replace("graphite://", "tcp://"),
        "".join(f"a.{n};z=1;b=2 {n} 1700000000\n" for n in range(100)),
    )
    send(addresses["tcp"], "".join(f"hits.{number}:1|c\n" for number in range(100)))

    def paths() -> list[set[str]]:
        return [{line.split()[0] for line in receiver.lines} for receiver in receivers]

    eventually(lambda: sum(path.startswith("a.") for found in paths() for path in found) == 100)
    ring = Ring(nodes)
    assert all(ring(path) == (place,) for place, found in enumerate(paths()) for path in found)
    assert {f"a.{number};b=2;z=1" for number in range(100)} <= set.union(*paths())
    assert process.end(signal.SIGTERM) == 0
    assert {f"stats.counters.hits.{number}.count" for number in range(100)} <= set.union(*paths())


@pytest.fixture
def clock() -> ManualClock:
    return recent_clock()


def test_real_caches_have_each_its_share(start_carbon: Callable[[int], Carbon], registry: Registry, clock: ManualClock):
    """In frames of pickle, too: each path's file is at the node of the ring, and at no other."""
    caches = [start_carbon(10), start_carbon(10)]
    nodes = [Node("127.0.0.1", cache.pickle_port, name) for cache, name in zip(caches, "ab", strict=True)]
    flusher = Flusher(registry, url(nodes, "carbon_ch").replace("graphite:", "graphite+pickle:"), own="")
    flusher.start()
    for number in range(200):
        registry.gauge(f"depth.{number}").set(number)
    assert flusher.stop(60)
    stamp, ring = int(clock.time() // 10 * 10 + 10), Ring(nodes)
    values = {f"stats.gauges.depth.{number}": number for number in range(200)}
    eventually(lambda: all(caches[ring(path)[0]].read(path, [stamp]) == [value] for path, value in values.items()))
    assert not any(caches[1 - ring(path)[0]].file(path).exists() for path in values)


def test_when_a_cache_is_killed_the_next_has_what_it_had_in_memory(
    start_carbon: Callable[[int], Carbon], registry: Registry, clock: ManualClock
):
    """The slot that the first had confirmed is at the second, with all that came after."""
    first, second = start_carbon(10), start_carbon(10)
    to = f"graphite://127.0.0.1:{first.port},127.0.0.1:{second.port}?pick=failover&timeout=30s"
    flusher = Flusher(registry, to, own="")
    flusher.start()
    stamps = []
    for value in (1, 2):
        registry.gauge("depth").set(value)
        clock.advance(10)
        stamps.append(int(clock.time() // 10 * 10))
        flusher.tick()
        eventually(lambda: flusher.status().destinations[0].windows_sent == len(stamps))
        first.stop(signal.SIGKILL)
    eventually(lambda: second.read("stats.gauges.depth", stamps) == [1, 2])
    assert flusher.stop(60)
