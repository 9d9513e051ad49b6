"""Globs over paths of Graphite: ``stats.timers.*.{upper,median}``.

``*`` and ``?`` stand for any characters but dots, ``[a-z]`` for one of several, ``{one,other}`` for one of several
texts, which may have globs in them. A part between two dots is matched by the set of places that can be reached in the
text, so that matching takes at most the length of the glob times that of the text, squared: no glob takes exponential
time.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from ..errors import InvalidOption

__all__ = ["PathGlob"]

_LONGEST = 1_000
_TOKEN = re.compile(r"\[[^\]]+\]|\{[^{}]*\}|.", re.DOTALL)
_Step = Callable[[str, frozenset[int]], frozenset[int]]
"""Takes a text and the places in it that are reached, and returns those that are reached behind a token."""


class PathGlob:
    """A glob over whole paths. Raises :class:`~.errors.InvalidOption` where it is too long or has no closing brace."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise InvalidOption("query", f"{text[:50]}…", f"must have at most {_LONGEST} characters")
        if any(character in "{}" for token in _TOKEN.findall(text) if len(token) == 1 for character in token):
            raise InvalidOption("query", text[:50], "has a brace without its partner, or one in another")
        self.text = text
        self.parts = [_Part(part) for part in _parts(text)]
        self.literal = re.split(r"[*?\[{]", text, maxsplit=1)[0]
        """What every path begins with that matches."""

    @property
    def is_plain(self) -> bool:
        """Whether it stands for itself alone."""
        return self.literal == self.text

    def matches(self, path: str) -> bool:
        """Return whether all of a path matches."""
        if not path.startswith(self.literal):
            return False
        return (self.is_plain and path == self.text) or self.begins(path.split("."), len(self.parts))

    def begins(self, parts: Sequence[str], count: int) -> bool:
        """Return whether a path has exactly ``count`` parts, and each of them matches."""
        return len(parts) == count and all(glob.matches(part) for glob, part in zip(self.parts, parts, strict=False))


def _parts(text: str) -> Iterator[str]:
    part = ""
    for token in _TOKEN.findall(text):
        if len(token) > 1 and "." in token:
            raise InvalidOption("query", text[:50], "has a dot in braces or brackets")
        if token == ".":
            yield part
            part = ""
        else:
            part += token
    yield part


class _Part:
    """A glob over what stands between two dots. What was asked once is remembered, for paths have many parts alike."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._is_plain = not re.search(r"[*?\[{]", text)
        self._steps = _steps(text)
        self._known: dict[str, bool] = {}

    def matches(self, part: str) -> bool:
        if self._is_plain or self.text == "*":
            return part == self.text or (self.text == "*" and bool(part))
        found = self._known.get(part)
        if found is None:
            if len(self._known) >= 10_000:
                self._known.clear()
            found = self._known[part] = len(part) in _reached(self._steps, part, frozenset((0,)))
        return found


def _reached(steps: Sequence[_Step], text: str, places: frozenset[int]) -> frozenset[int]:
    for step in steps:
        if not places:
            break
        places = step(text, places)
    return places


def _steps(text: str) -> list[_Step]:
    return [_step(token) for token in _TOKEN.findall(text)]


def _step(token: str) -> _Step:
    if token == "*":
        return lambda text, places: frozenset(range(min(places), len(text) + 1))
    if token == "?":
        return lambda text, places: frozenset(place + 1 for place in places if place < len(text))
    if token[0] == "{" and len(token) > 1:
        ways = [_steps(way) for way in dict.fromkeys(token[1:-1].split(","))]
        return lambda text, places: frozenset[int]().union(*(_reached(way, text, places) for way in ways))
    if token[0] == "[" and len(token) > 1:
        one = _one_of(token[1:-1])
        return lambda text, places: frozenset(place + 1 for place in places if place < len(text) and one(text[place]))
    return lambda text, places: frozenset(place + 1 for place in places if text.startswith(token, place))


def _one_of(inside: str) -> Callable[[str], bool]:
    """Return whether a character is one of ``a-z_``; of ``!a-z``, whether it is none."""
    excluded = inside[0] == "!" and len(inside) > 1
    if excluded:
        inside = inside[1:]
    ranges: list[tuple[str, str]] = []
    place = 0
    while place < len(inside):
        if inside[place + 1 : place + 2] == "-" and place + 2 < len(inside):
            ranges.append((inside[place], inside[place + 2]))
            place += 3
        else:
            ranges.append((inside[place], inside[place]))
            place += 1
    return lambda character: any(low <= character <= high for low, high in ranges) != excluded
