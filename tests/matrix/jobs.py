"""Programs that count in processes of their own: ``python -m tests.matrix.jobs KIND METHOD CALLS``."""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import metricslib as metrics

metrics.start()
requests = metrics.counter("requests")
took = metrics.timer("took")


def work(_: object = None) -> int:
    """Count a call, and return the process that did."""
    with took.time():
        requests.inc()
        return os.getpid()


def many(calls: int) -> None:
    """Count so many calls."""
    for _ in range(calls):
        work()


def main(kind: str, method: str, calls: int) -> None:
    """Count so many calls, in child processes that begin by ``method``."""
    if kind == "alone":
        many(calls)
        return
    if kind == "wait":  # for a signal, after making the file ``method``
        many(calls)
        Path(method).touch()
        signal.pause()
    context: Any = multiprocessing.get_context(method)
    if kind == "processes":
        children = [context.Process(target=many, args=(calls // 4,)) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    elif kind == "executor":
        with ProcessPoolExecutor(2, context) as executor:
            list(executor.map(work, range(calls)))
    elif kind == "pool":  # the end of the block terminates the workers
        with context.Pool(2) as pool:
            pool.map(work, range(calls), chunksize=5)
    else:
        pool = context.Pool(2, maxtasksperchild=10)
        pool.map(work, range(calls), chunksize=5)
        if kind == "pool.terminate":
            pool.terminate()
        else:
            pool.close()
        pool.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
