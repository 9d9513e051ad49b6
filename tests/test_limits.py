"""Which series get in: filters change or refuse, caps hold against anything, and all of it is counted."""

import logging
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.budget import Share
from metricslib.drops import DropCounter
from metricslib.errors import InvalidOption
from metricslib.limits import OVERFLOW, Limits
from metricslib.registry import Registry
from metricslib.series import KINDS, Series, add_tags, drop, keep, rename, series_of
from metricslib.testing import ManualClock

SUMMABLE = [kind for kind in KINDS if kind != "gauge"]


def limits(*filters, max_series=100, max_tag_sets=10, max_bytes=1 << 30):
    return Limits(filters, max_series, max_tag_sets, DropCounter(), Share(max_bytes))


def small(**options):
    return Registry(clock=ManualClock(), **{"max_series": 20, "max_tag_sets": 5} | options)


def measure(instrument):
    call = {"unique": "add", "timer": "observe", "histogram": "observe"}.get(instrument.kind, "inc")
    getattr(instrument, call)(1)


# -- many names at once

NAMES = [("counter", "a"), ("timer", "a"), ("counter", "b"), ("counter", "a")]


def test_many_names_are_admitted_as_each_would_be():
    """Each gets its own key, the same object every time, and counts once."""
    one, many = limits(), limits()
    keys = many.admit_names(NAMES, 0)
    assert keys == [one.admit(series_of(kind, name)) for kind, name in NAMES] == ["a", "a", "b", "a"]
    assert len(one) == len(many) == 3
    again = [("counter", "".join("a"))]
    assert many.admit_names(again, 0)[0] is many.admit(series_of("counter", "a")) is keys[0]


@pytest.mark.parametrize(
    ("filters", "cap", "others"), [((), 3, 0), ((), 6, 3), ((add_tags(host="x"),), 100, 0), ((drop("z"),), 100, 0)]
)
def test_names_of_which_one_might_be_refused_or_changed_are_left_to_be_asked_for_one_by_one(filters, cap, others):
    """Nothing has happened then: neither are some admitted, nor is anything counted."""
    asked = limits(*filters, max_series=cap)
    assert asked.admit_names(NAMES, others) is None
    assert len(asked) == 0
    assert asked.drops.totals() == {}
    assert asked.reached() == {}


def test_many_threads_that_admit_many_names_do_not_exceed_the_cap():
    """Two that looked for room at the same time might both find it."""
    asked = limits(max_series=1000)
    names = [[("counter", f"{thread}.{number}") for number in range(400)] for thread in range(8)]
    threads = [threading.Thread(target=asked.admit_names, args=(each, 0)) for each in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) in (400, 800)


# -- caps


@pytest.mark.parametrize("kind", SUMMABLE)
def test_over_the_cap_of_tag_sets_a_name_has_one_more_series(kind):
    """`name;overflow=true` takes what is new; what was there before goes on, and so do other names."""
    registry = small()
    instrument = getattr(registry, kind)("x")
    children = [instrument.tagged(user=number) for number in range(8)]
    for child in children:
        measure(child)
    assert [child.key for child in children] == [f"x;user={number}" for number in range(5)] + ["x;overflow=true"] * 3
    assert len(set(children)) == 6
    assert instrument.tagged(user=2) is children[2]
    assert getattr(registry, kind)("y", tags={"user": 9}).key == "y;user=9"
    window = registry.tick(10, 10).cumulative[kind]
    assert [key for key in window if key.startswith("x")] == [
        "x",
        *(f"x;user={number}" for number in range(5)),
        "x;overflow=true",
    ]
    assert registry.drops.totals() == {"overflow": 3}


@pytest.mark.parametrize("kind", SUMMABLE)
def test_over_the_cap_of_series_there_is_one_more_of_each_kind(kind):
    """`overflow` takes what is new."""
    registry = small(max_series=3)
    instruments = [getattr(registry, kind)(f"n{number}") for number in range(5)]
    for instrument in instruments:
        measure(instrument)
    assert [instrument.key for instrument in instruments] == ["n0", "n1", "n2", "overflow", "overflow"]
    assert instruments[3] is instruments[4]
    assert list(registry.tick(10, 10).cumulative[kind]) == ["n0", "n1", "n2", "overflow"]
    assert registry.drops.totals() == {"overflow": 2}
    assert len(registry) == 3


