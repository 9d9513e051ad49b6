"""What a program sends to a statsd server: what is new, and nothing that is idle."""

from hypothesis import given
from hypothesis import strategies as st

from metricslib.sketch import Distribution
from metricslib.window import Window
from metricslib.wire.statsd import SEPARATOR, encode, rates


def window(**kinds) -> Window:
    return Window(0, 10, 10, **kinds)


def lines(payload: bytes) -> list[str]:
    return [line for line in payload.decode().split("\n") if line]


def test_each_kind_has_its_type():
    """Counters are deltas, timers milliseconds, gauges absolute; tags are DogStatsD's; the prefix stands first."""
    payload, values = encode(
        window(
            counters={"hits": 3, "hits;route=-u;status=200": 0.5},
            timers={"query": Distribution([12.5, 1]).freeze()},
            histograms={"size;unit=b": Distribution([-4]).freeze()},
            gauges={"depth": 7},
            uniques={"users": frozenset({"ann", "bob"})},
        ),
        prefix="shop",
    )
    assert lines(payload) == [
        "shop.hits:3|c",
        "shop.hits:0.5|c|#route:-u,status:200",
        "shop.query:1|ms",
        "shop.query:12.5|ms",
        "shop.size:-4|h|#unit:b",
        "shop.depth:7|g",
        "shop.users:ann|s",
        "shop.users:bob|s",
    ]
    assert values == 8


def test_nothing_idle_is_sent():
    """An idle counter says nothing to a server that adds up."""
    assert encode(window(counters={"a": 0}, timers={"t": Distribution().freeze()}, uniques={"u": frozenset()})) == (
        b"",
        0,
    )


def test_a_negative_gauge_goes_through_zero_and_is_never_split():
    """A leading sign means a change in statsd: the two lines are in one datagram, also when datagrams are tiny."""
    payload, _ = encode(window(gauges={"g": -5, "h": -6}), limit=14)
    assert payload.split(SEPARATOR) == [b"g:0|g\ng:-5|g", b"h:0|g\nh:-6|g"]


def test_a_sketch_goes_as_one_line_a_bucket():
    """Ten thousand samples are a few lines whose weights add up."""
    timings = Distribution([12.5] * 9000 + [100.0] * 1000).freeze()
    payload, values = encode(window(timers={"t": timings}))
    total = 0.0
    for line in lines(payload):
        _, _, rate = line.partition("|@")
        total += 1 / float(rate) if rate else 1
    assert total == 10_000
    assert values < 12


@given(st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=60), st.integers(1, 10))
def test_sums_of_a_sketch_read_back_to_the_bit(values: list[float], times: int):
    """Added up in the order of the lines, as a forwarder does; without the option no line has the field."""
    distribution = Distribution(values * times, limit=3).freeze()
    payload, count = encode(window(timers={"t": distribution}), exact_sums=True)
    read = Distribution(limit=3)
    for line in lines(payload):
        value, _, *fields = line.removeprefix("t:").split("|")
        weights = [1 / float(field[1:]) for field in fields if field.startswith("@")]
        read.add(float(value), *weights)
        for field in fields:
            if field.startswith("~"):
                assert line == lines(payload)[-1]
                read.adjust(*map(float, field[1:].split(",")))
    read.freeze()
    assert (read.count, read.sum, read.sum_squares) == (distribution.count, distribution.sum, distribution.sum_squares)
    assert (read.min, read.max) == (distribution.min, distribution.max)
    plain, same = encode(window(timers={"t": distribution}))
    assert (same, b"~" in plain) == (count, False)


def test_where_samples_are_few_or_sums_have_no_end_nothing_is_added():
    """Samples that are sent as they are add up by themselves."""
    endless = Distribution([1e154] * 3000, limit=3).freeze()
    few = Distribution([1, 2.5]).freeze()
    assert b"~" not in encode(window(timers={"t": few}, histograms={"h": endless}), exact_sums=True)[0]


@given(st.integers(1, 10**9))
def test_a_weight_is_written_so_that_it_reads_back(weight: int):
    """The inverses of the rates add up to the very weight, and no rate has an exponent."""
    written = rates(weight)
    assert sum(1 / float(rate.removeprefix("|@")) if rate else 1 for rate in written) == weight
    assert all("e" not in rate for rate in written)
    assert len(written) < 20


@given(st.dictionaries(st.from_regex(r"[a-z]{1,30}", fullmatch=True), st.integers(1, 10**6), max_size=200))
def test_datagrams_stay_below_the_limit_and_hold_every_line(counters: dict[str, int]):
    """Whole lines only, in order, none lost, none too long."""
    payload, values = encode(window(counters=counters), limit=100)
    datagrams = payload.split(SEPARATOR) if payload else []
    assert all(len(datagram) <= 100 for datagram in datagrams)
    assert [line for datagram in datagrams for line in lines(datagram)] == [f"{k}:{v}|c" for k, v in counters.items()]
    assert values == len(counters)


def test_members_of_a_set_stay_distinct_whatever_is_in_them():
    """Characters that mean something in a line are not sent, and do not make two members one."""
    members = frozenset({"a:b", "a|b", "a\nb", "", "plain", "\ud800"})
    payload, values = encode(window(uniques={"u": members}))
    assert values == len(set(lines(payload))) == len(members)
    assert all(line.startswith("u:") and line.endswith("|s") and line.count(":") == 1 for line in lines(payload))
