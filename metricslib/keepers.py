"""Keepers: what must be remembered together with a cut, or not at all.

A cut and everybody's notes on it are committed as one. So what a keeper has noted is true of exactly the windows in the
spool: the number up to which a sender's batches are in them, say, or the totals behind them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from .survived import Survived
from .window import Cut

__all__ = ["Keeper", "Keepers"]


class Keeper(Protocol):
    """What has notes to be kept with each cut. Called by one thread at a time, the one that makes the cut.

    Keys begin with the keeper's own word: ``sender/…``, ``series/…``.
    """

    def notes(self, cut: Cut, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return what is to be noted anew with ``cut``, by key; None deletes a note.

        ``closes`` says that the cut ends its interval; one that does not is in the middle of it.
        """
        ...

    def kept(self, cut: Cut) -> None:
        """The cut and the notes on it are in the spool now: on disk, where there is a spool directory that works."""
        ...

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Take up what was noted before the program was started again; all notes, those of others among them."""
        ...


class Keepers:
    """All keepers of a flusher. One that fails is counted in ``survived``, and costs the others nothing."""

    def __init__(self) -> None:
        self._keepers: list[Keeper] = []

    def add(self, keeper: Keeper) -> None:
        """Ask ``keeper``, too, from the next cut on."""
        self._keepers.append(keeper)

    def commit(
        self, cut: Cut, commit: Callable[[Mapping[str, bytes | None]], object], survived: Survived, *, closes: bool
    ) -> None:
        """Ask everyone for notes on ``cut``, have ``commit`` keep them with it, and then tell everyone.

        Who failed to note is not told, for what it knows of the cut was not kept. Raises MemoryError where ``commit``
        does; it may be tried again then.
        """
        notes: dict[str, bytes | None] = {}
        noted: list[Keeper] = []
        for keeper in self._keepers:
            if survived.attempt("notes", partial(_note, keeper, cut, closes, notes)):
                noted.append(keeper)
        short: list[MemoryError] = []

        def kept() -> None:
            try:
                commit(notes)
            except MemoryError as error:
                short.append(error)
                raise

        if survived.attempt("commit", kept):
            for keeper in noted:
                survived.attempt("kept", partial(keeper.kept, cut))
        if short:
            raise short[0]

    def restore(self, notes: Mapping[str, bytes], survived: Survived) -> None:
        """Give everyone what was noted."""
        for keeper in self._keepers:
            survived.attempt("restore", partial(keeper.restore, notes))


def _note(keeper: Keeper, cut: Cut, closes: bool, notes: dict[str, bytes | None]) -> None:
    notes.update(keeper.notes(cut, closes=closes))
