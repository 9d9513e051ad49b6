"""A path belongs to the node that carbon's own relay would send it to."""

import importlib.util
import random
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from metricslib.delivery.hash_ring import HASHES, Node, Ring

THREE = [Node("10.0.0.1", 2003, "a"), Node("10.0.0.2", 2003, "b"), Node("10.0.0.3")]
CLUSTERS = {
    "without instances": [Node(f"10.0.0.{number}") for number in range(1, 8)],
    "with instances": [Node(f"graphite{number}.example", 2004, f"cache{number}") for number in range(1, 6)],
    "several on a host": [Node(f"10.0.{host}.1", 2003 + port, f"{host}{port}") for host in "123" for port in range(4)],
    "some with, some without": [*THREE, Node("10.0.0.1", 2004, "c"), Node("::1", 2003), Node("a'b", 2003, "it's")],
    "of forty": [Node(f"10.1.{number}.1", 2003, str(number)) for number in range(40)],
}


def paths(count: int, seed: str = "") -> list[str]:
    """Paths as a fleet has them, a third of them with tags; others for another seed."""
    chance = random.Random(seed)
    words = ("web", "db", "queue", "disk.sda", "cpu", "memory", "count", "upper_90", "requests", "ä")
    plain = [".".join([*chance.choices(words, k=4), str(chance.getrandbits(32))]) for number in range(count)]
    return [f"{path};host=web{number};dc=north" if number % 3 == 0 else path for number, path in enumerate(plain)]


class Carbon:
    """carbon's own code."""

    def __init__(self) -> None:
        with warnings.catch_warnings():  # it imports the module imp
            warnings.simplefilter("ignore", DeprecationWarning)
            from carbon.routers import ConsistentHashingRouter
            from carbon.util import TaggedSeries
        self._router = ConsistentHashingRouter
        self.series = TaggedSeries

    def router(self, nodes: Sequence[Node], hash: str, replicas: int, diverse: bool) -> Any:
        """Return what carbon-relay routes by, with these nodes in its configuration."""
        settings = {"REPLICATION_FACTOR": replicas, "DIVERSE_REPLICAS": diverse, "ROUTER_HASH_TYPE": hash}
        router = self._router(SimpleNamespace(**settings))
        for node in nodes:
            router.addDestination((node.host, node.port, node.instance))
        return router

    def route(self, router: Any, path: str) -> list[tuple[str, int, str | None]]:
        return list(router.getDestinations(self.series.parse(path).path))


@pytest.fixture
def carbon(need: Callable[..., None]) -> Carbon:
    """carbon's own code, where it is installed."""
    if not importlib.util.find_spec("carbon"):
        need("carbon-relay.py")
    return Carbon()


@pytest.mark.parametrize("diverse", [True, False])
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("hash", HASHES)
def test_paths_go_where_carbons_own_ring_sends_them(hash: str, cluster: str, diverse: bool, carbon: Carbon):
    """The same nodes in the same order for 100,000 paths in all, with one replica, two and three.

    For fnv1a_ch carbon has only instances to go by, so it is given our key of a node without one as its instance.
    """
    nodes = CLUSTERS[cluster]
    named = [node if node.instance or hash == "carbon_ch" else node._replace(instance=_address(node)) for node in nodes]
    theirs = carbon.router(named, hash, 3, diverse)
    rings = {replicas: Ring(nodes, hash, replicas=replicas, diverse=diverse) for replicas in (1, 2, 3)}
    for path in paths(5_000, seed=f"{hash} {cluster} {diverse}"):
        expected = tuple(named.index(Node(*node)) for node in carbon.route(theirs, path))
        for replicas, ring in rings.items():
            assert ring(path) == expected[:replicas], path


def _address(node: Node) -> str:
    return f"{node.host}:{node.port}"


def test_positions_are_those_that_are_known():
    """First entries and paths of a ring that was written down from carbon."""
    ring = Ring(THREE, replicas=3)
    assert (ring("foo.bar"), ring("servers.web01.cpu"), ring("a;x=y")) == ((2, 1, 0), (0, 1, 2), (1, 2, 0))


def test_a_position_that_is_taken_is_raised(carbon: Carbon):
    """In a cluster so large that hundreds meet, all is still as in carbon."""
    nodes = [Node(f"10.{number}.0.1") for number in range(60)]
    theirs, ring = carbon.router(nodes, "carbon_ch", 2, True), Ring(nodes, replicas=2)
    for path in paths(2_000):
        assert [nodes[place] for place in ring(path)] == [Node(*node) for node in carbon.route(theirs, path)]


def test_replicas_are_on_several_hosts():
    """As carbon has it; without ``diverse`` they are on several nodes only."""
    nodes = [Node("h1", 2003, "a"), Node("h1", 2004, "b"), Node("h2", 2003, "c")]
    names, diverse, any_two = paths(500), Ring(nodes, replicas=2), Ring(nodes, replicas=2, diverse=False)
    assert all(2 in diverse(path) for path in names)
    assert {tuple(sorted(any_two(path))) for path in names} == {(0, 1), (0, 2), (1, 2)}


def test_without_tags_all_series_of_a_name_are_on_one_node():
    """And that is the one of the name."""
    ring, tagged = Ring(THREE, tags=False), Ring(THREE)
    assert all(ring(path) == ring(path.partition(";")[0]) for path in paths(500))
    assert any(tagged(path) != ring(path) for path in paths(500))


@pytest.mark.parametrize("hash", HASHES)
def test_every_node_gets_its_share(hash: str):
    """Also without instances, where carbon's own fnv1a_ch would give nearly all to one."""
    ring = Ring(CLUSTERS["without instances"], hash)
    shares = [0] * 7
    for path in paths(10_000):
        shares[ring(path)[0]] += 1
    assert min(shares) > 700


@pytest.mark.parametrize(
    ("nodes", "hash", "replicas", "diverse", "wrong"),
    [
        (THREE, "carbon_ch", 4, True, "replicas must be a number from 1 to 3"),
        (THREE, "carbon_ch", 0, True, "replicas must be a number from 1 to 3"),
        ([Node("h", 1, "a"), Node("h", 2, "b")], "carbon_ch", 2, True, "number of hosts; diverse=off counts"),
        ([Node("h", 1), Node("h", 2)], "carbon_ch", 1, True, "two nodes are the same for carbon_ch"),
        ([Node("h", 1, "a"), Node("g", 1, "a")], "fnv1a_ch", 1, True, "two nodes are the same for fnv1a_ch"),
    ],
)
def test_what_cannot_work_is_refused(nodes: Sequence[Node], hash: str, replicas: int, diverse: bool, wrong: str):
    """At set-up, and in words that help."""
    with pytest.raises(ValueError, match=wrong):
        Ring(nodes, hash, replicas=replicas, diverse=diverse)


@pytest.mark.parametrize("path", ["a.b;z=1;c=2;z=3", "a.b;c=2;z=3;name=x", "a.b;z=3;c=2"])
def test_a_path_is_hashed_as_carbon_writes_it(path: str):
    """In whichever form of its tags it comes, it belongs to one node."""
    many = Ring([Node(f"10.0.0.{number}", 2003, "a") for number in range(1, 100)])
    assert many(path) == many("a.b;c=2;z=3")


@pytest.mark.parametrize("path", ["a", "a;b", "a;", ";a;b", "", "a b"])
def test_what_has_no_tags_stays_as_it_is(path: str):
    """Nothing raises, whatever is relayed."""
    assert Ring(THREE)(path) == Ring(THREE, tags=False)(path) if ";" not in path else Ring(THREE)(path)
