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
    """The URL without secrets."""
    up: bool
    """True while the server confirms deliveries: the last attempt succeeded, and none has been in progress for more
    than five seconds. True before the first attempt.
    """
    since: float
    """Time of the last change of ``up``, in seconds since the epoch."""
    errors: int
    """Number of failed attempts."""
    last_error: str | None
    """The last error as a sentence, without secrets, or None."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all destinations have in their URLs."""

    timeout: float = 5.0
    """Maximum duration of an attempt to deliver a batch, in seconds."""
    spool_bytes: int = 64 << 20
    """Maximum number of waiting bytes. Above it, the oldest data is dropped."""
    max_age: float | None = None
    """Seconds after which waiting data is dropped; None: never."""
    revise: bool = True
    """Whether a slot may be sent more than once. False is for receivers that do not keep the last value."""
    replay: float = 20_000
    """Maximum number of points per second of a backlog that are sent in addition to new data, if repeating is harmless.
    """
    verify: str | None = None
    """URL of the render API that verifies deliveries; None: deliveries are not verified."""


class Destination(ABC):
    """The base class of destinations.

    ``label`` is the URL without secrets, for pages and logs. A sender calls the methods from one thread at a time;
    :meth:`encode`, :meth:`share` and :meth:`nodes` may also be called from others.
    """

    deltas = False
    """True if the receiver adds values up, so that each event must be sent once."""
    relays = True
    """True if the destination accepts relayed Graphite lines."""
    shared = True
    """True if the receiver keeps the last value of a path, so that processes with the same paths must send as one."""
    resend = True
    """True if sending twice is harmless. If ``deltas`` is true as well, the receiver recognises repeated batches."""

    advice: Mapping[str, str] = {}
    """Advice for the log when points are dropped, by cause, if it differs from that for other destinations."""

    def __init__(self, label: str, options: Options) -> None:
        self.label = label
        self.options = options
        self.revise = options.revise
        """Whether a slot may be sent before it is complete, and again afterwards."""

    @abstractmethod
    def encode(self, flush: Flush) -> list[Batch]:
        """Return the batches to send for ``flush``, in order. The list may be empty."""

    @abstractmethod
    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Deliver the payload of a batch before the deadline, and return the number of lost lines, by cause.

        Raises :class:`~.batch.Undelivered` if data remains to be sent.
        """

    def share(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return the relayed points for this destination: all of them, unless it is a node of a cluster."""
        return points

    def nodes(self) -> Sequence[NodeStatus]:
        """Return the state of each server if there are several, otherwise nothing."""
        return ()

    def close(self) -> None:  # noqa: B027
        """Close open sockets and files. The destination may be used again. Also called in a forked child."""
