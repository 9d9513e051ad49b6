"""The two daemons, each as a function from a case to what Graphite would be sent, flush by flush.

statsd runs in a node process of its own, as :file:`statsd_driver.js` tells; ours runs here: everything from statsd's
configuration, converted, to the bytes of a batch, without sockets and threads. Both have a clock that stands still but
for the ends of intervals, so durations are 0 and stamps the same.
"""

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from forwarder.aggregator import Aggregator
from forwarder.config import Config, of_file, settle
from forwarder.daemon import Daemon
from forwarder.options import toml
from forwarder.self_metrics import Input
from forwarder.statsd_import import convert
from metricslib.testing import ManualClock

__all__ = ["INTERVAL", "START", "STATSD", "Case", "Crash", "Statsd", "configured", "ours", "shown"]

STATSD = Path(__file__).parent.parent / "end_to_end" / "node_modules" / "statsd"
DRIVER = Path(__file__).parent / "statsd_driver.js"
INTERVAL = 10
START = 1_700_000_000


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
        environment = {**os.environ, "TZ": "UTC", "NODE_NO_WARNINGS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.report = ""
        """What the last case said of the busiest keys."""

    def __call__(self, case: Case) -> list[str]:
        """Return what is sent at the end of each interval. Raises :class:`Crash`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        options = {"flushInterval": INTERVAL * 1000, **case.options}
        intervals = [[b64encode(datagram).decode() for datagram in datagrams] for datagrams in case.intervals]
        self._process.stdin.write(json.dumps({"options": json.dumps(options), "intervals": intervals}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["crash"] is not None:
            raise Crash(answer["crash"])
        self.report = answer["report"]
        flushes: list[str] = answer["flushes"]
        return flushes

    def close(self) -> None:
        self._process.communicate()


def ours(case: Case, config: Config | None = None, **more: Any) -> list[str]:
    """Return what is sent at the end of each interval, with ``config`` or what is made of statsd's options, all of
    which must be taken over. ``more`` are options of ours.
    """
    clock = ManualClock(START)
    options = {"graphiteHost": "127.0.0.1", "flushInterval": INTERVAL * 1000, **case.options}
    daemon = Daemon(config or configured(options, **more), clock=clock, grace=0)
    aggregator = Aggregator(daemon.registry, clock=clock)
    daemon.wire([Input("udp://127.0.0.1:8125", aggregator)])
    (sender,) = daemon.flusher._dispatcher
    flushes = []
    for datagrams in case.intervals:
        aggregator.feed(datagrams)
        clock.advance(daemon.config.interval)
        daemon.flusher.tick()
        flushes.append(b"")
        while batch := sender.queue.take():
            flushes[-1] += batch.payload
            sender.queue.ack(batch)
    return [flush.decode() for flush in flushes]


def configured(options: Mapping[str, Any], **more: Any) -> Config:
    """Return the configuration that ``forwarder --from-statsd`` makes of statsd's ``options``, all of which it must
    take over. ``more`` are options of ours that win.
    """
    lines = [f"{name} = {toml(value)}" for name, value in more.items()]
    return settle(of_file("\n".join(lines), "more"), of_file(_converted(json.dumps(options)), "statsd's options"))


@lru_cache(maxsize=1000)
def _converted(options: str) -> str:
    conversion = convert(options, "statsd's options")
    assert {line.partition(":")[0] for line in conversion.left_out} <= {"mgmt_address", "keyNameSanitize"}, (
        conversion.left_out
    )
    return conversion.toml


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
