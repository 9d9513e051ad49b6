"""Each node of a cluster with a hash gets its share of all that is sent, and has its own fate."""

import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from metricslib.delivery import Deadline, Destination, Sender, SenderStatus, cluster, open_destinations
from metricslib.delivery.graphite import Encoder
from metricslib.delivery.hash_ring import Node, Ring
from metricslib.flusher import Flusher
from metricslib.naming import Naming
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from metricslib.wire import graphite
from tests.peers import GraphitePeer, eventually

URL = "graphite://h1:2003:a,h2:2003:b,h3:2003:c?hash=carbon_ch"
NODES = [Node("h1", 2003, "a"), Node("h2", 2003, "b"), Node("h3", 2003, "c")]


def flush(series: int, tags: str = "") -> Flush:
    window = Window(1_700_000_000, 1_700_000_010, 10, counters={f"c{number}{tags}": number for number in range(series)})
    return Flush(window, window)


def points(destination: Destination, whole: Flush) -> list[graphite.Point]:
    return [point for batch in destination.encode(whole) for point in graphite.decode(batch.payload)]


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_window_is_split_by_the_ring(replicas: int):
    """Every path goes to the nodes that the ring says, in the order of a single destination, and to no other."""
    whole, naming = flush(1000, ";host=web1"), Naming(prefix="shop")
    (single,) = open_destinations("graphite://host", naming)
    everything, ring = points(single, whole), Ring(NODES, replicas=replicas)
    for place, node in enumerate(open_destinations(f"{URL}&replicas={replicas}", naming)):
        expected = [point for point in everything if place in ring(point[0])]
        assert points(node, whole) == expected
        assert expected


def test_what_a_daemon_says_of_itself_is_said_once():
    """It is of the cluster as a whole, for its paths are there once."""
    naming, whole = Naming(own="statsd"), flush(10)
    (single,) = open_destinations("graphite://host", naming)
    expected = [path for path, _, _ in points(single, whole)]
    found = [path for node in open_destinations(URL, naming) for path, _, _ in points(node, whole)]
    assert len(expected) == 20 + 7
    assert sorted(found) == sorted(expected)


def test_each_node_can_be_asked_again():
    """As when another's encoding has failed: the flush is split anew, and nothing is missing."""
    nodes, whole = open_destinations(URL, Naming()), flush(100)
    first = [points(node, whole) for node in nodes]
    assert [points(node, whole) for node in nodes] == first
    assert points(nodes[2], whole) == first[2]


def test_a_node_without_a_share_is_sent_nothing():
    """No connection is made for it."""
    batches = [node.encode(flush(1)) for node in open_destinations(URL, Naming(flush_counts=False))]
    assert sorted(map(len, batches)) == [0, 0, 1]


def test_relayed_points_are_split_by_the_ring():
    """On their paths as they are, with their own stamps."""
    ring = Ring(NODES, replicas=2)
    relayed = [(f"servers.web{number}.cpu;dc=north", number / 2, 1_700_000_000 + number) for number in range(1000)]
    for place, node in enumerate(open_destinations(f"{URL}&replicas=2", Naming(prefix="shop"))):
        sender = Sender(node)
        sender.relay(relayed)
        batch = sender.queue.take()
        assert batch
        assert list(graphite.decode(batch.payload)) == [point for point in relayed if place in ring(point[0])]


