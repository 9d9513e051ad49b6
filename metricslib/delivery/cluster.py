"""Graphite on several servers. In: the URL of a cluster. Out: its destinations.

*Sharded*: ``graphite://h1:2003:a,h2:2003:b?hash=carbon_ch&replicas=2``. Each node keeps a part of the paths, which a
hash ring determines. Every node is a destination with its own queue and sender, so a node that is down delays only its
own points. They wait for it, because the ring does not depend on which nodes are up. The paths and values of a window
are computed once and split over the nodes, and so are relayed points.

*Alternatives*: ``graphite://h1:2003,h2:2003?pick=failover``. Every node accepts all paths. The nodes are one
destination with one queue, and each batch goes to the first node that is up. So no data waits for a node that stays
down, and batches keep their order across nodes: an older value of a slot never arrives last. When a node that was up
fails, the attempt fails, as with a single destination. The sender tries again with the next node. It also sends that
node the batches of the last minute, because the failed node may have had them only in memory. The failed node is
skipped for a time that grows with each failure. Then it is tried again, and if it fails, the same attempt continues
with the next node.

============  ==========================  ==============================================================
``hash``      ``carbon_ch``               sharded: each path goes to nodes chosen by this hash, as in Graphite's relays;
              ``fnv1a_ch``                a node may have an instance, ``host:port:instance``
``replicas``  a number, 1                 the number of nodes that keep each path
``diverse``   ``on`` or ``off``           whether these must be on different hosts; default ``on``
``tags``      ``on`` or ``off``           whether the hash includes the tags of a path; default ``on``
``pick``      ``failover``                alternatives: everything goes to the first node that is up,
              ``any_of``                  or to the first in a random order of this process
============  ==========================  ==============================================================

All other options apply to each node.
"""

import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidDestination
from ..naming import Naming
from ..window import Flush
from ..wire.graphite import Pairs, Point
from .batch import Batch, Deadline, Undelivered, batches_of
from .destination import Destination, NodeStatus
from .destinations import open_destination
from .graphite import Encoder, GraphiteDestination
from .hash_ring import HASHES, Node, Ring
from .sender import CONFIRMS, Backoff
from .urls import without_secrets

__all__ = ["Failover", "HashedNode", "Shares", "open_destinations"]


