"""Hostile traffic beside good lines: nothing of those is lost, ticks are on time, memory stays, and the page answers.

``python -m tests.hostile SECONDS LINES_A_SECOND``. To one TCP listener, one UDP listener and the page of one forwarder
come, all the time: clients that send a byte now and then, to the listener and to the page, storms of connects, random
bytes, HTTP requests, long keys that are all new, and patterns that take long to match. What was good is counted when it
is over.
"""

import random
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.peers import Forwarder, eventually
from tests.sockets import PATIENCE

BLOCK = 0.02
"""Seconds between two blocks of good lines."""
LONG = 200
"""Seconds of a run whose last two thirds begin when the page has its sixty windows; until then memory grows."""
SLOW = 40
SLOW_REQUESTS = 8
"""Connections to the page that never finish a request: half of those that it serves at a time."""
STORM = 64
DATAGRAM = 10
"""Lines in a good datagram."""


@dataclass
class Report:
    """What was seen; see :meth:`faults` for what must hold."""

    sent: int = 0
    counted: int = 0
    datagrams_sent: int = 0
    datagrams_counted: int = 0
    kernel_drops: int = 0
    ticks: int = 0
    seconds: float = 0
    flusher: dict[str, Any] = field(default_factory=dict)
    answers: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Bytes, from the end of the first third on."""
    socket: dict[str, int] = field(default_factory=dict)
    """What happened to the TCP listener."""

    def faults(self) -> list[str]:
        """Return what does not hold."""
        growth = self.memory[-1] - self.memory[0]
        # A skipped tick loses nothing: what was counted goes into the next window. On a machine that has other work a
        # tick may be late by more than an interval now and then.
        skipped = self.flusher["skipped"]
        checks = {
            "lines over TCP were lost or doubled": self.sent == self.counted,
            "datagrams are unaccounted for": self.datagrams_sent == self.datagrams_counted + self.kernel_drops,
            "ticks failed": not self.flusher["errors"],
            "intervals have neither a window nor are counted as skipped": self.ticks + skipped >= int(self.seconds) - 2,
            "ticks were not on time": skipped <= max(1, self.seconds // 100),
            "memory grew": growth < (16 << 20 if self.seconds > LONG else 64 << 20) or growth < self.memory[0] // 10,
            "health did not answer": not self.refused and max(self.answers) < 5,
        }
        return [what for what, holds in checks.items() if not holds]


class _Traffic:
    """Threads that send until it is over."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.over = threading.Event()
        self.tcp, self.udp, self.page = (_address(addresses[name]) for name in ("tcp", "udp", "http"))
        self.datagrams: list[int] = []
        self._threads: list[threading.Thread] = []

    def run(self, work: Callable[[random.Random], None]) -> None:
        """Call ``work`` again and again; what its peers do to it is no error."""

        def repeat() -> None:
            rng = random.Random(work.__name__)
            while not self.over.is_set():
                with suppress(OSError, requests.RequestException):
                    work(rng)

        self._threads.append(threading.Thread(target=repeat, daemon=True))
        self._threads[-1].start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def datagram(self, sock: socket.socket, data: bytes) -> None:
        sock.sendto(data, self.udp)
        self.datagrams.append(1)

    # -- each a kind of hostile peer

    def slow_clients(self, rng: random.Random) -> None:
        with _sockets() as opened:
            for _ in range(SLOW):
                opened.append(socket.create_connection(self.tcp, 5))
            while not self.over.wait(0.25):
                for sock in opened:
                    sock.send(rng.choice((b"s", b"l", b":", b"1", b"|", b"c", b"\n")))

    def storm(self, rng: random.Random) -> None:
        with _sockets() as opened:
            for _ in range(STORM):
                opened.append(sock := socket.socket())
                sock.setblocking(False)
                sock.connect_ex(self.tcp)
            self.over.wait(rng.random() / 50)

    def random_bytes(self, rng: random.Random) -> None:
        data = rng.randbytes(rng.randrange(1, 20_000))
        with socket.create_connection(self.tcp, 5) as sock, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            self.datagram(datagrams, data[:8000])
            sock.sendall(rng.choice((b"", b"x:1|c\n", b"POST / HTTP/1.1\r\n")) + data)
        self.over.wait(0.01)

    def long_keys(self, rng: random.Random) -> None:
        lines = b"".join(b"%s.%d:1|c\n" % (b"k" * rng.randrange(3900), rng.randrange(1 << 62)) for _ in range(20))
        with socket.create_connection(self.tcp, 5) as sock:
            sock.sendall(lines)
        self.over.wait(0.02)

    def slow_requests(self, rng: random.Random) -> None:
        with _sockets() as opened:
            for _ in range(SLOW_REQUESTS):
                opened.append(socket.create_connection(self.page, 5))
                opened[-1].sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(20):
                for sock in opened:
                    sock.send(rng.choice((b"X", b":", b"\r")))
                self.over.wait(0.25)

    def huge_queries(self, rng: random.Random) -> None:
        host, port = self.page
        query = rng.choice(
            ("limit=1000000&format=json", f"match=*{'a' * 490}b", "match=" + "*a" * 45, "x=" + "y" * 60_000)
        )
        requests.get(f"http://{host}:{port}/?{query}", timeout=10)
        self.over.wait(0.2)


