"""What a listener hears, for others beside the one that it feeds."""

import logging
from collections.abc import Callable, Sequence

from .base import Sink

__all__ = ["Consumer", "Tee"]

log = logging.getLogger("forwarder")

Consumer = Callable[[Sequence[bytes]], object]
"""Takes chunks and is quick about it, for the listener waits."""


class Tee:
    """A sink that hands everything to ``sink`` first, then to each of ``consumers``; what these raise is logged once,
    and they are not asked any more.
    """

    def __init__(self, sink: Sink, consumers: Sequence[Consumer]) -> None:
        self._sink = sink
        self._consumers = list(consumers)

    def feed(self, chunks: Sequence[bytes]) -> None:
        try:
            self._sink.feed(chunks)
        finally:
            for take in self._consumers.copy():
                try:
                    take(chunks)
                except Exception:
                    log.exception("something beside the listeners failed, and does not hear them any more")
                    self._consumers.remove(take)

    def drop(self, cause: str, count: int = 1) -> None:
        self._sink.drop(cause, count)

    def settle(self) -> None:
        self._sink.settle()
