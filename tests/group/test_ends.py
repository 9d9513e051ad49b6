"""Programs in pools, in cron jobs that overlap, and under another user: what each process measured arrives."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from tests.peers import PATIENCE, GraphitePeer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


POOLS = """
import multiprocessing, sys, metricslib as metrics
metrics.start(sys.argv[1], interval=1000)
def work(n):
    metrics.counter("a").inc()
    return n
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with context.Pool(2) as pool:
        assert pool.map(work, range(100), chunksize=5) == list(range(100))
    metrics.stop()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_in_a_with_block_loses_nothing(peer, tmp_path, method):
    """The end of the block ends the workers, some of them by SIGTERM."""
    path = tmp_path / "pools.py"
    path.write_text(POOLS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), peer.url, method]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sum(peer.at("stats.counters.a.count")) == 100


def test_an_executor_loses_nothing(peer, tmp_path):
    path = tmp_path / "executor.py"
    path.write_text("""
import sys, metricslib as metrics
from concurrent.futures import ProcessPoolExecutor
metrics.start(sys.argv[1], interval=1000)
def work(n):
    metrics.counter("a").inc()
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(work, range(100)))
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(path), peer.url], env=environment, check=False, timeout=60)
    assert done.returncode == 0
    assert sum(peer.at("stats.counters.a.count")) == 100


def test_overlapping_runs_of_a_script_add_up(peer):
    """As cron jobs do that take longer than the time between them."""
    program = "import sys, metricslib as m; m.start(sys.argv[1], interval=1000); m.counter('a').inc(1234)"
    running = [subprocess.Popen([sys.executable, "-c", program, peer.url], cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert sum(peer.at("stats.counters.a.count")) == 4 * 1234


def test_a_destination_that_takes_each_slot_once_gets_all_of_what_several_flushers_measured(tmp_path):
    """Each in a process of its own elsewhere; the files, locks and seals are the same."""
    to = f"file://{tmp_path}/metrics.jsonl?revise=off"
    flushers = [Flusher(Registry(), to, interval=1000, own="") for _ in range(4)]
    for flusher in flushers:
        flusher.start()
        flusher.registry.counter("a").inc(50)
        flusher.registry.timer("t").observe(1)
        assert flusher.flush(30)
    for flusher in flushers:
        assert flusher.stop()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["counters"] == {"a": 200}
    assert json.loads(line)["timers"]["t"]["count"] == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")
def test_after_a_change_of_the_user_the_group_is_the_new_user_s(peer):
    """As of a server that starts as root: the open slot is whole, and the other user's folder is left empty."""
    program = """
import logging, os, sys, metricslib as metrics
logging.basicConfig()
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
counter.inc(5)
assert metrics.flush(30)
os.seteuid(65534)
counter.inc(7)
assert metrics.flush(30)
counter.inc(30)
assert metrics.stop(30)
"""
    with tempfile.TemporaryDirectory(prefix="groups") as directory:
        os.chmod(directory, 0o777)
        environment = {**os.environ, "METRICSLIB_GROUP_DIR": directory}
        done = subprocess.run(
            [sys.executable, "-c", program, peer.url],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert peer.at("stats.counters.a.count") == [42]
        sizes = {path.stat().st_uid: path.stat().st_size for path in Path(directory).rglob("2000000000/*")}
    assert sizes[0] == 0
    assert sizes[65534] > 0


def ends(ending: str, url: str, directory: Path, before: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program that counts 42, waits until its record is written, and ends like that; return it."""
    program = f"""
import os, pathlib, signal, sys, threading, time, metricslib as metrics
from metricslib.group.shipper import SlotFiles
before = {before}
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
counter.inc(42)
def written():
    for slot in pathlib.Path(sys.argv[2]).rglob("2000000000"):
        files = SlotFiles(slot)
        return files.read() and files.combined().aggregates.counters.get("a", 0) >= before + 42
deadline = time.monotonic() + {PATIENCE}
while not written() and time.monotonic() < deadline:
    time.sleep(0.01)
{ending}
"""
    command = [sys.executable, "-c", program, url, str(directory)]
    environment = {**os.environ, "METRICSLIB_GROUP_DIR": str(directory)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", -signal.SIGHUP),
    ],
)
def test_an_end_in_order_sends_everything(peer, tmp_path, ending, code):
    done = ends(
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); metrics.stop()\nmetrics.start(sys.argv[1],"
        " interval=1_000_000_000)\ncounter.inc(7)\n" + ending,
        peer.url,
        tmp_path,
    )
    assert done.returncode == code
    assert peer.at("stats.counters.a.count") == [49]


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.execv(sys.executable, [sys.executable, '-c', 'pass'])"])
def test_what_was_written_before_an_abrupt_end_is_sent_by_the_next_process(peer, tmp_path, ending):
    """The last second, which is not written yet, is lost."""
    assert ends("counter.inc(7); " + ending, peer.url, tmp_path).returncode == 0
    assert peer.at("stats.counters.a.count") == []
    assert ends("counter.inc(1)", peer.url, tmp_path, before=42).returncode == 0
    assert peer.at("stats.counters.a.count") in ([85], [92])  # with the 7, if its second ended just then


def test_daemon_threads_may_measure_until_the_end(peer, tmp_path):
    """What they counted before the interpreter began to end arrives, and nothing is said."""
    done = ends(
        """
def work():
    while True:
        counter.inc()
        counted.append(1)
counted = []
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
print(len(counted))
""",
        peer.url,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (arrived,) = peer.at("stats.counters.a.count")
    assert arrived >= 42 + int(done.stdout)


HOOKLESS = """
import os, sys
os.register_at_fork = lambda **_: None  # so that this library is told of no fork
import metricslib as metrics
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
counter.inc(1000)
pid = os.fork()
if pid == 0:
    metrics.flush(0.1)
    counter.inc(7)
    assert metrics.stop(20)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_child_of_a_fork_without_hooks_is_a_member_of_its_own(peer):
    done = subprocess.run(
        [sys.executable, "-c", HOOKLESS, peer.url], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.at("stats.counters.a.count") == [1007]


# As uWSGI does it: the module is there, forks call no hooks of Python, and a worker calls the hook in the module.
UWSGI = """
import logging, os, signal, sys, threading, types
logging.basicConfig()
os.register_at_fork = lambda **_: None
master = os.getpid()
uwsgi = sys.modules["uwsgi"] = types.ModuleType("uwsgi")
worker = 0
uwsgi.worker_id = lambda: worker
uwsgi.mule_id = uwsgi.i_am_the_spooler = lambda: 0
theirs = []
uwsgi.post_fork_hook = lambda: theirs.append(os.getpid())

import metricslib as metrics
def fork():
    global worker
    pid = os.fork()
    if pid == 0:
        worker = 1
        uwsgi.post_fork_hook()
        assert theirs == [os.getpid()]
    return pid
"""


def in_uwsgi(program: str, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", UWSGI + program, url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_in_uwsgi_the_master_has_no_thread_and_each_worker_is_a_member(peer):
    """A thread that has the interpreter lock while uWSGI forks would leave the worker waiting for it for ever."""
    done = in_uwsgi(
        """
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
counter.inc(1000)
assert threading.active_count() == 1
children = []
for _ in range(2):
    pid = fork()
    if pid == 0:
        counter.inc(7)
        assert threading.active_count() > 1
        assert metrics.stop(20)
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
assert threading.active_count() == 1
""",
        peer.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.at("stats.counters.a.count") == [14]


def test_in_uwsgi_without_a_master_the_first_worker_is_the_process_itself(peer):
    done = in_uwsgi(
        """
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
worker = 1
uwsgi.post_fork_hook()
counter.inc(7)
assert threading.active_count() > 1
""",
        peer.url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.at("stats.counters.a.count") == [7]


def test_in_uwsgi_signals_are_left_alone_and_a_lack_of_threads_is_said(peer):
    """uWSGI without --enable-threads never lets another thread have the interpreter lock between requests."""
    done = in_uwsgi(
        """
uwsgi.has_threads = 0
worker = 1
metrics.start(sys.argv[1], interval=1_000_000_000)
metrics.start(sys.argv[1], interval=1_000_000_000)
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
""",
        peer.url,
    )
    assert done.returncode == 0
    assert done.stderr.count("start uWSGI with --enable-threads") == 1
