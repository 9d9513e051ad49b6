"""Graphite as a destination: whole slots, as lines, which a carrier brings there."""

from collections.abc import Mapping

from ..clock import SYSTEM_CLOCK, Clock
from ..naming import Naming
from ..window import Cut
from ..wire import graphite
from . import lines
from .carriers import Carrier
from .deadline import Deadline
from .destination import Options, Undelivered
from .graphite_stats import GraphiteStats
from .spool import Batch

__all__ = ["GraphiteDestination"]


class GraphiteDestination:
    """Sends whole slots. A slot keeps the last value sent, so sending again is harmless."""

    deltas = False
    relays = True
    resend = True

    def __init__(
        self,
        label: str,
        carrier: Carrier,
        naming: Naming,
        options: Options,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.label = label
        self.options = options
        self.revise = options.revise
        self._naming = naming
        self._clock = clock
        self._stats = GraphiteStats(clock)
        self._carrier = carrier

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
            lost = self._carrier.send(payload, deadline)
        except Undelivered:
            self._stats.failed()
            raise
        self._stats.delivered(self._clock.monotonic() - began, len(payload))
        return lost

    def close(self) -> None:
        self._carrier.close()
