"""What identifies a series, and the filters that change it before it is first used."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption, InvalidType
from metricslib.series import KINDS, Series, add_tags, drop, keep, rename, series_of


def test_kinds_stand_in_the_order_in_which_values_are_sent():
    """Counters, timers, histograms, gauges, uniques: as statsd sends them."""
    assert KINDS == ("counter", "timer", "histogram", "gauge", "unique")


def test_the_key_is_the_canonical_text():
    """`name;key=value`, sorted by key."""
    assert series_of("counter", "web hits;b=2", {"a": 1}).key == "web_hits;a=1;b=2"
    assert Series("counter", "hits").key == "hits"


def test_tags_given_apart_win_over_those_in_the_name():
    """The later and more explicit one counts."""
    assert series_of("counter", "hits;a=1;b=1", {"a": 2}).tags == (("a", "2"), ("b", "1"))


@pytest.mark.parametrize("name", ["web..hits", ".web.hits", "web.hits.", "..web...hits;k=a..b", "web. .hits", "süß..x"])
def test_empty_parts_of_a_name_vanish(name: str):
    """What destinations make of them differs, so there are none. The value of a tag is no path."""
    series = series_of("counter", name)
    assert "" not in series.name.split(".")
    assert series_of("counter", series.key) == series == Series.of_key("counter", series.key)
    assert ("k", "a..b") in series.tags or not series.tags


def test_a_name_of_nothing_but_dots_is_the_empty_name():
    """It can be sent, and seen."""
    assert series_of("counter", "...").name == "_"


def test_a_key_is_read_as_it_stands():
    """One that came from statsd's lines keeps its dots."""
    assert Series.of_key("counter", ".a..b;k=v") == Series("counter", ".a..b", (("k", "v"),))


@given(st.text(min_size=1, max_size=20))
def test_a_series_made_of_its_own_key_is_the_same(name):
    """The key alone is enough to find the series again, whatever the name was."""
    series = series_of("timer", name, {"k": "v"})
    assert series_of("timer", series.key) == series
    plain = series_of("timer", name)
    assert series_of("timer", plain.key) == plain


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("web.*", "web.hits", True),
        ("web.*", "db.web.hits", False),
        ("*.hits", "a.b.hits", True),
        ("h?ts", "hits", True),
        ("[hx]its", "hits", True),
        ("hits", "hits.more", False),
    ],
)
def test_drop_and_keep_match_names_as_file_names_are_matched(glob, name, matches):
    """`drop` leaves out what matches, `keep` what does not; tags play no part."""
    series = series_of("counter", name, {"a": 1})
    assert (drop(glob)(series) is None) is matches
    assert (keep(glob)(series) is None) is not matches
    assert series in (drop(glob)(series), keep(glob)(series))


def test_rename_gives_matching_series_another_name():
    """`{name}` stands for the old one; tags stay; what is illegal in the new name is treated as in any name."""
    series = series_of("counter", "old.hits", {"a": 1})
    assert rename("old.*", "new.{name}")(series).key == "new.old.hits;a=1"
    assert rename("old.*", "a b;c")(series).key == "a_b_c;a=1"
    assert rename("other", "new")(series) is series
    assert rename("old.*", "..new..{name}.")(series).name == "new.old.hits"


def test_a_new_name_with_an_unknown_word_is_refused_early():
    """It would be deleted with its braces, and many series would have one name."""
    with pytest.raises(InvalidOption, match=re.escape("name = 'new.{nmae}': {nmae} is unknown; did you mean {name}?")):
        rename("old.*", "new.{nmae}")


def test_add_tags_does_not_overrule_the_series_own():
    """Common tags are a default."""
    assert add_tags(a=9, b=2)(series_of("counter", "hits", {"a": 1})).key == "hits;a=1;b=2"
    assert add_tags("db.*", b=2)(series_of("counter", "hits")).key == "hits"
    assert add_tags(glob="x")(series_of("counter", "hits")).key == "hits;glob=x"


@pytest.mark.parametrize("make", [drop, keep, rename, add_tags])
def test_a_filter_without_a_pattern_is_refused_early(make):
    """A wrong type is a mistake of set-up."""
    with pytest.raises(InvalidType):
        make(None) if make is not rename else make(None, "x")
