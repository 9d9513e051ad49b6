"""A spool in memory: what waits in it ends with the process."""

import threading
from collections.abc import Mapping

from .batch import Batch
from .items import Item, joined
from .lanes import Lanes
from .spool import Holdings

__all__ = ["MemorySpool"]


class MemorySpool:
    """Keeps batches in memory, within the bounds of ``lanes``."""

    def __init__(self, lanes: Lanes | None = None) -> None:
        self._lanes = lanes or Lanes()
        self._renew()

    def _renew(self) -> None:
        # Re-entrant, for a signal handler may stop the program while the same thread is reading the holdings.
        self._lock = threading.RLock()

    def put(self, batch: Batch) -> None:
        with self._lock:
            self._lanes.put(Item(batch, self._lanes.clock.monotonic()))

    def refuse(self, points: int, cause: str) -> None:
        with self._lock:
            self._lanes.refuse(points, cause)

    def head(self, *, hurry: bool = False) -> Batch | None:
        with self._lock:
            taken = self._lanes.take(hurry=hurry)
            if taken and not taken.batch:
                taken.batch = joined([item.batch for item in taken.items if item.batch], self._lanes.separator)
            return taken.batch if taken else None

    def pause(self) -> float | None:
        with self._lock:
            return self._lanes.pause()

    def settle(self, batch: Batch, remaining: Batch | None = None, lost: Mapping[str, int] | None = None) -> None:
        with self._lock:
            self._lanes.settle(batch, remaining, lost)

    def rewind(self, seconds: float) -> int:
        with self._lock:
            return self._lanes.rewind(seconds)

    def abandon(self, cause: str) -> int:
        with self._lock:
            return self._lanes.abandon(cause)

    def end(self, cause: str) -> int:
        return self.abandon(cause)

    def holdings(self) -> Holdings:
        with self._lock:
            return self._lanes.holdings()

    def forget(self) -> None:
        self._renew()
        self._lanes.clear()