def test_gauges_over_a_cap_are_dropped_and_counted():
    """A gauge that many write says nothing; the instrument is there all the same, and does nothing."""
    registry = small(max_tag_sets=1)
    gauge = registry.gauge("x")
    gauge.tagged(a=1).set(1)
    gauge.tagged(a=2).set(2)
    gauge.tagged(a=2).inc()
    registry.gauge("x", read=lambda: 3, tags={"a": 3})
    assert registry.tick(10, 10).cumulative.gauges == {"x;a=1": 1}
    assert registry.drops.totals() == {"overflow_dropped": 2}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(["a", "b", "c", "d", "overflow"]),
            st.dictionaries(st.sampled_from(["t", "overflow"]), st.sampled_from(["true", "1", "2", "3"]), max_size=2),
        ),
        max_size=80,
    )
)
def test_caps_hold_against_any_names_and_tags(made):
    """Also against those that look like the overflow's own: what is alive is bounded, and the sum of all is kept."""
    registry = small(max_series=8, max_tag_sets=3)
    for kind, name, tags in made:
        measure(getattr(registry, kind)(name, tags=tags))
    assert len(registry) <= 8
    window = registry.tick(10, 10).cumulative
    assert len(window) <= 8 + len(KINDS) + 2 * len(KINDS)  # an overflow of each kind, and of names with 3 tag sets
    assert sum(window.counters.values()) == sum(kind == "counter" for kind, _, _ in made)
    assert sum(timer.count for timer in window.timers.values()) == sum(kind == "timer" for kind, _, _ in made)


def test_a_flood_of_names_that_claim_to_be_an_overflow_stops_at_the_cap():
    """No client can pass the cap by a tag."""
    limited = limits(max_series=10)
    admitted = {limited.admit(Series("counter", f"n{number}", OVERFLOW)) for number in range(1000)}
    assert len(limited) == 10
    assert len(admitted) == 11


def test_a_series_that_left_makes_room():
    """For a tag set of its name and for a series."""
    limited = limits(max_series=4, max_tag_sets=2)
    one, two, three = (series_of("counter", "x", {"t": number}) for number in (1, 2, 3))
    assert (limited.admit(one), limited.admit(two)) == (one.key, two.key)
    assert limited.admit(three) == "x;overflow=true"
    limited.release(one)
    assert limited.admit(three) == three.key
    assert limited.admit(one) == "x;overflow=true"
    assert len(limited) == 2
    for series in (two, three, three):
        limited.release(series)
    assert len(limited) == 0
    assert limited._tag_sets == {}


def test_a_cap_that_is_reached_is_reported_for_each_kind():
    """However many names are over it."""
    limited = limits(max_series=3, max_tag_sets=1)
    for number in range(5):
        limited.admit(series_of("counter", "x", {"t": number}))
    assert limited.reached() == {("max_tag_sets", "counter"): "x"}
    assert limited.reached() == {}
    for number in range(5):
        limited.admit(series_of("counter", "x", {"t": number}))
        limited.admit(series_of("timer", f"n{number}"))
    assert limited.reached() == {("max_tag_sets", "counter"): "x", ("max_series", "timer"): "n4"}


FATES = {
    "counter": "counted in {}, cause overflow",
    "timer": "counted in {}, cause overflow",
    "histogram": "counted in {}, cause overflow",
    "gauge": "dropped, cause overflow_dropped",
    "unique": "counted in {}, cause overflow",
}


