"""A statsd server as a destination, such as a forwarder: deltas over UDP, TCP or a Unix socket of either kind.

It adds up what it is sent, so nothing is sent twice: a payload whose fate is unknown is counted as lost.
"""

import socket
from collections.abc import Mapping
from dataclasses import replace

from ..naming import Naming
from ..window import Cut
from ..wire import statsd
from . import lines
from .deadline import Deadline
from .destination import Options
from .spool import Batch
from .transport import Datagrams, Endpoint, Stream

__all__ = ["StatsdDestination"]

_UNIX_DATAGRAM = 8192


class StatsdDestination:
    """Sends what is new, and nothing idle, for the server to aggregate and name."""

    deltas = True
    relays = False
    resend = False
    revise = True

    def __init__(self, label: str, endpoint: Endpoint, naming: Naming, options: Options, *, kind: int) -> None:
        self.label = label
        self.options = options
        self._prefix = naming.prefix
        self._transport = Stream(endpoint) if kind == socket.SOCK_STREAM else Datagrams(endpoint)
        self._limit = _UNIX_DATAGRAM if endpoint.path else statsd.DATAGRAM

    def encode(self, cut: Cut) -> list[Batch]:
        payload, _ = statsd.encode(cut.fresh, self._prefix, self._limit)
        batches = lines.batches(cut.fresh.end, payload, statsd.SEPARATOR)
        if isinstance(self._transport, Datagrams):
            return batches
        return [replace(batch, payload=_stream(batch.payload)) for batch in batches]

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        if isinstance(self._transport, Datagrams):
            return self._transport.send(payload.split(statsd.SEPARATOR), deadline)
        self._transport.send(payload, deadline, again=False)
        return {}

    def close(self) -> None:
        self._transport.close()


def _stream(payload: bytes) -> bytes:
    """Return datagrams as lines of a stream, each with its end."""
    return payload.replace(statsd.SEPARATOR, b"\n") + b"\n"
