"""The C aggregator does what the Python one does: both are fed the same, and everything that comes out is compared."""

import math
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib._accelerate import load
from tests.conformance.corpus import CRASHES, LINES
from tests.conformance.grammar import datagrams
from tests.implementations import packages
from tests.test_implementations import exact, exact_or_none


@pytest.fixture(autouse=True)
def c_is_built():
    """Without C there is nothing to compare. Where it must be there, as in CI, its absence is an error elsewhere."""
    if load("forwarder._aggregator") is None:
        pytest.skip("the C implementation was not built, or is not wanted")


class Side:
    """A registry and an aggregator of one implementation, and what came out of them."""

    def __init__(self, pure, **caps):
        modules = packages(pure)
        self.clock = modules["metricslib.testing"].ManualClock()
        self.registry = modules["metricslib.registry"].Registry(clock=self.clock, exact=5, expire=25, **caps)
        self.aggregator = modules["forwarder.aggregator"].Aggregator(self.registry, clock=self.clock, members=3)
        self.registry.add_source(self.aggregator)

    def do(self, step):
        """Return everything that can be seen after it."""
        match step:
            case "tick":
                self.clock.advance(10)
                window = self.registry.tick(int(self.clock.time()), 10).cumulative
                collected = self.aggregator.collected()
                assert collected.received == collected.aggregated + collected.bad + sum(collected.dropped.values())
                # What found no room is asked for again, and how soon differs: neither remembers such keys for long.
                refused = {
                    cause: cause.startswith("overflow") or count
                    for cause, count in self.registry.drops.totals().items()
                }
                return [shown(window), seen(collected), refused, len(self.registry)]
            case ("forget", kind, key):
                return self.registry.forget(kind, [key])
            case chunks:
                self.aggregator.feed(chunks)
                return [seen(self.aggregator.counts()), self.aggregator.bad_lines()]


def seen(counts):
    dropped = {cause: count for cause, count in counts.dropped.items() if count}
    return [counts.packets, counts.lines, counts.received, counts.aggregated, counts.bad, dropped, counts.seen]


def shown(window):
    """Everything in a window, in its order."""
    return {
        "counters": [(key, exact(value), type(value)) for key, value in window.counters.items()],
        "gauges": [(key, exact(value)) for key, value in window.gauges.items()],
        "uniques": [(key, sorted(members)) for key, members in window.uniques.items()],
        "timers": [(key, *contents(value)) for key, value in window.timers.items()],
        "histograms": [(key, *contents(value)) for key, value in window.histograms.items()],
    }


def contents(distribution):
    """To the last bit."""
    values, weights = distribution._sorted()
    numbers = (*values, *weights, distribution.count, distribution.sum, distribution.sum_squares)
    return [exact_or_none(number) for number in (*numbers, distribution.min, distribution.max)] + [distribution.exact]


FORGETS = st.tuples(
    st.just("forget"),
    st.sampled_from(["counter", "timer", "gauge", "unique", "histogram"]),
    st.sampled_from(["a", "b", "web.hits", "a;t=1", "overflow", "a;overflow=true"]),
)
STEPS = st.lists(
    st.one_of(datagrams, datagrams, st.lists(st.binary(max_size=30), max_size=3), st.just("tick"), FORGETS)
)


@given(STEPS, st.sampled_from([{}, {"max_series": 6}, {"max_tag_sets": 2}]))
@example(
    [[b"a:1|c\nb:2|c\na:1|g", b"c:1|c"], "tick", "tick", "tick", "tick", [b"c:1|c\nd:1|c"], "tick"], {"max_series": 2}
)
@example([[b"a:9007199254740991|c\n" * 3000], [b"a:0.5|c\na:0.1|c"], "tick"], {})
@example([[b"u:1|s\nu:2|s\nu:3|s\nu:4|s\nu:1|s\nu:" + b"x" * 300 + b"|s"], "tick"], {})
@example([[("a:1|c\n" + "é:1|c\n" + "a:1|c|#" + "t" * 5000).encode()], [b"k" * 5000 + b":1|c"], "tick"], {})
def test_the_same_lines_come_out_the_same(steps, caps):
    """Whatever the lines, and however batches, ticks, deletions and expiry follow each other."""
    sides = [Side(pure, **caps) for pure in (True, False)]
    for step in [*steps, "tick", "tick", "tick"]:
        assert sides[1].do(step) == sides[0].do(step)


