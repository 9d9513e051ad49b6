"""Batches of lines with the numbers that tell whether they were heard before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.wire.numbered import Acks, Numbered, Reader, ack, greeting, new_batch, sync

HITS = Numbered("8f1c0a92b7d3e645", 7, b"web.hits:5|c\ndepth:3|g\n")
SENDERS = st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
NUMBERS = st.integers(1, 10**18 - 1)
BATCHES = st.lists(st.builds(Numbered, SENDERS, NUMBERS, st.binary(max_size=40), st.just(0)), max_size=5)


def read(chunks: list[bytes], longest: int = 1 << 20) -> tuple[list[Numbered], bool]:
    reader = Reader(longest)
    return [batch for chunk in chunks for batch in reader.feed(chunk)], reader.broken


def byte_by_byte(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


def test_a_batch_is_its_lines_behind_their_header():
    """Sender, number, length in bytes: that is all."""
    assert new_batch(*HITS[:3]) == b"8f1c0a92b7d3e645 7 23\nweb.hits:5|c\ndepth:3|g\n"
    assert HITS.framed == new_batch(*HITS[:3])


@given(BATCHES, st.integers(1, 60))
def test_what_is_written_is_read_however_it_is_cut(batches, size):
    """Chunking never matters; lines are bytes, and may be anything."""
    stream = b"".join(batch.framed for batch in batches)
    flush = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert read([stream]) == read(flush) == read(byte_by_byte(stream)) == (batches, False)


@given(st.binary(max_size=300))
def test_hostile_bytes_read_the_same_however_they_are_cut(stream):
    """Nothing raises, and how they are cut changes nothing."""
    assert read([stream], 20) == read(byte_by_byte(stream), 20)


@pytest.mark.parametrize(
    "stream",
    [
        b"web.hits:5|c\n",
        b"\n",
        b"id 0 3\nabc",
        b"id 01 3\nabc",
        b"id -1 3\nabc",
        b"id 1 \xb2\nabc",
        b"id 1 1000000000000000\n",
        b"id 1\n",
        b"i/d 1 3\nabc",
        b"x" * 65 + b" 1 3\nabc",
        b"sync \n",
        b"SYNC\n",
        b"x" * 100,
        b"\0" * 5000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_header_ends_the_stream(stream):
    """Nobody could tell where the next batch begins, so nothing behind it is read; what came before it is."""
    for chunks in ([HITS.framed + stream + HITS.framed], byte_by_byte(HITS.framed + stream + HITS.framed)):
        assert read(chunks) == ([HITS], True)


def test_a_batch_that_is_too_long_comes_out_empty():
    """It keeps its number, so that it is not sent again and again, and says how many lines are lost."""
    stream = Numbered("a", 1, b"x:1|c\ny:1|c\n").framed + Numbered("a", 2, b"x:1|c\ny:1|c").framed + HITS.framed
    expected = [Numbered("a", 1, b"", 2), Numbered("a", 2, b"", 2), HITS._replace(lines=b"", too_long=2)]
    assert read([stream], 10) == read(byte_by_byte(stream), 10) == (expected, False)


def test_a_reader_knows_whether_a_batch_is_under_way():
    """What was cut off in a header or in lines is no batch."""
    reader = Reader()
    assert not reader.waiting
    for byte in byte_by_byte(HITS.framed)[:-1]:
        assert reader.feed(byte) == []
        assert reader.waiting
    assert reader.feed(b"\n") == [HITS]
    assert not reader.waiting


def test_an_answer_may_be_asked_for():
    """Between batches, as often as one likes."""
    reader = Reader()
    assert reader.feed(sync() + HITS.framed + sync()) == [HITS]
    assert reader.syncs == 2


@pytest.mark.parametrize("interval", [1, 10, 2**30])
def test_answers_are_read_however_they_are_cut(interval):
    """First the greeting, then up to which number each sender's batches are safe; the highest counts."""
    stream = greeting(interval) + ack("a", 5) + ack("a", 4) + ack("b", 1)
    for chunks in ([stream], byte_by_byte(stream)):
        acks = Acks(["a", "b", "c"])
        assert acks.interval is None
        for chunk in chunks:
            acks.feed(chunk)
        assert (acks.interval, acks.safe, acks.broken) == (interval, {"a": 5, "b": 1, "c": 0}, False)


def test_answers_of_others_are_not_remembered():
    """So however much is answered, no more is kept than was asked for."""
    acks = Acks(["a"])
    acks.feed(greeting(10) + ack("b", 1))
    assert acks.safe == {"a": 0}


@pytest.mark.parametrize(
    "stream", [b"ack a 1\n", b"220 mail.example ESMTP\r\n", greeting(1) + greeting(1), b"forwarder 2 10\n", b"x" * 1000]
)
def test_what_is_no_answer_is_seen(stream):
    """Whatever else answers at that address, such as a forwarder of another protocol, is not taken for one."""
    acks = Acks(["a"])
    acks.feed(stream)
    assert acks.broken
