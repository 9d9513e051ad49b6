"""Consistent hashing as Graphite's relays do it: which nodes of a cluster keep a path.

In: nodes in the order of the relay's configuration, and paths. Out: for each path the places of its nodes in that
order, the first one first. A node has 100 positions on a ring of 16 bits. A path belongs to the node at the first
position that is not below its own, and its replicas to the next nodes from there on, around the end of the ring.

==============  ======================================  =====================================================
``hash``        position of a key                       key of a node's position i, 0 to 99
==============  ======================================  =====================================================
``carbon_ch``   the first two bytes of its MD5          ``('host', 'instance'):i``, which is how Python writes
                                                        the pair; ``('host', None):i`` without an instance
``fnv1a_ch``    its 32-bit FNV-1a, the upper half XOR   ``i-instance``; ``i-host:port`` without an instance
                the lower
==============  ======================================  =====================================================

Both are those of carbon 1.1.10 (``carbon/hashing.py``), with two exceptions. If a position is taken, the node gets the
next free one. carbon before the end of 2013 left both nodes there, and carbon-c-relay 3.7.3 drops the later one; so for
each such collision, these disagree on one path in 65,536. And fnv1a_ch without an instance is that of carbon-c-relay
(``consistent-hash.c``), because carbon itself writes ``i-None`` for each such node, which sends nearly every path to
the first of them.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import md5
from typing import NamedTuple

from ..series import canonical_path

__all__ = ["HASHES", "Node", "Ring"]

_POSITIONS = 100


class Node(NamedTuple):
    """A member of a cluster, as a relay's configuration has it. Names are hashed as written, and not resolved."""

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
"""By name: a key's position, and the key of a node's n-th position."""


class Ring:
    """Maps paths to the ``replicas`` nodes that keep them.

    With ``diverse``, which is carbon's default, no two of them are on one host. Without ``tags`` these do not count, so
    that all series of a name are on one node, as carbon-c-relay has it. Raises ValueError when there are fewer nodes
    than replicas, and when two nodes are the same for the hash. May be used from several threads.
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
        """Return the places of the nodes that keep ``path``, the first one first."""
        at = bisect_left(self._positions, self._position(self._key(path)))
        return self._nodes[at % len(self._nodes)]


def _with_tags(path: str) -> str:
    return canonical_path(path) or path if ";" in path else path


def _name(path: str) -> str:
    return path.partition(";")[0]


def _entries(
    nodes: Sequence[Node], position: Callable[[str], int], key: Callable[[Node, int], str]
) -> Iterator[tuple[int, int]]:
    """Yield each position with its node's place. The order of the nodes matters where they meet."""
    taken = set[int]()
    for place, node in enumerate(nodes):
        for number in range(_POSITIONS):
            at = position(key(node, number))
            while at in taken:
                at += 1
            taken.add(at)
            yield at, place


def _first(places: Sequence[int], groups: Sequence[str | int], count: int) -> tuple[int, ...]:
    """Return the first ``count`` places of distinct groups."""
    found: dict[str | int, int] = {}
    for place in places:
        found.setdefault(groups[place], place)
        if len(found) == count:
            break
    return tuple(found.values())
