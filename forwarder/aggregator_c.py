"""Aggregates the lines of one listener, in C: the same aggregates and counts for the same bytes, many times faster.

C calls Python at most twice per batch: first for all new keys that are plain names, then for all other new keys and the
lines that C does not parse. C also reads sockets. Only one thread at a time may feed an aggregator.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.instruments.unique import MEMBERS, bounded_member
from metricslib.series import Kind
from metricslib.sketch import Distribution
from metricslib.window import Aggregates, GaugeChange

from . import _aggregator
from .parser import parse, with_tags
from .raw_keys import Keys, SourceRegistry, is_overflow
from .stats import BadLine, BadLines, Counts

__all__ = ["CAggregator"]

_KINDS: tuple[Kind, ...] = ("counter", "timer", "histogram", "gauge", "unique")
"""The kinds, in the order of their numbers in C."""
_REFUSED = -2
"""The number of a refused series, minus the index of the cause."""
_UNKNOWN = -1
_REFUSALS = ("filtered", "overflow_dropped")
_CAUSES = ("event", "service_check", *_REFUSALS, "unique_full", "out_of_memory")
"""The causes of dropped samples, in the order of the counts in C."""
_OTHERS = 512 * len(_KINDS)
"""Maximum number of series of the other lines of a batch: 512 lines, each with samples of every kind."""

RawKey = tuple[int, bytes, bytes]
"""A key as written in a line: the number of its kind, key, tags."""
Effect = tuple[int, int, int, float, float, bytes]
"""The effect of a sample: series, kind, whether it changes a gauge, value, weight, member of a set.

