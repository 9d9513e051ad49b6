"""Workers are one, however a program is run: N requests to a real server, or N jobs, are N in a real carbon.

Each row of the tables is a program with several processes, as its documentation says to run it, with nothing of ours
but ``metrics.start()``. ``make matrix`` runs all of them; other runs leave out those marked ``matrix``, so that they
have each choice of each column once. docs/explanation/workers.md tells users what runs here.
"""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

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

    def __init__(self, port: int, answered_by: Callable[[str], object] = lambda worker: None) -> None:
        self.port = port
        self._answered_by = answered_by
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
        self._answered_by(text)
        self.workers.add(text)
        self.answered += 1
        return True

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send one request after the other, fifty a second at most."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.02):
                self.ask()

        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(work)
            try:
                yield
            finally:
                ended.set()
        task.result()

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


class Row(NamedTuple):
    """A way to run a program."""

    name: str
    command: Sequence[str]
    gate: bool = False
    """Whether it runs without being asked for."""
    code: int = 0
    """The exit code after SIGTERM."""
    abrupt: bool = False
    """Whether SIGTERM ends some worker without its exit functions, so that the last second may be missing."""


def parameters(rows: Sequence[Row]) -> list:
    """Return the parameters of a test."""
    return [pytest.param(row, id=row.name, marks=() if row.gate else pytest.mark.matrix) for row in rows]


