"""JavaScript literals are read as node reads them, and nothing in them is ever run."""

import json
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import javascript

LITERALS = [
    "{}",
    "({})",
    "/* a (b */ ( ( {a: 1} ) ) ; // end )",
    "{a: 1, 'b-c': \"d\", \"e\": 'f', g_1$: [1, 2, 3,], h: {i: true, j: false, k: null,},}",
    "// first\n{ // second\n  a: /* third */ 1 // fourth\n, b: 2\n}\n",
    r"{a: 'it\'s', b: 'x\ty\n\u0041\x42', c: 'one \
two'}",
    "{a: 0x10, b: +5, c: -0.5e3, d: .5, e: 5., f: 1e3}",
    "{a: 1, a: 2}",
    "{\r\n a: 1\r\n}\r\n",
    "\ufeff{a: 1}",
    "[1, 'a']",
]


@pytest.mark.parametrize("text", LITERALS)
def test_what_node_reads_is_read(text: str, need: Callable[..., None]):
    """The real thing, evaluated by node as statsd does it, has the same value."""
    need("node")
    script = "console.log(JSON.stringify(eval('config = ' + require('fs').readFileSync(0, 'utf8'))))"
    done = subprocess.run(["node", "-e", script], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert javascript.read(text) == json.loads(done.stdout)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "ends too early"),
        ("{a: 1", "ends too early"),
        ("({a: 1}", "ends too early"),
        ("/* {}", "ends too early"),
        ("{a: 1})", "line 1, column 7: ')' is no"),
        ("{a: 1}\n{b: 2}", "line 2, column 1: '{b:' is no"),
        ("{\n  a: require('os').hostname()\n}", "line 2, column 6: \"require('os').hostname()\" is no part"),
        ("{a: 60 * 1000}", "line 1, column 8: '*' is no"),
        ("{a: `b`}", "line 1, column 5: '`b`}' is no"),
        ("{a: 0777}", "line 1, column 6: '777}' is no"),
        ("var a = {}", "line 1, column 1: 'var' is no"),
        ("{a: " + "[" * 100_000, "is nested too deep"),
    ],
)
def test_what_is_no_literal_is_refused(text: str, error: str):
    """The error names the place, and says that expressions are not run."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        javascript.read(text)
    assert str(caught.value).startswith(error)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_is_read(value: object):
    """Any JSON is a literal, too."""
    assert javascript.read(json.dumps(value, ensure_ascii=False)) == value


@given(st.text(alphabet="{}[]()/*',:;a1 \n\\"))
def test_nothing_else_is_raised(text: str):
    """Whatever the file holds, there is a value or a ValueError."""
    try:
        javascript.read(text)
    except ValueError:
        pass
