"""Measure the queries and the connection pool of an SQLAlchemy engine::

    from metricslib.integrations import sqlalchemy

    sqlalchemy.instrument(engine)

Each statement is one value of the timer ``db.client.operation.duration``, until the database has executed it, tagged
``system`` (``postgresql``), ``db`` (the name of the database) and ``operation`` (``SELECT``). The counter
``db.client.operation.exceptions`` counts errors of the database, tagged ``exception``. The gauge
``db.client.connection.count``, tagged ``db`` and ``state``, is the number of the pool's connections in use
(``state=used``) and at rest (``state=idle``). Every process has a pool of its own.
"""

from functools import partial
from typing import Any

from sqlalchemy import event

from .._scope import Instruments
from ._base import Tagged, instruments_of
from ._sql import Queries, operation

__all__ = ["instrument"]

_BEGAN = "_metricslib_began"
_MARK = "_metricslib_measured"


def instrument(engine: Any, *, name: str = "", instruments: Instruments | None = None) -> None:
    """Measure what ``engine`` executes from now on. A second call for one engine does nothing.

    Args:
        engine: An ``Engine``, or an ``AsyncEngine``.
        name: The value of the tag ``db``. Empty: the name of the database in the engine's URL.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    registry = instruments_of(instruments)
    engine = getattr(engine, "sync_engine", engine)
    if engine.__dict__.get(_MARK):
        return
    engine.__dict__[_MARK] = True
    queries, errors = Queries(registry), Tagged(registry.counter, "db.client.operation.exceptions", "exception")
    system = engine.dialect.name
    database = name or str(engine.url.database or "none").rpartition("/")[2]

    def before(_conn: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        setattr(context, _BEGAN, queries.now())

    def after(_conn: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        queries.observe(getattr(context, _BEGAN), system, database, operation(statement))

    def failed(context: Any) -> None:
        execution = context.execution_context
        if execution is not None and hasattr(execution, _BEGAN):
            queries.observe(getattr(execution, _BEGAN), system, database, operation(context.statement))
        errors(type(context.original_exception).__qualname__).inc()

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)
    for state, method in (("used", "checkedout"), ("idle", "checkedin")):
        if hasattr(engine.pool, method):  # NullPool keeps no connections and counts none
            tags = {"db": database, "state": state}
            registry.gauge("db.client.connection.count", read=partial(_of_pool, engine, method), tags=tags)


def _of_pool(engine: Any, method: str) -> float:
    """Return a figure of the engine's pool, which ``dispose()`` replaces."""
    return float(getattr(engine.pool, method)())
