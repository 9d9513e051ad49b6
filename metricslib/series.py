"""Series: kind, name and tags, and their text forms. Only this module knows which characters are legal.

A series is written ``name;key=value;key2=value2``, which is Graphite's form. Tags are sorted by key; of duplicate keys,
the last one wins. A tag called ``name`` becomes ``name_``, because Graphite stores the name itself under that key.
Characters are sanitised as in statsd: white space becomes ``_``, ``/`` becomes ``-``, and all characters outside
``[a-zA-Z0-9_.;=-]`` are deleted. So no name is refused for its characters, and a series has the same path, whether the
program sends it to Graphite directly or through a statsd server.

Filters (:func:`drop`, :func:`keep`, :func:`rename`, :func:`add_tags`) change a series before it is first used.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Literal, NamedTuple, get_args

from .attempt import attempt
from .errors import InvalidOption, InvalidType

__all__ = [
    "EMPTY",
    "Filter",
    "KINDS",
    "Kind",
    "Series",
    "TagMapping",
    "Tags",
    "add_tags",
    "canonical_path",
    "canonical_tags",
    "checked_name",
    "checked_tags",
    "drop",
    "filled",
    "join",
    "keep",
    "prefixed",
    "rename",
    "sanitise",
    "series_of",
    "split",
    "text_of",
    "text_or_none",
    "with_suffix",
    "without_empty_parts",
]

TagMapping = Mapping[str, object]
"""Tags as passed by a program. Values are strings, or objects that are converted with ``str()``."""

Tags = tuple[tuple[str, str], ...]
"""Tags in canonical form: sanitised, in the order of their texts ``key=value``, keys unique."""

EMPTY = "_"
"""Replaces a name, tag key or tag value that is empty after sanitising."""

_RESERVED = "name"
"""The tag key under which Graphite stores the name of a series. A tag with this key would be lost."""

# JavaScript's \s, which differs from Python's in U+FEFF and the separators U+001C to U+001F.
_SPACES = re.compile("[\\t\\n\\v\\f\\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_.;=-]")
_LEGAL = re.compile(r"[a-zA-Z0-9_.;=-]*\Z")
_BRACES = re.compile(r"\{([^{}]*)\}")
_SHORT = 2048  # bits; an int with this many has fewer digits than Python's lowest limit for int to str, 640


def text_of(value: object) -> str:
    """Return ``value`` as a plain string: a string unchanged, other objects converted with ``str()``.

    A member of an Enum of strings is itself a string, and its value is returned: ``hits`` for ``M.HITS = "hits"``. Its
    ``str()`` and ``format()`` are not used, because they differ between ``StrEnum`` and ``class M(str, Enum)``, and
    between versions of Python.
    """
    return str.__str__(value if issubclass(type(value), str) else str(value))


def text_or_none(value: object) -> str | None:
    """Like :func:`text_of`, but return None if ``__str__`` of the value raises an exception.

    None is also returned for an int with more digits than Python converts to text.
    """
    kind = type(value)
    if kind is int:
        return str(value) if _has_text(value) else None  # type: ignore[arg-type]
    if kind is float or kind is bool or value is None or issubclass(kind, str):
        return text_of(value)
    text = attempt(str, value)
    return None if text is None else str.__str__(text)


def _has_text(number: int) -> bool:
    limit = sys.get_int_max_str_digits()
    return not limit or number.bit_length() <= _SHORT or -(10**limit) < number < 10**limit


def filled(option: str, template: str, words: Mapping[str, str]) -> str:
    """Return ``template`` with each ``{word}`` replaced by its value in ``words``.

    Unlike :meth:`str.format`, this refuses attributes, indexes, conversions and format specs, so that a template from a
    configuration can only access ``words``. Braces have no other meaning, because names cannot contain them.

    Raises :class:`InvalidOption` for any other word, and for a single brace.
    """
    for word in _BRACES.findall(template):
        if word not in words:
            raise InvalidOption(option, template, f"{{{word}}} is unknown; {_meant(word, words)}")
    if "{" in (rest := _BRACES.sub("", template)) or "}" in rest:
        raise InvalidOption(option, template, f"a brace stands alone; {_meant('', words)}")
    return _BRACES.sub(lambda match: words[match[1]], template)


def _meant(word: str, words: Mapping[str, str]) -> str:
    from difflib import get_close_matches  # here, because it is slow to import and mistakes are rare

    name = re.split(r"[^a-z]", word.strip().lower())[0]
    close = get_close_matches(name, words, 1)
    return f"did you mean {{{close[0]}}}?" if close else f"known are {', '.join(f'{{{known}}}' for known in words)}"


def sanitise(key: str) -> str:
    """Sanitise ``key`` as statsd does. The result may contain ``;`` and ``=``, and may be empty."""
    if _LEGAL.match(key):
        return key
    return _ILLEGAL.sub("", _SPACES.sub("_", key).replace("/", "-"))


def checked_name(name: object, argument: str = "name") -> str:
    """Return ``name`` as a plain string if it is a non-empty string.

    Raises :class:`InvalidType` otherwise, because a wrong name is a programming error, which should show early.
    """
    if type(name) is str and name:
        return name
    if not isinstance(name, str) or not (text := text_of(name)):
        raise InvalidType(argument, name, "a non-empty string")
    return text


def checked_tags(tags: TagMapping | None) -> TagMapping | None:
    """Return ``tags`` if they are a mapping or None, and raise :class:`InvalidType` otherwise."""
    if tags is not None and not isinstance(tags, Mapping):
        raise InvalidType("tags", tags, "a mapping")
    return tags


def _tag_key(key: object) -> str:
    found = sanitise(text_of(key)).replace(";", "_").replace("=", "_") or EMPTY
    return f"{found}_" if found == _RESERVED else found


def _tag_value(value: object) -> str:
    return sanitise(text_of(value)).replace(";", "_") or EMPTY


def canonical_tags(tags: Mapping[str, object] | Iterable[tuple[str, object]]) -> Tags:
    """Return ``tags`` in canonical form. Keys and values may be of any type that :func:`text_of` accepts.

    >>> canonical_tags({"status": 200, "route": "/u v"})
    (('route', '-u_v'), ('status', '200'))
    """
    pairs = tags.items() if isinstance(tags, Mapping) else tags
    return _in_order({_tag_key(key): _tag_value(value) for key, value in pairs})


def _in_order(tags: Mapping[str, str]) -> Tags:
    """Sort tags like carbon, by the text ``key=value``: ``a1`` comes before ``a``."""
    return tuple(sorted(tags.items(), key=lambda tag: tag[0] + "="))


def canonical_path(path: str) -> str | None:
    """Return a path of Graphite in the form in which carbon stores it, or None if carbon would refuse it.

    The path is not sanitised. carbon removes a tag called ``name``, and any ``~`` before the name.

    >>> canonical_path("a.b;z=1;c=2;z=3"), canonical_path("~a;name=b"), canonical_path("no;tags")
    ('a.b;c=2;z=3', 'a', None)
    """
    if ";" not in path:
        return path.lstrip("~") or None
    name, *pieces = path.split(";")
    tags = {}
    for piece in pieces:
        key, _, value = piece.partition("=")
        if not key or "!" in key or "^" in key or not value or value.startswith("~"):
            return None
        tags[key] = value
    tags.pop(_RESERVED, None)
    name = name.lstrip("~")
    return join(name, _in_order(tags)) if name else None


def join(name: str, tags: Tags = ()) -> str:
    """Return the series' canonical text: ``name;key=value``.

    ``name`` must not contain ``;``, and ``tags`` must be canonical.
    """
    return name if not tags else name + "".join([f";{key}={value}" for key, value in tags])


def split(series: str) -> tuple[str, Tags]:
    """Return the name and canonical tags of ``series``, a name that may be followed by tags in Graphite's form.

    The tags may be in any order. A tag without ``=`` gets the value ``true``, because Graphite refuses tags without
    values.

    >>> split("web.hits;route=u;beta")
    ('web.hits', (('beta', 'true'), ('route', 'u')))
    """
    name, *pieces = series.split(";")
    name = sanitise(name) or EMPTY
    if not pieces:
        return name, ()
    pairs = (piece.partition("=") for piece in pieces if piece)
    return name, canonical_tags([(key, value if equals else "true") for key, equals, value in pairs])


def without_empty_parts(name: str) -> str:
    """Return ``name`` without empty parts. The result may be empty.

    >>> without_empty_parts("a..b"), without_empty_parts(".a.b."), without_empty_parts("..")
    ('a.b', 'a.b', '')
    """
    return ".".join(filter(None, name.split(".")))


def prefixed(prefix: str, name: str) -> str:
    """Return ``prefix``, a dot and ``name``, or ``name`` if the prefix is empty."""
    return f"{prefix}.{name}" if prefix else name


def with_suffix(series: str, suffix: str) -> str:
    """Return ``series`` with ``suffix`` after its name and before its tags."""
    name, semicolon, tags = series.partition(";")
    return f"{name}{suffix}{semicolon}{tags}"


Kind = Literal["counter", "timer", "histogram", "gauge", "unique"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds, in the order in which their values are sent."""


