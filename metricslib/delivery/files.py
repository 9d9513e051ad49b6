"""Destinations on this machine: a file of JSON lines, and the console."""

import sys
from collections.abc import Mapping
from typing import TextIO

from ..naming import Naming
from ..window import Cut
from ..wire import graphite, jsonl
from . import lines
from .batch import Batch, Deadline, Undelivered
from .destination import Destination, Options
from .rotation import Rotation, append

__all__ = ["ConsoleDestination", "FileDestination"]


class FileDestination(Destination):
    """Appends a line of JSON for each window; see :mod:`..wire.jsonl`.

    The file is opened for each line, so it may be moved away at any time; with ``rotation`` it is moved aside here when
    it is large. A line is written by one call or not at all: what a full disk left of one is taken back, and what a
    crash left of one is ended before the next begins.
    """

    relays = False
    resend = False

    def __init__(
        self, label: str, path: str, naming: Naming, options: Options, *, rotation: Rotation | None = None
    ) -> None:
        super().__init__(label, options)
        self._path = path
        self._naming = naming
        self._rotation = rotation

    def encode(self, cut: Cut) -> list[Batch]:
        if not len(cut.whole):
            return []
        naming = self._naming
        line = jsonl.encode(cut.whole, naming.prefix, naming.percentiles, unprefixed=naming.unprefixed)
        return [Batch(cut.whole.end, len(cut.whole), line)]

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        try:
            append(self._path, payload, self._rotation, deadline)
        except OSError as error:
            raise Undelivered(f"{self._path}: {error.strerror}", payload) from error
        return {}


class ConsoleDestination(Destination):
    """Writes Graphite's lines to a text stream, by default whatever is standard output at that moment."""

    resend = False

    def __init__(self, label: str, naming: Naming, options: Options, stream: TextIO | None = None) -> None:
        super().__init__(label, options)
        self._naming = naming
        self._stream = stream

    def encode(self, cut: Cut) -> list[Batch]:
        stamp = cut.whole.end
        return lines.batches(stamp, graphite.encode(self._naming.pairs(cut.whole), stamp))

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        stream = self._stream or sys.stdout
        try:
            stream.write(payload.decode())
            stream.flush()
        except (OSError, ValueError, AttributeError) as error:  # a broken pipe; closed; a process without stdout
            raise Undelivered(f"the console: {error}", payload) from error
        return {}
