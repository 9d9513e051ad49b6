"""From batches of lines to aggregates, and the account of it."""

import logging
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.aggregator import Aggregator
from forwarder.graphite import Relay
from forwarder.stats import LOG_EVERY, Counts
from metricslib.registry import Registry
from metricslib.series import drop
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock
from metricslib.window import GaugeChange


@pytest.fixture
def aggregator(registry, clock):
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    return aggregator


def plain(aggregates):
    """Aggregates as comparable values, in their order."""
    numbers = ("count", "sum", "sum_squares", "min", "max")
    return {
        "counters": [(key, total, type(total)) for key, total in aggregates.counters.items()],
        "gauges": list(aggregates.gauges.items()),
        "uniques": list(aggregates.uniques.items()),
    } | {
        kind: [(key, *(getattr(d, name) for name in numbers), d.exact, list(d.entries())) for key, d in table.items()]
        for kind, table in (("timers", aggregates.timers), ("histograms", aggregates.histograms))
    }


def balanced(counts: Counts) -> bool:
    return counts.received == counts.aggregated + counts.bad + sum(counts.dropped.values())


def test_every_kind_arrives(aggregator, tick):
    """Counters add up by weight, timers and histograms keep samples, gauges change, sets collect."""
    aggregator.feed([b"a:1|c\na:2|c|@0.1", b"t:5|ms|@0.5\nt:7|ms\nh:-1|h\ng:3|g\ng:+1|g\nu:x|s\nu:y|s\nu:x|s"])
    window = tick().cumulative
    assert window.counters == {"a": 21}
    assert list(window.timers["t"].entries()) == [(5, 2), (7, 1)]
    assert list(window.histograms["h"].entries()) == [(-1, 1)]
    assert window.gauges == {"g": 4}
    assert window.uniques == {"u": {"x", "y"}}
    assert aggregator.counts() == Counts(packets=2, lines=10, received=10, aggregated=10)


def test_what_sums_lack_is_added_to_them_and_is_no_piece(aggregator, tick):
    """A sample that stands for a bucket has the bucket's place, and the true sums; min, max and count are its own."""
    aggregator.feed([b"t:10|ms|@0.1\nt:20|ms|@1|~-3.5,7.25\nh:1|h|@0.5|~0.5,0.25|#a:b"])
    window = tick().cumulative
    timer, histogram = window.timers["t"], window.histograms["h;a=b"]
    assert (timer.count, timer.sum, timer.sum_squares, timer.min, timer.max) == (11, 116.5, 1407.25, 10, 20)
    assert (histogram.count, histogram.sum, histogram.sum_squares) == (2, 2.5, 2.25)
    assert not timer.exact
    assert aggregator.counts() == Counts(packets=1, lines=3, received=3, aggregated=3)


def test_of_a_series_that_is_refused_nothing_is_adjusted(clock):
    """A sample is dropped once, with all that belongs to it."""
    registry = Registry(clock=clock, filters=[drop("t")])
    aggregator = Aggregator(registry, clock=clock)
    aggregator.feed([b"t:20|ms|@1|~-3.5,7.25", b"t:20|ms|@1|~-3.5,7.25|~x"])
    assert not aggregator.collect()
    assert aggregator.counts() == Counts(packets=2, lines=2, received=2, dropped={"filtered": 2})


def test_a_collection_takes_everything(aggregator):
    """What was collected is not there again."""
    aggregator.feed([b"a:1|c\nt:5|ms\ng:3|g\nu:x|s"])
    assert aggregator.collect()
    assert not aggregator.collect()


def test_keys_become_canonical(aggregator):
    """However name and tags are written, they are one series."""
    aggregator.feed([b"a b/;y=2;x=1:1|c\na b/:1|c|#x:1,y:2\na_b-;x=1;y=2:1|c\n:1|c\nz:1|c|#beta"])
    assert aggregator.collect().counters == {"a_b-;x=1;y=2": 3, "_": 1, "z;beta=true": 1}


def test_fractions_are_added_in_order(aggregator):
    """0.1 added ten times is not 1: the total is that of one addition after the other."""
    aggregator.feed([b"\n".join([b"a:0.1|c"] * 10), b"a:1|c\na:0.1|c\na:1|c"])
    total = 0.0
    for amount in [0.1] * 10 + [1, 0.1, 1]:
        total += amount
    assert aggregator.collect().counters == {"a": total}
    aggregator.feed([b"a:0.1|c"])
    aggregator.feed([b"a:1|c\na:1|c\na:1|c"])
    assert aggregator.collect().counters == {"a": 0.1 + 1 + 1 + 1}


