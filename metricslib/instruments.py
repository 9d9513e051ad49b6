"""The calls that make instruments and decorators, written once for the registry and for scopes of it."""

from collections.abc import Callable
from typing import cast

from .counter import Counter
from .decorators import Decorators
from .errors import InvalidType
from .gauge import Gauge
from .histogram import Histogram
from .instrument import Instrument
from .names import TagMapping, Tags, canonical_tags, checked_name, checked_tags, prefixed, split
from .series import Kind
from .timer import Timer
from .unique import Unique

__all__ = ["Instruments", "Scope"]


class Instruments(Decorators):
    """Get-or-create calls: the same kind, name and tags return the same object.

    A name may be any non-empty string and may carry tags as ``name;key=value``; characters are treated as statsd treats
    them. A name that is no string, or empty, raises :class:`~.errors.InvalidType`.
    """

    def _make(self, kind: Kind, name: str, tags: TagMapping | None) -> Instrument:
        raise NotImplementedError

    def counter(self, name: str, tags: TagMapping | None = None) -> Counter:
        """Return the counter ``name``, made at first use."""
        return cast(Counter, self._make("counter", checked_name(name), checked_tags(tags)))

    def gauge(self, name: str, read: Callable[[], float] | None = None, tags: TagMapping | None = None) -> Gauge:
        """Return the gauge ``name``, made at first use.

        ``read`` is asked for its value at each tick; a new one replaces it.
        """
        if read is not None and not callable(read):
            raise InvalidType("read", read, "a callable that returns a number")
        gauge = cast(Gauge, self._make("gauge", checked_name(name), checked_tags(tags)))
        if read is not None:
            gauge._read_by(read)
        return gauge

    def timer(self, name: str, tags: TagMapping | None = None) -> Timer:
        """Return the timer ``name``, made at first use."""
        return cast(Timer, self._make("timer", checked_name(name), checked_tags(tags)))

    def histogram(self, name: str, tags: TagMapping | None = None) -> Histogram:
        """Return the histogram ``name``, made at first use."""
        return cast(Histogram, self._make("histogram", checked_name(name), checked_tags(tags)))

    def unique(self, name: str, tags: TagMapping | None = None) -> Unique:
        """Return the unique ``name``, made at first use."""
        return cast(Unique, self._make("unique", checked_name(name), checked_tags(tags)))

    def scope(self, name: str, tags: TagMapping | None = None) -> "Scope":
        """Return a view in which every name starts with ``name`` and a dot, and every series has ``tags``."""
        name, own = split(checked_name(name))
        return Scope(self, name, canonical_tags([*own, *canonical_tags(checked_tags(tags) or {})]))


class Scope(Instruments):
    """A name and tags in front of everything that is made through it. Tags given later win."""

    def __init__(self, parent: Instruments, name: str, tags: Tags) -> None:
        self._parent = parent
        self._name = name
        self._tags = tags

    def __repr__(self) -> str:
        return f"<Scope {self._name} of {self._parent!r}>"

    def _make(self, kind: Kind, name: str, tags: TagMapping | None) -> Instrument:
        name, own = split(name)
        later = canonical_tags([*self._tags, *own, *canonical_tags(tags or {})])
        return self._parent._make(kind, prefixed(self._name, name), dict(later))
