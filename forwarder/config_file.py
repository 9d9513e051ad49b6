"""Reads and parses a configuration file within bounds of size, time and nesting, whatever its content.

A running daemon reads its file again at a reload, so no file may block or crash it: not a FIFO without a writer, not a
device without an end, and not a text that takes the parser minutes or overflows the stack. ``tomllib`` recurses once
for each level of nesting, and copies a dotted key once for each of its parts, so both are counted before it parses the
text.
"""

import os
import re
import select
import time
import tomllib
from typing import Any

__all__ = ["LARGEST", "NESTING", "PATIENCE", "TooMuch", "parse", "read"]

LARGEST = 256 << 10
"""Maximum size of a file in bytes."""
NESTING = 16
"""Maximum number of nested brackets, and of parts of a dotted key. No option needs more than three."""
PATIENCE = 5.0
"""Maximum duration of reading, in seconds."""

# A string without an end reaches to the end of its line or of the text, so that each character is matched once.
_TEXT_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|' + r"'''.*?(?:'''|\Z)|" + r'"(?:\\.|[^"\\\n])*"?|' + r"'[^'\n]*'?|" + r"#[^\n]*",
    re.DOTALL,
)
_BRACKET_OR_KEY = re.compile(r"[\[{]|[]}]|[^][{}=,\n]+")


class TooMuch(ValueError):
    """A file that exceeds one of the bounds."""


def read(file: str, patience: float = PATIENCE) -> bytes:
    """Return the content of ``file``. Raises OSError, and :class:`TooMuch` for a file that is too large or too slow."""
    deadline = time.monotonic() + patience
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        found = b""
        while len(found) <= LARGEST:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TooMuch(f"cannot be read within {patience:g} seconds")
            chunk = os.read(descriptor, LARGEST + 1 - len(found))
            if not chunk:
                return found
            found += chunk
    finally:
        os.close(descriptor)
    raise TooMuch(f"has more than {LARGEST} bytes")


def parse(text: str) -> dict[str, Any]:
    """Return TOML ``text`` as a dictionary. Raises ValueError for invalid TOML, and :class:`TooMuch`."""
    if len(text) > LARGEST:
        raise TooMuch(f"has more than {LARGEST} bytes")
    depth = 0
    for part in _BRACKET_OR_KEY.findall(_TEXT_OR_COMMENT.sub('""', text)):
        depth += (part in "[{") - (part in "]}")
        if depth > NESTING or part.count(".") >= NESTING:
            raise TooMuch(f"has more than {NESTING} levels of nesting")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        raise TooMuch("has a number of thousands of digits") from error
