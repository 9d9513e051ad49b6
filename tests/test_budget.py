"""Memory is bounded in bytes: series, remembered keys and members of sets, in C and in Python."""

import gc
import json
import os
import subprocess
import sys
import threading

import pytest

from metricslib.budget import LEAST, Budget, Share, available_memory, default_max_bytes, member_cost, series_cost
from metricslib.errors import InvalidOption
from metricslib.registry import Registry
from metricslib.testing import ManualClock
from tests.implementations import packages

MB = 1 << 20
BIG = str((1 << 63) - 4096)


@pytest.fixture(params=[True, False], ids=["Python", "C"])
def implementation(request):
    """A copy of the packages, with either implementation."""
    return packages(request.param)


@pytest.fixture
def made(implementation):
    """Call with caps for a registry of that implementation."""
    return lambda **caps: implementation["metricslib.registry"].Registry(clock=ManualClock(), **caps)


@pytest.fixture
def fed(implementation, made):
    """Call with caps for a registry and an aggregator that feeds it."""

    def fed(keys=1 << 20, **caps):
        registry = made(**caps)
        aggregator = implementation["forwarder.aggregator"].Aggregator(registry, keys=keys)
        registry.add_source(aggregator)
        return registry, aggregator

    return fed


# -- how much there is


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "1000", "a/memory.max": "max"}, 1000),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "900"}, 900),
        ("0::/outside/of/it\n", {"memory.max": "800"}, 800),
        ("0::/\n", {"memory.max": "max"}, None),
        (
            "4:memory:/a\n0::/\n",
            {"memory/a/memory.limit_in_bytes": "700", "memory/memory.limit_in_bytes": BIG},
            700,
        ),
        ("3:cpu,memory:/x\n", {"memory/memory.limit_in_bytes": "600"}, 600),
        ("3:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "1"}, None),
        ("nonsense\n\n", {"memory.max": "1"}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
def test_limits_of_control_groups_are_found(tmp_path, membership, limits, expected):
    """Of versions 1 and 2, of the group and of those around it, and where a container shows the outer path."""
    if membership is not None:
        put(tmp_path, "proc/self/cgroup", membership)
    for path, text in limits.items():
        put(tmp_path, f"sys/fs/cgroup/{path}", text)
    assert available_memory(tmp_path) == (expected or available_memory(tmp_path / "none"))


@pytest.mark.parametrize(("limit", "expected"), [(400 * MB, 100 * MB), (200 * MB, LEAST)])
def test_the_default_is_a_quarter_of_the_memory_and_at_least_64_mb(limit, expected):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (%d, -1));"
        "from metricslib import default_registry; print(default_registry.budget.max_bytes)"
    )
    run = subprocess.run([sys.executable, "-c", code % limit], capture_output=True, text=True, check=True)
    assert int(run.stdout) == expected


