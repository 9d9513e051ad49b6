"""The backlog of a destination: what it has not confirmed of slots that are closed.

A slot closes ten minutes after its end, even in an outage. What then waits in the sender's queue is appended to a file
of the destination, in the bytes that are to be sent, before the slot closes. So what a group keeps for an outage does
not grow with its members, and outlives all of them. While the process lives, the queue is what is sent from, and it
has the bounds in bytes and in age and the account of what is dropped; the file is read by the next shipper, into its
queue. It is written anew when more than half of it is not waited for any more, and deleted when nothing is.

The file names what it contains: each batch with its slot. A slot that is appended once more supersedes the earlier one.

A batch is written as::

    magic "mlb1" | length of payload | checksum | stamp | points | windows | number in its slot | payload

After a crash at any line: a torn batch at the end, which is ignored, and cut off before the next is appended; or a
slot that is both in the backlog and open, and is sent twice, which changes nothing where the last value of a path wins.
"""

import os
import struct
import zlib
from collections.abc import Container, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ..delivery.batch import Batch
from .state import sync_directory

__all__ = ["Backlog"]

_MAGIC = b"mlb1"
_HEAD = struct.Struct("<4sII")
_REST = struct.Struct("<qqqI")
_SLACK = 1 << 20  # bytes by which the file may be larger than twice what waits
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Backlog:
    """The file of one destination. The shipper's alone."""

    def __init__(self, folder: Path, label: str, *, sync: bool = False) -> None:
        self.path = folder / f"backlog-{sha256(label.encode(errors='surrogatepass')).hexdigest()[:16]}"
        self._sync = sync
        self._sizes: dict[int, int] = {}
        """By stamp, as far as this process read or wrote them."""
        self._size = 0

    def read(self) -> list[Batch]:
        """Return what it contains, in the order of stamps."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        slots: dict[int, list[Batch]] = {}
        self._size = 0
        for number, batch, self._size in _batches(content):
            if not number:
                slots[batch.stamp] = []
            slots.setdefault(batch.stamp, []).append(batch)
        self._sizes = {stamp: sum(len(_record(0, batch)) for batch in slot) for stamp, slot in slots.items()}
        return [batch for stamp in sorted(slots) for batch in slots[stamp]]

    def append(self, batches: Sequence[Batch]) -> None:
        """Add batches, those of a slot together. Raises OSError where that cannot be; then it has none of them."""
        records, sizes = [], dict[int, int]()
        before = None
        for batch in batches:
            number = number + 1 if batch.stamp == before else 0  # noqa: F821
            before = batch.stamp
            records.append(_record(number, batch))
            sizes[batch.stamp] = sizes.get(batch.stamp, 0) + len(records[-1])
        self._write(self.path, b"".join(records), self._size)
        self._sizes.update(sizes)
        self._size += sum(sizes.values())

    def keep(self, waiting: Container[int]) -> None:
        """Forget the slots that are not ``waiting`` any more."""
        self._sizes = {stamp: size for stamp, size in self._sizes.items() if stamp in waiting}
        kept = sum(self._sizes.values())
        if self._size and not kept:
            self.path.unlink(missing_ok=True)
            self._size = 0
        elif self._size > 2 * kept + _SLACK:
            batches = [batch for batch in self.read() if batch.stamp in waiting]
            self._sizes, self._size = {}, 0
            aside = self.path.with_name(self.path.name + ".new")
            aside.unlink(missing_ok=True)
            path, self.path = self.path, aside
            try:
                self.append(batches)
            finally:
                self.path = path
            os.replace(aside, path)

    def _write(self, path: Path, content: bytes, at: int) -> None:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            os.ftruncate(descriptor, at)  # what is behind it is torn
            rest = memoryview(content)
            while rest:
                written = os.pwrite(descriptor, rest, at)
                at, rest = at + written, rest[written:]
            if self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if self._sync:
            sync_directory(path.parent)


def _record(number: int, batch: Batch) -> bytes:
    rest = _REST.pack(batch.stamp, batch.points, batch.windows, number) + batch.payload
    return _HEAD.pack(_MAGIC, len(batch.payload), zlib.crc32(rest)) + rest


def _batches(content: bytes) -> Iterator[tuple[int, Batch, int]]:
    """Yield the whole batches at the beginning of ``content``: number in the slot, batch, and where it ends."""
    at = 0
    while len(content) - at >= _HEAD.size + _REST.size:
        magic, length, checksum = _HEAD.unpack_from(content, at)
        begin, end = at + _HEAD.size, at + _HEAD.size + _REST.size + length
        if magic != _MAGIC or end > len(content) or zlib.crc32(memoryview(content)[begin:end]) != checksum:
            return
        stamp, points, windows, number = _REST.unpack_from(content, begin)
        yield number, Batch(stamp, points, content[begin + _REST.size : end], windows), end
        at = end
