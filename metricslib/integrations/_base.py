"""What the integrations share: which registry they measure into, calls in progress, and functions that are replaced."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from .._default import default_registry
from .._scope import Instruments
from ..errors import InvalidType
from ..instruments.gauge import Gauge

__all__ = ["InProgress", "instruments_of", "replace"]

_MARK = "_metricslib_original"


def instruments_of(instruments: Instruments | None) -> Instruments:
    """Return the registry or scope to measure into; None is the default registry."""
    if instruments is None:
        return default_registry
    if not isinstance(instruments, Instruments):
        raise InvalidType("instruments", instruments, "a Registry, or a scope of one")
    return instruments


class InProgress:
    """Shows with a gauge how many calls are in progress. In a forked child the calls of the parent do not count."""

    __slots__ = ("_gauge",)

    def __init__(self, gauge: Gauge) -> None:
        gauge._count_calls()
        self._gauge = gauge

    def begin(self) -> object:
        """Count a call that begins, and return it for :meth:`end`."""
        call = object()
        self._gauge._enter(call)
        return call

    def end(self, call: object) -> None:
        """Count the call no more. May be repeated."""
        self._gauge._running.discard(call)


def replace(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Replace the function ``name`` of ``owner`` by ``make(function)``. Return False, and do nothing, the second time.

    ``owner`` is a class, a module or an object. The replacement looks like the original.
    """
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return False
    replacement = wraps(original)(make(original))
    setattr(replacement, _MARK, original)
    setattr(owner, name, replacement)
    return True
