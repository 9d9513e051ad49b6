"""Of nodes of which any will do, the first that is up gets everything; nothing is lost when it goes."""

import socket
from collections.abc import Callable, Iterator

import pytest

from metricslib.delivery import Batch, Deadline, NodeStatus, Sender, open_destinations
from metricslib.delivery.cluster import Failover
from metricslib.delivery.graphite import GraphiteDestination
from metricslib.flusher import Flusher
from metricslib.naming import Naming
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from tests.peers import GraphitePeer, eventually


@pytest.fixture
def port() -> Iterator[Callable[[], int]]:
    """Call for a port where nobody listens and nobody else can, but a peer of this test."""
    held: list[socket.socket] = []

    def hold() -> int:
        held.append(socket.socket())
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held[-1].bind(("127.0.0.1", 0))
        number: int = held[-1].getsockname()[1]
        return number

    yield hold
    for one in held:
        one.close()


@pytest.fixture
def graphite(port: Callable[[], int]) -> Iterator[Callable[..., GraphitePeer]]:
    """Call for a Graphite that ends with the test, if not before; when it ends, its port refuses."""
    peers: list[GraphitePeer] = []

    def start(number: int = 0) -> GraphitePeer:
        peers.append(GraphitePeer(number or port()))
        return peers[-1]

    yield start
    for one in peers:
        one.close()


class Delivery:
    """A sender to some ports of this host, whose clock and whose waits are the test's."""

    def __init__(self, clock: ManualClock, *ports: int, options: str = "") -> None:
        nodes = [open_destinations(f"graphite://127.0.0.1:{port}?{options}", Naming())[0] for port in ports]
        graphites = [node for node in nodes if isinstance(node, GraphiteDestination)]
        self.clock = clock
        self.failover = Failover("graphite://cluster", graphites, clock=clock, rng=lambda: 1.0)
        self.sender = Sender(self.failover, clock=clock, rng=lambda: 1.0)

    def send(self, value: int) -> None:
        """Let one more window wait, and do what is due."""
        self.sender.put(Batch(value, 1, b"a %d %d\n" % (value, value)))
        self.step()

    def step(self, seconds: float = 0) -> None:
        """Let time pass, and do all that is due."""
        self.clock.advance(seconds)
        while self.sender.step() == 0:
            pass

    @property
    def nodes(self) -> list[NodeStatus]:
        return list(self.sender.status().nodes)


def sent(value: int) -> bytes:
    return b"a %d %d\n" % (value, value)


def received(one: GraphitePeer, expected: bytes) -> bool:
    eventually(lambda: one.received == expected, or_else=f"{expected!r}, but {one.received!r}")
    return True


def test_everything_goes_to_the_first_that_is_up(graphite, clock: ManualClock):
    """The others are not even asked."""
    first, second = graphite(), graphite()
    delivery = Delivery(clock, first.port, second.port)
    delivery.send(1)
    delivery.send(2)
    assert received(first, sent(1) + sent(2))
    assert second.received == b""
    assert [(node.up, node.errors) for node in delivery.nodes] == [(True, 0), (True, 0)]


def test_when_it_goes_the_next_gets_all_of_the_last_minute(graphite, clock: ManualClock):
    """What the first may have had in memory only, too; each slot once more, after what ended the outage."""
    first, second = graphite(), graphite()
    delivery = Delivery(clock, first.port, second.port)
    delivery.send(1)
    assert received(first, sent(1))
    first.close()
    delivery.send(2)
    assert delivery.sender.status().waiting_points == 1
    delivery.step(0.5)
    assert received(second, sent(2) + sent(1))
    status = delivery.sender.status()
    assert (status.points_sent, status.waiting_points, status.dropped, status.up) == (2, 0, {}, True)


def test_a_node_that_is_down_is_passed_over_and_costs_no_attempt(graphite, port, clock: ManualClock):
    """It is tried again after a time that doubles, in an attempt that falls back on the next."""
    second = graphite()
    delivery = Delivery(clock, port(), second.port)
    delivery.send(1)
    delivery.step(0.4)
    delivery.clock.advance(0.1)
    errors = []
    for value in range(2, 12):
        delivery.send(value)
        errors.append((delivery.nodes[0].errors, delivery.sender.status().errors))
        delivery.clock.advance(0.25)
    assert errors == [(2, 1)] * 4 + [(3, 1)] * 6
    assert received(second, b"".join(map(sent, (2, 1, *range(3, 12)))))  # what is new goes first


