"""Peers for tests: a Graphite that can be read, stopped and made to misbehave, and a wait with an end."""

import socket
import threading
import time
from collections.abc import Callable

__all__ = ["GraphitePeer", "eventually"]


def eventually(condition: Callable[[], object], seconds: float = 20.0, or_else: str = "a condition") -> None:
    """Wait until ``condition()`` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{or_else} never came true"
        time.sleep(0.005)


class GraphitePeer:
    """Takes connections on a free port, reads each to its end, and keeps the last value of each path and stamp."""

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
                while chunk := connection.recv(65536):
                    received += chunk
                for line in received.decode().splitlines():
                    path, value, stamp = line.split(" ")
                    self.values[path, int(stamp)] = float(value)
                self.received += received

    def at(self, path: str) -> list[float]:
        """Return the path's values, oldest stamp first."""
        return [value for (name, _), value in sorted(self.values.items(), key=lambda item: item[0][1]) if name == path]

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
