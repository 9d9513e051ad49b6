"""The two daemons as they are run: processes with sockets, fed the same datagrams, each with a Graphite to send to."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers import Forwarder, GraphitePeer, eventually, free_port
from tests.sockets import connected, listens, send

from .corpus import CASES
from .daemons import STATSD, configured, shown

LINES = b"""a:1|c
a:2|c|@0.1
web.hits:1|c|#route:u
db.query:12|ms
db.query:7.5|ms:31|ms
depth:5|g
depth:+2|g
depth:-10|g
users:ann|s:bob|s:ann|s
bad line
x:y|c
a b/c:3|c"""
OPTIONS = [
    {},
    {
        "graphite": {"legacyNamespace": False, "globalPrefix": "g", "prefixTimer": "t", "globalSuffix": "s"},
        "percentThreshold": [50, -25, 99.9],
        "histogram": [{"metric": "db", "bins": [10, 20, "inf"]}],
        "prefixStats": "own",
        "deleteIdleStats": True,
    },
]


@pytest.fixture
def graphite() -> Iterator[Callable[[], GraphitePeer]]:
    """Call for a Graphite of one's own."""
    peers: list[GraphitePeer] = []

    def start() -> GraphitePeer:
        peers.append(GraphitePeer())
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture
def statsd_process(tmp_path: Path, need: Callable[..., None]) -> Iterator[Callable[..., int]]:
    """Call with options to start statsd; returns the port on which it listens."""
    need("node", str(STATSD.relative_to(STATSD.parents[3])))
    started: list[subprocess.Popen[bytes]] = []

    def start(**options: object) -> int:
        port, management = free_port(socket.SOCK_DGRAM), free_port()  # statsd cannot say which port it was given
        config = {"address": "127.0.0.1", "port": port, "mgmt_address": "127.0.0.1", "mgmt_port": management}
        (tmp_path / "config.js").write_text(json.dumps({**config, **options}))
        # util.log, which statsd uses, is gone from node 23 on.
        (tmp_path / "log.js").write_text("require('util').log = () => {};")
        command = ["node", "--require", str(tmp_path / "log.js"), str(STATSD / "stats.js"), str(tmp_path / "config.js")]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        eventually(lambda: listens(management) or started[-1].poll() is not None)
        assert started[-1].poll() is None, "statsd died"
        return port

    yield start
    for process in started:
        process.kill()
        process.wait()


def _flush_with(peer: GraphitePeer, port: int, datagrams: list[bytes], received: str) -> str:
    """Send datagrams right after a flush, not the first, and return the flush in which all of them are.

    Should another flush have come in between, it is done again: what the lines say stays the same.
    """
    with connected(f"udp://127.0.0.1:{port}") as sock:
        for _ in range(20):
            _wait_for(peer, max(len(_flushes(peer)), 1) + 1)
            before = len(_flushes(peer))
            for datagram in datagrams:
                sock.send(datagram)
            _wait_for(peer, before + 2)
            for flush in _flushes(peer)[before:]:
                if received in flush:
                    return flush
    raise AssertionError(f"never {received} in one interval")


def _wait_for(peer: GraphitePeer, flushes: int) -> None:
    eventually(lambda: len(_flushes(peer)) >= flushes)


def _flushes(peer: GraphitePeer) -> list[str]:
    """The flushes that have arrived, each up to its last line."""
    return re.findall(r".*?\.flush_length\S* \S+ \S+\n", peer.received.decode(), re.DOTALL)


@pytest.mark.parametrize("options", OPTIONS, ids=["legacy", "newer"])
def test_both_send_the_same_over_sockets(options, graphite, statsd_process, forwarder, tmp_path):
    """What was compared function by function holds of the programs, too: UDP in, Graphite's lines out."""
    theirs, mine = graphite(), graphite()
    common = {"flushInterval": 1000, "graphiteHost": "127.0.0.1", **options}
    port = statsd_process(**common, graphitePort=theirs.port)
    config = configured({**common, "graphitePort": mine.port}, listen=["udp://127.0.0.1:0"], console="off")
    (tmp_path / "forwarder.toml").write_text(config.as_toml())
    ours: Forwarder = forwarder("--config", str(tmp_path / "forwarder.toml"))
    our_port = int(ours.ready()["udp"].rpartition(":")[2])
    datagrams = [LINES, LINES, b"a:5|c\n"]
    received = ".metrics_received.count.s 25 " if options else ".metrics_received 25 "
    results: dict[str, str] = {}

    def run(name: str, peer: GraphitePeer, port: int) -> None:
        results[name] = _flush_with(peer, port, datagrams, received)

    threads = [
        threading.Thread(target=run, args=("statsd", theirs, port)),
        threading.Thread(target=run, args=("ours", mine, our_port)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = {name: _unlagged(shown(flush, options)) for name, flush in results.items()}
    assert lines["ours"] == lines["statsd"]
    assert any("db.query" in line for line in lines["ours"])


def _unlagged(lines: list[str]) -> list[str]:
    """Without the value of the lag, which is a duration."""
    return [line.partition(" ")[0] if "timestamp_lag" in line else line for line in lines]


def test_statsd_dies_where_the_forwarder_goes_on(graphite, statsd_process, forwarder):
    """One datagram ends the real daemon; ours counts a bad line, and what comes next."""
    port = statsd_process(flushInterval=1000, graphiteHost="127.0.0.1", graphitePort=graphite().port)
    mine = graphite()
    ours: Forwarder = forwarder("--listen", "udp://127.0.0.1:0", "--to", mine.url, "--interval", "1")
    our_port = int(ours.ready()["udp"].rpartition(":")[2])
    for to in (port, our_port):
        send(f"udp://127.0.0.1:{to}", "a:1|c|@ 1")
    send(f"udp://127.0.0.1:{our_port}", "next:1|c")
    eventually(lambda: 1 in mine.at("stats.counters.next.count"))
    assert 1 in mine.at("stats.counters.statsd.bad_lines_seen.count")
    with connected(f"udp://127.0.0.1:{port}") as sock:

        def refused() -> bool:
            try:
                sock.send(b"b:1|c")
                sock.send(b"b:1|c")
            except ConnectionRefusedError:
                return True
            return False

        eventually(refused, or_else="statsd's death")


def test_the_corpus_has_a_case_of_each_option():
    """What the processes are not run with was compared in the other tests."""
    used = {name for case in CASES.values() for name in case.options}
    assert used >= {name for options in OPTIONS for name in options}
