"""``metricslib run``: what a command used and how it ended is sent, and its status and its signals are passed on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import ROOT, GraphitePeer, eventually

RUN = [sys.executable, "-W", "error", "-m", "metricslib", "run"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "METRICSLIB_TO": f"file:{tmp_path}/out.jsonl",
        "METRICSLIB_PREFIX": "cron",
        "METRICSLIB_GROUP_DIR": str(tmp_path / "groups"),
    }


def sent(tmp_path: Path) -> dict[str, dict[str, float]]:
    """Return the last window."""
    window: dict[str, dict[str, float]] = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])
    return window


def test_what_a_command_used_is_sent(tmp_path, environment):
    command = [
        *RUN,
        "--name",
        "job",
        "--tag",
        "host=a",
        "--",
        sys.executable,
        "-c",
        "print('here'); x = bytearray(50_000_000)",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")
    window = sent(tmp_path)
    assert window["counters"] == {"cron.job.runs;host=a": 1, "cron.job.failures;host=a": 0}
    assert window["gauges"]["cron.job.status;host=a"] == 0
    assert 50_000_000 < window["gauges"]["cron.job.max_rss_bytes;host=a"] < 1_000_000_000
    wall, cpu = (window["timers"][f"cron.job.{name};host=a"] for name in ("wall", "cpu"))
    assert wall["count"] == cpu["count"] == 1
    assert cpu["sum"] > 0
    assert 0 < wall["sum"] < 60_000


def test_an_exit_status_is_passed_on(tmp_path, environment):
    for expected in (3, 0):
        command = [*RUN, "--name", "job", "--", "sh", "-c", f"exit {expected}"]
        assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == expected
    window = sent(tmp_path)  # both in one interval, or one in each
    assert window["gauges"]["cron.job.status"] == 0
    assert window["counters"]["cron.job.runs"] - window["counters"]["cron.job.failures"] == 1


def test_a_command_that_a_signal_ended_ends_this_so_too(tmp_path, environment):
    done = subprocess.run([*RUN, "sh", "-c", "kill -9 $$"], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -9
    assert sent(tmp_path)["gauges"]["cron.sh.status"] == -9


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_passed_on(tmp_path, environment, name):
    """The command decides; what it says in the end is passed on."""
    code = f"trap 'exit 7' {name.removeprefix('SIG')}; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    command = [*RUN, "sh", "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, preexec_fn=_default) as process:
        eventually((tmp_path / "ready").exists)
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == 7
    assert sent(tmp_path)["gauges"]["cron.sh.status"] == 7


def _default() -> None:
    for number in (signal.SIGHUP, signal.SIGINT):  # as a shell without job control or nohup has them
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("command", "status", "told"), [("/no/such/command", 127, "No such file"), ("/", 126, "ermission")]
)
def test_a_command_that_cannot_be_started_says_so_as_a_shell_does(tmp_path, environment, command, status, told):
    done = subprocess.run(
        [*RUN, "--name", "job", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert told in done.stderr
    assert sent(tmp_path)["counters"]["cron.job.failures"] == 1


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("grafite://x", "metricslib: nothing is sent: "),
        ("graphite://127.0.0.1:1", "not everything was delivered in time"),
    ],
)
def test_a_command_runs_whatever_is_wrong_with_the_metrics(environment, to, told):
    command = [*RUN, "--to", to, "sh", "-c", "echo here; exit 5"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "here\n")
    assert told in done.stderr


def test_numbers_are_delivered_before_it_ends(environment):
    peer = GraphitePeer()
    try:
        subprocess.run([*RUN, "--to", peer.url, "--name", "job", "true"], cwd=ROOT, env=environment, check=True)
        values = {path: value for (path, _), value in peer.values.items()}
        assert values["stats.counters.cron.job.runs.count"] == 1
    finally:
        peer.close()


def test_a_tag_must_have_a_key_and_a_value(environment):
    command = [*RUN, "--tag", "novalue", "true"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "KEY=VALUE" in done.stderr


def test_without_a_command_that_is_said(environment):
    done = subprocess.run([*RUN, "--"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no command" in done.stderr
