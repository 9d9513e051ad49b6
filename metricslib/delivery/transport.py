"""Sends bytes over TCP and Unix stream sockets, with confirmation, and over UDP and Unix datagrams, without.

*Addresses.* Names are resolved for each connection, and all addresses are tried, with equal shares of the remaining
time. The resolver cannot be interrupted; if the deadline has passed when it returns, nothing is sent.

*Confirmation.* A peer confirms by closing. The sender writes everything, closes its side for writing (half-close), and
reads to the end of file. The end of file confirms, because the peer reads to the end before it closes. If the peer
closes before the half-close, or before its kernel has acknowledged all bytes, it did not read everything. If it closes
with bytes unread, its kernel sends a reset. A timeout does not confirm anything.

::

    sender  write … write  half-close  ─────────────▶  read: end of file    confirmed
    peer        read … read … read     read: end, close

    sender  write … write              half-close      read: end of file    not confirmed: the peer's end came first
    peer        read   half-close, and reads no more

The kernel knows whether the peer's end came first, even if there are unread bytes before it (an answer such as "400 Bad
Request"). The sender checks this directly before its half-close. If the peer's end arrives in the microsecond between
the check and the half-close, the state of the connection shows it afterwards: only the side that ends second reaches
``LAST_ACK``. This state lasts until the peer acknowledges. Over loopback it has already passed, so there the
microsecond remains.

*Waiting.* Sockets do not block. Each wait is short, and then the deadline is checked again, because another thread may
have changed it.

*Long lines.* A line that is longer than its receiver can read is never sent: :class:`LineLimit` removes it.
"""

import errno
import fcntl
import logging
import os
import select
import socket
import struct
import sys
import termios
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from .batch import Deadline, Undelivered, count_lines

__all__ = [
    "Channel",
    "Datagrams",
    "EARLY",
    "Endpoint",
    "LineLimit",
    "Plain",
    "Resolve",
    "SLICE",
    "Stream",
    "Transport",
    "acknowledged",
    "end_is_there",
    "ended",
    "wait",
]

log = logging.getLogger("metricslib")

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""A function with the signature of :func:`socket.getaddrinfo`."""
Address = tuple[int, Any]
"""An address family, and an address of it in the form that sockets use."""

SLICE = 0.05
"""Maximum duration of a single wait in seconds."""
EARLY = "closed before it had read all"
_RDHUP = getattr(select, "POLLRDHUP", 0)  # only on Linux
_LAST_ACK = 9
_NO_ADDRESS = "the name has no address"
_BURST = 32
_PAUSE = 0.001
"""Seconds between bursts of UDP datagrams. A receiver's buffer has room for about ninety datagrams."""


class Endpoint(NamedTuple):
    """A host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def addresses(self, kind: int, resolve: Resolve | None = None) -> list[Address]:
        """Resolve the host. Return families and addresses. Raises OSError or UnicodeError."""
        if self.path:
            return [(socket.AF_UNIX, self.path)]
        found = (resolve or socket.getaddrinfo)(self.host, self.port, type=kind)
        return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


class Channel(Protocol):
    """A byte stream to a peer over a connected socket, plain or under TLS."""

    def send(self, data: memoryview, deadline: Deadline) -> int:
        """Send some of ``data``; return the number of bytes. If it raises OSError, the peer can read none of them."""
        ...

    def confirm(self, deadline: Deadline) -> None:
        """Return when the peer has closed after reading everything. Raises OSError if it has closed earlier."""
        ...


class Plain:
    """A channel without TLS."""

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
    """Wait for ``event``. Raises TimeoutError at the first deadline."""
    poll = select.poll()
    poll.register(opened, event)
    while left := min(deadline.left() for deadline in deadlines):
        if poll.poll(min(left, SLICE) * 1000):
            return
    raise TimeoutError


def ended(opened: socket.socket) -> bool:
    """Return True if the peer has closed its side. Received data is discarded."""
    try:
        return not opened.recv(65536)
    except BlockingIOError:
        return False


def end_is_there(opened: socket.socket) -> bool:
    """Return True if the peer's end has arrived, even after unread bytes; False if the system cannot tell."""
    poll = select.poll()
    poll.register(opened, _RDHUP)
    return any(event & _RDHUP for _, event in poll.poll(0))


def _ended_second(opened: socket.socket) -> bool:
    """Return True if this side's end, just sent, came after the peer's; False if the system cannot tell."""
    if opened.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
        return False
    try:
        return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([_LAST_ACK])
    except OSError:
        return False


