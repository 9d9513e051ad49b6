"""What all listeners share: a socket, a thread that reads it until it is told to stop, and an account of errors.

Binding is apart from starting, so that a daemon can bind everything before it says that it is ready. Nothing is raised
out of the thread: an error is counted under its cause, and the thread goes on.
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

_SPARE = 1.0  # seconds that the thread may take beyond its deadline, for handing over what it has read


class Sink(Protocol):
    """What a listener feeds: an :class:`~forwarder.aggregator.Aggregator` or a :class:`~forwarder.graphite.Relay`."""

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Take datagrams, or blocks of whole lines."""
        ...

    def drop(self, cause: str, count: int = 1) -> None:
        """Count lines that could not be handed over."""
        ...

    def settle(self) -> None:
        """Pass on what is held back."""
        ...


class Listener:
    """One bound address. A listener is used once: ``bind``, ``start``, ``drain``, ``stop``."""

    _waker: socket.socket  # these two only while there is a thread
    _woken: socket.socket

    def __init__(self, sink: Sink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._account = DropCounter()
        self._socket: socket.socket | None = None
        self._shared = False  # whether the socket is somebody else's, too: then nothing is done to it that lasts
        self._address = ""
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None  # on the monotonic clock; set when the thread is to stop

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address or 'not bound'}>"

    @property
    def address(self) -> str:
        """The bound address as a URL, with the port that was taken; empty before :meth:`bind`."""
        return self._address

    def counts(self) -> dict[str, int]:
        """Return what happened to the socket since the start, by cause. Pieces are in the sink's account."""
        return self._account.totals()

    @property
    def alive(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def bind(self, given: socket.socket | None = None) -> None:
        """Take the address. Raises OSError when it cannot be had.

        ``given`` is a socket that somebody else bound to it, and keeps: what comes while nobody listens waits there.
        """
        self._shared = given is not None
        sock = self._open() if given is None else given
        sock.setblocking(False)
        self._socket = sock
        if self._shared:
            self._adopt(sock)
        self._address = self._url(sock)

    def start(self) -> None:
        """Begin to read."""
        self._waker, self._woken = socket.socketpair()
        thread = threading.Thread(target=self._main, name=f"forwarder {self._address}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._waker.close()
            self._woken.close()
            raise
        self._thread = thread

    def start_drain(self, deadline: float) -> None:
        """Begin what :meth:`drain` waits for, so that several listeners do it at the same time."""
        if self.alive:
            self._deadline = self._clock.monotonic() + deadline
            self._waker.send(b"\0")

    def drain(self, deadline: float) -> bool:
        """Take nothing new and hand over what the kernel already holds; return whether that was done in time.

        A listener that has something to say about what it took may go on saying it until :meth:`stop`.
        """
        return self.stop(deadline)

    def stop(self, deadline: float) -> bool:
        """Take nothing new, hand over what the kernel already holds, and close; return whether that was done in time.

        ``deadline`` is in seconds from now. Doing it again, or without a start, does no harm.
        """
        self._deadline = self._clock.monotonic() + deadline
        if self._thread is None:
            if self._socket is not None:
                self._close(self._socket)
            return True
        self._waker.send(b"\0")
        self._thread.join(deadline + _SPARE)
        if self._thread.is_alive():
            return False
        self._thread = None
        self._waker.close()
        self._woken.close()
        return True

    @property
    def _late(self) -> bool:
        """Whether the time to stop is over."""
        return self._deadline is not None and self._clock.monotonic() >= self._deadline

    def _main(self) -> None:
        assert self._socket is not None
        try:
            self._read(self._socket)
        except Exception:
            self._failed("listener_died", f"{self._address} is not read any more")
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
            self._failed("feed_error", f"what was read on {self._address} was lost")

    def _settle(self) -> None:
        try:
            self._sink.settle()
        except Exception:
            self._failed("feed_error", f"what was read on {self._address} was not passed on")

    # -- what each kind of listener does

    def _open(self) -> socket.socket:
        """Return the bound socket."""
        raise NotImplementedError

    def _adopt(self, sock: socket.socket) -> None:
        """Look at a socket that somebody else bound."""

    def _url(self, sock: socket.socket) -> str:
        """Return the bound address as a URL."""
        raise NotImplementedError

    def _read(self, sock: socket.socket) -> None:
        """Read until a deadline is set, then what is left until it is over."""
        raise NotImplementedError

    def _close(self, sock: socket.socket) -> None:
        """Give the address back."""
        sock.close()
