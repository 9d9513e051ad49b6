"""The query string: understood, or refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption
from metricslib.view.query import Query

GRID = Query(query="a b", prefix="web", kind="timer", tag="route", sort="change", page=3)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", Query("html", "", 2_000, 0)),
        ("format=json", Query("json", "", 10_000, 0)),
        ("match=web.%2A%3Broute%3Du", Query("html", "web.*;route=u", 2_000, 0)),
        ("limit=5&refresh=10", Query("html", "", 5, 10)),
        ("format=&match=&limit=&refresh=", Query()),
        ("format=html&format=json", Query("json", "", 10_000, 0)),
        ("utm_source=x&match=a", Query("html", "a", 2_000, 0)),
        ("limit=10000&refresh=3600", Query("html", "", 10_000, 3600)),
        ("after=counter:a;b=c&limit=7", Query("html", "", 7, 0, "counter:a;b=c")),
        ("match=" + "a" * 100, Query("html", "a" * 100)),
        ("query=a+b&prefix=web&kind=timer&tag=route&sort=change&page=3", GRID),
        ("range=5m&by=route", Query(range="5m", by="route")),
        ("percentiles=50,+99.9", Query(percentiles=(50.0, 99.9))),
        ("from=60&until=120&values=1", Query(begin=60, until=120, values=True)),
    ],
)
def test_queries_are_understood(text, query):
    """Empty parameters count as not given, unknown ones are left alone, the last of several wins."""
    assert Query.parse(text) == query


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("format=xml", "format"),
        ("format=JSON", "format"),
        ("refresh=0", "refresh"),
        ("refresh=3601", "refresh"),
        ("refresh=5;url=http://evil.example", "refresh"),
        ("refresh=-1", "refresh"),
        ("refresh=1.5", "refresh"),
        ("refresh=%D9%A3", "refresh"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("match=" + "a" * 101, "match"),
        ("query=" + "a" * 101, "query"),
        ("kind=timers", "kind"),
        ("sort=size", "sort"),
        ("page=0", "page"),
        ("range=2h", "range"),
        ("from=x", "from"),
        ("percentiles=0", "percentiles"),
        ("percentiles=101", "percentiles"),
        ("percentiles=nan", "percentiles"),
        ("percentiles=" + "1," * 30, "percentiles"),
        ("from=60&until=60", "until"),
        ("after=hits", "after"),
        ("after=counters:hits", "after"),
        ("after=counter:" + "a" * 10_000, "after"),
        ("&".join(f"a{number}=1" for number in range(60)), "query"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(text, option):
    """The error names the parameter and stays short."""
    with pytest.raises(InvalidOption) as caught:
        Query.parse(text)
    assert caught.value.option == option
    assert len(str(caught.value)) < 200


@given(st.text())
def test_no_query_does_harm(text):
    """Whatever is asked is understood within bounds, or refused."""
    try:
        query = Query.parse(text)
    except InvalidOption:
        return
    assert 1 <= query.limit <= 1_000_000
    assert 0 <= query.refresh <= 3600