@pytest.mark.parametrize("line", [*LINES, *CRASHES], ids=range(len(LINES) + len(CRASHES)))
def test_every_line_of_the_corpus_comes_out_the_same(line):
    """Alone, and twice with other lines around it."""
    sides = [Side(pure) for pure in (True, False)]
    raw = line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")
    for step in ([raw], "tick", [b"a:1|c\n" + raw + b"\n" + raw + b"\na:2|c"], "tick"):
        assert sides[1].do(step) == sides[0].do(step)


NUMBERS = st.one_of(
    st.floats(0, 1e300, allow_nan=False).map(repr),
    st.decimals(0, 10**9, places=9, allow_nan=False, allow_infinity=False).map(str),
    st.integers(0, 10**25).map(str),
    st.from_regex(r"[0-9]{0,22}\.?[0-9]{0,22}", fullmatch=True),
)


@given(st.lists(NUMBERS, max_size=20), st.sampled_from(["g", "c", "ms", "h|@0.3"]))
@example(["9007199254740993", "0.1", "9999999999999999999", "1e-7", "123456789012345.6789", "00.1", "."], "g")
def test_numbers_are_read_to_the_last_bit(numbers, kind):
    """As Python's float() reads them, however many digits they have."""
    sides = [Side(pure) for pure in (True, False)]
    chunks = ["\n".join(f"k{place}:{number}|{kind}" for place, number in enumerate(numbers)).encode()]
    for step in (chunks, "tick"):
        assert sides[1].do(step) == sides[0].do(step)


SUMS = st.builds(
    "{}:{}|{}|@{}|~{},{}{}".format,
    st.sampled_from(["a", "b", "a;t=1", "c"]),
    st.floats(-10, 1e6).map(repr) | st.just("1:2"),
    st.sampled_from(["ms", "h", "d", "c"]),
    st.sampled_from(["1", ".5", "0.01", "2"]),
    st.floats(width=32).map(repr) | st.just("0"),
    st.floats(-1e9, 1e9).map(repr) | st.just("0"),
    st.sampled_from(["", "|x", "|#t:1", ":5|ms", "|~1,1", ":5|ms|@1|~2,2"]),
)


@given(st.lists(st.lists(SUMS, max_size=20) | st.just("tick"), max_size=6), st.sampled_from([{}, {"max_series": 2}]))
def test_sums_are_adjusted_alike(steps, caps):
    """To the last bit, and no piece is counted for it, also where its series is refused."""
    sides = [Side(pure, **caps) for pure in (True, False)]
    for step in [*steps, "tick"]:
        chunks = step if step == "tick" else ["\n".join(step).encode()]
        assert sides[1].do(chunks) == sides[0].do(chunks)


def test_more_than_a_batch_in_one_go():
    """Many keys, many pieces a line, and lines as long as a datagram can be, cut into pieces of work or not."""
    lines = [f"k{number % 3000}:{number}|c:{number % 7}|ms:1:2:3|h|#t:{number % 5}" for number in range(20_000)]
    lines += ["p:" + ":".join(["1"] * count) + "|c" for count in range(1, 200)]
    lines += ["m" + ":1|c:2|g" * count for count in range(1, 70)]
    sides = [Side(pure, max_series=20_000) for pure in (True, False)]
    for step in (["\n".join(lines).encode()], "tick", ["\n".join(lines[::-1]).encode()], "tick"):
        assert sides[1].do(step) == sides[0].do(step)


def test_datagrams_are_received_as_they_are_fed():
    """Straight from a socket: short and long ones, and empty ones, are what they would be by way of Python."""
    fed, received = Side(False), Side(False)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sent = [b"a:1|c", b"", b"b:2|c\n\n", b"t:1.5|ms\n" * 400, b"x:1|q\nu:z|s", b"k:1|c\n" * 9000]
    with sender, receiver:
        for datagram in sent:
            sender.send(datagram)
            assert received.aggregator.receive(receiver.fileno(), -1) == 1
        assert received.aggregator.receive(receiver.fileno(), -1) == 0
    fed.aggregator.feed(sent)
    counts = [seen(side.aggregator.counts())[:-1] for side in (fed, received)]
    assert counts[0] == counts[1]
    assert fed.do("tick")[0] == received.do("tick")[0]
    assert math.isfinite(received.aggregator.counts().seen)


def test_what_cannot_be_received_is_an_error():
    """OSError, as from a socket; nothing else happens."""
    side = Side(False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        side.aggregator.receive(10**6, -1)
