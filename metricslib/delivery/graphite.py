"""Graphite as a destination: whole slots, as lines, which a carrier brings there."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..clock import SYSTEM_CLOCK, Clock
from ..naming import Naming
from ..window import Cut
from ..wire import graphite
from ..wire.graphite import Pairs
from . import lines
from .batch import Batch, Deadline, Undelivered
from .carriers import Carrier
from .destination import Destination, Options
from .graphite_stats import GraphiteStats

if TYPE_CHECKING:
    from .verify import Marker

__all__ = ["Encoder", "GraphiteDestination"]


class Encoder:
    """Writes windows as lines for one Graphite, with what a daemon says of itself where ``naming`` wants that."""

    def __init__(self, naming: Naming, clock: Clock) -> None:
        self.stats = GraphiteStats(clock)
        self._naming = naming
        self._clock = clock

    def encode(self, cut: Cut, split: Callable[[Pairs], Sequence[Pairs]]) -> list[bytes]:
        """Return the lines of each share into which ``split`` takes the whole cut's paths and values."""
        window, stamp, clock = cut.whole, cut.whole.end, self._clock.monotonic
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
        carrier: Carrier,
        naming: Naming,
        options: Options,
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(label, options)
        self.encoder = Encoder(naming, clock)
        """The nodes of a cluster have one in common."""
        self._clock = clock
        self._carrier = carrier
        self._marker = _marker(naming) if options.verify else None

    def encode(self, cut: Cut) -> list[Batch]:
        (payload,) = self.encoder.encode(cut, lambda pairs: [pairs])
        batches = lines.batches(cut.whole.end, payload)
        return self._marker.add(batches) if self._marker else batches

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        began = self._clock.monotonic()
        try:
            lost = self._carrier.send(payload, deadline)
        except Undelivered:
            self.encoder.stats.failed()
            raise
        self.encoder.stats.delivered(self._clock.monotonic() - began, len(payload))
        return lost

    def close(self) -> None:
        self._carrier.close()


def _marker(naming: Naming) -> "Marker":
    from .verify import Marker  # with an HTTP client, which not every program needs

    return Marker(naming)
