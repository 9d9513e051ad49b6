"""The series of database queries: the timer ``db.client.operation.duration`` with its tags."""

from .._scope import Instruments
from ._base import Tagged, monotonic_of

__all__ = ["Queries", "operation"]

_ROWS = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "CALL"]
_TRANSACTIONS = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET"]
_SCHEMA = ["CREATE", "ALTER", "DROP", "TRUNCATE"]
OPERATIONS = frozenset([*_ROWS, *_TRANSACTIONS, *_SCHEMA])
"""Statements that are told apart; all others are ``OTHER``."""


class Queries:
    """Measures queries. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        self.now = monotonic_of(instruments)
        """The clock for ``began``, in seconds."""
        self._durations = Tagged(instruments.timer, "db.client.operation.duration", "system", "db", "operation")

    def observe(self, began: float, system: str, database: str, operation: str) -> None:
        """Add a query that began at ``began``: the kind of database, its name, and what was done, one of few words."""
        self._durations(system, database, operation).observe(max(0.0, self.now() - began))


def operation(statement: object) -> str:
    """Return the first word of a statement, if it is known; ``OTHER`` otherwise."""
    words = statement[:200].split(None, 1) if isinstance(statement, str) else ()
    word = words[0].rstrip(";(").upper() if words else ""
    return word if word in OPERATIONS else "OTHER"
