"""Consistent hashing as in Graphite's relays: determines the nodes of a cluster that keep a path.

In: nodes in the order of the relay's configuration, and paths. Out: for each path the indexes of its nodes in that
order, the primary node first. A node has 100 positions on a ring of 16 bits. A path belongs to the node at the first
position that is not below its own, and its replicas to the next nodes on the ring.

==============  ======================================  =====================================================
``hash``        position of a key                       key of a node's position i, 0 to 99
==============  ======================================  =====================================================
``carbon_ch``   the first two bytes of its MD5          ``('host', 'instance'):i``, the pair in Python's syntax;
                                                        ``('host', None):i`` without an instance
``fnv1a_ch``    its 32-bit FNV-1a, the upper half XOR   ``i-instance``; ``i-host:port`` without an instance
                the lower
==============  ======================================  =====================================================

Both are those of carbon 1.1.10 (``carbon/hashing.py``). If a position is taken, the node gets the next free one. carbon
before the end of 2013 kept both nodes at the same position, and carbon-c-relay 3.7.3 drops the later one. Therefore
these disagree on one path in 65,536 for each such collision.

There is one exception: without an instance, fnv1a_ch is that of carbon-c-relay (``consistent-hash.c``). carbon itself
uses the key ``i-None`` for all such nodes, so that nearly every path belongs to the first of them.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import md5
from typing import NamedTuple

from ..series import canonical_path

__all__ = ["HASHES", "Node", "Ring"]

_POSITIONS = 100


class Node(NamedTuple):
    """A member of a cluster, as in a relay's configuration. Names are hashed as written, and not resolved."""

    host: str
    port: int = 2003
    instance: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" + (f":{self.instance}" if self.instance is not None else "")


def _md5(key: str) -> int:
    return int.from_bytes(md5(key.encode(), usedforsecurity=False).digest()[:2])


def _fnv1a(key: str) -> int:
    found = 0x811C9DC5
    for byte in key.encode():
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found >> 16 ^ found & 0xFFFF


def _carbon_key(node: Node, number: int) -> str:
    return f"{(node.host, node.instance)}:{number}"


def _fnv1a_key(node: Node, number: int) -> str:
    name = f"{node.host}:{node.port}" if node.instance is None else node.instance
    return f"{number}-{name}"


HASHES: dict[str, tuple[Callable[[str], int], Callable[[Node, int], str]]] = {
    "carbon_ch": (_md5, _carbon_key),
    "fnv1a_ch": (_fnv1a, _fnv1a_key),
}
"""By name: a function for the position of a key, and one for the key of a node's i-th position."""


class Ring:
    """Maps paths to the ``replicas`` nodes that keep them.

    With ``diverse``, which is carbon's default, all of them are on different hosts. Without ``tags``, the hash ignores
    tags, so that all series of a name are on the same node, as in carbon-c-relay. Raises ValueError if there are fewer
    nodes than replicas, or if two nodes are equal for the hash. Thread-safe.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        hash: str = "carbon_ch",
        *,
        replicas: int = 1,
        diverse: bool = True,
        tags: bool = True,
    ) -> None:
        self._position, key = HASHES[hash]
        if len({key(node, 0) for node in nodes}) < len(nodes):
            raise ValueError(f"two nodes are the same for {hash}; tell them apart by an instance: host:port:instance")
        self._key = _with_tags if tags else _name
        groups = [node.host for node in nodes] if diverse else list(range(len(nodes)))
        if not 1 <= replicas <= len(set(groups)):
            raise ValueError(
                f"replicas must be a number from 1 to {len(set(groups))}, the number of "
                + ("hosts; diverse=off counts instances of one host, too" if diverse else "nodes")
            )
        entries = sorted(_entries(nodes, self._position, key))
        places = [place for _, place in entries]
        self._positions = [position for position, _ in entries]
        self._nodes = [_first(places[at:] + places[:at], groups, replicas) for at in range(len(places))]

    def __call__(self, path: str) -> tuple[int, ...]:
        """Return the indexes of the nodes that keep ``path``, the primary node first."""
        at = bisect_left(self._positions, self._position(self._key(path)))
        return self._nodes[at % len(self._nodes)]


def _with_tags(path: str) -> str:
    return canonical_path(path) or path if ";" in path else path


def _name(path: str) -> str:
    return path.partition(";")[0]


def _entries(
    nodes: Sequence[Node], position: Callable[[str], int], key: Callable[[Node, int], str]
) -> Iterator[tuple[int, int]]:
    """Yield each position with the index of its node. For colliding positions, the order of the nodes matters."""
    taken = set[int]()
    for place, node in enumerate(nodes):
        for number in range(_POSITIONS):
            at = position(key(node, number))
            while at in taken:
                at += 1
            taken.add(at)
            yield at, place


def _first(places: Sequence[int], groups: Sequence[str | int], count: int) -> tuple[int, ...]:
    """Return the first ``count`` indexes with distinct groups."""
    found: dict[str | int, int] = {}
    for place in places:
        found.setdefault(groups[place], place)
        if len(found) == count:
            break
    return tuple(found.values())
