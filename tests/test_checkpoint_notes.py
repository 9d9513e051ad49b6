"""A registry's notes come back as they were, from either implementation, and notes that make no sense are refused."""

import json
import math
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib._accelerate import load
from metricslib.checkpoint import BadNote, read_key, read_open, read_total, write_open, write_total
from metricslib.naming import Naming
from metricslib.series import KINDS, Series
from metricslib.series_state import TOTALS
from metricslib.sketch import Distribution
from metricslib.window import ABSENT, Aggregates, GaugeChange, OpenInterval, Window
from metricslib.wire import jsonl, statsd
from tests.implementations import packages
from tests.test_implementations import WRITES, contents

PURE = pytest.mark.parametrize("pure", [True, False], ids=["Python", "C"])
FINITE = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70))
KEYS = st.from_regex(r"[a-z_]{1,3}(;[a-c]=[a-z]{1,3})?", fullmatch=True)


def built(modules: Any, writes: Any, limit: int) -> Any:
    """A distribution of either implementation, made as ``writes`` say."""
    make = modules["metricslib.sketch"].Distribution
    distribution = make(limit=limit)
    for write in writes:
        if write[0] == "merge":
            other = make(limit=write[2])
            for value, weight in write[1]:
                other.add(value, weight)
            distribution.merge(other)
        else:
            getattr(distribution, write[0])(*write[1:])
    return distribution.freeze()


def there_and_back(modules: Any, kind: str, value: Any) -> Any:
    """What comes back of one series of the open interval."""
    window, notes = modules["metricslib.window"], modules["metricslib.checkpoint"]
    sent = window.Aggregates()
    sent.add(kind, "x", value)
    opened, bad = notes.read_open(notes.write_open(window.OpenInterval(1.5, 20, sent)))
    assert (opened.start, opened.end, bad) == (1.5, 20, 0)
    return opened.sent[kind]["x"]


@PURE
@example(writes=[("adjust", 0.0, 1.0)], limit=1, more=[])
@example(writes=[("add", 0.0, 1), ("add", 0.0, 1)], limit=1, more=[("adjust", 0.0, 0.0)])
@given(writes=st.lists(WRITES, max_size=12), limit=st.sampled_from([1, 5, 256]), more=st.lists(WRITES, max_size=6))
def test_a_distribution_comes_back_as_it_was(pure, writes, limit, more):
    """To the last bit: samples, weights, buckets, sums, extremes; and what it is merged with later comes out the same,
    whichever of the two came first.
    """
    if not pure and load("metricslib._speedups") is None:
        pytest.skip("the C implementation were not built")
    modules = packages(pure)
    merged = modules["metricslib.sketch"].merged
    before, later = built(modules, writes, limit), built(modules, more, 20)
    after = there_and_back(modules, "timer", before)
    assert contents(after) == contents(before)
    assert contents(merged(after, later)) == contents(merged(before, later))
    assert contents(merged(later, after)) == contents(merged(later, before))
    again = there_and_back(modules, "timer", merged(after, later))
    assert contents(again) == contents(merged(before, later))


@given(FINITE, FINITE, st.frozensets(st.text(max_size=5), min_size=1, max_size=5))
def test_all_other_kinds_come_back_as_they_were(number, delta, members):
    """Whole numbers stay whole, a gauge that was only changed stays without a base, members may be any text."""
    modules = {name: __import__(name, fromlist=[""]) for name in ("metricslib.window", "metricslib.checkpoint")}
    for kind, value in (
        ("counter", number),
        ("gauge", GaugeChange(number, delta)),
        ("gauge", GaugeChange(None, delta)),
        ("unique", members),
    ):
        after = there_and_back(modules, kind, value)
        assert (after, repr(after) if kind != "unique" else "") == (value, repr(value) if kind != "unique" else "")
    assert math.isnan(there_and_back(modules, "gauge", ABSENT).base)


def test_numbers_of_a_source_s_own_are_written_as_floats():
    """Whatever a source counts with must not cost everybody else their notes."""

    class Odd:
        def __float__(self):
            return 2.5

    sent = Aggregates()
    sent.counters["x"] = Odd()
    assert read_open(write_open(OpenInterval(0, 10, sent)))[0].sent.counters == {"x": 2.5}


