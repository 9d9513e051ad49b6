"""Whole lines out of a stream that may be cut anywhere. No I/O."""

__all__ = ["LONGEST", "Lines"]

LONGEST = 8192
"""How many bytes a line may have, without its line feed."""


class Lines:
    """One stream. How it is cut into chunks changes nothing in the lines that come out.

    A line that is too long is left out, once, however long it is: reading goes on behind the next line feed.
    """

    __slots__ = ("_longest", "_skipping", "_tail")

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._tail = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> tuple[bytes, int]:
        """Return the block of whole lines that ``chunk`` completes, and how many more lines were found too long."""
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
        """Whether there is the beginning of a line."""
        return bool(self._tail)

    def close(self) -> bytes:
        """The stream ends: return its last line if it has no line feed."""
        tail, self._tail = self._tail, b""
        self._skipping = False
        return tail

    def _checked(self, block: bytes) -> tuple[bytes, int]:
        # As many lines as may follow each other within the bound are passed over at once.
        start = 0
        while start < len(block):
            feed = block.rfind(b"\n", start, start + self._longest + 1)
            if feed < 0:
                lines = block[:-1].split(b"\n")
                good = [line for line in lines if len(line) <= self._longest]
                return b"".join([line + b"\n" for line in good]), len(lines) - len(good)
            start = feed + 1
        return block, 0