class Series(NamedTuple):
    """The identity of a series. Instruments with equal series are the same object."""

    kind: Kind
    name: str
    tags: Tags = ()

    @property
    def key(self) -> str:
        """The canonical text, ``name;key=value``, which identifies the series within its kind."""
        return join(self.name, self.tags) if self.tags else self.name

    @classmethod
    def of_key(cls, kind: Kind, key: str) -> "Series":
        """Return the series with this key, which need not be canonical."""
        return cls(kind, *split(key))


def series_of(kind: Kind, name: str, tags: Mapping[str, object] | Iterable[tuple[str, object]] = ()) -> Series:
    """Return the series ``name`` of a program. ``name`` may contain tags (``web.hits;route=u``); ``tags`` replace those
    with the same key.

    Empty parts of the name are removed, because destinations differ in how they treat ``a..b`` and ``.a``. Names that a
    forwarder reads from statsd lines keep their dots, as in statsd; it does not call this function for them.
    """
    if type(name) is not str:
        name = checked_name(name)
    if not tags and name.isidentifier() and name.isascii():
        return Series(kind, name)
    name, own = split(name)
    name = without_empty_parts(name) or EMPTY
    return Series(kind, name, canonical_tags([*own, *canonical_tags(tags)]) if tags else own)


Filter = Callable[[Series], Series | None]
"""Called once for each new series. Returns the series, a changed one, or None to exclude it."""


