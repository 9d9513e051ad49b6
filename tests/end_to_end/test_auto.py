"""``auto:``: the forwarder of this host, from when it is there, and the page until then."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from tests.peers import ROOT, eventually, free_port


def test_a_forwarder_that_comes_later_gets_what_is_measured_from_then_on(forwarder, tmp_path: Path):
    """And once it was there, what is measured while it is away waits for it."""
    path, out = tmp_path / "metrics.sock", tmp_path / "out.jsonl"
    flags = ("--listen", f"forwarder+unix://{path}", "--to", f"file://{out}", "--interval", "1")
    flusher = Flusher(Registry(), f"auto://{path}", prefix="shop", own="", interval=1)
    flusher.start()
    counter = flusher.registry.counter("hits")

    def arrived() -> float:
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        ends = {line["end"]: line["counters"].get("shop.hits", 0) for line in lines}
        return sum(ends.values())

    try:
        counter.inc(1000)
        assert flusher.flush()
        (status,) = flusher.status().destinations
        assert (status.waiting_batches, status.dropped, status.errors) == (0, {}, 0)
        first = forwarder(*flags)
        first.ready()
        counter.inc(5)
        assert flusher.flush()
        eventually(lambda: arrived() == 5)
        first.process.terminate()
        first.process.wait(20)
        counter.inc(7)
        eventually(lambda: flusher.status().destinations[0].waiting_batches == 1)
        forwarder(*flags).ready()
        assert flusher.flush(20)
        eventually(lambda: arrived() == 12)
    finally:
        flusher.stop()


@pytest.mark.slow
def test_without_a_forwarder_any_worker_shows_what_all_counted(need, tmp_path: Path):
    need("gunicorn")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2", "--log-level", "warning"]
    environment = {**os.environ, "TO": f"auto://{tmp_path}/none.sock", "METRICSLIB_GROUP_DIR": str(tmp_path)}
    server = subprocess.Popen([*command, "tests.end_to_end.preforking"], cwd=ROOT, env=environment)
    counted = dict[str, int]()

    def ask(path: str) -> tuple[str, str | None] | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read().decode(), response.headers["Worker"]
        except ConnectionError:
            return None
        finally:
            connection.close()

    def count() -> bool:
        if answer := ask("/"):
            counted[answer[0]] = counted.get(answer[0], 0) + 1
        return len(counted) == 2

    shown = set[str | None]()

    def all_show_it() -> bool:
        answer = ask("/metrics?format=prometheus")
        if answer and f"\nrequests_total {sum(counted.values())}\n" in answer[0]:
            shown.add(answer[1])
        return len(shown) == 2

    try:
        eventually(count)
        eventually(all_show_it)
    finally:
        server.terminate()
        assert server.wait(20) == 0
