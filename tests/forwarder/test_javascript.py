"""JavaScript's literals and conversions: what node makes of a text, or a refusal."""

import json
import math
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from forwarder.javascript import DEEPEST, MOST_VALUES, UNDEFINED, read, shown, to_number, to_text, truthy

LITERALS = [
    *("{}", "[]", "({})", "(( [1] ))", "{};", "\ufeff{ }", "// a\n{} // b", "/* a */ { /* b */ } /**/ ; /* c */"),
    *("{a: 1, 'b': 2, \"c\": 3,}", "{$a_1: 1}", "{ä: 1}", "{1: 2}", "{0x10: 1}", "{1e3: 1}", "{a: {b: [{c: 1}]}}"),
    *("{if: 1, null: 2, true: 3}", "{a: 1, a: 2}", "[1, 'a', null, true, false,]", "[[],[[]]]", "{a:\u20281\xa0}"),
    *("0", "-0", "+5", "- 5", "5.", ".5", "0.5e-3", "1E3", "1_000", "0x1F", "0XfF", "0b101", "0o17", "0660", "089"),
    *("08.5", "1e400", "-1e400", "9007199254740993", "123456789012345678901", "0x" + "f" * 300, "5e-324", "Infinity"),
    *("NaN", "-Infinity", "null", "true", "''", "'a\\'b'", '"a\\"b"', "'\\n\\t\\b\\v\\f\\r\\0\\\\\\/\\q'", "'\\x41'"),
    *("'\\u00e9'", "'\\ud83d\\ude00'", "'\\u{1F600}'", "'a\\\nb'", "'a\\\r\nb'", "'\\101\\60'", "'\u2028'", "'ä\x7f'"),
]
REFUSED = [
    *("", " ", "// only", "/* open", "a", "{", "[", "{a}", "{a:}", "{a 1}", "{,}", "[,]", "[1,,2]", "{a: 1,, b: 2}"),
    *("1 2", "{} {}", "(1", "1)", "{a: b()}", "{a: require('os')}", "{a: 1 + 1}", "'a", '"a', "'a\nb'", "'\\x4'"),
    *("'\\u12'", "'\\u{110000}'", "1n", "0x", "0b2", "1__0", "1_", "3px", "017.5", "+'5'", "-null", "+true", "--5"),
    *("`a`", "/a/", "undefinedx", "{[a]: 1}", "{...a}", "e5", "0x1g", "."),
]
VALUES = [
    "",
    "0",
    " 7 ",
    "\t0x10\n",
    "1e3",
    "+Infinity",
    " -Infinity",
    "x",
    "1_0",
    "null",
    "[]",
    ".5",
    "5.",
    "٣",
    "\x1c5",
]
ANYTHING: list[Any] = [
    None,
    True,
    False,
    0,
    5,
    -2.5,
    1e21,
    1e-7,
    [],
    [[]],
    [5],
    ["6"],
    [None],
    [1, [2, None], "x"],
    {},
    {"a": 1},
]
JUDGE = """
const show = (value) => JSON.stringify(value, (key, one) => typeof one === 'number' ? String(one) : one);
const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const read = texts.literals.map((text) => { let config; return show(eval('config = ' + text)); });
const values = texts.values.map((value) => [String(Number(value)), String(value), Boolean(value)]);
process.stdout.write(JSON.stringify([read, values]));
"""


def _numbers_as_text(value: object) -> object:
    match value:
        case dict():
            return {key: _numbers_as_text(item) for key, item in value.items()}
        case list():
            return [_numbers_as_text(item) for item in value]
        case bool() | None | str():
            return value
    return "0" if value == 0 else to_text(value)  # JavaScript writes -0 as 0


def test_literals_and_conversions_are_those_of_node(need: Callable[..., None]):
    """What is read is what node evaluates, and it becomes the same number, text and truth."""
    need("node")
    values = [*VALUES, *ANYTHING]
    given = json.dumps({"literals": LITERALS, "values": values})
    done = subprocess.run(["node", "-e", JUDGE], input=given, capture_output=True, text=True, check=True, timeout=60)
    literals, conversions = json.loads(done.stdout)
    assert [_numbers_as_text(read(text)) for text in LITERALS] == [json.loads(text) for text in literals]
    assert [[_numbers_as_text(to_number(value)), to_text(value), truthy(value)] for value in values] == conversions


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_literal_is_refused(text: str):
    """With the place where it stands; also what node would evaluate, such as an expression."""
    with pytest.raises(ValueError, match=r"line \d+, column \d+: .* is not part of a literal|ends too early"):
        read(text)


def test_undefined_and_nan():
    """The words are read; both are false."""
    values = read("[undefined, NaN]")
    assert values[0] is UNDEFINED
    assert math.isnan(values[1])
    assert not any(map(truthy, values))
    assert [to_text(value) for value in values] == ["undefined", "NaN"]
    assert all(math.isnan(to_number(value)) for value in values)


def test_bounds():
    """So deep, and so many; one more is refused."""
    read("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match="is nested deeper than 50 times"):
        read("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2))
    read(f"[{'1,' * (MOST_VALUES - 1)}]")
    with pytest.raises(ValueError, match="has more than 10,000 values"):
        read(f"[{'1,' * MOST_VALUES}]")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('a"b', '"a\\"b"'),
        ([None, 1.5, "x"], '[null, 1.5, "x"]'),
        ({"a": {}, "b": True}, "{ a: {}, b: true }"),
        ([5] * 100, "[" + "5, " * 26 + "…"),
    ],
)
def test_shown(value: object, text: str):
    """As it would be written, on one line, and not without end."""
    assert shown(value) == text
