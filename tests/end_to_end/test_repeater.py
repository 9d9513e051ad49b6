"""The forwarder repeats to the real statsd: both have counted the same, whichever way the packets came and went."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import Forwarder, eventually
from tests.sockets import send

from .real_statsd import RealStatsd


@pytest.fixture
def start_statsd(tmp_path: Path, need: Callable[..., None]) -> Iterator[Callable[..., RealStatsd]]:
    started: list[RealStatsd] = []

    def start(**options: Any) -> RealStatsd:
        started.append(RealStatsd(tmp_path, need, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


def listening(forwarder: Callable[..., Forwarder], folder: Path, *flags: str) -> tuple[Forwarder, dict[str, str]]:
    listeners = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", f"unix://{folder}/s", f"unixgram://{folder}/d"]
    process = forwarder(*(flag for listener in listeners for flag in ("--listen", listener)), *flags)
    return process, process.ready()


def repeated(process: Forwarder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = process.page()["sections"]["Repeater"]
    return rows


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_statsd_counts_what_we_count(
    start_statsd: Callable[..., RealStatsd], forwarder: Callable[..., Forwarder], tmp_path: Path, scheme: str
):
    """All kinds of lines, from all kinds of listeners; bad ones too, for they are passed on as they are."""
    statsd = start_statsd()
    process, ready = listening(forwarder, tmp_path, "--repeat", f"{scheme}://127.0.0.1:{getattr(statsd, scheme)}")
    assert ready.keys() >= {"udp", "tcp", "unix", "unixgram"}
    for power, address in enumerate(ready[name] for name in ("udp", "tcp", "unix", "unixgram")):
        end = "\n" if address.startswith(("tcp", "unix:")) else ""
        send(address, f"a:{10**power}|c\nb:1|c|@0.5\nt:{power}|ms\ng:+{power}|g\nbroken|{end}", times=50)
    eventually(lambda: repeated(process)[0]["Lines sent"] == 4 * 50 * 5, or_else="all lines sent")
    eventually(lambda: statsd.values("counters")["statsd.metrics_received"] == 4 * 50 * 5)
    counters = statsd.values("counters")
    assert (counters["a"], counters["b"], counters["statsd.bad_lines_seen"]) == (50 * 1111, 400, 200)
    assert len(statsd.values("timers")["t"]) == 4 * 50
    assert statsd.values("gauges")["g"] == 50 * (0 + 1 + 2 + 3)
    assert repeated(process)[0]["Lines dropped"] == {}


def test_a_statsd_that_is_killed_and_comes_back_gets_nothing_twice(
    start_statsd: Callable[..., RealStatsd], forwarder: Callable[..., Forwarder], tmp_path: Path
):
    """What both statsds counted, and what we say was lost, is what was sent; the aggregator never waited for it."""
    first = start_statsd()
    port = first.tcp
    process, ready = listening(forwarder, tmp_path, "--repeat", f"tcp://127.0.0.1:{port}")
    total = 0

    def burst() -> None:
        nonlocal total
        send(ready["unixgram"], "a:1|c\nb:1|c", times=500)
        total += 500

    burst()
    eventually(lambda: first.values("counters").get("a") == total)
    counted = total
    first.close()
    for _ in range(5):
        burst()
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] == 2 * total, or_else="our own account")
    eventually(lambda: repeated(process)[0]["State"] == "down")
    second = start_statsd(port=port)
    eventually(lambda: repeated(process)[0]["Lines waiting"] == 0, 60)
    burst()
    eventually(lambda: repeated(process)[0]["Lines waiting"] == 0)
    (row,) = repeated(process)
    dropped = sum(row["Lines dropped"].values())
    assert set(row["Lines dropped"]) <= {"unconfirmed"}
    assert row["Lines sent"] + dropped == 2 * total
    eventually(lambda: second.values("counters").get("a", 0) == total - counted - dropped // 2)


def test_a_server_that_hangs_does_not_slow_the_intake(forwarder: Callable[..., Forwarder], tmp_path: Path):
    """With a target that takes connections and never reads, everything still arrives here, and is counted there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process, ready = listening(forwarder, tmp_path, "--repeat", f"tcp://127.0.0.1:{port}", "--stop-timeout", "1")
        send(ready["tcp"], "a:1|c\n" * 20_000, times=10)
        eventually(lambda: process.page()["sections"]["Pieces"]["Aggregated"] == 200_000)
        (row,) = repeated(process)
        assert row["Lines sent"] == 0
        assert row["Lines waiting"] + sum(row["Lines dropped"].values()) == 200_000