def total(kind, place=0, **numbers):
    made = TOTALS[kind](10.0)
    made.place = place
    for name, number in numbers.items():
        setattr(made, name, number)
    return made


def parts(of):
    return type(of), *(
        getattr(of, name) for name in ("active", "created", "idle", "place", "gauge", "count", "sum", "powers")
    )


PLACE = {"place": st.integers(0, 10**12), "active": st.floats(0, 1e12)}
SUM = {**PLACE, "sum": FINITE | st.just(math.inf), "created": st.none() | st.floats(0, 1e12)}
SAMPLED = {
    **SUM,
    "count": st.integers(0, 10**20) | st.floats(0, 1e300),
    "powers": st.dictionaries(st.integers(-40, 40), st.floats(0.1, 1e20) | st.integers(1, 2**53)),
}
BY_KIND = {
    "counter": SUM,
    "timer": SAMPLED,
    "histogram": SAMPLED,
    "gauge": {**PLACE, "gauge": st.none() | FINITE},
    "unique": PLACE,
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_totals_come_back_as_they_were(kind, data):
    """Every number to the last bit, and no value is not the value 0."""
    before = total(kind, **data.draw(st.fixed_dictionaries(BY_KIND[kind])))
    after = read_total(kind, write_total(before))
    assert parts(after) == parts(before)
    assert type(after.gauge) is type(before.gauge)


def test_a_note_is_short_and_can_be_read():
    """What is nothing is not written."""
    assert write_total(total("timer")) == b'{"place":0,"active":10.0}'
    assert write_total(total("gauge", 3, gauge=0)) == b'{"place":3,"active":10.0,"gauge":0}'
    assert write_total(total("counter", 4, sum=5)) == b'{"place":4,"active":10.0,"sum":5,"count":0}'


GOOD_TOTAL = {"place": 1, "active": 10, "gauge": 1.5, "count": 3, "sum": 4.5, "powers": {"0": 3}}


@pytest.mark.parametrize(
    ("kind", "member", "values"),
    [
        ("unique", "place", [None, -1, 1.0, "1", True, 2**64]),
        ("counter", "active", [None, "10", math.nan, math.inf, True, [], 10**400]),
        ("gauge", "gauge", [None, "1", math.nan, math.inf, {}, 10**400]),
        ("timer", "count", [None, -1, math.nan, math.inf, "3", False]),
        ("counter", "sum", [None, "4.5", [4.5], True]),
        ("histogram", "powers", [None, [], {"x": 1}, {"41": 1}, {"0": -1}, {"0": None}, {"0": math.nan}]),
    ],
)
def test_a_total_that_makes_no_sense_is_refused(kind, member, values):
    """One wrong member, and the note is no note."""
    assert getattr(read_total(kind, json.dumps(GOOD_TOTAL).encode()), member)
    for value in values:
        with pytest.raises(BadNote):
            read_total(kind, json.dumps({**GOOD_TOTAL, member: value}).encode())


NO_NOTES = [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff\xfe", b"\0", b"[" * 100_000, b'{"end":1}', b"1" * 10_000]


@pytest.mark.parametrize("read", [*(partial(read_total, kind) for kind in KINDS), read_open], ids=[*KINDS, "open"])
@pytest.mark.parametrize("note", NO_NOTES, ids=range(len(NO_NOTES)))
def test_what_is_no_note_is_refused(read, note):
    """Whatever is in the place of a note, it is one kind of error."""
    with pytest.raises(BadNote):
        read(note)


SAMPLES = {"limit": 256, "samples": [1.0, 2.0], "weights": [1, 10.0]}
SKETCH = {
    "limit": 1,
    "count": 3,
    "sum": 6.0,
    "sum_squares": 14.0,
    "min": 1.0,
    "max": 3.0,
    "unit": 1,
    "buckets": [[2561, 1], [2625, 2]],
}


def opened(**kinds):
    document = {"start": 10.0, "end": 20, "counter": {}, "timer": {}, "histogram": {}, "gauge": {}, "unique": {}}
    return json.dumps({**document, **kinds}).encode()


ODD: dict[str, list[Any]] = {
    "counter": [None, "1", True, math.nan, math.inf, [], 10**400],
    "gauge": [None, 1, [1], [1, 2, 3], [1, math.nan], ["1", 0], [math.inf, 0], [True, 0]],
    "unique": [None, [], "ab", [1], [None], {"a": 1}],
    "timer": [{}, None],
}
WRONG: list[tuple[str, Any]] = [
    *[(kind, value) for kind, values in ODD.items() for value in values],
    *[
        ("timer", {**SAMPLES, **wrong})
        for wrong in (
            {"limit": 0},
            {"limit": 2**40},
            {"samples": [math.nan]},
            {"samples": ["1"]},
            {"samples": 5},
            {"weights": [1]},
            {"weights": [1, 0]},
            {"weights": [1, -1]},
            {"weights": [1, math.inf]},
        )
    ],
    *[
        ("histogram", {**SKETCH, **wrong})
        for wrong in (
            {"buckets": [[5122, 1]]},
            {"buckets": [[1.5, 1]]},
            {"buckets": [[1]]},
            {"buckets": [[1, 0]]},
            {"buckets": {"1": 1}},
            {"count": 0},
            {"sum": "6"},
            {"min": 4.0},
            {"max": math.inf},
            {"unit": -1},
            {"unit": None},
            {"unit": 5},
            {"unit": 1e-300},
        )
    ],
]


@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_a_series_that_makes_no_sense_costs_the_others_nothing(kind, value):
    """It is left out of the open interval, and counted."""
    interval, bad = read_open(opened(**{kind: {"x": value, "y": {"counter": 1, "gauge": [1, 0]}.get(kind, SAMPLES)}}))
    assert bad == (1 if kind != "unique" else 2)
    assert set(interval.sent[kind]) == ({"y"} if kind != "unique" else set())
    assert read_open(opened(timer={"x": SAMPLES}, histogram={"x": SKETCH}))[1] == 0


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n1 2 3", "a;b", "a;b=1;a=1", "a;", "ä", "a;b=1;b=2", "\udc80"])
def test_a_key_that_is_no_series_is_refused(key):
    """So that nothing gets onto the wire that a name could not have been."""
    with pytest.raises(BadNote):
        read_key("counter", key)
    assert read_open(opened(counter={key: 1}))[1] == 1
    assert read_key("counter", "a.b;c=d") == Series("counter", "a.b", (("c", "d"),))


def flipped(note: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    broken = bytearray(note)
    for _ in range(chance.randint(1, 4)):
        broken[chance.randrange(len(broken))] = chance.choice(b'0123456789.-,:[]{}"eNaI \n\xff')
    return bytes(broken[: chance.choice([len(broken), chance.randrange(len(broken))])])


@given(st.integers(0, 2**32))
@example(0)
def test_what_comes_in_can_go_out(seed):
    """A note with some bytes changed is refused, or what is read of it goes through everything that follows."""
    note = opened(
        counter={"c": 5},
        timer={"t": SAMPLES, "u": SKETCH},
        histogram={"h": SKETCH},
        gauge={"g": [1.5, 0], "d": [None, 1]},
        unique={"s": ["a"]},
    )
    try:
        interval, _ = read_open(flipped(note, seed))
    except BadNote:
        return
    sent = interval.sent
    later = Distribution([1.0, 2.0, 3.0]).freeze()
    for kind in ("timer", "histogram"):
        for key in list(sent[kind]):
            sent.add(kind, key, later)
    gauges = {key: change.applied_to(1) or 0 for key, change in sent.gauges.items()}
    window = Window(0, 10, 10, sent.counters, sent.timers, sent.histograms, gauges, sent.uniques)
    naming = Naming(percentiles=(50, 90, -10))
    naming.pairs(window)
    jsonl.encode(window, percentiles=(50, 90, -10))
    list(statsd.encode(window))
    write_open(interval)
