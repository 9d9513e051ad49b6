"""What a registry knows at one moment: the value that the page, the JSON and tests read."""

from collections.abc import Mapping
from typing import NamedTuple

from .series import Kind
from .totals import Total
from .window import Window

__all__ = ["Snapshot"]


class Snapshot(NamedTuple):
    """A registry at one moment. Reading it changes nothing; callback gauges are as of the last tick."""

    time: float
    """Wall-clock seconds since the epoch."""
    open: Window
    """The interval that is open, until now."""
    last: Window | None
    """The last whole interval; None before the first tick."""
    totals: Mapping[Kind, Mapping[str, Total]]
    """Lifetime totals over all whole intervals, by kind and key."""
    dropped: Mapping[str, int]
    """What was refused or dropped since the start, by cause."""
