"""What identifies a series: its kind, its name and its tags.

And how filters change that before a series is first used.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Literal, NamedTuple, get_args

from .names import EMPTY, Tags, canonical_tags, checked_name, filled, join, sanitise, split, without_empty_parts

__all__ = ["KINDS", "Filter", "Kind", "Series", "add_tags", "drop", "keep", "rename", "series_of"]

Kind = Literal["counter", "timer", "histogram", "gauge", "unique"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds, in the order in which their values are sent."""


class Series(NamedTuple):
    """One series. Two instruments with an equal one are the same instrument."""

    kind: Kind
    name: str
    tags: Tags = ()

    @property
    def key(self) -> str:
        """The canonical text, ``name;key=value``: what identifies the series within its kind."""
        return join(self.name, self.tags) if self.tags else self.name

    @classmethod
    def of_key(cls, kind: Kind, key: str) -> "Series":
        """Return the series of which ``key`` is the canonical text, or becomes it."""
        return cls(kind, *split(key))


def series_of(kind: Kind, name: str, tags: Mapping[str, object] | Iterable[tuple[str, object]] = ()) -> Series:
    """Return a program's series with ``name``, which may itself carry tags (``web.hits;route=u``); those in ``tags``
    win.

    Empty parts of the name vanish: destinations differ in what they make of ``a..b`` and ``.a``. What a forwarder reads
    in statsd's lines keeps its dots, as in statsd, and does not come this way.
    """
    if type(name) is not str:
        name = checked_name(name)
    if not tags and name.isidentifier() and name.isascii():
        return Series(kind, name)
    name, own = split(name)
    name = without_empty_parts(name) or EMPTY
    return Series(kind, name, canonical_tags([*own, *canonical_tags(tags)]) if tags else own)


Filter = Callable[[Series], Series | None]
"""Called once for each new series: returns it as it is or changed, or None to leave it out."""


def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(translate(checked_name(glob, "glob"))).match


def drop(glob: str) -> Filter:
    """Leave out every series whose name matches ``glob`` (``*``, ``?`` and ``[…]`` as in file names)."""
    matches = _matcher(glob)
    return lambda series: None if matches(series.name) else series


def keep(glob: str) -> Filter:
    """Leave out every series whose name does not match ``glob``."""
    matches = _matcher(glob)
    return lambda series: series if matches(series.name) else None


def rename(glob: str, name: str) -> Filter:
    """Give series whose name matches ``glob`` another name; ``{name}`` in it stands for the old one.

    Raises :class:`~.errors.InvalidOption` for another word in braces.

    >>> rename("old.*", "new.{name}")(Series("counter", "old.hits"))
    Series(kind='counter', name='new.old.hits', tags=())
    """
    matches = _matcher(glob)
    name = checked_name(name)
    filled("name", name, {"name": ""})

    def renamed(series: Series) -> Series:
        if not matches(series.name):
            return series
        found = sanitise(name.replace("{name}", series.name)).replace(";", "_")
        return series._replace(name=without_empty_parts(found) or EMPTY)

    return renamed


def add_tags(glob: str = "*", /, **tags: object) -> Filter:
    """Add ``tags`` to every series whose name matches ``glob``; tags that the series already has win."""
    matches = _matcher(glob)
    common = canonical_tags(tags)
    return lambda series: (
        series._replace(tags=canonical_tags([*common, *series.tags])) if matches(series.name) else series
    )