def test_whole_numbers_are_added_to_a_fraction_one_by_one(aggregator):
    """Whatever else came in between: their sum, added at once, would come out as 33.255."""
    for chunk in (b"a:0.255|c", b"u:x|s\nb:1|c|@0.1", b"\n".join([b"a:1|c"] * 33)):
        aggregator.feed([chunk])
    assert aggregator.collect().counters == {"a": 33.254999999999995, "b": 10}


def test_whole_numbers_are_ints(aggregator):
    """Their sum is exact, also with a rate, and does not remember fractions of an earlier interval."""
    aggregator.feed([b"a:0.5|c"])
    aggregator.collect()
    aggregator.feed([b"a:9007199254740991|c\na:2|c|@0.5"])
    assert aggregator.collect().counters == {"a": 2**53 + 3}


def test_gauges_keep_their_order(aggregator):
    """Equal lines are not the same change, and a negative value is reached through 0."""
    aggregator.feed([b"g:5|g\ng:+1|g\ng:5|g\ng:+1|g\ng:+1|g\nh:0|g:-4|g\ni:-4|g"])
    gauges = aggregator.collect().gauges
    assert gauges == {"g": GaugeChange(7), "h": GaugeChange(-4), "i": GaugeChange(None, -4)}


def test_totals_stay_finite(aggregator):
    """A total without end is the largest number there is."""
    aggregator.feed([b"a:1e308|c\na:1e308|c\ng:1e308|g\ng:+1e308|g\nd:-1e308|g\nd:-1e308|g"])
    aggregates = aggregator.collect()
    most = sys.float_info.max
    assert aggregates.counters == {"a": most}
    assert aggregates.gauges == {"g": GaugeChange(most), "d": GaugeChange(None, -most)}


def test_a_full_set_counts_what_it_drops(registry):
    """Over the bound members are dropped, cause unique_full; those in the set already still count."""
    aggregator = Aggregator(registry, members=2)
    aggregator.feed([b"u:a|s\nu:b|s\nu:c|s\nu:a|s\nu:c|s"])
    aggregator.feed([b"u:d|s\nu:b|s"])
    assert aggregator.counts() == Counts(2, 7, received=7, aggregated=4, dropped={"unique_full": 3})
    assert aggregator.collect().uniques == {"u": {"a", "b"}}


def test_long_members_are_told_apart_by_their_hash(aggregator, registry, tick):
    """A member costs at most 256 characters, and is the same one as in an instrument."""
    long = "x" * 257
    registry.unique("u").add(long)
    aggregator.feed([f"u:{long}|s\nu:{long}y|s".encode()])
    assert len(tick().cumulative.uniques["u"]) == 2


FORMS = ["a:{}|c", "a:{}|c|@0.1|#x:1", "t;x=1:{}|ms|@0.5|T12", "h:{}|h|@1e-300", "g:{}|g|#x:1", "u:{}|s|#x:1", "u:{}|s"]
WRITTEN = [
    "7",
    "0.25",
    "007",
    "-3",
    "+3",
    "",
    "x",
    "1e3",
    "1e200",
    "9" * 16,
    "1:2",
    "x:y",
    "1|c:2",
    "1|#y:2",
    " 5",
    "٣",
]


@pytest.mark.parametrize("value", WRITTEN)
@pytest.mark.parametrize("form", FORMS)
def test_a_line_whose_form_is_known_says_what_it_says_alone(clock, form, value):
    """Whatever the value is: good, bad, or none at all."""
    line, seen = form.format(value).encode(), []
    for known in ([], [form.format("1").encode()] * 2):
        aggregator = Aggregator(Registry(clock=clock), clock=clock)
        for chunk in known:
            aggregator.feed([chunk, b"never plain"])
        aggregator.collect()
        before = aggregator.counts()
        aggregator.feed([line, b"never plain"])
        after = aggregator.counts()
        pieces = [after.lines - before.lines, after.aggregated - before.aggregated, after.bad - before.bad]
        seen.append((plain(aggregator.collect()), pieces))
    assert seen[0] == seen[1]


def test_filters_and_caps_are_counted_in_pieces(clock):
    """What the registry refuses is dropped under its cause, each piece of it."""
    registry = Registry(clock=clock, filters=[drop("no.*")], max_series=2)
    aggregator = Aggregator(registry, clock=clock)
    aggregator.feed([b"no.a:1|c\nno.a:1|c\na:1|c\nb:1|c\nc:1|c\nc:1|c\nd:1|g\nd:2|g\nno.g:1|g"])
    aggregator.feed([b"no.a:1|c\nd:1|g\nd:3|g"])
    assert aggregator.collect().counters == {"a": 1, "b": 1, "overflow": 2}
    counts = aggregator.counts()
    assert counts.dropped == {"filtered": 4, "overflow_dropped": 4}
    assert (counts.received, counts.aggregated, counts.bad) == (12, 4, 0)