For a distribution, a true third field means that the effect corrects the sums: the value corrects the sum of the
samples, the weight that of their squares.
"""
Answer = tuple[list[Effect], int]
"""The effect of a line: the effects of its valid samples, and the number of bad ones."""


class CAggregator:
    """A source of ``registry``, fed by one listener: see :class:`~.aggregator.PythonAggregator`."""

    def __init__(
        self,
        registry: SourceRegistry,
        *,
        clock: Clock = SYSTEM_CLOCK,
        members: int = MEMBERS,
        keys: int = 1 << 20,
        key_bytes: int | None = None,
    ) -> None:
        budget = registry.budget
        size = budget.raw_keys.allowed if key_bytes is None else key_bytes
        self._keys = Keys(registry, keys, size)
        budget.watch_raw_keys(self)
        self._clock = clock
        self._seen = 0.0
        self._bad_lines = BadLines(clock)
        self._fed = False
        self._feeding = threading.Lock()
        self._dropping = threading.Lock()
        self._dropped: Counter[str] = Counter()
        self._forgotten: deque[tuple[int, str]] = deque()
        self._collected = Counts()
        self._collecting = threading.Lock()
        self._unfinished: tuple[Any, ...] | None = None
        seed = int.from_bytes(os.urandom(8), "little")
        room = budget.members.cell, budget.members.allowed
        self._c = _aggregator.Aggregator(
            self, registry.exact, members, keys, seed, Distribution, GaugeChange, size, *room
        )

    # -- for the listener

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Aggregate datagrams or blocks of complete lines. Never raises for them; invalid UTF-8 is replaced."""
        with self._feeding:
            self._seen = self._clock.time()
            self._fed = True  # C may process these chunks in several batches, but a bad line is reported once
            try:
                self._c.feed(chunks)
            finally:
                self._fed = False
            self._bad_lines.report()

    def receive(self, socket: int, wake: int, gather: float = 0.0) -> int:
        """Read datagrams of at most 64 KiB from the file descriptor ``socket`` until ``wake`` is readable.

        After the socket was empty and a datagram has arrived, wait ``gather`` seconds (less than one) for more, so that
        one system call reads many. If ``wake`` is -1, read at most one batch without waiting, and return the number of
        datagrams. Raises OSError.
        """
        with self._feeding:
            return self._c.receive(socket, wake, gather)

    def drop(self, cause: str, count: int = 1) -> None:
        """Count samples that the listener had to drop."""
        with self._dropping:
            self._dropped[cause] += count

    def flush(self) -> None:
        """Do nothing, because everything that was fed is in the next collection."""

    # -- for the registry

    def collect(self) -> Aggregates:
        """Return the aggregates since the last call. After a MemoryError, the next call returns them."""
        aggregates = Aggregates()
        with self._collecting:
            if self._unfinished is None:
                self._unfinished = self._c.collect()
            *found, account = self._unfinished
            self._collected = self._counts(account)
            self._unfinished = None
        aggregates.counters, aggregates.timers, aggregates.histograms, aggregates.gauges, aggregates.uniques = found
        return aggregates

    def forget(self, kind: Kind, key: str) -> None:
        """Forget an expired series, so that the registry is asked again when it returns."""
        self._forgotten.append((_KINDS.index(kind), key))
        self._c.interrupt()

    # -- for the page

    def counts(self) -> Counts:
        """Return the counts since the start."""
        return self._counts(self._c.account())

    def collected(self) -> Counts:
        """Return the counts at the last collection, of exactly the samples that have been collected."""
        return self._collected

    @property
    def key_bytes(self) -> int:
        """Bytes of the cached raw keys."""
        return self._c.key_bytes

    def bad_lines(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return self._bad_lines.recent()

    def _counts(self, account: tuple[int, ...]) -> Counts:
        packets, lines, aggregated, bad, *losses = account
        with self._dropping:
            dropped = self._dropped + Counter(dict(zip(_CAUSES, losses, strict=True)))  # those above 0
        received = aggregated + bad + dropped.total()
        return Counts(packets, lines, received, aggregated, bad, dict(dropped), max(self._seen, self._c.seen))

    # -- called by C, in the thread that feeds it

    def _before_batch(self) -> None:
        """Remove the series that expired since the last batch."""
        forgotten = []
        while self._forgotten:  # others may append meanwhile
            forgotten.append(self._forgotten.popleft())
        self._c.expire(forgotten)

    def _admit(self, names: Sequence[tuple[Kind, str]]) -> list[str] | None:
        """Return the keys of series with plain names, or None if they must be admitted one by one."""
        return self._keys.registry.admit_names(names, _OTHERS)

    def _answer(self, questions: Sequence[RawKey | bytes]) -> list[int | Answer]:
        """Answer the questions of a batch, in the order of its lines.

        The answer for a raw key is the number of its series, or of a refusal. The answer for a line is its effect.
        """
        self._keys.start_batch()
        answers = [self._read(asked) if isinstance(asked, bytes) else self._find(*asked) for asked in questions]
        if not self._fed:
            self._bad_lines.report()
        return answers

    def _find(self, kind: int, key: bytes, tags: bytes) -> int:
        return self._series(kind, with_tags(key.decode("utf-8", "replace"), tags.decode("utf-8", "replace")))

    def _read(self, line: bytes) -> Answer:
        text = line.decode("utf-8", "replace")
        parsed = parse(text)
        if parsed.bad:
            self._bad_lines.add(text, parsed.bad[0], len(parsed.bad))
        effects = []
        for kind, value, weight, relative, member, sum, sum_squares in parsed.samples:
            number = _KINDS.index(kind)
            kept = bounded_member(member).encode("utf-8", "surrogatepass")
            series = self._series(number, parsed.key)
            effects.append((series, number, int(relative), value, weight, kept))
            if sum or sum_squares:
                effects.append((series, number, 1, sum, sum_squares, b""))
        return effects, len(parsed.bad)

    def _series(self, kind: int, written: str) -> int:
        """Return the number of a series, and ask the registry only for a raw key that C does not know."""
        text = written.encode("utf-8", "surrogatepass")
        number = self._c.look_up(kind, text)
        if number == _UNKNOWN:
            number = self._ask(kind, written)
            self._c.remember(kind, text, number)
        return number

    def _ask(self, kind: int, written: str) -> int:
        key, cause = self._keys.ask(_KINDS[kind], written)
        if key is None:
            return _REFUSED - _REFUSALS.index(cause)
        return self._c.series(kind, key, is_overflow(key))
