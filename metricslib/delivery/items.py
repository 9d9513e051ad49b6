"""A batch as it waits in a spool, and several of them on their way."""

from collections.abc import Sequence

from .batch import Batch

__all__ = ["OVERHEAD", "Item", "Taken", "joined"]

OVERHEAD = 250
"""Bytes that a batch takes beside its payload; counts towards the bound, so that many small batches are bounded too."""


class Item:
    """A batch that waits, with the time it was put or, once delivered, delivered.

    ``batch`` is None while the payload is on disk alone; ``id`` is its place there, 0 for what is never to be there.
    """

    __slots__ = ("batch", "id", "length", "points", "repeat", "stamp", "time", "windows")

    def __init__(self, batch: Batch, time: float, id: int = 0, *, repeat: bool = False) -> None:
        self.batch: Batch | None = batch
        self.stamp = batch.stamp
        self.points = batch.points
        self.windows = batch.windows
        self.length = len(batch.payload)
        self.time = time
        self.id = id
        self.repeat = repeat

    @classmethod
    def on_disk(cls, batch: Batch, length: int, time: float, id: int) -> "Item":
        """Return the item of a batch whose payload, of ``length``, is on disk."""
        item = cls(batch, time, id)
        item.batch, item.length = None, length
        return item

    @property
    def size(self) -> int:
        return self.length + OVERHEAD


class Taken:
    """What is on its way: one item or several, and the batch they make, when it is read."""

    __slots__ = ("batch", "began", "items", "live")

    def __init__(self, items: Sequence[Item], live: bool, began: float) -> None:
        self.items = items
        self.live = live
        self.began = began
        self.batch: Batch | None = None


def joined(batches: Sequence[Batch], separator: bytes) -> Batch:
    """Return several batches as one, with ``separator`` between their payloads."""
    if len(batches) == 1:
        return batches[0]
    payload = separator.join([batch.payload for batch in batches])
    points, windows = sum(batch.points for batch in batches), sum(batch.windows for batch in batches)
    return Batch(batches[0].stamp, points, payload, windows)
