"""Series names and tags: every text ends in one canonical form, and that form is stable."""

import enum
import re
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption, InvalidType, MetricsError
from metricslib.series import (
    EMPTY,
    canonical_path,
    canonical_tags,
    checked_name,
    filled,
    join,
    prefixed,
    sanitise,
    split,
    text_of,
    with_suffix,
    without_empty_parts,
)

ANY_TEXT = st.text(max_size=30) | st.text("ab;=./_- \t\u00a0\u2028é", max_size=30)
CANONICAL = re.compile(r"[a-zA-Z0-9_.=-]+(;[a-zA-Z0-9_.-]+=[a-zA-Z0-9_.=-]+)*")


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("key", "sanitised"),
    [
        ("web.hits", "web.hits"),
        ("web hits", "web_hits"),
        ("a \t\n b", "a_b"),
        ("a\u00a0b\ufeffc\u2028d", "a_b_c_d"),
        ("a\x1cb", "ab"),
        ("/usr/bin", "-usr-bin"),
        ("süß", "s"),
        ("a:b|c@d#e,f", "abcdef"),
        ("k;a=b", "k;a=b"),
        ("trailing\n", "trailing_"),
        ("__proto__", "__proto__"),
        ("constructor", "constructor"),
        ("\ud800", ""),
        ("", ""),
        ("\x00", ""),
    ],
)
def test_characters_are_treated_as_statsd_treats_them(key, sanitised):
    """White space becomes `_`, `/` becomes `-`, what Graphite cannot have is deleted."""
    assert sanitise(key) == sanitised


@given(ANY_TEXT)
def test_sanitising_twice_is_sanitising_once(key):
    """A name that went through a forwarder reads as one that did not."""
    assert sanitise(sanitise(key)) == sanitise(key)


@given(ANY_TEXT, st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=4))
def test_every_text_has_one_canonical_form_that_reads_back(name, pairs):
    """Whatever the characters, the series is legal, and splitting it gives back its name and tags."""
    name, own = split(name)
    series = join(name, canonical_tags([*own, *pairs]))
    assert CANONICAL.fullmatch(series)
    assert join(*split(series)) == series


@given(st.dictionaries(st.text("abc", min_size=1), st.text("xyz", min_size=1), max_size=5), st.randoms())
def test_the_order_in_which_tags_are_given_does_not_matter(tags, random):
    """The same tags are the same series."""
    shuffled = list(tags.items())
    random.shuffle(shuffled)
    assert canonical_tags(shuffled) == canonical_tags(tags)
    assert split(join("n", tuple(shuffled))) == ("n", canonical_tags(tags))


@pytest.mark.parametrize(
    ("tags", "canonical"),
    [
        ({"b": 1, "a": 2}, (("a", "2"), ("b", "1"))),
        ([("a", 1), ("a", 2)], (("a", "2"),)),
        ([("a b", 1), ("a_b", 2)], (("a_b", "2"),)),
        ({"a": True}, (("a", "True"),)),
        ({"a": None}, (("a", "None"),)),
        ({"a": 1.5}, (("a", "1.5"),)),
        ({"a": ""}, (("a", EMPTY),)),
        ({"": "x"}, ((EMPTY, "x"),)),
        ({"é": "ü"}, ((EMPTY, EMPTY),)),
        ({"a": "x;y=z"}, (("a", "x_y=z"),)),
        ({"a=b": "x"}, (("a_b", "x"),)),
        ({1: 2}, (("1", "2"),)),
        ({"a": 1, "a1": 2, "b": 3}, (("a1", "2"), ("a", "1"), ("b", "3"))),
        ({}, ()),
    ],
)
def test_tags_in_canonical_form(tags, canonical):
    """Keys and values may be anything with a `str()`; sorted, unique, legal, never empty, the last of a key winning."""
    assert canonical_tags(tags) == canonical


@pytest.mark.parametrize(
    ("series", "name", "tags"),
    [
        ("hits", "hits", ()),
        ("hits;b=2;a=1", "hits", (("a", "1"), ("b", "2"))),
        ("hits;a=1;a=2", "hits", (("a", "2"),)),
        ("hits;a=b=c", "hits", (("a", "b=c"),)),
        ("hits;beta", "hits", (("beta", "true"),)),
        ("hits;a=", "hits", (("a", EMPTY),)),
        ("hits;=v", "hits", ((EMPTY, "v"),)),
        ("hits;;;", "hits", ()),
        (";a=1", EMPTY, (("a", "1"),)),
        ("", EMPTY, ()),
    ],
)
def test_a_series_is_split_into_name_and_tags(series, name, tags):
    """Tags may stand in the name, in Graphite's form, in any order; a bare one means `true`."""
    assert split(series) == (name, tags)


def test_a_raising_text_of_a_tag_is_heard():
    """What a tag's own `__str__` raises is the caller's to count; nothing is swallowed here."""
    with pytest.raises(RuntimeError, match="no text"):
        canonical_tags({"a": Unprintable()})


class Mixed(str, enum.Enum):  # noqa: UP042
    HITS = "hits"
    NONE = ""


class Plain(enum.StrEnum):
    HITS = "hits"
    NONE = ""


class Loud(str):
    def __str__(self):
        return super().__str__().upper()

    def __format__(self, spec):
        return str(self)


