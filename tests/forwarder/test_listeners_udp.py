"""Datagrams over real sockets, on loopback."""

import socket

import pytest

from forwarder.listeners import UdpListener
from tests.forwarder.heard import Broken, Heard
from tests.sockets import connected, send


@pytest.fixture
def listen(started):
    """Call with a sink to start a listener on a free port."""
    return lambda sink, host="127.0.0.1": started(UdpListener(host, 0, sink))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_datagrams_arrive(listen, heard, host):
    """Each as one chunk, an empty one too, over IPv4 and IPv6."""
    listener = listen(heard, host)
    with connected(listener.address) as sock:
        for datagram in (b"a:1|c\nb:1|c", b"", b"c:1|c"):
            sock.send(datagram)
        heard.wait(lines=3)
    assert heard.chunks == [b"a:1|c\nb:1|c", b"", b"c:1|c"]


def test_what_comes_in_a_moment_is_read_together(listen, heard, monkeypatch):
    """To be woken for each datagram costs more than to read it, so the first one is given company."""
    feeds = []
    monkeypatch.setattr(heard, "feed", lambda chunks: (feeds.append(chunks), Heard.feed(heard, chunks)))
    listener = listen(heard)
    with connected(listener.address) as sock:
        monkeypatch.setattr("forwarder.listeners.udp.time.sleep", lambda seconds: sock.send(b"b:1|c"))
        sock.send(b"a:1|c")
        heard.wait(lines=2)
        monkeypatch.undo()
    assert feeds[0] == [b"a:1|c", b"b:1|c"]


@pytest.mark.parametrize(("buffer", "moment"), [(2048, 1e-5), (1 << 24, 0.001)])
def test_a_moment_is_no_longer_than_the_buffer_lasts(buffer, moment):
    """However fast datagrams come. The kernel counts more than their bytes."""
    listener = UdpListener("127.0.0.1", 0, Heard(), buffer=buffer)
    listener.bind()
    assert listener._gather <= moment
    listener.stop(0)


def test_all_addresses_are_those_of_ipv4_too(listen, heard):
    """`[::]` hears both families, also where net.ipv6.bindv6only says otherwise, and is drained to the end."""
    listener = listen(heard, "::")
    port = listener.address.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]"):
        send(f"udp://{host}:{port}", host)
    assert listener.stop(5.0)
    assert heard.chunks == [b"127.0.0.1", b"[::1]"]


