"""A registry's keeper: what of its state comes back after a restart, and when it is noted.

At the end of an interval it notes the totals and gauges of the series in which something happened: as much work as was
measured, however many series there are. In mid-interval it notes what of the open interval was sent, and the end of the
interval deletes that note. Series that expire or are deleted take their notes with them.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from .notes import BadNote, read_key, read_open, read_total, write_open, write_total
from .registry import Registry
from .series import KINDS, Kind, Series
from .totals import Total
from .window import Aggregates, Cut, OpenInterval

__all__ = ["RegistryKeeper"]

_OPEN = "open"
_SERIES = "series"

_Totals = dict[Kind, dict[str, Total]]


class RegistryKeeper:
    """Keeps the state of ``registry``. ``next_slot`` returns the stamp of its next window, and the interval in seconds.

    It is also a source of the registry, to be told what leaves. Series whose names begin with ``own`` tell of this
    process, and begin anew in the next; only what was sent of them in the open interval goes on. What was noted and
    cannot be read is counted in the registry's account, cause ``bad_note``, and series for which there is no room any
    more, cause ``not_restored``.
    """

    def __init__(self, registry: Registry, next_slot: Callable[[], tuple[int, int]], own: str = "") -> None:
        self._registry = registry
        self._next_slot = next_slot
        self._own = f"{own}." if own else "\0"
        self._next = 0  # the next place in the order
        self._unseen = False  # whether series may be known that were not looked at yet
        self._left: deque[str] = deque()  # keys of notes, from any thread
        self._pending: dict[str, bytes | None] = {}  # notes that are not known to be kept

    # -- a source, which has nothing

    def collect(self) -> Aggregates:
        """Return nothing."""
        return Aggregates()

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired or was deleted: its note goes with the next cut."""
        self._left.append(_key(kind, key))

    # -- a keeper

    def notes(self, cut: Cut, *, closes: bool) -> Mapping[str, bytes | None]:
        """Return what changed with ``cut``, and before if that was not kept."""
        pending = self._pending
        while self._left:  # first, for one that is in use again has a note again
            pending[self._left.popleft()] = None
        if self._unseen:
            self._unseen = False
            known, _ = self._registry.remembered()
            pending.update(self._noted(known, closes=False))
        changed, opened = self._registry.remembered(cut)
        pending.update(self._noted(changed, closes=closes))
        pending[_OPEN] = None if closes or opened is None else write_open(opened)
        return pending

    def kept(self, cut: Cut) -> None:
        """What was noted with ``cut`` is kept."""
        self._pending = {}

    def _noted(self, totals: list[tuple[Kind, str, Total]], *, closes: bool) -> Iterator[tuple[str, bytes]]:
        """Yield notes of those series that changed, which in mid-interval are only those that are new."""
        for kind, key, total in totals:
            if key.startswith(self._own) or not key.isascii():  # the latter is no series' text, and could not come back
                continue
            new = total.place is None
            if new:
                total.place = self._next
                self._next += 1
            if new or closes:
                yield _key(kind, key), write_total(total)

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """Go on from what an earlier process noted; a registry does that once, and from then on knows better."""
        self._unseen = True
        series = {key: note for key, note in notes.items() if key.startswith(f"{_SERIES}/")}
        if self._registry.restored:
            self._start_over([*series, _OPEN])
            return
        stamp, interval = self._next_slot()
        totals = self._read(series)
        opened = self._read_open(notes[_OPEN], totals, stamp) if _OPEN in notes else None
        self._next = 1 + max((total.place or 0 for known in totals.values() for total in known.values()), default=-1)
        self._registry.restore(totals, opened, stamp, interval)
        if opened:  # if its time is over, it changed totals
            for kind in KINDS:
                both = opened.sent[kind].keys() & totals[kind].keys()
                self._pending.update({_key(kind, key): write_total(totals[kind][key]) for key in both})

    def _start_over(self, keys: list[str]) -> None:
        """Have the next cut note all that is known in the place of what is noted."""
        self._pending.update(dict.fromkeys(keys))
        for _, _, total in self._registry.remembered()[0]:
            total.place = None

    def _read(self, notes: Mapping[str, bytes]) -> _Totals:
        found = []
        for note_key, note in notes.items():
            try:
                series = _series(note_key)
                found.append((series, read_total(series.kind, note)))
            except BadNote:
                self._registry.account.add("bad_note")
                self._pending[note_key] = None
        found.sort(key=lambda entry: entry[1].place or 0)
        totals: _Totals = {kind: {} for kind in KINDS}
        for series, total in found:
            if self._admit(series):
                totals[series.kind][series.key] = total
        return totals

    def _read_open(self, note: bytes, totals: _Totals, stamp: int) -> OpenInterval | None:
        try:
            opened, bad = read_open(note)
        except BadNote:
            self._registry.account.add("bad_note")
            return None
        if bad:
            self._registry.account.add("bad_note", bad)
        for kind in KINDS:
            for key in [key for key in opened.sent[kind] if key not in totals[kind]]:
                own = key.startswith(self._own)
                goes_on = own and kind != "gauge" and opened.end == stamp
                if not goes_on and (own or not self._admit(Series.of_key(kind, key))):
                    del opened.sent[kind][key]
        return opened

    def _admit(self, series: Series) -> bool:
        if self._registry.readmit(series):
            return True
        note_key = _key(series.kind, series.key)
        if note_key not in self._pending:  # it may be in the open interval, too
            self._registry.account.add("not_restored")
        self._pending[note_key] = None
        return False


def _key(kind: Kind, key: str) -> str:
    return f"{_SERIES}/{kind}/{key}"


def _series(note_key: str) -> Series:
    """Return the series that a note is of. Raises :class:`~.notes.BadNote`."""
    _, _, rest = note_key.partition("/")
    for kind in KINDS:
        if rest.startswith(f"{kind}/"):
            return read_key(kind, rest.removeprefix(f"{kind}/"))
    raise BadNote("no kind of series")
