"""Lines arrive as lines or as frames; all of a payload arrived, or all of it remains."""

import pickle
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
