"""What a destination is: it encodes windows into batches of bytes, and delivers those."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..window import Flush
from ..wire.graphite import Point
from .batch import Batch, Deadline

__all__ = ["Destination", "NodeStatus", "Options"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How delivery goes to one of the servers behind a destination."""

    label: str
    """Its URL, without what is secret in it."""
    up: bool
    """Whether it confirms what it is sent: the last attempt succeeded, and none has been under way for more than five
    seconds. True before the first.
    """
    since: float
    """Since when, in seconds since the epoch."""
    errors: int
    """Attempts that failed."""
    last_error: str | None
    """For people; holds no secret."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the query of any destination's URL can set."""

    timeout: float = 5.0
    """Seconds that one attempt to deliver a batch may take."""
    spool_bytes: int = 64 << 20
    """How much may wait; beyond, the oldest is dropped."""
    max_age: float | None = None
    """Seconds after which what waits is dropped; None: never."""
    revise: bool = True
    """Whether a slot may be sent more than once. Not so for receivers that do not keep the last value."""
    replay: float = 20_000
    """Points a second of a backlog that go out beside what is new, at most, where sending again is harmless."""
    verify: str | None = None
    """URL of the render API that is asked for what was delivered; None: it is not."""


class Destination(ABC):
    """Where windows go: a base class with what most destinations have in common.

    ``label`` is the URL without what may be secret, for pages and logs. A sender calls it from one thread at a time;
    :meth:`encode`, :meth:`share` and :meth:`nodes` may be called from others.
    """

    deltas = False
    """Whether it adds up what it is sent, and so gets each event once."""
    relays = True
    """Whether a payload may be lines of Graphite that came from elsewhere."""
    shared = True
    """Whether processes that ship the same thing must ship as one: whether the last value of a path wins there."""
    resend = True
    """Whether sending twice is harmless. Where it adds up what it is sent, it knows again what it has had."""

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
        """Return what is for this destination of points that are relayed: all, unless others get the rest."""
        return points

    def nodes(self) -> Sequence[NodeStatus]:
        """Return how it goes with each of several servers behind it; empty where there is one only."""
        return ()

    def close(self) -> None:  # noqa: B027
        """Let go of what is open; the destination may be used again. Called in a forked child, too."""
