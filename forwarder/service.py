"""systemd's protocols for services: socket activation, notifications, and the watchdog.

**Socket activation** (:class:`Inherited`). In: the environment (``LISTEN_FDS``, ``LISTEN_PID``, ``LISTEN_FDNAMES``) and
the descriptors from 3 on. Out: sockets, each for the listener with the same type and address. The manager also keeps
them open, so that data that arrives during a restart waits in the kernel.

**Notification** (:class:`Notifier`), sd_notify(3). In: ready, reloading, stopping, alive. Out: datagrams to the Unix
socket in ``NOTIFY_SOCKET``. Without this variable nothing is sent. Errors are logged once and never raised.

**Watchdog** (:class:`Watchdog`). It reports that the forwarder is alive while every listener has a thread and intervals
end on time. Otherwise it stops reporting, and the manager restarts the process.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Protocol

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.errors import MetricsError

from .addresses import Address

__all__ = ["Inherited", "InvalidSocket", "Notifier", "Watchdog"]

FIRST = 3
"""The first inherited descriptor, after the standard streams."""

_DATAGRAMS = ("udp", "unixgram")


class InvalidSocket(MetricsError, ValueError):
    """An inherited socket fits no listener; ``what`` names it."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"socket activation: {what} {reason}")
        self.what = what


class Inherited:
    """The inherited sockets that have not been assigned to a listener. May be empty."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self._sockets = list(sockets)

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str], pid: int) -> "Inherited":
        """Take the sockets passed to process ``pid``, and remove the variables from ``environ``, so that no child uses
        them.

        Raises :class:`InvalidSocket`.
        """
        count, owner = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if not count or owner != str(pid):
            return cls()
        if not (count.isascii() and count.isdecimal()):
            raise InvalidSocket(f"LISTEN_FDS={count}", "is not a number")
        sockets = []
        for number in range(int(count)):
            name = names[number] if number < len(names) else ""
            sockets.append(_socket(FIRST + number, f"descriptor {FIRST + number} ({name or 'unnamed'})"))
        return cls(sockets)

    def take(self, address: Address) -> socket.socket | None:
        """Return the inherited socket for ``address``, or None. The caller owns it from now on."""
        for sock in self._sockets:
            if _matches(sock, address):
                self._sockets.remove(sock)
                return sock
        return None

    def left(self) -> list[str]:
        """Return the URLs of the remaining sockets."""
        return [_url(sock) for sock in self._sockets]

    def close(self) -> None:
        """Close the remaining sockets."""
        while self._sockets:
            self._sockets.pop().close()


def _socket(descriptor: int, what: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise InvalidSocket(what, "is not a socket") from None
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
    except (OSError, UnicodeError):  # binding it reports the error
        return []
    return [(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]


def _url(sock: socket.socket) -> str:
    datagrams = sock.type == socket.SOCK_DGRAM
    if sock.family == socket.AF_UNIX:
        return f"{'unixgram' if datagrams else 'unix'}://{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{'udp' if datagrams else 'tcp'}://{f'[{host}]' if ':' in host else host}:{port}"


log = logging.getLogger("forwarder")

_PATIENCE = 1.0  # seconds to wait for a manager that does not read


class Notifier:
    """Sends notifications to the manager at ``address``; if that is empty, it does nothing.

    ``watchdog`` is the number of seconds within which the manager expects :meth:`alive`, or 0.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog = watchdog if address else 0.0
        self._failed = False

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str], pid: int) -> "Notifier":
        """Return the notifier for process ``pid``, and remove its variables from ``environ``."""
        address = environ.pop("NOTIFY_SOCKET", "")
        micros, owner = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        wanted = micros.isascii() and micros.isdecimal() and owner in ("", str(pid))
        return cls(address, min(int(micros[:16]), 10**15) / 1e6 if wanted else 0.0)

    def ready(self, status: str) -> None:
        """Report ready, at the start or after a reload. ``status`` is a line for ``systemctl status``."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report a reload. :meth:`ready` must follow, even if the configuration is refused."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Report that the process is stopping and delivers its remaining data."""
        self._tell("STOPPING=1", "STATUS=delivering the remaining data")

    def alive(self) -> None:
        """Report that the process works."""
        self._tell("WATCHDOG=1")

    def unwell(self, trouble: str) -> None:
        """Log why the process does not work. The manager acts if it gets no :meth:`alive` for long enough."""
        self._tell(f"STATUS={trouble}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.connect(self._address)
                sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError as error:
            if not self._failed:
                log.warning("the service manager cannot be notified (%s); this is logged once", error)
            self._failed = True


class _Flusher(Protocol):
    turns: int

    @property
    def interval(self) -> int: ...


class _Listener(Protocol):
    @property
    def address(self) -> str: ...
    @property
    def alive(self) -> bool: ...


class Watchdog:
    """Checks the forwarder twice per watchdog time of ``notifier``. Used once: ``start``, ``stop``.

    An interval may end late by at most the watchdog time.
    """

    def __init__(
        self,
        notifier: Notifier,
        flusher: _Flusher,
        listeners: Sequence[_Listener],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._notifier = notifier
        self._flusher = flusher
        self._listeners = listeners
        self._clock = clock
        self._turns = flusher.turns
        self._turned = clock.monotonic()
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start, if the manager uses a watchdog."""
        if self._notifier.watchdog:
            self._thread = threading.Thread(target=self._watch, name="forwarder watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop reporting. May be called twice, and without a start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> str:
        """Report that the forwarder is alive, or return what is wrong."""
        trouble = next(self._troubles(), "")
        if not trouble:
            self._notifier.alive()
        elif trouble != self._trouble:
            log.error("%s; the service manager gets no more keep-alive messages", trouble)
            self._notifier.unwell(trouble)
        self._trouble = trouble
        return trouble

    def _troubles(self) -> Iterator[str]:
        now = self._clock.monotonic()
        if self._flusher.turns != self._turns:
            self._turns, self._turned = self._flusher.turns, now
        patience = self._flusher.interval + self._notifier.watchdog
        if now - self._turned > patience:
            yield f"no interval has ended for more than {patience:g} s"
        for listener in self._listeners:
            if not listener.alive:
                yield f"{listener.address} is no longer read"

    def _watch(self) -> None:
        while not self._stopping.wait(self._notifier.watchdog / 2):
            self.look()
