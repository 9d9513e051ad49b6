"""Packets are passed on whole and once, to each target by itself, and nobody who offers them ever waits."""

import contextlib
import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import repeater as module
from forwarder.repeater import Repeater, Target, _packed
from metricslib.delivery import Deadline, Undelivered
from metricslib.testing import ManualClock
from tests.peers import eventually, free_port
from tests.sockets import datagram_server


class UdpPeer:
    """Remembers datagrams."""

    def __init__(self, port=0):
        self._open = contextlib.ExitStack()
        self.sock = self._open.enter_context(datagram_server(port=port))
        self.url = f"udp://127.0.0.1:{self.sock.getsockname()[1]}"

    def hear(self, count):
        return [self.sock.recv(65536) for _ in range(count)]

    def close(self):
        self._open.close()


class TcpPeer:
    """Follows a script on each connection: read to the end by default."""

    def __init__(self, script=None, port=0):
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.received = []
        self.script = script or self.read
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                self.script(connection)

    def read(self, connection):
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        self.received.append(received)

    def hang(self, connection):
        self.over.wait(60)

    def reset(self, connection):
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self):
        self.over.set()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(10)


@pytest.fixture
def peers():
    """Call with a class of peers and its arguments for one that ends with the test."""
    started = []

    def start(kind, *arguments, **options):
        started.append(kind(*arguments, **options))
        return started[-1]

    yield start
    for peer in started:
        peer.close()


@contextmanager
def running(*urls):
    repeater = Repeater(urls)
    repeater.start()
    try:
        yield repeater
    finally:
        repeater.stop(0)


def status_of(repeater):
    (status,) = repeater.statuses()
    return status


# -- what is sent


def test_each_datagram_is_one_datagram(peers):
    """As it came, but for empty lines."""
    peer = peers(UdpPeer)
    with running(peer.url) as repeater:
        repeater.datagrams([b"a:1|c", b"b:1|c\nc:1|c\n", b"\n\nd:1|c\n\n\ne:\xff|s\n", b"\n", b""])
        assert peer.hear(3) == [b"a:1|c", b"b:1|c\nc:1|c", b"d:1|c\ne:\xff|s"]
        eventually(lambda: status_of(repeater).points_sent == 5)


def test_a_stream_is_cut_into_datagrams_of_whole_lines(peers):
    """None larger than what fits a frame; a line that is longer stands alone."""
    peer = peers(UdpPeer)
    lines = [b"key%d:1|c" % number for number in range(1000)] + [b"x" * 2000 + b":1|c"]
    with running(peer.url) as repeater:
        repeater.blocks([b"\n".join(lines) + b"\n"])
        heard = peer.hear(1)
        while sum(datagram.count(b"\n") + 1 for datagram in heard) < 1001:
            heard += peer.hear(1)
    assert b"\n".join(heard).split(b"\n") == lines
    assert [len(datagram) for datagram in heard if len(datagram) > 1432] == [2004]


def test_over_tcp_every_line_has_its_end(peers):
    """For statsd loses a last line that has none."""
    peer = peers(TcpPeer)
    with running(peer.url) as repeater:
        repeater.datagrams([b"a:1|c\nb:1|c", b"c:1|c\n"])
        repeater.blocks([b"d:1|c\n"])
        eventually(lambda: status_of(repeater).points_sent == 4)
    assert b"".join(peer.received) == b"a:1|c\nb:1|c\nc:1|c\nd:1|c\n"


def test_every_target_gets_everything(peers):
    """Whatever the others do: one that hangs, one that is away."""
    udp, tcp, hanging = peers(UdpPeer), peers(TcpPeer), peers(TcpPeer)
    hanging.script = hanging.hang
    away = f"tcp://127.0.0.1:{free_port()}"
    with running(hanging.url, away, udp.url, tcp.url) as repeater:
        for number in range(100):
            repeater.datagrams([b"a:%d|c" % number])
        assert udp.hear(100) == [b"a:%d|c" % number for number in range(100)]
        eventually(lambda: repeater.statuses()[3].points_sent == 100)
        assert b"".join(tcp.received).split() == [b"a:%d|c" % number for number in range(100)]


def test_one_connection_carries_what_has_gathered(peers):
    """A thousand packets do not make a thousand connections."""
    peer = peers(TcpPeer)
    with running(peer.url) as repeater:
        for number in range(1000):
            repeater.datagrams([b"a:%d|c" % number])
        eventually(lambda: status_of(repeater).points_sent == 1000)
    assert len(peer.received) < 20


def test_connections_are_spaced(peers):
    """The next one waits for the rest of a tenth of a second, or for as long as there is."""
    peer = peers(TcpPeer)
    pauses = []
    target = Target(peer.url, pause=pauses.append)
    for _ in range(2):
        target.deliver(b"a:1|c", Deadline(5))
    with pytest.raises(Undelivered):
        target.deliver(b"a:1|c", Deadline(0))
    assert pauses[0] == pauses[2] == 0
    assert 0 < pauses[1] <= module._SPACING


LINES = st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=10)


