"""Finds complete lines in a stream that may be split anywhere. No I/O.

:class:`Lines` splits at line feeds. :class:`LinesOrPackets` also reads the packets that DogStatsD's clients send over
Unix streams: each is preceded by its length in four bytes, least significant byte first. The first bytes distinguish
the two: a length below 64 KiB ends with two zero bytes, which no line contains.
"""

__all__ = ["LONGEST", "Lines", "LinesOrPackets"]

LONGEST = 8192
"""Maximum number of bytes of a line, without its line feed."""


class Lines:
    """One stream. The lines do not depend on how the stream is split into chunks.

    A line that is too long is skipped up to the next line feed, and counted once.
    """

    __slots__ = ("_longest", "_skipping", "_tail")

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._tail = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Return the lines that ``chunk`` completes, and the number of further lines that are too long."""
        end = chunk.rfind(b"\n")
        if self._skipping:
            start = chunk.find(b"\n") + 1
            if not start:
                return b"", 0
            self._skipping = False
            block, self._tail = chunk[start : end + 1], chunk[end + 1 :]
        elif end < 0:
            block, self._tail = b"", self._tail + chunk
        else:
            block, self._tail = self._tail + chunk[: end + 1], chunk[end + 1 :]
        block, too_long = self._checked(block)
        if len(self._tail) > self._longest:
            self._tail = b""
            self._skipping = True
            too_long += 1
        return block, too_long

    @property
    def waiting(self) -> bool:
        """True if there is an incomplete line."""
        return bool(self._tail)

    def close(self) -> bytes:
        """End the stream, and return the last line if it has no line feed."""
        tail, self._tail = self._tail, b""
        self._skipping = False
        return tail

    def _checked(self, block: bytes) -> tuple[bytes, int]:
        # Lines that fit into the bound together are checked at once.
        start = 0
        while start < len(block):
            feed = block.rfind(b"\n", start, start + self._longest + 1)
            if feed < 0:
                lines = block[:-1].split(b"\n")
                good = [line for line in lines if len(line) <= self._longest]
                return b"".join([line + b"\n" for line in good]), len(lines) - len(good)
            start = feed + 1
        return block, 0


_LENGTH = 4


class LinesOrPackets(Lines):
    """One stream of lines or of packets, split into chunks anywhere. The end of a packet ends its last line.

    Lines of an incomplete packet are returned as they arrive, so a packet may have any length.
    """

    __slots__ = ("_head", "_left", "_packed")

    def __init__(self, longest: int = LONGEST) -> None:
        super().__init__(longest)
        self._packed: bool | None = None  # None: not enough data to decide
        self._head = b""  # an incomplete length, or data that may be one
        self._left = 0  # remaining bytes of the packet

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Return the lines that ``chunk`` completes, and the number of further lines that are too long."""
        if self._packed is None:
            chunk, self._head = self._head + chunk, b""
            if len(chunk) < _LENGTH:
                self._head = chunk
                return b"", 0
            self._packed = chunk[2:_LENGTH] == b"\0\0"
        return super().feed(self._unpacked(chunk) if self._packed else chunk)

    def close(self) -> bytes:
        """End the stream, and return the remaining lines, of which the last may have no line feed."""
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
