"""What a destination is: it encodes windows into batches of bytes, and delivers those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..window import Cut
from ..wire.graphite import Point
from .batch import Batch, Deadline

__all__ = ["Destination", "NodeStatus", "OfNodes", "OneOfMany", "Options"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How delivery goes to one of the servers behind a destination."""

    label: str
    """Its URL, without what is secret in it."""
    up: bool
    """Whether the last attempt succeeded; True before the first."""
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


class Destination(Protocol):
    """Where windows go. A sender calls it from one thread at a time; :meth:`encode` may be called from another."""

    @property
    def label(self) -> str:
        """The URL without what may be secret: for pages and logs."""
        ...

    @property
    def options(self) -> Options: ...

    @property
    def deltas(self) -> bool:
        """Whether it adds up what it is sent, and so gets each event once."""
        ...

    @property
    def relays(self) -> bool:
        """Whether a payload may be lines of Graphite that came from elsewhere."""
        ...

    @property
    def resend(self) -> bool:
        """Whether sending twice is harmless. Where it adds up what it is sent, it knows again what it has had."""
        ...

    @property
    def revise(self) -> bool:
        """Whether a slot may be sent before it is complete, and again when it is."""
        ...

    def encode(self, cut: Cut) -> list[Batch]:
        """Return what to send of ``cut``, in the order to send it; empty when there is nothing."""
        ...

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Deliver a batch's payload before the deadline and return the lines that were lost on the way, by cause.

        Raises :class:`Undelivered` when something remains to be sent.
        """
        ...

    def close(self) -> None:
        """Let go of what is open; the destination may be used again. Called in a forked child, too."""
        ...


@runtime_checkable
class OneOfMany(Protocol):
    """A destination that gets only a share of what is relayed, since others get the rest."""

    def share(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return its share of ``points``. Any thread may call it."""
        ...


@runtime_checkable
class OfNodes(Protocol):
    """A destination behind which there are several servers."""

    def nodes(self) -> Sequence[NodeStatus]:
        """Return how it goes with each. Any thread may call it."""
        ...
