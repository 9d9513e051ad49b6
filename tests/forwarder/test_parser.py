"""What a line says. Each case that differs from statsd 0.9 is one of the deviations that the documentation lists."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder.parser import LONGEST_KEY, Line, Sample, number, parse, parse_point


def count(value, weight=1.0):
    return Sample("counter", value, weight)


def time(value, weight=1.0):
    return Sample("timer", value, weight)


def level(value):
    return Sample("gauge", value)


def change(value):
    return Sample("gauge", value, relative=True)


def member(text):
    return Sample("unique", member=text)


GOOD = [
    # types
    ("a:1|c", "a", [count(1)]),
    ("a:320|ms", "a", [time(320)]),
    ("a:4|g", "a", [level(4)]),
    ("a:4|h", "a", [Sample("histogram", 4)]),
    ("a:-4|d", "a", [Sample("histogram", -4)]),
    ("a:x y|s", "a", [member("x y")]),
    ("a:1| ms ", "a", [time(1)]),
    ("a:1|ms\r", "a", [time(1)]),
    # keys are as written; names.split makes them canonical
    (":1|c", "", [count(1)]),
    ("a b/c|d:1|c", "a b/c|d", [count(1)]),
    ("__proto__:1|c", "__proto__", [count(1)]),
    ("a;route=u;b:1|c", "a;route=u;b", [count(1)]),
    # gauges
    ("a:+4|g", "a", [change(4)]),
    ("a:-4|g", "a", [change(-4)]),
    ("a: -4|g", "a", [level(-4)]),
    ("a:0|g:-4|g", "a", [level(0), change(-4)]),
    ("a:-0|c", "a", [count(0)]),
    # sets take any text
    ("a:|s", "a", [member("0")]),
    ("a:urn:x:é|s", "a", [member("urn:x:é")]),
    ("a:1|c:b:c|s", "a", [count(1), member("b:c")]),
    # several values
    ("a:1|c:2|ms:3|g", "a", [count(1), time(2), level(3)]),
    ("a:1:2:3|c", "a", [count(1), count(2), count(3)]),
    ("a:1:2|ms|@0.5:3|c", "a", [time(1, 2.0), time(2, 2.0), count(3)]),
    # rates
    ("a:1|c|@0.1", "a", [count(1, 10.0)]),
    ("a:1|c|@1", "a", [count(1)]),
    ("a:1|c|@.5", "a", [count(1, 2.0)]),
    ("a:1|c|@0.5 \t:1|ms|@0.5\ufeff", "a", [count(1, 2.0), time(1, 2.0)]),
    ("a:1|c|@2e-1", "a", [count(1, 5.0)]),
    ("a:1|ms|@0.5|@bad", "a", [time(1, 2.0)]),
    # what sums lack
    ("a:1|ms|@0.5|~-3,4.5", "a", [time(1, 2.0)._replace(sum=-3.0, sum_squares=4.5)]),
    ("a:1:2|ms|@1|~3,4:5|ms", "a", [time(1), time(2)._replace(sum=3.0, sum_squares=4.0), time(5)]),
    ("a:1|h|@1|x|~1e-7,2E3|#t:1", "a;t=1", [Sample("histogram", 1, sum=1e-7, sum_squares=2000.0)]),
    ("a:1|c|@1|~3,4", "a", [count(1)]),
    ("a:1|ms|@1|~3|~1e999,1|~5,6", "a", [time(1)]),
    ("a:1|ms|@1|#t|~3,4", "a;t", [time(1)]),
    # DogStatsD's tags, and fields before and after them
    ("a:1|c|#x:y,b", "a;x=y;b", [count(1)]),
    ("a:1|c|#u:h:p", "a;u=hp", [count(1)]),
    ("a:1|c|#x;y:z", "a;x_y=z", [count(1)]),
    ("a:1|c|#", "a", [count(1)]),
    ("a;t=1:1|c|#x:y", "a;t=1;x=y", [count(1)]),
    ("a:1|c|@0.5|#x:y", "a;x=y", [count(1, 2.0)]),
    ("a:1|c|#x:y|@0.5", "a;x=y", [count(1, 2.0)]),
    ("a:1:2|ms|#x:y|@0.5", "a;x=y", [time(1, 2.0), time(2, 2.0)]),
    ("a:1|c|#x|c:in-1|T12|@0.5", "a;x", [count(1, 2.0)]),
    ("a:1|c|T1656581400", "a", [count(1)]),
    ("a:1|c|T1|@0.5", "a", [count(1, 2.0)]),
    ("a:1|c|c:in-1", "a", [count(1)]),
    ("a:1|c|@0.5|c:in-1|T1", "a", [count(1, 2.0)]),
    ("a:1|c|e:it-false,pu-1|card:low|@0.5", "a", [count(1, 2.0)]),
    ("a:1|c|@1|future", "a", [count(1)]),
    ("a:1|c|#x|future", "a;x", [count(1)]),
]


@pytest.mark.parametrize(("line", "key", "samples"), GOOD)
def test_good_lines(line, key, samples):
    """Key and samples, with nothing bad."""
    assert parse(line) == Line(key, tuple(samples))


BAD = [
    ("a", ["no value"]),
    ("a|#b", ["no value"]),
    ("a|#b:1|c", ["no value"]),
    ("a:", ["no type"]),
    ("a:1", ["no type"]),
    ("a:1:2", ["no type", "no type"]),
    ("a:1|", ["unknown type"]),
    ("a:1|x", ["unknown type"]),
    ("a:1|C", ["unknown type"]),
    ("a:1:2|x", ["unknown type", "unknown type"]),
    ("a:|c", ["bad value"]),
    ("a:x|c", ["bad value"]),
    ("a:1_0|c", ["bad value"]),
    ("a:1,5|c", ["bad value"]),
    ("a:١|c", ["bad value"]),
    ("a:NaN|g", ["bad value"]),
    ("a:Infinity|g", ["bad value"]),
    ("a:1e999|g", ["value out of range"]),
    ("a:1e308|c|@0.1", ["value out of range"]),
    ("a:1e200|ms", ["value out of range"]),
    ("a:-1|ms", ["negative time"]),
    ("a:1|c|", ["bad rate"]),
    ("a:1|c|0.1", ["bad rate"]),
    ("a:1|c|@", ["bad rate"]),
    ("a:1|c|@0", ["bad rate"]),
    ("a:1|c|@2", ["bad rate"]),
    ("a:1|c|@-0.5", ["bad rate"]),
    ("a:1|c|@+0.5", ["bad rate"]),
    ("a:1|c|@ 1", ["bad rate"]),
    ("a:1|c|@Infinity", ["bad rate"]),
    ("a:1|c|@5e-324", ["bad rate"]),
    ("a:1|c|#x|@0", ["bad rate"]),
    ("a:1|c|Tx", ["bad rate"]),
    ("a:1|c|c", ["bad rate"]),
    ("a:x|s|@9", ["bad rate"]),
    ("a" * LONGEST_KEY + "b:1|c:2|c", ["key too long", "key too long"]),
    ("a:1|c|#" + "b" * LONGEST_KEY, ["key too long"]),
]


@pytest.mark.parametrize(("line", "reasons"), BAD)
def test_bad_lines(line, reasons):
    """Each bad piece is counted by itself, with its reason."""
    parsed = parse(line)
    assert parsed.samples == ()
    assert parsed.bad == tuple(reasons)


@pytest.mark.parametrize(
    ("line", "samples", "reasons"),
    [
        ("a:1|c:x|c:3|ms", [count(1), time(3)], ["bad value"]),
        ("a:1:x:3|c", [count(1), count(3)], ["bad value"]),
        ("a:1|c:2", [count(1)], ["no type"]),
        ("a::1|c", [count(1)], ["bad value"]),
        ("a:1|c|@0:2|c", [count(2)], ["bad rate"]),
        ("a:1|c|x:2|c", [count(2)], ["bad rate"]),
    ],
)
def test_a_bad_piece_leaves_its_neighbours_alone(line, samples, reasons):
    """What is good on a line with bad pieces counts."""
    assert parse(line) == Line("a", tuple(samples), tuple(reasons))


@pytest.mark.parametrize(
    ("line", "cause"),
    [("_e{5,4}:title|text|#x", "event"), ("_sc|name|0|m:1", "service_check"), ("_e{", "event")],
)
def test_events_and_service_checks_are_one_piece_of_their_own_cause(line, cause):
    """DogStatsD's other messages are neither samples nor bad."""
    assert parse(line) == Line("", skipped=cause)
    assert parse(line).received == 1


