"""Reading datagrams: as many as are there, up to a batch, in one go."""

import select
import socket
import time
from collections.abc import Callable

from metricslib.clock import SYSTEM_CLOCK, Clock

from .listener import Listener, Sink

__all__ = ["RECEIVE_BUFFER", "DatagramListener", "grow_buffer"]

BATCH = 256
"""How many datagrams are read before they are handed over, at most."""
_ENOUGH = 1 << 15  # bytes; of larger batches, all that is made of their lines does not fit into a processor's cache
_SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 64 << 20
"""How many bytes the kernel is asked to keep."""
_PAUSE = 0.1  # seconds after an error, which may last
_IN_C = 65535  # bytes; a sink that reads sockets itself takes no longer datagrams
_Receive = Callable[[int, int, float], int]


def grow_buffer(sock: socket.socket, wanted: int = RECEIVE_BUFFER) -> int:
    """Make the receive buffer as large as the kernel allows, and return how many bytes it granted."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:  # for that one must be root; without, the kernel's limit (net.core.rmem_max) counts
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    # The kernel doubles what is asked, and says so.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


class DatagramListener(Listener):
    """Reads datagrams of up to ``longest`` bytes. Of a longer one the whole lines are kept, and one drop is counted.

    A sink that has a method ``receive`` reads the socket itself.
    """

    def __init__(self, sink: Sink, *, longest: int, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(sink, clock)
        self._buffer = memoryview(bytearray(longest))
        self._gather = 0.0
        """Seconds that datagrams have to become many, after all was read: to be woken costs more than to read one."""
        self._receive: _Receive | None = getattr(sink, "receive", None) if longest <= _IN_C else None

    def _read(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        woken = select.poll()
        woken.register(self._woken, select.POLLIN)
        while self._deadline is None:
            if self._receive is None:
                poll.poll()
                time.sleep(self._gather)
                while (received := self._drain(sock)) and self._deadline is None:
                    pass
            else:
                received = self._received(sock, self._woken.fileno())
            if received is None:
                woken.poll(_PAUSE * 1000)
        if not self._shared:
            self._hang_up(sock)
        if self._receive is None:
            while not self._late and self._drain(sock):
                pass
        else:
            while not self._late and self._received(sock, -1):
                pass

    def _received(self, sock: socket.socket, wake: int) -> int | None:
        """Let the sink read the socket itself; return how many datagrams it read last, None after an error."""
        assert self._receive is not None
        try:
            return self._receive(sock.fileno(), wake, self._gather)
        except (OSError, MemoryError):
            self._failed("recv_error", f"reading {self._address} failed")
            return None

    def _drain(self, sock: socket.socket) -> int | None:
        """Hand over up to a batch; return how many datagrams that were, None after an error."""
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
            if size > len(self._buffer):
                datagram = datagram[: datagram.rfind(b"\n") + 1]
                self._sink.drop("truncated")
            datagrams.append(datagram)
            room -= size
        if datagrams:
            self._feed(datagrams)
        return None if failed else len(datagrams)

    def _hang_up(self, sock: socket.socket) -> None:
        """Let nobody send any more, where that can be done while what was sent is still read."""
