"""A unique counts different members, told apart by their text at the moment they were added."""

import enum
import weakref
from hashlib import sha256
from importlib import import_module

import pytest


def test_members_count_once_an_interval(registry, tick):
    """An idle one is 0."""
    unique = registry.unique("x")
    for member in ("a", "b", "a"):
        unique.add(member)
    assert tick().cumulative.uniques == {"x": frozenset("ab")}
    idle = tick()
    assert idle.cumulative.uniques == {"x": frozenset()}
    assert idle.delta.uniques == {}
    unique.add("a")
    assert tick().cumulative.uniques == {"x": frozenset("a")}


def test_members_are_told_apart_by_their_text(registry, tick):
    """1 and "1" are one member; the text is a plain str whatever the type."""

    class Text(str):
        pass

    class Odd:
        def __str__(self):
            return Text("odd")

    class Mixed(str, enum.Enum):  # noqa: UP042
        HITS = "hits"

    unique = registry.unique("x")
    for member in (1, "1", 1.0, None, "None", b"a", Text("t"), Odd(), (1, 2), Mixed.HITS, "hits"):
        unique.add(member)
    members = tick().cumulative.uniques["x"]
    assert members == {"1", "1.0", "None", "b'a'", "t", "odd", "(1, 2)", "hits"}
    assert {type(member) for member in members} == {str}


def test_a_member_counts_as_what_it_was_when_added(registry, tick):
    """A buffer that is used again, or an object that changes, is a member each time."""
    unique, member = registry.unique("x"), []
    for number in range(3):
        member.append(number)
        unique.add(member)
    assert len(tick().cumulative.uniques["x"]) == 3


def test_members_are_not_kept_alive(registry, tick):
    """What was added may go: only its text waits for the fold."""

    class Member:
        pass

    member = Member()
    gone = weakref.ref(member)
    registry.unique("x").add(member)
    del member
    assert gone() is None


def raising(error):
    class Raising:
        def __str__(self):
            raise error

    return Raising()


@pytest.mark.parametrize(
    "member", [raising(RuntimeError()), raising(RecursionError()), 10**5000, -(10**5000)], ids=range(4)
)
def test_a_member_without_a_text_is_counted_as_bad(registry, tick, member):
    """And the others count."""
    unique = registry.unique("x")
    for each in ("a", member, "b"):
        unique.add(each)
    assert tick().cumulative.uniques == {"x": frozenset("ab")}
    assert registry.drops.totals() == {"bad_value": 1}


def test_long_members_are_kept_as_digests(registry, tick):
    """Bounded in memory, and still told apart, surrogates included; by the same digest whoever computes it."""
    unique = registry.unique("x")
    for member in ("a" * 1000, "a" * 1001, "a" * 1000, "\ud800" * 1000, "b" * 256):
        unique.add(member)
    members = tick().cumulative.uniques["x"]
    assert len(members) == 4
    assert max(map(len, members)) == 256
    assert sha256(b"a" * 1000).hexdigest() in members


def test_the_number_of_members_is_bounded_and_what_is_over_is_counted(registry, tick, monkeypatch):
    """Known members do not count as dropped."""
    monkeypatch.setattr(import_module("metricslib.instruments.unique"), "MEMBERS", 10)
    unique = registry.unique("x")
    for number in [*range(15), *range(5)]:
        unique.add(number)
    assert tick().cumulative.uniques["x"] == {str(number) for number in range(10)}
    assert registry.drops.totals() == {"unique_full": 5}
