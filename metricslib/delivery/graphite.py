"""Graphite as a destination: lines over TCP, which confirm, or over UDP, which do not."""

import socket
from collections.abc import Mapping

from ..clock import SYSTEM_CLOCK, Clock
from ..naming import Naming
from ..window import Cut
from ..wire import graphite
from . import lines
from .deadline import Deadline
from .destination import Options, Undelivered
from .graphite_stats import GraphiteStats
from .spool import Batch
from .transport import Datagrams, Endpoint, Stream

__all__ = ["GraphiteDestination"]

_DATAGRAM = 1432


class GraphiteDestination:
    """Sends whole slots as lines. A slot keeps the last value sent, so sending again is harmless."""

    deltas = False
    relays = True
    resend = True

    def __init__(
        self,
        label: str,
        endpoint: Endpoint,
        naming: Naming,
        options: Options,
        *,
        kind: int,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.label = label
        self.options = options
        self.revise = options.revise
        self._naming = naming
        self._clock = clock
        self._stats = GraphiteStats(clock)
        self._transport = Stream(endpoint) if kind == socket.SOCK_STREAM else Datagrams(endpoint)

    def encode(self, cut: Cut) -> list[Batch]:
        window, stamp, clock = cut.whole, cut.whole.end, self._clock.monotonic
        began = clock()
        pairs = self._naming.pairs(window)
        computed = clock()
        payload = graphite.encode(pairs, stamp)
        if self._naming.own:
            stats = self._stats.pairs(self._naming, len(window), computed - began, clock() - computed)
            payload += graphite.encode(stats, stamp)
        return lines.batches(stamp, payload)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        began = self._clock.monotonic()
        try:
            lost = self._deliver(payload, deadline)
        except Undelivered:
            self._stats.failed()
            raise
        self._stats.delivered(self._clock.monotonic() - began, len(payload))
        return lost

    def _deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        if isinstance(self._transport, Stream):
            self._transport.send(payload, deadline, again=True)
            return {}
        try:
            return self._transport.send(list(lines.pieces(payload, b"\n", _DATAGRAM)), deadline)
        except Undelivered as failure:
            raise Undelivered(failure.reason, payload) from failure.__cause__

    def close(self) -> None:
        self._transport.close()
