"""The forwarder as a process: what it prints, what signals do to it, and that Graphite gets exactly what was sent."""

import json
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.peers import FOREVER, GraphitePeer, eventually
from tests.sockets import send

ENDLESS = ("--interval", str(FOREVER))


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def test_every_tick_ships_exactly_what_was_sent(forwarder, peer, tmp_path):
    """Over several real intervals, from three kinds of sockets; the sum over all slots is exact."""
    flags = ["--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--listen", f"unix://{tmp_path}/s"]
    process = forwarder(*flags, "--to", peer.url, "--interval", "1")
    ready = process.ready()
    assert ready.keys() == {"udp", "tcp", "unix", "http"}
    assert ready["unix"] == f"unix://{tmp_path}/s"
    for turn in range(3):
        slots = len(peer.at("stats.counters.statsd.pieces_received.count"))
        send(ready["udp"], f"a:1|c\ng:{turn}|g", times=100)
        send(ready["tcp"], "a:2|c\nt:5|ms\n", times=1000)
        send(ready["unix"], "a:3|c\n", times=1000)
        eventually(lambda before=slots: len(peer.at("stats.counters.statsd.pieces_received.count")) > before)
    assert process.end(signal.SIGTERM) == 0
    assert sum(peer.at("stats.counters.a.count")) == 3 * (100 + 2000 + 3000)
    assert sum(peer.at("stats.timers.t.sum")) == 3 * 5000
    assert peer.at("stats.gauges.g")[-1] == 2
    totals = {
        name: sum(peer.at(f"stats.counters.statsd.{name}.count"))
        for name in ("pieces_received", "pieces_aggregated", "bad_lines_seen", "packets_received", "metrics_received")
    }
    assert totals["pieces_received"] == totals["pieces_aggregated"] == totals["metrics_received"] == 3 * 3200
    assert totals["bad_lines_seen"] == 0
    assert totals["packets_received"] > 300