@pytest.mark.parametrize("kind", FATES)
@pytest.mark.parametrize(
    ("caps", "many"),
    [({"max_series": 1}, ""), ({"max_bytes": 3000}, ""), ({"max_tag_sets": 1}, "tag sets of ")],
    ids=["max_series", "max_bytes", "max_tag_sets"],
)
def test_the_log_says_what_happens_to_new_series_of_each_kind(kind, caps, many, caplog):
    """Gauges have no overflow series."""
    registry = Registry(**{"max_tag_sets": 100, **caps})
    (cap,) = caps
    for number in range(2):
        getattr(registry, kind)("x", tags={"t": number})
    registry.tick(10, 10)
    place = "x;overflow=true" if many else "the series overflow"
    such = f"{many}{kind}s such as x" if many else f"{kind}s"
    (message,) = caplog.messages
    assert message == f"no room for more {such}: new ones are {FATES[kind].format(place)}; raise {cap}"
    keys = [key for key in registry.keys(kind) if "overflow" in key]
    assert keys == ([] if kind == "gauge" else [place.removeprefix("the series ")])


def test_the_log_has_a_cap_once_a_minute_and_only_from_the_tick(clock, caplog):
    """Never from the instrument call, for logging may block or measure."""
    registry = Registry(clock=clock, max_tag_sets=1)
    with caplog.at_level(logging.DEBUG):
        for end in range(10, 80, 10):
            for number in range(3):
                registry.counter("x").tagged(t=f"{end}.{number}").inc()
                registry.counter("y").tagged(t=f"{end}.{number}").inc()
            assert len(caplog.messages) == (end > 10)
            registry.tick(end, 10)
            clock.advance(10)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_every_cause_is_logged_from_the_tick_with_what_to_change(clock, caplog):
    """At once, and then once a minute."""
    registry = Registry(clock=clock, max_bytes=20_000)
    registry.gauge("y", read=lambda: math.nan)
    for end in (10, 20, 80):
        for number in range(50):
            registry.unique("x").add(f"{end}.{number}")
        registry.tick(end, 10)
        clock.advance(30)
    assert [message.partition(" dropped, ")[2].partition(":")[0] for message in caplog.messages] == [
        "cause bad_callback",
        "cause unique_full",
        "cause bad_callback",
        "cause unique_full",
    ]
    assert caplog.messages[2].startswith("2 dropped, ")
    assert caplog.messages[3].endswith("(100,000 at most), or raise max_bytes")


@pytest.mark.parametrize("option", ["max_series", "max_tag_sets"])
@pytest.mark.parametrize("cap", [0, -1, 1.5, None, "10"])
def test_a_cap_that_means_nothing_is_refused_early(option, cap):
    """By name, with the bad value."""
    with pytest.raises(InvalidOption, match=option) as caught:
        Registry(**{option: cap})
    assert caught.value.value == cap


def test_threads_that_make_the_same_series_count_them_once():
    """Whoever comes first makes it; the number alive is the number there is."""
    registry, barrier = small(max_series=1000, max_tag_sets=1000), threading.Barrier(8)

    def work():
        barrier.wait()
        for number in range(200):
            registry.counter("x", tags={"t": number}).inc()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry) == 200
    assert set(registry.tick(10, 10).cumulative.counters.values()) == {8}


