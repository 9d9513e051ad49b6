"""A series has one path, and a unique one count, by whichever route they reach Graphite.

The routes: the program ships to Graphite itself; through statsd's lines and a forwarder; through numbered batches and a
forwarder; and, for other programs, DogStatsD's lines written by hand.
"""

import json
import random
import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from metricslib._accelerate import load
from tests.implementations import packages
from tests.peers import FOREVER, Forwarder, GraphitePeer

STAMP = 1_700_000_000
# Syntax of statsd, DogStatsD and Graphite; what sanitising changes; surrogates as os.fsdecode() makes them.
SYNTAX = ":|#@,;=~.\n\r\t\v\f /-_!^?*{}[]()\0\x1c\x1d\x1e\x85\xa0\u2028\ufeff\ufffdé\udce9\udce8"
TEXTS = st.text(SYNTAX + "ab1", max_size=8) | st.text(max_size=8)
TAGS = st.dictionaries(TEXTS, TEXTS, max_size=3)


@pytest.fixture(scope="module", params=[True, False], ids=["Python", "C"])
def modules(request: pytest.FixtureRequest) -> Any:
    """Each implementation; C only where it was built. CI requires that it is elsewhere."""
    if not request.param and load("forwarder._aggregator") is None:
        pytest.skip("the C implementation was not built, or is not wanted")
    return packages(request.param)


def measured(modules: Any, name: str, tags: Mapping[str, str], members: list[str]) -> Any:
    """Return a flush of a program that used one series of each kind."""
    registry = modules["metricslib.registry"].Registry(clock=modules["metricslib.testing"].ManualClock())
    registry.counter(name, tags).inc(3)
    registry.gauge(name, tags=tags).set(-4)
    registry.timer(name, tags).observe(0.5)
    registry.histogram(name, tags).observe(7)
    for member in members:
        registry.unique(name, tags).add(member)
    return registry.tick(STAMP, 10)


def paths(modules: Any, window: Any) -> dict[str, float]:
    pairs = modules["metricslib.naming"].Naming().pairs(window)
    return dict(zip(pairs.paths, pairs.values, strict=True))


def heard(modules: Any, *chunks: bytes) -> dict[str, float]:
    """Return what a forwarder sends to Graphite when it hears ``chunks``."""
    registry = modules["metricslib.registry"].Registry(clock=modules["metricslib.testing"].ManualClock())
    aggregator = modules["forwarder.aggregator"].Aggregator(registry)
    registry.add_source(aggregator)
    aggregator.feed(chunks)
    window = registry.tick(STAMP, 10).cumulative
    assert aggregator.counts().bad == 0, aggregator.bad_lines()
    return paths(modules, window)


@given(name=TEXTS.filter(bool), tags=TAGS, members=st.lists(TEXTS, max_size=4))
@example(name="x", tags={"q": "a=b"}, members=[])
@example(name="x", tags={"q": "=", "p": "==a"}, members=["=", "a=b"])
@example(name="x", tags={"": "", "~": "~a"}, members=["", "0", "~"])
@example(name="x", tags={}, members=["caf\udce9", "caf\udce8", "caf?", "caf\ufffd", "caf"])
@example(name="x", tags={}, members=["a:b", "a|b", "a\nb", "a\rb", "a\r", "a#b", "a@b", "|#a", "|@0.1", "a,b"])
@example(name="_e{1,1}:a|b", tags={}, members=["_e{"])
@example(name="a..b", tags={"name": "x", "name_": "y", "k": "a..b"}, members=[])
@example(name=".a.b.", tags={"name": "x"}, members=[])
@example(name=".é.", tags={}, members=[])
def test_every_route_ends_in_the_same_paths(modules, name: str, tags: dict[str, str], members: list[str]):
    """Whatever characters are in names, tags and members, nothing is merged, split or lost on the way."""
    flush = measured(modules, name, tags, members)
    direct = paths(modules, flush.cumulative)
    assert len(set(members)) == direct.get(next((path for path in direct if path.startswith("stats.sets.")), ""), 0)

    datagrams, _ = modules["metricslib.wire.statsd"].encode(flush.delta)
    assert heard(modules, *datagrams.split(b"\n\n")) == direct
    assert heard(modules, datagrams.replace(b"\n\n", b"\n") + b"\n") == direct

    numbered = modules["metricslib.delivery"].open_destination(
        "forwarder+tcp://h", modules["metricslib.naming"].Naming()
    )
    reader = modules["metricslib.wire.numbered"].Reader()
    batches = [read for batch in numbered.encode(flush) for read in reader.feed(batch.payload)]
    assert heard(modules, *[batch.lines for batch in batches]) == direct


@pytest.mark.parametrize("kind", ["timer", "histogram"])
def test_sums_travel_exactly_in_numbered_batches(modules, kind: str):
    """Count, sum, sum of squares, minimum and maximum of thousands of samples, to the last bit; also the buckets."""
    rng = random.Random(7)
    registry = modules["metricslib.registry"].Registry(clock=modules["metricslib.testing"].ManualClock())
    for _ in range(5000):
        getattr(registry, kind)("x").observe(rng.lognormvariate(0, 1))
    flush = registry.tick(STAMP, 10)
    opened, naming = modules["metricslib.delivery"].open_destination, modules["metricslib.naming"].Naming()
    reader = modules["metricslib.wire.numbered"].Reader()
    batches = opened("forwarder+tcp://h", naming).encode(flush)
    direct = paths(modules, flush.cumulative)
    assert heard(modules, *[read.lines for batch in batches for read in reader.feed(batch.payload)]) == direct

    (batch,) = opened("statsd+tcp://h", naming).encode(flush)  # for any server: the middles of buckets
    others = heard(modules, batch.payload)
    assert others == pytest.approx(direct, rel=1 / 64)
    assert others != direct


