"""How Graphite's lines travel: as they are over a stream, as frames of pickle over one, or in datagrams.

In: a payload of lines. Either it arrives, less the lines that no such receiver can read, or all of it remains: writing
a point twice is harmless. What the receivers of carbon 1.1.10 can read is the default:

============  ==========================================  =======================================================
TCP           a line of 16,384 bytes (Twisted's           beyond, it closes the connection
              ``LineOnlyReceiver.MAX_LENGTH``)
UDP           a datagram of 8,192 bytes (Twisted's        beyond, it reads the first 8,192
              ``maxPacketSize``)
pickle        a frame of 1,048,576 bytes                  beyond, it closes the connection
              (``PICKLE_RECEIVER_MAX_LENGTH``)
============  ==========================================  =======================================================

carbon-c-relay 3.7.3 reads lines of 32,766 bytes and resets the connection at a longer one.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from ..wire import graphite, pickle
from . import lines
from .batch import Deadline, Undelivered
from .lines import LineLimit
from .transport import Datagrams, Stream

__all__ = ["DATAGRAM_LINE", "LINE", "Carrier", "LineDatagrams", "LineStream", "PickleStream"]

LINE = 16_384
"""Bytes of the longest line that carbon reads from a stream, without its line feed,"""
DATAGRAM_LINE = 8_191
"""and of one that it reads from a datagram, which has a line feed, too."""
_DATAGRAM = 1432


class Carrier(Protocol):
    """Brings lines to one place."""

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Bring all, and return how many lines were lost on the way, by cause; raises :class:`Undelivered`."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class LineStream:
    """Lines as they are. Delivered means that the peer read every byte. Lost are lines over ``limit``."""

    def __init__(self, stream: Stream, limit: LineLimit) -> None:
        self._stream = stream
        self._limit = limit
        self.close = stream.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        kept, lost = self._limit.take_out(payload)
        try:
            if kept:
                self._stream.send(kept, deadline, again=True)
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__
        return lost


class PickleStream:
    """Points in frames of pickle. Delivered means that the peer read every byte.

    Lost are lines that are no points (``bad_line``) or whose path no frame of ``max_frame`` bytes could hold
    (``too_long``).
    """

    def __init__(self, stream: Stream, label: str, max_frame: int = pickle.FRAME) -> None:
        self._stream = stream
        self._max_frame = max_frame
        self._limit = LineLimit(label, max_frame, "max_frame")
        self.close = stream.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        points = list(graphite.decode(payload))
        short = []
        for point in points:
            if pickle.size(point[0]) <= self._max_frame:
                short.append(point)
            else:
                self._limit.report(graphite.encode_points([point]))
        frames = b"".join(pickle.encode_points(short, self._max_frame))
        try:
            if frames:
                self._stream.send(frames, deadline, again=True)
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__
        causes = {"bad_line": lines.count(payload) - len(points), "too_long": len(points) - len(short)}
        return {cause: count for cause, count in causes.items() if count}


class LineDatagrams:
    """Lines in datagrams that fit a frame of Ethernet, or hold one line. Delivered means that the kernel took them.

    Lost are lines over ``limit``.
    """

    def __init__(self, datagrams: Datagrams, limit: LineLimit) -> None:
        self._datagrams = datagrams
        self._limit = limit
        self.close = datagrams.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        kept, lost = self._limit.take_out(payload)
        try:
            lost_by_network = self._datagrams.send(list(lines.pieces(kept, b"\n", _DATAGRAM)), deadline) if kept else {}
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__
        return Counter(lost) + Counter(lost_by_network)
