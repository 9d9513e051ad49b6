"""Under TLS nothing is sent to a stranger, and delivered means what it means over TCP."""

import contextlib
import shutil
import socket
import ssl
import struct
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.delivery.tls import Tls
from metricslib.delivery.transport import Channel, Endpoint, Stream
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming
from tests.peers import eventually, open_files

LINES = b"".join(b"path.number.%d 1 1700000000\n" % number for number in range(1000))
LARGE = LINES * 400
"""More than the buffers of a connection on loopback hold."""


class Authority:
    """Who vouches for the peers of a test, and their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca)

    def server(self, name: str = "127.0.0.1", **how) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **how).configure_cert(context)
        return context

    def trusted_by(self, context: ssl.SSLContext) -> None:
        """Let a server ask for a certificate that is vouched for here."""
        context.verify_mode = ssl.CERT_REQUIRED
        self._ca.configure_trust(context)

    def client(self, name: str) -> str:
        """Write a certificate with its key, and return the file."""
        path = self._folder / "client.pem"
        self._ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls_peer(peer, authority: Authority):
    """Call with a script that gets a secured connection, and a context, for a running peer."""

    def start(script, context: ssl.SSLContext | None = None, receive_buffer: int = 0):
        context = context or authority.server()
        errors: list[OSError] = []

        def run(connection: socket.socket) -> object:
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    return script(secured)
            except OSError as error:
                errors.append(error)
                return b""

        one = peer(run, receive_buffer=receive_buffer)
        one.errors = errors
        return one

    return start


def deliver(one, payload: bytes = LINES, seconds: float = 20, host: str = "127.0.0.1", **options: str):
    query = "&".join(f"{name}={value}" for name, value in options.items())
    destination = open_destination(f"graphite+tls://{host}:{one.port}?{query}", Naming())
    return destination.deliver(payload, Deadline(seconds))


def fails(one, payload: bytes = LINES, seconds: float = 20, **options: str) -> str:
    """Return why it failed; all of it remains."""
    with pytest.raises(Undelivered) as failure:
        deliver(one, payload, seconds, **options)
    assert (failure.value.remaining, failure.value.lost) == (payload, {})
    return failure.value.reason


def read_to_the_end(connection: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def end_well(connection: ssl.SSLSocket) -> bytes:
    """Read all and answer the end with close_notify, as Graphite's relays behind stunnel or haproxy do."""
    received = read_to_the_end(connection)
    connection.unwrap()
    return received


def end_ragged(connection: ssl.SSLSocket) -> bytes:
    """Read all and close without close_notify, as carbon-c-relay and nginx do."""
    return read_to_the_end(connection)


def end_late(connection: ssl.SSLSocket) -> bytes:
    """Answer with close_notify, and wait for the end of the connection before closing it."""
    received = read_to_the_end(connection)
    with connection.unwrap() as plain:
        assert plain.recv(1) == b""
    return received


def talk(connection: ssl.SSLSocket) -> bytes:
    """Say something before, and between the other's end and one's own."""
    connection.send(b"hello\n" * 10)
    received = read_to_the_end(connection)
    connection.send(b"bye\n" * 10)
    connection.unwrap()
    return received


def read_bytewise(connection: ssl.SSLSocket) -> bytes:
    received = b""
    while byte := connection.recv(1):
        received += byte
    return received


# -- delivered


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("script", [end_well, end_ragged, end_late, talk, read_bytewise])
def test_delivered_means_read_to_the_end(tls_peer, authority: Authority, script, version: ssl.TLSVersion):
    """However the peer ends its side after it has read to our end."""
    context = authority.server()
    context.maximum_version = version
    one = tls_peer(script, context)
    assert deliver(one, ca=authority.ca) == {}
    assert deliver(one, b"second 1 1700000000\n", ca=authority.ca) == {}
    one.close()
    assert one.received == [LINES, b"second 1 1700000000\n"]
    assert one.errors == []


def test_a_large_payload_waits_for_a_slow_reader(tls_peer, authority: Authority):
    """More than fits into the kernel's buffers arrives whole."""
    one = tls_peer(end_well)
    assert deliver(one, LARGE, ca=authority.ca) == {}
    one.close()
    assert one.received == [LARGE]


