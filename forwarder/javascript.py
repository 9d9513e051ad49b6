"""JavaScript's literals and conversions, as far as a configuration of statsd needs them. No code is executed.

:func:`read` takes the text of one literal, which may be in parentheses and contain comments. It returns the value as a
Python object: dict, list, str, int, float, bool, None for ``null``, or :data:`UNDEFINED`. The value is the one that
Node returns for the same text, including comments, trailing commas, keys without quotes, all escapes in strings, and
numbers in every base (``0660`` is octal). An expression is an error, which contains its line and column.

:func:`truthy`, :func:`to_number` and :func:`to_text` convert like ``if (value)``, ``Number(value)`` and
``String(value)``.

Reading takes time proportional to the length of the text. A text that is nested deeper than :data:`DEEPEST`, or has
more than :data:`MOST_VALUES` values, is an error.
"""

import json
import math
import re
from typing import Any, NoReturn

from metricslib.wire.graphite import number as number_as_text

from .parser import number as number_of_text

__all__ = ["DEEPEST", "MOST_VALUES", "UNDEFINED", "read", "shown", "to_number", "to_text", "truthy"]

DEEPEST = 50
"""Maximum depth of nested objects and lists."""
MOST_VALUES = 10_000
"""Maximum number of values in a text, including those in lists and objects."""


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = _Undefined()
"""The value ``undefined``."""