def test_threads_that_tag_the_same_name_count_each_tag_set_once():
    """All that have room get in, the next does not, and when all have left there is nothing left to count."""
    limited, barrier = limits(max_series=1000, max_tag_sets=200), threading.Barrier(8)

    def work():
        barrier.wait()
        for number in range(200):
            limited.admit(series_of("counter", "x", {"t": number}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(limited) == 200
    assert limited.admit(series_of("counter", "x", {"t": "more"})) == "x;overflow=true"
    for number in range(200):
        limited.release(series_of("counter", "x", {"t": number}))
    assert limited.admit(series_of("counter", "x", {"t": "more"})) == "x;t=more"
    assert len(limited) == 1


def test_all_who_ask_for_a_key_get_one_object():
    """However often it is put together: a copy for everybody would be most of what a series takes."""
    limited = limits()
    first, second = (limited.admit(series_of("counter", "x", {"t": 1})) for _ in range(2))
    assert first is second


# -- filters


def test_a_filter_adds_no_empty_part_to_a_name_and_takes_none_away():
    """A program's names have none; those that a forwarder reads keep theirs, as in statsd."""
    asked = limits(lambda series: series._replace(name=series.name.replace("old", "")), add_tags(k="v"))
    assert asked.admit(Series("counter", "old.a")) == "a;k=v"
    assert asked.admit(Series("counter", "a..b.")) == "a..b.;k=v"


def keys(*filters):
    """What is sent of three counters that were each incremented by 1."""
    registry = small(filters=filters)
    for name, tags in (("web.hits", {"a": 1}), ("web.misses", {}), ("db.hits", {})):
        registry.counter(name, tags=tags).inc()
    return registry.tick(10, 10).cumulative.counters


@pytest.mark.parametrize(
    ("filters", "counters"),
    [
        ([drop("web.*")], {"db.hits": 1}),
        ([keep("web.*")], {"web.hits;a=1": 1, "web.misses": 1}),
        ([rename("web.*", "www.{name}")], {"www.web.hits;a=1": 1, "www.web.misses": 1, "db.hits": 1}),
        ([rename("*", "all")], {"all;a=1": 1, "all": 2}),
        ([add_tags(a=9, b=2)], {"web.hits;a=1;b=2": 1, "web.misses;a=9;b=2": 1, "db.hits;a=9;b=2": 1}),
        ([drop("*.misses"), rename("web.*", "x")], {"x;a=1": 1, "db.hits": 1}),
        ([rename("web.*", "x"), drop("web.*")], {"x;a=1": 1, "x": 1, "db.hits": 1}),
        ([lambda series: series if series.tags else None], {"web.hits;a=1": 1}),
        ([lambda series: series._replace(tags=())], {"web.hits": 1, "web.misses": 1, "db.hits": 1}),
        ([lambda series: series._replace(name="a b;c=1")], {"a_b;a=1;c=1": 1, "a_b;c=1": 2}),
    ],
)
def test_filters_change_or_leave_out_new_series(filters, counters):
    """One after the other; two series that get one name add up; a function of one's own will do."""
    assert keys(*filters) == counters


def raising(series):
    raise RuntimeError("filter is broken")


@pytest.mark.parametrize(
    "broken",
    [
        raising,
        lambda series: True,
        lambda series: series.name,
        lambda series: series._replace(kind="timer"),
        lambda series: series._replace(name=None),
        lambda series: series._replace(tags=5),
        lambda series: (),
        lambda: None,
    ],
)
def test_a_broken_filter_is_counted_and_passed_over(broken):
    """It raises nowhere, and the series is kept: what is measured matters more."""
    registry = small(filters=[broken, add_tags(b=2)])
    registry.counter("x").inc()
    assert registry.tick(10, 10).cumulative.counters == {"x;b=2": 1}
    assert registry.drops.totals() == {"filter_error": 1}


def test_what_a_filter_leaves_out_measures_nothing_and_is_counted():
    """The instruments are there, and every call of theirs does nothing, for their children too."""
    registry = small(filters=[drop("x")])
    for kind in KINDS:
        instrument = getattr(registry, kind)("x")
        for _ in range(2000):
            measure(instrument)
        measure(instrument.tagged(a=1))
        assert instrument._pending_count == 0
    assert len(registry.tick(10, 10).cumulative) == 0
    assert registry.drops.totals() == {"filtered": 2 * len(KINDS)}


def test_a_filter_is_asked_once_for_each_series():
    """Not on the hot path."""
    asked = []
    registry = small(filters=[lambda series: asked.append(series.key) or series])
    for _ in range(3):
        registry.counter("x").tagged(a=1).inc()
        registry.tick(10, 10)
    assert asked == ["x", "x;a=1"]


def test_the_object_is_found_under_the_name_that_was_asked_for():
    """A renamed series is the same object for who asks again, and its name is the program's own."""
    registry = small(filters=[rename("old", "new")])
    counter = registry.counter("old")
    assert registry.counter("old") is counter
    assert (counter.name, counter.key) == ("old", "new")
    assert counter.tagged(a=1).key == "old;a=1".replace("old", "new")
    assert registry.counter("new") is not counter
