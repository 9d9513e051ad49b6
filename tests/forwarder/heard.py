"""What a test hears in the place of an aggregator."""

import threading
from collections import Counter

from tests.sockets import PATIENCE


class Heard:
    """A sink that remembers everything, and lets a test wait for it."""

    def __init__(self):
        self.chunks: list[bytes] = []
        self.dropped: Counter[str] = Counter()
        self.flushed = 0
        self.events: list[str] = []
        self._changed = threading.Condition()

    def feed(self, chunks):
        with self._changed:
            self.chunks += chunks
            self.events.append("feed")
            self._changed.notify_all()

    def drop(self, cause, count=1):
        with self._changed:
            self.dropped[cause] += count
            self._changed.notify_all()

    def flush(self):
        with self._changed:
            self.flushed += 1
            self.events.append("flush")
            self._changed.notify_all()

    @property
    def lines(self) -> list[bytes]:
        return [line for chunk in self.chunks for line in chunk.split(b"\n") if line]

    def wait(self, lines: int = 0, dropped: int = 0, flushed: int = 0) -> "Heard":
        """Wait until so much was heard."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.lines) >= lines and self.dropped.total() >= dropped and self.flushed >= flushed,
                PATIENCE,
            ), f"heard only {self.lines[-5:]} … ({len(self.lines)} lines), {self.dropped}"
        return self


class Broken(Heard):
    """A sink that always fails."""

    def feed(self, chunks):
        super().feed(chunks)
        raise RuntimeError("this sink is broken")
