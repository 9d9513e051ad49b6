"""The interface of a destination: it encodes windows into batches of bytes, and delivers them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..window import Flush
from ..wire.graphite import Point
from .batch import Batch, Deadline

__all__ = ["Destination", "NodeStatus", "Options"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The state of the delivery to one of several servers behind a destination."""

    label: str
    """Its URL without secrets."""
    up: bool
    """Whether it confirms what it is sent: the last attempt succeeded, and none has been under way for more than five
    seconds. True before the first.
    """
    since: float
    """Time of the last change of ``up``, in seconds since the epoch."""
    errors: int
    """Attempts that failed."""
    last_error: str | None
    """The last error as a sentence, without secrets, or None."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the query of any destination's URL can set."""

    timeout: float = 5.0
    """Seconds that one attempt to deliver a batch may take."""
    spool_bytes: int = 64 << 20
    """Bytes that may wait; beyond that, the oldest are dropped."""
    max_age: float | None = None
    """Seconds after which waiting data is dropped; None: never."""
    revise: bool = True
    """Whether a slot may be sent more than once. Not so for receivers that do not keep the last value."""
    replay: float = 20_000
    """Points per second of a backlog that are sent beside new data, at most, where sending again is harmless."""
    verify: str | None = None
    """URL of the render API that verifies deliveries; None: deliveries are not verified."""


class Destination(ABC):
    """Where windows go: a base class with what most destinations have in common.

    ``label`` is the URL without what may be secret, for pages and logs. A sender calls it from one thread at a time;
    :meth:`encode`, :meth:`share` and :meth:`nodes` may be called from others.
    """

    deltas = False
    """True if the receiver adds values up, and so must get each event once."""
    relays = True
    """Whether a payload may be lines of Graphite that came from elsewhere."""
    shared = True
    """Whether processes that ship the same thing must ship as one: whether the last value of a path wins there."""
    resend = True
    """True if sending twice is harmless. If ``deltas`` is true as well, the receiver recognises repeated batches."""

    advice: Mapping[str, str] = {}
    """What to change when points are dropped, by cause, where it differs from other destinations; for the log."""

    def __init__(self, label: str, options: Options) -> None:
        self.label = label
        self.options = options
        self.revise = options.revise
        """Whether a slot may be sent before it is complete, and again when it is."""

    @abstractmethod
    def encode(self, flush: Flush) -> list[Batch]:
        """Return what to send of ``flush``, in the order to send it; empty when there is nothing."""

    @abstractmethod
    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Deliver a batch's payload before the deadline and return the lines that were lost on the way, by cause.

        Raises :class:`~.batch.Undelivered` when something remains to be sent.
        """

    def share(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return those relayed points that are for this destination: all, except for the nodes of a cluster."""
        return points

    def nodes(self) -> Sequence[NodeStatus]:
        """Return the state of each of several servers behind it; empty if there is only one."""
        return ()

    def close(self) -> None:  # noqa: B027
        """Close open sockets and files. The destination may be used again. Also called in a forked child."""
