"""Listener for commands over TCP, one per line. One thread serves all connections.

Neither commands nor answers accumulate in memory: a connection is read only after its last command has been answered,
and an answer is generated only as fast as the client reads it. A connection on which nothing happens is closed. statsd
treats all data that arrives together as a command, even without a line feed. Therefore, a line without a line feed
counts as complete after :data:`MOMENT` seconds.
"""

import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.view.hosts import is_loopback

from .framing import Lines
from .stream import Connection
from .tcp import TcpListener

__all__ = ["CommandListener"]

CONNECTIONS = 16
LONGEST = 4096
"""Maximum number of bytes of a command."""
IDLE = 300.0
"""Seconds without a command after which a connection is closed, cause ``idle``."""
STALL = 30.0
"""Seconds in which the client reads nothing of an answer, after which the connection is closed, cause ``stalled``."""
MOMENT = 0.2
"""Seconds after which received data counts as a line although the line feed is missing."""
_CHUNK = 8192
_ANSWER = 1 << 16  # bytes of an answer that are generated at once

Answer = Callable[[str], Iterable[str] | None]
"""Returns the answer to a command in parts, which may be generated lazily, or None to close the connection. Must not
raise."""


class _CommandConnection(Connection):
    """A connection with its pending commands and the unsent part of its answer."""

    __slots__ = ("answer", "commands", "due", "ended", "line_due", "unsent")

    def __init__(self, opened: socket.socket, now: float) -> None:
        super().__init__(opened, Lines(LONGEST), checked=True)
        self.commands: deque[str] = deque()
        self.answer: Iterator[str] | None = None
        self.unsent = b""
        self.ended = False
        self.due = now + IDLE
        self.line_due: float | None = None

    @property
    def busy(self) -> bool:
        return bool(self.unsent or self.answer or self.commands)


class _NullSink:
    """A sink that discards everything."""

    def feed(self, chunks: Sequence[bytes]) -> None: ...

    def drop(self, cause: str, count: int = 1) -> None: ...

    def flush(self) -> None: ...


class CommandListener(TcpListener):
    """Listens for commands on ``host`` and ``port``, and sends the results of ``answer``. Port 0 is a free one."""

    def __init__(
        self,
        host: str,
        port: int,
        answer: Answer,
        *,
        scheme: str = "console",
        connections: int = CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(host, port, _NullSink(), scheme=scheme, connections=connections, clock=clock)
        self._answer = answer

    @property
    def on_loopback(self) -> bool:
        """True if the address can only be reached from this machine."""
        if self._socket is None:
            return False
        return is_loopback(self._socket.getsockname()[0])

    def _new_connection(self, accepted: socket.socket) -> Connection:
        return _CommandConnection(accepted, self._clock.monotonic())

    def _command_connections(self) -> list[_CommandConnection]:
        return [cast(_CommandConnection, connection) for connection in self._connections.values()]

    # -- time

    def _timeout(self) -> float | None:
        due = [connection.due for connection in self._command_connections()]
        due += [connection.line_due for connection in self._command_connections() if connection.line_due is not None]
        if self._accept_at is not None:
            due.append(self._accept_at)
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _keep_time(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        super()._keep_time(sock, selector)
        now = self._clock.monotonic()
        for connection in self._command_connections():
            if connection.line_due is not None and now >= connection.line_due:
                connection.line_due = None
                if connection.is_foreign(b"", ended=True):
                    self._refuse(connection)
                    self._close_connection(connection, selector)
                    continue
                self._queue_commands(connection, connection.lines.close())
                self._serve_connection(connection, selector, read=False)
            elif now >= connection.due:
                self._account.add("stalled" if connection.busy else "idle")
                self._close_connection(connection, selector)

    # -- reading and writing

    def _serve(self, sock: socket.socket, selector: selectors.BaseSelector, timeout: float | None) -> bool:
        waiting = False
        for key, events in selector.select(timeout):
            if key.fileobj is sock:
                waiting = True
            elif key.data is not None:
                self._serve_connection(key.data, selector, read=bool(events & selectors.EVENT_READ))
        if waiting:
            self._accept(sock, selector)
        return bool(self._connections)

    def _serve_connection(
        self, connection: _CommandConnection, selector: selectors.BaseSelector, *, read: bool
    ) -> None:
        try:
            if read:
                self._read_once(connection)
            self._answer_pending(connection, selector)
        except BlockingIOError:
            pass
        except OSError:
            self._account.add("connection_errors")
            self._close_connection(connection, selector)
        except Exception:  # closing tells the client that the answer is incomplete
            self._failed("answer_errors", "a command could not be answered to the end")
            self._close_connection(connection, selector)

    def _read_once(self, connection: _CommandConnection) -> None:
        chunk = connection.socket.recv(_CHUNK)
        connection.ended = not chunk
        if connection.is_foreign(chunk, ended=connection.ended):
            self._refuse(connection)
            connection.ended = True
            return
        block, too_long = connection.lines.feed(chunk)
        if connection.ended:
            block = connection.lines.close()
        self._queue_commands(connection, block)
        if too_long:
            self._account.add("line_too_long", too_long)
            connection.commands.extend([""] * too_long)  # an empty command is unknown, so that the answer is an error
        connection.line_due = self._clock.monotonic() + MOMENT if connection.lines.waiting else None

    def _queue_commands(self, connection: _CommandConnection, block: bytes) -> None:
        """Queue the commands in ``block``, a block of complete lines. As in statsd, empty lines around them are
        ignored.
        """
        if block:
            connection.commands.extend(block.decode("utf-8", "replace").strip().split("\n"))

    def _answer_pending(self, connection: _CommandConnection, selector: selectors.BaseSelector) -> None:
        """Answer pending commands until the socket would block, and then wait until it is ready."""
        connection.heard = self._clock.monotonic()
        self._connections.move_to_end(connection.socket.fileno())
        while connection.busy and not connection.unsent:
            if connection.answer is None:
                answer = self._answer(connection.commands.popleft())
                if answer is None:
                    self._close_connection(connection, selector)
                    return
                connection.answer = iter(answer)
            connection.unsent = self._next_part(connection)
        if connection.unsent:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        if connection.ended and not connection.busy:
            self._close_connection(connection, selector)
            return
        connection.due = connection.heard + (STALL if connection.busy else IDLE)
        selector.modify(
            connection.socket, selectors.EVENT_WRITE if connection.busy else selectors.EVENT_READ, connection
        )

    def _next_part(self, connection: _CommandConnection) -> bytes:
        """Generate the next part of the answer, of about ``_ANSWER`` bytes."""
        assert connection.answer is not None
        parts: list[bytes] = []
        size = 0
        for part in connection.answer:
            parts.append(part.encode("utf-8", "replace"))
            size += len(parts[-1])
            if size >= _ANSWER:
                break
        else:
            connection.answer = None
        return b"".join(parts)

    def _cut(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        self._close_connection(cast(_CommandConnection, connection), selector)

    def _close_connection(self, connection: _CommandConnection, selector: selectors.BaseSelector) -> None:
        self._forget(connection, selector)
        connection.socket.close()

    # -- the end

    def _finish(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self._close(sock)
        for connection in self._command_connections():
            self._close_connection(connection, selector)
