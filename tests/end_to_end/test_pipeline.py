"""The whole pipeline, with real processes, sockets and intervals: programs, forwarder, carbon, Graphite's files."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.peers import ROOT, Forwarder, eventually
from tests.sockets import confirmed, connected, send

from .conftest import Carbon
from .worker import CALLS, THREADS, TURNS, samples

StartForwarder = Callable[..., Forwarder]
StartCarbon = Callable[[int], Carbon]

LONG = 1_000_000
"""Seconds: everything a test sends is in one interval."""


def work(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.end_to_end.worker", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def done(workers: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for the workers; each must have delivered everything and said nothing."""
    said = []
    try:
        for worker in workers:
            _, stderr = worker.communicate(timeout=100)
            said.append((worker.returncode, stderr))
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()
    assert said == [(0, "")] * len(workers)


# -- programs that measure


def test_a_fleet_is_one_program(forwarder: StartForwarder, start_carbon: StartCarbon, tmp_path: Path):
    """Eight processes ship to a forwarder in four ways: counts, sums, sets and extremes of all are exact in carbon's
    files, and percentiles within 1 % of those of all their samples together.
    """
    carbon = start_carbon(LONG)
    listeners = ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", f"unix://{tmp_path}/stream", f"unixgram://{tmp_path}/grams"]
    flags = [flag for listener in listeners for flag in ("--listen", listener)]
    flags += ["--to", carbon.url, "--interval", str(LONG), "--prefix", "shop", "--percentiles", "50,90,99,99.9,-5"]
    process = forwarder(*flags)
    ready = process.ready()
    ways = {"tcp": "statsd+tcp", "udp": "statsd", "unix": "statsd+unix", "unixgram": "statsd+unixgram"}
    urls = [ready[scheme].replace(scheme, way, 1) for scheme, way in ways.items()] * 2
    done([work("fleet", url, str(number)) for number, url in enumerate(urls)])
    assert process.end(signal.SIGTERM) == 0

    slot = (int(time.time()) // LONG + 1) * LONG
    turns = [samples(number, turn) for number in range(len(urls)) for turn in range(TURNS)]
    hits = [sum(samples(number, turn).hits for turn in range(TURNS)) for number in range(len(urls))]

    def value(path: str) -> float:
        eventually(lambda: carbon.read(path, [slot]) != [None], or_else=path)
        (found,) = carbon.read(path, [slot])
        assert found is not None
        return found

    assert value("stats.counters.shop.hits.count") == sum(hits)
    for number, count in enumerate(hits):
        assert value(f"stats.counters.shop.hits.tagged.count;process={number}") == count
        assert value(f"stats.gauges.shop.level;process={number}") == -number
    assert value("stats.sets.shop.users.count") == len(set().union(*[turn.users for turn in turns]))
    few, many = (
        sorted(value for turn in turns for value in turn.few),
        sorted(value for turn in turns for value in turn.many),
    )
    for kind in ("timers", "histograms"):
        for name, union in (("few", few), ("many", many)):
            path = f"stats.{kind}.shop.{name}"
            assert value(f"{path}.count") == len(union)
            assert value(f"{path}.lower") == pytest.approx(union[0], rel=1e-12)
            assert value(f"{path}.upper") == pytest.approx(union[-1], rel=1e-12)
            assert value(f"{path}.sum") == pytest.approx(sum(union), rel=1e-12 if name == "few" else 0.01)
            assert value(f"{path}.median") == pytest.approx(union[len(union) // 2], rel=0.01)
            for percent, suffix in ((50, "50"), (90, "90"), (99, "99"), (99.9, "99_9")):
                rank = math.floor(percent / 100 * len(union) + 0.5)
                assert value(f"{path}.count_{suffix}") == rank
                assert value(f"{path}.upper_{suffix}") == pytest.approx(union[rank - 1], rel=0.01)
            assert value(f"{path}.lower_top5") == pytest.approx(union[-math.floor(0.05 * len(union) + 0.5)], rel=0.01)
    received = value("stats.counters.statsd.pieces_received.count")
    assert value("stats.counters.statsd.pieces_aggregated.count") == received
    assert value("stats.counters.statsd.bad_lines_seen.count") == 0


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_a_storm_is_counted_exactly(forwarder: StartForwarder, tmp_path: Path, scheme: str):
    """Eight threads count and time 100,000 times each, switched as often as can be, while the flusher ticks and
    is asked to flush all the time: every single call is in the forwarder's windows.
    """
    file = tmp_path / "windows.jsonl"
    listen = {"unix": f"unix://{tmp_path}/s", "tcp": "tcp://127.0.0.1:0"}[scheme]
    process = forwarder("--listen", listen, "--to", f"file://{file}", "--interval", "1")
    done([work("storm", process.ready()[scheme].replace(scheme, f"statsd+{scheme}", 1))])
    assert process.end(signal.SIGTERM) == 0
    windows = {window["end"]: window for window in map(json.loads, file.read_text().splitlines())}.values()
    counts: Counter[str] = Counter()
    for window in windows:
        counts.update(window["counters"])
        counts.update({name: timer["count"] for name, timer in window["timers"].items()})
    assert counts["hits"] == counts["observed"] == counts["timed"] == THREADS * CALLS
    assert [counts[f"hits;thread={number}"] for number in range(THREADS)] == [2 * CALLS] * THREADS
    assert counts["statsd.pieces_received"] == counts["statsd.pieces_aggregated"] > 0
    assert counts["statsd.packets_received"] > 1, "all of it came at once: nothing was flushed while it was counted"
    longest = [window["timers"]["observed"].get("max", 0) for window in windows if "observed" in window["timers"]]
    assert max(longest) == pytest.approx((CALLS - 1) / 1000)


# -- Graphite's own lines


def test_graphite_points_pass_as_they_are(forwarder: StartForwarder, carbon: Carbon):
    """Points for a ``graphite://`` listener arrive under their own paths, without the prefix, with their own stamps and
    values, beside statsd's data, which gets the prefix.
    """
    process = forwarder(
        *("--listen", "graphite://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"),
        *("--to", carbon.url, "--prefix", "shop", "--interval", "10"),
    )
    ready = process.ready()
    first = int(time.time())
    stamps = list(range(first // 10 * 10 - 1000, first // 10 * 10, 10))
    paths = [*(f"servers.web{number}.load" for number in range(20)), "disk.used;server=web1;volume=a"]
    expected = {path: [index + stamp % 1000 / 8 for stamp in stamps] for index, path in enumerate(paths)}
    points = [
        f"{path} {value!r} {stamp}\n" for path in paths for stamp, value in zip(stamps, expected[path], strict=True)
    ]
    with connected(ready["graphite"]) as client:
        payload = "".join(points).encode()
        for start in range(0, len(payload), 1000):  # not where lines end
            client.sendall(payload[start : start + 1000])
            send(ready["tcp"], "hits:1|c\n")
        assert confirmed(client)
    assert process.end(signal.SIGTERM) == 0
    for path in paths:
        eventually(partial(holds, carbon, path, stamps, expected[path]), or_else=path)
    totals = {
        "shop.hits": math.ceil(len(payload) / 1000),
        "statsd.points_received": len(points),
        "statsd.points_relayed": len(points),
        "statsd.points_bad": 0,
    }
    carbon.adds_up(counts(totals), first, int(time.time()) + 10)


def holds(carbon: Carbon, path: str, stamps: list[int], values: list[Any]) -> bool:
    return carbon.read(path, stamps) == values


def counts(totals: Mapping[str, float]) -> dict[str, float]:
    """Totals of counters, under their paths."""
    return {f"stats.counters.{name}.count": total for name, total in totals.items()}


# -- outages


class Trickle:
    """A forwarder that is sent a little in every interval; beside carbon it has a file, which holds every window."""

    def __init__(self, forwarder: StartForwarder, carbon: Carbon, folder: Path) -> None:
        self.carbon = carbon
        self._file = folder / "windows.jsonl"
        self.process = forwarder(
            *("--listen", "tcp://127.0.0.1:0", "--interval", "1", "--stop-timeout", "3"),
            *("--to", carbon.url, "--to", f"file://{self._file}"),
        )
        self.sent = 0

    def intervals(self, number: int) -> None:
        for _ in range(number):
            send(self.process.ready()["tcp"], "hits:1|c\n", times=100)
            self.sent += 100
            self.process.ticks()

    def status(self) -> dict[str, Any]:
        """How delivery to carbon goes."""
        found: dict[str, Any] = self.process.page()["destinations"][0]
        return found

    def windows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def is_whole(self) -> None:
        """Wait until carbon's files hold every window until now, as it is in the file, and nothing in between."""
        eventually(self._has_all_sent)
        for name in ("statsd.pieces_received", "hits"):
            eventually(partial(self._agrees_on, name), or_else=name)

    def _has_all_sent(self) -> bool:
        return sum(window["counters"].get("hits", 0) for window in self.windows()) == self.sent

    def _agrees_on(self, name: str) -> bool:
        windows = {window["end"]: window["counters"].get(name) for window in self.windows()}
        stamps = list(range(min(windows), max(windows) + 1))
        values = [windows.get(stamp) for stamp in stamps]
        return self.carbon.read(f"stats.counters.{name}.count", stamps) == values


@pytest.fixture
def trickle(forwarder: StartForwarder, start_carbon: StartCarbon, tmp_path: Path) -> Trickle:
    """A forwarder with some intervals behind it. Carbon has them in its files: it must not be killed while it makes
    one, which it would leave broken.
    """
    trickle = Trickle(forwarder, start_carbon(1), tmp_path)
    trickle.intervals(2)
    trickle.is_whole()
    return trickle


def test_an_outage_of_carbon_leaves_no_gap_and_no_double(trickle: Trickle):
    """Carbon is killed, is away for some intervals, and comes back: it has every window, with the same numbers."""
    trickle.intervals(1)
    trickle.carbon.stop(signal.SIGKILL)
    trickle.intervals(3)
    assert not trickle.status()["up"]
    trickle.carbon.start()
    trickle.intervals(1)
    eventually(lambda: trickle.status()["up"] and not trickle.status()["waiting_batches"], 40)
    trickle.intervals(1)
    assert trickle.process.end(signal.SIGTERM) == 0
    trickle.is_whole()
    assert "trying again; logged once" in trickle.process.log
    assert trickle.process.log.count("delivering again") == 1
    assert "dropped" not in trickle.process.log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stop_during_an_outage_keeps_its_deadline(trickle: Trickle, number: signal.Signals):
    """Carbon is dead, or takes connections and reads nothing: SIGTERM ends the forwarder in time all the same, and its
    last word is how many points were dropped: those of all windows that carbon has not got, the open one included.
    """
    process = trickle.carbon.process
    assert process is not None
    process.send_signal(number)
    trickle.intervals(2)
    waiting = trickle.status()["waiting_points"]
    begun = time.monotonic()
    assert trickle.process.end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 3 + 7
    told = r"not everything was delivered in time: (\d+) points for (\S+) were in memory and are lost, cause shutdown"
    found = re.search(told, trickle.process.lines[-1])
    assert found, trickle.process.log
    assert found[2] == trickle.carbon.url
    open_window = trickle.windows()[-1]
    assert int(found[1]) >= waiting + 2 * len(open_window["counters"]) > waiting > 0
