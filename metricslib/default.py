"""The default registry: what stands behind the package's functions that measure. Shipping it is :mod:`~.shipping`."""

from .registry import Registry

__all__ = [
    "count_exceptions",
    "counted",
    "counter",
    "gauge",
    "histogram",
    "in_progress",
    "registry",
    "scope",
    "timed",
    "timer",
    "unique",
]

registry = Registry()
"""The registry behind ``metricslib.counter`` and its like."""


def _registry() -> Registry:
    return registry


registry._reference = _registry  # functions that are decorated with it can be sent to other processes

counter = registry.counter
gauge = registry.gauge
timer = registry.timer
histogram = registry.histogram
unique = registry.unique
scope = registry.scope
timed = registry.timed
counted = registry.counted
count_exceptions = registry.count_exceptions
in_progress = registry.in_progress
