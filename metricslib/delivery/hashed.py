"""A cluster of Graphite nodes that keep a part of the paths each: a consistent hash says which.

Every node is a destination with a sender and a queue of its own, so that one that is away delays none but its own
points, and those wait for it: the hash does not ask who is up. A window's paths and values are computed once, and
split: each node takes its share. What is relayed is split the same way.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from ..window import Cut
from ..wire.graphite import Pairs, Point
from . import lines
from .batch import Batch, Deadline
from .destination import Destination
from .graphite import Encoder, GraphiteDestination
from .hash_ring import Ring

__all__ = ["HashedNode", "Shares"]

Whole = TypeVar("Whole")
Share = TypeVar("Share")

_RELAYED = 200_000
"""How many paths are remembered with their nodes, beside twice those of the largest window."""


class Shares:
    """What the nodes of a cluster have in common: who gets what. Any thread may ask."""

    def __init__(self, ring: Ring, nodes: int, encoder: Encoder) -> None:
        self._owners = _Owners(ring)
        self._nodes = nodes
        self._cuts: _Splits[Cut, bytes] = _Splits(lambda cut: encoder.encode(cut, self._split_pairs))
        self._points: _Splits[Sequence[Point], list[Point]] = _Splits(self._split_points)

    def take(self, cut: Cut, place: int) -> bytes:
        """Return a node's share of ``cut``, as lines."""
        return self._cuts.take(cut, place)

    def of(self, points: Sequence[Point], place: int) -> Sequence[Point]:
        """Return the points that a node keeps."""
        return self._points.take(points, place)

    def _split_pairs(self, pairs: Pairs) -> list[Pairs]:
        """Return what each node gets."""
        self._owners.make_room(len(pairs))
        # Written for speed, as naming and encoding are.
        shares = [Pairs() for _ in range(self._nodes)]
        appends = [(share.paths.append, share.values.append) for share in shares]
        owners = self._owners
        for path, value in pairs:
            for place in owners[path]:
                append_path, append_value = appends[place]
                append_path(path)
                append_value(value)
        return shares

    def _split_points(self, points: Iterable[Point]) -> list[list[Point]]:
        shares: list[list[Point]] = [[] for _ in range(self._nodes)]
        for point in points:
            for place in self._owners[point[0]]:
                shares[place].append(point)
        return shares


class _Splits(threading.local, Generic[Whole, Share]):
    """Splits once what all nodes are to have a share of, since a thread asks for one node after the other.

    What was taken is not kept: it waits in a queue, and nowhere else. Who asks again has it split again.
    """

    def __init__(self, split: Callable[[Whole], Sequence[Share]]) -> None:
        self._split = split
        self._whole: Whole | None = None
        self._shares: dict[int, Share] = {}

    def take(self, whole: Whole, place: int) -> Share:
        if whole is not self._whole or place not in self._shares:
            self._whole, self._shares = whole, dict(enumerate(self._split(whole)))
        share = self._shares.pop(place)
        if not self._shares:
            self._whole = None
        return share


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


class HashedNode(Destination):
    """The node at ``place`` of a cluster: a Graphite destination that gets its share."""

    def __init__(self, label: str, node: GraphiteDestination, shares: Shares, place: int) -> None:
        super().__init__(label, node.options)
        self._node = node
        self._shares = shares
        self._place = place

    def encode(self, cut: Cut) -> list[Batch]:
        return lines.batches(cut.whole.end, self._shares.take(cut, self._place))

    def share(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return those points that this node keeps."""
        return self._shares.of(points, self._place)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        return self._node.deliver(payload, deadline)

    def close(self) -> None:
        self._node.close()
