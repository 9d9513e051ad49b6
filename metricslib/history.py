"""The last windows, for whoever looks at the page: bounded in number and in values."""

import threading
from collections import deque

from .window import Window

__all__ = ["History"]


class History:
    """Keeps up to ``windows`` windows that hold up to ``values`` series and members of sets together, and always the
    last one.
    """

    def __init__(self, windows: int = 60, values: int = 1_000_000) -> None:
        self._windows: deque[Window] = deque(maxlen=windows)
        self._values = values
        self._held = 0
        self._lock = threading.Lock()

    def append(self, window: Window) -> None:
        """Keep ``window``, and let the oldest go where a bound asks for it."""
        with self._lock:
            if len(self._windows) == self._windows.maxlen:
                self._held -= _values(self._windows.popleft())
            self._windows.append(window)
            self._held += _values(window)
            while self._held > self._values and len(self._windows) > 1:
                self._held -= _values(self._windows.popleft())

    def windows(self) -> list[Window]:
        """Return the kept windows, oldest first."""
        with self._lock:
            return list(self._windows)


def _values(window: Window) -> int:
    return len(window) + sum(map(len, window.uniques.values()))