def test_a_given_socket_is_left_as_it_is(heard):
    """What comes after the stop waits in it for the next listener, which counts none of the drops before its time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        given.bind(("127.0.0.1", 0))
        first = UdpListener("127.0.0.1", 0, heard)
        first.bind(given.dup())
        assert first.address == f"udp://127.0.0.1:{given.getsockname()[1]}"
        assert first.receive_buffer == 8192
        with connected(first.address) as sock:
            sock.send(b"early")
            first.start()
            assert first.alive
            assert first.stop(5.0)
            assert not first.alive
            for _ in range(100):
                sock.send(b"late")
        second = UdpListener("127.0.0.1", 0, heard)
        second.bind(given.dup())
        assert second.kernel_drops() == 0
        second.start()
        assert second.stop(5.0)
    assert heard.lines[:2] == [b"early", b"late"]
    assert len(heard.lines) < 100


def test_what_waits_is_handed_over_in_batches(heard):
    """No more at once when they are 32 KiB, and no less when nothing else is there."""
    listener = UdpListener("127.0.0.1", 0, heard)
    listener.bind()
    with connected(listener.address) as sock:
        for _ in range(40):
            sock.send(b"x" * 1000)
    listener.start()
    assert listener.stop(5.0)
    assert len(heard.chunks) == 40
    assert heard.events == ["feed"] * 2


def test_the_longest_datagram_is_whole(listen, heard):
    """65,507 bytes are the most that IPv4 carries."""
    datagram = b"x" * 65_507
    with connected(listen(heard).address) as sock:
        sock.send(datagram)
        heard.wait(lines=1)
    assert heard.chunks == [datagram]


def test_the_address_names_the_port_that_was_taken(heard):
    """Known once bound, before anything is read."""
    listener = UdpListener("127.0.0.1", 0, heard)
    assert listener.address == ""
    listener.bind()
    try:
        assert listener.address.startswith("udp://127.0.0.1:")
        assert not listener.address.endswith(":0")
        assert listener.receive_buffer >= 212_992  # what an unprivileged process gets on a kernel with default settings
    finally:
        assert listener.stop(1.0)


def test_a_taken_address_is_refused(listen, heard):
    """Two listeners never share a port."""
    port = int(listen(heard).address.rpartition(":")[2])
    second = UdpListener("127.0.0.1", port, heard)
    with pytest.raises(OSError, match="in use"):
        second.bind()
    second.stop(0)


def test_stop_hands_over_what_the_kernel_holds(heard):
    """Everything sent before is heard; who sends afterwards is refused."""
    listener = UdpListener("127.0.0.1", 0, heard)
    listener.bind()
    with connected(listener.address) as sock:
        for _ in range(200):  # so many have room anywhere
            sock.send(b"a:1|c")
        listener.start()
        assert listener.stop(5.0)
        assert len(heard.chunks) == 200
        assert listener.counts() == {"kernel_dropped": 0}
        sock.send(b"late:1|c")
        with pytest.raises(ConnectionRefusedError):
            sock.send(b"late:1|c")


def test_what_comes_while_stopping_is_refused_and_not_lost(heard):
    """Between hanging up and closing, new datagrams are refused visibly, and old ones still heard."""
    listener = UdpListener("0.0.0.0", 0, heard)
    listener.bind()
    with connected(listener.address) as sock:
        sock.send(b"early:1|c")
        listener._hang_up(listener._socket)
        sock.send(b"late:1|c")
        with pytest.raises(ConnectionRefusedError):
            sock.send(b"late:1|c")
    listener.start()
    assert listener.stop(5.0)
    assert heard.chunks == [b"early:1|c"]


def test_the_kernels_drops_are_counted(heard):
    """Datagrams that found the buffer full are known at any time, also after the end."""
    listener = UdpListener("127.0.0.1", 0, heard, buffer=8192)
    listener.bind()
    with connected(listener.address) as sock:
        for _ in range(200):
            sock.send(b"x" * 1000)
    dropped = listener.kernel_drops()
    assert 0 < dropped < 200
    listener.start()
    assert listener.stop(5.0)
    assert len(heard.chunks) == 200 - dropped
    assert listener.counts()["kernel_dropped"] == dropped


def test_a_broken_sink_ends_nothing(listen, caplog):
    """What it raises is counted and logged once, and reading goes on."""
    broken = Broken()
    listener = listen(broken)
    with connected(listener.address) as sock:
        for lines in (1, 2):
            sock.send(b"a:1|c")
            broken.wait(lines=lines)
    assert listener.stop(5.0)
    assert listener.counts()["feed_error"] == 2
    assert len(caplog.records) == 1


def test_an_error_of_the_socket_ends_nothing(heard, caplog):
    """It is counted, and reading goes on."""

    class Faulty:
        """A socket that fails once."""

        def __init__(self, sock):
            self.sock = sock
            self.failed = False

        def recv_into(self, *args):
            if not self.failed:
                self.failed = True
                raise OSError("faulty")
            return self.sock.recv_into(*args)

        def __getattr__(self, name):
            return getattr(self.sock, name)

    listener = UdpListener("127.0.0.1", 0, heard)
    listener.bind()
    listener._socket = Faulty(listener._socket)
    listener.start()
    with connected(listener.address) as sock:
        sock.send(b"a:1|c")
        heard.wait(lines=1)
    assert listener.stop(5.0)
    assert listener.counts()["recv_error"] == 1
