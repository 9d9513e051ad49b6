"""Copies the data of a listener to further consumers, such as the repeater."""

import logging
from collections.abc import Callable, Sequence

from .base import Sink

__all__ = ["Consumer", "Tee"]

log = logging.getLogger("forwarder")

Consumer = Callable[[Sequence[bytes]], object]
"""Receives chunks. It must return quickly, because the listener waits for it."""


class Tee:
    """A sink that feeds ``sink`` first, and then each of ``consumers``. A consumer that raises an exception is logged
    and removed.
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
                    log.exception("a consumer of the listeners' data failed and was removed")
                    self._consumers.remove(take)

    def drop(self, cause: str, count: int = 1) -> None:
        self._sink.drop(cause, count)

    def flush(self) -> None:
        self._sink.flush()
