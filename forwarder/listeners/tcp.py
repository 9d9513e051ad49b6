"""Listeners for lines over TCP, IPv4 or IPv6: of statsd or of Graphite, depending on the sink."""

import socket
import struct
from typing import Any

from metricslib.clock import SYSTEM_CLOCK, Clock

from .base import Sink
from .framing import Lines
from .stream import CONNECTIONS, Connection, StreamListener

__all__ = ["TcpListener", "new_socket", "resolve", "url"]

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A peer that has disappeared is detected after two minutes: after 60 idle seconds and four unanswered probes."""


def resolve(host: str, port: int, kind: socket.SocketKind) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the address to bind for ``host``, a name or an address. Raises OSError if there is none."""
    family, _, _, _, address = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)[0]
    return family, address


def new_socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """Return a socket to bind. If bound to ``[::]``, it also receives IPv4, whatever the system's default is."""
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def url(scheme: str, sock: socket.socket) -> str:
    """Return the address to which ``sock`` is bound."""
    host, port, *_ = sock.getsockname()
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class TcpListener(StreamListener):
    """Listens for streams on ``host`` and ``port``; port 0 is a free one. ``scheme`` only appears in the URL."""

    def __init__(
        self,
        host: str,
        port: int,
        sink: Sink,
        *,
        scheme: str = "tcp",
        connections: int = CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(sink, connections=connections, clock=clock)
        self._host = host
        self._port = port
        self._scheme = scheme

    def _open(self) -> socket.socket:
        family, address = resolve(self._host, self._port, socket.SOCK_STREAM)
        sock = new_socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _keep_alive(sock)  # accepted sockets inherit the options
            sock.bind(address)
            sock.listen(1024)
        except BaseException:
            sock.close()
            raise
        return sock

    def _url(self, sock: socket.socket) -> str:
        return url(self._scheme, sock)

    def _prepare(self, accepted: socket.socket) -> None:
        if self._shared:
            _keep_alive(accepted)

    def _new_connection(self, accepted: socket.socket) -> Connection:
        # A web page can make a browser connect to any address that its machine can reach.
        return Connection(accepted, Lines(), checked=True)

    def _abort_on_close(self, connection: socket.socket) -> None:
        # With a linger time of 0, close() resets the connection.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
