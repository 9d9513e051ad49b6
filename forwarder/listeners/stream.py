"""Listeners for streams: one thread serves all connections of a listener.

Closing a connection is an acknowledgement: a sender that half-closes its side and then reads the end of the stream
knows that everything was read. Therefore the listener feeds all data of a connection before it closes it, and closes
only connections that the peer has ended. All others, which were refused or cut off at shutdown, are reset, so that the
peer sees an error.

Connections are kept in the order of their last data. At the limit, a new connection replaces the one that has been idle
longest, if that was idle for at least a second: active senders keep their connections, and no data that was just sent
is lost.
"""

import selectors
import socket
from collections import OrderedDict

from metricslib.clock import SYSTEM_CLOCK, Clock

from ..foreign import is_foreign
from .base import Listener, Sink
from .framing import LONGEST, Lines

__all__ = ["CHUNK", "CONNECTIONS", "Connection", "StreamListener"]

CONNECTIONS = 1024
"""Maximum number of open connections. Beyond it, an idle connection is reset in favour of the new one, cause
``connections_evicted``; if none is idle, the new one is reset, cause ``connections_refused``."""
ACCEPTS = 64
"""Maximum number of connections that are accepted in a row while the open ones have no data."""
ACCEPTS_BESIDE = 8
"""Maximum number of connections that are accepted in a row while open ones have data, or the number of those, if that
is larger. Accepting takes longer than reading, and a flood of new connections must not delay the others."""
_BACKLOG = 1024  # connections that the kernel accepts in advance
_SILENT = 1.0  # seconds after which an idle connection may be reset in favour of a new one
CHUNK = 1 << 16
"""Maximum number of bytes that are read from a connection in one call."""
_BATCH = 1 << 20  # bytes that are collected in memory before they are fed
_HELD = 1.0  # seconds for which the sink may hold data back
_REST = 0.5  # seconds without accepting, after accepting failed for lack of descriptors or memory
_GRACE = 0.5  # maximum number of seconds for senders to finish at shutdown
_SILENCE = 0.05  # seconds without any data after which that time is over


class Connection:
    """An open connection, and its data after the last complete line."""

    __slots__ = ("head", "heard", "lines", "socket")

    def __init__(self, opened: socket.socket, lines: Lines, *, checked: bool = False) -> None:
        self.socket = opened
        self.lines = lines
        self.heard = 0.0
        """Time of the last data, or of the accept; on the monotonic clock."""
        self.head: bytes | None = b"" if checked else None
        """The first line so far, while it must still be checked; None after the check, or if there is none."""

    def is_foreign(self, chunk: bytes, *, ended: bool = False) -> bool:
        """Return whether the first line, which continues with ``chunk``, shows another protocol.

        ``ended``: the stream has ended. Once the result is True, it stays True.
        """
        if self.head is None:
            return False
        line, feed, _ = (self.head + chunk).partition(b"\n")
        whole = bool(feed) or ended or len(line) > LONGEST
        if is_foreign(line[: LONGEST + 1], whole=whole):
            self.head = line[: LONGEST + 1] + feed
            return True
        self.head = None if whole else line
        return False


