"""Graphite's pickle protocol: points in, frames out. A frame is a length in four bytes and a pickled list of points.

carbon closes the connection when a frame exceeds 1 MiB, and all data after it is lost. So the number of points and the
size of a frame are bounded. Every version of carbon reads pickle protocol 2, and its unpickler only allows lists,
tuples, strings and numbers.
"""

import pickle
import struct
from collections.abc import Iterable, Iterator

from .graphite import Point

__all__ = ["FRAME", "POINTS", "encode_points", "size"]

POINTS = 500
"""Maximum number of points in a frame."""
FRAME = 1 << 18
"""Maximum number of bytes in a frame: a quarter of carbon's limit."""
_OVERHEAD = 64
"""Upper bound of the bytes of a point besides its path: value, timestamp, tuples, pickle marks."""
_LENGTH = struct.Struct("!I")


def encode_points(points: Iterable[Point], longest: int = FRAME) -> Iterator[bytes]:
    """Yield frames of the points, in order, of at most ``longest`` bytes. No path may have a larger :func:`size`."""
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
    """Return an upper bound of the bytes of a point in a frame."""
    return len(path.encode()) + _OVERHEAD


def _framed(frame: list[tuple[str, tuple[int, float]]]) -> bytes:
    pickled = pickle.dumps(frame, protocol=2)
    return _LENGTH.pack(len(pickled)) + pickled
