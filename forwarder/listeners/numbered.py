"""Listeners for numbered batches over TCP and Unix streams, which acknowledge the batches that are safe.

A batch is safe when the flusher has put the window that contains it into the spool. A repeated batch that is already
safe is acknowledged at once. A client that cannot wait for the next tick requests a flush; :class:`FlushRequests`
coalesces these requests.

The listener stops in two steps: first it stops reading, and when the last window is safe, it sends the last answers.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, cast

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.wire.numbered import Numbered, Reader, ack, greeting

from .base import Sink
from .framing import Lines
from .stream import CHUNK, CONNECTIONS, Connection, StreamListener
from .tcp import TcpListener
from .unix import MODE, UnixStreamListener

__all__ = [
    "Batches",
    "NumberedListener",
    "NumberedTcpListener",
    "NumberedUnixListener",
    "PATIENCE",
    "REST",
    "FlushRequests",
]

REST = 0.5
"""Minimum number of seconds between two flushes."""
PATIENCE = 10.0
"""Seconds without a result after which a flush is requested again, if a client still waits."""


class FlushRequests:
    """Coalesces flush requests into calls of ``sync``.

    Only one call runs at a time. The pause after a call is as long as the call took, but at least :data:`REST` seconds.
    """

    def __init__(self, sync: Callable[[], object]) -> None:
        self._sync = sync
        self._called: float | None = None  # time of the call in progress, or None
        self._again = False  # whether there was a request since then
        self._rested = 0.0
        self.due: float | None = None
        """The next time at which :meth:`keep_time` must be called; None: never."""

    def ask(self, now: float) -> None:
        """Request a flush."""
        self._again = self._called is not None
        self.due = max(now, self._rested) if self._called is None else self._called + PATIENCE

    def keep_time(self, now: float) -> None:
        """Call ``sync`` if a call is due."""
        if self.due is not None and now >= self.due:
            self._called, self._again, self.due = now, False, None
            self._sync()

    def done(self, now: float, *, again: bool) -> None:
        """Report that a flush is done. ``again``: a client still waits for its answer."""
        if self._called is not None:
            self._rested = now + max(REST, now - self._called)
        self._called = None
        self.due = self._rested if again and (self._again or self.due is not None) else None
        self._again = False


UNSAFE = 100_000
"""Maximum number of senders that wait for an answer."""
_LAST_CHUNKS = 100  # how often a connection is read before the end


class Batches(Protocol):
    """Recognises repeated batches: :class:`~forwarder.dedup.Deduplicator`."""

    def take(self, batch: Numbered, sink: Sink) -> bool:
        """Feed ``sink`` with the batch if it is new. Return True if it was."""
        ...

    def safe(self, sender: str) -> int:
        """Return the number up to which all batches of the sender are safe."""
        ...

    def listen(self, callback: Callable[[Mapping[str, int]], object]) -> None:
        """Call ``callback`` with numbers by sender whenever more batches are safe."""
        ...


class _Peer(Connection):
    __slots__ = ("reader",)

    def __init__(self, opened: socket.socket) -> None:
        super().__init__(opened, Lines())
        self.reader = Reader()


class NumberedListener(StreamListener):
    """Reads batches, and acknowledges them. Anything else ends its connection, cause ``no_batch``. Repeated batches are
    ignored and counted, ``batches_repeated``. A client that does not read its answers is reset, ``answers_unread``.
    """

    def _answer(self, batches: Batches, interval: Callable[[], int], sync: Callable[[], object]) -> None:
        """Use ``batches`` to recognise repeated and safe batches, and call ``sync`` when a client requests a flush. A
        tick comes every ``interval()`` seconds.
        """
        self._batches = batches
        self._interval = interval
        self._syncs = FlushRequests(sync)
        self._unsafe: dict[str, tuple[int, _Peer]] = {}  # by sender: its last number, and where to answer
        self._news: deque[Mapping[str, int]] = deque()  # written by the flusher's thread
        self._hushing = False
        self._hushed = threading.Event()
        batches.listen(self._tell)

    def drain(self, deadline: float) -> bool:
        if not self.alive:
            return self.stop(deadline)
        self.start_drain(deadline)
        return self._hushed.wait(deadline)

    def start_drain(self, deadline: float) -> None:
        self._hushing = True
        self._rouse()

    # -- from the flusher's thread

    def _tell(self, safe: Mapping[str, int]) -> None:
        self._news.append(safe)
        self._rouse()

    def _rouse(self) -> None:
        if self.alive:
            with suppress(OSError):  # it has been woken already, or has ended
                self._wake_writer.send(b"\0", socket.MSG_DONTWAIT)

    # -- the thread

    def _new_connection(self, accepted: socket.socket) -> Connection:
        with suppress(OSError):  # the next read reports the error
            accepted.send(greeting(self._interval()))
        return _Peer(accepted)

    def _take(self, connection: Connection, chunk: bytes) -> None:
        peer = cast(_Peer, connection)
        safe = {batch.sender: self._process(peer, batch) for batch in peer.reader.feed(chunk)}
        if answers := [ack(sender, number) for sender, number in safe.items() if number]:
            self._reply(peer, b"".join(answers))
        if peer.reader.syncs:
            peer.reader.syncs = 0
            if self._unsafe:
                self._syncs.ask(self._clock.monotonic())
        if peer.reader.broken:
            self._account.add("no_batch")
            self._ended.append(peer)

    def _process(self, peer: _Peer, batch: Numbered) -> int:
        """Process a batch. Return the number up to which the sender's batches are safe; 0 if this one is not."""
        new = True
        try:
            new = self._batches.take(batch, self._sink)
        except Exception:
            self._failed("feed_error", f"data from {self._address} was lost")
        self._account.add("batches" if new else "batches_repeated")
        safe = 0 if new else self._batches.safe(batch.sender)
        if safe >= batch.number:
            return safe
        number, _ = self._unsafe.pop(batch.sender, (0, peer))
        self._unsafe[batch.sender] = max(number, batch.number), peer
        if len(self._unsafe) > UNSAFE:  # the sender that has waited longest will repeat its batches
            del self._unsafe[next(iter(self._unsafe))]
        return 0

    def _on_wake(self) -> None:
        with suppress(BlockingIOError):
            self._wake_reader.recv(4096, socket.MSG_DONTWAIT)
        self._pass_on_news()

    def _pass_on_news(self) -> None:
        while self._news:
            safe = self._news.popleft()
            answers: dict[_Peer, bytes] = {}
            for sender in safe.keys() & self._unsafe.keys():
                number, peer = self._unsafe[sender]
                answers[peer] = answers.get(peer, b"") + ack(sender, safe[sender])
                if number <= safe[sender]:
                    del self._unsafe[sender]
            for peer, answer in answers.items():
                self._reply(peer, answer)
            self._syncs.done(self._clock.monotonic(), again=bool(self._unsafe))

    def _reply(self, peer: _Peer, answer: bytes) -> None:
        if peer.socket.fileno() < 0:  # the connection is closed; the client will repeat its batches
            return
        try:
            sent = peer.socket.send(answer)
        except OSError:
            sent = 0
        if sent < len(answer):
            self._account.add("answers_unread")
            self._ended.append(peer)

    # -- time

    def _timeout(self) -> float | None:
        others, due = super()._timeout(), self._syncs.due
        if due is None:
            return others
        wait = max(0.0, due - self._clock.monotonic())
        return wait if others is None else min(wait, others)

    def _keep_time(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        super()._keep_time(sock, selector)
        self._syncs.keep_time(self._clock.monotonic())
        if self._hushing and not self._hushed.is_set():
            self._fall_silent(sock, selector)
            self._hushed.set()

    # -- the end

    def _fall_silent(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        """Read all data that has arrived, and then stop accepting and reading."""
        if self._accept_at is None:
            selector.unregister(sock)
        self._accept_at = None
        self._close(sock)
        for connection in self._connections.values():
            self._read_out(connection)
        self._hand_over(selector)
        for connection in self._connections.values():
            selector.unregister(connection.socket)

    def _read_out(self, connection: Connection) -> None:
        with suppress(OSError):
            for _ in range(_LAST_CHUNKS):
                self._take(connection, connection.socket.recv(CHUNK))

    def _forget(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        if self._hushed.is_set():
            del self._connections[connection.socket.fileno()]
        else:
            super()._forget(connection, selector)

    def _finish(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self._pass_on_news()
        self._close(sock)
        for connection in self._connections.values():
            with suppress(OSError):  # otherwise unread data would cause a reset, which could discard the last answers
                connection.socket.shutdown(socket.SHUT_WR)
            connection.socket.close()
        self._connections.clear()
        self._flush()


class NumberedTcpListener(NumberedListener, TcpListener):
    """Listens for numbered batches on ``host`` and ``port``; port 0 selects a free one."""

    def __init__(
        self,
        host: str,
        port: int,
        sink: Sink,
        batches: Batches,
        *,
        interval: Callable[[], int],
        sync: Callable[[], object],
        connections: int = CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(host, port, sink, scheme="forwarder+tcp", connections=connections, clock=clock)
        self._answer(batches, interval, sync)


class NumberedUnixListener(NumberedListener, UnixStreamListener):
    """Listens for numbered batches on the socket file ``path``, with ``mode`` and, unless it is empty, ``group``."""

    def __init__(
        self,
        path: str,
        sink: Sink,
        batches: Batches,
        *,
        interval: Callable[[], int],
        sync: Callable[[], object],
        mode: int = MODE,
        group: str = "",
        connections: int = CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(path, sink, mode=mode, group=group, connections=connections, clock=clock)
        self._answer(batches, interval, sync)

    def _url(self, sock: socket.socket) -> str:
        return "forwarder+" + super()._url(sock)
