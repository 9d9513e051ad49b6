"""Workers are one: N requests to a server with several processes are N in a real carbon, however it is run."""

import http.client
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
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
@pytest.mark.parametrize("options", [[], ["--preload"], ["--max-requests", "20"]], ids=" ".join)
def test_each_request_to_gunicorn_arrives(carbon2, need, options):
    need("gunicorn")
    port, first = free_port(), int(time.time())
    with serving(carbon2, gunicorn(port, *options), port):
        answered, workers = 1, set()
        while answered < REQUESTS:
            if worker := ask(port):
                answered += 1
                workers.add(worker)
                if answered % 20 == 0:
                    time.sleep(0.1)
    assert len(workers) > 1
    carbon2.adds_up({PATH: answered, "stats.timers.shop.took.count": answered}, first, int(time.time()) + 2)


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
