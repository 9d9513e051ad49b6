"""Engines of SQLAlchemy, on a real SQLite."""

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.pool import NullPool

from metricslib.integrations import sqlalchemy

TAGS = "db=shop.db;operation={};system=sqlite"
DURATION = "db.client.operation.duration"


def test_statements_errors_and_connections(registry, measured, tmp_path):
    """Each statement once, although it was instrumented twice; a statement that fails, too."""
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db", pool_size=3)
    sqlalchemy.instrument(engine, instruments=registry)
    sqlalchemy.instrument(engine, instruments=registry)
    with engine.connect() as one, engine.connect() as other:
        one.execute(text("CREATE TABLE t (n INTEGER)"))
        one.execute(text("INSERT INTO t VALUES (:n)"), [{"n": 1}, {"n": 2}])
        other.execute(text("select n from t"))
        other.execute(text("  PRAGMA user_version"))
        with pytest.raises(exc.OperationalError):
            one.execute(text("SELECT nothing FROM nowhere"))
        counts = measured()
    assert counts == {
        f"{DURATION};{TAGS.format('CREATE')}": 1,
        f"{DURATION};{TAGS.format('INSERT')}": 1,
        f"{DURATION};{TAGS.format('SELECT')}": 2,
        f"{DURATION};{TAGS.format('OTHER')}": 1,
        "db.client.operation.exceptions;exception=OperationalError": 1,
        "db.client.connection.count;db=shop.db;state=idle": 0,
        "db.client.connection.count;db=shop.db;state=used": 2,
    }
    assert measured() == {
        "db.client.connection.count;db=shop.db;state=idle": 2,
        "db.client.connection.count;db=shop.db;state=used": 0,
    }
    engine.dispose()


def test_an_engine_without_a_pool_has_a_name(registry, measured, tmp_path):
    """Of NullPool there is nothing to count; the tag may be given."""
    engine = create_engine(f"sqlite:///{tmp_path}/x", poolclass=NullPool)
    sqlalchemy.instrument(engine, name="main", instruments=registry)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert measured() == {f"{DURATION};db=main;operation=SELECT;system=sqlite": 1}
    engine.dispose()
