"""Lines, or packets of lines, out of a stream."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listeners.framing import LinesOrPackets

BOUND = 8


def packed(*packets):
    return b"".join(struct.pack("<I", len(packet)) + packet for packet in packets)


def read(chunks, longest=BOUND):
    """Return the lines of a stream, those that its end gives, and how many were too long."""
    lines = LinesOrPackets(longest)
    blocks, dropped = [], 0
    for chunk in chunks:
        block, too_long = lines.feed(chunk)
        assert not block or block.endswith(b"\n")
        blocks.append(block)
        dropped += too_long
    return [line for line in b"".join(blocks).split(b"\n") if line], lines.close(), dropped


CASES = [
    # lines, as they are
    (b"", [], b"", 0),
    (b"a:1|c\nb", [b"a:1|c"], b"b", 0),
    (b"a\n", [], b"a\n", 0),  # too short to be told before the end
    (b"a\nb\n", [b"a", b"b"], b"", 0),
    (b"123456789\nab\n", [b"ab"], b"", 1),
    # packets, whose end ends a line
    (packed(b"a:1|c"), [b"a:1|c"], b"", 0),
    (packed(b"a:1|c\nb:2|c\n", b"c:3|c"), [b"a:1|c", b"b:2|c", b"c:3|c"], b"", 0),
    (packed(b"", b"a", b"", b"b"), [b"a", b"b"], b"", 0),
    (packed(b"123456789\nab", b"123456789", b"c"), [b"ab", b"c"], b"", 2),
    (packed(*[b"a:1|c"] * 10, b"0123456789"), [b"a:1|c"] * 10, b"", 1),
    # cut off
    (packed(b"a:1|c", b"b:2|c")[:-2], [b"a:1|c"], b"b:2", 0),
    (packed(b"a:1|c") + b"\5\0", [b"a:1|c"], b"", 0),
    (packed(b"a\nbc")[:-1], [b"a"], b"b", 0),
]


@pytest.mark.parametrize(("stream", "lines", "tail", "dropped"), CASES)
def test_whole(stream, lines, tail, dropped):
    """A stream that begins with a length is one of packets, any other one of lines."""
    assert read([stream]) == (lines, tail, dropped)


@pytest.mark.parametrize(("stream", "lines", "tail", "dropped"), CASES)
def test_byte_by_byte(stream, lines, tail, dropped):
    """The same, from chunks of one byte."""
    assert read([stream[i : i + 1] for i in range(len(stream))]) == (lines, tail, dropped)


@pytest.mark.parametrize("length", [10, 58, 124, 256, 2570, 65535])
def test_lengths_that_are_text(length):
    """A length that reads as a line feed, a colon or a bar is still one, also one of many lines."""
    packet = (b"a:1|c\n" * (length // 6 + 1))[: length - 1] + b"x"
    lines, tail, dropped = read([packed(packet, b"b")], longest=length)
    assert b"".join(line + b"\n" for line in lines).startswith(packet)
    assert (lines[-1], tail, dropped) == (b"b", b"", 0)


@given(st.lists(st.text("a\n", max_size=20).map(str.encode)), st.lists(st.integers(0, 200)), st.booleans())
def test_chunks_change_nothing(packets, cuts, packing):
    """However a stream is cut, its lines are the same, and the same packed as plain."""
    plain = b"".join(packet + b"\n" for packet in packets)
    stream = packed(*packets) if packing else plain
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]
    lines, tail, dropped = read(chunks)
    assert (lines, tail, dropped) == read([stream])
    whole, rest, long = read([plain])
    assert lines + tail.split() == whole + rest.split()
    assert dropped == long


def test_the_tail_is_bounded():
    """A packet of absurd length, with a line without an end, takes no memory."""
    lines = LinesOrPackets()
    dropped = lines.feed(packed(b"a"))[1]
    for chunk in [b"\xff\xff\xff\xff", *[b"x" * 4096] * 100]:
        dropped += lines.feed(chunk)[1]
    assert dropped == 1
    assert lines.close() == b""
