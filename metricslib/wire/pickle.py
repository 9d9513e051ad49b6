"""Graphite's pickle protocol: points in, frames out. A frame is a length in four bytes and a pickled list of points.

carbon closes the connection at a frame of more than a mebibyte, and everything behind it is gone; so frames end early,
by number of points and by size. Protocol 2 is what every carbon reads, and plain lists, tuples, texts and numbers are
all that its unpickler allows.
"""

import pickle
import struct
from collections.abc import Iterable, Iterator

from .graphite import Point

__all__ = ["FRAME", "POINTS", "encode_points", "size"]

POINTS = 500
"""Points in a frame, at most."""
FRAME = 1 << 18
"""Bytes in a frame, at most: a quarter of what carbon takes."""
_OVERHEAD = 64
"""More than what stands around a path: value, stamp, tuples, and marks of the pickle."""
_LENGTH = struct.Struct("!I")


def encode_points(points: Iterable[Point], longest: int = FRAME) -> Iterator[bytes]:
    """Yield the frames of points, in order, of at most ``longest`` bytes. :func:`size` of no path exceeds that."""
    frame: list[tuple[str, tuple[int, float]]] = []
    filled = 0
    for path, value, stamp in points:
        needed = size(path)
        if frame and (len(frame) == POINTS or filled + needed > longest):
            yield _framed(frame)
            frame, filled = [], 0
        frame.append((path, (stamp, float(value))))
        filled += needed
    if frame:
        yield _framed(frame)


def size(path: str) -> int:
    """Return how many bytes a point takes in a frame, rounded up."""
    return len(path.encode()) + _OVERHEAD


def _framed(frame: list[tuple[str, tuple[int, float]]]) -> bytes:
    pickled = pickle.dumps(frame, protocol=2)
    return _LENGTH.pack(len(pickled)) + pickled
