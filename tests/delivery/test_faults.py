"""What becomes of windows when a server fails in each way that servers fail in: the other destinations have theirs
meanwhile, the account adds up to what was sent, and when the fault is over, what may be sent again arrives.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from metricslib import Flusher, Registry
from metricslib.delivery import Sender, SenderStatus, open_destination
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from tests.peers import eventually

Behaviour = Callable[[socket.socket], bytes]


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


class Server:
    """Has a port from the start and listens from :meth:`listen` on. Each connection is met by ``behave``.

    ``lines`` are those of connections that it read to their end.
    """

    def __init__(self, over: threading.Event) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.over = over
        self.behave: Behaviour = read_all
        self.lines: list[bytes] = []

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    def listen(self) -> "Server":
        self.socket.listen(128)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.lines += self.behave(connection).splitlines()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it may never have listened
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


# -- faults: each begins when it is called, and returns what ends it

Fault = Callable[[Server], Callable[[], object]]


def refuses(server: Server) -> Callable[[], object]:
    """Nobody listens."""
    return server.listen


def swallows(server: Server) -> Callable[[], object]:
    """A black hole: the queue of connections is full, and who knocks hears nothing at all."""
    server.socket.listen(0)
    knocking = [socket.socket() for _ in range(4)]
    for one in knocking:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", server.port))

    def lift() -> None:
        for one in knocking:
            one.close()
        server.listen()

    return lift


def behaves(behave: Callable[[Server, socket.socket], object]) -> Fault:
    """The server listens, but does something else than to read to the end."""

    def begin(server: Server) -> Callable[[], object]:
        def meet(connection: socket.socket) -> bytes:
            behave(server, connection)
            return b""

        server.behave = meet
        server.listen()
        return lambda: setattr(server, "behave", read_all)

    return begin


def never_read(server: Server, connection: socket.socket) -> None:
    """Accept, and then nothing."""
    server.over.wait(60)


def reset_in_mid_line(server: Server, connection: socket.socket) -> None:
    """Read up to the middle of a line, and reset."""
    connection.recv(5)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_a_byte_a_second(server: Server, connection: socket.socket) -> None:
    """As slowly as can be."""
    while connection.recv(1) and not server.over.wait(1):
        pass


FAULTS = {
    "refuses": refuses,
    "swallows": swallows,
    "never reads": behaves(never_read),
    "resets in mid-line": behaves(reset_in_mid_line),
    "reads a byte a second": behaves(read_a_byte_a_second),
}
UNREAD = ("refuses", "swallows")
"""Where it is certain that nothing was read, so that even a server that adds up may be sent it again."""


@pytest.fixture
def server(over: threading.Event) -> Iterator[Callable[[], Server]]:
    """Call for a server that is gone at the end of the test."""
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server(over))
        return servers[-1]

    yield start
    over.set()
    for one in servers:
        one.close()


class Program:
    """Measures something else in every interval, and ships it to a destination that fails and to one that does not."""

    def __init__(self, failing: str, healthy: str) -> None:
        self._clock = ManualClock()
        self._registry = Registry(clock=self._clock)
        self._flusher = Flusher(self._registry, (failing, healthy), interval=10, own="")
        self._flusher.start()

    @property
    def failing(self) -> SenderStatus:
        return self._flusher.status().destinations[0]

    @property
    def healthy(self) -> SenderStatus:
        return self._flusher.status().destinations[1]

    def run(self, intervals: int, points: int) -> None:
        """Let intervals pass that make so many points for either, and wait until all have arrived where they can."""
        for number in range(1, intervals + 1):
            self._registry.counter("hits").inc(number)
            self._registry.gauge("depth").set(number / 10)
            self._clock.advance(10)
            self._flusher.tick()
        eventually(lambda: self.healthy.points_sent == points)
        eventually(lambda: self.failing.errors)
        assert self.failing.points_sent == 0
        assert adds_up(self.failing, points)

    def recover(self) -> SenderStatus:
        """Wait until nothing waits any more where it failed; return how delivery went."""
        eventually(lambda: not self.failing.waiting_batches, 60)
        return self.failing

    def end(self) -> None:
        self._flusher.stop(timeout=0)


def adds_up(status: SenderStatus, points: int) -> bool:
    return status.points_sent + status.waiting_points + sum(status.dropped.values()) == points


@pytest.fixture
def ship() -> Iterator[Callable[[str, str], Program]]:
    """Call with a URL that fails and one that does not for a program that ends with the test."""
    programs: list[Program] = []

    def start(failing: str, healthy: str) -> Program:
        programs.append(Program(failing, healthy))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


@pytest.mark.parametrize("fault", FAULTS)
def test_graphite_gets_everything_when_the_fault_is_over(server, ship, fault: str):
    """Nothing is dropped, nothing is missing, and the other destination never waited."""
    failing, healthy = server(), server().listen()
    lift = FAULTS[fault](failing)
    program = ship(f"graphite://{failing}?timeout=0.5", f"graphite://{healthy}")
    program.run(4, points=12)
    assert failing.lines == []
    lift()
    status = program.recover()
    assert (status.points_sent, status.dropped) == (12, {})
    assert len(set(healthy.lines)) == 12
    assert set(failing.lines) == set(healthy.lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bound_that_is_reached_costs_the_oldest_and_says_how_much(server, ship, fault: str):
    """Dropped and arrived add up to what was sent, and the newest have arrived."""
    failing, healthy = server(), server().listen()
    lift = FAULTS[fault](failing)
    program = ship(f"graphite://{failing}?timeout=0.5&spool_bytes=1000", f"graphite://{healthy}")
    program.run(8, points=24)
    lift()
    status = program.recover()
    assert set(status.dropped) == {"spool_full"}
    assert adds_up(status, 24)
    assert len(set(failing.lines)) == status.points_sent
    newest = sorted(healthy.lines, key=lambda line: line.split()[-1])[-3:]
    assert set(newest) <= set(failing.lines) < set(healthy.lines)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_adds_up_gets_nothing_twice(server, ship, fault: str):
    """What it may have read is dropped, cause `unconfirmed`; what it cannot have read arrives after the fault."""
    failing, healthy = server(), server().listen()
    lift = FAULTS[fault](failing)
    program = ship(f"statsd+tcp://{failing}?timeout=0.5", f"statsd+tcp://{healthy}")
    program.run(4, points=8)
    if fault in UNREAD:
        assert program.failing.dropped == {}
    else:
        eventually(lambda: program.failing.dropped)
    lift()
    status = program.recover()
    assert adds_up(status, 8)
    assert set(status.dropped) <= {"unconfirmed"}
    assert len(failing.lines) == len(set(failing.lines))
    assert status.points_sent <= len(failing.lines) <= 8


# -- TLS


def secured(certificate: trustme.LeafCert) -> Behaviour:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def meet(connection: socket.socket) -> bytes:
        with context.wrap_socket(connection, server_side=True) as tls:
            return read_all(tls)

    return meet


def wrong_name(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("another.example")


def expired(authority: trustme.CA) -> trustme.LeafCert:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday)


def unknown_authority(authority: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert("127.0.0.1")


@pytest.mark.parametrize("certificate", [wrong_name, expired, unknown_authority])
def test_a_server_that_cannot_prove_its_name_gets_nothing_until_it_can(
    server, ship, tmp_path: Path, certificate: Callable[[trustme.CA], trustme.LeafCert]
):
    """Everything waits, and arrives when the server's certificate has been put right."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    failing, healthy = server(), server().listen()
    failing.behave = secured(certificate(authority))
    failing.listen()
    program = ship(f"graphite+tls://{failing}?ca={tmp_path}/ca.pem", f"graphite://{healthy}")
    program.run(4, points=12)
    assert set(program.failing.errors_by_type) == {"SSLCertVerificationError"}
    assert "certificate refused" in (program.failing.last_error or "")
    assert failing.lines == []
    failing.behave = secured(authority.issue_cert("127.0.0.1"))
    status = program.recover()
    assert (status.points_sent, status.dropped) == (12, {})
    assert set(failing.lines) == set(healthy.lines)


