"""What the integrations share: which registry they measure into, calls in progress, and functions that are replaced."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, TypeVar

from .._default import default_registry
from .._scope import Instruments, Scope
from ..errors import InvalidType
from ..instruments.base import Instrument
from ..instruments.gauge import Gauge
from ..registry import Registry

__all__ = ["InProgress", "Tagged", "instruments_of", "monotonic_of", "replace"]

_MARK = "_metricslib_original"
_REMEMBERED = 10_000
"""Series of one name that are found by their values alone. Beyond that, the memory is begun anew."""

Made = TypeVar("Made", bound=Instrument)


def instruments_of(instruments: Instruments | None) -> Instruments:
    """Return the registry or scope to measure into; None is the default registry."""
    if instruments is None:
        return default_registry
    if not isinstance(instruments, Instruments):
        raise InvalidType("instruments", instruments, "a Registry, or a scope of one")
    return instruments


def monotonic_of(instruments: Instruments) -> Callable[[], float]:
    """Return the clock of a registry, or of the registry of a scope, that measures durations in seconds."""
    while isinstance(instruments, Scope):
        instruments = instruments._parent
    assert isinstance(instruments, Registry)
    return instruments.clock.monotonic


class Tagged(Generic[Made]):
    """The series of one name by the values of their tags, each made at its first use.

    ``make`` is a method of a registry or scope, such as ``registry.timer``. Unlike ``tagged()`` of an instrument, it
    makes no series without tags, which would stay empty. Never raises for a text.
    """

    __slots__ = ("_keys", "_known", "_make", "_name")

    def __init__(self, make: Callable[..., Made], name: str, *keys: str) -> None:
        self._make = make
        self._name = name
        self._keys = keys
        self._known: dict[tuple[str, ...], Made] = {}

    def __call__(self, *values: str) -> Made:
        made = self._known.get(values)
        if made is None:
            made = self._make(self._name, tags=dict(zip(self._keys, values, strict=True)))
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            self._known[values] = made
        return made


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
