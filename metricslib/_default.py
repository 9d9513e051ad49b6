"""The default registry, which the functions of the package use. :mod:`~._shipping` has its flusher."""

from .registry import Registry

__all__ = [
    "count_exceptions",
    "counted",
    "counter",
    "default_registry",
    "gauge",
    "histogram",
    "in_progress",
    "scope",
    "timed",
    "timer",
    "unique",
]

default_registry = Registry()
"""The registry behind the functions of the package, such as ``metricslib.counter``."""


def _registry() -> Registry:
    return default_registry


default_registry._reference = _registry  # functions that are decorated with it can be sent to other processes

counter = default_registry.counter
gauge = default_registry.gauge
timer = default_registry.timer
histogram = default_registry.histogram
unique = default_registry.unique
scope = default_registry.scope
timed = default_registry.timed
counted = default_registry.counted
count_exceptions = default_registry.count_exceptions
in_progress = default_registry.in_progress
