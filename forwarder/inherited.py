"""Sockets that were bound before we were started, and handed to us: systemd's socket activation.

In: the environment (``LISTEN_FDS``, ``LISTEN_PID``, ``LISTEN_FDNAMES``) and the descriptors from 3 on. Out: sockets,
each for the listener that has the same type and address. Who handed them in keeps them, so that over a restart nothing
that is sent gets lost: it waits in the kernel.
"""

import socket
from collections.abc import Iterable, MutableMapping

from metricslib.errors import MetricsError

from .addresses import Address

__all__ = ["Inherited", "InvalidSocket"]

FIRST = 3
"""The first descriptor that is handed in; those before it are the standard streams."""

_DATAGRAMS = ("udp", "unixgram")


class InvalidSocket(MetricsError, ValueError):
    """What was handed in can be no listener's; ``what`` names it."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"socket activation: {what} {reason}")
        self.what = what


class Inherited:
    """The sockets that were handed in and not taken yet. Without any, everything is bound as usual."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self._sockets = list(sockets)

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str], pid: int) -> "Inherited":
        """Take what was handed to process ``pid``, and the variables out of ``environ``: they are for no child of ours.

        Raises :class:`InvalidSocket`.
        """
        count, owner = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if not count or owner != str(pid):
            return cls()
        if not (count.isascii() and count.isdecimal()):
            raise InvalidSocket(f"LISTEN_FDS={count}", "is no number")
        sockets = []
        for number in range(int(count)):
            name = names[number] if number < len(names) else ""
            sockets.append(_socket(FIRST + number, f"descriptor {FIRST + number} ({name or 'unnamed'})"))
        return cls(sockets)

    def take(self, address: Address) -> socket.socket | None:
        """Return the socket for ``address`` if it was handed in; from now on it is the caller's."""
        for sock in self._sockets:
            if _matches(sock, address):
                self._sockets.remove(sock)
                return sock
        return None

    def left(self) -> list[str]:
        """Return the addresses of those that nobody took, as the URLs of the listeners that would take them."""
        return [_url(sock) for sock in self._sockets]

    def close(self) -> None:
        """Give back what nobody took."""
        while self._sockets:
            self._sockets.pop().close()


def _socket(descriptor: int, what: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise InvalidSocket(what, "is no socket") from None
    sock.set_inheritable(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        reason = "is of a family that no listener has"
    elif sock.type == socket.SOCK_STREAM and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        reason = "is a connection, and not a listening socket: Accept=no is needed"
    elif sock.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        reason = "is of a type that no listener has"
    else:
        return sock
    sock.close()
    raise InvalidSocket(what, reason)


def _matches(sock: socket.socket, address: Address) -> bool:
    if sock.type != (socket.SOCK_DGRAM if address.scheme in _DATAGRAMS else socket.SOCK_STREAM):
        return False
    if sock.family == socket.AF_UNIX or address.path:
        return sock.family == socket.AF_UNIX and sock.getsockname() == address.path
    return sock.getsockname()[:2] in _resolved(address, sock.type)


def _resolved(address: Address, kind: socket.SocketKind) -> list[tuple[str, int]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):  # binding it says what is wrong
        return []
    return [(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]


def _url(sock: socket.socket) -> str:
    datagrams = sock.type == socket.SOCK_DGRAM
    if sock.family == socket.AF_UNIX:
        return f"{'unixgram' if datagrams else 'unix'}://{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{'udp' if datagrams else 'tcp'}://{f'[{host}]' if ':' in host else host}:{port}"
