"""Graphite gets whole slots as lines, over TCP or UDP."""

import socket
import threading

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.naming import Naming
from metricslib.window import Cut, Window
from metricslib.wire import graphite

WHOLE = Window(1_700_000_000, 1_700_000_010, 10, counters={"a": 5, "idle": 0})
FRESH = Window(1_700_000_000, 1_700_000_010, 10, counters={"a": 1})
CUT = Cut(WHOLE, FRESH)
NAMING = Naming(prefix="p")


def test_a_slot_is_sent_whole():
    """Not only what is new, for Graphite keeps the last value; idle series are in it."""
    (batch,) = open_destination("graphite://host", NAMING).encode(CUT)
    assert list(graphite.decode(batch.payload)) == [
        ("stats.counters.p.a.rate", 0.5, 1_700_000_010),
        ("stats.counters.p.a.count", 5, 1_700_000_010),
        ("stats.counters.p.idle.rate", 0, 1_700_000_010),
        ("stats.counters.p.idle.count", 0, 1_700_000_010),
    ]
    assert (batch.stamp, batch.points, batch.windows) == (1_700_000_010, 4, 1)


def test_a_window_with_nothing_in_it_sends_nothing():
    """No connection is made for it."""
    empty = Window(0, 10, 10)
    assert open_destination("graphite://host", NAMING).encode(Cut(empty, empty)) == []


def test_lines_arrive_over_tcp(peer):
    """And nothing is lost on the way."""

    def read_all(connection):
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received

    one = peer(read_all)
    destination = open_destination(f"graphite://127.0.0.1:{one.port}", NAMING)
    (batch,) = destination.encode(CUT)
    assert destination.deliver(batch.payload, Deadline(20)) == {}
    destination.close()
    one.close()
    assert one.received == [batch.payload]


def test_all_is_sent_again_when_it_is_not_confirmed(peer, over: threading.Event):
    """Twice is harmless: the slot keeps the last value."""
    destination = open_destination(f"graphite://127.0.0.1:{peer(lambda _: over.wait(60)).port}", NAMING)
    with pytest.raises(Undelivered) as failure:
        destination.deliver(b"a 1 10\n", Deadline(0.1))
    assert failure.value.remaining == b"a 1 10\n"


def test_datagrams_of_udp_hold_whole_lines():
    """Each fits a frame of Ethernet."""
    payload = b"".join(b"some.path.%d 1 1700000000\n" % number for number in range(300))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        destination = open_destination(f"graphite+udp://127.0.0.1:{server.getsockname()[1]}", NAMING)
        assert destination.deliver(payload, Deadline(20)) == {}
        received = []
        while sum(map(len, received)) < len(payload):
            received.append(server.recv(65536))
    assert b"".join(received) == payload
    assert all(len(datagram) <= 1432 and datagram.endswith(b"\n") for datagram in received)


def test_over_udp_a_refused_payload_remains_whole(refused_port: int):
    """As over TCP: it may be sent twice."""
    destination = open_destination(f"graphite+udp://127.0.0.1:{refused_port}", NAMING)
    payload = b"some.path 1 1700000000\n" * 1000
    with pytest.raises(Undelivered) as failure:
        destination.deliver(payload, Deadline(5))
    assert failure.value.remaining == payload
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)