def acknowledged(opened: socket.socket) -> bool:
    """Return True if the peer's kernel has acknowledged every byte, as far as the system can tell."""
    if opened.family == socket.AF_UNIX:
        return True
    try:
        answer: bytes = fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return True
    return struct.unpack("i", answer) == (0,)


class Transport:
    """Opens connections to an endpoint, one at a time."""

    kind: int

    def __init__(self, endpoint: Endpoint, resolve: Resolve | None = None) -> None:
        self.endpoint = endpoint
        self._resolve = resolve
        self._socket: socket.socket | None = None

    def close(self, opened: socket.socket | None = None) -> None:
        """Close ``opened``, or by default the open socket."""
        opened = opened or self._socket
        if opened is self._socket:
            self._socket = None
        if opened is not None:
            opened.close()

    def _connect(self, deadline: Deadline) -> socket.socket:
        addresses = self.endpoint.addresses(self.kind, self._resolve)
        error: OSError = OSError(_NO_ADDRESS)
        for place, address in enumerate(addresses):
            try:
                return self._open(address, Deadline(deadline.left() / (len(addresses) - place)), deadline)
            except OSError as failure:
                error = failure
        raise error

    def _open(self, address: Address, share: Deadline, deadline: Deadline) -> socket.socket:
        """Connect to one address, within its share of the time."""
        family, where = address
        opened = self._socket = socket.socket(family, self.kind)
        opened.setblocking(False)
        try:
            _establish(opened, where, share, deadline)
        except BaseException:
            self.close(opened)
            raise
        return opened

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"{self.endpoint}: no answer in time"
        return f"{self.endpoint}: {getattr(error, 'strerror', None) or error or type(error).__name__}"