class StreamListener(Listener):
    """Accepts connections and reads lines. The last line of a stream needs no line feed.

    Lines above the bound are dropped, cause ``line_too_long``, and so is a line that a reset cuts off, cause
    ``cut_off``. A connection in another protocol is reset before any of its lines counts, cause ``foreign_protocol``.
    """

    def __init__(self, sink: Sink, *, connections: int = CONNECTIONS, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(sink, clock)
        self._limit = connections
        self._connections: OrderedDict[int, Connection] = OrderedDict()  # in the order of their last data
        self._blocks: list[bytes] = []
        self._size = 0
        self._ended: list[Connection] = []
        self._flush_at: float | None = None
        self._accept_at: float | None = None

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._connections)

    def _new_connection(self, accepted: socket.socket) -> Connection:
        """Return the connection of an accepted socket."""
        return Connection(accepted, Lines())

    def _prepare(self, accepted: socket.socket) -> None:
        """Set the options of an accepted socket."""

    def _abort(self, connection: socket.socket) -> None:
        """Reset the connection, so that the peer sees an error."""
        self._abort_on_close(connection)
        connection.close()

    def _abort_on_close(self, connection: socket.socket) -> None:
        """Make a later close a reset, where this is possible."""

    def _on_wake(self) -> None:
        """Called when the thread is woken, to stop it or for a reason of the subclass."""

    def _hang_up(self, connection: socket.socket) -> None:
        """Prevent the peer from writing, where this is possible without losing what it has written."""

    # -- the thread

    def _read(self, sock: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while self._deadline is None:
                self._serve(sock, selector, self._timeout())
                self._keep_time(sock, selector)
            self._finish(sock, selector)

    def _timeout(self) -> float | None:
        due = [at for at in (self._flush_at, self._accept_at) if at is not None]
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _keep_time(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        now = self._clock.monotonic()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush()
            self._flush_at = None
        if self._accept_at is not None and now >= self._accept_at:
            selector.register(sock, selectors.EVENT_READ)
            self._accept_at = None

    def _serve(self, sock: socket.socket, selector: selectors.BaseSelector, timeout: float | None) -> bool:
        """Wait, read once from each connection that has data, and accept. Return True if any had data."""
        served = waiting = False
        heard = 0
        for key, _ in selector.select(timeout):
            if key.fileobj is sock:
                waiting = True
            elif key.data is not None:
                served = True
                heard += self._receive(key.data)
            else:
                self._on_wake()
        self._hand_over(selector)
        if waiting:  # last, because accepting may reset a connection whose data has just been read
            self._accept(sock, selector, min(ACCEPTS, max(ACCEPTS_BESIDE, heard)) if heard else ACCEPTS)
        return served

    def _accept(self, sock: socket.socket, selector: selectors.BaseSelector, most: int = ACCEPTS) -> bool:
        """Accept up to ``most`` connections. Return True if there may be more."""
        now = self._clock.monotonic()
        try:
            for _ in range(most):
                accepted, _ = sock.accept()
                if len(self._connections) >= self._limit and not self._evict(now, selector):
                    self._account.add("connections_refused")
                    self._aborted(accepted)
                    continue
                self._account.add("connections")
                accepted.setblocking(False)
                self._prepare(accepted)
                connection = self._new_connection(accepted)
                connection.heard = now
                self._connections[accepted.fileno()] = connection
                selector.register(accepted, selectors.EVENT_READ, connection)
        except BlockingIOError:
            return False
        except ConnectionError:  # gone before it was accepted
            self._account.add("connection_errors")
        except OSError:
            self._failed("accept_errors", f"no connection could be accepted on {self._address}")
            if self._deadline is None:
                selector.unregister(sock)
                self._accept_at = self._clock.monotonic() + _REST
            return False
        return True

    def _evict(self, now: float, selector: selectors.BaseSelector) -> bool:
        """Reset the connection that has been idle longest, if that is long enough. Return True if it was."""
        silent = next(iter(self._connections.values()))
        if now - silent.heard < _SILENT:
            return False
        self._account.add("connections_evicted")
        self._cut(silent, selector)
        return True

    def _receive(self, connection: Connection) -> bool:
        """Read once. Return True if there was data."""
        try:
            chunk = connection.socket.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            self._account.add("connection_errors")
            self._cut_off(connection)
            self._ended.append(connection)
            return False
        if chunk:
            connection.heard = self._clock.monotonic()
            self._connections.move_to_end(connection.socket.fileno())
            self._take(connection, chunk)
            return True
        if connection.is_foreign(b"", ended=True):
            self._refuse(connection)
        else:
            self._keep(connection.lines.close())
        self._ended.append(connection)
        return False

    def _take(self, connection: Connection, chunk: bytes) -> None:
        if connection.is_foreign(chunk):
            self._refuse(connection)
            self._ended.append(connection)
            return
        block, too_long = connection.lines.feed(chunk)
        if too_long:
            self._sink.drop("line_too_long", too_long)
        self._keep(block)

    def _refuse(self, connection: Connection) -> None:
        """End a connection in another protocol with a reset."""
        self._account.add("foreign_protocol")
        connection.lines.close()
        try:
            self._abort_on_close(connection.socket)
        except OSError:
            self._account.add("connection_errors")

    def _keep(self, block: bytes) -> None:
        if block:
            self._blocks.append(block)
            self._size += len(block)
            if self._size >= _BATCH:
                self._feed_blocks()

    def _cut_off(self, connection: Connection) -> None:
        if connection.lines.close():
            self._sink.drop("cut_off")

    def _feed_blocks(self) -> None:
        if self._blocks:
            self._feed(self._blocks)
            self._blocks = []
            self._size = 0
            if self._flush_at is None:
                self._flush_at = self._clock.monotonic() + _HELD

    def _hand_over(self, selector: selectors.BaseSelector) -> None:
        """Feed all data, and only then close the connections that have ended."""
        self._feed_blocks()
        if self._ended:
            self._flush()
            for connection in dict.fromkeys(self._ended):
                self._forget(connection, selector)
                connection.socket.close()
            self._ended = []

    def _forget(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        selector.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]

    # -- the end

    def _finish(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        for _ in range(_BACKLOG // ACCEPTS + 1):  # bounded, because new connections may arrive without end
            if self._late or not self._accept(sock, selector):
                break
        if self._accept_at is None:
            selector.unregister(sock)
        selector.unregister(self._wake_reader)
        self._close(sock)
        grace = self._clock.monotonic() + _GRACE
        while self._connections and not self._late and self._clock.monotonic() < grace:
            if not self._serve(sock, selector, _SILENCE):
                break
        for connection in list(self._connections.values()):
            self._cut(connection, selector)
        self._flush()

    def _cut(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        """Reset a connection that the peer has not ended. Its last line may be incomplete, and is dropped."""
        try:
            self._hang_up(connection.socket)
            while not self._late and connection not in self._ended and (chunk := connection.socket.recv(CHUNK)):
                self._take(connection, chunk)
        except BlockingIOError:
            pass
        except OSError:
            self._account.add("connection_errors")
        self._cut_off(connection)
        self._feed_blocks()
        self._forget(connection, selector)
        self._aborted(connection.socket)
        self._ended = [ended for ended in self._ended if ended is not connection]

    def _aborted(self, connection: socket.socket) -> None:
        try:
            self._abort(connection)
        except OSError:
            self._account.add("connection_errors")
