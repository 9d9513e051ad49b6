"""Listeners for datagrams, which read them in batches, and for statsd lines over UDP, IPv4 or IPv6.

**The problem.** A sender of UDP does not wait. Datagrams that the reader does not fetch in time fill the receive buffer
of the socket, and the kernel drops the next ones. So the reader must be fast on average, and the buffer must cover the
time in which it does not run.

**Batches.** Waking a thread costs more than reading a datagram. After ``poll`` reports the first datagram, the reader
sleeps for up to a millisecond, then reads until the socket is empty or a batch is full, and feeds the batch at once:

.. code-block:: text

    poll ──readable──> sleep <= 1 ms ──> read, up to BATCH datagrams or 32 KiB ──> feed ──┐
     ^                                    ^                                               │
     │                                    └──────────── more to read ─────────────────────┤
     └────────────────────────────────── socket is empty ─────────────────────────────────┘

The sleep is never longer than a sender at ``_FASTEST`` needs to fill the buffer: with a small buffer it is shorter. The
bound of 32 KiB keeps the datagrams of a batch in the processor's cache between reading and parsing.

**In C.** A sink with a method ``receive`` runs this loop itself, without the interpreter lock: ``recvmmsg`` fetches up
to 128 datagrams with one system call, which are parsed in place, without Python objects. It returns when ``wake`` is
readable, or with an error.


**The buffer.** The default is 64 MiB. Without root, the kernel grants at most ``net.core.rmem_max``. It also counts its
overhead for each datagram, so that small ones use several times their size. ``SO_MEMINFO`` returns how many datagrams
the kernel has dropped since the socket was created, shown as ``kernel_dropped``; for an inherited socket, those dropped
before it was received are subtracted.

**The end.** ``stop`` sets the deadline and writes to ``_wake_writer``, so that ``poll`` returns at once. The reader
connects the socket to its own address. From then on, the kernel refuses datagrams of other senders, who can see and
count these errors, and the data in the buffer stays readable. Then the reader empties the buffer. A socket that the
service manager keeps open is not connected, because the next process reads it.
"""

import select
import socket
import struct
import time
from collections.abc import Callable

from metricslib.clock import SYSTEM_CLOCK, Clock

from .base import Listener, Sink
from .tcp import new_socket, resolve, url

__all__ = ["DatagramListener", "RECEIVE_BUFFER", "UdpListener", "grow_buffer"]

BATCH = 256
"""Maximum number of datagrams that are read before they are fed."""
_ENOUGH = 1 << 15  # bytes; the objects of larger batches do not fit into the processor's cache
_SO_RCVBUFFORCE = 33  # of Linux; the socket module does not have it
RECEIVE_BUFFER = 64 << 20
"""Requested size of the receive buffer in bytes."""
_PAUSE = 0.1  # seconds after an error, which may persist
_IN_C = 65535  # bytes; longest datagram of a sink that reads sockets itself
_Receive = Callable[[int, int, float], int]


def grow_buffer(sock: socket.socket, wanted: int = RECEIVE_BUFFER) -> int:
    """Set the receive buffer to ``wanted`` bytes, or to the kernel's limit. Return the granted number of bytes."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:  # only root may exceed the kernel's limit, net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    # The kernel doubles the number, and returns the doubled one.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


class DatagramListener(Listener):
    """Reads datagrams of up to ``longest`` bytes. A longer one is truncated to complete lines, and counts as one drop.

    A sink that has a method ``receive`` reads the socket itself.
    """

    def __init__(self, sink: Sink, *, longest: int, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(sink, clock)
        self._buffer = memoryview(bytearray(longest))
        self._gather = 0.0
        """Seconds to wait for more datagrams once the first of a batch has arrived."""
        self._receive: _Receive | None = getattr(sink, "receive", None) if longest <= _IN_C else None

    def _read(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        woken = select.poll()
        woken.register(self._wake_reader, select.POLLIN)
        while self._deadline is None:
            if self._receive is None:
                poll.poll()
                time.sleep(self._gather)
                while (received := self._drain(sock)) and self._deadline is None:
                    pass
            else:
                received = self._received(sock, self._wake_reader.fileno())
            if received is None:
                woken.poll(_PAUSE * 1000)
        if not self._shared:
            self._hang_up(sock)
        if self._receive is None:  # until the buffer is empty, an error occurs, or the deadline has passed
            while not self._late and self._drain(sock):
                pass
        else:
            while not self._late and self._received(sock, -1):
                pass

    def _received(self, sock: socket.socket, wake: int) -> int | None:
        """Call ``receive`` of the sink. Return the size of its last batch, or None after an error."""
        assert self._receive is not None
        try:
            return self._receive(sock.fileno(), wake, self._gather)
        except (OSError, MemoryError):
            self._failed("recv_error", f"reading {self._address} failed")
            return None

    def _drain(self, sock: socket.socket) -> int | None:
        """Read and feed up to a batch. Return the number of datagrams, or None after an error."""
        datagrams: list[bytes] = []
        room, failed = _ENOUGH, False
        while room > 0 and len(datagrams) < BATCH:
            try:
                size = sock.recv_into(self._buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                break
            except OSError:
                self._failed("recv_error", f"reading {self._address} failed")
                failed = True
                break
            datagram = self._buffer[:size].tobytes()
            if size > len(self._buffer):  # MSG_TRUNC: the full size of the datagram, not of the part that was read
                datagram = datagram[: datagram.rfind(b"\n") + 1]
                self._sink.drop("truncated")
            datagrams.append(datagram)
            room -= size
        if datagrams:
            self._feed(datagrams)
        return None if failed else len(datagrams)

    def _hang_up(self, sock: socket.socket) -> None:
        """Prevent further datagrams, where this is possible without losing those that have arrived."""


_SO_MEMINFO = 55  # of Linux; the socket module does not have it
_DROPS = 8  # the ninth of the numbers that SO_MEMINFO gives
_LONGEST = 65535  # the longest datagram of UDP, so that none is ever truncated
_GATHER = 0.001  # seconds
_FASTEST = 2e9
"""Bytes that may arrive in a second, as the kernel counts them: more than a million datagrams."""


class UdpListener(DatagramListener):
    """Listens for datagrams on ``host`` and ``port``; port 0 is a free one. Thread-safe except bind, start and stop.

    ``buffer`` is the requested size of the receive buffer in bytes. With ``one_of_many``, several sockets share the
    port, and the kernel distributes the senders over them.
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
        """The granted size of the receive buffer in bytes, as the kernel counts them; known once bound."""

    def counts(self) -> dict[str, int]:
        """Return the number of events on the socket, by cause. ``kernel_dropped``: datagrams dropped by the kernel."""
        return {"kernel_dropped": self.kernel_drops(), **super().counts()}

    def kernel_drops(self) -> int:
        """Return the number of datagrams that the kernel has dropped since the socket was bound, or received from the
        service manager, until now or until it was closed.
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
        self._gather = min(_GATHER, size / _FASTEST)  # at most the time in which the buffer could fill up

    def _url(self, sock: socket.socket) -> str:
        return url("udp", sock)

    def _hang_up(self, sock: socket.socket) -> None:
        # A socket that is connected to itself refuses datagrams of others, which they can see and count.
        host, *rest = sock.getsockname()
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        try:
            sock.connect((loopback.get(host, host), *rest))
        except OSError:
            self._account.add("hang_up_error")

    def _close(self, sock: socket.socket) -> None:
        self.kernel_drops()
        sock.close()
