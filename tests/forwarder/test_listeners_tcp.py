"""Connections over real sockets, on loopback."""

import errno
import selectors
import socket
import struct

import pytest

from forwarder.aggregator import Aggregator
from forwarder.graphite import Relay
from forwarder.listeners import TcpListener
from forwarder.listeners.framing import LONGEST
from forwarder.listeners.stream import ACCEPTS, ACCEPTS_BESIDE
from metricslib.testing import ManualClock
from tests.forwarder.heard import Broken
from tests.peers import eventually
from tests.sockets import confirmed, connected


@pytest.fixture
def listen(started):
    """Call with a sink to start a listener on a free port."""
    return lambda sink, host="127.0.0.1", **options: started(TcpListener(host, 0, sink, **options))


def confirmed_at_once(listener) -> bool:
    with connected(listener.address) as sock:
        return sock.recv(1) == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_lines_arrive(listen, heard, host):
    """However they are cut, and the last one without a line feed."""
    listener = listen(heard, host)
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\nb:")
        heard.wait(lines=1)
        sock.sendall(b"2|c\nc:3|c")
        assert confirmed(sock)
    assert heard.lines == [b"a:1|c", b"b:2|c", b"c:3|c"]
    assert listener.counts() == {"connections": 1}


def test_the_end_of_the_stream_confirms(listen, heard):
    """When a sender reads it, everything is with the sink, which has been told to pass it on."""
    with connected(listen(heard).address) as sock:
        sock.sendall(b"a:1|c\n" * 50_000)
        assert confirmed(sock)
    assert len(heard.lines) == 50_000
    assert heard.events[-1] == "flush"


def test_long_lines_are_dropped_once(listen, heard):
    """However long they are; the lines around them arrive."""
    with connected(listen(heard).address) as sock:
        sock.sendall(b"a:1|c\n" + b"x" * 300_000 + b"\nb:1|c\n" + b"x" * (LONGEST + 1))
        assert confirmed(sock)
    assert heard.lines == [b"a:1|c", b"b:1|c"]
    assert heard.dropped == {"line_too_long": 2}


def test_connections_do_not_mix(listen, heard):
    """Halves of lines on two connections stay apart."""
    listener = listen(heard)
    with connected(listener.address) as one, connected(listener.address) as two:
        one.sendall(b"x\na:")
        heard.wait(lines=1)
        two.sendall(b"y\nb:")
        heard.wait(lines=2)
        one.sendall(b"1|c")
        assert confirmed(one)
        two.sendall(b"2|c")
        assert confirmed(two)
    assert heard.lines == [b"x", b"y", b"a:1|c", b"b:2|c"]


def test_too_many_connections_are_refused(listen, heard):
    """What is over the bound is reset, never confirmed, and counted; when one leaves, there is room again."""
    listener = listen(heard, connections=1)
    with connected(listener.address) as first:
        first.sendall(b"a:1|c\n")
        heard.wait(lines=1)
        with pytest.raises(ConnectionResetError):
            confirmed_at_once(listener)
        assert confirmed(first)
    with connected(listener.address) as third:
        third.sendall(b"c:1|c\n")
        assert confirmed(third)
    assert heard.lines == [b"a:1|c", b"c:1|c"]
    assert listener.counts() == {"connections": 2, "connections_refused": 1}


def test_the_connection_that_is_silent_for_longest_goes_for_a_new_one(listen, heard):
    """What it sent is kept, and it is reset; those that are at work stay."""
    clock = ManualClock()
    listener = listen(heard, connections=2, clock=clock)
    with connected(listener.address) as first, connected(listener.address) as second:
        first.sendall(b"a:1|c\nhalf")
        heard.wait(lines=1)
        second.sendall(b"b:1|c\n")
        heard.wait(lines=2)
        clock.advance(1.0)
        first.sendall(b":1|c\n")  # the first is not the silent one any more
        heard.wait(lines=3)
        with connected(listener.address) as third:
            third.sendall(b"c:1|c\n")
            assert confirmed(third)
        with pytest.raises(ConnectionResetError):
            second.recv(1)
        assert confirmed(first)
    assert heard.lines == [b"a:1|c", b"b:1|c", b"half:1|c", b"c:1|c"]
    assert listener.counts() == {"connections": 3, "connections_evicted": 1}


