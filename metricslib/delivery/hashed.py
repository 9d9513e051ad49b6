"""A cluster of Graphite nodes that keep a part of the paths each: a consistent hash says which.

Every node is a destination with a courier and a spool of its own, so that one that is away delays none but its own
points, and those wait for it: the hash does not ask who is up. A window's paths and values are computed once, and
split: each node takes its share. What is relayed is split the same way.
"""

from collections.abc import Mapping, Sequence

from ..window import Cut
from ..wire.graphite import Point
from . import lines
from .deadline import Deadline
from .graphite import Encoder, GraphiteDestination, Pairs
from .hashing import Ring
from .spool import Batch

__all__ = ["HashedNode", "Shares"]

_RELAYED = 200_000
"""How many paths are remembered with their nodes, beside twice those of the largest window."""


class Shares:
    """What the nodes of a cluster have in common: who gets what of a cut.

    Cuts are asked for by one thread at a time, points by any.
    """

    def __init__(self, ring: Ring, nodes: int, encoder: Encoder) -> None:
        self._owners = _Owners(ring)
        self._nodes = nodes
        self._encoder = encoder
        self._cut: Cut | None = None
        self._payloads: list[bytes | None] = []

    def take(self, cut: Cut, place: int) -> bytes:
        """Return a node's share of ``cut`` as lines. The cut is split once, when the first node asks for its share."""
        payload = self._payloads[place] if cut is self._cut else None
        if payload is None:
            self._payloads = list(self._encoder.encode(cut, self._split))
            self._cut = cut
            payload = self._payloads[place] or b""
        self._payloads[place] = None  # it waits in the spool now, and nowhere else
        return payload

    def of(self, points: Sequence[Point], place: int) -> list[Point]:
        """Return the points that a node keeps."""
        owners = self._owners
        return [point for point in points if place in owners[point[0]]]

    def _split(self, pairs: Pairs) -> list[Pairs]:
        # Written for speed, as naming and encoding are.
        shares: list[list[tuple[str, float]]] = [[] for _ in range(self._nodes)]
        appends = [share.append for share in shares]
        self._owners.make_room(len(pairs))
        owners = self._owners
        for pair in pairs:
            for place in owners[pair[0]]:
                appends[place](pair)
        return list(shares)


class _Owners(dict[str, tuple[int, ...]]):
    """The places of the nodes that keep a path. Paths are remembered, within a bound: most come again."""

    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self._ring = ring
        self._room = _RELAYED

    def make_room(self, paths: int) -> None:
        """Expect windows with so many paths."""
        self._room = max(self._room, 2 * paths + _RELAYED)

    def __missing__(self, path: str) -> tuple[int, ...]:
        if len(self) >= self._room:
            self.clear()
        owners = self[path] = self._ring(path)
        return owners


class HashedNode:
    """The node at ``place`` of a cluster: a Graphite destination that gets its share."""

    deltas = False
    relays = True
    resend = True

    def __init__(self, label: str, node: GraphiteDestination, shares: Shares, place: int) -> None:
        self.label = label
        self.options = node.options
        self.revise = node.revise
        self._node = node
        self._shares = shares
        self._place = place

    def encode(self, cut: Cut) -> list[Batch]:
        return lines.batches(cut.whole.end, self._shares.take(cut, self._place))

    def share(self, points: Sequence[Point]) -> list[Point]:
        """Return those points that this node keeps."""
        return self._shares.of(points, self._place)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        return self._node.deliver(payload, deadline)

    def close(self) -> None:
        self._node.close()