PLAIN = st.text(st.characters(exclude_characters=":|\n\r,;="), max_size=8)


@given(name=PLAIN.filter(bool), tags=st.dictionaries(PLAIN, PLAIN | st.just("a=b"), max_size=3))
def test_tags_of_dogstatsd_are_those_of_the_library(modules, name: str, tags: dict[str, str]):
    """Written by hand with `:` between key and value, they make the same series, a `=` in a value included."""
    assume(not name.startswith("_e{"))
    assume("" not in modules["metricslib.series"].sanitise(name).split("."))  # a forwarder leaves those as they are
    written = ",".join(f"{key}:{value}" for key, value in tags.items())
    line = f"{name}:3|c" + (f"|#{written}" if tags else "")
    direct = paths(modules, measured(modules, name, tags, []).cumulative)
    counters = {path: value for path, value in direct.items() if path.startswith("stats.counters.")}
    assert heard(modules, line.encode(errors="surrogatepass")) == counters


@pytest.mark.parametrize("name", ["web..hits", ".web.hits", "web.hits.", "web.ü.hits"])
def test_all_destinations_agree_on_a_name_with_empty_parts(modules, name: str):
    """Graphite's lines, files, JSON, and the forwarder behind statsd's lines."""
    flush = measured(modules, name, {"name": "x"}, [])
    naming = modules["metricslib.naming"].Naming()
    opened = modules["metricslib.delivery"].open_destination
    graphite, file, statsd = (
        opened(url, naming).encode(flush)[0].payload.decode() for url in ("graphite://h", "file:x", "statsd://h")
    )
    sent = {line.split()[0] for line in graphite.splitlines()}
    assert (
        {"stats.counters.web.hits.count;name_=x", "stats.gauges.web.hits;name_=x"}
        < sent
        == set(paths(modules, flush.cumulative))
    )
    assert [*json.loads(file)["counters"]] == ["web.hits;name_=x"]
    assert statsd.splitlines()[0] == "web.hits:3|c|#name_:x"
    assert heard(modules, statsd.encode()) == paths(modules, flush.cumulative)


def test_what_statsds_clients_send_keeps_its_dots(modules):
    """As in statsd; a tag called name is ours to rename, for Graphite would lose it."""
    counts = {path: value for path, value in heard(modules, b"a..b:1|c\n.a.b;name=x:2|c").items() if "count" in path}
    assert counts["stats.counters.a..b.count"] == 1
    assert counts["stats.counters..a.b.count;name_=x"] == 2


def test_a_series_with_empty_parts_can_leave_a_forwarder(modules):
    """When it is deleted or expires it makes room, as any other."""
    registry = modules["metricslib.registry"].Registry(clock=modules["metricslib.testing"].ManualClock(), max_series=1)
    aggregator = modules["forwarder.aggregator"].Aggregator(registry)
    registry.add_source(aggregator)
    for name in (b"a..b", b".c"):
        aggregator.feed([name + b":1|c"])
        assert [*registry.tick(STAMP, 10).cumulative.counters] == [name.decode()]
        assert registry.forget("counter", [name.decode()]) == [name.decode()]
        assert len(registry) == 0


def test_every_route_ends_in_the_same_paths_of_a_real_forwarder(modules, forwarder: Callable[..., Forwarder], tmp_path):
    """Over UDP, TCP, a Unix socket and numbered batches, and in tags written by hand."""
    graphite = GraphitePeer()
    try:
        flags = ("--to", graphite.url, "--interval", str(FOREVER))
        listens = ("udp://127.0.0.1:0", "tcp://127.0.0.1:0", f"unixgram://{tmp_path}/u", "forwarder+tcp://127.0.0.1:0")
        process = forwarder(*flags, *[flag for url in listens for flag in ("--listen", url)])
        addresses = process.ready()
        tags = {"q": "a=b", "p": "~c:d,e;f|g#h@i é\n", "empty": ""}
        members = ["caf\udce9", "caf\udce8", "caf?", "a:b", "a|b", "a\nb", "", "0"]
        expected: dict[str, float] = {}
        urls = {
            "udp": addresses["udp"].replace("udp", "statsd"),
            "tcp": addresses["tcp"].replace("tcp", "statsd+tcp"),
            "unixgram": f"statsd+unixgram://{tmp_path}/u",
            "numbered": addresses["forwarder+tcp"],
        }
        for route, url in urls.items():
            registry = modules["metricslib.registry"].Registry()
            flusher = modules["metricslib.flusher"].Flusher(registry, url, prefix=route, own="")
            flusher.start()
            registry.counter("x", tags).inc(3)
            for member in members:
                registry.unique("x", tags).add(member)
            assert flusher.stop(60)
            expected |= {
                f"stats.counters.{route}.x.count;empty=_;p=cde_fghi__;q=a=b": 3,
                f"stats.sets.{route}.x.count;empty=_;p=cde_fghi__;q=a=b": len(members),
            }
        assert process.end(signal.SIGTERM) == 0
        assert {path: graphite.at(path)[-1:] for path in expected} == {path: [v] for path, v in expected.items()}
    finally:
        graphite.close()
