"""Clients that others wrote talk to the forwarder: every number that they were told arrives, and nothing else.

The forwarder's interval is so long that all is in one window, which it writes when it stops: so what is on its way when
SIGTERM comes must be in it, too.
"""

import datetime
import itertools
import json
import math
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import statsd
from datadog.dogstatsd.base import DogStatsd

from tests.peers import FOREVER, ROOT, Forwarder, eventually

from .conftest import Carbon

Values = dict[str, Any]


def summary(samples: Iterable[float], weight: int = 1) -> Values:
    """What a file says of a timer's samples, worked out here once more from statsd's definitions."""
    lines = sorted(samples)
    every = [value for value in lines for _ in range(weight)]
    return {
        "count": len(every),
        "sum": sum(every),
        "min": lines[0],
        "max": lines[-1],
        "mean": statistics.fmean(every),
        "std": statistics.pstdev(every),
        "median": statistics.median(every),
        "p90": lines[math.floor(0.9 * len(lines) + 0.5) - 1] if len(lines) > 1 else lines[0],
    }


def parted(values: Values) -> tuple[Values, Values]:
    """Tell the forwarder's own metrics, without the prefix, from others."""
    own = {name for name in values if name.startswith("statsd.")}
    return {name.removeprefix("statsd."): values[name] for name in own}, {
        name: values[name] for name in values.keys() - own
    }


class Hearing:
    """A forwarder that listens on every kind of socket and writes one window into a file."""

    def __init__(self, forwarder: Callable[..., Forwarder], folder: Path) -> None:
        self._file = folder / "heard.jsonl"
        listeners = [
            "udp://127.0.0.1:0",
            "tcp://127.0.0.1:0",
            f"unix://{folder}/stream",
            f"unixgram://{folder}/datagrams",
        ]
        flags = itertools.chain.from_iterable(("--listen", listener) for listener in listeners)
        self.process = forwarder(*flags, "--to", f"file://{self._file}", "--interval", str(FOREVER))
        self.ready = self.process.ready()

    def port(self, scheme: str) -> int:
        return int(self.ready[scheme].rpartition(":")[2])

    def path(self, scheme: str) -> str:
        return self.ready[scheme].removeprefix(f"{scheme}://")

    def has(self, expected: Mapping[str, Values], pieces: int | None, dropped: Mapping[str, int] | None = None) -> None:
        """Stop the forwarder, and compare every series of every kind, and the account, with what there must be.

        ``pieces`` is how many were sent and must be aggregated, where that is known.
        """
        assert self.process.end(signal.SIGTERM) == 0
        (line,) = self._file.read_text().splitlines()
        window = json.loads(line)
        own, window["counters"] = parted(window["counters"])
        _, window["gauges"] = parted(window["gauges"])
        for kind in ("counters", "gauges", "uniques"):
            assert window[kind] == expected.get(kind, {}), kind
        for kind in ("timers", "histograms"):
            assert window[kind].keys() == expected.get(kind, {}).keys()
            for name, values in expected.get(kind, {}).items():
                assert window[kind][name] == pytest.approx(values, rel=1e-12), name
        account = {name: count for name, count in own.items() if count}
        del account["packets_received"], account["metrics_received"]
        pieces = account["pieces_aggregated"] if pieces is None else pieces
        causes = {f"pieces_dropped.{cause}": count for cause, count in (dropped or {}).items()}
        assert account == {"pieces_received": pieces + sum(causes.values()), "pieces_aggregated": pieces, **causes}
        warnings = [line for line in self.process.lines if " WARNING " in line and "rmem_max" not in line]
        assert len(warnings) == len(causes)
        assert all(any(f"cause {cause}:" in line for line in warnings) for cause in dropped or {})


@pytest.fixture
def hearing(forwarder: Callable[..., Forwarder], tmp_path: Path) -> Hearing:
    return Hearing(forwarder, tmp_path)


