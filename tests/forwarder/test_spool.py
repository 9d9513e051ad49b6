"""With ``--spool DIR`` the forwarder's batches outlive it, and the page says where they wait."""

import re
import signal
from pathlib import Path

import pytest

from forwarder.cli import main
from forwarder.config import Config
from forwarder.daemon import Daemon
from metricslib.testing import ManualClock
from tests.peers import Forwarder, GraphitePeer, eventually, free_port
from tests.sockets import send


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_came_in_an_outage_arrives_after_a_restart(tmp_path: Path, end: signal.Signals):
    """However the forwarder ended: each interval that had ended is in its slot, once."""
    port = free_port()
    flags = [
        *("--listen", "tcp://127.0.0.1:0", "--interval", "1", "--spool", str(tmp_path / "spool")),
        *("--to", f"graphite://127.0.0.1:{port}?timeout=1s"),
    ]
    forwarder = Forwarder(*flags, environ={"FORWARDER_STOP_TIMEOUT": "1"})
    send(forwarder.ready()["tcp"], "web.hits:5|c\n", times=20)
    eventually(lambda: any(row["total"]["count"] == 100 for row in hits(forwarder)))  # over all intervals
    forwarder.ticks(2)
    (status,) = forwarder.page()["destinations"]
    assert (status["up"], status["on_disk"], status["spool_trouble"], status["dropped"]) == (False, True, None, {})
    assert status["lag"] > 0
    code = forwarder.end(end)
    assert code == (0 if end is signal.SIGTERM else -9)
    told = rf"[0-9]+ points for graphite://127.0.0.1:{port} are kept in {re.escape(flags[5])} for the next start"
    assert bool(re.search(told, forwarder.log)) == (end is signal.SIGTERM)
    peer = GraphitePeer(port)
    second = Forwarder(*flags)
    second.ready()
    eventually(lambda: sum(peer.at("stats.counters.web.hits.count")) == 100)
    assert second.end(signal.SIGTERM) == 0
    assert sum(peer.at("stats.counters.web.hits.count")) == 100
    assert "next start" not in second.log
    peer.close()


def hits(forwarder: Forwarder) -> list[dict[str, dict[str, float]]]:
    return [row for row in forwarder.page()["series"] if row["key"] == "web.hits" and row["last"]]


def test_check_config_looks_at_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It leaves nothing behind."""
    wanted, there = tmp_path / "new" / "spool", tmp_path / "there"
    there.mkdir()
    for directory in (wanted, there):
        assert main(["--spool", str(directory), "--check-config"]) == 0
        assert f'spool = "{directory}"' in capsys.readouterr().out
    assert list(tmp_path.rglob("*")) == [there]


@pytest.mark.parametrize("directory", ["/proc/metricslib", "{tmp}/file", "{tmp}/file/spool", "{tmp}/new/" + "x" * 256])
def test_check_config_says_of_the_directory_what_a_start_would_say(
    directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """Whether a directory can be made there is known only when that was tried."""
    (tmp_path / "file").write_text("")
    directory = directory.format(tmp=tmp_path)
    daemon = Daemon(Config(listen=(), http="off", console="off", spool=directory))
    daemon.start()
    daemon.stop(0)
    (reason,) = re.findall(rf"spool {directory}: (.+); undelivered data is kept in memory until", caplog.text)
    before = set(tmp_path.rglob("*"))
    assert main(["--spool", directory, "--check-config"]) == 2
    assert capsys.readouterr().err == f"forwarder: spool = '{directory}': {reason}\n"
    assert set(tmp_path.rglob("*")) == before


def test_a_directory_that_cannot_be_written_is_no_reason_not_to_start(tmp_path: Path):
    """Metrics in memory are better than none; the log and the page say so."""
    (tmp_path / "file").write_text("")
    forwarder = Forwarder(
        *("--listen", "udp://127.0.0.1:0", "--to", f"file://{tmp_path}/out.jsonl", "--spool", str(tmp_path / "file"))
    )
    (status,) = forwarder.page()["destinations"]
    assert (status["on_disk"], status["spool_trouble"]) == (False, "File exists")
    assert forwarder.end(signal.SIGTERM) == 0
    assert forwarder.log.count("undelivered data is kept in memory") == 1


def test_another_directory_needs_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: ManualClock):
    """What waits is in the old one; a reload says so, and goes on with it."""
    config = Config(listen=(), http="off", console="off", spool=str(tmp_path / "one"))
    daemon = Daemon(config, clock=clock)
    daemon.start()
    daemon.change(Config(listen=(), http="off", console="off", spool=str(tmp_path / "two")))
    assert "changed only by a restart: spool" in caplog.text
    assert daemon.config.spool == str(tmp_path / "one")
    daemon.stop()
    assert not (tmp_path / "two").exists()
