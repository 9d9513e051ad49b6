"""Programs in pools, in cron jobs that overlap, and under another user: what each process measured arrives."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from tests.peers import GraphitePeer

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


HOOKLESS = """
import logging, os, random, sys, threading, types
os.register_at_fork = lambda **_: None  # so that this library is told of no fork, as in uWSGI
told = []
if len(sys.argv) > 2:
    sys.modules["uwsgi"] = types.ModuleType("uwsgi")
    sys.modules["uwsgidecorators"] = decorators = types.ModuleType("uwsgidecorators")
    decorators.postfork = told.append
import metricslib as metrics
metrics.start(sys.argv[1], interval=1_000_000_000)
counter = metrics.counter("a")
counter.inc(1000)
pid = os.fork()
if pid == 0:
    if told:
        told[0]()
    else:
        metrics.flush(0.1)
    counter.inc(7)
    assert metrics.stop(20)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize("told", [[], ["uwsgi"]], ids=["noticed at a flush", "told by uWSGI"])
def test_a_child_of_a_fork_without_hooks_is_a_member_of_its_own(peer, told):
    done = subprocess.run(
        [sys.executable, "-c", HOOKLESS, peer.url, *told], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.at("stats.counters.a.count") == [1007]
