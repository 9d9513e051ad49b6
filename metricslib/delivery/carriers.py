"""How Graphite's lines travel: as they are over a stream, as frames of pickle over one, or in datagrams.

In: a payload of lines. All of it arrived, or all of it remains, for what is sent twice does no harm.
"""

from collections.abc import Mapping
from typing import Protocol

from ..wire import graphite, pickle
from . import lines
from .deadline import Deadline
from .destination import Undelivered
from .transport import Datagrams, Stream

__all__ = ["Carrier", "LineDatagrams", "LineStream", "PickleStream"]

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
    """Lines as they are. Delivered means that the peer read every byte."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.close = stream.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        self._stream.send(payload, deadline, again=True)
        return {}


class PickleStream:
    """Points in frames of pickle. Delivered means that the peer read every byte.

    Lost are lines that are no points (``bad_line``) or whose path no frame could hold (``too_long``).
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.close = stream.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        points = list(graphite.decode(payload))
        short = [point for point in points if pickle.size(point[0]) <= pickle.FRAME]
        frames = b"".join(pickle.encode_points(short))
        try:
            if frames:
                self._stream.send(frames, deadline, again=True)
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__
        causes = {"bad_line": lines.count(payload) - len(points), "too_long": len(points) - len(short)}
        return {cause: count for cause, count in causes.items() if count}


class LineDatagrams:
    """Lines in datagrams that fit a frame of Ethernet. Delivered means that the kernel took them."""

    def __init__(self, datagrams: Datagrams) -> None:
        self._datagrams = datagrams
        self.close = datagrams.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        try:
            return self._datagrams.send(list(lines.pieces(payload, b"\n", _DATAGRAM)), deadline)
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__
