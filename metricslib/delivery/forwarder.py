"""A forwarder as a destination that counts everything exactly once: deltas in numbered batches, over a stream socket.

A batch gets the id of its sender and a number when it is encoded. It may be sent again as often as necessary, even to a
restarted forwarder, or by another process that found it in the spool of a dead one, because the forwarder ignores
batches that it has already received. A batch is delivered when the forwarder has acknowledged it as safe.
"""

import os
import secrets
import select
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import compress

from ..naming import Naming
from ..window import Flush
from ..wire import statsd
from ..wire.numbered import Acks, Reader, new_batch, sync
from .batch import Batch, Deadline, Undelivered, batches_of
from .destination import Destination, Options
from .transport import SLICE, Endpoint, LineLimit, Transport, wait

__all__ = ["SOCKET", "ForwarderDestination", "LocalForwarder"]

SOCKET = "/run/forwarder/metrics.sock"
"""Where the forwarder of a host listens for its programs, as in ``packaging/forwarder.toml``."""

_BATCH = 1 << 16
"""Approximate number of bytes in a batch: a quarter of a forwarder's limit."""


class ForwarderDestination(Destination):
    """Sends the new values since the last flush, without idle series. An attempt lasts until the data is safe, which
    usually is the end of the forwarder's interval, or earlier if the deadline becomes urgent.
    """

    deltas = True
    shared = False
    relays = False

    def __init__(self, label: str, endpoint: Endpoint, naming: Naming, options: Options, limit: LineLimit) -> None:
        super().__init__(label, options)
        self._limit = limit
        self._prefix = naming.prefix
        self._talk = _Talk(endpoint, options.timeout)
        self._process = 0
        self._sender = ""
        self._number = 0

    def encode(self, flush: Flush) -> list[Batch]:
        if self._process != os.getpid():  # a forked child needs its own sender id
            self._process, self._sender, self._number = os.getpid(), secrets.token_hex(8), 0
        payload, _ = statsd.encode(flush.delta, self._prefix, _BATCH // 8, exact_sums=True)
        return [self._numbered(batch) for batch in batches_of(flush.delta.end, payload, statsd.SEPARATOR, size=_BATCH)]

    def _numbered(self, batch: Batch) -> Batch:
        self._number += 1
        payload = batch.payload.replace(statsd.SEPARATOR, b"\n") + b"\n"
        return replace(batch, payload=new_batch(self._sender, self._number, payload))

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        batches = Reader(len(payload)).feed(payload)
        acks = Acks(batch.sender for batch in batches)
        kept, lost = list[bytes](), list[Mapping[str, int]]()
        for batch in batches:  # a batch whose lines are all too long is sent empty, so that its number is received
            text, too_long = self._limit.take_out(batch.lines)
            kept.append(batch._replace(lines=text).framed)
            lost.append(too_long)
        try:
            last = {batch.sender: batch.number for batch in batches}
            self._talk.send(b"".join(kept), last, acks, deadline)
        except Undelivered as failure:
            unsafe = [batch.number > acks.safe[batch.sender] for batch in batches]
            remaining = list(compress(batches, unsafe))
            lost = [each for each, remains in zip(lost, unsafe, strict=True) if not remains]
            points = sum(batch.lines.count(b"\n") for batch in remaining)
            text = b"".join([batch.framed for batch in remaining])
            if remaining:
                raise Undelivered(failure.reason, text, _total(lost), points=points) from failure.__cause__
        return _total(lost)

    def close(self) -> None:
        self._talk.close()


class LocalForwarder(ForwarderDestination):
    """The forwarder of this host, starting with the first flush at which its socket exists.

    Before that, nothing is queued, because a machine without a forwarder is not an outage. Afterwards, it is a normal
    destination, so data waits while the forwarder restarts.
    """

    def __init__(self, label: str, endpoint: Endpoint, naming: Naming, options: Options, limit: LineLimit) -> None:
        super().__init__(label, endpoint, naming, options, limit)
        self._path = endpoint.path
        self._was_there = False

    def encode(self, flush: Flush) -> list[Batch]:
        self._was_there = self._was_there or os.path.exists(self._path)
        return super().encode(flush) if self._was_there else []


def _total(lost: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in lost:
        total.update(each)
    return total


class _Talk(Transport):
    """A connection for each payload, on which the forwarder answers."""

    kind = socket.SOCK_STREAM

    def __init__(self, endpoint: Endpoint, patience: float) -> None:
        super().__init__(endpoint)
        self._patience = patience

    def send(self, payload: bytes, last: Mapping[str, int], acks: Acks, deadline: Deadline) -> None:
        """Send ``payload``, and return when all batches of each sender up to its ``last`` number are safe.

        Raises :class:`Undelivered`; ``acks`` then knows which batches are safe. The deadline applies to the connection
        and the greeting. After that it is extended by the time that the forwarder may need.
        """
        opened = None
        try:
            opened = self._connect(deadline)
            while acks.interval is None:
                _listen(opened, acks, deadline)
            deadline.extend(2 * acks.interval + self._patience)
            _write(opened, payload, acks, deadline)
            hurried = False
            while any(acks.safe[sender] < number for sender, number in last.items()):
                if deadline.urgent and not hurried:
                    hurried = True
                    _write(opened, sync(), acks, deadline)
                _listen(opened, acks, deadline)
        except (OSError, UnicodeError) as error:
            raise Undelivered(self._reason(error), payload) from error
        finally:
            if opened is not None:
                self.close(opened)


def _write(opened: socket.socket, data: bytes, acks: Acks, deadline: Deadline) -> None:
    unwritten = memoryview(data)
    while unwritten:
        wait(opened, select.POLLOUT, deadline)
        unwritten = unwritten[opened.send(unwritten) :]
        _receive(opened, acks)


def _listen(opened: socket.socket, acks: Acks, deadline: Deadline) -> None:
    """Wait for an answer for a short time. Raises TimeoutError after the deadline."""
    if not deadline.left():
        raise TimeoutError
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    if poll.poll(min(deadline.left(), SLICE) * 1000):
        _receive(opened, acks)


def _receive(opened: socket.socket, acks: Acks) -> None:
    try:
        chunk = opened.recv(65536)
    except BlockingIOError:
        return
    if not chunk:
        raise ConnectionAbortedError("closed before it confirmed everything")
    acks.feed(chunk)
    if acks.broken:
        raise ConnectionAbortedError("the answer is not a forwarder's")