class Failover(Destination):
    """Delivers to one of ``nodes``: the first in their order that is up. They understand the same payloads.

    ``rng`` returns random numbers from 0 to 1 and determines how long a failed node is passed over.
    """

    def __init__(
        self,
        label: str,
        nodes: Sequence[GraphiteDestination],
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(label, nodes[0].options)
        self._nodes = [_Node(node, clock, Backoff(rng)) for node in nodes]
        self._encode = nodes[0].encode
        self._clock = clock

    def encode(self, flush: Flush) -> list[Batch]:
        return self._encode(flush)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        tried = self._due()
        for left, node in zip(range(len(tried), 0, -1), tried, strict=True):
            was_up = not node.backoff.failures
            node.attempt = self._clock.monotonic()
            try:
                lost = node.destination.deliver(payload, deadline if was_up else deadline.part(1 / left))
            except Undelivered as failure:
                node.failed(failure.reason)
                if was_up or left == 1:
                    raise
            else:
                node.arrived()
                return lost
            finally:
                node.attempt = None
        raise AssertionError("there is always one to try")

    def _due(self) -> list["_Node"]:
        """Return the nodes to try: those that are due again after a failure, then the first that is up."""
        now, found = self._clock.monotonic(), list[_Node]()
        for node in self._nodes:
            if now >= node.backoff.due:
                found.append(node)
            if not node.backoff.failures:
                break
        return found or [min(self._nodes, key=lambda node: node.backoff.due)]

    def nodes(self) -> list[NodeStatus]:
        """Return the status of each node, in order; changes nothing."""
        return [node.status() for node in self._nodes]

    def close(self) -> None:
        for node in self._nodes:
            node.destination.close()


class _Node:
    """A node with its status. One thread delivers; others read the status."""

    def __init__(self, destination: GraphiteDestination, clock: Clock, backoff: Backoff) -> None:
        self.destination = destination
        self.backoff = backoff
        """Consecutive failures, and the time until which the node is skipped."""
        self.attempt: float | None = None
        """Start of the attempt in progress, on the monotonic clock, or None."""
        self._clock = clock
        self._since = clock.time()
        self._errors = 0
        self._last_error: str | None = None

    def failed(self, reason: str) -> None:
        if not self.backoff.failures:
            self._since = self._clock.time()
        self.backoff.failed(self._clock.monotonic())
        self._errors += 1
        self._last_error = reason

    def arrived(self) -> None:
        if self.backoff.failures:
            self._since = self._clock.time()
        self.backoff.succeeded()

    def status(self) -> NodeStatus:
        up, since, attempt = not self.backoff.failures, self._since, self.attempt
        unconfirmed = 0.0 if attempt is None else self._clock.monotonic() - attempt
        if up and unconfirmed > CONFIRMS:
            up, since = False, self._clock.time() - unconfirmed
        return NodeStatus(self.destination.label, up, since, self._errors, self._last_error)


_RELAYED = 200_000
"""Number of paths whose nodes are cached, in addition to twice the paths of the largest window."""


class Shares:
    """Splits data over the nodes of a cluster. Thread-safe."""

    def __init__(self, ring: Ring, nodes: int, encoder: Encoder) -> None:
        self._owners = _Owners(ring)
        self._nodes = nodes
        self._encoder = encoder
        self._last = threading.local()

    def lines(self, flush: Flush, place: int) -> bytes:
        """Return a node's share of ``flush``, as lines."""
        share: bytes = self._share(flush, place, lambda: self._encoder.encode(flush, self._split_pairs))
        return share

    def points(self, points: Sequence[Point], place: int) -> Sequence[Point]:
        """Return the points that a node keeps."""
        share: Sequence[Point] = self._share(points, place, lambda: self._split_points(points))
        return share

    def _share(self, whole: object, place: int, split: Callable[[], Sequence[Any]]) -> Any:
        """Split ``whole`` when a thread requests the first node's share, and cache the result until the last one."""
        before, shares = getattr(self._last, "split", (None, ()))
        if before is not whole:
            shares = split()
        self._last.split = (None, ()) if place == self._nodes - 1 else (whole, shares)
        return shares[place]

    def _split_pairs(self, pairs: Pairs) -> list[Pairs]:
        """Return the share of each node."""
        self._owners.make_room(len(pairs))
        # Optimised, like naming and encoding.
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


class _Owners(dict[str, tuple[int, ...]]):
    """The indexes of the nodes that keep a path. A limited number of paths is cached, because most occur again."""

    def __init__(self, ring: Ring) -> None:
        super().__init__()
        self._ring = ring
        self._room = _RELAYED

    def make_room(self, paths: int) -> None:
        """Make the cache large enough for windows with this number of paths."""
        self._room = max(self._room, 2 * paths + _RELAYED)

    def __missing__(self, path: str) -> tuple[int, ...]:
        if len(self) >= self._room:
            self.clear()
        owners = self[path] = self._ring(path)
        return owners


class HashedNode(Destination):
    """The node with the index ``place`` in a cluster: a Graphite destination that gets its share of the data."""

    def __init__(self, label: str, node: GraphiteDestination, shares: Shares, place: int) -> None:
        super().__init__(label, node.options)
        self._node = node
        self._shares = shares
        self._place = place

    def encode(self, flush: Flush) -> list[Batch]:
        return batches_of(flush.cumulative.end, self._shares.lines(flush, self._place))

    def share(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return the points that this node keeps."""
        return self._shares.points(points, self._place)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        return self._node.deliver(payload, deadline)

    def close(self) -> None:
        self._node.close()


# -- the URL

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "hash": tuple(HASHES),
    "replicas": (),
    "diverse": ("on", "off"),
    "tags": ("on", "off"),
    "pick": ("failover", "any_of"),
}
"""The options of a cluster with their possible values; replicas is a number."""

_MEMBER = re.compile(r"(\[[^]]*\]|[^:[\]]*)(?::([^:]*))?(?::(.*))?", re.DOTALL)
_INSTANCE = re.compile(r"[\w.:-]+", re.ASCII)


class _Cluster(NamedTuple):
    """The parts of a cluster's URL. Members are texts ``host:port:instance``; ``rest`` is the query of each node."""

    scheme: str
    members: Sequence[str]
    options: Mapping[str, str]
    rest: str


def open_destinations(
    url: str,
    naming: Naming,
    *,
    clock: Clock = SYSTEM_CLOCK,
    shuffle: Callable[[list[Any]], object] = random.shuffle,
    **how: Any,
) -> Sequence[Destination]:
    """Return the destinations of ``url``: one for each node of a cluster with a hash, one for any other URL.

    ``shuffle`` determines the order of the nodes of ``any_of``. Other arguments and exceptions are those of
    :func:`~.destinations.open_destination`.
    """
    try:
        cluster = _parse(url) if isinstance(url, str) else None
        if cluster is None:
            return [open_destination(url, naming, clock=clock, **how)]
        _check(cluster.options)
        if any(piece.startswith("verify=") for piece in cluster.rest.split("&")):
            raise ValueError("takes no option verify, which needs one carbon; the URL names a cluster")
        nodes = [_open(cluster, member, naming, clock=clock, **how) for member in cluster.members]
        for _, destination in nodes:
            destination.encoder = nodes[0][1].encoder
        if "hash" in cluster.options:
            return _hashed(cluster, nodes)
        return [_picked(cluster, [destination for _, destination in nodes], clock, shuffle)]
    except InvalidDestination as error:
        raise InvalidDestination(without_secrets(url), error.reason) from None
    except ValueError as error:
        raise InvalidDestination(without_secrets(url), str(error)) from None


def _hashed(cluster: _Cluster, nodes: Sequence[tuple[Node, GraphiteDestination]]) -> list[HashedNode]:
    options = cluster.options
    ring = Ring(
        [node for node, _ in nodes],
        options["hash"],
        replicas=int(options.get("replicas", "1")),
        diverse=options.get("diverse") != "off",
        tags=options.get("tags") != "off",
    )
    shares = Shares(ring, len(nodes), nodes[0][1].encoder)
    return [
        HashedNode(f"{cluster.scheme}://{node}", destination, shares, place)
        for place, (node, destination) in enumerate(nodes)
    ]


def _picked(
    cluster: _Cluster, nodes: list[GraphiteDestination], clock: Clock, shuffle: Callable[[list[Any]], object]
) -> Failover:
    hosts = [node.label.removeprefix(f"{cluster.scheme}://") for node in nodes]
    if len(set(hosts)) < len(hosts):
        raise ValueError("a node is given twice")
    if cluster.options["pick"] == "any_of":
        shuffle(nodes)
    return Failover(f"{cluster.scheme}://{','.join(hosts)}", nodes, clock=clock)


# Errors contain no part of the URL, because it may contain a password.


def _parse(url: str) -> _Cluster | None:
    """Return the parts of the URL, or None if it is not a cluster's."""
    place, _, query = url.partition("?")
    scheme, _, hosts = place.partition("://")
    pieces = query.split("&")
    ours = [piece for piece in pieces if piece.partition("=")[0] in _OPTIONS]
    if not scheme.lower().startswith("graphite") or not (ours or "," in hosts):
        return None
    options: dict[str, str] = {}
    for name, text in parse_qsl("&".join(ours), keep_blank_values=True):
        if name in options:
            raise ValueError(f"option {name} is given twice")
        options[name] = text
    members = hosts.removesuffix("/").split(",")
    return _Cluster(scheme.lower(), members, options, "&".join(piece for piece in pieces if piece not in ours))


def _check(options: Mapping[str, str]) -> None:
    for name, text in options.items():
        if (choices := _OPTIONS[name]) and text not in choices:
            raise ValueError(f"{name} must be {' or '.join(choices)}")
    if not re.fullmatch("[0-9]{1,4}", options.get("replicas", "1")):
        raise ValueError("replicas must be a whole number")
    if "hash" in options and "pick" in options:
        raise ValueError("takes hash or pick, not both")
    if "pick" in options and len(options) > 1:
        raise ValueError(f"{next(name for name in options if name != 'pick')} needs hash={' or hash='.join(HASHES)}")
    if "hash" not in options and "pick" not in options:
        ways = [f"{name}={choice}" for name in ("hash", "pick") for choice in _OPTIONS[name]]
        raise ValueError(f"a URL with several hosts needs {', '.join(ways[:-1])} or {ways[-1]}")


def _open(cluster: _Cluster, member: str, naming: Naming, **how: Any) -> tuple[Node, GraphiteDestination]:
    parts = _MEMBER.fullmatch(member.strip())
    if parts is None:
        raise ValueError("write each node as host:port or host:port:instance")
    host, port, instance = parts.groups()
    if instance is not None and ("hash" not in cluster.options or not _INSTANCE.fullmatch(instance)):
        raise ValueError("an instance has letters, digits and _ . : -, and needs hash=carbon_ch or hash=fnv1a_ch")
    url = f"{cluster.scheme}://{host}" + (f":{port}" if port else "") + f"?{cluster.rest}"
    destination = open_destination(url, naming, **how)
    assert isinstance(destination, GraphiteDestination)
    port = destination.label.rpartition(":")[2]
    return Node(host.strip("[]"), int(port), instance), destination