def prefix_of(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def totals(prefix: str, count: int) -> dict[str, float]:
    return {f"stats.counters.{prefix}.requests.count": count, f"stats.timers.{prefix}.took.count": count}


# -- servers

WSGI, ASGI = "tests.matrix.application:application", "tests.matrix.application:asgi"


def gunicorn(worker: str, *options: str, gate: bool = False) -> Row:
    command = ["gunicorn", "--bind=127.0.0.1:PORT", "--workers=4", "--no-control-socket", *options]
    command += {
        "sync": [WSGI],
        "gthread": ["--worker-class=gthread", "--threads=4", WSGI],
        "gevent": ["--worker-class=gevent", WSGI],
        "uvicorn": ["--worker-class=uvicorn_worker.UvicornWorker", ASGI],
    }[worker]
    # Between the end of uvicorn and that of the interpreter, SIGTERM has its default action, which is how the worker
    # had set it after the fork. gunicorn sends it to a worker that is ending because of its requests.
    abrupt = worker == "uvicorn" and len(options) == 2
    return Row(" ".join(("gunicorn", worker, *options)), command, gate, abrupt=abrupt)


def uwsgi(*options: str, gate: bool = False, code: int = 0) -> Row:
    command = ["uwsgi", "--http-socket=127.0.0.1:PORT", "--processes=2", "--need-app", "--die-on-term"]
    command += ["--disable-logging", f"--module={WSGI}", *options]
    # A worker that is still busy with a request when it is told to end runs no exit functions.
    return Row(" ".join(("uwsgi", *options)), command, gate, code, abrupt=True)


SERVERS = [
    gunicorn("sync", gate=True),
    gunicorn("sync", "--preload"),
    gunicorn("sync", "--max-requests=20"),
    gunicorn("sync", "--preload", "--max-requests=20"),
    gunicorn("gthread"),
    gunicorn("gthread", "--preload", gate=True),
    gunicorn("gthread", "--max-requests=20"),
    gunicorn("gthread", "--preload", "--max-requests=20"),
    gunicorn("gevent"),
    gunicorn("gevent", "--preload"),
    gunicorn("gevent", "--max-requests=20"),
    gunicorn("gevent", "--preload", "--max-requests=20", gate=True),
    gunicorn("uvicorn"),
    gunicorn("uvicorn", "--preload"),
    gunicorn("uvicorn", "--max-requests=20", gate=True),
    gunicorn("uvicorn", "--preload", "--max-requests=20"),
    Row("uvicorn", ["uvicorn", "--port=PORT", "--workers=2", ASGI], gate=True),
    Row("hypercorn", ["hypercorn", "--bind=127.0.0.1:PORT", "--workers=2", ASGI], gate=True),
    Row("granian asgi", ["granian", "--port=PORT", "--workers=2", "--interface=asgi", ASGI], gate=True),
    Row("granian wsgi", ["granian", "--port=PORT", "--workers=2", "--interface=wsgi", "--blocking-threads=4", WSGI]),
    uwsgi("--master", gate=True),
    uwsgi("--master", "--enable-threads"),
    uwsgi("--master", "--threads=2"),
    uwsgi("--master", "--lazy-apps", gate=True),
    uwsgi("--master", "--py-call-uwsgi-fork-hooks"),
    uwsgi(code=30),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", parameters(SERVERS))
def test_each_request_to_a_server_arrives(carbon, need, tmp_path, row):
    need(row.command[0])
    port, first, prefix = free_port(), int(time.time()), prefix_of(row.name)
    client, log = Client(port), tmp_path / "log"
    command = [word.replace("PORT", str(port)) for word in row.command]
    with running(command, carbon, prefix, log) as process:
        client.send(REQUESTS, 2)
        if row.abrupt:
            carbon.adds_up(totals(prefix, client.answered), first, int(time.time()) + INTERVAL)
        process.terminate()
        assert process.wait(PATIENCE) == row.code
        carbon.adds_up(totals(prefix, client.answered), first, int(time.time()) + INTERVAL)
        assert "Traceback" not in log.read_text()


# -- kill -9

SECOND = 1.0  # between the records of a member
LATE = 1.0  # what a loaded machine may add to that


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.matrix)])
def test_a_killed_worker_costs_at_most_its_last_second(carbon, tmp_path, record_property, kills):
    """A random worker of gunicorn is killed every three seconds, under load."""
    row, port, first, prefix = gunicorn("sync"), free_port(), int(time.time()), f"killed_{kills}"
    answers: list[tuple[float, str]] = []  # when which process answered
    client = Client(port, lambda worker: answers.append((time.monotonic(), worker)))
    command = [word.replace("PORT", str(port)) for word in row.command]
    at_risk = 0
    with running(command, carbon, prefix, tmp_path / "log") as process:
        client.send(REQUESTS, 4)
        with client.sending():
            for _ in range(kills):
                time.sleep(3)
                _, victim = answers[-1]
                os.kill(int(victim), signal.SIGKILL)
                killed = time.monotonic()
                count = len(answers)
                eventually(lambda count=count: len(answers) > count + 20, or_else="answers of the others")
                recent = [worker for when, worker in answers if when >= killed - SECOND - LATE]
                at_risk += recent.count(victim)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        path, stamps = f"stats.counters.{prefix}.requests.count", list(range(first // 2 * 2, int(time.time()) + 4, 2))
        arrived = -1.0

        def all_there() -> bool:
            nonlocal arrived
            before, arrived = arrived, sum(value or 0 for value in carbon.read(path, stamps))
            time.sleep(0.5)
            return arrived == before and arrived >= client.answered - at_risk

        eventually(all_there, or_else=f"{client.answered} answered, {at_risk} of them at risk; the rest in carbon")
    said = f"{kills} kills: {client.answered} answered, {client.answered - arrived:.0f} missing, {at_risk} at risk"
    record_property("kill -9", said)
    print(said)
    assert arrived <= client.answered + kills  # a worker may be killed between counting and answering


# -- reloaders

FLASK = """
from flask import Flask
from tests.matrix.application import answer

app = Flask(__name__)
app.route("/")(answer)
"""
DJANGO = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
from tests.matrix.application import answer

settings.configure(DEBUG=True, ROOT_URLCONF=__name__, SECRET_KEY="none", USE_TZ=True)
urlpatterns = [path("", lambda request: HttpResponse(answer()))]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
RELOADERS = [
    Row("flask run --debug", ["flask", "--app=FILE", "run", "--debug", "--port=PORT"], gate=True),
    Row("django runserver", ["python", "FILE", "runserver", "--skip-checks", "PORT"], gate=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", parameters(RELOADERS))
def test_each_request_before_and_after_a_reload_arrives(carbon, tmp_path, row):
    """The program is then ended as a terminal ends it: SIGINT to all its processes."""
    port, first, prefix = free_port(), int(time.time()), prefix_of(row.name)
    client, log, file = Client(port), tmp_path / "log", tmp_path / "reloaded.py"
    file.write_text(FLASK if "flask" in row.name else DJANGO)
    command = [word.replace("PORT", str(port)).replace("FILE", str(file)) for word in row.command]
    with running(command, carbon, prefix, log, PYTHONPATH=str(ROOT)) as process:
        client.send(REQUESTS // 2, 1)
        os.utime(file)
        (old,) = client.workers
        # A request that a thread of the old one answers after its exit functions is nowhere.
        eventually(lambda: not Path(f"/proc/{old}").exists(), or_else="the end of the old process")
        client.send(REQUESTS, 2)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)
        carbon.adds_up(totals(prefix, client.answered), first, int(time.time()) + INTERVAL)


# -- tasks and jobs

CELERY = ["celery", "--app=tests.matrix.tasks", "worker", "--loglevel=warning"]
WORKERS = [
    Row("celery prefork", [*CELERY, "--pool=prefork", "--concurrency=2"], gate=True),
    Row("celery prefork --max-tasks-per-child", [*CELERY, "--concurrency=2", "--max-tasks-per-child=10"]),
    Row("celery threads", [*CELERY, "--pool=threads", "--concurrency=4"]),
    Row("celery gevent", [*CELERY, "--pool=gevent", "--concurrency=10"], gate=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("row", parameters(WORKERS))
def test_each_task_arrives(carbon, tmp_path, row):
    first, prefix, broker = int(time.time()), prefix_of(row.name), str(tmp_path / "broker")
    with running(row.command, carbon, prefix, tmp_path / "log", BROKER=broker) as process:
        client = [sys.executable, "-m", "tests.matrix.tasks", str(REQUESTS)]
        done = subprocess.run(client, cwd=ROOT, env={**os.environ, "BROKER": broker}, timeout=PATIENCE, check=False)
        assert done.returncode == 0
        process.terminate()
        assert process.wait(PATIENCE) == 0
        carbon.adds_up(totals(prefix, REQUESTS), first, int(time.time()) + INTERVAL)
        assert "Traceback" not in (tmp_path / "log").read_text()


GATED_JOBS = {("pool", "fork"), ("pool.terminate", "spawn"), ("pool.close", "forkserver"), ("processes", "spawn")}
GATED_JOBS |= {("executor", "fork")}
KINDS = ("processes", "pool", "pool.close", "pool.terminate", "executor")
JOBS = [
    Row(f"{kind} {method}", ["python", "-m", "tests.matrix.jobs", kind, method], (kind, method) in GATED_JOBS)
    for kind in KINDS
    for method in ("fork", "spawn", "forkserver")
]


@pytest.mark.slow
@pytest.mark.parametrize("row", parameters(JOBS))
def test_each_call_in_child_processes_arrives(carbon, tmp_path, row):
    first, prefix = int(time.time()), prefix_of(row.name)
    with running([*row.command, str(REQUESTS)], carbon, prefix, tmp_path / "log") as process:
        assert process.wait(PATIENCE) == 0
        carbon.adds_up(totals(prefix, REQUESTS), first, int(time.time()) + INTERVAL)
        assert (tmp_path / "log").read_text() == ""


@pytest.mark.slow
def test_runs_that_overlap_add_up(carbon, tmp_path):
    """As cron jobs do that take longer than the time between them: three in one slot, all of 1234 calls."""
    first = int(time.time())
    command = ["python", "-m", "tests.matrix.jobs", "alone", "", "1234"]
    with ExitStack() as stack:
        runs = [stack.enter_context(running(command, carbon, "cron", tmp_path / str(run))) for run in range(3)]
        assert [run.wait(PATIENCE) for run in runs] == [0, 0, 0]
        carbon.adds_up(totals("cron", 3 * 1234), first, int(time.time()) + INTERVAL)


SUPERVISOR = """
[supervisord]
nodaemon = true
logfile = {root}/supervisord.log
pidfile = {root}/supervisord.pid
[program:jobs]
process_name = %(process_num)d
numprocs = 3
command = {python} -m tests.matrix.jobs wait {root}/ready%(process_num)d 100
"""


@pytest.mark.slow
def test_what_supervisor_stops_has_sent_everything(carbon, tmp_path):
    """It sends SIGTERM to programs without a handler."""
    first, config = int(time.time()), tmp_path / "supervisord.conf"
    config.write_text(SUPERVISOR.format(root=tmp_path, python=sys.executable))
    with running(
        ["supervisord", "-c", str(config)], carbon, "supervisor", tmp_path / "log", PYTHONWARNINGS=""
    ) as process:
        eventually(lambda: len(list(tmp_path.glob("ready*"))) == 3)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        carbon.adds_up(totals("supervisor", 300), first, int(time.time()) + INTERVAL)