def run(seconds: float, rate: int) -> Report:
    """Send good lines at ``rate`` a second for so long, a tenth of them over UDP, beside all kinds of hostile peers."""
    flags = ("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", "--interval", "1")
    forwarder = Forwarder(*flags, environ={"FORWARDER_MAX_SERIES": "1000", "FORWARDER_LOG_LEVEL": "error"})
    report, traffic = Report(), _Traffic(forwarder.ready())
    try:
        for kind in (
            traffic.slow_clients,
            traffic.storm,
            traffic.random_bytes,
            traffic.long_keys,
            traffic.huge_queries,
            traffic.slow_requests,
        ):
            traffic.run(kind)
        _send_good_lines(forwarder, traffic, report, seconds, rate)
        traffic.end()
        _count(forwarder, traffic, report)
    finally:
        traffic.end()
        code = forwarder.end(signal.SIGTERM)
    assert code == 0
    return report


def _send_good_lines(forwarder: Forwarder, traffic: _Traffic, report: Report, seconds: float, rate: int) -> None:
    lines = max(DATAGRAM, int(rate * BLOCK))
    block, datagrams = b"good:1|c\n" * (lines - lines // 10), max(1, lines // 10 // DATAGRAM)
    watching = threading.Thread(target=_watch, args=(forwarder, traffic, report, seconds))
    with socket.create_connection(traffic.tcp) as sock, socket.socket(type=socket.SOCK_DGRAM) as udp:
        watching.start()
        start = due = time.monotonic()
        while due < start + seconds:
            sock.sendall(block)
            report.sent += block.count(b"\n")
            for _ in range(datagrams):
                traffic.datagram(udp, b"udp:1|c\n" * DATAGRAM)
            due += BLOCK
            traffic.over.wait(max(0.0, due - time.monotonic()))
        report.seconds = time.monotonic() - start
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b"", "the end of the stream was not confirmed"
    watching.join(PATIENCE)


def _watch(forwarder: Forwarder, traffic: _Traffic, report: Report, seconds: float) -> None:
    url, start = forwarder.ready()["http"], time.monotonic()
    while (now := time.monotonic()) < start + seconds - 1:
        with requests.get(f"{url}/health", timeout=PATIENCE) as answer:
            report.answers.append(time.monotonic() - now)
            if answer.status_code != 200:
                report.refused.append(answer.status_code)
        _page(url, "none")
        if now > start + seconds / 3:
            report.memory.append(_rss(forwarder.process.pid))
        traffic.over.wait(0.5)


def _count(forwarder: Forwarder, traffic: _Traffic, report: Report) -> None:
    url = forwarder.ready()["http"]
    report.datagrams_sent = len(traffic.datagrams)

    def all_there() -> bool:
        page = _page(url, "good")
        by_scheme = {row["Listener"].partition(":")[0]: row for row in page["sections"]["Listeners"]}
        report.flusher, report.ticks = page["flusher"], page["flusher"]["ticks"]
        report.counted = sum(int(series["total"]["count"]) for series in page["series"] if series["name"] == "good")
        report.datagrams_counted = by_scheme["udp"]["Packets"]
        report.kernel_drops = by_scheme["udp"]["Socket"]["kernel_dropped"]
        report.socket = by_scheme["tcp"]["Socket"]
        return report.sent == report.counted and not any("unaccounted" in fault for fault in report.faults())

    with suppress(AssertionError):  # the report says what is missing
        eventually(all_there, 10)


def _page(url: str, match: str) -> dict[str, Any]:
    """Return the page; 503 says that it is made for another just now."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = requests.get(f"{url}/?format=json&match={match}", timeout=PATIENCE)
        if answer.status_code != 503 or time.monotonic() > end:
            page: dict[str, Any] = answer.json()
            return page
        time.sleep(0.1)


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].rpartition(":")
    return host, int(port)


def _rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@contextmanager
def _sockets() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    try:
        yield opened
    finally:
        for sock in opened:
            sock.close()


def main() -> int:
    report = run(float(sys.argv[1]), int(sys.argv[2]))
    faults = report.faults()
    print(f"lines over TCP: {report.sent} sent, {report.counted} counted, {report.sent / report.seconds:.0f} a second")
    print(f"datagrams: {report.datagrams_sent} sent, {report.datagrams_counted} read, {report.kernel_drops} dropped")
    print(f"ticks: {report.ticks} in {report.seconds:.1f} s, {report.flusher['skipped']} skipped; {report.flusher}")
    print(f"memory: {min(report.memory) >> 20} to {max(report.memory) >> 20} MiB, {report.memory[-1] >> 20} at the end")
    print(f"health: {len(report.answers)} answers, the slowest after {max(report.answers):.3f} s")
    print(f"the TCP listener: {report.socket}")
    print(*(f"FAULT: {fault}" for fault in faults) if faults else ("all of it holds",), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
