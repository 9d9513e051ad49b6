"""What is common to all payloads: they are lines, which can be counted, and cut where a line ends.

Lines of Graphite all end in a newline. Those of statsd stand in datagrams, and an empty line stands between datagrams.
"""

import logging
from collections.abc import Iterator

from .batch import Batch

__all__ = ["BATCH", "LineLimit", "batches", "count", "pieces"]

log = logging.getLogger("metricslib")

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


class LineLimit:
    """Takes out of payloads the lines that are longer than their receiver can read.

    A receiver does worse than skip such a line. carbon and carbon-c-relay close the connection, and all that stands
    behind it is lost. A receiver of datagrams cuts it, and may take the rest for a point. So it is never sent. The
    destination counts it as lost, cause ``too_long``; the first one is logged.
    """

    def __init__(self, label: str, limit: int, option: str = "max_line") -> None:
        """``limit`` is the length of the longest line that ``label`` reads, in bytes without the line feed.

        ``option`` names the option of the URL that sets it.
        """
        self._label = label
        self._limit = limit
        self._option = option
        self._logged = False

    def take_out(self, payload: bytes) -> tuple[bytes, dict[str, int]]:
        """Return ``payload`` without the lines that are too long, and how many lines that costs, by cause."""
        kept, long = bytearray(), 0
        start = at = 0  # what is before start is done; what is before at is short enough
        while len(payload) - at > self._limit:
            feed = payload.rfind(b"\n", at, at + self._limit + 1)
            if feed >= 0:
                at = feed + 1
                continue
            end = payload.find(b"\n", at) + 1 or len(payload)
            self.report(payload[at:end])
            kept += payload[start:at]
            start = at = end
            long += 1
        if not long:
            return payload, {}
        return bytes(kept + payload[start:]), {"too_long": long}

    def report(self, line: bytes) -> None:
        """Log the first ``line`` that is too long."""
        if not self._logged:
            self._logged = True
            log.warning(
                "%s: a line of %d bytes is longer than %s=%d and was dropped, cause too_long: %.80s...; logged once",
                self._label,
                len(line.rstrip(b"\n")),
                self._option,
                self._limit,
                line.decode("utf-8", "replace"),
            )