def test_what_an_evicted_connection_had_sent_is_read(heard):
    """Also what came in the same moment as the connection that takes its place."""
    clock = ManualClock()
    listener = TcpListener("127.0.0.1", 0, heard, connections=1, clock=clock)
    listener.bind()
    with selectors.DefaultSelector() as selector, connected(listener.address) as first, connected(listener.address):
        selector.register(listener._socket, selectors.EVENT_READ)
        listener._accept(listener._socket, selector)
        assert listener.connections == 1
        assert listener.counts() == {"connections": 1, "connections_refused": 1}
        first.sendall(b"a:1|c\nhalf")
        clock.advance(1.0)
        with connected(listener.address):
            listener._accept(listener._socket, selector)
        listener.stop(0)
        for connection in listener._connections.values():
            connection.socket.close()
    assert heard.lines == [b"a:1|c"]
    assert heard.dropped == {"cut_off": 1}
    assert listener.counts() == {"connections": 2, "connections_refused": 1, "connections_evicted": 1}


def test_so_many_are_accepted_at_once_and_no_more(heard):
    """In a storm of connects the open connections are still read."""
    listener = TcpListener("127.0.0.1", 0, heard)
    listener.bind()
    with selectors.DefaultSelector() as selector:
        selector.register(listener._socket, selectors.EVENT_READ)
        storm = [connected(listener.address) for _ in range(ACCEPTS + 1)]
        assert listener._accept(listener._socket, selector)
        assert listener.connections == ACCEPTS
        assert not listener._accept(listener._socket, selector)
        assert listener.connections == ACCEPTS + 1
        listener.stop(0)
        for connection in (*storm, *(accepted.socket for accepted in listener._connections.values())):
            connection.close()


@pytest.mark.parametrize(
    ("talking", "accepted"), [(0, ACCEPTS), (1, ACCEPTS_BESIDE), (ACCEPTS_BESIDE + 3, ACCEPTS_BESIDE + 3)]
)
def test_fewer_are_accepted_beside_connections_that_talk(heard, talking, accepted):
    """To accept takes longer than to read, so a storm of connects would keep the others waiting."""
    listener = TcpListener("127.0.0.1", 0, heard)
    listener.bind()
    with selectors.DefaultSelector() as selector:
        selector.register(listener._socket, selectors.EVENT_READ)
        open_ = [connected(listener.address) for _ in range(ACCEPTS_BESIDE + 3)]
        while listener.connections < len(open_):
            listener._serve(listener._socket, selector, 10)
        for sock in open_[:talking]:
            sock.sendall(b"a:1|c\n")
        storm = [connected(listener.address) for _ in range(ACCEPTS + 1)]
        listener._serve(listener._socket, selector, 10)
        assert listener.connections == len(open_) + accepted
        assert len(heard.lines) == talking
        listener.stop(0)
        for connection in (*open_, *storm, *(each.socket for each in listener._connections.values())):
            connection.close()


@pytest.mark.parametrize("given", [False, True])
def test_dead_peers_are_found_out(heard, given):
    """Also on a socket that was handed in, whose options are somebody else's."""
    listener = TcpListener("127.0.0.1", 0, heard)
    handed_in = socket.create_server(("127.0.0.1", 0)) if given else None
    listener.bind(handed_in)
    listener.start()
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\n")
        heard.wait(lines=1)
        (connection,) = listener._connections.values()
        assert connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert listener.stop(1.0)


BODY = b"evil:31337|c\r\n"


