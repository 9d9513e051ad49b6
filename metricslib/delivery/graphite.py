"""Graphite as a destination: complete slots, as lines, in pickle frames or in datagrams.

A slot keeps the last value, so sending again is harmless. A failed payload is tried again as a whole. Lines that the
receiver cannot read are not sent. The default limits are those of carbon 1.1.10:

============  ==========================================  =======================================================
TCP           a line of 16,384 bytes (Twisted's           above it, carbon closes the connection
              ``LineOnlyReceiver.MAX_LENGTH``)
UDP           a datagram of 8,192 bytes (Twisted's        above it, carbon reads the first 8,192 bytes
              ``maxPacketSize``)
pickle        a frame of 1,048,576 bytes                  above it, carbon closes the connection
              (``PICKLE_RECEIVER_MAX_LENGTH``)
============  ==========================================  =======================================================

carbon-c-relay 3.7.3 reads lines of up to 32,766 bytes, and resets the connection at a longer one.

The window of a daemon ends with the metrics that statsd sends about itself, in statsd's order. They describe this
destination only. All except ``numStats``, ``graphiteStats.calculationtime`` and ``processing_time`` describe earlier
flushes, because the result of this delivery is not known yet:

=================================  ==========================================================================
``numStats``                       number of series in the window
``graphiteStats.calculationtime``  milliseconds to encode the lines of the window
``processing_time``                milliseconds to compute the values of the window
``graphiteStats.last_exception``   time of the last failed delivery, in seconds since the epoch; 0: none
``graphiteStats.last_flush``       time of the last successful delivery; before the first, the time of the start
``graphiteStats.flush_time``       duration of the last window's deliveries, in milliseconds
``graphiteStats.flush_length``     number of bytes in them
=================================  ==========================================================================
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ..clock import SYSTEM_CLOCK, Clock
from ..naming import Naming
from ..window import Flush
from ..wire import graphite, pickle
from ..wire.graphite import Pairs
from .batch import Batch, Deadline, Undelivered, batches_of, count_lines, split_lines
from .destination import Destination, Options
from .transport import Datagrams, LineLimit, Stream

if TYPE_CHECKING:
    from .verify import Marker

__all__ = [
    "DATAGRAM_LINE",
    "Encoder",
    "GraphiteDestination",
    "GraphiteStats",
    "LINE",
    "LineDatagrams",
    "LineStream",
    "PickleStream",
]

LINE = 16_384
"""Maximum number of bytes of a line that carbon reads from a stream, without its line feed."""
DATAGRAM_LINE = 8_191
"""Maximum number of bytes of a line that carbon reads from a datagram, without its line feed."""
_DATAGRAM = 1432


class LineTransport(Protocol):
    """Sends lines to one Graphite."""

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Send all lines, and return the number of lost ones, by cause. After :class:`Undelivered`, all remain."""
        ...

    def close(self) -> None:
        """Close open sockets."""
        ...


class LineStream:
    """Plain lines over a stream. Delivered means that the peer read every byte. Lines over ``limit`` are lost."""

    def __init__(self, stream: Stream, limit: LineLimit) -> None:
        self._stream = stream
        self._limit = limit
        self.close = stream.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        kept, lost = self._limit.take_out(payload)
        if kept:
            self._stream.send(kept, deadline, again=True)
        return lost


