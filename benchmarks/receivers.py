"""Servers that are sent lines over UDP: each a process on a core of its own, that says how many lines have come."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from .child import ROOT, environment, missing
from .programs import cores, missing_compiler, program

__all__ = ["RECEIVERS", "Receiver", "cpu", "missing_receiver", "settled"]

BUFFER = 4 << 20
_STATSD = ROOT / "tests" / "end_to_end" / "node_modules" / "statsd" / "stats.js"
_NEVER = 1_000_000_000  # milliseconds
_PATIENCE = 20.0  # seconds
_MOMENT = 0.05  # seconds, of which an idle process uses no more than
_IDLE = 0.001


class Receiver(Protocol):
    """A server that runs."""

    port: int
    pid: int

    def lines(self) -> int:
        """Return how many lines have come so far."""
        ...

    def close(self) -> None: ...


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken, all its threads together."""
    schedules = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in schedules) / 1e9


def settled(pid: int) -> float:
    """Wait until a process has nothing left to do, and return the seconds of CPU that it has taken."""
    before, now = -1.0, cpu(pid)
    while now - before > _IDLE:
        time.sleep(_MOMENT)
        before, now = now, cpu(pid)
    return now


class Spoken:
    """A program that prints its port, and for each line on its standard input how many datagrams and lines came."""

    def __init__(self, command: list[str], implementation: str = "") -> None:
        self._process = subprocess.Popen(
            [*cores()[1], *command],
            cwd=ROOT,
            env=environment(implementation),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.port = int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def lines(self) -> int:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._answer().split()[1])

    def close(self) -> None:
        self._process.communicate(timeout=_PATIENCE)


class Statsd:
    """statsd, the JavaScript daemon, that flushes never."""

    def __init__(self) -> None:
        self.port, self._console = _free_port(socket.SOCK_DGRAM), _free_port(socket.SOCK_STREAM)
        config = {
            "port": self.port,
            "address": "127.0.0.1",
            "mgmt_port": self._console,
            "mgmt_address": "127.0.0.1",
            "flushInterval": _NEVER,
            "automaticConfigReload": False,
        }
        with tempfile.NamedTemporaryFile("w", suffix=".js", delete=False) as file:
            file.write(json.dumps(config))
        self._config = Path(file.name)
        self._process = subprocess.Popen(
            [*cores()[1], "node", str(_STATSD), file.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + _PATIENCE
        while not self._listens():
            if time.monotonic() > deadline:
                raise TimeoutError("statsd does not listen")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._console)) == 0

    def lines(self) -> int:
        with socket.create_connection(("127.0.0.1", self._console), timeout=_PATIENCE) as sock:
            sock.sendall(b"counters\n")
            sock.shutdown(socket.SHUT_WR)
            counters = b"".join(iter(lambda: sock.recv(65536), b""))
        found = re.search(rb"'statsd.metrics_received': (\d+)", counters)
        return int(found[1]) if found else 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._config.unlink()


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _forwarder(implementation: str) -> Receiver:
    return Spoken([sys.executable, "-m", "benchmarks.receivers"], implementation)


FLOOR, STATSD = "a bare recvmmsg loop", "statsd"
RECEIVERS: dict[str, Callable[[], Receiver]] = {
    FLOOR: lambda: Spoken([program("floor"), str(BUFFER)]),
    "C": lambda: _forwarder("C"),
    "Python": lambda: _forwarder("Python"),
    STATSD: Statsd,
}


def missing_receiver(name: str) -> str:
    """Return why that receiver cannot run here; empty if it can."""
    if missing_compiler():
        return missing_compiler()
    if name == STATSD and not _STATSD.exists():
        return "no statsd: npm install is missing"
    return missing(name) if name in ("C", "Python") else ""


def main() -> None:
    """Be the forwarder's part that takes lines in: a listener and its aggregator."""
    from forwarder.aggregator import Aggregator
    from forwarder.listeners import UdpListener
    from metricslib import Registry

    aggregator = Aggregator(Registry(max_series=1_000_000, max_tag_sets=10_000))
    listener = UdpListener("127.0.0.1", 0, aggregator, buffer=BUFFER)
    listener.bind()
    listener.start()
    print(listener.address.rpartition(":")[2], flush=True)
    for _ in sys.stdin:
        counts = aggregator.counts()
        print(counts.packets, counts.lines, flush=True)
    listener.stop(1)


if __name__ == "__main__":
    main()
