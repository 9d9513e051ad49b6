"""The value of a JavaScript literal, such as statsd's configuration is. It is read and never run.

In: text: one literal, bare or in parentheses, with comments around and in it. Out: what it says, in dicts, lists,
texts, numbers and None. The grammar is that of JSON5 (PyPI's json5), which is JavaScript's for literals: comments,
trailing commas, keys and strings as JavaScript writes them.
"""

import re
from typing import Any

__all__ = ["read"]

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)


def read(text: str) -> Any:
    """Return the value. Raises ValueError that says where it is none, and ImportError without the package json5."""
    import json5  # an extra's; nobody else needs it

    start, opened = _space(text, 0), 0
    while text.startswith("(", start):
        start, opened = _space(text, start + 1), opened + 1
    if start == len(text):
        raise ValueError(_unexpected(text, start))
    try:
        value, error, end = json5.parse(text, start=start, consume_trailing=False)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if error is not None:
        raise ValueError(_unexpected(text, end))
    end = _space(text, end)
    for _ in range(opened):
        if not text.startswith(")", end):
            raise ValueError(_unexpected(text, end))
        end = _space(text, end + 1)
    if text.startswith(";", end):
        end = _space(text, end + 1)
    if end != len(text):
        raise ValueError(_unexpected(text, end))
    return value


def _space(text: str, start: int) -> int:
    """Return where white space and comments end."""
    match = _SPACE.match(text, start)
    assert match is not None  # it matches nothing, too
    return match.end()


def _unexpected(text: str, at: int) -> str:
    rest = text[at:].lstrip()
    if not rest:
        return "ends too early"
    at = len(text) - len(rest)
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return (
        f"line {line}, column {column}: {rest.split(maxsplit=1)[0][:40]!r} is no part of a literal;"
        " nothing in the file is run, so expressions must be replaced by their values"
    )
