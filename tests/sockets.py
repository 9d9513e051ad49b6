"""Sockets for tests: connected to an address as a listener prints it, or bound where datagrams are to arrive."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 60.0
"""Seconds after which a test gives up: many times what anything takes on a machine that has nothing else to do."""


def connected(address: str) -> socket.socket:
    """Return a socket that is connected to a listener's address, such as ``udp://[::1]:8125`` or ``unix:///s``.

    A scheme with ``udp`` or ``unixgram`` in it takes datagrams, any other one a stream; ``unix`` means a path.
    """
    scheme, _, where = address.partition("://")
    datagrams, unix = scheme.endswith(("udp", "unixgram")), "unix" in scheme
    host, _, port = where.rpartition(":")
    family = socket.AF_UNIX if unix else socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(where if unix else (host.strip("[]"), int(port)))
    except OSError:
        sock.close()
        raise
    return sock


def send(address: str, text: str | bytes, times: int = 1) -> None:
    """Send ``text`` to a listener's address: so many datagrams, or so many times over one connection."""
    data = text.encode() if isinstance(text, str) else text
    with connected(address) as sock:
        for _ in range(times):
            sock.sendall(data)


def confirmed(sock: socket.socket) -> bool:
    """Half-close and read to the end: whether the peer says that it has read everything."""
    sock.shutdown(socket.SHUT_WR)
    return sock.recv(1) == b""


def answer(address: str, text: str) -> str:
    """Send ``text`` over a connection, and return all that comes back before the peer hangs up."""
    with connected(address) as sock:
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def listens(port: int) -> bool:
    """Whether a connection to the port of this host is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def datagram_server(path: Path | str | None = None, port: int = 0) -> Iterator[socket.socket]:
    """A socket that is bound to a path, or to a port on loopback (0: a free one), for datagrams to arrive."""
    with socket.socket(socket.AF_INET if path is None else socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port) if path is None else str(path))
        server.settimeout(PATIENCE)
        yield server
