"""What the tests of integrations share: what a registry counted, by kind and by key."""

from collections.abc import Callable
from typing import Any

import pytest

from metricslib.registry import Registry

Measured = dict[str, float]


@pytest.fixture
def measured(registry: Registry, tick: Callable[[], Any]) -> Callable[[], Measured]:
    """Call to end the interval, for each series that is not idle: the value, or the count of a timer."""

    def measured() -> Measured:
        window = tick().cumulative
        counts: Measured = {key: timer.count for key, timer in window.timers.items() if timer.count}
        counts.update({key: value for key, value in window.counters.items() if value})
        counts.update(window.gauges)
        return counts

    return measured