def test_the_default_is_not_more_than_a_quarter_of_the_machine():
    assert LEAST <= default_max_bytes() <= max(LEAST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", float("nan")])
def test_what_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(InvalidOption, match="max_bytes"):
        Registry(max_bytes=value)


def test_the_shares_are_the_whole():
    budget = Budget(1000)
    assert [share.allowed for share in (budget.series, budget.raw_keys, budget.members)] == [500, 250, 250]


def test_adding_from_many_threads_is_exact():
    share, barrier = Share(10), threading.Barrier(8)

    def work():
        barrier.wait()
        for _ in range(5_000):
            share.add(3)
            share.add(-2)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert share.used == 40_000


def test_adding_waits_for_nobody():
    """As in a signal handler that interrupted another call: what is added then is counted at once."""
    share = Share(10)
    with share._lock:
        share.add(3)
        assert share.used == 3
    share.add(1)
    assert (share.used, share._pending) == (4, [])


# -- series


@pytest.mark.parametrize("kind", ["counter", "timer", "histogram", "unique"])
def test_what_is_over_goes_to_the_overflow_series(made, kind):
    registry = made(max_bytes=4 * series_cost(kind, "a" * 1000))
    keys = [getattr(registry, kind)(f"{n}" + "a" * 999).key[:1] for n in range(4)]
    assert keys == ["0", "1", "o", "o"]
    assert registry.drops.totals() == {"overflow": 2}
    assert registry.budget.usage()["series"]["used"] == 2 * series_cost(kind, "a" * 1000)


def test_a_gauge_without_room_is_dropped(made):
    registry = made(max_bytes=1000)
    registry.gauge("a").set(1)
    assert registry.drops.totals() == {"overflow_dropped": 1}
    assert registry.tick(10, 10).cumulative.gauges == {}


def test_tags_count(made):
    registry = made(max_bytes=4 * series_cost("counter", "a;t=" + "x" * 1000))
    counter = registry.counter("a")
    keys = [counter.tagged(t=f"{n}" + "x" * 999).key[:5] for n in range(3)]
    assert keys == ["a;t=0", "overf", "overf"]


def test_short_keys_are_bounded_as_well(made):
    """The cost of a series is mostly not its key: max_series alone cannot exceed the budget."""
    registry = made(max_series=1_000_000, max_bytes=MB)
    for number in range(1000):
        registry.counter(f"k{number}").inc()
    assert 300 < len(registry) < 512
    window = registry.tick(10, 10).cumulative.counters
    assert sum(window.values()) == 1000
    assert window["overflow"] == 1000 - len(registry)


def test_what_expires_makes_room(made):
    registry = made(max_bytes=2 * series_cost("counter", "a"), expire=10)
    registry.counter("a").inc()
    assert registry.counter("b").key == "overflow"
    for _ in range(4):
        registry.clock.advance(10)
        registry.tick(int(registry.clock.time()), 10)
    assert registry.budget.usage()["series"]["used"] == 0
    assert registry.counter("b").key == "b"


def test_one_that_is_held_counts_again_when_it_wakes(made):
    registry = made(max_bytes=MB, expire=10)
    counter = registry.counter("a")
    counter.inc()
    for _ in range(4):
        registry.clock.advance(10)
        registry.tick(int(registry.clock.time()), 10)
    assert registry.budget.series.used == 0
    for _ in range(3):
        counter.inc()
        registry.counter("a")
    assert registry.budget.series.used == series_cost("counter", "a")


def test_deleting_makes_room(made):
    registry = made(max_bytes=MB)
    registry.counter("a", tags={"t": 1}).inc()
    registry.forget("counter", ["a;t=1"])
    assert registry.budget.series.used == 0


def test_a_checkpoint_brings_back_what_there_is_room_for(made, implementation):
    series_of = implementation["metricslib.series"].series_of
    registry = made(max_bytes=2 * series_cost("counter", "a"))
    assert [registry.readmit(series_of("counter", name)) for name in ("a", "b", "a")] == [True, False, True]


def test_long_ways_of_writing_tags_are_not_remembered(made):
    counter = made().counter("a")
    counter.tagged(t="x" * 256)
    counter.tagged(**{"t" * 257: 1})
    assert not counter._children
    counter.tagged(t="x" * 255)
    assert len(counter._children) == 1


# -- members


def test_members_without_room_are_dropped_and_counted(made):
    registry = made(max_bytes=4 * 10 * member_cost(100))
    for number in range(15):
        registry.unique("u").add(f"{number:0100}")
    for number in range(5):
        registry.unique("u").add(f"{number:0100}")
    assert len(registry.tick(10, 10).cumulative.uniques["u"]) == 10
    assert registry.drops.totals() == {"unique_full": 5}


def test_members_make_room_when_the_last_window_leaves(made):
    registry = made(max_bytes=40 * 10 * member_cost(10))
    share = registry.budget.members
    for number in range(10):
        registry.unique("u").add(f"{number:010}")
    assert share.used == 0 or share.used == 10 * member_cost(10)  # some wait in the cell
    registry.tick(10, 10)
    assert share.used == 10 * member_cost(10)
    registry.flush(20, 10)
    assert share.used == 10 * member_cost(10)
    registry.tick(20, 10)
    assert share.used == 0


def test_a_forked_child_begins_without_members(made):
    """What the parent has in open sets is the parent's."""
    registry = made()
    unique = registry.unique("u")
    for number in range(2000):
        unique.add(number)
    unique._fold()
    assert registry.budget.members.used > 0
    registry.reset_after_fork()
    assert registry.budget.members.used == 0
    unique.add("one")
    unique._fold()
    assert registry.budget.members.used == member_cost(3)


def test_a_fold_that_is_broken_off_counts_no_bytes(made, monkeypatch):
    """As by an exception of a signal handler; the next one counts them."""
    registry = made()
    unique = registry.unique("u")
    unique.add("one")
    unique.add("two")
    texts = iter(["one", KeyboardInterrupt])

    def interrupted(value):
        text = next(texts)
        if text is KeyboardInterrupt:
            raise KeyboardInterrupt
        return text

    with monkeypatch.context() as patched:
        patched.setitem(type(unique)._absorbed.__globals__, "text_or_none", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unique._fold()
    assert registry.budget.members.used == 0
    unique._fold()
    assert registry.budget.members.used == 2 * member_cost(3)


def test_a_long_member_waits_as_its_hash(made):
    registry = made()
    registry.unique("u").add("x" * 10_000)
    assert [len(value) for value in registry.unique("u")._begin(10)[1]] == [64]


# -- what a listener remembers


def lines(count, size, start=0, kind=b"c"):
    return [b"\n".join(b"%d.%s:1|%s" % (n, b"x" * size, kind) for n in range(start, start + count))]


@pytest.mark.parametrize("kind", [b"c", b"g", b"ms"])
def test_nothing_is_remembered_of_keys_without_room(fed, kind):
    _, aggregator = fed(max_series=1)
    aggregator.feed([b"known:1|%s" % kind])
    before = aggregator.key_bytes
    for start in range(0, 2000, 100):
        aggregator.feed(lines(100, 1000, start, kind))
    assert aggregator.key_bytes - before <= 1 << 19  # the hashes of C
    aggregates = aggregator.collect()
    counts = aggregator.counts()
    assert counts.received == 2001
    if kind == b"g":
        assert counts.dropped == {"overflow_dropped": 2000}
    elif kind == b"c":
        assert aggregates.counters == {"known": 1, "overflow": 2000}
    else:
        assert aggregates.timers["overflow"].count == 2000


def test_a_key_without_room_finds_it_when_another_expires(fed):
    registry, aggregator = fed(max_series=1)
    aggregator.feed([b"a:1|c\nb:1|c\ng:1|g"])
    aggregator.feed([b"b:1|c"])
    assert registry.tick(10, 10).cumulative.counters == {"a": 1, "overflow": 2}
    registry.forget("counter", ["a"])
    aggregator.feed([b"b:1|c"])
    assert aggregator.collect().counters == {"b": 1}


def test_spellings_of_one_series_are_bounded(fed):
    _, aggregator = fed(max_bytes=4 * MB)
    for number in range(3000):
        aggregator.feed([b"a:1|c|#t:1,t:%d%s,t:1" % (number, b"/" * 2000)])
        assert aggregator.key_bytes <= MB
    assert aggregator.collect().counters == {"a;t=1": 3000}


def test_a_part_of_the_share_bounds_one_listener(implementation, made):
    registry = made(max_bytes=400 * MB)
    aggregator = implementation["forwarder.aggregator"].Aggregator(registry, key_bytes=100_000)
    for start in range(0, 1000, 50):
        aggregator.feed(lines(50, 1000, start))
    assert aggregator.key_bytes <= 100_000
    assert registry.budget.usage()["raw_keys"] == {"used": aggregator.key_bytes, "allowed": 100 * MB}
    aggregator.feed(lines(1000, 1000))
    assert aggregator.collect().counters == {f"{n}." + "x" * 1000: 2 for n in range(1000)}


@pytest.mark.parametrize("max_bytes", [1, 4_000, 60_000, 80_000, 200_000, 4 * MB])
@pytest.mark.parametrize("max_series", [1, 10_000])
def test_no_share_is_ever_used_beyond_what_is_allowed(fed, max_bytes, max_series):
    """However small it is: what the page says of it is true."""
    registry, aggregator = fed(max_bytes=max_bytes, max_series=max_series)
    for start in range(0, 1000, 100):
        aggregator.feed(lines(100, 20, start) + lines(100, 20, start, b"s"))
        for share in registry.budget.usage().values():
            assert share["used"] <= share["allowed"]
    assert sum(aggregator.collect().counters.values()) == 1000


def test_no_key_needs_to_be_remembered(implementation, made):
    registry = made()
    aggregator = implementation["forwarder.aggregator"].Aggregator(registry, key_bytes=0)
    for _ in range(3):
        aggregator.feed([b"a:1|c\nb:1|c"])
    assert aggregator.collect().counters == {"a": 3, "b": 3}


def test_members_that_are_heard_are_bounded(fed):
    registry, aggregator = fed(max_bytes=4 * 50 * member_cost(100))
    aggregator.feed([b"\n".join(b"s%d:%0100d|s" % (n % 3, n) for n in range(60))])
    aggregator.feed([b"s0:%0100d|s" % 0])
    assert registry.budget.members.used == 50 * member_cost(100)
    counts = aggregator.counts()
    assert (counts.aggregated, counts.dropped) == (51, {"unique_full": 10})
    registry.tick(10, 10)
    assert registry.budget.members.used == 50 * member_cost(100)  # in the last window
    registry.tick(20, 10)
    assert registry.budget.members.used == 0
    aggregator.feed([b"s:%0100d|s" % 1])
    assert len(registry.tick(30, 10).cumulative.uniques["s"]) == 1


def test_members_of_two_listeners_share_the_room(implementation, fed):
    registry, first = fed(max_bytes=4 * 50 * member_cost(100))
    second = implementation["forwarder.aggregator"].Aggregator(registry)
    registry.add_source(second)
    for number in range(60):
        (first, second)[number % 2].feed([b"s:%0100d|s" % number])
    assert first.counts().aggregated + second.counts().aggregated == 50


def test_an_intake_that_goes_gives_back_its_members(implementation, made):
    registry = made()
    aggregator = implementation["forwarder.aggregator"].Aggregator(registry)
    aggregator.feed([b"s:a|s\ns:b|s"])
    aggregator.collect()
    aggregator.feed([b"s:c|s"])
    if repr(implementation) == "C":
        del aggregator
        gc.collect()
        assert registry.budget.members.used == 0


# -- all of it, as the process sees it

FLOODS = {
    "keys without room": "max_series=1000; line = lambda n: b'%d.%s:1|c' % (n, pad)",
    "long keys": "max_series=10**6; line = lambda n: b'%d.%s:1|c' % (n, pad)",
    "timers": "max_series=10**6; line = lambda n: b'%d.%s:1|ms' % (n, pad)",
    "tags": "max_series=10**6; line = lambda n: b'a:1|c|#t:%d.%s' % (n, pad)",
    "raw keys": "max_series=10**6; line = lambda n: b'a:1|c|#t:1,t:%d%s,t:1' % (n, pad)",
    "members": "max_series=10**6; line = lambda n: b''.join(member % (n % 50, n, k) for k in range(10))",
}
FLOOD = """
import json, re
from forwarder.aggregator import Aggregator
from metricslib.registry import Registry
pad = b"x" * 3900
member = b"s%d:%d.%d." + pad[:200] + b"|s\\n"
{flood}
def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
registry = Registry(max_series=max_series, max_tag_sets=max_series, max_bytes=64 << 20)
aggregator = Aggregator(registry)
registry.add_source(aggregator)
before = rss()
for start in range(0, 20_000, 100):
    aggregator.feed([b"\\n".join(line(n) for n in range(start, start + 100))])
    if start % 5_000 == 0:
        registry.tick(start + 10, 10)
print(json.dumps([rss() - before, registry.budget.usage()]))
"""


@pytest.mark.parametrize("pure", ["1", "0"], ids=["Python", "C"])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_takes_no_more_than_the_budget(flood, pure):
    """The resident memory of a process that is sent 78 MB of keys, or more of members."""
    packages(pure == "1")  # an ImportError where C was not built
    run = subprocess.run(
        [sys.executable, "-c", FLOOD.format(flood=FLOODS[flood])],
        capture_output=True,
        text=True,
        env={**os.environ, "METRICSLIB_PURE": pure},
        check=True,
    )
    grown, usage = json.loads(run.stdout)
    assert grown < 64
    assert usage["total"]["used"] <= usage["total"]["allowed"]
