"""Several Graphite nodes of which any one will do: a batch goes to the first that is up.

The nodes share one queue, for what one cannot take another can: nothing waits for a node that stays away, and batches
keep their order across nodes, so an older value of a slot is never the last to arrive. When a node fails that was up,
the attempt fails, as that of a single destination does. So the sender comes again, now for the next node, and sends
that one what was delivered in the last minute, too: the one that failed may have had it in memory only. From then on
the node is passed over, for longer each time it fails, and tried again in attempts that fall back on the next.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from ..clock import SYSTEM_CLOCK, Clock
from ..window import Cut
from .batch import Batch, Deadline, Undelivered
from .destination import Destination, NodeStatus
from .graphite import GraphiteDestination
from .sender import Backoff

__all__ = ["Failover"]


class Failover(Destination):
    """Delivers to one of ``nodes``: the first in their order that is up. They understand the same payloads.

    ``rng`` returns random numbers from 0 to 1, for the time that a node is passed over.
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

    def encode(self, cut: Cut) -> list[Batch]:
        return self._encode(cut)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        tried = self._due()
        for left, node in zip(range(len(tried), 0, -1), tried, strict=True):
            was_up = not node.backoff.failures
            try:
                lost = node.destination.deliver(payload, deadline if was_up else deadline.part(1 / left))
            except Undelivered as failure:
                node.failed(failure.reason)
                if was_up or left == 1:
                    raise
            else:
                node.arrived()
                return lost
        raise AssertionError("there is always one to try")

    def _due(self) -> list["_Node"]:
        """Return whom to try: those whose time has come again, and then the first that is up."""
        now, found = self._clock.monotonic(), list[_Node]()
        for node in self._nodes:
            if now >= node.backoff.due:
                found.append(node)
            if not node.backoff.failures:
                break
        return found or [min(self._nodes, key=lambda node: node.backoff.due)]

    def nodes(self) -> list[NodeStatus]:
        """Return how each node is, in their order; changes nothing."""
        return [node.status() for node in self._nodes]

    def close(self) -> None:
        for node in self._nodes:
            node.destination.close()


class _Node:
    """A node and how it goes with it. One thread delivers, others ask for the status."""

    def __init__(self, destination: GraphiteDestination, clock: Clock, backoff: Backoff) -> None:
        self.destination = destination
        self.backoff = backoff
        """How often it failed in a row, and before which moment it is passed over."""
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
        up = not self.backoff.failures
        return NodeStatus(self.destination.label, up, self._since, self._errors, self._last_error)