def test_an_expired_series_is_admitted_again(clock):
    """After it was forgotten, the registry is asked anew, and what found no room before may find some now."""
    registry = Registry(clock=clock, max_series=1, expire=10.0)
    aggregator = Aggregator(registry, clock=clock)
    registry.add_source(aggregator)
    aggregator.feed([b"a:1|c\nb:1|c\ng:1|g"])
    start = int(clock.time())
    for end in range(start + 10, start + 60, 10):
        clock.advance(10)
        registry.tick(end, 10)
    assert len(registry) == 0
    aggregator.feed([b"b:1|c\ng:1|g"])
    assert aggregator.collect().counters == {"b": 1}
    assert len(registry) == 1


def test_few_keys_are_remembered(registry):
    """Whatever keys come, the memory for them is bounded, and what was forgotten is asked for again."""
    aggregator = Aggregator(registry, keys=4)
    for _ in range(2):
        aggregator.feed([b"\n".join(b"a%d:1|c\na%d:5|ms" % (n, n) for n in range(10))])
    assert all(len(known) <= 4 for known in aggregator._keys.known.values())
    assert aggregator.collect().counters == {f"a{n}": 2 for n in range(10)}


def test_what_is_no_utf_8_does_no_harm(aggregator):
    """In a key it vanishes, in a member it is replaced, and its neighbours are left alone."""
    aggregator.feed([b"a\xff:1|c\nu:\xe2\x80|s\na:1|c", b"\xff\xfe"])
    aggregates = aggregator.collect()
    assert aggregates.counters == {"a": 2}
    assert aggregates.uniques == {"u": {"\ufffd"}}
    assert aggregator.counts().bad == 1


def test_packets_and_lines_are_counted_as_statsd_does(aggregator):
    """A packet each datagram or chunk, a line each that is not empty."""
    aggregator.feed([b"a:1|c\n\na:1|c\r\n", b"", b"\n\r\n", b"\r"])
    assert aggregator.counts() == Counts(packets=4, lines=2, received=2, aggregated=2)


def test_skipped_and_dropped_pieces_have_their_causes(aggregator):
    """Events, service checks and what the listener dropped are received, not aggregated, not bad."""
    aggregator.feed([b"_e{1,1}:a|b\n_sc|a|0\n_sc|a|0"])
    aggregator.drop("line_too_long", 2)
    assert aggregator.counts() == Counts(1, 3, received=5, dropped={"event": 1, "service_check": 2, "line_too_long": 2})


def test_bad_lines_are_kept_and_logged_now_and_then(aggregator, clock, caplog):
    """The last few are there, escaped and cut; the log gets one message in a while, with their number."""
    clock.advance(5)
    with caplog.at_level(logging.WARNING, "forwarder"):
        aggregator.feed([b"x\x1b[31m:1|c:2|q\n" + b"y" * 1000])
        for _ in range(50):
            aggregator.feed([b"z"])
        clock.advance(LOG_EVERY)
        aggregator.feed([b"z"])
    assert [message.split(" (")[1] for message in caplog.messages] == [
        "2 bad since the last warning)",
        "51 bad since the last warning)",
    ]
    bad = aggregator.bad_lines()
    assert len(bad) == 20
    assert bad[0].text == "z"
    aggregator.feed([b"x\x1b[31m:1|q\n" + b"y" * 1000])
    escaped, flush = aggregator.bad_lines()[-2:]
    assert escaped == (clock.time(), r"x\x1b[31m:1|q", "unknown type")
    assert flush.text == "y" * 200


def test_counts_add_up():
    """The account of several listeners is the sum of theirs."""
    both = Counts(1, 2, 3, 1, 1, {"event": 1}) + Counts(1, 1, 2, 0, 0, {"event": 1, "filtered": 1})
    assert both == Counts(2, 3, 5, 1, 1, {"event": 2, "filtered": 1})


KEYS = st.sampled_from(["a", "b", "c;t=1", "c|x", ""])
VALUES = st.sampled_from(["0", "1", "3", "0.1", "0.25", "-1", "+2", "1e308", "9007199254740993", "x", "", "1.5"])
TYPES = st.sampled_from(["c", "c|@0.1", "c|@0.3", "ms", "ms|@0.5", "g", "s", "h", "d|#t:1", "q", "c|#t:1|@0.5", ""])
LINES = st.one_of(
    st.builds(lambda k, v, t: f"{k}:{v}|{t}", KEYS, VALUES, TYPES),
    st.builds(lambda k, v, t, w, u: f"{k}:{v}|{t}:{w}|{u}", KEYS, VALUES, TYPES, VALUES, TYPES),
    st.sampled_from(["", "\r", "_e{", "_sc|", "a", "5|c", "c|x:1|c", "a:b:c|s", "é:1|c\r"]),
)


