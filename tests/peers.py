"""Peers for tests: a forwarder of one's own, a Graphite that can be read, and a wait with an end."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from tests.sockets import PATIENCE

__all__ = [
    "FOREVER",
    "Forwarder",
    "GraphitePeer",
    "Program",
    "eventually",
    "free_port",
    "open_files",
]

ROOT = Path(__file__).parent.parent
FOREVER = 1_000_000_000
"""An interval in seconds that does not end while a test runs, as one of an hour does now and then: this one in 2033."""
_RETURNED: set[int] = set()


def eventually(condition: Callable[[], object], seconds: float = PATIENCE, or_else: str = "a condition") -> None:
    """Wait until ``condition()`` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{or_else} never came true"
        time.sleep(0.005)


def open_files() -> set[tuple[str, str]]:
    """Return what this process has open, by descriptor: each socket and pipe has another name. Empty without /proc.

    More than its number says what is left over, for what earlier tests opened may still be closing.
    """
    found = set()
    with suppress(FileNotFoundError):
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # what the directory was listed with
                found.add((descriptor, os.readlink(f"/proc/self/fd/{descriptor}")))
    return found


def free_port(*kinds: socket.SocketKind) -> int:
    """Return a port that is free for sockets of these kinds (TCP when none is named), for a peer that must be told.

    It is below the ports that the system hands out by itself, in the share of this test process, and is returned only
    once: nobody else is given it before the peer takes it.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    share = range(10_000 + int(worker.removeprefix("gw")), 30_000, int(workers))
    while True:
        port = random.SystemRandom().choice(share)
        if port in _RETURNED:
            continue
        _RETURNED.add(port)
        with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
            for kind in kinds or (socket.SOCK_STREAM,):
                opened.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
            return port


class GraphitePeer:
    """Takes connections on a free port, reads each to its end, and keeps the last value of each path and stamp.

    Like carbon, it takes whole lines alone, also of a sender that is killed in the middle of one.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self.url = f"graphite://127.0.0.1:{self.port}"
        self.values: dict[tuple[str, int], float] = {}
        self.received = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                received = b""
                with suppress(ConnectionResetError):
                    while chunk := connection.recv(65536):
                        received += chunk
                received = received[: received.rfind(b"\n") + 1]
                for line in received.decode().splitlines():
                    path, value, stamp = line.split(" ")
                    self.values[path, int(stamp)] = float(value)
                self.received += received

    def at(self, path: str) -> list[float]:
        """Return the path's values, oldest stamp first."""
        return [value for (name, _), value in sorted(self.values.items(), key=lambda item: item[0][1]) if name == path]

    def close(self) -> None:
        if self._server.fileno() >= 0:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()


# What systemd does between fork and exec when it hands sockets over: they become the descriptors from 3 on.
_ACTIVATE = """
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for number, descriptor in enumerate(given, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ.update(LISTEN_FDS=str(len(given)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Forwarder:
    """A running forwarder, and what it has written on stderr so far. ``given`` are sockets handed in to it."""

    def __init__(
        self, *flags: str, environ: Mapping[str, str] | None = None, given: Sequence[socket.socket] = ()
    ) -> None:
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "forwarder",
            "--http",
            "127.0.0.1:0",
            "--console",
            "off",
            *flags,
        ]
        numbers = [sock.fileno() for sock in given]
        if given:
            command = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, numbers)), *command]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PATH": "", **(environ or {})},
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=numbers,
        )
        assert self.process.stderr is not None
        self._stderr = self.process.stderr
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.lines.extend(iter(self._stderr.readline, ""))

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def ready(self) -> dict[str, str]:
        """Wait for the ready line and return its addresses by scheme."""
        eventually(lambda: any(line.startswith("ready ") for line in self.lines) or self.process.poll() is not None)
        line = next((line for line in self.lines if line.startswith("ready ")), None)
        assert line, self.log
        return {address.partition(":")[0]: address for address in line.split()[1:]}

    def page(self) -> dict[str, Any]:
        """What its page says, once it is ready."""
        answer = requests.get(self.ready()["http"] + "/?format=json", timeout=PATIENCE)
        page: dict[str, Any] = answer.json()
        return page

    def ticks(self, times: int = 1) -> None:
        """Wait until so many more of its intervals have ended."""
        end = self.page()["flusher"]["ticks"] + times
        eventually(lambda: self.page()["flusher"]["ticks"] >= end, PATIENCE + 10 * times)

    def end(self, *signals: signal.Signals) -> int:
        """Send signals, and return the exit code."""
        for number in signals:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join()
        self._stderr.close()
        assert "Traceback" not in self.log, self.log
        assert "Exception ignored" not in self.log, self.log
        return code


class Program:
    """A program that counts until it is told to end: :mod:`tests.end_to_end.counting`."""

    def __init__(self, name: str, url: str, *options: str, interval: int = 1) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.end_to_end.counting", name, str(interval), url, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._told = False

    def tell_to_end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.stdin = None

    def counted(self) -> Counter[str]:
        """End it, and return how much it counted; all of that must have been delivered."""
        stdout, stderr = self._process.communicate(timeout=100)
        assert self._process.returncode == 0, stderr
        said = json.loads(stdout)
        assert said["delivered"], stderr
        assert "Traceback" not in stderr, stderr
        return Counter({f"{self.name}.hits": said["hits"], f"{self.name}.took": said["took"]})

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
