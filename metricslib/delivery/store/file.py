"""One file of a store: batches and a checkpoint in SQLite, written by one process at a time.

Every change is a transaction, which is on the disk when the call returns: the write-ahead log (WAL) is synced at each
commit (``synchronous=FULL``). So neither kill -9 nor a power failure loses a committed change, and after a crash at any
line, a change is there completely or not at all. A commit costs one sync, which takes about a millisecond on an SSD or
a disk with a battery-backed cache, and ten milliseconds on a hard disk.

Each batch has a checksum. If SQLite finds that the file is damaged, it raises :class:`sqlite3.DatabaseError`.
:func:`damaged` distinguishes this from a disk that is full, read-only or not available.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..batch import Batch

__all__ = ["Changes", "Record", "SpoolFile", "damaged", "points_in"]

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
# The sums come first, so they are on the first pages, and can be read even if the end of the file is lost.
_LOG = 4 << 20
"""Number of bytes to which SQLite truncates a write-ahead log that was longer."""
_PAGE = 4096
_SPARE = 1024
"""Maximum number of unused pages of 4 KiB in a file."""
_TRIFLE = 16
"""Number of unused pages that may stay in the file even if the disk is almost full."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored batch."""

    id: int
    """Unique among all files of a directory. Ids determine the order."""
    place: str
    """The name of its queue."""
    put: float
    """Time at which it was queued, in seconds since the epoch."""
    batch: Batch
    """In lists of records, without its payload."""
    length: int
    """Number of bytes of the payload."""
    taken: bool = False
    """True if it was being sent when its process ended."""


@dataclass(slots=True)
class Changes:
    """The changes of one transaction."""

    records: dict[int, Record] = field(default_factory=dict)
    """Records to insert, which replace those with the same ids."""
    gone: set[int] = field(default_factory=set)
    """Ids of records to delete."""
    marks: dict[int, bool] = field(default_factory=dict)
    """By id, whether a batch is being sent."""
    checkpoint: dict[str, bytes | None] = field(default_factory=dict)
    """Entries to set; None deletes one."""


