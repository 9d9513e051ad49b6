"""Packets passed on as they came, to other statsd servers: each target has a queue within a bound and a thread.

In: what listeners hear, in the middle of hearing it; so here it is only put into the queues. Out: datagrams over UDP,
or lines over TCP. Queue and thread are those of any destination: a queue that drops its oldest when it is full, and a
sender that waits longer after each failure. A statsd server adds up what it is sent, so nothing is sent twice: what
may have arrived and is not known to have is lost, and counted.

A datagram goes out as one datagram, without empty lines; what came in a stream, in datagrams that fit a frame. Over TCP
there is a connection for what has gathered in a tenth of a second, since a server that has read all of it says so by
closing.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.delivery import Batch, Deadline, Destination, Options, Queue, Sender, SenderStatus, Undelivered
from metricslib.delivery.batch import count_lines, split_lines
from metricslib.delivery.transport import Datagrams, Endpoint, Stream
from metricslib.drops import DropCounter
from metricslib.self_metrics import SelfMetrics
from metricslib.window import Flush
from metricslib.wire.statsd import DATAGRAM, SEPARATOR

from .addresses import parse_target

__all__ = ["Repeater"]

QUEUE = 16 << 20
"""Bytes that may wait for a target; what is over drops the oldest, cause ``spool_full``."""
OLDEST = 60.0
"""Seconds after which what waits is dropped, cause ``too_old``: a server would count it as of now."""
_LONGEST = 65_507  # what a datagram can hold, over IPv4
_SPACING = 0.1  # seconds between two connections
_BURST_PAUSE = 0.25  # of what a destination pauses between bursts: packets come at a pace already
_EMPTY_LINES = re.compile(rb"\n{2,}")


class Target(Destination):
    """One server, as a sender sees a destination."""

    deltas = True
    relays = False
    resend = False

    def __init__(self, url: str, *, pause: Callable[[float], object] = time.sleep) -> None:
        """``url`` is ``udp://HOST:PORT`` or ``tcp://HOST:PORT``; raises ValueError for any other."""
        address = parse_target(url)
        endpoint = Endpoint(address.host, address.port)
        super().__init__(f"{address.scheme}://{endpoint}", Options(timeout=5.0, spool_bytes=QUEUE, max_age=OLDEST))
        self._pause = pause
        self._stream = Stream(endpoint) if address.scheme == "tcp" else None
        self._datagrams = Datagrams(endpoint, pause=lambda seconds: pause(seconds * _BURST_PAUSE))
        self._next = Deadline(0)

    def encode(self, flush: Flush) -> list[Batch]:
        """Return nothing: windows are not repeated."""
        return []

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        if self._stream is None:
            return self._datagrams.send(payload.split(SEPARATOR), deadline)
        self._pause(min(self._next.left(), deadline.left()))
        self._next = Deadline(_SPACING)
        try:
            self._stream.send(payload.replace(SEPARATOR, b"\n") + b"\n", deadline, again=False)
        except Undelivered as failure:
            # Where anything remains, it is all there was.
            remaining = payload if failure.remaining else b""
            raise Undelivered(failure.reason, remaining, failure.lost) from failure.__cause__
        return {}

    def close(self) -> None:
        self._datagrams.close()
        if self._stream is not None:
            self._stream.close()


class Repeater:
    """Passes packets on to ``urls``. :meth:`datagrams` and :meth:`blocks` may be called from any thread; they never
    wait for a server.
    """

    def __init__(self, urls: Sequence[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._senders = [_sender(Target(url), clock) for url in urls]

    def start(self) -> None:
        """Begin to send."""
        for sender in self._senders:
            sender.start()

    def stop(self, timeout: float) -> bool:
        """Send what waits, for at most ``timeout`` seconds, and end; return whether nothing was dropped by that."""
        deadline = Deadline(timeout)
        for sender in self._senders:
            sender.hurry()
        stopped = [sender.stop(deadline.left()) for sender in self._senders]
        return all(stopped)

    def datagrams(self, packets: Sequence[bytes]) -> None:
        """Pass datagrams on, each as one."""
        self._offer(_packed(packets, _LONGEST))

    def blocks(self, blocks: Sequence[bytes]) -> None:
        """Pass on blocks of whole lines, which came in a stream, in datagrams of whole lines."""
        self._offer(_packed(blocks, DATAGRAM))

    def _offer(self, payload: bytes) -> None:
        if payload:
            batch = Batch(0, count_lines(payload), payload, windows=0)
            for sender in self._senders:
                sender.put(batch)

    def statuses(self) -> list[SenderStatus]:
        """Return how sending goes, for each target. Points are lines."""
        return [sender.status() for sender in self._senders]

    def self_metrics(self, prefix: str) -> SelfMetrics:
        """Return a source of the registry that tells the same as series ``PREFIX.repeater.…``."""
        return SelfMetrics(f"{prefix}.repeater", DropCounter(), DropCounter(), self.statuses)

    def section(self) -> Sequence[Mapping[str, object]]:
        """Return what the page shows of it."""
        return [
            {
                "Target": status.label,
                "State": "up" if status.up else "down",
                "Lines sent": status.points_sent,
                "Lines waiting": status.waiting_points,
                "Lines dropped": status.dropped,
                "Errors": status.errors,
                "Last error": status.last_error,
            }
            for status in self.statuses()
        ]


def _sender(target: Target, clock: Clock) -> Sender:
    return Sender(target, Queue(QUEUE, OLDEST, join=SEPARATOR, label=target.label, clock=clock), clock=clock)


def _packed(packets: Sequence[bytes], limit: int) -> bytes:
    """Return packets of at most ``limit`` bytes, without empty lines, an empty line between them."""
    packed = []
    for packet in packets:
        packet = packet.strip(b"\n")
        if b"\n\n" in packet:
            packet = _EMPTY_LINES.sub(b"\n", packet)
        if len(packet) <= limit:
            packed.append(packet)
        else:
            packed += [piece.removesuffix(b"\n") for piece in split_lines(packet, b"\n", limit)]
    return SEPARATOR.join(filter(None, packed))
