"""Payloads are counted and cut where lines end."""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery import lines


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
    assert lines.count(payload) == count


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"_"))), st.integers(1, 60))
def test_pieces_are_whole_and_nothing_is_missing(rows: list[bytes], limit: int):
    """Joined they are the payload; each ends where a line does; only a single long line exceeds the limit."""
    payload = b"".join(row + b"\n" for row in rows)
    cut = list(lines.pieces(payload, b"\n", limit))
    assert b"".join(cut) == payload
    assert all(piece.endswith(b"\n") for piece in cut)
    assert all(len(piece) <= limit or piece.count(b"\n") == 1 for piece in cut)


def test_a_large_window_goes_in_batches_and_counts_as_one_window():
    """A server takes a batch within its time-out, however large the window; no line is cut."""
    payload = b"some.path 12345 1700000000\n" * 100_000
    batches = lines.batches(1_700_000_000, payload)
    assert len(batches) == 3
    assert sum(batch.points for batch in batches) == 100_000
    assert [batch.windows for batch in batches] == [0, 0, 1]
    assert b"".join(batch.payload for batch in batches) == payload


def test_datagrams_are_not_torn_between_batches():
    """A negative gauge is two lines of one datagram: they stay together."""
    payload = b"\n\n".join([b"g:0|g\ng:-5|g"] * 200_000)
    batches = lines.batches(0, payload, b"\n\n")
    assert len(batches) > 1
    assert b"\n\n".join(batch.payload for batch in batches) == payload
    assert sum(batch.points for batch in batches) == 400_000


def test_nothing_makes_no_batch():
    """An idle window costs no connection."""
    assert lines.batches(0, b"") == []


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"_"))), st.integers(1, 30), st.booleans())
def test_lines_over_the_limit_are_taken_out(rows: list[bytes], limit: int, terminated: bool):
    """Those and no others, wherever they stand; the last line may lack its line feed."""
    payload = b"\n".join(rows) + (b"\n" if terminated and rows else b"")
    kept, lost = lines.LineLimit("d", limit).take_out(payload)
    whole = re.findall(rb"[^\n]*\n|[^\n]+", payload)
    assert kept == b"".join(line for line in whole if len(line.rstrip(b"\n")) <= limit)
    assert lost.get("too_long", 0) == sum(len(line.rstrip(b"\n")) > limit for line in whole)


def test_the_first_long_line_is_logged(caplog: pytest.LogCaptureFixture):
    """With where it was to go, its length, its beginning, and the option that sets the limit."""
    limit = lines.LineLimit("graphite://host:2003", 100)
    with caplog.at_level(logging.WARNING, "metricslib"):
        for _ in range(2):
            assert limit.take_out(b"a" * 101 + b"\nb 1 2\n" + b"c" * 200)[1] == {"too_long": 2}
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("graphite://host:2003: a line of 101 bytes is longer than max_line=100 ")
    assert "a" * 80 + "..." in message
    assert len(message) < 250
