"""A program that counts until its standard input ends, ships that, and says how much it was:

``python -m tests.end_to_end.counting NAME INTERVAL URL [OPTION=VALUE …]``
"""

import json
import sys
import threading
import time
from typing import Any

import metricslib as metrics

THREADS = 2


def main(name: str, interval: str, url: str, *options: str) -> None:
    hits, took, users = metrics.counter("hits"), metrics.timer("took"), metrics.unique("users")
    more: dict[str, Any] = dict(option.split("=", 1) for option in options)
    metrics.start(url, interval=int(interval), prefix=name, **more)
    ended = threading.Event()
    turns: list[int] = []

    def work() -> None:
        done = 0
        while not ended.is_set():
            for _ in range(10):
                hits.inc()
            took.observe(done % 50 / 1000)
            users.add(done % 5)
            done += 1
            time.sleep(0.001)
        turns.append(done)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    delivered = metrics.stop(60)
    print(json.dumps({"hits": 10 * sum(turns), "took": sum(turns), "delivered": delivered}))


if __name__ == "__main__":
    main(*sys.argv[1:])
