"""Graphite gets whole slots: as lines over TCP or UDP, or as pickle; a daemon adds figures of its own."""

import pickle
import struct
import threading

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.delivery.graphite import GraphiteStats
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from metricslib.wire import graphite
from metricslib.wire.pickle import FRAME
from tests.sockets import datagram_server

WHOLE = Window(1_700_000_000, 1_700_000_010, 10, counters={"a": 5, "idle": 0})
FRESH = Window(1_700_000_000, 1_700_000_010, 10, counters={"a": 1})
CUT = Flush(WHOLE, FRESH)
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
    assert open_destination("graphite://host", NAMING).encode(Flush(empty, empty)) == []


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
    with datagram_server() as server:
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


LINES = b"a.b 1 1700000000\nc;k=v 0.1 1700000010\n"


def read_frames(received: bytes) -> list:
    points = []
    while received:
        (length,) = struct.unpack("!I", received[:4])
        points += pickle.loads(received[4 : 4 + length])
        received = received[4 + length :]
    return points


def read_all(connection) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def test_pickle_carries_the_points_of_the_lines(peer):
    """In frames over one connection, whose end confirms."""
    one = peer(read_all)
    destination = open_destination(f"graphite+pickle://127.0.0.1:{one.port}", NAMING)
    assert destination.deliver(LINES, Deadline(20)) == {}
    destination.close()
    one.close()
    assert read_frames(one.received[0]) == [("a.b", (1700000000, 1.0)), ("c;k=v", (1700000010, 0.1))]


def test_what_no_frame_can_hold_is_counted(peer):
    """A line that is damaged, and a path longer than carbon would read; all others arrive."""
    one = peer(read_all)
    long = b"x" * FRAME + b" 1 1700000000\n"
    destination = open_destination(f"graphite+pickle://127.0.0.1:{one.port}", NAMING)
    assert destination.deliver(long + b"half\n" + LINES, Deadline(20)) == {"bad_line": 1, "too_long": 1}
    assert destination.deliver(long, Deadline(20)) == {"too_long": 1}
    one.close()
    assert [path for path, _ in read_frames(one.received[0])] == ["a.b", "c;k=v"]
    assert len(one.received) == 1


def test_lines_remain_when_frames_are_not_confirmed(peer, over: threading.Event):
    """What waits, and what the account counts, is lines."""
    one = peer(lambda _: over.wait(60))
    destination = open_destination(f"graphite+pickle://127.0.0.1:{one.port}", NAMING)
    with pytest.raises(Undelivered) as failure:
        destination.deliver(b"half\n" + LINES, Deadline(0.1))
    assert (failure.value.remaining, failure.value.lost) == (b"half\n" + LINES, {})
    assert isinstance(failure.value.__cause__, TimeoutError)


@pytest.mark.parametrize(("option", "longest"), [("", 16_384), ("?max_line=100", 100)])
def test_a_line_that_the_server_cannot_read_is_not_sent(peer, option: str, longest: int):
    """carbon would close the connection, and what stands behind it would be lost."""
    one = peer(read_all)
    destination = open_destination(f"graphite://127.0.0.1:{one.port}{option}", NAMING)
    fits, long = (b"x" * (length - 13) + b" 1 1700000000\n" for length in (longest, longest + 1))
    assert destination.deliver(long + LINES + long + fits, Deadline(20)) == {"too_long": 2}
    assert destination.deliver(long, Deadline(20)) == {"too_long": 1}
    one.close()
    assert one.received == [LINES + fits]


def test_while_the_server_is_away_long_lines_wait_with_the_others(refused_port: int):
    """A batch is counted once, when it is delivered."""
    destination = open_destination(f"graphite://127.0.0.1:{refused_port}?max_line=30", NAMING)
    payload = LINES + b"x" * 31 + b"\n"
    with pytest.raises(Undelivered) as failure:
        destination.deliver(payload, Deadline(20))
    assert (failure.value.remaining, failure.value.lost) == (payload, {})


