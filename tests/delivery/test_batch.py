"""Payloads are counted, and split where lines end; a deadline runs out, and can be brought forward."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery.batch import Deadline, batches_of, count_lines, split_lines


def test_a_deadline_runs_out_and_is_never_negative():
    """Seconds left fall to 0 and stay there."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    assert deadline.left() == 5
    now[0] += 4
    assert deadline.left() == 1
    now[0] += 4
    assert deadline.left() == 0


def test_a_deadline_is_brought_forward_but_never_put_off():
    """By stop(), which shortens an attempt and gives it no more time."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    deadline.cut(2)
    assert deadline.left() == 2
    deadline.cut(60)
    assert deadline.left() == 2


def test_a_deadline_is_extended_by_what_it_is_for_alone():
    """An attempt may extend it, but not beyond where it was cut from outside."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    deadline.extend(20)
    assert deadline.left() == 20
    deadline.cut(10)
    deadline.extend(20)
    assert deadline.left() == 10
    deadline.extend(1)
    assert deadline.left() == 1


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (b"", 0),
        (b"a 1 2\n", 1),
        (b"a 1 2\nb 1 2\n", 2),
        (b"a:1|c", 1),
        (b"a:1|c\nb:1|c\n\nc:1|c", 3),
        (b"a:1|c\n\nb:1|c\n\nc:1|c", 3),
    ],
)
def test_lines_are_counted(payload: bytes, count: int):
    """Lines of Graphite and of statsd; the empty ones between datagrams are none."""
    assert count_lines(payload) == count


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"_"))), st.integers(1, 60))
def test_pieces_are_whole_and_nothing_is_missing(rows: list[bytes], limit: int):
    """Joined they are the payload; each ends where a line does; only a single long line exceeds the limit."""
    payload = b"".join(row + b"\n" for row in rows)
    flush = list(split_lines(payload, b"\n", limit))
    assert b"".join(flush) == payload
    assert all(piece.endswith(b"\n") for piece in flush)
    assert all(len(piece) <= limit or piece.count(b"\n") == 1 for piece in flush)


def test_a_large_window_goes_in_batches_and_counts_as_one_window():
    """A server takes a batch within its time-out, however large the window; no line is cut."""
    payload = b"some.path 12345 1700000000\n" * 100_000
    batches = batches_of(1_700_000_000, payload)
    assert len(batches) == 3
    assert sum(batch.points for batch in batches) == 100_000
    assert [batch.windows for batch in batches] == [0, 0, 1]
    assert b"".join(batch.payload for batch in batches) == payload


def test_datagrams_are_not_torn_between_batches():
    """A negative gauge is two lines of one datagram: they stay together."""
    payload = b"\n\n".join([b"g:0|g\ng:-5|g"] * 200_000)
    batches = batches_of(0, payload, b"\n\n")
    assert len(batches) > 1
    assert b"\n\n".join(batch.payload for batch in batches) == payload
    assert sum(batch.points for batch in batches) == 400_000


def test_nothing_makes_no_batch():
    """An idle window costs no connection."""
    assert batches_of(0, b"") == []