def test_a_node_that_is_back_is_the_first_again(graphite, port, clock: ManualClock):
    """It gets what comes from then on; the other keeps what it has."""
    number, second = port(), graphite()
    delivery = Delivery(clock, number, second.port)
    delivery.send(1)
    delivery.step(0.5)
    assert received(second, sent(1))
    first = graphite(number)
    delivery.clock.advance(60)
    back = clock.time()
    delivery.send(2)
    assert received(first, sent(2))
    assert received(second, sent(1))
    assert (delivery.nodes[0].up, delivery.nodes[0].since) == (True, back)


def test_when_all_are_down_everything_waits_for_whoever_comes_back(graphite, port, clock: ManualClock):
    """The sender tries one at a time, whose turn it is; nothing is dropped."""
    first, second = port(), port()
    delivery = Delivery(clock, first, second)
    delivery.send(1)
    for value in range(2, 6):
        delivery.clock.advance(40)
        delivery.send(value)
    down = delivery.sender.status()
    assert (down.up, down.waiting_points, down.dropped) == (False, 5, {})
    assert [node.up for node in down.nodes] == [False, False]
    assert all(node.last_error and "refused" in node.last_error for node in down.nodes)
    back = graphite(second)
    delivery.step(60)
    assert received(back, b"".join(map(sent, range(5, 0, -1))))
    assert [node.up for node in delivery.nodes] == [False, True]


def test_one_that_never_answers_leaves_time_for_the_next(graphite, port, clock: ManualClock):
    """When it is tried again it gets a share of an attempt's time only, and the batch arrives within that attempt."""
    number, second = port(), graphite()
    delivery = Delivery(clock, number, second.port, options="timeout=6s")
    delivery.send(1)
    delivery.step(0.5)
    assert received(second, sent(1))
    with socket.create_server(("127.0.0.1", number)):
        delivery.clock.advance(60)
        delivery.send(2)
    assert received(second, sent(1) + sent(2))
    assert (delivery.nodes[0].last_error or "").endswith("no answer in time")
    assert (delivery.nodes[0].errors, delivery.sender.status().errors) == (3, 1)


def test_a_node_that_confirms_nothing_is_not_up(port, clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    """An attempt that is under way for longer than five seconds says so, before it fails or succeeds."""
    delivery = Delivery(clock, port(), port(), options="timeout=60s")
    seen: list[list[tuple[bool, float]]] = []

    def slow(self, payload: bytes, deadline: Deadline) -> dict[str, int]:
        for _ in range(3):
            seen.append([(node.up, clock.time() - node.since) for node in delivery.nodes])
            clock.advance(3)
        return {}

    monkeypatch.setattr(GraphiteDestination, "deliver", slow)
    delivery.send(1)
    assert seen == [[(True, 0), (True, 0)], [(True, 3), (True, 3)], [(False, 6), (True, 6)]]
    assert [node.up for node in delivery.nodes] == [True, True]


def test_a_program_goes_on_when_a_node_goes(graphite, registry: Registry):
    """From its calls to the nodes: over the second the interval is whole, and the page says who is up."""
    first, second = graphite(), graphite()
    url = f"graphite://127.0.0.1:{first.port},127.0.0.1:{second.port}?pick=failover"
    flusher = Flusher(registry, url, own="")
    flusher.start()
    registry.counter("hits").inc()
    assert flusher.flush(30)
    assert first.at("stats.counters.hits.count") == [1]
    first.close()
    registry.counter("hits").inc()
    flusher.relay([("relayed", 1, 1_700_000_000)])
    assert flusher.stop(30)
    assert second.at("stats.counters.hits.count") == [2]
    assert second.at("relayed") == [1]
    (status,) = flusher.status().destinations
    assert [(node.label.rpartition(":")[2], node.up) for node in status.nodes] == [
        (str(first.port), False),
        (str(second.port), True),
    ]
