"""Lines arrive as lines or as frames; all of a payload arrived, or all of it remains."""

import pickle
import socket
import struct
import threading

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.naming import Naming
from metricslib.wire.pickle import FRAME

NAMING = Naming()
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
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
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