@given(st.lists(LINES), st.integers(1, 100))
def test_packets_keep_their_lines(packets, limit):
    """All lines that are not empty, in order; packets within the limit as one, no packet over it but a single line."""
    chunks = [b"\n".join(lines) for lines in packets]
    payload = _packed(chunks, limit)
    packed = payload.split(b"\n\n") if payload else []
    kept = [line for lines in packets for line in lines if line]
    assert [line for packet in packed for line in packet.split(b"\n")] == kept
    assert all(len(packet) <= limit or b"\n" not in packet for packet in packed)
    whole = [b"\n".join(filter(None, lines)) for lines in packets]
    assert all(packet in packed for packet in whole if packet and len(packet) <= limit)


# -- what goes wrong


def test_whoever_offers_never_waits(peers, monkeypatch):
    """A target that takes a connection and reads nothing costs a queue of bounded size; what is over is counted."""
    monkeypatch.setattr(module, "QUEUE", 100_000)
    peer = peers(TcpPeer)
    peer.script = peer.hang
    packets = [b"some.key:%d|c" % number for number in range(256)]
    with running(peer.url) as repeater:
        for _ in range(200):
            repeater.datagrams(packets)
        status = status_of(repeater)
        assert status.waiting_bytes <= 100_000
        assert status.dropped["spool_full"] + status.waiting_points + status.points_sent == 200 * 256


def test_what_may_have_arrived_is_not_sent_again(peers):
    """A connection that breaks off takes with it what was written: counted, and only what comes later is sent."""
    peer = peers(TcpPeer)
    peer.script = peer.reset
    with running(peer.url) as repeater:
        repeater.datagrams([b"lost:1|c\nlost:2|c"])
        eventually(lambda: status_of(repeater).dropped == {"unconfirmed": 2})
        peer.script = peer.read
        repeater.datagrams([b"kept:1|c"])
        eventually(lambda: status_of(repeater).points_sent == 1)
    assert b"".join(peer.received) == b"kept:1|c\n"


@pytest.mark.parametrize("kind", [TcpPeer, UdpPeer])
def test_what_did_not_go_out_waits(peers, kind):
    """While nobody listens, packets wait, and then arrive once and in order."""
    scheme = "tcp" if kind is TcpPeer else "udp"
    port = free_port(socket.SOCK_STREAM if kind is TcpPeer else socket.SOCK_DGRAM)
    with running(f"{scheme}://127.0.0.1:{port}") as repeater:
        repeater.datagrams([b"a:1|c"])
        eventually(lambda: status_of(repeater).errors > 0)
        assert "Connection refused" in status_of(repeater).last_error
        for number in range(2, 5):
            repeater.datagrams([b"a:%d|c" % number])
        peer = peers(kind, port=port)
        eventually(lambda: status_of(repeater).points_sent == 4)
        assert status_of(repeater).dropped == {}
        heard = b"".join(peer.received).split() if kind is TcpPeer else peer.hear(4)
    assert heard == [b"a:1|c", b"a:2|c", b"a:3|c", b"a:4|c"]


def test_what_waited_too_long_is_dropped():
    """A server would count it as of now."""
    clock = ManualClock()
    repeater = Repeater([f"tcp://127.0.0.1:{free_port()}"], clock=clock)
    repeater.datagrams([b"a:1|c"])
    clock.advance(61)
    repeater.datagrams([b"b:1|c\nc:1|c"])
    status = status_of(repeater)
    assert (status.dropped, status.waiting_points) == ({"too_old": 1}, 2)


def test_stop_sends_what_waits(peers):
    """And says whether all of it went out."""
    peer = peers(TcpPeer)
    repeater = Repeater([peer.url])
    repeater.start()
    repeater.datagrams([b"a:%d|c" % number for number in range(1000)])
    assert repeater.stop(10)
    assert len(b"".join(peer.received).split()) == 1000


def test_stop_ends_in_time(peers):
    """What cannot be sent by then is counted, and the targets that do read still get theirs."""
    hanging, tcp = peers(TcpPeer), peers(TcpPeer)
    hanging.script = hanging.hang
    repeater = Repeater([hanging.url, tcp.url])
    repeater.start()
    repeater.datagrams([b"a:1|c"])
    assert not repeater.stop(2)
    lost, sent = repeater.statuses()
    assert sum(lost.dropped.values()) == sent.points_sent == 1


# -- what is told


def test_own_metrics_tell_lines_by_target(peers):
    """Sent and dropped, as counters under the forwarder's own name."""
    peer = peers(TcpPeer)
    with running(peer.url) as repeater:
        repeater.datagrams([b"a:1|c\nb:1|c"])
        eventually(lambda: status_of(repeater).points_sent == 2)
        counters = repeater.self_metrics("statsd").collect().counters
    (key,) = [key for key in counters if key.startswith("statsd.repeater.points_sent;destination=tcp")]
    assert counters[key] == 2


def test_the_section_of_the_page(peers):
    """A row a target."""
    away = f"tcp://127.0.0.1:{free_port()}"
    with running(away) as repeater:
        repeater.datagrams([b"a:1|c"])
        eventually(lambda: status_of(repeater).errors > 0)
        (row,) = repeater.section()
    assert (row["Target"], row["State"], row["Lines sent"], row["Lines waiting"]) == (away, "down", 0, 1)
    assert "Connection refused" in row["Last error"]
