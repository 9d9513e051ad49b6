"""DogStatsD's way over Unix streams: packets of lines, each behind its length in four bytes, least first. No I/O.

Its clients take this way by themselves when they find a stream socket, and nothing tells it apart from plain lines but
the first bytes: those of a length below 64 KiB end in two zeros, which no line has.
"""

from .lines import LONGEST, Lines

__all__ = ["LinesOrPackets"]

_LENGTH = 4


class LinesOrPackets(Lines):
    """One stream, of lines or of packets; how it is cut into chunks changes nothing. A packet's end ends its last line.

    A packet need not be whole before its lines come out, so it may be of any length.
    """

    __slots__ = ("_head", "_left", "_packed")

    def __init__(self, longest: int = LONGEST) -> None:
        super().__init__(longest)
        self._packed: bool | None = None  # None: too little has come to know
        self._head = b""  # what has come of a length, or of what may be one
        self._left = 0  # bytes that are still to come of a packet

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Return the block of whole lines that ``chunk`` completes, and how many more lines were found too long."""
        if self._packed is None:
            chunk, self._head = self._head + chunk, b""
            if len(chunk) < _LENGTH:
                self._head = chunk
                return b"", 0
            self._packed = chunk[2:_LENGTH] == b"\0\0"
        return super().feed(self._unpacked(chunk) if self._packed else chunk)

    def close(self) -> bytes:
        """The stream ends: return what is left of it, whose last line may have no line feed."""
        if self._packed is None:
            block, _ = super().feed(self._head)
            return block + super().close()
        return super().close()

    def _unpacked(self, chunk: bytes) -> bytes:
        chunk, at = self._head + chunk, 0
        text = []
        while at < len(chunk):
            if self._left:
                part = chunk[at : at + self._left]
                self._left -= len(part)
                at += len(part)
                text.append(part if self._left else part + b"\n")
            elif len(chunk) - at >= _LENGTH:
                self._left = int.from_bytes(chunk[at : at + _LENGTH], "little")
                at += _LENGTH
            else:
                break
        self._head = chunk[at:]
        return b"".join(text)
