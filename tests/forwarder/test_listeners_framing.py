"""Whole lines out of a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listeners.framing import LONGEST, Lines

BOUND = 5


def read(chunks, longest=BOUND):
    """Return the lines of a stream, its unfinished last one, and how many were too long."""
    lines = Lines(longest)
    blocks, dropped = [], 0
    for chunk in chunks:
        block, too_long = lines.feed(chunk)
        assert not block or block.endswith(b"\n")
        blocks.append(block)
        dropped += too_long
    return b"".join(blocks).split(b"\n")[:-1], lines.close(), dropped


CASES = [
    (b"", [], b"", 0),
    (b"a\nb\n", [b"a", b"b"], b"", 0),
    (b"a\nb", [b"a"], b"b", 0),
    (b"\n\n", [b"", b""], b"", 0),
    (b"12345\n", [b"12345"], b"", 0),
    (b"12345", [], b"12345", 0),
    (b"123456\n", [], b"", 1),
    (b"123456", [], b"", 1),
    (b"a\n123456\nb\n", [b"a", b"b"], b"", 1),
    (b"1234567890123456789\nb", [], b"b", 1),
    (b"123456\n123456\n123456", [], b"", 3),
    (b"1\n2\n3\n4\n5\n6\n1234567\n8\n", [b"1", b"2", b"3", b"4", b"5", b"6", b"8"], b"", 1),
]


@pytest.mark.parametrize(("stream", "lines", "tail", "dropped"), CASES)
def test_whole(stream, lines, tail, dropped):
    """Lines up to the bound come out; each longer one is dropped once, and reading goes on behind it."""
    assert read([stream]) == (lines, tail, dropped)


@pytest.mark.parametrize(("stream", "lines", "tail", "dropped"), CASES)
def test_byte_by_byte(stream, lines, tail, dropped):
    """The same, from chunks of one byte."""
    assert read([stream[i : i + 1] for i in range(len(stream))]) == (lines, tail, dropped)


@given(st.lists(st.text("a\n", max_size=20).map(str.encode)))
def test_chunks_change_nothing(chunks):
    """However a stream is cut, its lines are the same."""
    assert read(chunks) == read([b"".join(chunks)])


def test_the_tail_is_bounded():
    """A line without an end takes no memory."""
    lines = Lines()
    for _ in range(1000):
        lines.feed(b"x" * 1000)
        assert len(lines._tail) <= LONGEST