def test_threads_that_relay_at_once_get_what_is_their_own():
    """Listeners have a thread each; none gets a share of another's points."""
    ring, nodes = Ring(NODES), open_destinations(URL, Naming())
    wrong = []

    def relay(name: str) -> None:
        for number in range(200):
            some = [(f"{name}.{number}.{point}", 0.0, 0) for point in range(20)]
            for place, node in enumerate(nodes):
                if node.share(some) != [point for point in some if ring(point[0]) == (place,)]:
                    wrong.append(some)

    threads = [threading.Thread(target=relay, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_remembered_of_paths_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Paths that never come again do not fill the memory; twice those of the largest window stay."""
    monkeypatch.setattr(cluster, "_RELAYED", 100)
    shares = cluster.Shares(Ring(NODES), 3, Encoder(Naming(), ManualClock()))
    for number in range(1000):
        shares.points([(f"a.{number}", 0.0, 0)], 0)
        assert len(shares._owners) <= 100
    shares._owners.make_room(100)
    for number in range(1000):
        shares.points([(f"a.{number}", 0.0, 0)], 0)
    assert 100 < len(shares._owners) <= 300


@pytest.fixture
def peers():
    started: list[GraphitePeer] = []

    def start(count: int) -> list[GraphitePeer]:
        started.extend(GraphitePeer() for _ in range(count))
        return started

    yield start
    for peer in started:
        peer.close()


def cluster_url(peers: Sequence[GraphitePeer], options: str) -> str:
    nodes = ",".join(f"127.0.0.1:{peer.port}:{instance}" for peer, instance in zip(peers, "abc", strict=True))
    return f"graphite://{nodes}?{options}"


def test_all_of_a_programs_windows_arrive_each_at_its_node(peers, registry: Registry):
    """Over real connections, relayed points too; together the nodes have every point once."""
    three = peers(3)
    flusher = Flusher(registry, cluster_url(three, "hash=carbon_ch"), own="")
    flusher.start()
    for number in range(100):
        registry.counter(f"c{number}").inc(number)
    flusher.relay([(f"relayed.{number}", number, 1_700_000_000) for number in range(100)])
    assert flusher.stop(30)
    found = Counter(path for peer in three for path, _ in peer.values)
    assert len(found) == 300
    assert set(found.values()) == {1}
    nodes = [Node("127.0.0.1", peer.port, instance) for peer, instance in zip(three, "abc", strict=True)]
    ring = Ring(nodes)
    assert all(ring(path) == (place,) for place, peer in enumerate(three) for path, _ in peer.values)


def test_a_node_that_is_away_delays_only_its_share(peers, registry: Registry, refused_port: int):
    """The others' points arrive, its own wait, and what is dropped of them is counted where it was to go."""
    two = peers(2)
    url = f"graphite://127.0.0.1:{two[0].port}:a,127.0.0.1:{two[1].port}:b,127.0.0.1:{refused_port}:c?hash=carbon_ch"
    flusher = Flusher(registry, f"{url}&spool_bytes=5000", own="")
    flusher.start()
    for number in range(100):
        registry.counter(f"c{number}").inc()

    def statuses() -> list[SenderStatus]:
        return flusher.status().destinations

    def settled() -> bool:
        return [status.waiting_points > 0 for status in statuses()] == [False, False, True] and not statuses()[2].up

    flusher.flush(0)
    eventually(settled)
    waiting = statuses()[2].waiting_points
    assert [status.up for status in statuses()] == [True, True, False]
    assert waiting == 200 - sum(len(peer.values) for peer in two) > 60
    for _ in range(2):
        flusher.flush(0.3)  # which is delivered to the others
    eventually(lambda: statuses()[2].dropped == {"spool_full": waiting})
    eventually(settled)
    assert [status.dropped for status in statuses()[:2]] == [{}, {}]
    flusher.stop(0.1)


def test_a_cluster_may_grow_while_it_runs(peers, registry: Registry, refused_port: int):
    """What waits for a node that stays goes on waiting for it; the new node gets its share from then on."""
    (new,) = peers(1)
    old = f"127.0.0.1:{refused_port}:b"
    flusher = Flusher(registry, f"graphite://{old}?hash=carbon_ch", own="")
    flusher.start()
    flusher.relay([("waits", 1, 1_700_000_000)])
    flusher.change(f"graphite://{old},127.0.0.1:{new.port}:a?hash=carbon_ch", interval=10, naming=Naming())
    for number in range(100):
        registry.counter(f"c{number}").inc()
    flusher.flush(0)
    eventually(lambda: flusher.status().destinations[1].points_sent)
    kept, added = flusher.status().destinations
    assert (kept.label, added.label) == (f"graphite://{old}", f"graphite://127.0.0.1:{new.port}:a")
    assert 0 < len(new.values) == added.points_sent < 200
    assert kept.waiting_points == 1 + 200 - added.points_sent
    flusher.stop(0.1)


def test_a_node_delivers_and_closes_as_a_single_destination(peers):
    """What it is given goes to its own host, whoever's it may be."""
    one = peers(1)[0]
    (node,) = open_destinations(f"graphite://127.0.0.1:{one.port}:a?hash=carbon_ch", Naming())
    assert node.deliver(b"a 1 10\n", Deadline(20)) == {}
    node.close()
    eventually(lambda: one.values == {("a", 10): 1})
