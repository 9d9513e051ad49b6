"""A queue whose ``get`` respects its timeout. The standard ``queue.SimpleQueue`` may wait for ever.

``SimpleQueue.get(timeout=…)`` computes the remaining time again before its second wait. If it is negative, the wait has
no limit. This happens if the timeout is a microsecond, if the thread got no CPU for that long, or if a signal arrived
(CPython 3.11 to 3.14, ``Modules/_queuemodule.c``). A flusher that waits for ever would never send again, so every wait
with a timeout in this library uses this queue.
"""

import threading
import time
from collections import deque
from queue import Empty
from typing import Generic, TypeVar

__all__ = ["Empty", "TimedQueue"]

Item = TypeVar("Item")


class TimedQueue(Generic[Item]):
    """A FIFO queue without a bound. Any thread may use it; :meth:`put` may also be called from signal handlers,
    destructors and callbacks of the garbage collector, even while the same thread is in :meth:`get`.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._wakeup = threading.Lock()  # a binary semaphore: free if there may be new items
        self._wakeup.acquire()

    def put(self, item: Item) -> None:
        """Append ``item``. Never blocks."""
        self._items.append(item)
        self._wake()

    def get(self, timeout: float | None = None) -> Item:
        """Remove and return the first item. Wait for one at most ``timeout`` seconds, then raise :class:`Empty`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._wakeup.acquire(timeout=left):
                    raise Empty from None
            else:
                if self._items:  # another thread may wait for the next item
                    self._wake()
                return item

    def __len__(self) -> int:
        return len(self._items)

    def _wake(self) -> None:
        try:
            self._wakeup.release()
        except RuntimeError:  # it is free already
            pass
