"""Filters and caps for new series: filters change or exclude them, caps bound their number and their bytes.

They are applied once to each new series, in any thread and on hot paths of the application, so nothing here waits or
raises.
"""

import threading
from collections.abc import Sequence
from itertools import compress
from operator import is_, itemgetter

from .attempt import from_signal_handler
from .budget import Share, series_cost, series_costs
from .drops import DropCounter
from .errors import InvalidOption
from .series import KINDS, Filter, Kind, Series, Tags, join, series_of

__all__ = ["OVERFLOW", "Limits", "stands_in"]

OVERFLOW: Tags = (("overflow", "true"),)
"""The tags of the overflow series of a name, for tag sets above the cap."""
_OVERFLOW = "overflow"


def stands_in(key: str) -> bool:
    """Return True if the series is an overflow series."""
    name, _, tags = key.partition(";")
    return name == _OVERFLOW or tags == "overflow=true"


class Limits:
    """Counts the live series of a registry, in total and by name, and admits new ones."""

    def __init__(
        self, filters: Sequence[Filter], max_series: int, max_tag_sets: int, drops: DropCounter, room: Share
    ) -> None:
        """``room`` is the share of the memory limit for series."""
        for option, cap in (("max_series", max_series), ("max_tag_sets", max_tag_sets)):
            if not isinstance(cap, int) or cap < 1:
                raise InvalidOption(option, cap, "must be a whole number of at least 1")
        self._filters = tuple(filters)
        self._max_series = max_series
        self._max_tag_sets = max_tag_sets
        self.drops = drops
        self._room = room
        # Keys, by kind. Each key is also its own value, so that all callers share one object.
        self._admitted: dict[Kind, dict[str, str]] = {kind: {} for kind in KINDS}
        # One byte for each tag set of a name: unlike a number, a bytearray grows and shrinks atomically.
        self._tag_sets: dict[tuple[Kind, str], bytearray] = {}
        self._bulk = threading.Lock()
        self._reached: dict[tuple[str, Kind], str] = {}  # the caps reached by each kind, and a name above each

    def __len__(self) -> int:
        counters, timers, histograms, gauges, uniques = self._admitted.values()
        return len(counters) + len(timers) + len(histograms) + len(gauges) + len(uniques)  # called for each new series

    def admit(self, series: Series) -> str | None:
        """Return the key to use for ``series``, or None to exclude it.

        This is its own key, that of the filtered series, or that of an overflow series: ``name;overflow=true`` above
        the cap of tag sets, and ``overflow`` of its kind above the cap of series or bytes. Gauges above a cap are
        excluded, because a gauge with several writers has no meaning.
        """
        filtered = self._filter(series) if self._filters else series
        if filtered is None:
            self.drops.add("filtered")
            return None
        key = filtered.key
        known = self._admitted[filtered.kind].get(key)
        if known is not None:
            return known
        if self._too_many_tag_sets(filtered):
            return self._overflow(filtered, "max_tag_sets", join(filtered.name, OVERFLOW))
        if cap := self._full(filtered.kind, key):
            return self._overflow(filtered, cap, _OVERFLOW)
        return self._let_in(filtered, key)

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int) -> list[str] | None:
        """Admit many series without tags, whose names are canonical.

        Return their keys if :meth:`admit` would admit all of them and ``others`` more, or None, without any change, if
        it might exclude one.
        """
        if self._filters or not self._bulk.acquire(blocking=False):  # two calls at once could use the same room
            return None
        try:
            if len(self) + len(names) + others > self._max_series:
                return None
            costs = series_costs(names)
            if not self._room.fits(sum(costs)):
                return None
            admitted = self._admitted
            keys = [admitted[kind].setdefault(name, name) for kind, name in names]
            # Names are distinct objects, so a key is new if it is the same object as its name.
            self._room.add(sum(compress(costs, map(is_, keys, map(itemgetter(1), names)))))
            return keys
        finally:
            self._bulk.release()

    def restore(self, series: Series) -> bool:
        """Admit a series of an earlier process, without filters. Return False if a cap is reached."""
        key = series.key
        if stands_in(key):  # it does not count
            return True
        if key not in self._admitted[series.kind] and (self._too_many_tag_sets(series) or self._full(series.kind, key)):
            return False
        self._let_in(series, key)
        return True

    def _too_many_tag_sets(self, series: Series) -> bool:
        return bool(series.tags) and len(self._tag_sets.get((series.kind, series.name), ())) >= self._max_tag_sets

    def _full(self, kind: Kind, key: str) -> str | None:
        """Return the option whose cap excludes one more series."""
        if len(self) >= self._max_series:
            return "max_series"
        return None if self._room.fits(series_cost(kind, key)) else "max_bytes"

    def readmit(self, series: Series) -> None:
        """Count a series again that had expired and is used again. It counts even above a cap, because it exists."""
        self._let_in(series, series.key)

    def _let_in(self, series: Series, key: str) -> str:
        admitted = self._admitted[series.kind]
        if (known := admitted.get(key)) is not None:
            return known
        kept = admitted.setdefault(key, key)
        # A key with tags is a new object each time, so the one that was kept has just been added. A name can be the
        # same object in two threads that use it for the first time at once; then its bytes count twice.
        if kept is key:
            self._room.add(series_cost(series.kind, key))
            if series.tags:
                self._tag_sets.setdefault((series.kind, series.name), bytearray()).append(0)
        return kept

    def release(self, series: Series) -> None:
        """Stop counting an expired series."""
        key = self._admitted[series.kind].pop(series.key, None)
        if key is None:
            return
        self._room.add(-series_cost(series.kind, key))
        if not series.tags:
            return
        tag_sets = self._tag_sets.get((series.kind, series.name))
        if tag_sets:
            tag_sets.pop()
        if not tag_sets:
            self._tag_sets.pop((series.kind, series.name), None)

    def reached(self) -> dict[tuple[str, Kind], str]:
        """Return the caps that were reached since the last call, by kind, each with a name above it."""
        return {cap: self._reached.pop(cap) for cap in list(self._reached)}

    def _filter(self, series: Series) -> Series | None:
        for change in self._filters:
            try:
                changed = change(series)
                if changed is None:
                    return None
                if changed is not series:
                    kind, name, tags = changed
                    if kind != series.kind:
                        raise ValueError("a filter cannot change the kind")
                    made = series_of(kind, name, tags)
                    # A name that the filter did not change is kept as it is: a forwarder may have parsed it.
                    series = made._replace(name=series.name) if name == series.name else made
            except Exception as error:  # the filter belongs to the application
                if from_signal_handler(error):
                    raise
                self.drops.add("filter_error")
        return series

    def _overflow(self, series: Series, cap: str, stand_in: str) -> str | None:
        self._reached[cap, series.kind] = series.name
        if series.kind == "gauge":
            self.drops.add("overflow_dropped")
            return None
        self.drops.add("overflow")
        return stand_in
