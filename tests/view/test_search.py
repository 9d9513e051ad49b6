"""The search of the page finds what it says, and refuses what it does not understand."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption
from metricslib.view.search import Search

KEYS = ["web.hits", "web.hits;route=-search;status=200", "web.time;route=-", "db.query;pool=main"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", KEYS),
        ("web", KEYS[:3]),
        ("web.*", KEYS[:3]),
        ("WEB", []),
        ("web and hits", KEYS[:2]),
        ("web hits", KEYS[:2]),
        ("route=/search", [KEYS[1]]),
        ("route=/*", KEYS[1:3]),
        ("route=", KEYS[1:3]),
        ("status=2?? and web.*", [KEYS[1]]),
        ("pool=m", []),
        ("<script>", None),
        ("p90 > 200 and route=/search", [KEYS[1]]),
        ("count=*", []),
    ],
)
def test_names_and_tags(text, found):
    if found is None:
        with pytest.raises(InvalidOption):
            Search(text)
    else:
        assert [key for key in KEYS if Search(text).finds(key)] == found


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("count > 0", True),
        ("count>0", True),
        ("count > 5", False),
        ("count = 5 and p90 <= 20", True),
        ("p90 != 20", False),
        ("p90 >= 20.5", False),
        ("value > 0", False),
        ("median < 1e9", False),
    ],
)
def test_values(text, holds):
    """A value that a series does not have, or that is no number, fulfils nothing."""
    search = Search(text)
    assert search.reads_values
    assert search.holds({"count": 5, "p90": 20, "median": float("nan")}) is holds


@pytest.mark.parametrize("text", ["p90 > fast", "size > 5", "a > b", " ".join("abcdefghijk")])
def test_what_is_no_search_is_refused_by_name(text):
    with pytest.raises(InvalidOption, match="query"):
        Search(text)


@given(st.text(max_size=100))
def test_whatever_is_typed_is_a_search_or_refused(text):
    try:
        search = Search(text)
    except InvalidOption:
        return
    search.finds(KEYS[1])


@pytest.mark.parametrize(
    "text",
    [
        *("*a" * 49 + "*b", "a=" + "*a" * 48, "[" * 100, "*?" * 50, "count >" * 14, "*" + "?" * 98, "*" + "[ab]" * 24),
        *("*" + "?a" * 48 + "b*", "*" + "[!b]" * 23 + "b*", " ".join(["*?a?a?ab*"] * 10), " ".join(["a=*a?ab"] * 10)),
        *("count > " * 12, "count=" * 16 + "1", "=" * 100, "[]" * 50, "[!]" * 33, "and " * 25, "\\" * 100, "(" * 100),
    ],
)
def test_no_search_takes_exponential_time(text):
    start = time.process_time()
    try:
        search = Search(text)
    except InvalidOption:
        pass
    else:
        for _ in range(20):
            search.finds(f"{'a' * 500};a={'a' * 500}")
    assert time.process_time() - start < 1
