"""Numbered batches: statsd lines from a program to a forwarder, each counted exactly once. No I/O.

The forwarder begins with a greeting. The sender writes batches, each after a header, and may request an early answer.
The forwarder answers with the number up to which all batches of the sender are safe::

    forwarder                          sender
    forwarder 1 10                                              protocol 1, an answer comes every 10 seconds
                                       8f1c0a92b7d3e645 1 23    sender, number, length in bytes
                                       web.hits:5|c
                                       depth:3|g
                                       sync
    ack 8f1c0a92b7d3e645 1

The numbers of a sender increase, with gaps after drops. An incomplete batch is ignored. A batch that exceeds the
reader's limit is returned without its lines, but with their number, so that later batches can still be read.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["LONGEST", "Acks", "Numbered", "Reader", "ack", "greeting", "new_batch", "sync"]

LONGEST = 1 << 18
"""Maximum number of bytes of a batch. Senders write shorter ones."""
_HEADER = re.compile(rb"([0-9A-Za-z_-]{1,64}) ([1-9][0-9]{0,17}) ([0-9]{1,15})")
_LONGEST_HEADER = 100
_GREETING = re.compile(rb"forwarder 1 ([0-9]{1,10})")
_ACK = re.compile(rb"ack ([0-9A-Za-z_-]{1,64}) ([0-9]{1,18})")
_SYNC = b"sync"


class Numbered(NamedTuple):
    """A batch of lines with its sender and number. ``too_long``: the number of lines of a batch that was too long."""

    sender: str
    number: int
    lines: bytes
    too_long: int = 0

    @property
    def framed(self) -> bytes:
        """The batch with its header."""
        return f"{self.sender} {self.number} {len(self.lines)}\n".encode() + self.lines


def new_batch(sender: str, number: int, lines: bytes) -> bytes:
    """Return ``lines`` with a header. ``sender`` has up to 64 letters, digits, ``-`` and ``_``."""
    return Numbered(sender, number, lines).framed


def sync() -> bytes:
    """Return the line that requests an answer soon."""
    return _SYNC + b"\n"


def greeting(interval: int) -> bytes:
    """Return the first line of the forwarder, with the seconds until data is expected to be safe."""
    return f"forwarder 1 {interval}\n".encode()


def ack(sender: str, number: int) -> bytes:
    """Return the acknowledgement of all batches of ``sender`` up to ``number``."""
    return f"ack {sender} {number}\n".encode()


class Reader:
    """Reads the stream of a sender, split into chunks anywhere. A batch of more than ``longest`` bytes is not kept.

    Invalid data ends it, because the start of the next batch is unknown.
    """

    __slots__ = ("_batch", "_head", "_lines", "_longest", "_missing", "broken", "syncs")

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._head = b""  # an incomplete header
        self._batch: Numbered | None = None  # the batch that is being read,
        self._lines = bytearray()  # and its lines so far
        self._missing = 0
        self.broken = False
        """True if the stream does not contain batches. Nothing more is read then."""
        self.syncs = 0
        """Number of requests for an answer."""

    @property
    def waiting(self) -> bool:
        """True if there is an incomplete batch."""
        return self._batch is not None or bool(self._head)

    def feed(self, chunk: bytes) -> list[Numbered]:
        """Return the batches that ``chunk`` completes."""
        whole: list[Numbered] = []
        at = 0
        while not self.broken and at < len(chunk):
            at = self._read_header(chunk, at) if self._batch is None else self._read_lines(chunk, at)
            if self._batch is not None and not self._missing:
                whole.append(self._batch._replace(lines=bytes(self._lines)))
                self._batch = None
                self._lines.clear()
        return whole

    def _read_header(self, chunk: bytes, at: int) -> int:
        end = chunk.find(b"\n", at, at + _LONGEST_HEADER)
        self._head += chunk[at:end] if end >= 0 else chunk[at : at + _LONGEST_HEADER]
        if end < 0 or len(self._head) > _LONGEST_HEADER:
            self.broken = len(self._head) >= _LONGEST_HEADER
            return len(chunk)
        header, self._head = self._head, b""
        if header == _SYNC:
            self.syncs += 1
        elif match := _HEADER.fullmatch(header):
            self._batch = Numbered(match[1].decode(), int(match[2]), b"")
            self._missing = int(match[3])
            if self._missing > self._longest:
                self._batch = self._batch._replace(too_long=1)
        else:
            self.broken = True
        return end + 1

    def _read_lines(self, chunk: bytes, at: int) -> int:
        assert self._batch is not None
        part = chunk[at : at + self._missing]
        self._missing -= len(part)
        if self._batch.too_long:
            # The last line feed does not begin another line.
            more = part.count(b"\n") - (not self._missing and part.endswith(b"\n"))
            self._batch = self._batch._replace(too_long=self._batch.too_long + more)
        else:
            self._lines += part
        return at + len(part)


class Acks:
    """Reads the answers to ``senders``, split into chunks anywhere."""

    __slots__ = ("_tail", "broken", "interval", "safe")

    def __init__(self, senders: Iterable[str]) -> None:
        self._tail = b""
        self.interval: int | None = None
        """Seconds until data is expected to be safe; None before the greeting."""
        self.safe = dict.fromkeys(senders, 0)
        """The last safe number of each sender."""
        self.broken = False
        """True if the peer is not a forwarder of this protocol."""

    def feed(self, chunk: bytes) -> None:
        """Process received data."""
        *lines, self._tail = (self._tail + chunk).split(b"\n")
        for line in lines:
            self._take(line)
        self.broken = self.broken or len(self._tail) > _LONGEST_HEADER

    def _take(self, line: bytes) -> None:
        if self.interval is None and (match := _GREETING.fullmatch(line)):
            self.interval = int(match[1])
        elif self.interval is not None and (match := _ACK.fullmatch(line)):
            sender, number = match[1].decode(), int(match[2])
            if number > self.safe.get(sender, number):
                self.safe[sender] = number
        else:
            self.broken = True