class SpoolFile:
    """Opens or creates the file at ``path``. Raises sqlite3.Error or OSError, also if it is not a spool."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            _create(path)
        self._log = path.with_name(path.name + "-wal")
        self._log_name = os.fspath(self._log)
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._begin()
            self.records()  # so that opening fails if the damage is obvious
            self.checkpoint()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")  # only one process uses it, so no file for shared memory is needed
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA secure_delete=OFF")
        execute("PRAGMA recursive_triggers=ON")  # so that replacing a record also runs the trigger `gone`
        execute(f"PRAGMA journal_size_limit={_LOG}")
        if not execute("SELECT 1 FROM sqlite_master").fetchone():  # it is new, or its process died while creating it
            with self._transaction():
                for statement in _SCHEMA.strip().split(";\n"):
                    execute(statement)
                execute(f"PRAGMA application_id={_OURS}")
                execute(f"PRAGMA user_version={_VERSION}")
        found = (execute("PRAGMA application_id").fetchone()[0], execute("PRAGMA user_version").fetchone()[0])
        if found != (_OURS, _VERSION):
            raise sqlite3.DatabaseError(f"is not a spool of version {_VERSION}")

    def write(self, changes: Changes) -> None:
        """Write all changes in one transaction."""
        gone, entries = [(id,) for id in changes.gone], changes.checkpoint.items()
        unmarked = [(id,) for id, taken in changes.marks.items() if not taken]
        steps: list[tuple[str, Sequence[tuple[object, ...]]]] = [
            ("DELETE FROM batches WHERE id = ?", gone),
            ("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [*map(_row, changes.records.values())]),
            ("INSERT OR IGNORE INTO taken VALUES (?)", [(id,) for id, taken in changes.marks.items() if taken]),
            ("DELETE FROM taken WHERE id = ?", gone + unmarked),
            ("DELETE FROM notes WHERE key = ?", [(key,) for key, value in entries if value is None]),
            ("INSERT OR REPLACE INTO notes VALUES (?, ?)", [entry for entry in entries if entry[1] is not None]),
        ]
        with self._transaction():
            for statement, rows in steps:
                if rows:
                    self._db.executemany(statement, rows)
        if gone:
            self.shrink()

    @property
    def idle(self) -> bool:
        """Return True if the file contains no batch."""
        return not self._db.execute("SELECT 1 FROM batches LIMIT 1").fetchone()

    def shrink(self, spare: int | None = None) -> None:
        """If no batch is in the file, return its unused pages to the disk, except for ``spare`` pages.

        The default is a number of pages that is useful for the next batches, at most a quarter of the free space.
        """
        if not self.idle:
            return
        unused = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        with suppress(FileNotFoundError):
            unused = max(unused, os.stat(self._log_name).st_size // _PAGE)
        if spare is None:
            spare = _TRIFLE if unused <= _TRIFLE else min(_SPARE, self._room() // 4)
        if unused > spare:
            self._db.executescript("PRAGMA incremental_vacuum")  # execute() would free only one page
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _room(self) -> int:
        """Return the free space of the disk in pages."""
        try:
            disk = os.statvfs(self._log.parent)
        except OSError:  # the directory was removed
            return 0
        return disk.f_bavail * disk.f_frsize // _PAGE

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # some errors end the transaction
                self._db.execute("ROLLBACK")
            raise

    def records(self) -> list[Record]:
        """Return all batches, oldest first, without payloads."""
        query = """
            SELECT id, place, put, stamp, points, windows, length(payload), taken.id IS NOT NULL
            FROM batches LEFT JOIN taken USING (id) ORDER BY id"""
        with closing(self._db.execute(query)) as rows:
            return [
                Record(id, place, put, Batch(stamp, points, b"", windows), length, bool(taken))
                for id, place, put, stamp, points, windows, length, taken in rows
            ]

    @property
    def last_id(self) -> int:
        """The highest id in use, or 0."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()[0])

    def read(self, id: int) -> Record | None:
        """Return a record with its payload, or None if it does not exist or its checksum is wrong."""
        row = self._db.execute("SELECT * FROM batches WHERE id = ?", (id,)).fetchone()
        return _record(*row) if row else None

    def checkpoint(self) -> dict[str, bytes]:
        """Return the entries of the checkpoint by key."""
        return dict(self._db.execute("SELECT key, value FROM notes").fetchall())

    @property
    def empty(self) -> bool:
        """Return True if the file contains neither batches nor a checkpoint."""
        query = "SELECT EXISTS (SELECT 1 FROM batches) OR EXISTS (SELECT 1 FROM notes)"
        return not self._db.execute(query).fetchone()[0]

    def close(self) -> None:
        """Close the file. Never raises; committed changes are on disk."""
        with suppress(sqlite3.Error):
            self._db.close()


def points_in(path: Path) -> dict[str, int]:
    """Return the number of points in a damaged file, by place, as far as it can be read."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema=ON")  # otherwise SQLite refuses to read a truncated file
        query = "SELECT place, points FROM sums WHERE typeof(points) = 'integer' AND points > 0"
        return dict(db.execute(query).fetchall())
    return {}


def damaged(error: Exception) -> bool:
    """Return True if the file is damaged. Otherwise the disk is full, read-only, or not available."""
    return type(error) is sqlite3.DatabaseError  # its subclasses are for errors of a disk or a statement


def _create(path: Path) -> None:
    """Create an empty file that only its owner can read, and sync it, so that it survives a power failure."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _row(record: Record) -> tuple[object, ...]:
    batch = record.batch
    about = (record.id, record.place, record.put, batch.stamp, batch.points, batch.windows)
    return (*about, _crc(record), batch.payload)


def _record(
    id: int, place: str, put: float, stamp: int, points: int, windows: int, crc: int, payload: Any
) -> Record | None:
    """Return a row as a record, or None if its checksum is wrong."""
    if not isinstance(payload, bytes):
        return None
    record = Record(id, place, put, Batch(stamp, points, payload, windows), len(payload))
    return record if _crc(record) == crc else None


def _crc(record: Record) -> int:
    batch = record.batch
    head = f"{record.place}\0{batch.stamp}\0{batch.points}\0{batch.windows}".encode(errors="replace")
    return zlib.crc32(batch.payload, zlib.crc32(head))
