"""Several Graphite nodes of which any one will do: a batch goes to the first that is up.

The nodes share one spool, for what one cannot take another can: nothing waits for a node that stays away, and batches
keep their order across nodes, so an older value of a slot is never the last to arrive. When a node fails that was up,
the attempt fails, as that of a single destination does. So the courier comes again, now for the next node, and sends
that one what was delivered in the last minute, too: the one that failed may have had it in memory only. From then on
the node is passed over, for longer each time it fails, and tried again in attempts that fall back on the next.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from ..clock import SYSTEM_CLOCK, Clock
from ..window import Cut
from .batch import Batch, Deadline, Undelivered
from .courier import BASE, CAP
from .graphite import GraphiteDestination
from .status import NodeStatus

__all__ = ["Failover"]


class Failover:
    """Delivers to one of ``nodes``: the first in their order that is up. They understand the same payloads.

    ``rng`` returns random numbers from 0 to 1, for the time that a node is passed over.
    """

    deltas = False
    relays = True
    resend = True

    def __init__(
        self,
        label: str,
        nodes: Sequence[GraphiteDestination],
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.label = label
        self.options = nodes[0].options
        self.revise = nodes[0].revise
        self._nodes = [_Node(node, clock) for node in nodes]
        self._encode = nodes[0].encode
        self._clock = clock
        self._rng = rng

    def encode(self, cut: Cut) -> list[Batch]:
        return self._encode(cut)

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        tried = self._due()
        for left, node in zip(range(len(tried), 0, -1), tried, strict=True):
            was_up = not node.failures
            try:
                lost = node.destination.deliver(payload, deadline if was_up else deadline.part(1 / left))
            except Undelivered as failure:
                node.failed(failure.reason, self._rng())
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
            if now >= node.due:
                found.append(node)
            if not node.failures:
                break
        return found or [min(self._nodes, key=lambda node: node.due)]

    def nodes(self) -> list[NodeStatus]:
        """Return how each node is, in their order; changes nothing."""
        return [node.status() for node in self._nodes]

    def close(self) -> None:
        for node in self._nodes:
            node.destination.close()


class _Node:
    """A node and how it goes with it. One thread delivers, others ask for the status."""

    def __init__(self, destination: GraphiteDestination, clock: Clock) -> None:
        self.destination = destination
        self.failures = 0
        """In a row; 0: it is up."""
        self.due = 0.0
        """Before which moment of the monotonic clock it is passed over."""
        self._clock = clock
        self._since = clock.time()
        self._errors = 0
        self._last_error: str | None = None

    def failed(self, reason: str, chance: float) -> None:
        if not self.failures:
            self._since = self._clock.time()
        self.due = self._clock.monotonic() + chance * min(CAP, BASE * 2 ** min(self.failures, 16))
        self.failures += 1
        self._errors += 1
        self._last_error = reason

    def arrived(self) -> None:
        if self.failures:
            self._since = self._clock.time()
        self.failures, self.due = 0, 0.0

    def status(self) -> NodeStatus:
        return NodeStatus(self.destination.label, not self.failures, self._since, self._errors, self._last_error)