class Stream(Transport):
    """TCP or a Unix stream socket. Each payload has a connection of its own.

    ``secure`` converts a connected socket to a :class:`Channel` before a deadline, or raises OSError.
    """

    kind = socket.SOCK_STREAM

    def __init__(
        self,
        endpoint: Endpoint,
        secure: Callable[[socket.socket, Deadline], Channel] = Plain,
        *,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(endpoint, resolve)
        self._secure = secure

    def send(self, payload: bytes, deadline: Deadline, *, again: bool) -> None:
        """Send ``payload``, and return when the peer has read every byte.

        Raises :class:`Undelivered`. If it is unknown how much the peer has read, everything remains if it may be sent
        ``again``; otherwise everything is lost, cause ``unconfirmed``.
        """
        started = False
        opened = None
        unwritten = memoryview(payload)
        try:
            opened = self._connect(deadline)
            channel = self._secure(opened, deadline)
            while unwritten:
                unwritten = unwritten[channel.send(unwritten, deadline) :]
                started = True
            channel.confirm(deadline)
        except (OSError, UnicodeError) as error:
            reason = self._reason(error)
            if opened is not None and started and (unwritten or (again and not deadline.was_cut)):
                _abort(opened)
            if started and not again:
                raise Undelivered(reason, b"", {"unconfirmed": count_lines(payload)}) from error
            raise Undelivered(reason, payload) from error
        finally:
            if opened is not None:
                self.close(opened)


class Datagrams(Transport):
    """UDP or Unix datagrams. A datagram counts as delivered when the kernel has accepted it."""

    kind = socket.SOCK_DGRAM

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        pause: Callable[[float], object] | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(endpoint, resolve)
        self._pause = pause or time.sleep
        self._heard: Address | None = None
        """The last address that did not refuse datagrams."""

    def send(self, datagrams: Sequence[bytes], deadline: Deadline) -> dict[str, int]:
        """Send all, and return the number of lines in datagrams that are too long for the network, cause ``too_long``.

        They are sent to the first address that does not refuse them, which is tried first from then on. If no process
        listens at a UDP address, the host reports this after a datagram. If it was the first one for this address, it
        is sent to the next address. Otherwise, the last datagram that was sent there is lost, cause ``refused``; those
        before it may have arrived. Raises :class:`Undelivered` with the remaining datagrams, separated by empty lines.
        """
        unsent, lost = deque(datagrams), Counter[str]()
        error: OSError | UnicodeError = OSError(_NO_ADDRESS)
        try:
            for address in self._in_order(self.endpoint.addresses(self.kind, self._resolve)):
                try:
                    opened = self._open(address, deadline, deadline)
                    try:
                        self._send(opened, unsent, lost, deadline)
                    finally:
                        self.close(opened)
                except OSError as failure:
                    error = failure
                else:
                    self._heard = address
                    return dict(lost)
        except (OSError, UnicodeError) as failure:  # from the resolver
            error = failure
        raise Undelivered(self._reason(error), b"\n\n".join(unsent), dict(lost)) from error

    def _in_order(self, addresses: list[Address]) -> list[Address]:
        return sorted(addresses, key=lambda address: address != self._heard)

    def _send(self, opened: socket.socket, unsent: deque[bytes], lost: Counter[str], deadline: Deadline) -> None:
        """Send to one address. Datagrams that were not sent stay in ``unsent``. Raises OSError."""
        sent, last = 0, b""
        while unsent:
            if sent and sent % _BURST == 0 and not self.endpoint.path:
                self._pause(_PAUSE)
            try:
                if not _send_one(opened, unsent[0], deadline):
                    lost["too_long"] += count_lines(unsent.popleft())
                    continue
                sent, last = sent + 1, unsent.popleft()
                if refusal := opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(refusal, os.strerror(refusal))
            except ConnectionRefusedError:
                if sent == 1 and not self.endpoint.path:
                    unsent.appendleft(last)
                elif sent and not self.endpoint.path:
                    lost["refused"] += count_lines(last)
                raise


def _establish(opened: socket.socket, address: Any, share: Deadline, deadline: Deadline) -> None:
    """Connect, within this address' share of the time."""
    while True:
        if not deadline.left():
            raise TimeoutError
        code = opened.connect_ex(address)
        if code == errno.EINPROGRESS:
            wait(opened, select.POLLOUT, deadline, share)
            code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == errno.EAGAIN and share.left():  # the queue of a Unix socket is full; there is nothing to poll
            time.sleep(min(SLICE, share.left()))
        elif code:
            raise OSError(code, os.strerror(code))
        else:
            return


def _send_one(opened: socket.socket, datagram: bytes, deadline: Deadline) -> bool:
    """Send a datagram. Return False if it is longer than the network allows."""
    while True:
        try:
            opened.send(datagram)
        except BlockingIOError:
            wait(opened, select.POLLOUT, deadline)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False
            raise
        else:
            return True


def _abort(opened: socket.socket) -> None:
    """Make close() reset the connection. Otherwise the kernel would continue to send.

    What it sent could end in the middle of a line, which the peer may treat as a complete one. After a network failure,
    it could also arrive minutes later, and overwrite newer values of the same slots that were delivered meanwhile. When
    the program ends, a complete payload is left to the kernel, because no attempt follows that could deliver it.
    """
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # the connection no longer exists
        pass


class LineLimit:
    """Removes lines from payloads that are longer than their receiver can read.

    Receivers do not simply skip such a line. carbon and carbon-c-relay close the connection, and everything after the
    line is lost. A receiver of datagrams truncates it, and the rest may look like a valid point. So such a line is
    never sent. The destination counts it as lost, cause ``too_long``; the first one is logged.
    """

    def __init__(self, label: str, limit: int, option: str = "max_line") -> None:
        """``limit`` is the length of the longest line that ``label`` reads, in bytes without the line feed.

        ``option`` names the option of the URL that sets it.
        """
        self._label = label
        self._limit = limit
        self._option = option
        self._logged = False

    def take_out(self, payload: bytes) -> tuple[bytes, dict[str, int]]:
        """Return ``payload`` without the lines that are too long, and the number of these lines, by cause."""
        kept, long = bytearray(), 0
        start = at = 0  # data before start is done; lines before at are short enough
        while len(payload) - at > self._limit:
            feed = payload.rfind(b"\n", at, at + self._limit + 1)
            if feed >= 0:
                at = feed + 1
                continue
            end = payload.find(b"\n", at) + 1 or len(payload)
            self.report(payload[at:end])
            kept += payload[start:at]
            start = at = end
            long += 1
        if not long:
            return payload, {}
        return bytes(kept + payload[start:]), {"too_long": long}

    def report(self, line: bytes) -> None:
        """Log the first ``line`` that is too long."""
        if not self._logged:
            self._logged = True
            log.warning(
                "%s: a line of %d bytes is longer than %s=%d and was dropped, cause too_long: %.80s...; logged once",
                self._label,
                len(line.rstrip(b"\n")),
                self._option,
                self._limit,
                line.decode("utf-8", "replace"),
            )