@given(st.lists(st.lists(LINES, max_size=30), max_size=4))
def test_a_batch_does_what_its_lines_do(batches):
    """Fed in batches or line by line: the same aggregates, in the same order, and the same account."""
    aggregators = [Aggregator(Registry(clock=ManualClock(), max_series=6), members=3) for _ in range(2)]
    for batch in batches:
        aggregators[0].feed([line.encode() for line in batch])
        for line in batch:
            aggregators[1].feed([line.encode()])
    assert aggregators[0].counts() == aggregators[1].counts()
    assert balanced(aggregators[0].counts())
    assert plain(aggregators[0].collect()) == plain(aggregators[1].collect())


@given(st.lists(LINES, max_size=30), st.data())
def test_chunks_change_nothing(lines, data):
    """However lines are put together to datagrams, what they say is the same."""
    cuts = data.draw(st.lists(st.integers(0, len(lines)), max_size=4).map(sorted))
    chunks = ["\n".join(lines[i:j]).encode() for i, j in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    whole, flush = (Aggregator(Registry(clock=ManualClock())) for _ in range(2))
    whole.feed(["\n".join(lines).encode()])
    flush.feed(chunks)
    assert plain(whole.collect()) == plain(flush.collect())
    assert whole.counts().received == flush.counts().received


@given(st.lists(st.one_of(st.binary(), LINES.map(str.encode)), max_size=10))
def test_any_bytes_are_taken(chunks):
    """Nothing raises, and the account balances."""
    aggregator = Aggregator(Registry(clock=ManualClock()))
    aggregator.feed(chunks)
    aggregator.collect()
    assert balanced(aggregator.counts())


def test_many_samples_become_a_sketch(registry):
    """Count and sum are exact, however many samples come, and wherever the buffer was emptied in between."""
    aggregator = Aggregator(registry)
    samples = [float(n % 1000) for n in range(150_000)]
    for start in range(0, len(samples), 10_000):
        aggregator.feed(["\n".join(f"t:{n}|ms" for n in samples[start : start + 10_000]).encode()])
    timer = aggregator.collect().timers["t"]
    expected = Distribution(samples).freeze()
    assert (timer.count, timer.sum, timer.min, timer.max) == (150_000, expected.sum, 0, 999)
    assert timer.shares((90,)) == expected.shares((90,))


def test_nothing_is_lost_between_feeding_and_collecting(registry):
    """Threads feed while another collects: every piece is in exactly one collection."""
    aggregator = Aggregator(registry)
    total = 0

    def feed():
        for _ in range(500):
            aggregator.feed([b"a:1|c\na:1|c\nt:1|ms"])

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        total += aggregator.collect().counters.get("a", 0)
    for thread in threads:
        thread.join()
    total += aggregator.collect().counters.get("a", 0)
    assert total == 3000
    assert aggregator.counts().aggregated == 4500


# -- relayed Graphite points


def test_points_are_passed_on_in_batches(clock):
    """When there are enough, and when the listener says so; good ones alone, in their order."""
    heard = []
    relay = Relay(heard.append, batch=2, clock=clock)
    relay.feed([b"a 1 5\nb 2 5\nc 3 -1\n", b"\n  \nx\nd nan 5\n"])
    assert heard == [[("a", 1.0, 5), ("b", 2.0, 5)]]
    relay.flush()
    relay.flush()
    assert heard[1:] == [[("c", 3.0, int(clock.time()))]]
    relay.drop("line_too_long")
    counts = relay.counts()
    assert counts == Counts(2, 5, received=6, aggregated=3, bad=1, dropped={"not_finite": 1, "line_too_long": 1})
    assert relay.bad_lines()[0].text == "x"


def test_points_that_nobody_takes_are_counted(clock, caplog):
    """An error of the callable is logged, and its points are dropped."""

    def refuse(points):
        raise OSError("full")

    relay = Relay(refuse, clock=clock)
    relay.feed([b"a 1 5\nb 2 5\n"])
    relay.flush()
    assert relay.counts().dropped == {"relay_error": 2}
    assert "could not pass on 2 points" in caplog.text


@given(st.lists(st.binary(), max_size=5))
def test_any_bytes_are_taken_as_points(chunks):
    """Nothing raises, and the account balances."""
    relay = Relay(lambda points: None)
    relay.feed(chunks)
    relay.flush()
    assert balanced(relay.counts())