def test_a_datagram_that_the_server_would_cut_is_not_sent():
    """carbon reads 8,192 bytes of one: what is left of a longer line may look like another point."""
    with datagram_server() as server:
        destination = open_destination(f"graphite+udp://127.0.0.1:{server.getsockname()[1]}", NAMING)
        fits, long = (b"x" * (length - 13) + b" 1 1700000000\n" for length in (8191, 8192))
        assert destination.deliver(LINES + long + fits, Deadline(20)) == {"too_long": 1}
        assert [server.recv(65536), server.recv(65536)] == [LINES, fits]
        assert destination.deliver(long, Deadline(20)) == {"too_long": 1}


def test_a_frame_is_as_long_as_the_url_says(peer):
    """For a carbon with another PICKLE_RECEIVER_MAX_LENGTH."""
    one = peer(read_all)
    destination = open_destination(f"graphite+pickle://127.0.0.1:{one.port}?max_frame=1000", NAMING)
    points = b"".join(b"%s.%03d 1 1700000000\n" % (b"x" * 200, number) for number in range(50))
    assert destination.deliver(points + b"x" * 1000 + b" 1 1700000000\n", Deadline(20)) == {"too_long": 1}
    one.close()
    received, lengths = one.received[0], []
    while received:
        lengths.append(struct.unpack("!I", received[:4])[0])
        received = received[4 + lengths[-1] :]
    assert len(read_frames(one.received[0])) == 50
    assert max(lengths) <= 1000


DAEMON = Naming(own="statsd")


def told(stats: GraphiteStats) -> dict[str, float]:
    return {path.rpartition(".")[2]: value for path, value in stats.pairs(DAEMON, 3, 0.0021, 0.0039)}


def test_they_stand_in_statsds_order():
    """Times are in whole milliseconds; before the first delivery, the last flush is the start."""
    assert list(GraphiteStats(ManualClock(1000.4)).pairs(DAEMON, 3, 0.0021, 0.0039)) == [
        ("stats.statsd.numStats", 3),
        ("stats.statsd.graphiteStats.calculationtime", 4),
        ("stats.statsd.processing_time", 2),
        ("stats.statsd.graphiteStats.last_exception", 0),
        ("stats.statsd.graphiteStats.last_flush", 1000),
        ("stats.statsd.graphiteStats.flush_time", 0),
        ("stats.statsd.graphiteStats.flush_length", 0),
    ]


def test_they_speak_of_the_deliveries_before():
    """All batches of the window before are counted together, and stay until there are newer ones."""
    clock = ManualClock(1000)
    stats = GraphiteStats(clock)
    clock.advance(10)
    stats.delivered(0.25, 1000)
    stats.delivered(0.5, 24)
    clock.advance(10)
    stats.failed()
    for _ in range(2):
        values = told(stats)
        assert (values["last_flush"], values["last_exception"]) == (1010, 1020)
        assert (values["flush_time"], values["flush_length"]) == (750, 1024)


def test_only_a_daemons_window_ends_with_them(refused_port: int):
    """They are of the destination whose payload they close."""
    window = Window(0, 10, 10, counters={"a": 5})
    flush = Flush(window, window)
    clock = ManualClock(1000)
    destination = open_destination(f"graphite://127.0.0.1:{refused_port}", DAEMON, clock=clock)
    (batch,) = destination.encode(flush)
    paths = [path for path, _, _ in graphite.decode(batch.payload)]
    assert paths[:3] == ["stats.counters.a.rate", "stats.counters.a.count", "stats.statsd.numStats"]
    with pytest.raises(Undelivered):
        destination.deliver(batch.payload, Deadline(5))
    (batch,) = destination.encode(flush)
    values = {path: value for path, value, _ in graphite.decode(batch.payload)}
    assert values["stats.statsd.graphiteStats.last_exception"] == 1000
    (batch,) = open_destination("graphite://host", Naming()).encode(flush)
    assert batch.points == 2