_WORDS = {
    "true": True,
    "false": False,
    "null": None,
    "undefined": UNDEFINED,
    "NaN": math.nan,
    "Infinity": math.inf,
}
# Python's \s and JavaScript's white space differ in U+001C to U+001F, U+0085 and U+FEFF.
_WHITE = "\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_SPACE = re.compile(rf"(?:[{_WHITE}]|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(
    r"(?P<base>0[xX][0-9a-fA-F](?:_?[0-9a-fA-F])*|0[oO][0-7](?:_?[0-7])*|0[bB][01](?:_?[01])*)"
    r"|(?P<octal>0[0-7]+)(?![89])"
    r"|(?P<decimal>(?:0[0-9]*[89][0-9]*|0|[1-9](?:_?[0-9])*)(?:\.(?:[0-9](?:_?[0-9])*)?)?(?:[eE][+-]?[0-9]+)?"
    r"|\.[0-9](?:_?[0-9])*(?:[eE][+-]?[0-9]+)?)"
)
_STRING = re.compile(r"""'((?:[^'\\\n\r]|\\(?:\r\n|.))*)'|"((?:[^"\\\n\r]|\\(?:\r\n|.))*)\"""", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:x(?P<byte>[0-9a-fA-F]{2})|u(?P<unit>[0-9a-fA-F]{4})|u\{(?P<point>[0-9a-fA-F]+)\}"
    r"|(?P<octal>[0-3][0-7]{0,2}|[4-7][0-7]?)|(?P<other>\r\n|.))",
    re.DOTALL,
)
_ESCAPED = {"n": "\n", "t": "\t", "b": "\b", "v": "\v", "f": "\f", "r": "\r"}
_ESCAPED |= dict.fromkeys(("\n", "\r", "\r\n", "\u2028", "\u2029"), "")  # the string continues in the next line
_NAME = re.compile(r"(?:[^\W\d]|\$)[\w$]*")
_LARGEST_EXACT = 2**53


def read(text: str) -> Any:
    """Return the value of the literal. Raises ValueError, with line and column, if the text is not a literal."""
    reader = _Reader(text)
    opened = 0
    while reader.take("("):
        opened += 1
    value = reader.value(0)
    for _ in range(opened):
        reader.expect(")")
    reader.take(";")
    if reader.at != len(text):
        reader.refuse()
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._values = 0
        self.at = 0
        self._skip()

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self.at)
        assert match is not None  # the pattern also matches the empty string
        self.at = match.end()

    def take(self, character: str) -> bool:
        """If ``character`` is next, skip it and the white space after it, and return True."""
        if not self._text.startswith(character, self.at):
            return False
        self.at += 1
        self._skip()
        return True

    def expect(self, character: str) -> None:
        if not self.take(character):
            self.refuse()

    def refuse(self) -> NoReturn:
        text, at = self._text, self.at
        if at >= len(text):
            raise ValueError("ends too early")
        line = text.count("\n", 0, at) + 1
        column = at - text.rfind("\n", 0, at)
        raise ValueError(
            f"line {line}, column {column}: {text[at : at + 40].split(maxsplit=1)[0]!r} is not part of a literal;"
            " nothing in the file is run, so expressions must be replaced by their values"
        )

    def value(self, depth: int) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise ValueError(f"has more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise ValueError(f"is nested deeper than {DEEPEST} times")
        if self.take("{"):
            return self._object(depth)
        if self.take("["):
            return self._list(depth)
        if self._text.startswith(("'", '"'), self.at):
            return self._string()
        sign = self._text[self.at : self.at + 1]
        if sign and sign in "+-":
            start = self.at
            self.take(sign)
            found = self._number_or_word()
            if isinstance(found, bool) or not isinstance(found, int | float):
                self.at = start
                self.refuse()
            return -found if sign == "-" else found
        return self._number_or_word()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self.take("}"):
            key = self._key()
            self.expect(":")
            found[key] = self.value(depth + 1)
            if not self.take(","):
                self.expect("}")
                break
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self.take("]"):
            found.append(self.value(depth + 1))
            if not self.take(","):
                self.expect("]")
                break
        return found

    def _key(self) -> str:
        if self._text.startswith(("'", '"'), self.at):
            return self._string()
        if number := _NUMBER.match(self._text, self.at):
            return to_text(self._number(number))
        name = _NAME.match(self._text, self.at)
        if not name:
            self.refuse()
        self.at = name.end()
        self._skip()
        return name[0]

    def _number_or_word(self) -> Any:
        if number := _NUMBER.match(self._text, self.at):
            return self._number(number)
        word = _NAME.match(self._text, self.at)
        if not word or word[0] not in _WORDS:
            self.refuse()
        self.at = word.end()
        self._skip()
        return _WORDS[word[0]]

    def _number(self, match: re.Match[str]) -> float:
        following = self._text[match.end() : match.end() + 1]
        if following.isalnum() or (following and following in "_$"):  # 1n, 0x, 3px
            self.refuse()
        self.at = match.end()
        self._skip()
        digits = match[0].replace("_", "")
        if match["decimal"]:
            return _double(float(digits))
        try:
            return _double(float(int(digits, 8) if match["octal"] else int(digits, 0)))
        except OverflowError:
            return math.inf

    def _string(self) -> str:
        match = _STRING.match(self._text, self.at)
        if not match:
            self.refuse()
        text = match[1] if match[1] is not None else match[2]
        if "\\" in text:
            try:
                text = _ESCAPE.sub(_unescape, text)
            except ValueError:
                self.refuse()
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # joins pairs
        self.at = match.end()
        self._skip()
        return text


def _unescape(match: re.Match[str]) -> str:
    if digits := match["byte"] or match["unit"] or match["point"]:
        return chr(int(digits, 16))
    if match["octal"]:
        return chr(int(match["octal"], 8))
    if match["other"] in "xu":
        raise ValueError(match[0])
    return _ESCAPED.get(match["other"], match["other"])


def _double(value: float) -> float:
    """Return a number of JavaScript, which is a double, as an int if it is integral and exact."""
    return int(value) if value.is_integer() and abs(value) < _LARGEST_EXACT else value


def truthy(value: Any) -> bool:
    """Return True if ``if (value)`` would run its block. An empty list and an empty object are true."""
    if isinstance(value, list | dict):
        return True
    return value is not UNDEFINED and bool(value) and not (isinstance(value, float) and math.isnan(value))


def to_number(value: Any) -> float:
    """Return ``Number(value)``, which is NaN if the value is not a number."""
    match value:
        case None:
            return 0
        case bool() | int() | float():
            return _double(float(value))
        case list() | dict():
            value = to_text(value)
        case _Undefined():
            return math.nan
    if isinstance(value, str):
        found = 0.0 if not value else number_of_text(value)
        if found is None:
            found = {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}.get(value.strip(), math.nan)
        return _double(found)
    return math.nan


def to_text(value: Any) -> str:
    """Return ``String(value)``."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | float():
            if math.isfinite(value):
                return number_as_text(value)
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        case list():
            return ",".join("" if item is None or item is UNDEFINED else to_text(item) for item in value)
        case dict():
            return "[object Object]"
    return repr(value)


_LONGEST_SHOWN = 80


def shown(value: Any) -> str:
    """Return a value as a literal for messages, shortened if it is long."""
    match value:
        case str():
            text = json.dumps(value[:_LONGEST_SHOWN], ensure_ascii=False)
        case list():
            text = f"[{', '.join(map(shown, value[:_LONGEST_SHOWN]))}]"
        case dict():
            text = f"{{ {', '.join(f'{key}: {shown(item)}' for key, item in value.items())} }}" if value else "{}"
        case _:
            text = to_text(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
