"""One file of a journal: batches and notes in SQLite, written by one process at a time.

Every change is a transaction, and on the disk when it returns: the log is written ahead (WAL) and synced at each commit
(``synchronous=FULL``). So neither kill -9 nor a power loss costs anything that was committed. A commit costs one sync:
about a millisecond on a disk that has a battery or flash behind it, ten on one that turns.

Each batch has a checksum. What SQLite finds wrong with the file raises :class:`sqlite3.DatabaseError`; :func:`damaged`
tells that from a disk that is merely full, read-only or away.
"""

import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .batch import Batch

__all__ = ["JournalFile", "Record", "Rescued", "damaged", "rescue"]

_OURS = 0x6D6C7370  # "mlsp"
_VERSION = 1
_SCHEMA = """
CREATE TABLE sums (place TEXT PRIMARY KEY, points INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, place TEXT NOT NULL, put REAL NOT NULL, stamp INTEGER NOT NULL, points INTEGER NOT NULL,
    windows INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE taken (id INTEGER PRIMARY KEY);
CREATE TABLE notes (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TRIGGER added AFTER INSERT ON batches BEGIN
    INSERT INTO sums VALUES (new.place, new.points) ON CONFLICT DO UPDATE SET points = points + new.points; END;
CREATE TRIGGER gone AFTER DELETE ON batches BEGIN
    UPDATE sums SET points = points - old.points WHERE place = old.place; END;
"""
# The sums come first, and so are on the first pages: they tell how much there was in a file that lost its end.
_LOG = 16 << 20
"""Bytes to which the log beside a file is cut after it was longer."""
_SPARE = 1024
"""Pages of four kibibytes that may stay unused in a file."""


@dataclass(frozen=True, slots=True)
class Record:
    """A batch in the file."""

    id: int
    """Gives the order."""
    place: str
    """Whose spool it is in."""
    put: float
    """When it was put there, in seconds since the epoch."""
    batch: Batch
    """Without its payload, where records are listed."""
    length: int
    """Of the payload."""
    taken: bool = False
    """Whether it was on its way when the file was left."""