@pytest.mark.parametrize("line", ["", "\r", "\r\r"])
def test_an_empty_line_says_nothing(line):
    """Not even that it is bad."""
    assert parse(line).received == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("\u00a05\ufeff", 5),
        ("+5", 5),
        ("-5.", -5),
        (".5", 0.5),
        ("1e3", 1000),
        ("1E-3", 0.001),
        ("007", 7),
        ("0x10", 16),
        ("0XfF", 255),
        ("0b11", 3),
        ("0o17", 15),
        (" ", 0),
        ("1e999", math.inf),
        ("0x1" + "0" * 400, math.inf),
        ("", None),
        (".", None),
        ("+", None),
        ("e5", None),
        ("1e", None),
        ("0x", None),
        ("+0x10", None),
        ("0xg", None),
        ("1 2", None),
        ("1_0", None),
        ("1,5", None),
        ("1.2.3", None),
        ("Infinity", None),
        ("inf", None),
        ("nan", None),
        ("true", None),
        ("5\x1c", None),
        ("５", None),
    ],
)
def test_numbers_are_javascripts(text, value):
    """`Number(text)`, where what is no number, or is no finite one by name, is None."""
    assert number(text) == value


def test_a_long_number_takes_no_time_to_refuse():
    """No text makes matching take time that grows with its square."""
    assert number("1" * 1_000_000 + "x") is None


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["1", "-2", "+3", "0.5", "1e3", "0x10", "", "x", " ", "NaN", "1e308", "a|b"]),
        st.sampled_from(["", "|c", "|ms", "|g", "|s", "|h", "|d", "|x", "|"]),
        st.sampled_from(["", "|@0.5", "|@2", "|@", "|T1", "|c:x", "|", "|#t:u", "|#t|@0.1", "|#"]),
    ).map("".join),
    max_size=5,
)
LINES = st.builds(
    lambda key, pieces: ":".join([key, *pieces]), st.sampled_from(["a", "", "a;b=c", "_e{", "é "]), PIECES
)