@pytest.fixture
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other call with a sample rate is left out by the client."""
    thrown = itertools.cycle((0.01, 0.99))
    monkeypatch.setattr("statsd.client.base.random", SimpleNamespace(random=thrown.__next__))
    monkeypatch.setattr("datadog.dogstatsd.base.random", thrown.__next__)


# -- PyPI's statsd


def tell_statsd(client: Any) -> tuple[dict[str, Values], int]:
    """Call everything that PyPI's statsd has; return what must arrive, and how many pieces that is."""
    for _ in range(200):
        client.incr("hits")
    client.incr("hits", 5)
    client.decr("hits", 3)
    client.incr("bytes", 0.1)
    client.incr("bytes", 0.2)
    for _ in range(40):
        client.incr("sampled", 3, rate=0.1)
    queries = [number / 8 for number in range(1, 201)]
    for milliseconds in queries:
        client.timing("query", milliseconds)
    for milliseconds in (7, 5, 3, 1):
        client.timing("query.sampled", milliseconds, rate=0.25)
    client.timing("backup", datetime.timedelta(seconds=2, milliseconds=500.5))
    with client.timer("block") as block:
        pass
    client.gauge("depth", 70)
    client.gauge("depth", 3, delta=True)
    client.gauge("depth", -7.5, delta=True)
    client.gauge("below", -5)
    for number in range(60):
        client.set("users", f"user-{number % 17}")
    told: dict[str, Values] = {
        "counters": {"hits": 202, "bytes": 0.1 + 0.2, "sampled": 20 * 3 * 10},
        "timers": {
            "query": summary(queries),
            "query.sampled": summary((7, 3), weight=4),
            "backup": summary([2500.5]),
            "block": summary([float(f"{block.ms:.6f}")]),
        },
        "gauges": {"depth": 65.5, "below": -5},
        "uniques": {"users": 17},
    }
    return told, 202 + 2 + 20 + 200 + 2 + 2 + 3 + 2 + 60


STATSD_CLIENTS: dict[str, Callable[[Hearing], Any]] = {
    "udp": lambda hearing: statsd.StatsClient("127.0.0.1", hearing.port("udp")),
    "tcp": lambda hearing: statsd.TCPStatsClient("127.0.0.1", hearing.port("tcp"), timeout=60),
    "unix": lambda hearing: statsd.UnixSocketStatsClient(hearing.path("unix"), timeout=60),
}


@pytest.mark.usefixtures("dice")
@pytest.mark.parametrize("scheme", STATSD_CLIENTS)
def test_statsd_one_by_one(hearing: Hearing, scheme: str):
    """PyPI's statsd, a packet or a write for each call: counters, timers, gauges and their changes, sets, rates."""
    client = STATSD_CLIENTS[scheme](hearing)
    told, pieces = tell_statsd(client)
    client.close()
    hearing.has(told, pieces)


@pytest.mark.usefixtures("dice")
@pytest.mark.parametrize("scheme", STATSD_CLIENTS)
def test_statsd_in_pipelines(hearing: Hearing, scheme: str):
    """The same in a pipeline, which packs lines into datagrams, or everything into one write."""
    client = STATSD_CLIENTS[scheme](hearing)
    with client.pipeline() as pipe:
        told, pieces = tell_statsd(pipe)
    client.close()
    hearing.has(told, pieces)


def test_statsd_prefix(hearing: Hearing):
    """A client's own prefix stands in front of its names."""
    client = statsd.StatsClient("127.0.0.1", hearing.port("udp"), prefix="shop.web1")
    client.incr("hits")
    client.close()
    hearing.has({"counters": {"shop.web1.hits": 1}}, 1)


# -- PyPI's datadog


def tell_datadog(client: DogStatsd) -> tuple[dict[str, Values], int]:
    """Call everything that DogStatsd measures with; return what must arrive, and in how many pieces one by one."""
    for number in range(100):
        client.increment("hits", tags=[f"status:{200 + number % 2}", "route:/u"])
    client.decrement("hits", 3, tags=["route:/u", "status:200"])
    client.count("hits", 2.5)
    client.gauge("depth", 1)
    client.gauge("depth", -5.5, tags=["pool:main"])
    client.gauge("depth", 7)
    samples = [number / 4 for number in range(150)]
    for value in samples:
        client.histogram("items", value, tags=["tier:gold"])
        client.distribution("size", 2 * value)
        client.timing("query", value)
    with client.timed("block", use_ms=True) as block:
        pass
    assert block.elapsed is not None
    for number in range(40):
        client.set("users", number % 11, tags=["beta"])
    told: dict[str, Values] = {
        "counters": {"hits;route=-u;status=200": 47, "hits;route=-u;status=201": 50, "hits": 2.5},
        "timers": {"query": summary(samples), "block": summary([block.elapsed])},
        "histograms": {"items;tier=gold": summary(samples), "size": summary(2 * value for value in samples)},
        "gauges": {"depth": 7, "depth;pool=main": -5.5},
        "uniques": {"users;beta=true": 11},
    }
    return told, 100 + 1 + 1 + 3 + 450 + 1 + 40


