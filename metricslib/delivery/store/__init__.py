"""Batches and checkpoints on disk, in SQLite."""

from .file import Record
from .lockfile import cannot_write
from .store import Store

__all__ = ["Record", "Store", "cannot_write"]
