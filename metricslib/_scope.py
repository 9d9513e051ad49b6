"""The methods that create instruments and decorators, shared by registries and scopes."""

from collections.abc import Callable, Mapping
from typing import Never, TypeVar

from .decorators import Decorators
from .errors import InvalidOption, InvalidType
from .hints import VALUES, Hinted, nearest_choice, unknown_option
from .instruments.base import Instrument
from .instruments.counter import Counter
from .instruments.gauge import ACROSS, Across, Gauge
from .instruments.histogram import Histogram
from .instruments.timer import Timer
from .instruments.unique import Unique
from .series import Kind, TagMapping, Tags, canonical_tags, checked_name, checked_tags, prefixed, split

__all__ = ["Instruments", "Scope"]

Made = TypeVar("Made", bound=Instrument)


class Instruments(Decorators, metaclass=Hinted):
    """Methods that create an instrument at first use: the same kind, name and tags return the same object.

    A name may be any non-empty string, and may contain tags: ``name;key=value``. It is sanitised as in statsd. A name
    that is empty or not a string raises :class:`~.errors.InvalidType`.
    """

    def __dir__(self) -> list[str]:
        return [*dir(type(self)), *self.__dict__]

    def _make(self, kind: Kind, name: str, tags: TagMapping | None) -> Instrument:
        raise NotImplementedError

    def _checked(self, cls: type[Made], name: str, tags: TagMapping | None, unknown: Mapping[str, object]) -> Made:
        if unknown:
            raise unknown_option(getattr(Instruments, cls.kind), unknown)
        if tags is not None and not isinstance(tags, Mapping):
            raise InvalidType(
                "tags", tags, f"a mapping such as {{'route': '/search'}}; for a value use {VALUES[cls.kind]}"
            )
        return self._make(cls.kind, checked_name(name), tags)  # type: ignore[return-value]

    def counter(self, name: str, tags: TagMapping | None = None, **unknown: Never) -> Counter:
        """Return the counter ``name``. It is created at first use; the same name and tags return the same object.

        Args:
            name: A non-empty string, which may contain tags: ``"web.hits;route=u"``.
            tags: A mapping of tags. Values of any type are converted with ``str()``.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, or if ``tags`` is not a mapping.
        """
        return self._checked(Counter, name, tags, unknown)

    def gauge(
        self,
        name: str,
        read: Callable[[], float] | None = None,
        tags: TagMapping | None = None,
        across: Across | None = None,
        **unknown: Never,
    ) -> Gauge:
        """Return the gauge ``name``. It is created at first use; the same name and tags return the same object.

        Args:
            name: A non-empty string, which may contain tags.
            read: A function without arguments that returns the value. It is called once per interval in a background
                thread. A new ``read`` replaces the previous one. None: the value is set with ``set()``, ``inc()`` and
                ``dec()``.
            tags: A mapping of tags. Values of any type are converted with ``str()``.
            across: How the values of several workers that send as one are combined: ``"last"`` (the one that was set
                last), ``"sum"``, ``"min"``, ``"max"``, or ``"each"`` (one series for each worker, with the tag
                ``writer``). None: ``"last"`` for a gauge that is set, ``"sum"`` for one that is read or only changed
                with ``inc()`` and ``dec()``. Another value replaces the previous one. It also applies to gauges that
                ``tagged()`` returns afterwards.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, ``tags`` is not a mapping, or ``read`` is not
                callable.
            InvalidOption: If ``across`` is none of these.
        """
        if read is not None and (not callable(read) or isinstance(read, Instrument)):
            raise InvalidType("read", read, f"a callable that returns a number; for a value use {VALUES['gauge']}")
        if across is not None and across not in ACROSS:
            raise InvalidOption("across", across, nearest_choice(across, ACROSS))
        gauge = self._checked(Gauge, name, tags, unknown)
        if across is not None:
            gauge._across = across
        if read is not None:
            gauge._read_by(read)
        return gauge

    def timer(self, name: str, tags: TagMapping | None = None, **unknown: Never) -> Timer:
        """Return the timer ``name``. It is created at first use; the same name and tags return the same object.

        Args:
            name: A non-empty string, which may contain tags.
            tags: A mapping of tags. Values of any type are converted with ``str()``.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, or if ``tags`` is not a mapping.
        """
        return self._checked(Timer, name, tags, unknown)

    def histogram(self, name: str, tags: TagMapping | None = None, **unknown: Never) -> Histogram:
        """Return the histogram ``name``. It is created at first use; the same name and tags return the same object.

        Args:
            name: A non-empty string, which may contain tags.
            tags: A mapping of tags. Values of any type are converted with ``str()``.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, or if ``tags`` is not a mapping.
        """
        return self._checked(Histogram, name, tags, unknown)

    def unique(self, name: str, tags: TagMapping | None = None, **unknown: Never) -> Unique:
        """Return the unique ``name``. It is created at first use; the same name and tags return the same object.

        Args:
            name: A non-empty string, which may contain tags.
            tags: A mapping of tags. Values of any type are converted with ``str()``.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, or if ``tags`` is not a mapping.
        """
        return self._checked(Unique, name, tags, unknown)

    def scope(self, name: str, tags: TagMapping | None = None, **unknown: Never) -> "Scope":
        """Return a scope: its instruments and decorators have ``name`` and a dot in front of their names, and ``tags``.

        Args:
            name: A non-empty string, which may contain tags.
            tags: A mapping of tags. Values of any type are converted with ``str()``.

        Raises:
            InvalidType: If ``name`` is not a string or is empty, or if ``tags`` is not a mapping.
        """
        if unknown:
            raise unknown_option(Instruments.scope, unknown)
        name, own = split(checked_name(name))
        return Scope(self, name, canonical_tags([*own, *canonical_tags(checked_tags(tags) or {})]))


class Scope(Instruments):
    """Adds a name prefix and tags to all instruments and decorators that are made through it.

    Get one with :func:`metricslib.scope`. Tags of an instrument replace those of the scope with the same key.
    """

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

    def _note_function(self, name: str, function: Callable[..., object]) -> None:
        self._parent._note_function(prefixed(self._name, name), function)
