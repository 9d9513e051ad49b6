"""The search of the page: ``web.* and route=-search and p90 > 200``.

Terms are joined by ``and``. A term is a comparison of a value, a glob over the value of a tag, or a word or glob over
the series' text; words that stand beside each other are terms too. Every term is linear in the length of what it looks
at, whatever stands in it.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import InvalidOption
from ..series import sanitise, split
from .report import matcher

__all__ = ["Search"]

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
FIELDS = ("value", "count", "rate", "median", "p90", "max")
_COMPARISON = re.compile(rf"\b({'|'.join(FIELDS)})[ ]?(>=|<=|!=|>|<|=)[ ]?([^ ]+)")
_MOST = 10


class _Comparison(NamedTuple):
    field: str
    compare: Callable[[float, float], bool]
    number: float

    def holds(self, values: Mapping[str, float]) -> bool:
        value = values.get(self.field, math.nan)
        return value == value and self.compare(value, self.number)


class Search:
    """Finds series by ``text``. Raises :class:`~.errors.InvalidOption` where it is no search."""

    def __init__(self, text: str) -> None:
        self._comparisons: list[_Comparison] = []
        self._tags: list[tuple[str, matcher]] = []
        self._words: list[matcher] = []
        rest = _COMPARISON.sub(self._compare, " ".join(text.split()))
        words = [word for word in rest.split() if word.lower() != "and"]
        if len(words) + len(self._comparisons) > _MOST:
            raise InvalidOption("query", text[:50], f"may have at most {_MOST} terms")
        for word in words:
            key, equals, value = word.partition("=")
            if equals and key:
                self._tags.append((key, matcher(_as_written(value) if value else "*", whole=True)))
            elif re.search("[<>]", word):
                known = ", ".join(FIELDS)
                raise InvalidOption("query", text[:50], f"compares something else than {known} with a number")
            else:
                self._words.append(matcher(_as_written(word)))

    def _compare(self, found: "re.Match[str]") -> str:
        try:
            number = float(found[3])
        except ValueError:
            if found[2] == "=":
                return found[0].replace(" ", "")  # a tag of that name
            raise InvalidOption("query", found[0][:50], "compares with something that is no number") from None
        self._comparisons.append(_Comparison(found[1], _OPERATORS[found[2]], number))
        return ""

    @property
    def reads_values(self) -> bool:
        """Whether it looks at values, not at names and tags alone."""
        return bool(self._comparisons)

    def finds(self, key: str) -> bool:
        """Return whether name and tags are looked for."""
        if not all(word(key) for word in self._words):
            return False
        if not self._tags:
            return True
        tags = dict(split(key)[1])
        return all(tag in tags and value(tags[tag]) for tag, value in self._tags)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return whether the values are."""
        return all(comparison.holds(values) for comparison in self._comparisons)


def _as_written(pattern: str) -> str:
    """Return a glob with its characters as series have them: ``/`` is ``-`` there. What only globs have stays."""
    return "".join(
        part if part in "*?[]!" else sanitise(part) or part for part in re.split(r"([*?\[\]!])", pattern) if part
    )
