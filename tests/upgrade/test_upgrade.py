"""What an earlier version wrote is taken up: spool, checkpoint, Whisper files and configuration. See README.md.

The version under test continues in the interval that was open, measures in the one after, and delivers to peers that
are there at last. What has arrived then is what `inputs` says was measured, to the last increment.
"""

import json
import pickle
import socket
import struct
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import whisper

from tests.implementations import packages
from tests.peers import FOREVER, GraphitePeer
from tests.sockets import PATIENCE, answer
from tests.upgrade import inputs

HERE = Path(__file__).parent
SLOTS = [inputs.START + inputs.INTERVAL * (part + 1) for part in range(5)]
"""Stamps of the five intervals."""
PARTS = [[slot] for slot in inputs.SLOTS]
PARTS[3].append(inputs.LATER)
"""What is measured in each."""

Resolve = Callable[[str, int], None]


class PicklePeer(GraphitePeer):
    """A Graphite that reads frames of pickle."""

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection, connection.makefile("rb") as frames:
                    while head := frames.read(4):
                        frame = frames.read(*struct.unpack("!I", head))
                        self.values.update({(path, stamp): value for path, (stamp, value) in pickle.loads(frame)})


@pytest.fixture(params=[True, False], ids=["Python", "C"], autouse=True)
def version(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test imports the packages for itself: with the Python implementation, and with the one in C."""
    with packages(pure=request.param).in_place():
        yield


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Call with the name of a host in `inputs.TO` and the port of the peer that it is."""
    known, ports = socket.getaddrinfo, dict[str, int]()

    def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host in ports:
            host, port = "127.0.0.1", ports[host]
        return known(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lambda host, port: ports.update({f"{host}.invalid": port})


@pytest.fixture
def graphite(resolve: Resolve) -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    resolve("graphite", peer.port)
    yield peer
    peer.close()


@pytest.fixture
def pickled(resolve: Resolve) -> Iterator[GraphitePeer]:
    peer = PicklePeer()
    resolve("pickle", peer.port)
    yield peer
    peer.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Call to start a forwarder in this process; it is stopped at the end of the test."""
    from forwarder.config import Config
    from forwarder.daemon import Daemon

    started: list[Daemon] = []

    def start(*listen: str, **options: Any) -> Daemon:
        how = {name: options.pop(name) for name in ("clock",) if name in options}
        started.append(Daemon(Config(listen=listen, http="off", console="off", **options), grace=0, **how))
        started[-1].start()
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop(0)


def port(daemon: Any, place: int = 0) -> int:
    return int(daemon.addresses[place].rpartition(":")[2])


def unpack(name: str, directory: Path) -> None:
    (directory / "windows").mkdir()
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        archive.extractall(directory, filter="data")


@pytest.mark.parametrize("ending", ["killed", "stopped"])
def test_a_forwarder_goes_on_with_the_spool_of_an_earlier_version(
    tmp_path, monkeypatch, ending, graphite, pickled, resolve, start
):
    """Every destination has every interval whole, the open one continued, and no numbered batch counts twice."""
    from metricslib.testing import ManualClock

    unpack(ending, tmp_path)
    monkeypatch.chdir(tmp_path)
    statsd, upstream = (start(f"{scheme}://127.0.0.1:0", interval=FOREVER) for scheme in ("tcp", "forwarder+tcp"))
    resolve("statsd", port(statsd))
    resolve("upstream", port(upstream))
    clock = ManualClock(SLOTS[2] + 20.0)
    listen = ("tcp://127.0.0.1:0", "graphite://127.0.0.1:0", "forwarder+tcp://127.0.0.1:0")
    daemon = start(*listen, to=inputs.TO, interval=inputs.INTERVAL, spool="spool", clock=clock)

    answer(daemon.addresses[0], "\n".join(inputs.LATER) + "\n")
    answer(daemon.addresses[2], "".join(map(inputs.numbered, range(5))))  # the first four came before
    clock.advance(40)
    daemon.flusher.tick()
    answer(daemon.addresses[0], "\n".join(inputs.SLOTS[4]) + "\n")
    answer(daemon.addresses[1], inputs.relayed(4))
    answer(daemon.addresses[2], inputs.numbered(4) + inputs.numbered(5))
    clock.advance(inputs.INTERVAL)
    daemon.flusher.tick()

    assert daemon.flusher.flush(PATIENCE)
    assert daemon.registry.drops.totals() == {}
    expected = dict(points())
    for peer in (graphite, pickled):
        assert {path: [peer.values.get((path, stamp)) for stamp in SLOTS] for path in expected} == expected
        assert peer.at("relayed.path") == [0.5, 1.5, 2.5, 3.5, 4.5]
    in_files = {path: in_whisper(path, clock) for path in expected if "many" not in path}
    assert in_files == {path: values for path, values in expected.items() if "many" not in path}
    assert in_windows() == expected_windows()
    for peer in (statsd, upstream):
        assert told(peer) == expected_deltas()


def points() -> Iterator[tuple[str, list[float]]]:
    """Yield the paths at Graphite, and for each its values in the five intervals."""
    yield "stats.counters.numbered.count", [1, 2, 3, 4 + 5, 6]
    slots = [inputs.measured(*part) for part in PARTS]
    for key in slots[0]:
        series, _, kind = key.rpartition("|")
        name, semicolon, tags = series.partition(";")
        values = [slot[key] for slot in slots]
        tail = semicolon + tags
        if kind == "c":
            yield f"stats.counters.{name}.count{tail}", list(map(added, values))
            yield f"stats.counters.{name}.rate{tail}", [added(each) / inputs.INTERVAL for each in values]
        elif kind in ("ms", "h"):
            base = f"stats.{'timers' if kind == 'ms' else 'histograms'}.{name}"
            for statistic, work in (("count", len), ("sum", sum), ("lower", min), ("upper", max)):
                yield f"{base}.{statistic}{tail}", list(map(work, values))
        elif kind == "s":
            yield f"stats.sets.{name}.count{tail}", [len(set(each)) for each in values]
        else:
            yield f"stats.gauges.{name}{tail}", gauge(key)


def added(values: list[float]) -> float:
    """A sum as a counter has it, one value after the other."""
    total = 0.0
    for value in values:
        total += value
    return total


def gauge(key: str) -> list[float]:
    """Where a gauge stands at the end of each interval."""
    return [inputs.measured(*(line for part in PARTS[: n + 1] for line in part))[key][-1] for n in range(5)]


def in_whisper(path: str, clock: Any) -> list[float]:
    from metricslib.delivery.whisper import relative_path

    _, values = whisper.fetch(
        str(Path("data", relative_path(path) or "")), SLOTS[0] - 1, SLOTS[4], now=int(clock.time())
    )
    return [value for value in values if value is not None]


def in_windows() -> dict[int, dict[str, Any]]:
    """What the file says of each interval at last."""
    lines = map(json.loads, Path("windows/all.jsonl").read_text().splitlines())
    last = {line["end"]: line for line in lines}
    return {stamp: summary(last[stamp]) for stamp in SLOTS}


def summary(window: Mapping[str, Any]) -> dict[str, Any]:
    few, many, size = window["timers"]["few"], window["timers"]["many"], window["histograms"]["size"]
    return {
        "hits": (window["counters"]["web.hits"], window["counters"]["web.hits;route=u;status=200"]),
        "numbered": window["counters"]["numbered"],
        "depth": window["gauges"]["depth"],
        "users": window["uniques"]["users"],
        **{name: (t["count"], t["sum"], t["max"]) for name, t in (("few", few), ("many", many), ("size", size))},
    }


def expected_windows() -> dict[int, dict[str, Any]]:
    values = dict(points())

    def distribution(base: str, place: int) -> tuple[float, ...]:
        return tuple(values[f"stats.{base}.{statistic}"][place] for statistic in ("count", "sum", "upper"))

    return {
        stamp: {
            "hits": tuple(
                values[f"stats.counters.web.hits.count{tags}"][place] for tags in ("", ";route=u;status=200")
            ),
            "numbered": values["stats.counters.numbered.count"][place],
            "depth": values["stats.gauges.depth"][place],
            "users": values["stats.sets.users.count"][place],
            "few": distribution("timers.few", place),
            "many": distribution("timers.many", place),
            "size": distribution("histograms.size", place),
        }
        for place, stamp in enumerate(SLOTS)
    }


def told(daemon: Any) -> dict[str, Any]:
    """What a forwarder was told in all, of the series in `inputs`."""
    window = daemon.registry.snapshot().open
    found: dict[str, Any] = dict(window.counters)
    found.update(window.gauges)
    for values in (window.timers, window.histograms):
        found.update({key: value.count for key, value in values.items()})
    found.update({key: set(members) for key, members in window.uniques.items()})
    return {key: value for key, value in found.items() if not key.startswith("statsd.")}


def expected_deltas() -> dict[str, Any]:
    found: dict[str, Any] = {"numbered": 21}
    for key, values in inputs.measured(*(line for part in PARTS for line in part)).items():
        series, _, kind = key.rpartition("|")
        if kind == "c":
            found[series] = pytest.approx(sum(values), rel=1e-12)  # tenths
        elif kind == "g":
            found[series] = values[-1]
        else:
            found[series] = {f"u{value:.0f}" for value in values} if kind == "s" else len(values)
    return found


def test_a_program_goes_on_with_the_spool_of_an_earlier_version(tmp_path, monkeypatch, graphite):
    """Counters, gauges, sketches and sets of the open interval are continued, and totals are those of both lives."""
    from metricslib import Flusher, Registry
    from metricslib.testing import ManualClock

    unpack("program", tmp_path)
    monkeypatch.chdir(tmp_path)
    clock = ManualClock(SLOTS[2] + 20.0)
    registry = Registry(clock=clock)
    flusher = Flusher(registry, inputs.PROGRAM, interval=inputs.INTERVAL, prefix="shop", spool="spool", own="")
    flusher.start()
    inputs.use(registry, 4)
    clock.advance(40)
    flusher.tick()
    assert flusher.flush(PATIENCE)
    assert registry.snapshot().totals["counter"]["hits"].sum == 1 + 2 + 3 + 4 + 5
    assert flusher.stop()
    at = partial(lambda path: graphite.at(f"stats.{path}")[:4])
    assert at("counters.shop.hits.count") == [1, 2, 3, 4 + 5]
    assert at("counters.shop.hits.count;route=u") == [0.1, 0.1, 0.1, 0.2]
    assert at("gauges.shop.depth") == [10, 21, 33, 60]
    many = [[1 + sample * (part + 1) for sample in range(700)] for part in range(5)]
    many[3] += many.pop()
    assert at("timers.shop.many.count") == [700, 700, 700, 1400]
    assert at("timers.shop.many.sum") == pytest.approx(list(map(sum, many)), rel=1e-12)
    assert at("timers.shop.many.upper") == pytest.approx(list(map(max, many)))
    assert at("timers.shop.many.median") == pytest.approx([sorted(each)[len(each) // 2] for each in many], rel=0.02)
    assert at("histograms.shop.size.sum") == [190, 380, 760, 1520 + 3040]
    members = [{user * (part + 1) for user in range(40)} for part in range(5)]
    members[3] |= members.pop()
    assert at("sets.shop.users.count") == list(map(len, members))


def test_a_configuration_of_an_earlier_version_means_the_same(capsys):
    """Every option it had is known, and has the value that it had there."""
    from forwarder.cli import main

    assert main(["--config", str(HERE / "forwarder.toml"), "--check-config"]) == 0
    now = tomllib.loads(capsys.readouterr().out)
    before = tomllib.loads((HERE / "forwarder.checked.toml").read_text())
    assert {name: common(value, now.get(name)) for name, value in before.items()} == before


def common(before: Any, now: Any) -> Any:
    """Of a table, the options that there were before."""
    return {key: now.get(key) for key in before} if isinstance(before, dict) and isinstance(now, dict) else now
