"""The same session of a client with the real statsd and with the forwarder: the same values in Graphite.

statsd is given a configuration, the forwarder what ``forwarder --from-statsd`` makes of it. Clients talk to each as
they always do; both then send one interval to a Graphite of their own. Stamps are not compared, nor durations. What
differs on purpose is in `DEVIATIONS`, each with its reason; the reference has all of them, "statsd compatibility".
"""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import statsd
from datadog.dogstatsd.base import DogStatsd

from forwarder.statsd_import import convert
from metricslib.wire.graphite import number
from tests.peers import ROOT, Forwarder, GraphitePeer, eventually, free_port
from tests.sockets import connected, listens

from .test_clients import HOT_SHOTS, dice, finish, hot_shots, tell_datadog, tell_statsd

__all__ = ["dice"]

STATSD = "tests/end_to_end/node_modules/statsd"
LONG = 1_000_000
"""Seconds: everything is in one interval. statsd does not know how to wait ten times as long."""
Values = dict[str, str]


class Daemon(NamedTuple):
    """A daemon that is listening, by its ports."""

    udp: int
    tcp: int
    read: Callable[[], int]
    """How many lines it has read."""
    flush: Callable[[], object]
    graphite: GraphitePeer

    def flushed(self) -> bool:
        """Whether the last line of a flush has arrived."""
        return b"flush_length" in self.graphite.received


# -- the two daemons


@pytest.fixture
def daemons(forwarder, need: Callable[..., None], tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], list[Daemon]]]:
    """Call with options of statsd to start both."""
    need("node", STATSD)
    processes: list[subprocess.Popen[bytes]] = []
    peers: list[GraphitePeer] = []

    def start(options: dict[str, Any]) -> list[Daemon]:
        peers.extend([GraphitePeer(), GraphitePeer()])
        ports = {"udp": free_port(socket.SOCK_DGRAM), "tcp": free_port(), "console": free_port()}
        servers = [
            {"server": f"./servers/{kind}", "address": "127.0.0.1", "port": ports[kind]} for kind in ("udp", "tcp")
        ]
        common = {"servers": servers, "mgmt_address": "127.0.0.1", "mgmt_port": ports["console"]}
        common |= {"flushInterval": LONG * 1000, "graphiteHost": "127.0.0.1", **options}
        texts = [f"({json.dumps({**common, 'graphitePort': peer.port}, indent=2)}) // ours" for peer in peers]
        config = tmp_path / "config.js"
        config.write_text(texts[0])
        command = ["node", "--require", f"{ROOT}/tests/end_to_end/flush_on_signal.js", f"{ROOT}/{STATSD}/stats.js"]
        processes.append(subprocess.Popen([*command, str(config)], stdout=subprocess.DEVNULL))
        eventually(lambda: processes[0].poll() is not None or listens(ports["console"]))
        assert processes[0].poll() is None, "statsd died"
        theirs = Daemon(
            ports["udp"],
            ports["tcp"],
            lambda: lines_read(ports["console"]),
            lambda: processes[0].send_signal(signal.SIGUSR2),
            peers[0],
        )
        return [theirs, ours(texts[1])]

    def ours(text: str) -> Daemon:
        conversion = convert(text, "config.js")
        assert conversion.left_out == ()
        file = tmp_path / "forwarder.toml"
        file.write_text(conversion.toml)
        free = ["--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--console", "127.0.0.1:0"]
        process: Forwarder = forwarder("--config", str(file), *free)
        port = {scheme: int(address.rpartition(":")[2]) for scheme, address in process.ready().items()}

        def read() -> int:
            return sum(listener["Lines"] for listener in process.page()["sections"]["Listeners"])

        return Daemon(port["udp"], port["tcp"], read, lambda: process.end(signal.SIGTERM), peers[1])

    yield start
    for process in processes:
        process.kill()
        process.wait()
    for peer in peers:
        peer.close()


def lines_read(console: int) -> int:
    with connected(f"tcp://127.0.0.1:{console}") as sock:
        sock.sendall(b"counters\n")
        answer = b""
        while not answer.endswith(b"END\n\n"):
            answer += sock.recv(4096)
    found = re.search(r"'statsd\.metrics_received': (\d+)", answer.decode())
    assert found, answer
    return int(found[1])


# -- what clients say


