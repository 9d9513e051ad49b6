"""What tests of the page share: a flusher that ships nothing, time that passes, and the state of a destination."""

from collections.abc import Callable
from typing import Any

import pytest

from metricslib.delivery import SenderStatus
from metricslib.flusher import Flusher, FlusherStatus
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from metricslib.view.report import Report, report


@pytest.fixture
def flusher(registry: Registry) -> Flusher:
    """A flusher that is not running: intervals end when the test says so."""
    return Flusher(registry, interval=10, percentiles=(90, 99), own="")


@pytest.fixture
def end_interval(flusher: Flusher, clock: ManualClock) -> Callable[[], None]:
    """Call to let the interval end."""

    def end_interval() -> None:
        clock.advance(10)
        flusher.tick()

    return end_interval


@pytest.fixture
def look(registry: Registry, flusher: Flusher, clock: ManualClock) -> Callable[..., Report]:
    """Call for the report of this moment; `destinations` and other members of the status may be given."""

    def look(**options: Any) -> Report:
        status = {name: options.pop(name) for name in FlusherStatus.__slots__ if name in options}
        end = (int(clock.time()) // 10 + 1) * 10
        shown = flusher_status(flusher, **status)
        return report(
            registry.snapshot(end, 10.0), shown, percentiles=(90, 99), memory=registry.budget.usage(), **options
        )

    return look


def flusher_status(flusher: Flusher, **changes: Any) -> FlusherStatus:
    status = flusher.status()
    values = {name: getattr(status, name) for name in FlusherStatus.__slots__}
    return FlusherStatus(**{**values, **changes})


@pytest.fixture
def destination() -> Callable[..., SenderStatus]:
    """Call for the state of a destination that is well, but for what is given."""

    def destination(**changes: Any) -> SenderStatus:
        values: dict[str, Any] = {
            "label": "graphite://graphite.example:2003",
            "up": True,
            "since": 1_700_000_000.0,
            "age": 3.5,
            "windows_sent": 12,
            "points_sent": 3456,
            "bytes_sent": 7 * 2**20,
            "errors": 0,
            "errors_by_type": {},
            "dropped": {},
            "waiting_batches": 0,
            "waiting_points": 0,
            "waiting_bytes": 0,
            "last_error": None,
        }
        return SenderStatus(**{**values, **changes})

    return destination
