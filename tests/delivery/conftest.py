"""Peers on loopback that do what a script says, for the tests of delivery."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Script = Callable[[socket.socket], object]


class ScriptedPeer:
    """Listens on a free port or a Unix path and runs ``script`` on each connection, one after the other."""

    def __init__(self, script: Script, path: Path | None = None, *, receive_buffer: int = 0) -> None:
        self._script = script
        if path is None:
            self._server = socket.create_server(("127.0.0.1", 0))
            if receive_buffer:
                self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        else:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(str(path))
            self._server.listen()
        self.port: int = 0 if path else self._server.getsockname()[1]
        self.received: list[bytes] = []
        """What each connection was seen to send, as far as the script returned it."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                got = self._script(connection)
                self.received.append(got if isinstance(got, bytes) else b"")

    def close(self) -> None:
        """Listen no more, and wait for the connections under way."""
        if self._server.fileno() >= 0:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        self._thread.join(10)


@pytest.fixture
def peer(over: threading.Event) -> Iterator[Callable[..., ScriptedPeer]]:
    """Call with a script, and the path of a Unix socket, for a peer that ends with the test."""
    peers: list[ScriptedPeer] = []

    def start(script: Script, path: Path | None = None, **how: int) -> ScriptedPeer:
        peers.append(ScriptedPeer(script, path, **how))
        return peers[-1]

    yield start
    over.set()
    for one in peers:
        one.close()


@pytest.fixture
def over() -> threading.Event:
    """Set at the end of the test: a peer that hangs waits for it."""
    return threading.Event()