DOGSTATSD_MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "buffered": {"disable_buffering": False},
    "background": {"disable_background_sender": False},
    "aggregated": {"disable_aggregation": False},
}


def dogstatsd(hearing: Hearing, scheme: str, **options: Any) -> DogStatsd:
    """A client that waits for a socket that is busy, and does not concern itself with forks of ours."""
    if scheme == "udp":
        options |= {"host": "127.0.0.1", "port": hearing.port("udp")}
    else:
        options["socket_path"] = hearing.ready[scheme].replace("unix://", "unixstream://")
    return DogStatsd(socket_timeout=60, track_instance=False, **options)


def finish(client: DogStatsd) -> None:
    assert client.stop() is not False
    client.close_socket()
    assert client.packets_dropped == 0


@pytest.mark.parametrize("mode", DOGSTATSD_MODES)
@pytest.mark.parametrize("scheme", ["udp", "unixgram", "unix"])
def test_dogstatsd(hearing: Hearing, scheme: str, mode: str):
    """PyPI's datadog, with tags: one by one, packed, from its background thread, or added up by itself first."""
    client = dogstatsd(hearing, scheme, disable_telemetry=True, **DOGSTATSD_MODES[mode])
    told, pieces = tell_datadog(client)
    finish(client)
    hearing.has(told, None if mode == "aggregated" else pieces)


@pytest.mark.usefixtures("dice")
def test_dogstatsd_rates_stamps_and_constant_tags(hearing: Hearing):
    """Rates weigh, although DogStatsD writes tags behind them; time stamps and cardinality are skipped."""
    client = dogstatsd(hearing, "udp", disable_telemetry=True, namespace="app", constant_tags=["env:test"])
    for _ in range(20):
        client.increment("sampled", 3, sample_rate=0.25, tags=["a:b"])
    for value in (8, 4, 2, 1):
        client.timing("query", value, sample_rate=0.1)
    client.count_with_timestamp("stamped", 4, timestamp=1_700_000_000, cardinality="low")
    client.gauge_with_timestamp("level", 2, timestamp=1_700_000_000)
    finish(client)
    told: dict[str, Values] = {
        "counters": {"app.sampled;a=b;env=test": 10 * 3 * 4, "app.stamped;env=test": 4},
        "timers": {"app.query;env=test": summary((8, 2), weight=10)},
        "gauges": {"app.level;env=test": 2},
    }
    hearing.has(told, 10 + 2 + 2)


def test_dogstatsd_events_and_service_checks_are_dropped_and_counted(hearing: Hearing):
    """They are no metrics, and not bad either: each has a cause of its own, whatever is in its text."""
    client = dogstatsd(hearing, "unixgram", disable_telemetry=True)
    client.event("deployed: a|b", "first line\nhits:1|c", tags=["a:b"], alert_type="info", hostname="web1")
    client.service_check("db.up", client.CRITICAL, tags=["a:b"], message="hits:1|c|#x", hostname="web1")
    client.increment("hits")
    finish(client)
    hearing.has({"counters": {"hits": 1}}, 1, {"event": 1, "service_check": 1})


def test_dogstatsd_counts_itself_as_we_do(hearing: Hearing):
    """The client's own metrics arrive too, and say that it sent as much as came."""
    client = dogstatsd(hearing, "udp", telemetry_min_flush_interval=0)
    for _ in range(50):
        client.increment("hits")
    finish(client)
    eventually(lambda: hearing.process.page()["sections"]["Pieces"]["Received"] >= 50)
    series = {row["name"]: row for row in hearing.process.page()["series"] if row["name"].startswith("datadog.")}
    assert series["datadog.dogstatsd.client.metrics"]["open"] == {"count": 50}
    assert series["datadog.dogstatsd.client.metrics"]["tags"]["client_transport"] == "udp"
    assert series["datadog.dogstatsd.client.packets_dropped"]["open"] == {"count": 0}


# -- npm's hot-shots

