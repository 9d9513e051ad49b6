"""Programs that end by themselves, in pools and in cron jobs that overlap: what each process measured arrives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
