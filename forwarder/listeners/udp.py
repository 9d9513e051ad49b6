"""statsd lines over UDP, IPv4 or IPv6."""

import socket
import struct

from metricslib.clock import SYSTEM_CLOCK, Clock

from .datagrams import RECEIVE_BUFFER, DatagramListener, grow_buffer
from .listener import Sink
from .tcp import new_socket, resolve, url

__all__ = ["UdpListener"]

_SO_MEMINFO = 55
_DROPS = 8  # the ninth of the numbers that SO_MEMINFO gives
_LONGEST = 65535  # what fits into one, so none is ever cut
_GATHER = 0.001  # seconds
_FASTEST = 2e9
"""Bytes, as the kernel counts them, that may come in a second: more than a million datagrams."""


class UdpListener(DatagramListener):
    """Hears datagrams on ``host`` and ``port``; port 0 takes a free one. Thread-safe but for bind, start and stop.

    The kernel is asked to keep ``buffer`` bytes while we are busy. With ``one_of_many`` others may hear the same port,
    and the kernel shares out the senders among them.
    """

    def __init__(
        self,
        host: str,
        port: int,
        sink: Sink,
        *,
        buffer: int = RECEIVE_BUFFER,
        one_of_many: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(sink, longest=_LONGEST, clock=clock)
        self._host = host
        self._port = port
        self._drops_before = 0
        self._last_drops = 0
        self._buffer_wanted = buffer
        self._one_of_many = one_of_many
        self.receive_buffer = 0
        """How many bytes the kernel keeps for us while we are busy, as it counts them; known once bound."""

    def counts(self) -> dict[str, int]:
        """Return what happened to the socket, by cause; ``kernel_dropped`` is datagrams that found the buffer full."""
        return {"kernel_dropped": self.kernel_drops(), **super().counts()}

    def kernel_drops(self) -> int:
        """Return how many datagrams the kernel has dropped since the socket was bound here, or given to us, until now
        or until it was closed.
        """
        sock = self._socket
        if sock is not None:
            try:
                info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
            except OSError:  # closed, or a kernel before 4.12
                return self._last_drops
            self._last_drops = struct.unpack(f"{len(info) // 4}I", info)[_DROPS] - self._drops_before
        return self._last_drops

    def _open(self) -> socket.socket:
        family, address = resolve(self._host, self._port, socket.SOCK_DGRAM)
        sock = new_socket(family, socket.SOCK_DGRAM)
        try:
            self._has_buffer(grow_buffer(sock, self._buffer_wanted))
            if self._one_of_many:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _adopt(self, sock: socket.socket) -> None:
        self._has_buffer(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        self._drops_before = self.kernel_drops()

    def _has_buffer(self, size: int) -> None:
        self.receive_buffer = size
        self._gather = min(_GATHER, size / _FASTEST)  # no longer than that it can hold what comes

    def _url(self, sock: socket.socket) -> str:
        return url("udp", sock)

    def _hang_up(self, sock: socket.socket) -> None:
        # Connected to itself it takes nothing from others any more: they are refused, which they can see and count.
        host, *rest = sock.getsockname()
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        try:
            sock.connect((loopback.get(host, host), *rest))
        except OSError:
            self._account.add("hang_up_error")

    def _close(self, sock: socket.socket) -> None:
        self.kernel_drops()
        sock.close()
