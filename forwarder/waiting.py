"""Numbers of plain lines, by series and in order, that are in no aggregate yet: many are added faster than each.

In: columns of lines. Out: for each series a list of its numbers. Nothing here is done once a line but by C.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from metricslib.series import Kind

from .columns import Columns
from .keys import Keys
from .parser import KINDS, LONGEST_KEY

__all__ = ["Waiting"]

_TYPES = {letter: kind for letter, kind in KINDS.items() if kind != "unique"}


class _Numbers(dict[str, list[float]]):
    """By key as it is written, the list of its series; ``find`` is asked once for each key."""

    def __init__(self, find: Callable[[str], list[float]]) -> None:
        self._find = find

    def __missing__(self, written: str) -> list[float]:
        numbers = self[written] = self._find(written)
        return numbers


class Waiting:
    """What an intake was told in an interval by plain lines. One owner writes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.by_series: dict[Kind, defaultdict[str, list[float]]] = {
            kind: defaultdict(list) for kind in _TYPES.values()
        }
        """Series in order of first appearance; lists may be empty."""
        self.refused: defaultdict[str, list[float]] = defaultdict(list)
        """By cause, numbers of series that may not be."""
        self.count = 0
        """How many numbers wait."""
        self.ask_again()

    @property
    def series(self) -> int:
        """How many series there are."""
        return sum(map(len, self.by_series.values()))

    def ask_again(self) -> None:
        """Forget which series keys mean."""
        self._by_type = {letter: _Numbers(partial(self._find, kind)) for letter, kind in _TYPES.items()}

    def _find(self, kind: Kind, written: str) -> list[float]:
        if len(written) > LONGEST_KEY:
            raise KeyError(written)
        key = self._keys.find(kind, written)
        return self.refused[self._keys.refusal(kind, written)] if key is None else self.by_series[kind][key]

    def put(self, plain: Columns) -> bool:
        """Let numbers wait; return False, and do nothing, if not all are for series that take numbers."""
        if max(map(len, self._by_type.values())) > self._keys.limit:
            self.ask_again()  # there may be ever new spellings, of series over a cap
        try:
            lists = list(map(dict.__getitem__, map(self._by_type.__getitem__, plain.types), plain.keys))
        except KeyError:
            return False
        deque(map(list.append, lists, plain.numbers), maxlen=0)  # goes through them all
        self.count += len(plain.numbers)
        return True

    def taken(self, lists: Mapping[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
        """Go through those of ``lists`` in which numbers wait. Once the next is asked for, they wait no more."""
        for key, numbers in lists.items():
            if numbers:
                yield key, numbers
                self.count -= len(numbers)
                numbers.clear()
