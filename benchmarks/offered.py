"""A daemon with all its parts, offered a million lines a second with 100,000 live series: what is lost, and where.

Graphite is a sink that reads every batch to its end and keeps it; what the daemon says of itself arrives there, too. A
line is accounted for if it is among those, or in a datagram that the kernel is known to have dropped. And what was
added to counters must be what all the values of all counters in Graphite add up to.
"""

import re
import signal
import socket
import subprocess
import sys
import threading
import time

from .child import ROOT, environment, missing
from .measure import Samples, Scale
from .programs import Load, missing_compiler
from .receivers import settled
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "Sink", "run"]

TITLE = "A daemon that is offered a million lines a second"
RATE = 1_000_000
LINES = 30  # a datagram
_COUNT = re.compile(rb"^stats\.counters\.(\S+)\.count (\S+) (\d+)$", re.MULTILINE)

_OFFERED, _CPU = "lines offered, a second", "CPU of the daemon, as a share of one core"
_DROPPED, _UNACCOUNTED = "datagrams dropped by the kernel", "lines unaccounted for"
_MISSING = "counted by those who sent, and not in Graphite"

ROWS = (
    Row(_OFFERED, ""),
    Row(_CPU, "%"),
    Row(_DROPPED, "", goal=at_most(0)),
    Row(_UNACCOUNTED, "", goal=at_most(0)),
    Row(_MISSING, "", goal=at_most(0)),
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return what one run has shown."""
    why = missing("C") or missing_compiler()
    return ({}, why) if why else (offer("C", Load("mixed", scale.series, LINES, RATE), scale.offered), "")


class Sink:
    """A server that speaks Graphite's protocol, reads everything, and keeps it."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._batches: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self._batches.append(_all_of(connection))

    def counted(self) -> dict[str, int]:
        """Return, by counter, the sum over all slots. A slot keeps the value that came last."""
        slots = {(name, stamp): int(value) for batch in self._batches for name, value, stamp in _COUNT.findall(batch)}
        sums: dict[str, int] = {}
        for (name, _), value in slots.items():
            sums[name.decode()] = sums.get(name.decode(), 0) + value
        return sums

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 18), b""))


def offer(implementation: str, load: Load, seconds: float) -> Samples:
    """Offer a daemon that load, end it, and return what became of the lines."""
    sink = Sink()
    flags = {
        "--listen": "udp://127.0.0.1:0",
        "--to": f"graphite://127.0.0.1:{sink.port}",
        "--interval": str(10 if seconds >= 20 else 1),
        "--stop-timeout": "60",
        "--http": "off",
        "--console": "off",
    }
    command = [sys.executable, "-m", "forwarder", *(word for flag in flags.items() for word in flag)]
    daemon = subprocess.Popen(command, cwd=ROOT, env=environment(implementation), stderr=subprocess.PIPE, text=True)
    try:
        assert daemon.stderr
        port = int(next(line for line in daemon.stderr if line.startswith("ready")).rpartition(":")[2])
        threading.Thread(target=daemon.stderr.read, daemon=True).start()
        begin = time.monotonic()
        sent = load.send(port, seconds)
        share = settled(daemon.pid) / (time.monotonic() - begin)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(120)
    finally:
        daemon.kill()
        daemon.wait()
        sink.close()
    counted = sink.counted()
    dropped = sum(count for name, count in counted.items() if name.startswith("statsd.kernel_drops."))
    received = counted.get("statsd.pieces_received", 0)
    theirs = sum(count for name, count in counted.items() if not name.startswith("statsd."))
    return {
        _OFFERED: [sent.lines / sent.seconds],
        _CPU: [share],
        _DROPPED: [float(dropped)],
        _UNACCOUNTED: [float(abs(sent.lines - dropped * load.lines - received))],
        _MISSING: [float(abs(sent.counted - theirs))],
    }
