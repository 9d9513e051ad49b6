"""gunicorn with its hooks, as it runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.peers import ROOT, eventually, free_port

APPLICATION = """
import os, signal, time
import metricslib as metrics

metrics.start(f"file://{os.environ['OUT']}", interval=1)

def application(environ, start_response):
    metrics.counter("asked").inc()
    if environ["PATH_INFO"] == "/hang":
        time.sleep(60)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
NAMES = ("gunicorn.worker.aborts", "asked")
CONFIGURATION = """
from metricslib.integrations import gunicorn

def post_worker_init(worker):
    print("their own hook")

gunicorn.instrument(globals())
"""


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.slow
def test_workers_and_aborts(tmp_path: Path, need: Callable[..., None]):
    """Four workers are four; one that hangs is aborted, counted, and replaced."""
    need("gunicorn")
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    port, out = free_port(), tmp_path / "out.jsonl"
    command = [str(Path(sys.executable).parent / "gunicorn"), f"--bind=127.0.0.1:{port}", "--workers=4", "--timeout=2"]
    environment = {**os.environ, "OUT": str(out), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--no-control-socket", "shop:application"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: any(line["gauges"].get("gunicorn.workers") == 4 for line in lines(out)))
        with suppress(requests.ConnectionError):  # gunicorn closes the connection, or answers with an error
            assert requests.get(f"http://127.0.0.1:{port}/hang", timeout=60).status_code == 500

        def counted() -> tuple[float, float]:
            latest = {line["end"]: line["counters"] for line in lines(out)}  # a slot may be written again, with more
            found = [
                [values.get(name, 0) for values in latest.values()] for name in ("gunicorn.worker.aborts", "asked")
            ]
            return sum(found[0]), sum(found[1])

        eventually(lambda: counted() == (1, 1), or_else="the abort is counted")
        assert (tmp_path / "log").read_text().count("their own hook") >= 4
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