class PickleStream:
    """Points in frames of pickle. Delivered means that the peer read every byte.

    A line is lost if it is not a point (``bad_line``), or if its path does not fit into a frame of ``max_frame`` bytes
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
        if frames := b"".join(pickle.encode_points(short, self._max_frame)):
            self._stream.send(frames, deadline, again=True)
        causes = {"bad_line": count_lines(payload) - len(points), "too_long": len(points) - len(short)}
        return {cause: count for cause, count in causes.items() if count}


class LineDatagrams:
    """Lines in datagrams that fit into an Ethernet frame, or contain a single line.

    Delivered means that the kernel has accepted them. Lines over ``limit`` are lost.
    """

    def __init__(self, datagrams: Datagrams, limit: LineLimit) -> None:
        self._datagrams = datagrams
        self._limit = limit
        self.close = datagrams.close

    def send(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        kept, lost = self._limit.take_out(payload)
        lost_by_network = self._datagrams.send(list(split_lines(kept, b"\n", _DATAGRAM)), deadline) if kept else {}
        return Counter(lost) + Counter(lost_by_network)


class GraphiteStats:
    """The state of one destination. One thread reports deliveries while another reads the values."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_flush = round(clock.time())
        self._last_exception = 0
        self._shown = (0.0, 0)
        self._fresh: deque[tuple[float, int]] = deque(maxlen=1000)

    def delivered(self, seconds: float, length: int) -> None:
        """Count a payload of ``length`` bytes that was delivered in ``seconds``."""
        self._last_flush = round(self._clock.time())
        self._fresh.append((seconds, length))

    def failed(self) -> None:
        """Count a failed delivery."""
        self._last_exception = round(self._clock.time())

    def pairs(self, naming: Naming, series: int, processing: float, calculation: float) -> Pairs:
        """Return paths and values for the end of a window with ``series`` series. Times are in seconds."""
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        if fresh:
            self._shown = sum(seconds for seconds, _ in fresh), sum(length for _, length in fresh)
        seconds, length = self._shown
        own = {
            "numStats": series,
            "graphiteStats.calculationtime": _milliseconds(calculation),
            "processing_time": _milliseconds(processing),
            "graphiteStats.last_exception": self._last_exception,
            "graphiteStats.last_flush": self._last_flush,
            "graphiteStats.flush_time": _milliseconds(seconds),
            "graphiteStats.flush_length": length,
        }
        return Pairs([naming.own_path(name) for name in own], [*own.values()])


class Encoder:
    """Encodes windows as lines for one Graphite. For a daemon (see ``naming``), it adds the metrics about itself."""

    def __init__(self, naming: Naming, clock: Clock) -> None:
        self.stats = GraphiteStats(clock)
        self._naming = naming
        self._clock = clock

    def encode(self, flush: Flush, split: Callable[[Pairs], Sequence[Pairs]]) -> list[bytes]:
        """Return the lines of each share. ``split`` divides the paths and values of the cumulative window."""
        window, stamp, clock = flush.cumulative, flush.cumulative.end, self._clock.monotonic
        began = clock()
        pairs = self._naming.pairs(window)
        computed = clock()
        payloads = [graphite.encode(share, stamp) for share in split(pairs)]
        if self._naming.own:
            stats = self.stats.pairs(self._naming, len(window), computed - began, clock() - computed)
            shares = split(stats)
            payloads = [text + graphite.encode(share, stamp) for text, share in zip(payloads, shares, strict=True)]
        return payloads


class GraphiteDestination(Destination):
    """Sends whole slots. A slot keeps the last value sent, so sending again is harmless."""

    def __init__(
        self,
        label: str,
        transport: LineTransport,
        naming: Naming,
        options: Options,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(label, options)
        self.encoder = Encoder(naming, clock)
        """The nodes of a cluster share one encoder."""
        self._clock = clock
        self._transport = transport
        self._marker = _marker(naming) if options.verify else None

    def encode(self, flush: Flush) -> list[Batch]:
        (payload,) = self.encoder.encode(flush, lambda pairs: [pairs])
        batches = batches_of(flush.cumulative.end, payload)
        return self._marker.add(batches) if self._marker else batches

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        began = self._clock.monotonic()
        try:
            lost = self._transport.send(payload, deadline)
        except Undelivered as failure:  # the whole payload is tried again, because a repetition is harmless
            self.encoder.stats.failed()
            raise Undelivered(failure.reason, payload) from failure.__cause__
        self.encoder.stats.delivered(self._clock.monotonic() - began, len(payload))
        return lost

    def close(self) -> None:
        self._transport.close()


def _marker(naming: Naming) -> "Marker":
    from .verify import Marker  # here, because it imports an HTTP client

    return Marker(naming)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
