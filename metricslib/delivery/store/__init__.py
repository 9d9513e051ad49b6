"""Batches and checkpoints on disk, in SQLite."""

from .file import Record
from .store import Store, cannot_write

__all__ = ["Record", "Store", "cannot_write"]
