"""Sends a copy of all packets to other statsd servers. Each target has a bounded queue and a thread.

In: the data of listeners. Their threads only put it into the queues, so that they never wait. Out: datagrams over UDP,
or lines over TCP. Queue and sender are the same as for other destinations: a full queue drops its oldest data, and the
sender waits longer after each failure. A statsd server adds values up, so nothing is sent twice: if the outcome of a
transmission is unknown, the data is counted as lost.

A datagram is sent as one datagram, without empty lines. Data of a stream is sent in datagrams that fit into a frame.
Over TCP, the data of a tenth of a second is sent over a connection of its own, because the server closes the connection
to confirm that it has read everything.
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
"""Maximum number of bytes in the queue of a target. Above it the oldest are dropped, cause ``spool_full``."""
OLDEST = 60.0
"""Maximum age of waiting data in seconds. Older data is dropped, cause ``too_old``, because a server would count it in
the current interval."""
_LONGEST = 65_507  # the longest datagram over IPv4
_SPACING = 0.1  # seconds between two connections
_BURST_PAUSE = 0.25  # share of the usual pause of a destination between bursts, because packets arrive spread over time
_EMPTY_LINES = re.compile(rb"\n{2,}")


class Target(Destination):
    """A target server, as a destination of a sender."""

    deltas = True
    relays = False
    resend = False

    def __init__(self, url: str, *, pause: Callable[[float], object] = time.sleep) -> None:
        """``url`` is ``udp://HOST:PORT`` or ``tcp://HOST:PORT``. Raises ValueError for any other."""
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
            # If anything remains to be sent, it is the whole payload, with its separators.
            remaining = payload if failure.remaining else b""
            raise Undelivered(failure.reason, remaining, failure.lost) from failure.__cause__
        return {}

    def close(self) -> None:
        self._datagrams.close()
        if self._stream is not None:
            self._stream.close()


class Repeater:
    """Sends packets to ``urls``. :meth:`datagrams` and :meth:`blocks` may be called from any thread, and never wait for
    a server.
    """

    def __init__(self, urls: Sequence[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._senders = [_sender(Target(url), clock) for url in urls]

    def start(self) -> None:
        """Start sending."""
        for sender in self._senders:
            sender.start()

    def stop(self, timeout: float) -> bool:
        """Send waiting data for at most ``timeout`` seconds, and stop. Return True if nothing was dropped."""
        deadline = Deadline(timeout)
        for sender in self._senders:
            sender.hurry()
        stopped = [sender.stop(deadline.left()) for sender in self._senders]
        return all(stopped)

    def datagrams(self, packets: Sequence[bytes]) -> None:
        """Queue datagrams, each of which is sent as one."""
        self._offer(_packed(packets, _LONGEST))

    def blocks(self, blocks: Sequence[bytes]) -> None:
        """Queue blocks of complete lines from a stream, which are sent in datagrams of complete lines."""
        self._offer(_packed(blocks, DATAGRAM))

    def _offer(self, payload: bytes) -> None:
        if payload:
            batch = Batch(0, count_lines(payload), payload, windows=0)
            for sender in self._senders:
                sender.put(batch)

    def statuses(self) -> list[SenderStatus]:
        """Return the state of each target. Points are lines."""
        return [sender.status() for sender in self._senders]

    def self_metrics(self, prefix: str) -> SelfMetrics:
        """Return a source of the registry with the same figures as series ``PREFIX.repeater.…``."""
        return SelfMetrics(f"{prefix}.repeater", DropCounter(), DropCounter(), self.statuses)

    def section(self) -> Sequence[Mapping[str, object]]:
        """Return the rows of the page."""
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
    """Join packets of at most ``limit`` bytes, without their empty lines, by an empty line."""
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
