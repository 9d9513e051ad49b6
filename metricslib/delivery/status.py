"""How delivery to one destination goes: a value for the page, the JSON and the library's own metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NodeStatus", "Status"]


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
class Status:
    """Counts are since the start, or the fork."""

    label: str
    """The URL, without what is secret in it."""
    up: bool
    """Whether the last attempt succeeded; True before the first."""
    since: float
    """Since when, in seconds since the epoch."""
    age: float | None
    """Seconds since the last success; None before the first."""
    windows_sent: int
    points_sent: int
    bytes_sent: int
    """Repeats after an outage among them, unlike the windows and points."""
    errors: int
    """Attempts that failed, and whatever else went wrong."""
    errors_by_type: Mapping[str, int]
    dropped: Mapping[str, int]
    """Points, by cause."""
    waiting_batches: int
    waiting_points: int
    waiting_bytes: int
    last_error: str | None
    """For people; holds no secret."""
    last_failure: float = 0.0
    """When an attempt last failed, in seconds since the epoch; 0: never."""
    last_seconds: float = 0.0
    """How long the last successful attempt took,"""
    last_bytes: int = 0
    """and how much it delivered."""
    nodes: Sequence[NodeStatus] = ()
    """The servers of which each batch goes to one; empty where there is one only."""
    lag: float = 0.0
    """Seconds for which the oldest of what waits has waited; 0 when nothing waits."""
    backlog_batches: int = 0
    """What waits since an outage, and is replayed beside what is new;"""
    backlog_points: int = 0
    """how many points that are, repeats among them;"""
    replay_rate: float = 0.0
    """how many of them go out in a second;"""
    drained_in: float | None = 0.0
    """and in how many seconds it is all sent, if nothing changes; None while the destination is away."""
    on_disk: bool = False
    """Whether what waits outlives the process."""
    spool_trouble: str | None = None
    """For people: why it does not although there is a spool directory, or what was wrong there."""
