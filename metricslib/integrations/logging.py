"""Count the records that a program logs::

    from metricslib.integrations import logging

    logging.instrument()

The counter ``log.records``, tagged ``level`` and ``logger``, counts every record that reaches the root logger's
handlers. Loggers that do not propagate have their own call: ``logging.instrument("uvicorn.access")``.
"""

import logging

from .._scope import Instruments
from ..instruments.counter import Counter
from ._base import Tagged, instruments_of

__all__ = ["instrument"]


class _Counts(logging.Handler):
    """Counts records. It formats nothing, and takes no lock."""

    def __init__(self, records: Tagged[Counter]) -> None:
        super().__init__()
        self._records = records

    def createLock(self) -> None:
        """Counting needs no lock, so that it cannot wait for one."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Count the record, if the filters let it pass."""
        if not self.filter(record):
            return False
        self._records(record.levelname, record.name).inc()
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
    counts = _Counts(Tagged(instruments_of(instruments).counter, "log.records", "level", "logger"))
    found.addHandler(counts)
    return counts