HOT_SHOTS: list[list[Any]] = [
    *(["increment", "hits", 2, {"route": "/u", "status": "200"}] for _ in range(150)),
    ["increment", ["hits", "both"]],
    ["decrement", "hits", 3],
    *(["increment", "sampled", 3, 0.25] for _ in range(20)),
    *(["timing", "query", number / 8, ["a:b"]] for number in range(1, 101)),
    *(["histogram", "items", number] for number in range(50)),
    *(["distribution", "size", number / 2] for number in range(50)),
    ["gauge", "depth", 70],
    ["gaugeDelta", "depth", 3],
    ["gaugeDelta", "depth", -7.5],
    *(["set", "users", f"user-{number % 17}", {"beta": "1"}] for number in range(40)),
    *(["unique", "users", f"user-{number % 5}"] for number in range(40)),
]
HOT_SHOTS_TOLD: dict[str, Values] = {
    "counters": {"hits;route=-u;status=200": 300, "hits": -2, "both": 1, "sampled": 10 * 3 * 4},
    "timers": {"query;a=b": summary(number / 8 for number in range(1, 101))},
    "histograms": {"items": summary(range(50)), "size": summary(number / 2 for number in range(50))},
    "gauges": {"depth": 65.5},
    "uniques": {"users;beta=1": 17, "users": 5},
}
HOT_SHOTS_PIECES = 150 + 2 + 1 + 10 + 100 + 50 + 50 + 3 + 40 + 40


def hot_shots(options: Mapping[str, Any], calls: list[list[Any]]) -> None:
    """Make calls on npm's client."""
    command = ["node", "tests/end_to_end/hot_shots.js"]
    given = json.dumps([options, calls])
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [0, 1400])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "uds"])
def test_hot_shots(hearing: Hearing, need: Callable[..., None], protocol: str, size: int):
    """npm's hot-shots over each of its sockets, with tags, line by line and packed up to ``maxBufferSize``."""
    need("node", "tests/end_to_end/node_modules/hot-shots")
    if protocol == "uds":
        need("tests/end_to_end/node_modules/unix-dgram/build/Release/unix_dgram.node")
        # It gives up a datagram after three attempts on a full socket, which holds ten.
        patience = {"retries": 100, "retryDelayMs": 1, "maxRetryDelayMs": 50}
        options: dict[str, Any] = {"path": hearing.path("unixgram"), "udsRetryOptions": patience}
    else:
        options = {"host": "127.0.0.1", "port": hearing.port(protocol)}
    hot_shots({"protocol": protocol, "maxBufferSize": size, **options}, HOT_SHOTS)
    hearing.has(HOT_SHOTS_TOLD, HOT_SHOTS_PIECES)


# -- all of them at once


@pytest.mark.usefixtures("dice")
def test_all_clients_at_once_into_carbon(
    start_carbon: Callable[[int], Carbon], forwarder: Callable[..., Forwarder], need: Callable[..., None]
):
    """Three clients say the same names at the same time; the sums over carbon's slots are the sums of that."""
    need("node", "tests/end_to_end/node_modules/hot-shots")
    carbon = start_carbon(1)
    first = int(time.time())
    process = forwarder("--listen", "udp://127.0.0.1:0", "--to", carbon.url, "--interval", "1", "--prefix", "fleet")
    port = int(process.ready()["udp"].rpartition(":")[2])
    plain = statsd.StatsClient("127.0.0.1", port)
    dog = DogStatsd("127.0.0.1", port, track_instance=False)
    totals: Counter[str] = Counter()
    for _ in range(3):
        for told, _ in (tell_statsd(plain), tell_datadog(dog)):
            totals.update(sums(told))
        hot_shots({"host": "127.0.0.1", "port": port}, HOT_SHOTS)
        totals.update(sums(HOT_SHOTS_TOLD))
        process.ticks()
    plain.close()
    dog.disable_telemetry()
    finish(dog)
    assert process.end(signal.SIGTERM) == 0
    carbon.adds_up(totals, first, int(time.time()) + 1)


def sums(told: Mapping[str, Values]) -> dict[str, float]:
    """What has been told, under the paths whose values add up over time."""
    found: dict[str, float] = {}
    for key, count in told["counters"].items():
        found[path("counters", key, "count")] = count
    for kind in ("timers", "histograms"):
        for key, values in told.get(kind, {}).items():
            for statistic in ("count", "sum"):
                found[path(kind, key, statistic)] = values[statistic]
    return found


def path(namespace: str, key: str, statistic: str) -> str:
    name, semicolon, tags = key.partition(";")
    return f"stats.{namespace}.fleet.{name}.{statistic}{semicolon}{tags}"
