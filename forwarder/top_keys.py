"""Finds the most frequent keys, for an operator whose server is flooded.

In: the data of listeners. Out: at the end of each interval its most frequent keys, for the page, and for a file or the
log. A key is the text of a series, without types and values. Each line counts once, also a bad one. DogStatsD's events
and service checks have no key.

Memory is bounded by the space-saving algorithm: Ahmed Metwally, Divyakant Agrawal and Amr El Abbadi: Efficient
Computation of Frequent and Top-k Elements in Data Streams. Proceedings of the 10th International Conference on Database
Theory (ICDT), 2005, pages 398-412. There are m counters, each for one key. When all are in use, a new key takes over
the counter of the rarest one, which continues from its value, and this value is the error of the new key. So for N
lines in total:

* every key with more than N/m lines has a counter;
* a count is never too low, and at most too high by its error, which is at most N/m;
* the counts add up to N.

The rarest key is found in a heap of counts, which may be out of date. Since counts only grow, the top of the heap is
the rarest key as soon as its own count is up to date; until then it is put back with the current count. Each such
repair follows an increment, so adding costs O(log m) on average.

A line of the file is ``2026-01-31T12:00:00Z count=105 key=web.hits``, followed by ``error=3`` if the count may be too
high by 3. (statsd writes the time in JavaScript's format.) The file is opened for each report, so that it can be
rotated. It has mode 0640, and symbolic links are not followed.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from heapq import heappush, heapreplace
from typing import NamedTuple

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.delivery.files import open_to_append
from metricslib.series import join, split

from .parser import LONGEST_KEY, parse

__all__ = ["TopKeys", "CAPACITY", "Counted", "KeyFlush", "SpaceSaving"]


class Counted(NamedTuple):
    """The count of a key: between ``estimate - error`` and ``estimate``."""

    key: str
    estimate: int
    error: int


class SpaceSaving:
    """Counts texts in ``capacity`` counters. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}  # only those above 0
        self._heap: list[tuple[int, str]] = []
        self.total = 0
        """The number of counted lines."""

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: str, times: int = 1) -> None:
        """Count ``key``, once or several times."""
        counts = self._counts
        self.total += times
        if key in counts:
            counts[key] += times
        elif len(counts) < self._capacity:
            counts[key] = times
            heappush(self._heap, (times, key))
        else:
            error, rarest = self._rarest()
            del counts[rarest]
            self._errors.pop(rarest, None)
            counts[key] = error + times
            self._errors[key] = error
            heapreplace(self._heap, (error + times, key))

    def top(self) -> list[Counted]:
        """Return all keys with a counter, the most frequent first."""
        counted = [Counted(key, count, self._errors.get(key, 0)) for key, count in self._counts.items()]
        return sorted(counted, key=lambda entry: (-entry.estimate, entry.key))

    def _rarest(self) -> tuple[int, str]:
        """Bring the top of the heap up to date and return it."""
        while True:
            count, key = self._heap[0]
            now = self._counts[key]
            if count == now:
                return count, key
            heapreplace(self._heap, (now, key))


CAPACITY = 1000
"""Number of counters: every key with more than a thousandth of all lines is found, and no count is too high by more."""
SHOWN = 20
"""Number of keys on the page."""
_REMEMBERED = 256  # bytes of the longest raw key that is cached


class TopKeys:
    """Counts the keys of each interval. Thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._open = SpaceSaving(capacity)
        self._last: SpaceSaving | None = None

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Count the lines of datagrams, or of blocks of complete lines. Never raises for their content."""
        text = b"\n".join(chunks)
        lines = text.split(b"\n")
        tagged = b"|#" in text
        written = Counter([_written(line) for line in lines] if tagged else [line.partition(b":")[0] for line in lines])
        keys = [(_remembered(key) if len(key) <= _REMEMBERED else _key(key), times) for key, times in written.items()]
        with self._lock:
            add = self._open.add
            for key, times in keys:
                if key:
                    add(key, times)

    def end_interval(self) -> list[Counted]:
        """End the interval, and return its keys, the most frequent first."""
        with self._lock:
            last = self._last = self._open
            self._open = SpaceSaving(self._capacity)
        return last.top()

    def section(self) -> Sequence[Mapping[str, object]]:
        """Return the rows of the page: the last complete interval, or the first one while it lasts."""
        with self._lock:
            shown = self._last or self._open
            top, total = shown.top()[:SHOWN], shown.total
        return [
            {"Key": key, "Lines": count, "Too many by at most": error, "Percent": 100 * count / total}
            for key, count, error in top
        ]


def _written(line: bytes) -> bytes:
    """Return the key of a line with its tags."""
    metric, tagged, rest = line.partition(b"|#")
    return metric.partition(b":")[0] + tagged + rest.partition(b"|")[0]


def _key(written: bytes) -> str:
    """Return the text of the series of a raw key; empty if it is not a key, as in an empty line."""
    if not written.strip() or written.startswith((b"_e{", b"_sc|")):
        return ""
    name, tagged, tags = written.decode("utf-8", "replace").rstrip("\r").partition("|#")
    key = parse(f"{name}:1|c|#{tags}").key if tagged else name
    return join(*split(key[:LONGEST_KEY]))


_remembered = lru_cache(maxsize=1 << 14)(_key)


log = logging.getLogger("forwarder")

_PATIENCE = 1.0  # seconds


class KeyFlush:
    """Reports ``percent`` of the busiest keys every ``interval`` seconds, in ``file`` or, without one, in the log."""

    def __init__(
        self, top_keys: TopKeys, interval: float, percent: float = 100, file: str = "", *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.top_keys = top_keys
        self._interval = interval
        self._percent = percent
        self._file = file
        self._clock = clock
        self._failed = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the first interval."""
        thread = threading.Thread(target=self._run, name="forwarder key flush", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Stop reporting, without waiting for a file on a disk that hangs."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            if self._stopping.wait(due - time.monotonic()):
                return
            try:
                self.report()
            except Exception:
                log.exception("the busiest keys could not be reported")

    def report(self) -> None:
        """End the interval and report its busiest keys."""
        top = self.top_keys.end_interval()
        top = top[: math.ceil(len(top) * self._percent / 100)]
        if not self._file:
            for entry in top:
                log.info("busiest keys: %s", _formatted(entry))
        elif top:
            self._append(top)

    def _append(self, top: Sequence[Counted]) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.time()))
        try:
            with open(open_to_append(self._file), "a", encoding="utf-8") as file:
                file.writelines(f"{moment} {_formatted(entry)}\n" for entry in top)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("the busiest keys cannot be written to %s: %s", self._file, error.strerror)
            self._failed = True


def _formatted(entry: Counted) -> str:
    error = f" error={entry.error}" if entry.error else ""
    return f"count={entry.estimate} key={entry.key}{error}"
