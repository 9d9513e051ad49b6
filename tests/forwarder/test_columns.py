"""Columns hold what the parser says of each line, or there are none."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder import intake_in_python
from forwarder.columns import Columns, columns
from forwarder.keys import Keys
from forwarder.parser import KINDS, parse
from forwarder.waiting import Waiting
from metricslib.series import drop

FIELDS = st.one_of(st.sampled_from(["a", "1", "0.5", "5.", ".5", "007", "c", "ms", "g", ""]), st.text(max_size=4))
PLAIN = st.builds("{}:{}|{}".format, FIELDS, st.sampled_from(["1", "25", "0.5", "1.50", "12345"]), FIELDS)
BROKEN = st.text(st.sampled_from(":|\n.0a9@#-"), max_size=12)
LINES = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, BROKEN), min_size=1, max_size=6)


@given(LINES)
@example(["x:1|c:y:2|ms", "w", "5|c"])
@example(["a|1:c"])
@example(["a:1|c", ""])
@example(["a:05|c"])
@example(["_e{1,1}:1|c"])
@example(["a:1|c\r"])
def test_they_are_what_the_parser_reads(lines):
    """Where all lines are plain, each has one piece, with that key, and that number if its type takes one."""
    raw = "\n".join(lines).encode()
    found = columns(raw)
    if found is None:
        return
    texts = raw.decode().split("\n")
    assert len(texts) == len(found.keys) == len(found.numbers) == len(found.types)
    for text, key, number, letter in zip(texts, *found, strict=True):
        parsed = parse(text)
        assert parsed.key == key
        assert len(parsed.samples) + len(parsed.bad) == 1
        if letter in KINDS and letter != "s":
            (sample,) = parsed.samples
            assert (sample.kind, sample.value, sample.weight, sample.relative) == (KINDS[letter], number, 1, False)


def test_whole_numbers_are_ints():
    """So that their sums are exact in any order."""
    found = columns(b"a:1|c\nb:2.0|ms\nc:12|q")
    assert found == Columns(["a", "b", "c"], [1, 2.0, 12], ["c", "ms", "q"])
    assert [type(number) for number in found.numbers] == [int, float, int]


@pytest.mark.parametrize("value", ["-1", "+1", "1e3", "0x10", "", ".", "1.2.3", "inf", "٣", "1_0", " 1", "1" * 16])
def test_other_numbers_are_for_the_parser(value):
    """One is enough, for the lines are read together."""
    assert columns(f"a:1|c\na:{value}|c".encode()) is None


@pytest.mark.parametrize("then", ["", "\nu:1|s", "\n%s:1|c" % ("k" * 5000)])
def test_ever_new_spellings_are_not_all_remembered(registry, then):
    """Of keys over a cap there may be any number, also beside lines of another kind; no more than a batch is kept."""
    registry = type(registry)(clock=registry.clock, max_series=1)
    waiting = Waiting(Keys(registry, 4))
    for number in range(50):
        assert waiting.put(columns(f"a{number}:1|c{then}".encode())) == (not then)
        assert sum(map(len, waiting._by_type.values())) <= 4 + 1
    assert waiting.by_series["counter"] == ({"a0": [], "overflow": []} if then else {"a0": [1], "overflow": [1] * 49})


def test_what_waits_is_counted(registry):
    """Numbers of refused series too, until each was taken once."""
    waiting = Waiting(Keys(type(registry)(clock=registry.clock, filters=[drop("no")]), 4))
    assert waiting.put(columns(b"a:1|c\na:2|c\nt:3|ms\nno:4|c"))
    assert (waiting.count, waiting.series) == (4, 2)
    taken = [waiting.by_series["counter"], waiting.refused, waiting.by_series["counter"], waiting.by_series["timer"]]
    found = [[(key, list(numbers)) for key, numbers in waiting.taken(lists)] for lists in taken]
    assert found == [[("a", [1, 2])], [("filtered", [4])], [], [("t", [3])]]
    assert waiting.count == 0


@pytest.mark.parametrize("chunks", [[b"a:1|c\n"], [b"a:1|c\r\nb:2|c\r\n", b"c:3|c\n\n"], [b"", b"\r\n", b"a:1|c"]])
def test_ends_of_lines_at_the_end_leave_lines_plain(registry, monkeypatch, chunks):
    """Datagrams may end with a line feed, and blocks of a stream always do."""
    found = []
    monkeypatch.setattr(intake_in_python, "columns", lambda lines: found.append(columns(lines)) or found[-1])
    intake_in_python.IntakeInPython(registry).feed(chunks)
    assert all(found)
