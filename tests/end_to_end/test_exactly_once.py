"""What programs measured is what arrives, once: over resets and restarts, with real processes and sockets."""

import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from pathlib import Path
from types import TracebackType

import pytest

from metricslib import Flusher, Registry
from tests.peers import FOREVER, ROOT, Forwarder, GraphitePeer, eventually
from tests.sockets import send

StartForwarder = Callable[..., Forwarder]


@pytest.fixture
def graphite() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def arrived(graphite: GraphitePeer, *generations: str) -> Counter[str]:
    """What is in all slots of the counters and timers behind the prefixes of these forwarders, added up."""
    found: Counter[str] = Counter()
    for (path, _), value in graphite.values.copy().items():
        parts = path.split(".")
        if parts[-2:] in (["hits", "count"], ["took", "count"]) and (not generations or parts[2] in generations):
            found[".".join(parts[-3:-1])] += int(value)
    return found


def repeats(process: Forwarder) -> int:
    """How many batches have come again."""
    return sum(listener["Socket"].get("batches_repeated", 0) for listener in process.page()["sections"]["Listeners"])


class Cutter:
    """Passes bytes on to ``port``, and resets each connection after a random number of them, or a random time."""

    def __init__(self, port: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.cuts = 0
        self.cutting = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                break
            threads.append(threading.Thread(target=self._pass_on, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _pass_on(self, connection: socket.socket) -> None:
        left, until = self._dice.randrange(1, 3000), time.monotonic() + self._dice.random() * 2
        with connection, socket.create_connection(("127.0.0.1", self._target)) as target:
            other = {connection: target, target: connection}
            try:
                while not self.cutting or (left > 0 and time.monotonic() < until):
                    for end in select.select([connection, target], [], [], 0.02)[0]:
                        if not (chunk := end.recv(left if self.cutting else 65536)):
                            return
                        left -= len(chunk)
                        other[end].sendall(chunk)
            except OSError:
                return
            self.cuts += 1
            for end in other:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def __enter__(self) -> "Cutter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.mark.slow
def test_resets_lose_nothing_and_double_nothing(forwarder: StartForwarder, program, graphite: GraphitePeer):
    """Connections break anywhere: in a header, in a line, between a batch and its answer. Every count is exact."""
    process = forwarder("--listen", "forwarder+tcp://127.0.0.1:0", "--to", graphite.url, "--interval", "1")
    port = int(process.ready()["forwarder+tcp"].rpartition(":")[2])
    with Cutter(port, seed=1) as cutter:
        programs = [program(f"w{number}", f"forwarder+tcp://127.0.0.1:{cutter.port}") for number in range(3)]
        eventually(lambda: cutter.cuts > 20 and repeats(process), 200)
        cutter.cutting = False
        for one in programs:
            one.tell_to_end()
        counted = sum((one.counted() for one in programs), Counter[str]())
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite) == counted, or_else=f"{counted} counted and arrived")
    assert counted.total() > 100


def test_a_forwarder_that_is_restarted_loses_nothing_and_doubles_nothing(
    forwarder: StartForwarder, program, graphite: GraphitePeer, tmp_path: Path
):
    """Without a spool directory: what it took it answers for before it goes, and what it did not take waits for the
    next one. (Each has a prefix of its own here, for within an interval the next would overwrite what it sent.)
    """
    url = f"forwarder+unix://{tmp_path}/f"

    def start(generation: str) -> Forwarder:
        flags = ("--listen", url, "--to", graphite.url, "--interval", "1", "--prefix", generation)
        process = forwarder(*flags)
        process.ready()
        return process

    generations = [f"g{number}" for number in range(4)]
    process = start(generations[0])
    programs = [program(f"w{number}", url) for number in range(3)]
    for generation in generations[1:]:
        process.ticks(2)
        assert process.end(signal.SIGTERM) == 0
        process = start(generation)
    for one in programs:
        one.tell_to_end()
    counted = sum((one.counted() for one in programs), Counter[str]())
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite, *generations) == counted, or_else=f"{counted} counted and arrived")


def test_programs_end_when_what_they_measured_is_safe(forwarder: StartForwarder, program, graphite: GraphitePeer):
    """However long the intervals are: who ends asks the forwarder to flush, which answers for many with one flush."""
    flags = ("--listen", "forwarder+tcp://127.0.0.1:0", "--to", graphite.url, "--interval", str(FOREVER))
    process = forwarder(*flags)
    url = process.ready()["forwarder+tcp"]
    counted = Counter[str]()
    for turn in range(2):
        programs = [program(f"w{turn}{number}", url, interval=FOREVER) for number in range(4)]
        for one in programs:
            one.tell_to_end()
        counted += sum((one.counted() for one in programs), Counter[str]())
    eventually(lambda: arrived(graphite) == counted, or_else=f"{counted} counted and arrived")
    assert process.end(signal.SIGTERM) == 0
    assert arrived(graphite) == counted


# -- with a spool directory