def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(translate(checked_name(glob, "glob"))).match


def drop(glob: str) -> Filter:
    """Return a filter that excludes series by name.

    Args:
        glob: A pattern for names, with ``*``, ``?`` and ``[…]`` as in file names. Matching series are excluded.
    """
    matches = _matcher(glob)
    return lambda series: None if matches(series.name) else series


def keep(glob: str) -> Filter:
    """Return a filter that excludes all series except those with matching names.

    Args:
        glob: A pattern for names, with ``*``, ``?`` and ``[…]`` as in file names.
    """
    matches = _matcher(glob)
    return lambda series: series if matches(series.name) else None


def rename(glob: str, name: str) -> Filter:
    """Return a filter that renames series.

    Args:
        glob: A pattern for names, with ``*``, ``?`` and ``[…]`` as in file names.
        name: The new name. ``{name}`` in it is replaced by the old name.

    Raises:
        InvalidOption: If ``name`` has another word in braces.

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
    """Return a filter that adds tags to series.

    Args:
        glob: A pattern for names, with ``*``, ``?`` and ``[…]`` as in file names. By default all series match.
        **tags: The tags. A tag that the series already has is not changed.
    """
    matches = _matcher(glob)
    common = canonical_tags(tags)
    return lambda series: (
        series._replace(tags=canonical_tags([*common, *series.tags])) if matches(series.name) else series
    )
