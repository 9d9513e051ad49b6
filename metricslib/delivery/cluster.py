"""The URL of a Graphite cluster in, its destinations out.

``graphite://h1:2003:a,h2:2003:b?hash=carbon_ch&replicas=2`` is a destination for each node, which gets its share of
the paths; ``graphite://h1:2003,h2:2003?pick=failover`` is one for all of them.

============  ==========================  ==============================================================
``hash``      ``carbon_ch``               each path to the nodes that the hash says, as Graphite's relays do;
              ``fnv1a_ch``                a node may have an instance, ``host:port:instance``
``replicas``  a number, 1                 how many nodes keep each path
``diverse``   ``on`` or ``off``           whether they must be on different hosts; ``on`` if not given
``tags``      ``on`` or ``off``           whether a path is hashed with its tags; ``on`` if not given
``pick``      ``failover``                everything to one node: the first that is up,
              ``any_of``                  or the first in an order of this process' own
============  ==========================  ==============================================================

All other options are those of each node.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidDestination
from ..naming import Naming
from .destination import Destination
from .destinations import open_destination
from .failover import Failover
from .graphite import GraphiteDestination
from .hash_ring import HASHES, Node, Ring
from .hashed import HashedNode, Shares
from .urls import without_secrets

__all__ = ["open_destinations"]

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "hash": tuple(HASHES),
    "replicas": (),
    "diverse": ("on", "off"),
    "tags": ("on", "off"),
    "pick": ("failover", "any_of"),
}
"""The options of a cluster, and the values that each can have; replicas is a number."""

_MEMBER = re.compile(r"(\[[^]]*\]|[^:[\]]*)(?::([^:]*))?(?::(.*))?", re.DOTALL)
_INSTANCE = re.compile(r"[\w.:-]+", re.ASCII)


class _Cluster(NamedTuple):
    """A cluster's URL, taken apart. Members are texts ``host:port:instance``; ``rest`` is each node's query."""

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
    """Return the destinations that ``url`` names: one for each node of a cluster with a hash, one for any other URL.

    ``shuffle`` brings the nodes of ``any_of`` into an order. Takes and raises what
    :func:`~.destinations.open_destination` does.
    """
    try:
        cluster = _parse(url) if isinstance(url, str) else None
        if cluster is None:
            return [open_destination(url, naming, clock=clock, **how)]
        _check(cluster.options)
        if any(piece.startswith("verify=") for piece in cluster.rest.split("&")):
            raise ValueError("takes no verify, which needs one carbon; the URL names a cluster")
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


# -- parts of the URL; nothing of it may stand in an error, for it may hold a password


def _parse(url: str) -> _Cluster | None:
    """Return the URL's parts, None when it names no cluster."""
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
    if "hash" not in options and set(options) != {"pick"}:
        ways = [f"{name}={choice}" for name in ("hash", "pick") for choice in _OPTIONS[name]]
        raise ValueError(f"what does each node get? Say {', '.join(ways[:-1])} or {ways[-1]}")


def _open(cluster: _Cluster, member: str, naming: Naming, **how: Any) -> tuple[Node, GraphiteDestination]:
    parts = _MEMBER.fullmatch(member.strip())
    if parts is None:
        raise ValueError("a node is written host:port or host:port:instance")
    host, port, instance = parts.groups()
    if instance is not None and ("hash" not in cluster.options or not _INSTANCE.fullmatch(instance)):
        raise ValueError("an instance is of letters, digits and _ . : -, and for clusters with a hash")
    url = f"{cluster.scheme}://{host}" + (f":{port}" if port else "") + f"?{cluster.rest}"
    destination = open_destination(url, naming, **how)
    assert isinstance(destination, GraphiteDestination)
    port = destination.label.rpartition(":")[2]
    return Node(host.strip("[]"), int(port), instance), destination