class Patient(statsd.StatsClient):  # type: ignore[misc]
    """Waits now and then until what was sent has been read, for statsd's socket has room for 277 datagrams."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__("127.0.0.1", daemon.udp)
        self._daemon = daemon
        self._sent = 0

    def _send(self, data: str) -> None:
        super()._send(data)
        self._sent += 1
        if not self._sent % 100:
            eventually(lambda: self._daemon.read() >= self._sent)


def pypi_statsd(daemon: Daemon) -> None:
    client = Patient(daemon)
    tell_statsd(client)
    client.close()


def pypi_statsd_pipeline(daemon: Daemon) -> None:
    client = statsd.StatsClient("127.0.0.1", daemon.udp)
    with client.pipeline() as pipe:
        tell_statsd(pipe)
    client.close()


def pypi_statsd_tcp(daemon: Daemon) -> None:
    client = statsd.TCPStatsClient("127.0.0.1", daemon.tcp, timeout=60)
    tell_statsd(client)
    client.close()


def pypi_datadog(daemon: Daemon) -> None:
    client = DogStatsd(
        "127.0.0.1",
        daemon.udp,
        socket_timeout=60,
        track_instance=False,
        disable_telemetry=True,
        disable_buffering=False,
    )
    tell_datadog(client)
    finish(client)


def npm_hot_shots(daemon: Daemon) -> None:
    hot_shots({"host": "127.0.0.1", "port": daemon.udp, "maxBufferSize": 1400}, HOT_SHOTS)


def npm_hot_shots_tcp(daemon: Daemon) -> None:
    hot_shots({"host": "127.0.0.1", "port": daemon.tcp, "protocol": "tcp"}, HOT_SHOTS)


SESSIONS = [pypi_statsd, pypi_statsd_pipeline, pypi_statsd_tcp, pypi_datadog, npm_hot_shots, npm_hot_shots_tcp]


# -- what differs


class Deviation(NamedTuple):
    """Paths of statsd's or ours that are compared after a change, or not at all."""

    why: str
    theirs: Callable[[Values], Values]
    ours: Callable[[Values], Values] = dict


def without(pattern: str) -> Callable[[Values], Values]:
    return lambda values: {path: value for path, value in values.items() if not re.fullmatch(pattern, path)}


def masked(pattern: str) -> Callable[[Values], Values]:
    return lambda values: {path: "…" if re.fullmatch(pattern, path) else value for path, value in values.items()}


def weighted(values: Values) -> Values:
    """Sums and counts over samples of which each stands for four."""
    pattern = r"stats\.timers\.query\.sampled\.(count_90|sum|sum_90|sum_squares|sum_squares_90)"
    return {path: str(int(value) * 4) if re.fullmatch(pattern, path) else value for path, value in values.items()}


def canonical(values: Values) -> Values:
    """Counters with tags in order; those whose tags are the same are one, of whole numbers in an interval."""
    found: Values = {}
    for path, value in values.items():
        name, *tags = path.split(";")
        place = ";".join([name, *sorted(tags)])
        if place in found:
            value = number(round((float(found[place]) + float(value)) * LONG) / LONG)
        found[place] = value
    return found


def no_value(values: Values) -> Values:
    return {path.replace(";beta", ";beta=true") if path.endswith(";beta") else path: v for path, v in values.items()}


DURATIONS = r".*\.(graphiteStats\.\w+|processing_time|timestamp_lag)|stats\.timers\.block\.(?!count|count_ps).*"
DEVIATIONS = [
    Deviation("durations, and how its own deliveries went", masked(DURATIONS), masked(DURATIONS)),
    Deviation("a lag from the first flush on", without(r".*\.timestamp_lag"), without(r".*\.timestamp_lag")),
    Deviation("sampled timers: sums and counts are of what the samples stand for, as their count is", weighted),
    Deviation(
        "h and d: histograms, not counters",
        without(r"stats(\.counters|_counts)?\.(items|size)[.;\w=]*"),
        without(r"stats\.histograms\..*"),
    ),
    Deviation("the same tags in another order: the same series, as Graphite has it", canonical),
    Deviation("a tag without a value has the value true, so that Graphite takes it", no_value),
    Deviation("so there are fewer series, and one more for the lag", without(r".*numStats"), without(r".*numStats")),
]
"""What is different on purpose; one after the other is applied."""
PACKETS = r"stats(\.counters|_counts)?\.statsd\.packets_received(\.rate|\.count)?"
STREAMED = Deviation("how much of a stream arrives at once is chance", masked(PACKETS), masked(PACKETS))


def values(graphite: GraphitePeer) -> Values:
    """The values by path, as they were written."""
    found: Values = {}
    for line in graphite.received.decode().splitlines():
        path, value, _ = line.split(" ")
        assert path not in found, f"{path} was sent twice"
        found[path] = value
    return found


@pytest.mark.usefixtures("dice")
@pytest.mark.parametrize("legacy", [False, True], ids=["newer", "legacy"])
@pytest.mark.parametrize("session", SESSIONS)
def test_the_same_session_gives_the_same_values(daemons, session: Callable[[Daemon], None], legacy: bool):
    """Every path that statsd sends is sent by the forwarder with the same value, to the last digit, and no other."""
    started = daemons({"graphite": {"legacyNamespace": legacy}})
    for daemon in started:
        session(daemon)
    theirs, ours = started
    eventually(lambda: theirs.read() == ours.read() > 100, or_else="both have read the same lines")
    for daemon in started:
        daemon.flush()
        eventually(daemon.flushed)
    expected, found = values(theirs.graphite), values(ours.graphite)
    for deviation in [*DEVIATIONS, *([STREAMED] if "tcp" in session.__name__ else [])]:
        expected, found = deviation.theirs(expected), deviation.ours(found)
    assert found == expected
    assert len(found) > 30
