"""Globs over paths: as Graphite's, and never slow."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption
from metricslib.view.path_globs import PathGlob


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "a.c", "xa.b"]),
        ("a.*", ["a.b", "a.bc"], ["a", "a.b.c", "a."]),
        ("*.x*y", ["a.xy", "a.x--y"], ["a.x", "a.y"]),
        ("a.b?", ["a.bc"], ["a.b", "a.bcd"]),
        ("a.[bc]d", ["a.bd", "a.cd"], ["a.dd", "a.d"]),
        ("a.[!b-d]", ["a.a", "a.e"], ["a.b", "a.d"]),
        ("a.{b,cd}e", ["a.be", "a.cde"], ["a.e", "a.bcde"]),
        ("a.{b*,?}", ["a.b", "a.bcd", "a.x"], ["a.xy"]),
        ("a.{,b}c", ["a.c", "a.bc"], ["a.b"]),
        ("{a,b}.{c,d}.*", ["a.c.x", "b.d.y"], ["a.b.c"]),
        ("a.[]", ["a.[]"], ["a."]),
    ],
)
def test_globs_match_as_in_graphite(glob, matching, others):
    found = PathGlob(glob)
    assert [path for path in [*matching, *others] if found.matches(path)] == matching


TEXT = st.text("ab", max_size=8)
TOKEN = st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "{a,b}", "{ab,}", "{a*,b}"])


@given(st.lists(TOKEN, max_size=7), TEXT)
def test_globs_match_what_a_regular_expression_does(tokens, text):
    meanings = {"*": ".*", "?": ".", "[!a]": "[^a]", "{a,b}": "(?:a|b)", "{ab,}": "(?:ab|)", "{a*,b}": "(?:a.*|b)"}
    pattern = "".join(meanings.get(token, token) for token in tokens)
    expected = bool(re.fullmatch(pattern, text)) and bool(text or tokens != ["*"])
    assert PathGlob("x." + "".join(tokens)).matches(f"x.{text}") == expected


@pytest.mark.parametrize("glob", ["{a,b", "a}", "{a,{b,c}}", "{a.b,c}", "[a.b]", "x" * 1001])
def test_what_is_no_glob_is_an_error(glob):
    with pytest.raises(InvalidOption):
        PathGlob(glob)


@pytest.mark.parametrize("glob", ["*a" * 300, "{a,aa}" * 150, "{a,aa,*}" * 100, "?*" * 300])
def test_no_glob_takes_exponential_time(glob):
    began = time.thread_time()
    assert not PathGlob(f"{glob}b").matches("a" * 200)
    assert time.thread_time() - began < 2
