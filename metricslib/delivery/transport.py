"""Bytes to a place: over TCP and Unix stream sockets with confirmation, over UDP and Unix datagrams without.

Names are resolved at each connection and all addresses are tried, with an equal share of the time that is left. The
resolver alone cannot be interrupted; after it nothing is sent if the deadline has passed.
"""

import errno
import os
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import lines
from .batch import Deadline, Undelivered
from .channel import SLICE, Channel, Plain, wait

__all__ = ["Datagrams", "Endpoint", "Resolve", "Stream", "Transport"]

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""What :func:`socket.getaddrinfo` does."""
Address = tuple[int, Any]
"""A family and what the kernel takes as an address of it."""

_NO_ADDRESS = "the name has no address"
_BURST = 32
_PAUSE = 0.001
"""Seconds between bursts of UDP: a receiver's buffer holds about ninety datagrams."""


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
        """Return families and addresses, asking the resolver. Raises OSError or UnicodeError."""
        if self.path:
            return [(socket.AF_UNIX, self.path)]
        found = (resolve or socket.getaddrinfo)(self.host, self.port, type=kind)
        return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


class Transport:
    """Opens connections to an endpoint, one at a time."""

    kind: int

    def __init__(self, endpoint: Endpoint, resolve: Resolve | None = None) -> None:
        self.endpoint = endpoint
        self._resolve = resolve
        self._socket: socket.socket | None = None

    def close(self, opened: socket.socket | None = None) -> None:
        """Close ``opened``, or whatever is open."""
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

    ``secure`` makes a :class:`.channel.Channel` of a connected socket before a deadline, or raises OSError.
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
        """Return when the peer has read every byte of ``payload``.

        Raises :class:`Undelivered`. When it is unknown what the peer has read, all remains if it may be sent ``again``,
        otherwise all is lost, cause ``unconfirmed``.
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
            if opened is not None and started and unwritten:
                _abort(opened)
            if started and not again:
                raise Undelivered(reason, b"", {"unconfirmed": lines.count(payload)}) from error
            raise Undelivered(reason, payload) from error
        finally:
            if opened is not None:
                self.close(opened)


class Datagrams(Transport):
    """UDP or Unix datagrams. What the kernel accepted is delivered, as far as anybody can know."""

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
        """Where the last datagrams were not refused."""

    def send(self, datagrams: Sequence[bytes], deadline: Deadline) -> dict[str, int]:
        """Send all, and return how many lines were in datagrams too long for the network, cause ``too_long``.

        Of several addresses, the first one that does not refuse gets them, and is tried first from then on. Where
        nobody listens to UDP, the host says so after a datagram: if it was the first, nobody had it, and it is sent to
        the next address; a later one may have been another's, so the last one sent there is lost, cause ``refused``.
        Raises :class:`Undelivered` with the datagrams not sent, an empty line between them.
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
        except (OSError, UnicodeError) as failure:  # of the resolver
            error = failure
        raise Undelivered(self._reason(error), b"\n\n".join(unsent), dict(lost)) from error

    def _in_order(self, addresses: list[Address]) -> list[Address]:
        return sorted(addresses, key=lambda address: address != self._heard)

    def _send(self, opened: socket.socket, unsent: deque[bytes], lost: Counter[str], deadline: Deadline) -> None:
        """Send to one address; what it did not get stays in ``unsent``. Raises OSError."""
        sent, last = 0, b""
        while unsent:
            if sent and sent % _BURST == 0 and not self.endpoint.path:
                self._pause(_PAUSE)
            try:
                if not _send_one(opened, unsent[0], deadline):
                    lost["too_long"] += lines.count(unsent.popleft())
                    continue
                sent, last = sent + 1, unsent.popleft()
                if refusal := opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(refusal, os.strerror(refusal))
            except ConnectionRefusedError:
                if sent == 1 and not self.endpoint.path:
                    unsent.appendleft(last)
                elif sent and not self.endpoint.path:
                    lost["refused"] += lines.count(last)
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
    """Hand a datagram to the kernel; return False when it is too long ever to be sent."""
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
    """Let close() reset the connection. Otherwise the kernel goes on sending, and ends in the middle of a line, which
    the peer may take for one.
    """
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:  # it is gone already
        pass
