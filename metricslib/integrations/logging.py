"""Count the records that a program logs::

    from metricslib.integrations import logging

    logging.instrument()

The counter ``log.records``, tagged ``level`` and ``logger``, counts every record that reaches the root logger's
handlers. Loggers that do not propagate have their own call: ``logging.instrument("uvicorn.access")``.
"""

import logging

from .._scope import Instruments
from ..instruments.counter import Counter
from ._base import instruments_of

__all__ = ["instrument"]


class _Counts(logging.Handler):
    """Counts records. It formats nothing, and takes no lock."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter
        self._known: dict[tuple[str, str], Counter] = {}

    def createLock(self) -> None:
        """Counting needs no lock, so that it cannot wait for one."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Count the record, if the filters let it pass."""
        if not self.filter(record):
            return False
        way = (record.levelname, record.name)
        counter = self._known.get(way)
        if counter is None:
            counter = self._counter.tagged(level=record.levelname, logger=record.name)
            if len(self._known) < 10_000:
                self._known[way] = counter
        counter.inc()
        return True


def instrument(logger: logging.Logger | str = "", *, instruments: Instruments | None = None) -> logging.Handler:
    """Count the records of a logger and of those below it. A second call for one logger does nothing.

    Args:
        logger: The logger, or its name; empty: the root logger.
        instruments: A registry or a scope; None: the default registry.

    Returns:
        The handler, for ``setLevel()``, filters, or ``removeHandler()``.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    found = logging.getLogger(logger) if isinstance(logger, str) else logger
    for handler in found.handlers:
        if isinstance(handler, _Counts):
            return handler
    counts = _Counts(instruments_of(instruments).counter("log.records"))
    found.addHandler(counts)
    return counts
