"""The base class of all listeners: a socket, a thread that reads it until it is stopped, and a counter of errors.

Binding and starting are separate steps, so that a daemon can bind all sockets before it reports that it is ready. The
thread never ends with an exception: errors are counted by cause, and the thread continues.
"""

import logging
import socket
import threading
from collections.abc import Sequence
from typing import Protocol

from metricslib.clock import Clock
from metricslib.drops import DropCounter

__all__ = ["Listener", "Sink"]

log = logging.getLogger("forwarder")

_SPARE = 1.0  # seconds after its deadline in which the thread may still feed the data that it has read


class Sink(Protocol):
    """The receiver of a listener's data: an :class:`~forwarder.aggregator.Aggregator`, or a
    :class:`~forwarder.graphite.Relay`.
    """

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Process datagrams, or blocks of complete lines."""
        ...

    def drop(self, cause: str, count: int = 1) -> None:
        """Count lines that the listener had to drop."""
        ...

    def flush(self) -> None:
        """Pass on data that the sink holds back."""
        ...


class Listener:
    """One bound address. A listener is used once: ``bind``, ``start``, ``drain``, ``stop``."""

    _wake_writer: socket.socket  # both exist only while there is a thread
    _wake_reader: socket.socket

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._account = DropCounter()
        self._socket: socket.socket | None = None
        self._shared = False  # True if the service manager also has the socket; then it is not shut down
        self._address = ""
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None  # on the monotonic clock; set when the thread is to stop

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address or 'not bound'}>"

    @property
    def address(self) -> str:
        """The bound address as a URL, with the actual port; empty before :meth:`bind`."""
        return self._address

    def counts(self) -> dict[str, int]:
        """Return the number of events on the socket since the start, by cause. The sink counts samples."""
        return self._account.totals()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def bind(self, given: socket.socket | None = None) -> None:
        """Bind the address. Raises OSError if that fails.

        ``given`` is a socket that the service manager has bound and keeps open, so that data waits in it while no
        listener reads.
        """
        self._shared = given is not None
        sock = self._open() if given is None else given
        sock.setblocking(False)
        self._socket = sock
        if self._shared:
            self._adopt(sock)
        self._address = self._url(sock)

    def start(self) -> None:
        """Start the thread that reads."""
        self._wake_writer, self._wake_reader = socket.socketpair()
        thread = threading.Thread(target=self._main, name=f"forwarder {self._address}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._wake_writer.close()
            self._wake_reader.close()
            raise
        self._thread = thread

    def start_drain(self, deadline: float) -> None:
        """Start to drain without waiting, so that several listeners drain at the same time."""
        if self.alive:
            self._deadline = self._clock.monotonic() + deadline
            self._wake_writer.send(b"\0")

    def drain(self, deadline: float) -> bool:
        """Accept no new data, and feed what the kernel has already received. Return True if that was done in time.

        A listener may still send answers until :meth:`stop`.
        """
        return self.stop(deadline)

    def stop(self, deadline: float) -> bool:
        """Drain, and close the socket. Return True if that was done in time.

        ``deadline`` is in seconds from now. May be called more than once, and without :meth:`start`.
        """
        self._deadline = self._clock.monotonic() + deadline
        if self._thread is None:
            if self._socket is not None:
                self._close(self._socket)
            return True
        self._wake_writer.send(b"\0")
        self._thread.join(deadline + _SPARE)
        if self._thread.is_alive():
            return False
        self._thread = None
        self._wake_writer.close()
        self._wake_reader.close()
        return True

    @property
    def _late(self) -> bool:
        """True after the deadline of :meth:`drain` or :meth:`stop`."""
        return self._deadline is not None and self._clock.monotonic() >= self._deadline

    def _main(self) -> None:
        assert self._socket is not None
        try:
            self._read(self._socket)
        except Exception:
            self._failed("listener_died", f"{self._address} is no longer read")
        finally:
            try:
                self._close(self._socket)
            except OSError:
                self._failed("close_error", f"{self._address} could not be closed")

    def _failed(self, cause: str, what: str) -> None:
        """Count an error that is being handled, and log it the first time."""
        if cause not in self._account.totals():
            log.exception("%s", what)
        self._account.add(cause)

    def _feed(self, chunks: Sequence[bytes]) -> None:
        try:
            self._sink.feed(chunks)
        except Exception:
            self._failed("feed_error", f"data from {self._address} was lost")

    def _flush(self) -> None:
        try:
            self._sink.flush()
        except Exception:
            self._failed("feed_error", f"data from {self._address} was not passed on")

    # -- for subclasses

    def _open(self) -> socket.socket:
        """Return the bound socket."""
        raise NotImplementedError

    def _adopt(self, sock: socket.socket) -> None:
        """Inspect a socket that the service manager has bound."""

    def _url(self, sock: socket.socket) -> str:
        """Return the bound address as a URL."""
        raise NotImplementedError

    def _read(self, sock: socket.socket) -> None:
        """Read until a deadline is set, and then read the remaining data until the deadline."""
        raise NotImplementedError

    def _close(self, sock: socket.socket) -> None:
        """Close the socket."""
        sock.close()
