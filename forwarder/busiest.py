"""Which keys come most often: lines counted by key, for whoever looks for the one that floods the server.

In: what listeners hear. Out: at the end of each interval its busiest keys. Memory is bounded, whatever comes: see
:mod:`~.space_saving`. A key is the series' text, whatever its types and values are, and a line counts once, also one
that is bad; DogStatsD's events and service checks have no key.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from metricslib.series import join, split

from .parser import LONGEST_KEY, parse
from .space_saving import Counted, SpaceSaving

__all__ = ["CAPACITY", "Busiest"]

CAPACITY = 1000
"""Whatever has more than a thousandth of all lines is found, and no count is too high by more than that."""
SHOWN = 20
"""How many keys the page shows."""
_REMEMBERED = 256  # bytes of the longest key that is remembered as it is written


class Busiest:
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
