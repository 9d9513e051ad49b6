"""The forwarder as a service manager runs it: told by a real socket, with real sockets handed in, in a process."""

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import FOREVER, Forwarder, eventually
from tests.sockets import datagram_server, send


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with datagram_server(tmp_path / "notify") as sock:
        yield sock


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def counters(file: Path) -> dict[str, Any]:
    counted: dict[str, Any] = json.loads(file.read_text().splitlines()[-1])["counters"]
    return counted


def test_the_manager_is_told(forwarder: Callable[..., Forwarder], manager: socket.socket, tmp_path: Path):
    """Ready once every socket is bound, alive all the time, reloading and ready again, stopping; then the end."""
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    process = forwarder("--listen", "udp://127.0.0.1:0", "--interval", str(FOREVER), environ=environ)
    addresses = process.ready()
    assert heard(manager) == ["READY=1", f"STATUS={addresses['udp']} {addresses['http']}"]
    assert heard(manager) == heard(manager) == ["WATCHDOG=1"]
    process.process.send_signal(signal.SIGHUP)
    told: list[str] = []
    while "READY=1" not in told:
        told += [line for line in heard(manager) if line != "WATCHDOG=1"]
    assert told[0] == "RELOADING=1"
    assert process.end(signal.SIGTERM) == 0
    while (last := heard(manager)) == ["WATCHDOG=1"]:
        pass
    assert last[0] == "STOPPING=1"
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


def test_sockets_handed_in_are_read(forwarder: Callable[..., Forwarder], tmp_path: Path):
    """Each in the place of the listener with its address, and no other one is bound; Unix sockets' files stay."""
    kinds: list[tuple[int, int, Any, str]] = [
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), "udp"),
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), "tcp"),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "s"), "unix"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, str(tmp_path / "d"), "unixgram"),
    ]
    given, flags = [], []
    for family, kind, address, scheme in kinds:
        sock = socket.socket(family, kind)
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        name = sock.getsockname()
        given.append(sock)
        flags += ["--listen", f"{scheme}://{name if isinstance(name, str) else f'{name[0]}:{name[1]}'}"]
    file = tmp_path / "out.jsonl"
    process = forwarder(*flags, "--to", f"file://{file}", "--interval", str(FOREVER), given=given)
    for power, address in enumerate(list(process.ready().values())[:4]):
        assert address in flags
        send(address, f"a:{10**power}|c\n")
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] == 4)
    assert process.end(signal.SIGTERM) == 0
    assert counters(file)["a"] == 1111
    assert (tmp_path / "s").is_socket()
    assert (tmp_path / "d").is_socket()
    for sock in given:
        sock.close()


@pytest.mark.parametrize("scheme", ["udp", "unixgram"])
def test_nothing_is_lost_over_a_restart(forwarder: Callable[..., Forwarder], tmp_path: Path, scheme: str):
    """What is sent while no forwarder runs waits in the socket that the manager keeps; the next one counts it."""
    unix = scheme == "unixgram"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.bind(str(tmp_path / "d") if unix else ("127.0.0.1", 0))
        name = given.getsockname()
        address = f"{scheme}://{name}" if unix else f"{scheme}://{name[0]}:{name[1]}"
        for turn in range(3):
            send(address, "a:1|c", times=5)  # what comes between two, or before the first
            file = tmp_path / f"{turn}.jsonl"
            process = forwarder(
                "--listen", address, "--to", f"file://{file}", "--interval", str(FOREVER), environ={}, given=[given]
            )
            process.ready()
            send(address, "a:10|c", times=5)
            assert process.end(signal.SIGTERM) == 0
            assert counters(file)["a"] == 55


def test_a_socket_that_no_listener_has_is_refused(forwarder: Callable[..., Forwarder], tmp_path: Path):
    """What is sent to it would be lost in silence; the error says which listener is missing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.bind(("127.0.0.1", 0))
        process = forwarder("--listen", f"unix://{tmp_path}/s", given=[given])
        assert process.end() == 1
        assert (
            f"socket activation: udp://127.0.0.1:{given.getsockname()[1]} was passed by the service manager, but no"
            in process.log
        )
        assert not (tmp_path / "s").exists()


def test_the_small_buffer_of_a_socket_handed_in_is_its_units_matter(forwarder: Callable[..., Forwarder]):
    """The warning names the option of the socket's unit, not a sysctl: a socket handed in keeps its buffer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        given.bind(("127.0.0.1", 0))
        process = forwarder("--listen", f"udp://127.0.0.1:{given.getsockname()[1]}", given=[given])
        process.ready()
        assert process.end(signal.SIGTERM) == 0
        assert given.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 8192
    assert "limits the receive buffer to 8192 bytes" in process.log
    assert f"ReceiveBuffer={64 << 20} in the socket's unit" in process.log