@pytest.mark.parametrize("name", [Mixed.HITS, Plain.HITS, Loud("hits")])
def test_a_string_of_a_subclass_counts_as_its_characters(name, registry):
    """`str()` of a member of an Enum of strings is its value or `Mixed.HITS`, by class and version; it is not asked."""
    assert (text_of(name), type(text_of(name))) == ("hits", str)
    assert (checked_name(name), type(checked_name(name))) == ("hits", str)
    assert canonical_tags({name: name}) == (("hits", "hits"),)
    assert registry.counter(name, tags={name: name}) is registry.counter("hits", tags={"hits": "hits"})
    assert registry.counter("a").tagged(**{name: name}) is registry.counter("a;hits=hits")
    assert registry.scope(name).counter(name) is registry.counter("hits.hits")


@pytest.mark.parametrize("name", [Mixed.NONE, Plain.NONE, Loud("")])
def test_an_empty_string_of_a_subclass_is_no_name(name):
    """Its characters are what counts, and there are none."""
    with pytest.raises(InvalidType, match="name must be a non-empty string"):
        checked_name(name)


def test_a_tag_called_name_gets_another_key():
    """Graphite keeps the name itself under that key, so series that differ in nothing else would be one."""
    assert canonical_tags({"name": "x", "namespace": "y"}) == (("name_", "x"), ("namespace", "y"))
    assert split("hits;na me=1;name=2;na:me=3") == ("hits", (("na_me", "1"), ("name_", "3")))
    assert split("hits;name_=2") == ("hits", (("name_", "2"),))


@pytest.mark.parametrize(
    ("name", "whole"),
    [("a", "a"), ("a.b", "a.b"), ("a..b", "a.b"), (".a.b", "a.b"), ("a.b.", "a.b"), ("..a...b..", "a.b"), ("..", "")],
)
def test_empty_parts_vanish(name: str, whole: str):
    """The dots stay that stand between parts."""
    assert without_empty_parts(name) == whole


@pytest.fixture(scope="module")
def tagged_series() -> Any:
    """carbon's own class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("carbon.util").TaggedSeries


path_text = st.text("abx19-.~!^ é", max_size=3) | st.sampled_from(["name", "a1", "a=b"])


@given(path_text, st.lists(path_text | st.tuples(path_text, path_text).map("=".join), max_size=5))
def test_a_path_has_carbons_own_form(tagged_series: Any, name: str, pieces: list[str]):
    """Tags sorted as texts, the last of a duplicate, none called ``name``; or None where carbon cannot read it."""
    path = ";".join([name, *pieces])
    try:
        expected = tagged_series.parse(path).path
    except Exception:
        expected = None
    assert canonical_path(path) == expected


def test_words_in_braces_are_filled_in():
    """Each as often as it stands there; what is filled in is not looked at again."""
    assert filled("prefix", "{a}.{b}.{a}", {"a": "{b}", "b": "x"}) == "{b}.x.{b}"
    assert filled("prefix", "plain", {"a": "x"}) == "plain"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{host.__class__}", "{host.__class__} is unknown; did you mean {host}?"),
        ("{host[0]}", "{host[0]} is unknown; did you mean {host}?"),
        ("{host!r}", "{host!r} is unknown; did you mean {host}?"),
        ("{pid:5}", "{pid:5} is unknown; did you mean {pid}?"),
        ("{HOST}", "{HOST} is unknown; did you mean {host}?"),
        ("{hots}", "{hots} is unknown; did you mean {host}?"),
        ("{}", "{} is unknown; known are {host}, {pid}"),
        ("{0}", "{0} is unknown; known are {host}, {pid}"),
        ("{user}", "{user} is unknown; known are {host}, {pid}"),
        ("{host", "a brace stands alone; known are {host}, {pid}"),
        ("host}", "a brace stands alone; known are {host}, {pid}"),
        ("{{host}}", "a brace stands alone; known are {host}, {pid}"),
    ],
)
def test_anything_else_in_braces_is_refused(template, reason):
    """A template is no format string: it reaches no attribute of anything. The nearest word that is known is named."""
    with pytest.raises(InvalidOption) as caught:
        filled("prefix", template, {"host": "web1", "pid": "1"})
    assert (caught.value.option, caught.value.value, caught.value.reason) == ("prefix", template, reason)


@pytest.mark.parametrize("name", [None, 1, b"hits", "", ["hits"], object()])
def test_a_name_that_can_never_be_right_raises_early(name):
    """The error is a TypeError of ours and carries what was wrong."""
    with pytest.raises(InvalidType, match="metric must be a non-empty string") as caught:
        checked_name(name, "metric")
    assert caught.value.value is name
    assert caught.value.argument == "metric"
    assert isinstance(caught.value, MetricsError)
    assert isinstance(caught.value, TypeError)


def test_prefix_and_suffix_keep_the_tags_at_the_end():
    """A prefix goes in front, a suffix between name and tags; an empty prefix vanishes with its dot."""
    assert prefixed("shop", "hits;a=1") == "shop.hits;a=1"
    assert prefixed("", "hits") == "hits"
    assert with_suffix("hits;a=1", ".count") == "hits.count;a=1"
    assert with_suffix("hits", ".count") == "hits.count"
