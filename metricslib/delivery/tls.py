"""TLS over a connected socket: the peer proves its name, and confirms that it has read everything.

Data is sent only after the peer has proved its name with a certificate from one of the trusted roots. No option turns
this off. Changed files are read again, because certificates are renewed while a daemon runs.

As without TLS, the peer confirms by closing. This side sends close_notify, which an attacker cannot forge, and leaves
the socket open. The peer's close_notify, followed by the end of the connection without a reset, is the confirmation. An
end without close_notify also counts as confirmation, because many servers close that way. As with plain TCP, it means
that the peer has read everything, but an attacker could forge it. An alert does not confirm anything, and its text is
the reason of the failure. With TLS 1.3, an alert about this side's certificate arrives only after this side has begun
to write.
"""

import os
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .batch import Deadline
from .transport import EARLY, acknowledged, end_is_there, ended, wait

__all__ = ["Tls"]

_RECORD = 1 << 14
"""Maximum number of bytes of data in a TLS record."""


class Tls:
    """The TLS options of a URL: the ``name`` that the peer must prove, and files in PEM format.

    ``ca`` contains the trusted roots, which replace the system's. ``cert`` and ``key`` are the certificate and key of
    this side; both may be in one file. Raises ValueError, without the path, for an unusable file.
    """

    def __init__(self, name: str, *, ca: str | None = None, cert: str | None = None, key: str | None = None) -> None:
        if "" in (ca, cert, key) or (key and not cert):
            raise ValueError("ca, cert and key must be files, and key needs cert")
        self._name = name.rstrip(".")
        self._ca, self._cert, self._key = ca, cert, key
        self._read: list[tuple[int, ...]] = []
        self._context = self._load()
        try:
            self._context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self._name)
        except (ValueError, TypeError):
            raise ValueError("name must be a host name, such as graphite.example") from None

    def __call__(self, opened: socket.socket, deadline: Deadline) -> "_Session":
        """Return a channel to a peer that has proved its name. Raises OSError, also if a file has become unusable."""
        if self._files() != self._read:
            try:
                self._context = self._load()
            except ValueError as error:
                raise OSError(str(error)) from None
        session = _Session(opened, self._context, self._name)
        session.handshake(deadline)
        return session

    def _files(self) -> list[tuple[int, ...]]:
        return [_identity(path) for path in (self._ca, self._cert, self._key) if path]

    def _load(self) -> ssl.SSLContext:
        files = self._files()
        with _useful("ca"):
            context = ssl.create_default_context(cafile=self._ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._cert:
            with _useful("cert or key"):
                context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        self._read = files
        return context


def _identity(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _useful(option: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ValueError(f"{option} cannot be used: {_words(error)}") from None
    except OSError as error:
        raise ValueError(f"{option} cannot be used: {error.strerror}") from None


def _no_passphrase() -> str:
    raise ValueError("cert or key cannot be used: a passphrase is not supported")


class _Session:
    """A TLS channel. Data is copied between the plain socket and OpenSSL's buffers, so that no call blocks."""

    def __init__(self, opened: socket.socket, context: ssl.SSLContext, name: str) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # close_notify is small, and must not wait
        self._opened = opened
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def handshake(self, deadline: Deadline) -> None:
        """Agree on keys and verify the peer's name."""
        while True:
            try:
                self._tls.do_handshake()
                return self._flush(deadline)
            except ssl.SSLWantReadError:
                self._flush(deadline)
            except ssl.SSLError as error:
                with suppress(OSError):
                    self._flush(deadline)  # send the alert, so that the peer can log the reason
                raise _told(error) from None
            wait(self._opened, select.POLLIN, deadline)
            if not self._receive():
                raise ConnectionAbortedError("closed in the handshake")

    def send(self, data: memoryview, deadline: Deadline) -> int:
        # A record is read completely or not at all, and some TLS libraries treat a reset as a normal end. So a record
        # must end with a complete line.
        whole = bytes(data[:_RECORD]).rfind(b"\n") + 1
        written = self._tls.write(data[: whole or _RECORD])
        try:
            self._flush(deadline)
        except ConnectionError:
            self._ended()  # raises the error in the peer's last alert, if there is one
            raise
        return written

    def confirm(self, deadline: Deadline) -> None:
        if self._ended() or end_is_there(self._opened):
            raise ConnectionAbortedError(EARLY)
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:  # close_notify is written, and the peer's has not arrived yet
            pass
        self._flush(deadline)
        while not self._ended():
            wait(self._opened, select.POLLIN, deadline)
        if not acknowledged(self._opened):
            raise ConnectionAbortedError(EARLY)
        self._opened.shutdown(socket.SHUT_WR)
        while not ended(self._opened):
            wait(self._opened, select.POLLIN, deadline)

    def _flush(self, deadline: Deadline) -> None:
        unwritten = memoryview(self._outgoing.read())
        while unwritten:
            wait(self._opened, select.POLLOUT, deadline)
            unwritten = unwritten[self._opened.send(unwritten) :]

    def _receive(self) -> bool:
        """Read the received data; return False at the end of the connection."""
        try:
            chunk = self._opened.recv(65536)
        except BlockingIOError:
            return True
        self._incoming.write(chunk)
        return bool(chunk)

    def _ended(self) -> bool:
        """Return True if the peer has ended its side, with or without close_notify. Received data is discarded."""
        more = self._receive()
        try:
            while self._tls.read(65536):
                pass
        except ssl.SSLWantReadError:
            return not more
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError as error:
            raise _told(error) from None
        return True


def _told(error: ssl.SSLError) -> ssl.SSLError:
    """Return the error with a readable text."""
    verified = getattr(error, "verify_message", None)
    error.strerror = f"certificate refused: {verified}" if verified else _words(error)
    return error


def _words(error: ssl.SSLError) -> str:
    return str(error.reason or "not in the form of PEM").replace("_", " ").lower()
