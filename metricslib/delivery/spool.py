"""The spool: batches on their way to one destination, until they are delivered or have to be dropped.

The account is kept in points, and balances at any moment: what was put is delivered, dropped (by cause) or waiting.

What waits in which order is told in :mod:`.lanes`; where it waits is told by whoever implements :class:`Spool`: in
memory, or in a journal on disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .batch import Batch

__all__ = ["Holdings", "Spool"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """A spool at one moment: ``put == delivered + sum(dropped.values()) + waiting_points``."""

    put: int
    delivered: int
    windows: int
    """How many windows are among the delivered."""
    dropped: Mapping[str, int]
    waiting_points: int
    waiting_batches: int
    """Repeats among them. What was taken together is one."""
    waiting_bytes: int
    """Those of repeats among them."""
    backlog_batches: int = 0
    """How many of the waiting are replayed after an outage, while what is new goes before them."""
    backlog_points: int = 0
    """Repeats among them."""
    lag: float = 0.0
    """Seconds for which the oldest of what waits has waited."""
    replay_rate: float = 0.0
    """How many points a second of the backlog go out, at most."""
    on_disk: bool = False
    """Whether what is put now outlives the process."""
    trouble: str | None = None
    """For people: why it is not on disk, or what went wrong there."""


class Spool(Protocol):
    """What a courier asks of a spool. Every method may be called from any thread; none raises for what is put in."""

    def put(self, batch: Batch) -> None:
        """Let ``batch`` wait. Over a bound the oldest are dropped, cause ``spool_full``."""
        ...

    def refuse(self, points: int, cause: str) -> None:
        """Count points that were to be put but cannot be delivered here."""
        ...

    def head(self, *, hurry: bool = False) -> Batch | None:
        """Take and return the next batch; None when nothing waits, or nothing but a backlog that is not due yet.

        It must be settled before the next is taken. With ``hurry``, the backlog is due at any rate.
        """
        ...

    def pause(self) -> float | None:
        """Return the seconds until there is a next batch; None when nothing waits."""
        ...

    def settle(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        """Say what became of the batch taken.

        ``remaining`` goes on waiting in front, ``lost`` points are dropped, by cause, and all else was delivered.
        Raises ValueError if that is more than there was. A batch that was abandoned meanwhile is ignored.
        """
        ...

    def rewind(self, seconds: float) -> int:
        """Put what was delivered in the last ``seconds`` before the last delivery in front again; return its points.

        The batch taken then goes on waiting behind it: an older batch may hold an older value of the same slot, and
        must not be the last to arrive.
        """
        ...

    def abandon(self, cause: str) -> int:
        """Drop all that waits, the batch taken too; return its points."""
        ...

    def end(self, cause: str) -> int:
        """The process may end now: drop what does not outlive it; return its points. The rest goes on waiting."""
        ...

    def holdings(self) -> Holdings:
        """Return the account and what waits."""
        ...

    def forget(self) -> None:
        """In a forked child: start empty. What waits is the parent's. No lock of the parent is touched."""
        ...