def reset(connection: ssl.SSLSocket) -> None:
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close_early(connection: ssl.SSLSocket) -> None:
    """Read a little, then close as if that were all."""
    connection.recv(10)


def close_at_once(connection: ssl.SSLSocket) -> None:
    """Close before anything was sent."""


def end_at_once(connection: ssl.SSLSocket) -> None:
    """Send close_notify without having read, and close."""
    connection.setblocking(False)
    with pytest.raises((ssl.SSLWantReadError, ssl.SSLError)):
        connection.unwrap()


@pytest.mark.parametrize("payload", [LINES, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("script", [reset, close_early, close_at_once, end_at_once])
def test_what_a_peer_did_not_read_to_the_end_remains(tls_peer, authority: Authority, script, payload: bytes):
    """A reset, or an end that comes too early, with close_notify or without."""
    fails(tls_peer(script), payload, ca=authority.ca)


def say_the_end(connection: ssl.SSLSocket) -> None:
    """Send close_notify without reading."""
    connection.setblocking(False)
    with contextlib.suppress(ssl.SSLError):  # one that says that it is not answered yet, or that there is data
        connection.unwrap()


def test_an_end_that_comes_before_ours_confirms_nothing(tls_peer, authority: Authority, over: threading.Event):
    """A peer that ends its side at once has not read, although its kernel acknowledges every byte of ours."""
    said = threading.Event()

    def end_at_once(connection: ssl.SSLSocket) -> None:
        say_the_end(connection)
        socket.socket.shutdown(connection, socket.SHUT_WR)
        said.set()
        over.wait(60)

    def secure(opened: socket.socket, deadline: Deadline) -> Channel:
        channel = Tls("127.0.0.1", ca=authority.ca)(opened, deadline)
        assert said.wait(20)
        return channel

    stream = Stream(Endpoint("127.0.0.1", tls_peer(end_at_once).port), secure)
    with pytest.raises(Undelivered, match="closed before it had read all"):
        stream.send(LINES, Deadline(20), again=True)


def test_an_end_without_our_last_bytes_acknowledged_confirms_nothing(tls_peer, authority: Authority, over):
    """The peer's end may cross our last bytes on the way: they are not read, and a reset is about to follow."""

    def end_unread(connection: ssl.SSLSocket) -> None:
        time.sleep(0.3)
        say_the_end(connection)
        socket.socket.shutdown(connection, socket.SHUT_WR)
        over.wait(60)

    def secure(opened: socket.socket, deadline: Deadline) -> Channel:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return Tls("127.0.0.1", ca=authority.ca)(opened, deadline)

    one = tls_peer(end_unread, receive_buffer=4096)
    with pytest.raises(Undelivered, match="closed before it had read all"):
        Stream(Endpoint("127.0.0.1", one.port), secure).send(LINES * 10, Deadline(20), again=True)


def test_a_reset_behind_the_peers_end_confirms_nothing(tls_peer, authority: Authority):
    """close_notify is not enough: a peer that then dies with bytes unread has not read them."""

    def end_unread(connection: ssl.SSLSocket) -> None:
        time.sleep(0.3)
        say_the_end(connection)
        time.sleep(0.3)

    assert "reset" in fails(tls_peer(end_unread), ca=authority.ca)


def test_a_send_that_is_given_up_ends_in_no_half_line(tls_peer, authority: Authority, over: threading.Event):
    """Records hold whole lines, so even a peer whose TLS library takes a reset for the end reads no half one."""

    def read_late(connection: ssl.SSLSocket) -> bytes:
        over.wait(60)
        received = b""
        with contextlib.suppress(OSError):
            while chunk := connection.recv(65536):
                received += chunk
        return received

    one = tls_peer(read_late)
    assert "no answer in time" in fails(one, LARGE, 0.5, ca=authority.ca)
    over.set()
    one.close()
    (received,) = one.received
    assert 0 < len(received) < len(LARGE)
    assert LARGE.startswith(received)
    assert received.endswith(b"\n")


def test_a_send_that_is_given_up_ends_in_a_reset(tls_peer, authority: Authority, over: threading.Event):
    """Where the peer's library tells it, the peer can tell."""
    seen: list[object] = []

    def read_late(connection: ssl.SSLSocket) -> None:
        over.wait(60)
        try:
            while socket.socket.recv(connection, 65536):
                pass
        except OSError as error:
            seen.append(type(error))

    one = tls_peer(read_late)
    assert "no answer in time" in fails(one, LARGE, 0.5, ca=authority.ca)
    over.set()
    one.close()
    assert seen == [ConnectionResetError]


@pytest.mark.parametrize("where", ["handshake", "writing", "confirming"])
def test_a_hanging_send_is_cut_short_from_outside(peer, tls_peer, authority: Authority, over, where: str):
    """stop() brings the deadline forward while a send hangs, at whatever point, and the send ends."""

    def hang(_: object) -> object:
        return over.wait(60)

    one = peer(hang) if where == "handshake" else tls_peer(hang)
    destination = open_destination(f"graphite+tls://127.0.0.1:{one.port}?ca={authority.ca}", Naming())
    deadline = Deadline(60)
    threading.Timer(0.3, deadline.cut, (0,)).start()
    begin = time.monotonic()
    with pytest.raises(Undelivered, match="no answer in time"):
        destination.deliver(LARGE if where == "writing" else LINES, deadline)
    assert time.monotonic() - begin < 30


# -- who the peer is


def test_a_wrong_name_is_sent_nothing(tls_peer, authority: Authority):
    """The certificate is another's; `name` says whose it should be, where that is not the host's."""
    one = tls_peer(end_well, authority.server("graphite.example"))
    assert "certificate is not valid for '127.0.0.1'" in fails(one, ca=authority.ca)
    assert deliver(one, ca=authority.ca, name="graphite.example") == {}
    one.close()
    assert [type(error) for error in one.errors] == [ssl.SSLError]  # it was told why
    assert one.received == [b"", LINES]


def test_an_expired_certificate_is_sent_nothing(tls_peer, authority: Authority):
    """From the minute it expires."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    one = tls_peer(end_well, authority.server(not_before=yesterday - timedelta(days=1), not_after=yesterday))
    assert "certificate refused: certificate has expired" in fails(one, ca=authority.ca)
    one.close()
    assert one.received == [b""]


def test_an_unknown_authority_is_sent_nothing(tls_peer):
    """By default the system's roots count, and those of no test are among them."""
    one = tls_peer(end_well)
    assert "certificate refused: unable to get local issuer certificate" in fails(one)
    one.close()
    assert one.received == [b""]


def test_an_older_tls_is_sent_nothing(tls_peer, authority: Authority):
    """1.2 at least."""
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    one = tls_peer(end_well, context)
    assert "alert" in fails(one, ca=authority.ca)
    one.close()
    assert one.received == [b""]


def test_a_peer_without_tls_is_sent_nothing(peer, authority: Authority):
    """Nobody goes on in plain text."""

    def answer(connection: socket.socket) -> bytes:
        connection.sendall(b"220 hello\r\n")
        return connection.recv(65536)

    one = peer(answer)
    fails(one, ca=authority.ca)
    one.close()
    assert b"path.number" not in one.received[0]


# -- who we are


def shown_name(connection: ssl.SSLSocket) -> str:
    """The name in the other's certificate."""
    certificate: Any = connection.getpeercert()
    ((_, name),) = certificate["subjectAltName"]
    return str(name)


def test_a_client_certificate_is_shown(tls_peer, authority: Authority):
    """`cert`, with the key in it or in a file of its own."""
    context = authority.server()
    authority.trusted_by(context)
    names: list[str] = []

    def look(connection: ssl.SSLSocket) -> bytes:
        names.append(shown_name(connection))
        return end_well(connection)

    one = tls_peer(look, context)
    file = authority.client("shop.example")
    assert deliver(one, ca=authority.ca, cert=file) == {}
    assert deliver(one, ca=authority.ca, cert=file, key=file) == {}
    assert names == ["shop.example"] * 2


@pytest.mark.parametrize("payload", [LINES, LARGE], ids=["small", "large"])
def test_a_refusal_of_our_certificate_is_told(tls_peer, authority: Authority, payload: bytes):
    """Under TLS 1.3 it comes after we have begun to write, and must not be taken for the end."""
    context = authority.server()
    authority.trusted_by(context)
    assert "alert" in fails(tls_peer(end_well, context), payload, ca=authority.ca)


def test_a_renewed_certificate_is_read_again(tls_peer, authority: Authority, tmp_path: Path):
    """Certificates are renewed while a daemon runs; a file that is broken meanwhile is a failure like any other."""
    context = authority.server()
    authority.trusted_by(context)
    names: list[str] = []

    def look(connection: ssl.SSLSocket) -> bytes:
        names.append(shown_name(connection))
        return end_well(connection)

    one = tls_peer(look, context)
    file = Path(authority.client("first.example"))
    url = f"graphite+tls://127.0.0.1:{one.port}?ca={authority.ca}&cert={file}"
    destination = open_destination(url, Naming())
    destination.deliver(LINES, Deadline(20))
    file.write_text("half")
    with pytest.raises(Undelivered, match="cert or key cannot be used"):
        destination.deliver(LINES, Deadline(20))
    file.unlink()
    with pytest.raises(Undelivered, match="No such file"):
        destination.deliver(LINES, Deadline(20))
    authority.client("second.example")
    destination.deliver(LINES, Deadline(20))
    assert names == ["first.example", "second.example"]


# -- what is wrong with files


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("ca=/absent/hunter2", "ca cannot be used: No such file"),
        ("ca=", "must be files"),
        ("ca={key}", "ca cannot be used: no certificate"),
        ("cert={key}", "cert or key cannot be used"),
        ("cert={client}&key=/absent/hunter2", "cert or key cannot be used: No such file"),
        ("cert={client}&key={other}", "cert or key cannot be used: key values mismatch"),
        ("cert={client}&key={locked}", "a passphrase is not supported"),
        ("key={client}", "key needs cert"),
        ("name=", "name must be a host name"),
        ("name=.hunter2", "name must be a host name"),
        ("nam=hunter2", "did you mean name"),
    ],
)
def test_what_is_of_no_use_is_refused_at_set_up(authority: Authority, tmp_path: Path, query: str, reason: str):
    """With a reason in which no option's value stands."""
    client = authority.client("hunter2.example")
    other = shutil.copy(client, tmp_path / "hunter2-other.pem")
    authority.client("hunter2.example")
    key = tmp_path / "hunter2-key.pem"
    key.write_text(Path(other).read_text().partition("-----BEGIN CERTIFICATE")[0])
    files = {"client": client, "other": other, "key": str(key), "locked": str(tmp_path / "hunter2-locked.pem")}
    Path(files["locked"]).write_text(LOCKED)
    with pytest.raises(InvalidDestination) as refusal:
        open_destination(f"graphite+tls://host:2003?{query.format(**files)}", Naming())
    assert reason in refusal.value.reason
    assert "hunter2" not in str(refusal.value)


LOCKED = """-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,00000000000000000000000000000000

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END EC PRIVATE KEY-----
"""


def test_a_port_must_be_given():
    """Graphite has none for TLS."""
    with pytest.raises(InvalidDestination, match="has no port; write graphite\\+tls://host:port"):
        open_destination("graphite+tls://host", Naming())


def test_no_file_is_in_a_label(authority: Authority):
    """Pages and logs show the label."""
    url = f"graphite+tls://host:2003?ca={authority.ca}&name=hunter2"
    assert open_destination(url, Naming()).label == "graphite+tls://host:2003"


def test_no_descriptor_stays_open(tls_peer, authority: Authority, over: threading.Event):
    """Whatever came of them, connections are closed."""
    good, bad = tls_peer(end_well), tls_peer(reset)
    deliver(good, ca=authority.ca)
    before = open_files()
    for _ in range(5):
        deliver(good, ca=authority.ca)
        fails(bad, ca=authority.ca)
        fails(good, ca=authority.ca, name="another.example")
    eventually(lambda: len(open_files() - before) <= 1)  # the peer's side
