"""What runs over a connected stream socket: bytes as they are, or (:mod:`.tls`) under TLS.

A peer confirms by closing. We write all, end our side, and read to the end of file: the peer read to the end before it
closed. When it closes before we have, or with bytes of ours not acknowledged, it did not read all; when it closes with
bytes unread, the kernel turns that into a reset. A timeout says nothing, so nothing is confirmed.

Sockets do not block. Waits are short and look at the deadline again and again, so that it can be brought forward from
outside.
"""

import fcntl
import select
import socket
import struct
import termios
from typing import Protocol

from .batch import Deadline

__all__ = ["EARLY", "SLICE", "Channel", "Plain", "acknowledged", "ended", "wait"]

SLICE = 0.05
"""Seconds that a single wait takes at most."""
EARLY = "closed before it had read all"


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
        if ended(opened):
            raise ConnectionAbortedError(EARLY)
        opened.shutdown(socket.SHUT_WR)
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


def acknowledged(opened: socket.socket) -> bool:
    """Whether the peer's kernel has acknowledged every byte, as far as this system tells."""
    if opened.family == socket.AF_UNIX:
        return True
    try:
        answer: bytes = fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return True
    return struct.unpack("i", answer) == (0,)
