"""What a journal's thread has before it: the process' own file, and those of dead processes to take over.

Raises sqlite3.Error or OSError where the disk refuses. A file that turns out to be damaged is set aside, and what can
be read of it is saved into a new one.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from .claims import Claim, claim_dead, claim_new
from .journal_file import JournalFile, Record, damaged, rescue
from .journal_spool import JournalSpool

__all__ = ["Desk"]

log = logging.getLogger("metricslib")

_CHUNK = 8 << 20

Result = TypeVar("Result")


class Desk:
    """The files in ``directory`` that are ours. What is found in them goes to ``spools``, by place."""

    def __init__(self, directory: Path, spools: Mapping[str, JournalSpool]) -> None:
        self.damage: str | None = None
        """What was set aside last, for people."""
        self._directory = directory
        self._spools = spools
        self._open: tuple[Claim, JournalFile] | None = None
        self._passed: set[tuple[Path, float]] = set()
        self._refused: set[Path] = set()

    @property
    def closed(self) -> bool:
        return self._open is None

    def open(self, *, own: bool) -> Mapping[str, bytes]:
        """Take over the last dead process' file if it is to be our ``own``, or make one; return the notes in it."""
        for claim in claim_dead(self._directory, self._refuse) if own else ():
            self._open = self._opened(claim)
            break
        else:
            self._open = self._made()
        self.hand_over(self._spools)
        return self._open[1].notes()

    def close(self, deleted: Iterable[int], notes: Mapping[str, bytes | None]) -> None:
        """Leave the file to others, or delete it when nothing is in it."""
        if not self._open:
            return
        claim, file = self._open
        self._open = None
        try:
            file.write(deleted=deleted, notes=notes)
            empty = file.empty
        except sqlite3.Error:
            empty = False
        file.close()
        if empty:
            claim.remove()
        claim.release()

    def work(self, work: Callable[[JournalFile], Result]) -> Result:
        """Do ``work`` on our file; on another if it turns out to be damaged."""
        assert self._open
        try:
            return work(self._open[1])
        except sqlite3.Error as error:
            if not damaged(error):
                raise
        claim, file = self._open
        file.close()
        self._open = None
        claim, file, _ = self._rescued(claim)  # what is lost of it, its spool finds out when it is to be sent
        self._open = claim, file
        return work(file)

    def hand_over(self, places: Iterable[str]) -> None:
        """Let spools have what waits for them in our file."""
        found: dict[str, list[Record]] = {}
        for record in self.work(JournalFile.records):
            found.setdefault(record.place, []).append(record)
        for place in places:
            if records := found.pop(place, []):
                self._find(place, records)
        for place in found.keys() - self._spools.keys():
            log.warning(
                "%d batches for %s wait in the spool; there is no such destination now", len(found[place]), place
            )

    def adopt(self) -> None:
        """Move what waits in the files of dead processes into ours, as far as there are spools for it."""
        for claim in claim_dead(self._directory, self._refuse):
            if (claim.path, claim.written()) in self._passed:
                claim.release()
                continue
            claim, file = self._opened(claim)
            empty = False
            try:
                self._move(file)
                empty = file.empty
            finally:
                file.close()
                self._passed.add((claim.path, claim.written()))
                if empty:
                    claim.remove()
                claim.release()

    def _move(self, other: JournalFile) -> None:
        """A few mebibytes at a time. A crash leaves a batch in one file, or in both under the same id."""
        listed = [record for record in other.records() if record.place in self._spools]
        while listed:
            chunk, size = [], 0
            while listed and size < _CHUNK:
                chunk.append(listed.pop(0))
                size += chunk[-1].length
            known = {record.id for record in chunk} & {record.id for record in self.work(JournalFile.records)}
            new = [record for record in chunk if record.id not in known]
            whole = [replace(read, taken=record.taken) for record in new if (read := other.record(record.id))]
            self.work(partial(JournalFile.write, records=whole))
            other.write(deleted=[record.id for record in chunk])
            self._found(new, {record.id for record in whole})

    def _found(self, records: Iterable[Record], whole: set[int]) -> None:
        by_place: dict[str, list[Record]] = {}
        for record in records:
            by_place.setdefault(record.place, []).append(record)
        for place, found in by_place.items():
            self._find(place, [record for record in found if record.id in whole])
            self._spools[place].lose(sum(record.batch.points for record in found if record.id not in whole), "corrupt")

    def _find(self, place: str, records: Iterable[Record]) -> None:
        if lost := self._spools[place].find(records):
            self.work(partial(JournalFile.write, deleted=lost))

    def _refuse(self, path: Path, why: str) -> None:
        if path not in self._refused:
            self._refused.add(path)
            log.warning("spool %s: %s is left alone: %s", self._directory, path.name, why)

    # -- files

    def _made(self) -> tuple[Claim, JournalFile]:
        claim = claim_new(self._directory)
        try:
            return claim, JournalFile(claim.path)
        except BaseException:
            claim.release()
            raise

    def _opened(self, claim: Claim) -> tuple[Claim, JournalFile]:
        """Open what a dead process left, or a new file with what can be read of it."""
        try:
            file = JournalFile(claim.path)
            try:
                file.check()
            except BaseException:
                file.close()
                raise
            return claim, file
        except Exception as error:
            if not damaged(error):
                claim.release()
                raise
        claim, file, lost = self._rescued(claim)
        for place in lost.keys() & self._spools.keys():
            self._spools[place].lose(lost[place], "corrupt")
        return claim, file

    def _rescued(self, damaged: Claim) -> tuple[Claim, JournalFile, Mapping[str, int]]:
        """Set the file aside; return a new one with what can be read of it, and how many points cannot, by place."""
        aside = damaged.set_aside()
        claim, file = self._made()
        rescued = rescue(aside, file)
        self.damage = f"a damaged file was set aside as {aside.name}; {rescued.batches} batches in it could be read"
        log.error("spool %s: %s", self._directory, self.damage)
        return claim, file, rescued.lost