def test_a_forwarder_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(
    forwarder: StartForwarder, program, graphite: GraphitePeer, tmp_path: Path
):
    """With -9, at any moment, while programs send: every count in Graphite is what was measured."""
    url = f"forwarder+unix://{tmp_path}/f"
    flags = ("--listen", url, "--to", graphite.url, "--interval", "1", "--spool", f"{tmp_path}/spool")
    dice = random.Random(2)
    process = forwarder(*flags)
    process.ready()
    programs = [program(f"w{number}", url) for number in range(3)]
    for _ in range(6):
        process.ticks()
        time.sleep(dice.random())
        process.end(signal.SIGKILL)
        process = forwarder(*flags)
        process.ready()
    for one in programs:
        one.tell_to_end()
    counted = sum((one.counted() for one in programs), Counter[str]())
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite) == counted, or_else=f"{counted} counted and arrived")


def test_sums_are_exact_whatever_becomes_of_the_forwarder(
    forwarder: StartForwarder, graphite: GraphitePeer, tmp_path: Path
):
    """Of more samples than are sent one by one. It is killed when it has read them; what was not safe comes again."""
    url, rng = f"forwarder+unix://{tmp_path}/f", random.Random(11)
    flags = ("--listen", url, "--to", graphite.url, "--interval", str(FOREVER), "--spool", str(tmp_path / "spool"))
    process = forwarder(*flags)
    process.ready()
    registry = Registry()
    flusher = Flusher(registry, url, interval=FOREVER, own="")
    flusher.start()
    milliseconds = sorted(rng.lognormvariate(3, 1) for _ in range(5000))
    for sample in milliseconds:
        registry.histogram("size").observe(sample)
    assert not flusher.flush(0)
    eventually(lambda: process.page()["sections"]["Listeners"][0]["Socket"].get("batches"))
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    process = forwarder(*flags)
    process.ready()
    assert flusher.stop(60)
    assert process.end(signal.SIGTERM) == 0
    expected = {
        "count": 5000,
        "sum": reduce(add, milliseconds),
        "sum_squares": reduce(add, [sample * sample for sample in milliseconds]),
        "lower": milliseconds[0],
        "upper": milliseconds[-1],
    }
    found = {name: graphite.at(f"stats.histograms.size.{name}")[-1] for name in expected}
    assert found == pytest.approx(expected, rel=1e-13, abs=0)


SENT_AND_KILLED = """
import sys, time
import metricslib as metrics
metrics.counter("hits").inc(1000)
metrics.start(sys.argv[1], interval=1, prefix="w", spool=sys.argv[2])
time.sleep(1000)
"""


def test_what_a_killed_program_had_sent_is_sent_again_and_counted_once(
    forwarder: StartForwarder, program, graphite: GraphitePeer, tmp_path: Path
):
    """It died before it had an answer. Who takes over its spool sends that in its name, and the forwarder knows."""
    url, spool = f"forwarder+unix://{tmp_path}/f", f"{tmp_path}/spool"
    process = forwarder("--listen", url, "--to", graphite.url, "--interval", str(FOREVER))
    process.ready()
    killed = subprocess.Popen([sys.executable, "-c", SENT_AND_KILLED, url, spool], cwd=ROOT)
    eventually(lambda: process.page()["sections"]["Pieces"]["Aggregated"] > 0)
    killed.kill()
    killed.wait()
    heir = program("w", url, f"spool={spool}")
    eventually(lambda: repeats(process) > 0)
    heir.tell_to_end()
    counted = heir.counted()
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite) == counted + Counter({"w.hits": 1000}))


# -- over plain statsd


def test_a_unix_datagram_socket_loses_nothing_while_the_forwarder_lives(
    forwarder: StartForwarder, graphite: GraphitePeer, tmp_path: Path
):
    """Whoever sends faster than the forwarder reads waits; what has come when it is told to stop is counted."""
    path = f"{tmp_path}/d"
    process = forwarder("--listen", f"unixgram://{path}", "--to", graphite.url, "--interval", "1")
    process.ready()
    threads = [
        threading.Thread(target=send, args=(f"unixgram://{path}", "w.hits:1|c\nw.took:5|ms", 20_000)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite) == {"w.hits": 80_000, "w.took": 80_000})


def test_what_udp_loses_is_counted(forwarder: StartForwarder, graphite: GraphitePeer, tmp_path: Path):
    """A flood into a small buffer: what arrived and what the kernel dropped are together what was sent."""
    config = tmp_path / "forwarder.toml"
    config.write_text("receive_buffer = 4096\n")
    process = forwarder(
        *("--config", str(config), "--listen", "udp://127.0.0.1:0", "--to", graphite.url, "--interval", "1")
    )
    address = process.ready()["udp"]

    def counted() -> tuple[int, int]:
        (listener,) = process.page()["sections"]["Listeners"]
        return listener["Packets"], listener["Socket"]["kernel_dropped"]

    send(address, "w.hits:1|c", 20_000)
    eventually(lambda: sum(counted()) == 20_000, or_else="all heard or dropped")
    heard, _ = counted()
    assert process.end(signal.SIGTERM) == 0
    eventually(lambda: arrived(graphite) == {"w.hits": heard})