# -- names


class Names:
    """A resolver that knows one name, or does not."""

    def __init__(self) -> None:
        self.port: int | None = None

    def __call__(self, host: str, port: int, *args: Any, **how: Any) -> list[tuple[Any, ...]]:
        assert (host, port) == ("graphite.test", 2003)
        if self.port is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]


def test_a_name_that_stops_resolving_and_then_moves_is_followed(server):
    """Names are resolved at each connection: what was measured meanwhile arrives where the name leads then."""
    names, first, second = Names(), server().listen(), server().listen()
    sender = Sender(open_destination("graphite://graphite.test", Naming(), resolve=names), rng=lambda: 0.01)

    def interval(end: int) -> None:
        window = Window(end - 10, end, 10, gauges={"depth": end})
        sender.put(*sender.destination.encode(Flush(window, window)))

    sender.start()
    names.port = first.port
    interval(10)
    assert sender.wait_idle(20)
    names.port = None
    interval(20)
    eventually(lambda: sender.status().errors_by_type.get("gaierror"))
    assert "Name or service not known" in (sender.status().last_error or "")
    names.port = second.port
    assert sender.wait_idle(20)
    sender.stop(5)
    assert first.lines == [b"stats.gauges.depth 10 10"]
    assert set(second.lines) == {b"stats.gauges.depth 10 10", b"stats.gauges.depth 20 20"}
    assert (sender.status().points_sent, sender.status().dropped) == (2, {})
