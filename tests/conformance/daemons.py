"""The two daemons, each as a function from a case to what Graphite would be sent, flush by flush.

statsd runs in a node process of its own, as :file:`statsd_driver.js` tells; ours runs here: everything from a
configuration file's text to the bytes of a batch, without sockets and threads. Both have a clock that stands still but
for the ends of intervals, so durations are 0 and stamps the same.
"""

import json
import subprocess
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forwarder.config import of_file, settle
from forwarder.daemon import Daemon
from forwarder.intake import Intake
from forwarder.options import toml
from forwarder.own import Door
from metricslib.testing import ManualClock

__all__ = ["INTERVAL", "STATSD", "Case", "Crash", "Statsd", "ours", "shown"]

STATSD = Path(__file__).parent.parent / "end_to_end" / "node_modules" / "statsd"
DRIVER = Path(__file__).parent / "statsd_driver.js"
INTERVAL = 10
START = 1_700_000_000

# What statsd's options are called here, and what else their values are. Those of `graphite` stand in a table there.
_NAMES = {
    "prefixStats": "own_prefix",
    "gaugesMaxTTL": "gauges_ttl",
    "flush_counts": "naming.flush_counts",
    "calculatedTimerMetrics": "naming.calculated",
    "legacyNamespace": "naming.legacy",
    "globalPrefix": "naming.namespace",
    "prefixCounter": "naming.counters",
    "prefixTimer": "naming.timers",
    "prefixGauge": "naming.gauges",
    "prefixSet": "naming.sets",
    "globalSuffix": "naming.suffix",
}
_DELETE = {"deleteCounters": "counters", "deleteTimers": "timers", "deleteGauges": "gauges", "deleteSets": "sets"}


class Case(NamedTuple):
    """Datagrams in each of some intervals, and statsd's options where they differ from its defaults."""

    intervals: Sequence[Sequence[bytes]]
    options: Mapping[str, Any] = {}


class Crash(Exception):
    """statsd died; the text is what it threw."""


class Statsd:
    """The real statsd, in a process that must be closed."""

    def __init__(self) -> None:
        command = ["node", str(DRIVER), str(STATSD)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, case: Case) -> list[str]:
        """Return what is sent at the end of each interval. Raises :class:`Crash`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        options = {"flushInterval": INTERVAL * 1000, **case.options}
        intervals = [[b64encode(datagram).decode() for datagram in datagrams] for datagrams in case.intervals]
        self._process.stdin.write(json.dumps({"options": options, "intervals": intervals}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["crash"] is not None:
            raise Crash(answer["crash"])
        flushes: list[str] = answer["flushes"]
        return flushes

    def close(self) -> None:
        self._process.communicate()


def ours(case: Case, **more: Any) -> list[str]:
    """Return what is sent at the end of each interval. ``more`` are options of ours."""
    clock = ManualClock(START)
    daemon = Daemon(settle(of_file(configuration(case.options, **more), "statsd's options")), clock=clock)
    intake = Intake(daemon.registry, clock=clock)
    daemon.wire([Door("udp://127.0.0.1:8125", intake)])
    (courier,) = daemon.flusher._couriers
    flushes = []
    for datagrams in case.intervals:
        intake.feed(datagrams)
        clock.advance(INTERVAL)
        daemon.flusher.tick()
        flushes.append(b"")
        while batch := courier.spool.head():
            flushes[-1] += batch.payload
            courier.spool.settle(batch, None)
    return [flush.decode() for flush in flushes]


def configuration(options: Mapping[str, Any], **more: Any) -> str:
    """Return the TOML that means what statsd's ``options`` do; of itself ours says as much as statsd does."""
    top: dict[str, Any] = {"to": ["graphite://127.0.0.1:2003"], "interval": INTERVAL, "own_account": False, **more}
    naming: dict[str, Any] = {"legacy": True}
    flat = {**options, **options.get("graphite", {})}
    for name, value in flat.items():
        if name == "percentThreshold":
            top["percentiles"] = value
        elif name == "histogram":
            naming["bins"] = [{"match": entry["metric"], "bounds": _bounds(entry["bins"])} for entry in value]
        elif name in _NAMES:
            table, _, key = _NAMES[name].rpartition(".")
            (naming if table else top)[key] = value
        else:
            assert name in _DELETE or name in ("deleteIdleStats", "graphite"), name
    idle = options.get("deleteIdleStats", False)
    top["delete_idle"] = [kind for name, kind in _DELETE.items() if options.get(name, idle)]
    lines = [f"{key} = {toml(value)}" for key, value in top.items()]
    return "\n".join([*lines, "[naming]", *(f"{key} = {toml(value)}" for key, value in naming.items())])


def _bounds(bins: Sequence[Any]) -> list[float]:
    return [float("inf") if bound == "inf" else bound for bound in bins]


_MASKED = ("calculationtime", "processing_time", "last_exception", "last_flush", "flush_time", "flush_length")


def shown(flush: str, options: Mapping[str, Any]) -> list[str]:
    """Return a flush's lines without stamps, and without the values of durations and of what speaks of deliveries."""
    own = options.get("prefixStats", "statsd")
    suffix = options.get("graphite", {}).get("globalSuffix", "")
    lines = []
    for line in flush.splitlines():
        path, _, value = line.rpartition(" ")[0].partition(" ")
        bare = path.removesuffix("." + suffix) if suffix else path
        if f"{own}." in bare and bare.rpartition(".")[2] in _MASKED:
            value = "…"
        lines.append(f"{path} {value}")
    return lines
