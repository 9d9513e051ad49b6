"""The state of a group: which slots are closed, and what they added up to.

Open slots are directories. A slot that is over and delivered closes: it is *folded* into one file, ``state``, so that
what a group keeps does not grow with its age. The state has

- the *mark*: slots at or before it are closed, but for those that the state lists as ``open``;
- the series of the group, with when each was last used, gauges that outlive their holders, and the totals of all closed
  slots: see :meth:`.KnownSeries.document`;
- how many times it was written, and the *names* of the directories that were folded into it last.

The shipper alone folds, in three steps, each a single system call that happens or does not::

    1700000010 ──rename──▶ 1700000010.folding-7 ──a new state that names it, renamed──▶ ──▶ deleted

After a crash at any line:

- before the first step the slot is open;
- after it, the directory has a name that no member writes to, and is not in the state: the next shipper folds it;
- ``state.new``, half written, is nothing: the next one is written over it;
- once the state has its new content, the directory is named there, and deleted by the next shipper.

So at any moment the totals of the group are the state, the open slots, and the ``.folding`` directories that the state
does not name. A slot that grows never counts twice, for it is in exactly one of them. Who reads while the shipper folds
reads the state, the slots, and the state again, and begins anew if anything is another: :class:`.GroupReader`.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoint import BadNote
from ..limits import Limits
from .merge import KnownSeries
from .record import FileReader, Slot, combine

__all__ = [
    "SlotFiles",
    "State",
    "folding_name",
    "read_state",
    "slots_in",
    "unfolded",
    "write_file",
    "write_state",
]

_write = json.JSONEncoder(separators=(",", ":"), default=float).encode


class State(NamedTuple):
    """What ``state`` says; see the module."""

    mark: int = 0
    folds: int = 0
    """How many states were written; it is in the names of what is folded next."""
    open: Sequence[int] = ()
    names: Sequence[str] = ()
    series: Any = None
    """The document of :class:`.KnownSeries`; None: nothing is known."""

    def known(self, limits: Limits | None = None) -> KnownSeries:
        """Return the series. Raises :class:`~..checkpoint.BadNote` where they make no sense."""
        return KnownSeries(limits) if self.series is None else KnownSeries.restored(self.series, limits)

    def closed(self, stamp: int) -> bool:
        """Whether the slot is closed."""
        return stamp <= self.mark and stamp not in self.open


def read_state(folder: Path) -> State:
    """Return the state of a group, an empty one where there is none.

    Raises :class:`~..checkpoint.BadNote` where it makes no sense, and OSError.
    """
    try:
        content = (folder / "state").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return State()
    try:
        document = json.loads(content)
        mark, folds = int(document["mark"]), int(document["folds"])
        return State(mark, folds, [*map(int, document["open"])], [*map(str, document["names"])], document["series"])
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadNote(str(error)) from error


def write_state(folder: Path, state: State, *, sync: bool = False) -> None:
    """Replace the state."""
    write_file(folder / "state", _write(state._asdict()).encode(), sync=sync)


def write_file(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Replace a file, all of it or nothing; ``sync``: so that it outlives a fall of the power, too."""
    aside = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(aside, flags, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(aside, path)
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have what was made and renamed in a directory outlive a fall of the power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- slots


class SlotFiles:
    """The files of one slot, each read as far as it goes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[int, FileReader] = {}

    def read(self, limits: Mapping[int, int] | None = None) -> bool:
        """Read what is new in all files, and return whether there was something. What was read stays, whatever becomes
        of the files. ``limits``: of these files alone, up to these bytes.
        """
        new = False
        try:
            entries = list(os.scandir(self.directory))
        except (FileNotFoundError, NotADirectoryError):
            return False
        for entry in entries:
            if entry.name.isdecimal() and (limits is None or int(entry.name) in limits):
                file = self.files.setdefault(int(entry.name), FileReader(self.directory / entry.name))
                try:
                    if file.grown(entry.stat(follow_symlinks=False)):
                        new |= file.read(None if limits is None else limits[int(entry.name)])
                except FileNotFoundError:  # deleted just now
                    continue
        return new

    def move_to(self, directory: Path) -> None:
        """The directory has another name now."""
        self.directory = directory
        for number, file in self.files.items():
            file.path = directory / str(number)

    @property
    def ends(self) -> dict[int, int]:
        """How much was read of each file."""
        return {number: file.end for number, file in self.files.items() if file.last}

    def combined(self) -> Slot:
        """Return what was read, as one."""
        return combine(self.files)


def folding_name(stamp: int, folds: int) -> str:
    """Return the name of a slot's directory while it is folded."""
    return f"{stamp}.folding-{folds}"


def slots_in(folder: Path) -> tuple[set[int], dict[str, int]]:
    """Return the stamps of open slots, and the names of directories that are being folded with theirs."""
    stamps, folding = set[int](), dict[str, int]()
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return stamps, folding
    for name in names:
        stamp, dot, rest = name.partition(".folding-")
        if stamp.isdecimal() and not dot:
            stamps.add(int(stamp))
        elif stamp.isdecimal() and rest.isdecimal():
            folding[name] = int(stamp)
    return stamps, folding


def unfolded(state: State, stamps: Iterable[int], folding: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return the directories whose content is not in the state, with their stamps, in order."""
    directories = [(stamp, str(stamp)) for stamp in stamps]
    directories += [(stamp, name) for name, stamp in folding.items() if name not in state.names]
    return sorted(directories)
