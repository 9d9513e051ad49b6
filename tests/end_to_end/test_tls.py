"""Lines under TLS reach a real carbon, behind what ends TLS for it, and a relay that speaks TLS itself."""

import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from metricslib import Flusher, Registry
from tests.peers import eventually

from .conftest import Carbon, free_port, recent_clock

NAME = "graphite.example"


class Terminator:
    """Ends TLS before a server, and passes on both ends of a connection, as stunnel and haproxy do."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._behind = "127.0.0.1", port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(connection,), daemon=True).start()

    def _pass(self, connection: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(connection, server_side=True) as secured,
                socket.create_connection(self._behind) as plain,
            ):
                while chunk := secured.recv(65536):
                    plain.sendall(chunk)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(65536):
                    pass
                secured.unwrap()
        except OSError:  # the sender has given up
            pass

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[trustme.LeafCert, str]:
    """A server's certificate, and the file of who vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority.issue_cert(NAME), str(tmp_path / "ca.pem")


@pytest.fixture
def terminator(carbon: Carbon, certificate: tuple[trustme.LeafCert, str]) -> Iterator[Terminator]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate[0].configure_cert(context)
    one = Terminator(context, carbon.port)
    yield one
    one.close()


class Program:
    """Counts something else in every interval, and ships it to a port under TLS."""

    def __init__(self, port: int, ca: str) -> None:
        self.clock = recent_clock()
        self.registry = Registry(clock=self.clock)
        url = f"graphite+tls://127.0.0.1:{port}?ca={ca}&name={NAME}&timeout=1"
        self.flusher = Flusher(self.registry, url, interval=10, own="")
        self.stamps: list[int] = []

    def interval(self) -> None:
        self.stamps.append(int(self.clock.time() // 10 * 10 + 10))
        self.registry.counter("hits").inc(len(self.stamps))
        self.clock.advance(10)
        self.flusher.tick()

    def waiting(self) -> int:
        return self.flusher.status().destinations[0].waiting_points

    def arrived(self, carbon: Carbon) -> bool:
        counts = list(range(1, len(self.stamps) + 1))
        return carbon.read("stats.counters.hits.count", self.stamps) == counts


@pytest.fixture
def ship() -> Iterator[Callable[[int, str], Program]]:
    """Call with a port and a file of roots for a program that ends with the test."""
    programs: list[Program] = []

    def start(port: int, ca: str) -> Program:
        programs.append(Program(port, ca))
        programs[-1].flusher.start()
        return programs[-1]

    yield start
    for program in programs:
        program.flusher.stop(timeout=0)


def test_everything_reaches_carbon(carbon: Carbon, terminator: Terminator, certificate, ship):
    """Interval after interval, over TLS."""
    program = ship(terminator.port, certificate[1])
    for _ in range(3):
        program.interval()
    assert program.flusher.flush(timeout=30)
    eventually(lambda: program.arrived(carbon))


def test_what_carbon_has_not_read_is_not_delivered(carbon: Carbon, terminator: Terminator, certificate, ship):
    """That TLS is ended before carbon confirms nothing yet: a carbon that stands still holds up the confirmation."""
    program = ship(terminator.port, certificate[1])
    program.interval()
    assert program.flusher.flush(timeout=30)
    assert carbon.process is not None
    carbon.process.send_signal(signal.SIGSTOP)
    program.interval()
    eventually(lambda: program.flusher.status().destinations[0].errors_by_type.get("TimeoutError"))
    assert program.waiting() > 0
    carbon.process.send_signal(signal.SIGCONT)
    eventually(lambda: program.waiting() == 0, 40)
    eventually(lambda: program.arrived(carbon))


@pytest.fixture
def relay(carbon: Carbon, certificate, tmp_path: Path, need: Callable[..., None]) -> Iterator[int]:
    """A carbon-c-relay before carbon that speaks TLS; its port."""
    need("carbon-c-relay")
    certificate[0].private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    port = free_port()
    (tmp_path / "relay.conf").write_text(
        f"cluster carbon forward 127.0.0.1:{carbon.port};\nmatch * send to carbon;\n"
        f"listen type linemode transport plain ssl {tmp_path}/relay.pem 127.0.0.1:{port} proto tcp;\n"
    )
    log = (tmp_path / "relay.log").open("wb")
    command = [shutil.which("carbon-c-relay") or "", "-f", str(tmp_path / "relay.conf")]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    log.close()
    yield port
    process.kill()
    process.wait()


def test_a_relay_that_speaks_tls_confirms(carbon: Carbon, relay: int, certificate, ship):
    """carbon-c-relay reads to our end and closes without close_notify: that is delivered, too."""
    program = ship(relay, certificate[1])
    for _ in range(3):
        program.interval()
    eventually(lambda: program.waiting() == 0)
    eventually(lambda: program.arrived(carbon))
