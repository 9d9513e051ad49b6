"""The series of database queries: the timer ``db.client.operation.duration`` with its tags."""

from .._scope import Instruments
from ..instruments.timer import Timer

__all__ = ["Queries"]

_ROWS = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "CALL"]
_TRANSACTIONS = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET"]
_SCHEMA = ["CREATE", "ALTER", "DROP", "TRUNCATE"]
OPERATIONS = frozenset([*_ROWS, *_TRANSACTIONS, *_SCHEMA])
"""Statements that are told apart; all others are ``OTHER``."""
_REMEMBERED = 10_000


class Queries:
    """Measures queries. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        self._timer = instruments.timer("db.client.operation.duration")
        self._known: dict[tuple[str, str, str], Timer] = {}
        self.now = self._timer._now
        """The clock for ``began``, in seconds."""

    def observe(self, began: float, system: str, database: str, statement: object) -> None:
        """Add a query that began at ``began``: its kind of database, the name of the database, and the statement."""
        self.add(began, system, database, operation(statement))

    def add(self, began: float, system: str, database: str, operation: str) -> None:
        """As :meth:`observe`, where the operation is known. It must be one of few."""
        seconds = max(0.0, self.now() - began)
        way = (system, database, operation)
        timer = self._known.get(way)
        if timer is None:
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            timer = self._known[way] = self._timer.tagged(system=system, db=database, operation=operation)
        timer.observe(seconds)


def operation(statement: object) -> str:
    """Return the first word of a statement, if it is known; ``OTHER`` otherwise."""
    words = statement[:200].split(None, 1) if isinstance(statement, str) else ()
    word = words[0].rstrip(";(").upper() if words else ""
    return word if word in OPERATIONS else "OTHER"
