"""What it costs that the workers of a host send as one: CPU time of a process, apart from what the program does itself.

A process has 500 counters. An active one counts in each of them once a second, an idle one in none; the main thread
does that, and its CPU time does not count. All send to a Graphite server that reads and forgets.
"""

import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading

from .child import ROOT, environment
from .measure import Samples, Scale
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "run"]

TITLE = "Workers that send as one"
_SERIES = 500
_WORKERS = 8
_STARTS = 5  # at most

ALONE_IDLE, ALONE = "alone, idle: for being ready", "alone, active: for being ready"
IDLE, ACTIVE = "a member, idle", "a member, active"
SHIPPER = f"the shipper of {_WORKERS} active members"
START = "start(): for being ready"
ROWS = (
    Row(ALONE_IDLE, "%", goal=at_most(0.2)),
    Row(ALONE, "%", goal=at_most(0.2)),
    Row(IDLE, "%", goal=at_most(0.2)),
    Row(ACTIVE, "%", goal=at_most(0.5)),
    Row(SHIPPER, "%", goal=at_most(3)),
    Row(START, "ms", goal=at_most(15)),
)

_PROGRAM = """
import json, sys, time
url, group, active, series, seconds = sys.argv[1:]
series, seconds = int(series), float(seconds)
import metricslib as metrics
from metricslib.flusher import Flusher
from metricslib.registry import Registry
registry = Registry()
flusher = Flusher(registry, url, group=group or None)
counters = [registry.counter(f"shop.page{n}.hits") for n in range(series)]
for counter in counters:
    counter.inc()
begun = time.process_time()
flusher.start()
begun = time.process_time() - begun
time.sleep(min(seconds, 1.0))
begin, own, now = time.process_time(), time.thread_time(), time.monotonic()
while (left := now + seconds - time.monotonic()) > 0:
    if active:
        for counter in counters:
            counter.inc()
    time.sleep(min(1.0, left))
lasted = time.monotonic() - now
cost = (time.process_time() - begin - (time.thread_time() - own)) / max(lasted, 1e-9)
membership = flusher._membership
print(json.dumps({"cost": cost, "start": begun, "ships": membership is None or membership.shipping}), flush=True)
sys.stdin.read()
flusher.stop()
"""


class _Sink(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.read(1 << 16):
            pass


def run(scale: Scale) -> tuple[Samples, str]:
    """Return shares of a core, and seconds."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Sink) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with tempfile.TemporaryDirectory() as cache:
                return _measured(f"graphite://127.0.0.1:{server.server_address[1]}", scale, cache), ""
        finally:
            server.shutdown()


def _measured(url: str, scale: Scale, cache: str) -> Samples:
    seconds = scale.offered
    costs: Samples = {row.what: [] for row in ROWS}
    for what, active in ((ALONE_IDLE, ""), (ALONE, "active")):
        costs[what] = [_alone(url, cache, "host", active, seconds) - _alone(url, cache, "", active, seconds)]
    for what, active in ((IDLE, ""), (ACTIVE, "active")):
        costs[what] = [found["cost"] for found in _together(url, cache, [active] * 3, seconds) if not found["ships"]]
    costs[SHIPPER] = [
        found["cost"] for found in _together(url, cache, ["active"] * _WORKERS, seconds) if found["ships"]
    ]
    starts = [
        _together(url, cache, [""], 0.0, group)[0]["start"]
        for _ in range(min(_STARTS, scale.rounds))
        for group in ("host", "")
    ]
    costs[START] = [max(0.0, ready - alone) for ready, alone in zip(starts[::2], starts[1::2], strict=True)]
    return costs


def _alone(url: str, cache: str, group: str, active: str, seconds: float) -> float:
    return float(_together(url, cache, [active], seconds, group)[0]["cost"])


def _together(url: str, cache: str, active: list[str], seconds: float, group: str = "host") -> list[dict[str, float]]:
    """Run a process for each of ``active``, and return what each costs. Bytecode is cached, as it is installed."""
    environ = {**environment("C"), "PYTHONPATH": os.fspath(ROOT), "PYTHONPYCACHEPREFIX": cache}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as directory:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, url, group, each, str(_SERIES), str(seconds)],
                env={**environ, "METRICSLIB_GROUP_DIR": directory},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for each in active
        ]
        found = [json.loads(process.stdout.readline()) for process in processes if process.stdout]
        for process in processes:
            process.communicate()
        return found
