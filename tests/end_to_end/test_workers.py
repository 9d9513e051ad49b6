"""What a killed worker of a server had measured arrives."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.peers import ROOT, eventually, free_port

from .conftest import Carbon

REQUESTS = 200
PATH = "stats.counters.shop.requests.count"


@pytest.fixture
def carbon2(tmp_path, need) -> Iterator[Carbon]:
    need("carbon-cache.py")
    root = tmp_path / "carbon"
    root.mkdir()
    cache = Carbon(root, 2)
    cache.start()
    yield cache
    cache.stop()


@contextmanager
def serving(carbon: Carbon, command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "TO": carbon.url}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        eventually(lambda: ask(port))
        yield process
        process.terminate()
        assert process.wait(20) == 0
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def ask(port: int) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)  # one that is given up is counted
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def gunicorn(port: int, *options: str) -> list[str]:
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "4", "--log-level", "warning"]
    return [*command, *options, "tests.end_to_end.preforking"]


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_that_it_had_written(carbon2, need):
    """Not what Graphite had, nor what comes after: another worker ships, and the open slot has the dead one's part."""
    need("gunicorn")
    port, first = free_port(), int(time.time())
    with serving(carbon2, gunicorn(port), port):
        answered, workers = 1, set[str]()

        def measure(until: int) -> None:
            nonlocal answered
            while answered < until:
                if worker := ask(port):
                    answered += 1
                    workers.add(worker)

        for part in (50, 100, 150):
            measure(part)
            carbon2.adds_up({PATH: answered}, first, int(time.time()) + 2)
            os.kill(int(workers.pop()), signal.SIGKILL)
        measure(REQUESTS)
    carbon2.adds_up({PATH: answered}, first, int(time.time()) + 2)


def read(port: int, path: str) -> tuple[str, str]:
    """Return what a worker answers, and which it was."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read().decode(), response.headers["Worker"]
    finally:
        connection.close()


@pytest.mark.slow
def test_any_worker_shows_what_all_counted(carbon2, need):
    """Also after one was killed, and another took its number."""
    need("gunicorn")
    port = free_port()
    with serving(carbon2, gunicorn(port), port):
        answered, workers = 1, set[str]()
        while answered < REQUESTS or len(workers) < 4:
            if worker := ask(port):
                answered += 1
                workers.add(worker)
        shown = set[str]()

        def all_show_it() -> bool:
            text, worker = read(port, "/metrics?format=prometheus")
            if f"\nrequests_total {answered}\n" in text:
                shown.add(worker)
            return len(shown) == 4

        eventually(all_show_it, 20)
        assert shown == workers
        found = json.loads(read(port, "/metrics?format=json")[0])
        assert {str(member["pid"]) for member in found["members"]} == workers
        assert {member["program"] for member in found["members"]} == {"gunicorn"}
        assert sorted(member["number"] for member in found["members"]) == [0, 1, 2, 3]
        took = next(series for series in found["series"] if series["key"] == "took")
        assert took["total"]["count"] + took["open"]["count"] == answered
        for path in (
            "/metrics",
            "/metrics/top",
            "/metrics/health",
            "/metrics/series/requests",
            "/metrics?query=request",
        ):
            assert "requests" in read(port, path)[0] or path.endswith("health")
        killed = min(workers)
        os.kill(int(killed), signal.SIGKILL)
        eventually(
            lambda: killed not in {worker for _ in range(20) if (worker := read(port, "/metrics?format=json")[1])}
        )
        while len(workers) < 5:
            if worker := ask(port):
                answered += 1
                workers.add(worker)
        shown.clear()
        eventually(all_show_it, 20)
        assert killed not in shown
