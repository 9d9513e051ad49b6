"""Keys that come for the first time: the C implementation resolves many at once where no filter and no cap can matter.

What comes out is what the Python implementation does, which asks for one after the other.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib._accelerate import load
from tests.implementations import packages

from .test_aggregator_implementations import Side


@pytest.fixture(autouse=True)
def c_is_built():
    """Without C there is nothing to compare."""
    if load("forwarder._aggregator") is None:
        pytest.skip("the C implementation was not built, or is not wanted")


def one_by_one(side):
    """Return the list of names for which the registry of ``side`` is asked one by one, from now on."""
    asked, admit = [], side.registry.admit

    def asking(kind, name, tags=()):
        asked.append(name)
        return admit(kind, name, tags)

    side.registry.admit = asking
    return asked


def lines(count):
    return ["\n".join(f"web.{number}:1|{'c', 'ms', 'g', 's', 'h'}[number % 5]" for number in range(count)).encode()]


def test_plain_names_are_admitted_at_once():
    """The registry is not asked for each, nor for a name that came before; tags and other characters are looked at."""
    side = Side(False, max_series=10_000)
    asked = one_by_one(side)
    side.do([b"a.b-c_D9:1|c\na.b-c_D9:2|c\nx=y:1|ms\na.b-c_D9:1|g\noverflow:1|c"])
    assert asked == []
    side.do([b"a.b-c_D9:3|c\na/b:1|c\n\xc3\xa4:1|c\nt:1|c|#a:b\nt;a=b:1|c\na b:1|c\n:1|c\nq:1|c:x|c"])
    assert asked == ["a-b", "_", "t", "a_b", "_", "q"]
    window = side.do("tick")[0]
    assert [key for key, *_ in window["counters"]] == ["a.b-c_D9", "overflow", "a-b", "_", "t;a=b", "a_b", "q"]


@pytest.mark.parametrize("cap", [3000, 3584, 4000, 5000])
@pytest.mark.parametrize("filtered", [False, True])
def test_at_a_cap_the_same_names_find_room(cap, filtered):
    """Near it they are asked for one by one, in their order, whatever stands between them."""
    sides = [Side(pure, max_series=cap, max_tag_sets=2) for pure in (True, False)]
    if filtered:
        for side in sides:
            drop = packages(side is sides[0])["metricslib.series"].drop
            side.registry._limits._filters = (drop("web.*7"),)
    mixed = []
    for number in range(6000):
        kind = ("c", "ms", "g", "s", "h")[number % 5]
        mixed.append(f"web.{number}:1|{kind}" + ("", "", "", f"|#t:{number}", "|@0.5")[number % 7 % 5])
        if number % 11 == 0:
            mixed.append(f"slow.{number}:1|c:1|g:1|q:1|ms")
    for step in (["\n".join(mixed).encode()], "tick", ["\n".join(mixed[::-1]).encode()], "tick"):
        assert sides[1].do(step) == sides[0].do(step)


def test_a_key_that_finds_no_room_is_asked_for_once():
    """Also where a line of the same batch that C does not read has the same key: each time would be counted."""
    sides = [Side(pure, max_series=1) for pure in (True, False)]
    for step in ([b"x:1|c\na:1|c:x|c\na:1|c\na:1|g:x|g\na:1|g"], "tick"):
        assert sides[1].do(step) == sides[0].do(step)
    assert sides[1].registry.drops.totals() == {"overflow": 1, "overflow_dropped": 1}


def test_a_series_that_expired_is_admitted_anew():
    """At once, too, and it begins at nothing."""
    sides = [Side(pure, max_series=10_000) for pure in (True, False)]
    names = ["\n".join(f"web.{number}:1|c" for number in range(1000)).encode()]
    for step in (names, "tick", ("forget", "counter", "web.7"), names, "tick", *["tick"] * 4, names, "tick"):
        assert sides[1].do(step) == sides[0].do(step)


ANSWERS: list[object] = [
    None,
    1,
    "ab",
    {},
    (),
    [],
    [1],
    ["a"],
    ["a", 2],
    ["a", None],
    ["b", b"a"],
    ["a", "b", "c"],
    ValueError,
]


class Text(str):
    """No exact string, and no good key."""

    def __hash__(self):
        raise ZeroDivisionError

    def __eq__(self, other):
        raise ZeroDivisionError


@given(st.lists(st.sampled_from([*ANSWERS, [Text("a"), Text("b")]]), min_size=1, max_size=4))
@example([["a", Text("b")]])
def test_nonsense_for_an_answer_is_no_answer(answers):
    """Then the names are asked for one by one, and every sample is counted."""
    side = Side(False, max_series=10_000)
    answers = iter(answers * 9)

    def admit_names(names, others=0):
        answer = next(answers)
        if answer is ValueError:
            raise ValueError
        return answer

    side.registry.admit_names = admit_names
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.unraisablehook", lambda raised: None)
        for number in range(8):
            side.do([b"a:%d|c\nb:2|c" % number])
    counts = side.aggregator.counts()
    assert (counts.received, counts.aggregated) == (16, 16)
    assert sum(value for value in side.aggregator.collect().counters.values()) == sum(range(8)) + 16


def test_the_owner_may_call_back_while_it_is_asked():
    """What it does to the aggregator then neither crashes nor changes a total."""
    side = Side(False, max_series=10_000)
    aggregator, original = side.aggregator, side.registry.admit_names
    refused = []

    def admit_names(names, others=0):
        aggregator.collect()
        aggregator.counts()
        for name in ("a", "b"):
            aggregator._c.remember(0, name.encode(), aggregator._c.series(0, name, False))
        for call, *arguments in ((aggregator._c.feed, [b"c:1|c"]), (aggregator._c.receive, 0, -1)):
            try:
                call(*arguments)
            except RuntimeError as error:
                refused.append(str(error))
        return original(names, others)

    side.registry.admit_names = admit_names
    aggregator.feed([b"a:1|c\nb:2|c\na:1|c"])
    assert len(refused) == 2
    assert aggregator.collect().counters == {"a": 2, "b": 2}
