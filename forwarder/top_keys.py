"""The keys that come most often, for an operator who looks for the one that floods the server.

In: what listeners receive. Out: at the end of each interval its most frequent keys, for the page, and for a file or the
log. A key is the series' text, whatever its types and values are, and a line counts once, also a bad one; DogStatsD's
events and service checks have no key.

Memory is bounded by the space-saving algorithm: Ahmed Metwally, Divyakant Agrawal and Amr El Abbadi: Efficient
Computation of Frequent and Top-k Elements in Data Streams. Proceedings of the 10th International Conference on Database
Theory (ICDT), 2005, pages 398-412. There are m counters, each for one key. When all are taken, a new key gets the
counter of the rarest one: the count goes on from where it was, and what was there before is the error. So of N lines in
all:

* every key with more than N/m lines has a counter;
* a count is never too low, and too high by its error at most, which is at most N/m;
* the counts add up to N.

The rarest key is found in a heap of counts as they were when they were put there. Since counts only grow, the top of
the heap is the rarest as soon as it is up to date; an entry that is not is put back with its count. Each such repair
follows an increment, so adding costs O(log m) on average.

A line of the file is ``2026-01-31T12:00:00Z count=105 key=web.hits``, followed by ``error=3`` if the count may be too
high by 3. In statsd's format the time is written as JavaScript shows dates. The file is opened for each report, so that
it can be rotated. Only its owner may read it, and no link is followed.
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
    """How often something came: at most ``estimate`` times, and at least ``estimate - error`` times."""

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
        """How many were counted."""

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
        """Return all that have a counter, the most frequent first."""
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
"""Whatever has more than a thousandth of all lines is found, and no count is too high by more than that."""
SHOWN = 20
"""How many keys the page shows."""
_REMEMBERED = 256  # bytes of the longest key that is remembered as it is written


class TopKeys:
    """Any thread may feed it and read it."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._open = SpaceSaving(capacity)
        self._last: SpaceSaving | None = None

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Count the lines of datagrams, or of blocks of whole lines. Never raises for what is in them."""
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

    def end(self) -> list[Counted]:
        """End the interval, and return its keys, the busiest first."""
        with self._lock:
            last = self._last = self._open
            self._open = SpaceSaving(self._capacity)
        return last.top()

    def section(self) -> Sequence[Mapping[str, object]]:
        """Return what the page shows: the busiest of the last whole interval, or of the first as long as that lasts."""
        with self._lock:
            shown = self._last or self._open
            top, total = shown.top()[:SHOWN], shown.total
        return [
            {"Key": key, "Lines": count, "Too many by at most": error, "Percent": 100 * count / total}
            for key, count, error in top
        ]


def _written(line: bytes) -> bytes:
    """Return a line's key, and its tags if it has any."""
    metric, tagged, rest = line.partition(b"|#")
    return metric.partition(b":")[0] + tagged + rest.partition(b"|")[0]


def _key(written: bytes) -> str:
    """Return the series' text for a key as it is written; nothing where it is none, as in an empty line."""
    if not written.strip() or written.startswith((b"_e{", b"_sc|")):
        return ""
    name, tagged, tags = written.decode("utf-8", "replace").rstrip("\r").partition("|#")
    key = parse(f"{name}:1|c|#{tags}").key if tagged else name
    return join(*split(key[:LONGEST_KEY]))


_remembered = lru_cache(maxsize=1 << 14)(_key)


log = logging.getLogger("forwarder")

_PATIENCE = 1.0  # seconds


class KeyFlush:
    """Tells ``percent`` of the busiest keys every ``interval`` seconds, in ``file`` or, without one, in the log."""

    def __init__(
        self, top_keys: TopKeys, interval: float, percent: float = 100, file: str = "", *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.busiest = top_keys
        self._interval = interval
        self._percent = percent
        self._file = file
        self._clock = clock
        self._failed = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the first interval."""
        thread = threading.Thread(target=self._run, name="forwarder key flush", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Tell nothing more. A file on a disk that hangs is not waited for."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            if self._over.wait(due - time.monotonic()):
                return
            try:
                self.report()
            except Exception:
                log.exception("the busiest keys could not be reported")

    def report(self) -> None:
        """End the interval and tell its busiest keys."""
        top = self.busiest.end()
        top = top[: math.ceil(len(top) * self._percent / 100)]
        if not self._file:
            for entry in top:
                log.info("busiest keys: %s", _told(entry))
        elif top:
            self._append(top)

    def _append(self, top: Sequence[Counted]) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.time()))
        try:
            with open(open_to_append(self._file), "a", encoding="utf-8") as file:
                file.writelines(f"{moment} {_told(entry)}\n" for entry in top)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("the busiest keys cannot be written to %s: %s", self._file, error.strerror)
            self._failed = True


def _told(entry: Counted) -> str:
    error = f" error={entry.error}" if entry.error else ""
    return f"count={entry.estimate} key={entry.key}{error}"