@given(st.one_of(st.text(), LINES))
@example("\ud800:1|c")
@example("a:1|\ud800")
@example(":1E308|g|@.1")
def test_any_text_is_taken(line):
    """Nothing raises, and whatever comes out is finite and in range."""
    parsed = parse(line)
    assert ":" not in parsed.key
    assert (parsed.received > 0) == bool(line.strip("\r"))
    for sample in parsed.samples:
        assert math.isfinite(sample.value)
        assert sample.kind == "gauge" or math.isfinite(sample.value * sample.weight)  # a gauge's weight is not used
        assert sample.weight >= 1
        assert sample.kind != "timer" or sample.value >= 0


@given(st.lists(st.sampled_from(["1|c", "x|c", "2|ms|@0.5", "3|x", "a|s", "+1|g"]), min_size=1))
def test_pieces_with_types_are_judged_one_by_one(pieces):
    """A line of typed pieces says what its pieces say on lines of their own."""
    alone = [parse(f"a:{piece}") for piece in pieces]
    together = parse("a:" + ":".join(pieces))
    assert together.samples == tuple(sample for line in alone for sample in line.samples)
    assert together.bad == tuple(reason for line in alone for reason in line.bad)


# -- Graphite


@pytest.mark.parametrize(
    ("line", "point"),
    [
        ("a.b 1.5 1700000000", ("a.b", 1.5, 1700000000)),
        ("  a.b\t1.5   1700000000.9 \r", ("a.b", 1.5, 1700000000)),
        ("a -1e3 0", ("a", -1000.0, 0)),
        ("a 1 -1", ("a", 1.0, 99)),
        ("a 1 N", ("a", 1.0, 99)),
        ("a;b=2;a=1;b=3=4 1 5", ("a;a=1;b=3=4", 1.0, 5)),
        ("a;a=1;a1=1 1 5", ("a;a1=1;a=1", 1.0, 5)),
        ("a;name=x;b=1 1 5", ("a;b=1", 1.0, 5)),
        ("~a;b=1 1 5", ("a;b=1", 1.0, 5)),
        ("a..b 1 5", ("a..b", 1.0, 5)),
        ("é/ü:x 1 5", ("é/ü:x", 1.0, 5)),
        ("a nan 5", "not_finite"),
        ("a -Inf 5", "not_finite"),
        ("a 1e999 5", "not_finite"),
        ("a 1", "bad"),
        ("a 1 5 6", "bad"),
        ("a x 5", "bad"),
        ("a 1 x", "bad"),
        ("a 1 -2", "bad"),
        ("a 1 4294967296", "bad"),
        ("a 1 1e999", "bad"),
        ("a\0b 1 5", "bad"),
        ("a\x7f 1 5", "bad"),
        ("a\ufffd 1 5", "bad"),
        (";a=1 1 5", "bad"),
        ("a;b 1 5", "bad"),
        ("a;b= 1 5", "bad"),
        ("a;=b 1 5", "bad"),
        ("a;b=~c 1 5", "bad"),
        ("a;b!=c 1 5", "bad"),
        ("a;;b=c 1 5", "bad"),
        ("a" * (LONGEST_KEY + 1) + " 1 5", "bad"),
    ],
)
def test_graphite_lines(line, point):
    """A point, its tags in canonical order, or the cause why there is none."""
    assert parse_point(line, 99.7) == point


@given(st.text())
def test_any_text_is_taken_as_a_graphite_line(line):
    """Nothing raises."""
    assert parse_point(line, 99.7) in ("bad", "not_finite") or len(line.split()) == 3