@pytest.mark.parametrize(
    "first",
    [
        b"POST / HTTP/1.1\r\n",
        b"POST /" + b"x" * 10_000 + b" HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x80\x02]q\x00\n",
        b"a:1|c\x00\n",
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_another_protocol_is_reset_and_no_line_of_it_counts(listen, heard, first, apart):
    """However it is cut into chunks; lines, the first of which is unusual but text, are taken."""
    listener = listen(heard)

    def post(sock):
        sock.sendall(first[:2] if apart else first + BODY)
        if apart:
            eventually(lambda: listener.connections == 1 or "foreign_protocol" in listener.counts())
            sock.sendall(first[2:] + BODY)
        return confirmed(sock)

    with connected(listener.address) as sock, pytest.raises(OSError, match=r"reset|not connected|Broken pipe"):
        post(sock)
    assert listener.counts() == {"connections": 1, "foreign_protocol": 1}
    with connected(listener.address) as sock:
        sock.sendall(b"GET /x:1|c\r\nb\t:1|c\r\nPOST / HTTP/1.1\n\x01")
        assert confirmed(sock)
    assert heard.lines == [b"GET /x:1|c\r", b"b\t:1|c\r", b"POST / HTTP/1.1", b"\x01"]
    assert not heard.dropped


def test_a_reset_cuts_the_last_line(listen, heard):
    """Of a connection that was not ended properly, half a line is dropped and counted."""
    listener = listen(heard)
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\nb:12")
        heard.wait(lines=1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    heard.wait(dropped=1)
    assert heard.lines == [b"a:1|c"]
    assert heard.dropped == {"cut_off": 1}
    assert listener.counts() == {"connections": 1, "connection_errors": 1}


def test_stop_hands_over_what_the_kernel_holds(heard):
    """Connections not accepted yet are read; those that their peers have ended are confirmed, the others reset."""
    listener = TcpListener("127.0.0.1", 0, heard)
    listener.bind()
    with connected(listener.address) as ended, connected(listener.address) as open_:
        ended.sendall(b"a:1|c\n" * 10_000)
        ended.shutdown(socket.SHUT_WR)
        open_.sendall(b"b:1|c\nc:12")
        listener.start()
        assert listener.stop(5.0)
        assert ended.recv(1) == b""
        with pytest.raises(ConnectionResetError):
            open_.recv(1)
    assert sorted(heard.lines) == [b"a:1|c"] * 10_000 + [b"b:1|c"]
    assert heard.dropped == {"cut_off": 1}
    assert heard.events[-1] == "flush"


def test_stop_waits_for_nobody(listen, heard):
    """A sender that does not end is cut off, and hears of it."""
    listener = listen(heard)
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\n")
        heard.wait(lines=1)
        assert listener.stop(0.0)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_after_stop_nobody_listens(listen, heard):
    """A stopped listener has given its port back."""
    listener = listen(heard)
    assert listener.stop(1.0)
    with pytest.raises(ConnectionRefusedError):
        connected(listener.address)


def test_stop_without_start_gives_the_address_back(heard):
    """A daemon that fails half-way through its sockets closes those it has."""
    listener = TcpListener("127.0.0.1", 0, heard)
    listener.bind()
    again = TcpListener("127.0.0.1", int(listener.address.rpartition(":")[2]), heard)
    with pytest.raises(OSError, match="in use"):
        again.bind()
    assert listener.stop(1.0)
    again.bind()
    assert again.stop(1.0)


def test_a_broken_sink_ends_nothing(listen, caplog):
    """What it raises is counted and logged once, and reading goes on."""
    broken = Broken()
    listener = listen(broken)
    for _ in range(2):
        with connected(listener.address) as sock:
            sock.sendall(b"a:1|c\n")
            assert confirmed(sock)
    assert listener.counts() == {"connections": 2, "feed_error": 2}
    assert len(caplog.records) == 1


def test_want_of_descriptors_ends_nothing(heard, caplog, monkeypatch):
    """Accepting rests for a while, without turning in circles, and then goes on."""

    class Exhausted:
        """A listening socket that once finds no descriptor."""

        def __init__(self, sock):
            self.sock = sock
            self.failed = 0

        def accept(self):
            if not self.failed:
                self.failed += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

        def __getattr__(self, name):
            return getattr(self.sock, name)

    monkeypatch.setattr("forwarder.listeners.stream._REST", 0.01)
    listener = TcpListener("127.0.0.1", 0, heard)
    listener.bind()
    listener._socket = Exhausted(listener._socket)
    listener.start()
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\n")
        assert confirmed(sock)
    assert listener.stop(1.0)
    assert listener.counts() == {"accept_errors": 1, "connections": 1}
    assert heard.lines == [b"a:1|c"]


def test_statsd_lines_reach_the_registry(listen, registry, tick):
    """Listener, aggregator and registry together."""
    aggregator = Aggregator(registry)
    registry.add_source(aggregator)
    with connected(listen(aggregator).address) as sock:
        sock.sendall(b"a:1|c\na:2|c")
        assert confirmed(sock)
    assert tick().cumulative.counters == {"a": 3}


def test_graphite_points_are_passed_on_before_they_are_confirmed(listen):
    """The same server, another sink: when the connection is closed, the points are with whoever carries them."""
    points = []
    listener = listen(Relay(points.extend), scheme="graphite")
    assert listener.address.startswith("graphite://127.0.0.1:")
    with connected(listener.address) as sock:
        sock.sendall(b"a.b 1 5\nc.d 2 6")
        assert confirmed(sock)
    assert points == [("a.b", 1.0, 5), ("c.d", 2.0, 6)]


def test_graphite_points_wait_a_second_at_most(listen, heard):
    """On a connection that stays open, the sink is told to pass on what it holds, once a second."""
    with connected(listen(heard).address) as sock:
        sock.sendall(b"a.b 1 5\n")
        heard.wait(lines=1, flushed=1)
