"""What is common to all payloads: they are lines, which can be counted, and cut where a line ends.

Lines of Graphite all end in a newline. Those of statsd stand in datagrams, and an empty line stands between datagrams.
"""

from collections.abc import Iterator

from .spool import Batch

__all__ = ["BATCH", "batches", "count", "pieces"]

BATCH = 1 << 20
"""Bytes in a batch, about: what a server takes within seconds, and must be sent again if it does not."""


def count(payload: bytes, *, datagrams: bool = True) -> int:
    """Return how many lines are in ``payload``, empty ones between ``datagrams`` left out.

    >>> count(b"a 1 0\\nb 2 0\\n"), count(b"a:1|c\\nb:1|c\\n\\nc:1|c"), count(b"")
    (2, 3, 0)
    """
    unterminated = bool(payload) and not payload.endswith(b"\n")
    empty = payload.count(b"\n\n") if datagrams else 0  # to look for them takes longer than all the rest
    return payload.count(b"\n") - empty + unterminated


def pieces(payload: bytes, separator: bytes, limit: int) -> Iterator[bytes]:
    """Cut ``payload`` after a separator into pieces of at most ``limit`` bytes; joined, they are ``payload``.

    Only what has no separator for longer than that makes a longer piece.
    """
    start, end = 0, len(payload)
    while end - start > limit:
        cut = payload.rfind(separator, start, start + limit)
        if cut < 0 and (cut := payload.find(separator, start + limit - len(separator) + 1)) < 0:
            break
        yield payload[start : cut + len(separator)]
        start = cut + len(separator)
    if start < end:
        yield payload[start:]


def batches(
    stamp: int, payload: bytes, separator: bytes = b"\n", *, windows: int = 1, size: int = BATCH
) -> list[Batch]:
    """Return ``payload`` in batches of about ``size`` bytes; the last one stands for the window."""
    parts = [part.removesuffix(b"\n\n") for part in pieces(payload, separator, size)]
    datagrams, last = separator != b"\n", len(parts) - 1
    return [
        Batch(stamp, count(part, datagrams=datagrams), part, windows if place == last else 0)
        for place, part in enumerate(parts)
    ]
