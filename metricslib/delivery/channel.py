"""What runs over a connected stream socket: bytes as they are, or (:mod:`.tls`) under TLS.

A peer confirms by closing. We write all, end our side, and read to the end of file: the peer read to the end before it
closed. When it closes before we have, or with bytes of ours not acknowledged, it did not read all; when it closes with
bytes unread, the kernel turns that into a reset. A timeout says nothing, so nothing is confirmed.

::

    we      write … write  half-close  ─────────────▶  read: end of file    confirmed
    peer        read … read … read     read: end, close

    we      write … write              half-close      read: end of file    not confirmed: the peer's end came first
    peer        read   half-close, and reads no more

The kernel knows whether the peer's end came first, even when bytes that we have not read stand before it (an answer
such as "400 Bad Request"). It is asked right before our half-close. An end that comes in the microsecond between the
two shows in the state of the connection afterwards: only the side that ends second gets to ``LAST_ACK``. That state
lasts until the peer acknowledges; over loopback it has passed by then, and the microsecond remains.

Sockets do not block. Waits are short and look at the deadline again and again, so that it can be brought forward from
outside.
"""

import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Protocol

from .batch import Deadline

__all__ = ["EARLY", "SLICE", "Channel", "Plain", "acknowledged", "end_is_there", "ended", "wait"]

SLICE = 0.05
"""Seconds that a single wait takes at most."""
EARLY = "closed before it had read all"
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux alone
_LAST_ACK = 9


class Channel(Protocol):
    """A way to a peer, over a socket that is connected."""

    def send(self, data: memoryview, deadline: Deadline) -> int:
        """Hand over some of ``data``, and return how many bytes. What raises OSError handed over nothing readable."""
        ...

    def confirm(self, deadline: Deadline) -> None:
        """Return when the peer has closed after reading everything; raise OSError when it has closed otherwise."""
        ...


class Plain:
    """Bytes as they are."""

    def __init__(self, opened: socket.socket, deadline: Deadline) -> None:
        self._opened = opened

    def send(self, data: memoryview, deadline: Deadline) -> int:
        wait(self._opened, select.POLLOUT, deadline)
        return self._opened.send(data)

    def confirm(self, deadline: Deadline) -> None:
        opened = self._opened
        if ended(opened) or end_is_there(opened):
            raise ConnectionAbortedError(EARLY)
        opened.shutdown(socket.SHUT_WR)
        if _ended_second(opened):
            raise ConnectionAbortedError(EARLY)
        while not ended(opened):
            wait(opened, select.POLLIN, deadline)
        if not acknowledged(opened):
            raise ConnectionAbortedError(EARLY)


def wait(opened: socket.socket, event: int, *deadlines: Deadline) -> None:
    """Return when ``event`` is there; raises TimeoutError at the first deadline."""
    poll = select.poll()
    poll.register(opened, event)
    while left := min(deadline.left() for deadline in deadlines):
        if poll.poll(min(left, SLICE) * 1000):
            return
    raise TimeoutError


def ended(opened: socket.socket) -> bool:
    """Whether the peer has closed its side; what it says meanwhile is of no interest."""
    try:
        return not opened.recv(65536)
    except BlockingIOError:
        return False


def end_is_there(opened: socket.socket) -> bool:
    """Whether the peer's end has arrived, also behind bytes that are not read yet; False where no system call tells."""
    poll = select.poll()
    poll.register(opened, _RDHUP)
    return any(event & _RDHUP for _, event in poll.poll(0))


def _ended_second(opened: socket.socket) -> bool:
    """Whether our end, which has just been sent, came after the peer's, as far as this system tells."""
    if opened.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
        return False
    try:
        return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([_LAST_ACK])
    except OSError:
        return False


def acknowledged(opened: socket.socket) -> bool:
    """Whether the peer's kernel has acknowledged every byte, as far as this system tells."""
    if opened.family == socket.AF_UNIX:
        return True
    try:
        answer: bytes = fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return True
    return struct.unpack("i", answer) == (0,)
