"""Workers are one, however a program is run: N requests to a real server are N in a real carbon.

Each row of the tables is a program with several processes, as its documentation says to run it, with nothing of ours
but ``metrics.start()``. ``make matrix`` runs all of them; other runs leave out those marked ``matrix``, so that they
have each choice of each column once.
"""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Carbon
from tests.peers import PATIENCE, ROOT, eventually, free_port

BIN = Path(sys.executable).parent
REQUESTS = 200
INTERVAL = 2


@pytest.fixture(scope="module")
def carbon(tmp_path_factory, need) -> Iterator[Carbon]:
    need("carbon-cache.py")
    cache = Carbon(tmp_path_factory.mktemp("carbon"), INTERVAL)
    cache.start()
    yield cache
    cache.stop(signal.SIGKILL)


class Client:
    """Sends requests to a server, eight at a time, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.workers = set[str]()
        """The processes that answered."""

    def ask(self) -> bool:
        """Send a request; return whether it was answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read().decode()
        except (ConnectionError, http.client.HTTPException):  # it starts, or its worker ends
            return False
        finally:
            connection.close()
        assert response.status == 200, text
        self.workers.add(text)
        self.answered += 1
        return True

    def send(self, requests: int, workers: int) -> None:
        """Send until so many are answered, by at least so many processes."""
        eventually(self.ask, or_else="an answer")
        with ThreadPoolExecutor(8) as pool:

            def enough() -> bool:
                list(pool.map(lambda _: self.ask(), range(20)))
                return self.answered >= requests and len(self.workers) >= workers

            eventually(enough, or_else="answers of enough workers")


@contextmanager
def running(
    command: Sequence[str], carbon: Carbon, name: str, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, which is gone at the end. ``name`` is the prefix of its metrics."""
    settings = {"TO": carbon.url, "PREFIX": name, "INTERVAL": str(INTERVAL)}
    everything = {**os.environ, **{f"METRICSLIB_{key}": value for key, value in settings.items()}, **environment}
    command = [str(BIN / command[0]), *command[1:]]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=everything, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def rows(table: Mapping[str, Sequence[str]], gate: set[str]) -> list:
    """Return the parameters of a test, those that are not in ``gate`` marked."""
    assert gate <= table.keys()
    marks = {name: () if name in gate else (pytest.mark.matrix,) for name in table}
    return [pytest.param(name, table[name], id=name, marks=marks[name]) for name in table]


WSGI, ASGI = "tests.matrix.application:application", "tests.matrix.application:asgi"
GUNICORN = ("gunicorn", "--bind=127.0.0.1:PORT", "--workers=4", "--no-control-socket")
CLASSES = {
    "sync": ("--worker-class=sync", WSGI),
    "gthread": ("--worker-class=gthread", "--threads=4", WSGI),
    "gevent": ("--worker-class=gevent", WSGI),
    "uvicorn": ("--worker-class=uvicorn_worker.UvicornWorker", ASGI),
}
SERVERS = {
    " ".join(("gunicorn", name, *options)): (*GUNICORN, *options, *CLASSES[name])
    for name, preload, most in product(CLASSES, ((), ("--preload",)), ((), ("--max-requests=20",)))
    for options in [preload + most]
} | {
    "uvicorn": ("uvicorn", "--port=PORT", "--workers=2", ASGI),
    "hypercorn": ("hypercorn", "--bind=127.0.0.1:PORT", "--workers=2", ASGI),
    "granian asgi": ("granian", "--port=PORT", "--workers=2", "--interface=asgi", ASGI),
    "granian wsgi": ("granian", "--port=PORT", "--workers=2", "--interface=wsgi", "--blocking-threads=4", WSGI),
}
GATE = {
    "gunicorn sync",
    "gunicorn gthread --preload",
    "gunicorn gevent --preload --max-requests=20",
    "gunicorn uvicorn --max-requests=20",
    "uvicorn",
    "hypercorn",
    "granian asgi",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), rows(SERVERS, GATE))
def test_each_request_to_a_server_arrives(carbon, need, tmp_path, name, command):
    need(command[0])
    port, first = free_port(), int(time.time())
    prefix = "".join(letter if letter.isalnum() else "_" for letter in name)
    client, log = Client(port), tmp_path / "log"
    command = [word.replace("PORT", str(port)) for word in command]
    with running(command, carbon, prefix, log) as process:
        client.send(REQUESTS, 2)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in log.read_text(), log.read_text()
        total = {
            f"stats.counters.{prefix}.requests.count": client.answered,
            f"stats.timers.{prefix}.took.count": client.answered,
        }
        carbon.adds_up(total, first, int(time.time()) + INTERVAL)
