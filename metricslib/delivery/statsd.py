"""A statsd server, or a forwarder, as a destination: deltas over UDP, TCP or a Unix socket of either kind.

The server adds values up, so nothing is sent twice: a payload that may have arrived is counted as lost.
"""

import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ..naming import Naming
from ..window import Flush
from ..wire import statsd
from .batch import Batch, Deadline, Undelivered, batches_of
from .destination import Destination, Options
from .transport import Datagrams, Endpoint, LineLimit, Stream

__all__ = ["STATSD_LINE", "StatsdDestination"]

STATSD_LINE = 8192
"""Maximum number of bytes of a line that a forwarder reads from a stream, and of a datagram that other servers read."""
_UNIX_DATAGRAM = 8192


class StatsdDestination(Destination):
    """Sends the new values since the last flush, without idle series. Lines over ``limit`` are lost."""

    deltas = True
    shared = False
    relays = False
    resend = False

    def __init__(
        self, label: str, endpoint: Endpoint, naming: Naming, options: Options, limit: LineLimit, *, kind: int
    ) -> None:
        super().__init__(label, options)
        self._prefix = naming.prefix
        self._transport = Stream(endpoint) if kind == socket.SOCK_STREAM else Datagrams(endpoint)
        self._limit = limit
        self._datagram = _UNIX_DATAGRAM if endpoint.path else statsd.DATAGRAM

    def encode(self, flush: Flush) -> list[Batch]:
        payload, _ = statsd.encode(flush.delta, self._prefix, self._datagram)
        batches = batches_of(flush.delta.end, payload, statsd.SEPARATOR)
        if isinstance(self._transport, Datagrams):
            return batches
        return [replace(batch, payload=_stream(batch.payload)) for batch in batches]

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        too_long: Counter[str] = Counter()
        try:
            if isinstance(self._transport, Stream):
                kept, lost = self._limit.take_out(payload)
                too_long.update(lost)
                if kept:
                    self._transport.send(kept, deadline, again=False)
                return too_long
            datagrams = []
            for datagram in payload.split(statsd.SEPARATOR):
                kept, lost = self._limit.take_out(datagram)
                too_long.update(lost)
                if kept:
                    datagrams.append(kept.removesuffix(b"\n"))
            return too_long + Counter(self._transport.send(datagrams, deadline) if datagrams else {})
        except Undelivered as failure:  # count the long lines now, because the remaining payload does not include them
            lost = too_long + Counter(failure.lost)
            raise Undelivered(failure.reason, failure.remaining, lost) from failure.__cause__

    def close(self) -> None:
        self._transport.close()


def _stream(payload: bytes) -> bytes:
    """Return the lines of datagrams for a stream, each with a line feed."""
    return payload.replace(statsd.SEPARATOR, b"\n") + b"\n"
