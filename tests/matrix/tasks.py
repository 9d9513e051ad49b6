"""A Celery application whose broker is a directory, ``BROKER``; it counts the tasks, and is also their client."""

import os
import sys

from celery import Celery

import metricslib as metrics

BROKER = os.environ["BROKER"]

app = Celery("tasks", broker="filesystem://", backend=f"file://{BROKER}/results")
app.conf.broker_transport_options = {"data_folder_in": f"{BROKER}/queue", "data_folder_out": f"{BROKER}/queue"}
app.conf.broker_transport_options["control_folder"] = f"{BROKER}/control"
for folder in ("results", "queue", "control"):
    os.makedirs(f"{BROKER}/{folder}", exist_ok=True)

if __name__ != "__main__":
    metrics.start()

requests = metrics.counter("requests")
took = metrics.timer("took")


@app.task
def work() -> str:
    """Count, and name the process that did."""
    with took.time():
        requests.inc()
        return str(os.getpid())


if __name__ == "__main__":
    os.environ["METRICSLIB_DISABLED"] = "1"
    results = [app.send_task("tests.matrix.tasks.work") for _ in range(int(sys.argv[1]))]
    print(*{result.get(timeout=60) for result in results})