class JournalFile:
    """Opens the file at ``path``, or makes it. Raises sqlite3.Error or OSError, and what does not open is not ours."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            _create(path)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")  # one process: no shared memory beside the file
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA secure_delete=OFF")
        execute("PRAGMA recursive_triggers=ON")  # what is replaced is gone
        execute(f"PRAGMA journal_size_limit={_LOG}")
        if not execute("SELECT 1 FROM sqlite_master").fetchone():  # new, or its maker died in the middle of it
            with self._transaction():
                for statement in _SCHEMA.strip().split(";\n"):
                    execute(statement)
                execute(f"PRAGMA application_id={_OURS}")
                execute(f"PRAGMA user_version={_VERSION}")
        found = (execute("PRAGMA application_id").fetchone()[0], execute("PRAGMA user_version").fetchone()[0])
        if found != (_OURS, _VERSION):
            raise sqlite3.DatabaseError(f"is no spool of version {_VERSION}")

    # -- change

    def write(
        self,
        records: Sequence[Record] = (),
        deleted: Iterable[int] = (),
        notes: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """Put records in, in the place of those with the same ids, take others out, and note: all of it or nothing."""
        gone = [(id,) for id in deleted]
        with self._transaction():
            self._db.executemany("DELETE FROM batches WHERE id = ?", gone)
            self._db.executemany("DELETE FROM taken WHERE id = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_row, records))
            marks = [(record.id,) for record in records if record.taken]
            self._db.executemany("INSERT OR IGNORE INTO taken VALUES (?)", marks)
            if notes:
                self._note(notes)
        if gone:
            self._shrink()

    def _note(self, notes: Mapping[str, bytes | None]) -> None:
        gone = ((key,) for key, value in notes.items() if value is None)
        self._db.executemany("DELETE FROM notes WHERE key = ?", gone)
        kept = (note for note in notes.items() if note[1] is not None)
        self._db.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", kept)

    def mark(self, ids: Iterable[int], taken: bool) -> None:
        """Remember that batches are on their way, or that they are not any more."""
        statement = "INSERT OR IGNORE INTO taken VALUES (?)" if taken else "DELETE FROM taken WHERE id = ?"
        with self._transaction():
            self._db.executemany(statement, [(id,) for id in ids])

    def _shrink(self) -> None:
        """Give back to the disk what a backlog took, once it is gone."""
        spare = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        if spare > _SPARE and not self._db.execute("SELECT 1 FROM batches LIMIT 1").fetchone():
            self._db.executescript("PRAGMA incremental_vacuum")  # execute() would give back a single page
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors end it by themselves
                self._db.execute("ROLLBACK")
            raise

    # -- read

    def records(self) -> list[Record]:
        """Return all that is in the file, oldest first, without payloads."""
        query = """
            SELECT id, place, put, stamp, points, windows, length(payload), taken.id IS NOT NULL
            FROM batches LEFT JOIN taken USING (id) ORDER BY id"""
        with closing(self._db.execute(query)) as rows:
            return [
                Record(id, place, put, Batch(stamp, points, b"", windows), length, bool(taken))
                for id, place, put, stamp, points, windows, length, taken in rows
            ]

    def record(self, id: int) -> Record | None:
        """Return one record whole; None if it is not there, or not as it was written."""
        row = self._db.execute("SELECT * FROM batches WHERE id = ?", (id,)).fetchone()
        return _record(*row) if row else None

    def check(self) -> None:
        """Raise sqlite3.DatabaseError where it is plain that the file is damaged: payloads aside, read it."""
        self.records()
        self.notes()

    def notes(self) -> dict[str, bytes]:
        """Return all notes by key."""
        return dict(self._db.execute("SELECT key, value FROM notes").fetchall())

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        query = "SELECT EXISTS (SELECT 1 FROM batches) OR EXISTS (SELECT 1 FROM notes)"
        return not self._db.execute(query).fetchone()[0]

    def close(self) -> None:
        """Let go of the file. Raises nothing: what was committed is there."""
        with suppress(sqlite3.Error):
            self._db.close()


@dataclass(frozen=True, slots=True)
class Rescued:
    """What could be read of a damaged file."""

    batches: int
    lost: Mapping[str, int]
    """How many points could not, by place, as far as the file still tells."""


def rescue(path: Path, into: JournalFile) -> Rescued:
    """Copy what can still be read, whole, of a damaged file."""
    rescued: dict[int, Record] = {}
    taken: set[int] = set()
    sums: Counter[str] = Counter()
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema=ON")  # else SQLite reads nothing of a file that is too short
        with suppress(sqlite3.Error):
            into.write(notes=dict(db.execute("SELECT key, value FROM notes")))
        with suppress(sqlite3.Error):
            taken.update(id for (id,) in db.execute("SELECT id FROM taken"))
        with suppress(sqlite3.Error):
            sums.update(dict(db.execute("SELECT place, points FROM sums WHERE typeof(points) = 'integer'")))
        for order in ("ASC", "DESC"):  # from both ends, each until something is in the way
            with suppress(sqlite3.Error):
                for row in db.execute(f"SELECT * FROM batches ORDER BY id {order}"):
                    record = _record(*row)
                    if record and record.id not in rescued:
                        into.write([replace(record, taken=record.id in taken)])
                        rescued[record.id] = record
    for record in rescued.values():
        sums[record.place] -= record.batch.points
    return Rescued(len(rescued), +sums)


def damaged(error: Exception) -> bool:
    """Whether the file is not what it should be; otherwise the disk is full, read-only, or away."""
    return type(error) is sqlite3.DatabaseError  # its children are for what is wrong with a disk or a statement


def _create(path: Path) -> None:
    """Make an empty file that nobody else can read, such that it is still there after a power loss."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _row(record: Record) -> tuple[object, ...]:
    batch = record.batch
    return (
        record.id,
        record.place,
        record.put,
        batch.stamp,
        batch.points,
        batch.windows,
        _crc(record),
        batch.payload,
    )


def _record(
    id: int, place: str, put: float, stamp: int, points: int, windows: int, crc: int, payload: Any
) -> Record | None:
    """Return a row as a record, None where it is not as it was written."""
    if not isinstance(payload, bytes):
        return None
    record = Record(id, place, put, Batch(stamp, points, payload, windows), len(payload))
    return record if _crc(record) == crc else None


def _crc(record: Record) -> int:
    batch = record.batch
    head = f"{record.place}\0{batch.stamp}\0{batch.points}\0{batch.windows}".encode(errors="replace")
    return zlib.crc32(batch.payload, zlib.crc32(head))