def test_a_stop_delivers_the_open_interval(forwarder, tmp_path):
    """SIGTERM and SIGINT drain, flush, deliver and end with 0; socket files are gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        file = tmp_path / f"{number}.jsonl"
        process = forwarder("--listen", f"unix://{tmp_path}/s", "--to", f"file://{file}", *ENDLESS)
        ready = process.ready()
        send(ready["unix"], "a:1|c\n", times=5000)
        assert process.end(number) == 0
        windows = [json.loads(line) for line in file.read_text().splitlines()]
        assert windows[-1]["counters"]["a"] == 5000
        assert not (tmp_path / "s").exists()
        assert f"{number.name}: stopping" in process.log


def test_a_reload_changes_the_prefix_and_loses_no_count(forwarder, peer, tmp_path):
    """SIGHUP reads the file again, in the middle of traffic; a slot is under one prefix or under the other."""
    file = tmp_path / "f.toml"
    file.write_text('prefix = "old"\n')
    flags = ["--config", str(file), "--listen", "tcp://127.0.0.1:0", "--to", peer.url]
    process = forwarder(*flags, "--interval", "1")
    ready = process.ready()
    send(ready["tcp"], "a:1|c\n", times=1000)
    eventually(lambda: sum(peer.at("stats.counters.old.a.count")) == 1000)
    send(ready["tcp"], "a:1|c\n", times=1000)
    file.write_text('prefix = "new"\n')
    process.process.send_signal(signal.SIGHUP)
    send(ready["tcp"], "a:1|c\n", times=1000)
    eventually(lambda: "configuration reloaded; changed: prefix" in process.log)
    send(ready["tcp"], "a:1|c\n", times=1000)
    assert process.end(signal.SIGTERM) == 0
    slots = [(path, stamp) for path, stamp in peer.values if path.endswith(".a.count")]
    assert len({stamp for _, stamp in slots}) == len(slots)
    assert sum(peer.values[slot] for slot in slots) == 4000
    assert sum(peer.at("stats.counters.new.a.count")) >= 1000


def test_a_reload_of_a_wrong_file_changes_nothing(forwarder, peer, tmp_path):
    """The log says what is wrong, and work goes on as before."""
    file = tmp_path / "f.toml"
    file.write_text('prefix = "old"\n')
    process = forwarder("--config", str(file), "--listen", "tcp://127.0.0.1:0", "--to", peer.url, *ENDLESS)
    ready = process.ready()
    wrongs = (
        ('prefix = "new"\nintervall = 5\n', "unknown key intervall; did you mean interval?"),
        ("prefix = ", "is not valid TOML"),
        ("x = " + "[" * 3000, "has more than 16 levels of nesting"),
        ("interval = " + "9" * 5000, "has a number of thousands of digits"),
        ("a" + ".a" * 50_000 + " = 1", "f.toml: has more than 16 levels of nesting\n"),
        ("#" * 300_000, "has more than 262144 bytes"),
        ("stop_timeout = 1e12", "stop_timeout: 1000000000000.0 is not a number of seconds from 0 to 86400, a day"),
        (None, "cannot be read: No such file or directory"),
    )
    for number, (wrong, told) in enumerate(wrongs, 1):
        file.unlink() if wrong is None else file.write_text(wrong)
        process.process.send_signal(signal.SIGHUP)
        eventually(lambda n=number: process.log.count("reload refused, everything stays as it was: ") == n)
        assert told in process.log
    send(ready["tcp"], "a:1|c\n")
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] == 1)
    assert process.end(signal.SIGTERM) == 0
    assert peer.at("stats.counters.old.a.count") == [1]


def test_the_log_level_is_reloaded(forwarder, tmp_path):
    """It needs no restart to see more, or less."""
    file = tmp_path / "f.toml"
    file.write_text('log_level = "warning"\n')
    process = forwarder("--config", str(file), "--listen", "udp://127.0.0.1:0")
    process.ready()
    file.write_text('log_level = "info"\n')
    process.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration reloaded; changed: log_level" in process.log)
    assert "only shown on the page" not in process.log


def test_a_second_signal_ends_at_once_with_1(forwarder):
    """Who does not want to wait for a destination that is away need not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"graphite://127.0.0.1:{silent.getsockname()[1]}?timeout=60"
        process = forwarder("--listen", "udp://127.0.0.1:0", "--to", to, *ENDLESS, "--stop-timeout", "3600")
        process.ready()
        process.process.send_signal(signal.SIGTERM)
        eventually(lambda: "SIGTERM: stopping" in process.log)
        assert process.end(signal.SIGTERM) == 1


def test_a_port_in_use_ends_with_1_and_one_line(forwarder):
    """One line on stderr, no traceback and no ready line."""
    ready = forwarder("--listen", "udp://127.0.0.1:0").ready()
    process = forwarder("--listen", ready["udp"])
    assert process.end() == 1
    assert process.log == f"forwarder: cannot listen on {ready['udp']}: Address already in use\n"


def test_a_wrong_flag_ends_with_2_and_one_line(forwarder):
    """As ``--check-config`` would have told."""
    process = forwarder("--interval", "x")
    assert process.end() == 2
    assert process.log == "forwarder: --interval: 'x' is not a whole number from 1 to 2^30\n"


def test_dead_series_leave(forwarder, peer, tmp_path):
    """After ``expire`` seconds without a value a series is sent no more; it comes back with the next value."""
    file = tmp_path / "f.toml"
    file.write_text("expire = 1\n")
    process = forwarder("--config", str(file), "--listen", "udp://127.0.0.1:0", "--to", peer.url, "--interval", "1")
    ready = process.ready()
    send(ready["udp"], "a:1|c")
    eventually(lambda: 0 in peer.at("stats.counters.a.count"))

    def slots(path):
        return len(peer.at(path))

    own = "stats.counters.statsd.pieces_received.count"
    eventually(lambda: slots(own) - slots("stats.counters.a.count") >= 2)
    before = slots("stats.counters.a.count")
    send(ready["udp"], "a:5|c")
    eventually(lambda: 5 in peer.at("stats.counters.a.count"))
    assert before <= 4
    assert process.end(signal.SIGTERM) == 0
