"""What is known of each series beyond the open interval: since when it is idle, a gauge's value, lifetime totals.

In: what happened in an interval. Out: the interval's window, in which idle series have their place too, unless they are
to leave. One owner at a time.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, NamedTuple

from .distribution import NO_SAMPLES
from .series import KINDS, Kind
from .totals import TOTALS, Total
from .window import Aggregates, Window

__all__ = ["Idle", "Ledger"]


class Idle(NamedTuple):
    """Which series leave the windows when nothing happens to them. By default none does.

    A series that left has its lifetime totals still, but a gauge has no value any more. When something happens to it
    again, it comes back at the end of the order.
    """

    stay: Mapping[Kind, int] = {}
    """By kind, in how many windows a series is after something happened to it, that of the event included. Kinds that
    are not in it stay.
    """
    kept: frozenset[str] = frozenset()
    """Keys of series that stay in any case."""


class Ledger:
    """All live series, by kind and key, in order of first appearance."""

    def __init__(self, idle: Idle | None = None) -> None:
        self.idle = idle or Idle()
        self._totals: dict[Kind, dict[str, Total]] = {kind: {} for kind in KINDS}
        # The interval that is being added to the totals, and how many of its series have been.
        self._closing: tuple[Aggregates, float] | None = None
        self._added = 0

    def __getitem__(self, kind: Kind) -> dict[str, Total]:
        return self._totals[kind]

    def __len__(self) -> int:
        return sum(map(len, self._totals.values()))

    def know(self, kind: Kind, key: str, now: float) -> None:
        """See to it that the series has its place, idle if nothing happens to it."""
        totals = self._totals[kind]
        if key not in totals:
            totals[key] = TOTALS[kind](now)

    def window(self, open_: Aggregates, start: float, end: int, interval: float) -> Window:
        """Return the interval's window as it would be if nothing more happened in it."""
        for kind in KINDS:
            totals, active, made = self._totals[kind], open_[kind], TOTALS[kind]
            if kind not in self.idle.stay:
                new = [key for key in active if key not in totals]
                totals.update(zip(new, map(made, repeat(end)), strict=False))
                continue
            for key in active:  # in this order: what comes back stands behind what came before
                self._bring_back(kind, key)
                if key not in totals:
                    totals[key] = made(end)
        changes = open_.gauges
        gauges = {
            key: changes[key].applied_to(total.gauge) if key in changes else total.gauge
            for key, total in self["gauge"].items()
        }
        return Window(
            start,
            end,
            interval,
            counters=self._filled("counter", 0, open_.counters),
            timers=self._filled("timer", NO_SAMPLES, open_.timers),
            histograms=self._filled("histogram", NO_SAMPLES, open_.histograms),
            gauges={key: value for key, value in gauges.items() if value is not None},
            uniques=self._filled("unique", frozenset[str](), open_.uniques),
        )

    def _filled(self, kind: Kind, idle: Any, active: Mapping[str, Any]) -> dict[str, Any]:
        values = dict.fromkeys(self._present(kind), idle)
        values.update(active)
        return values

    def part(
        self, only: Mapping[Kind, Iterable[str]], open_: Aggregates, start: float, end: int, interval: float
    ) -> tuple[Window, dict[Kind, dict[str, Total]]]:
        """Return what :meth:`window` has of the series in ``only``, and copies of their totals; changes nothing."""
        totals: dict[Kind, dict[str, Total]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            for key in only.get(kind, ()):
                if known := self._totals[kind].get(key):
                    totals[kind][key] = known.copy()
                elif key in open_[kind]:
                    totals[kind][key] = TOTALS[kind](end)

        def filled(kind: Kind, idle: Any) -> dict[str, Any]:
            active = open_[kind]
            keys = [key for key in totals[kind] if key in active or not self._has_left(kind, key)]
            return {key: active.get(key, idle) for key in keys}

        changes = open_.gauges
        gauges = {
            key: changes[key].applied_to(total.gauge) if key in changes else total.gauge
            for key, total in totals["gauge"].items()
        }
        window = Window(
            start,
            end,
            interval,
            counters=filled("counter", 0),
            timers=filled("timer", NO_SAMPLES),
            histograms=filled("histogram", NO_SAMPLES),
            gauges={key: value for key, value in gauges.items() if value is not None},
            uniques=filled("unique", frozenset[str]()),
        )
        return window, totals

    def close(self, open_: Aggregates, end: float) -> None:
        """Add a whole interval to the totals, and let what is idle grow older. :meth:`window` was called with it.

        Where this raises MemoryError, :meth:`finish` goes on with it.
        """
        self._closing = open_, end
        self.finish()

    def finish(self) -> None:
        """Do what is left of :meth:`close`, if anything is."""
        if self._closing is None:
            return
        open_, end = self._closing
        self.add(open_, end)
        for kind in self.idle.stay:
            self._age(kind, open_)
        self._closing = None

    def add(self, open_: Aggregates, end: float) -> None:
        """Add a whole interval to the totals. :meth:`window` was called with it.

        After a MemoryError the next call, which must be with the same, goes on with it.
        """
        before, number, done = self._added, 0, 0
        try:
            for kind in KINDS:
                totals = self._totals[kind]
                for key, happened in open_[kind].items():
                    number += 1
                    if number > before and key in totals:  # it may have been deleted since
                        totals[key].take(happened, end)
                    done = number
        except MemoryError:
            self._added = max(before, done)
            raise
        self._added = 0

    def _bring_back(self, kind: Kind, key: str) -> None:
        totals = self._totals[kind]
        if key in totals and self._has_left(kind, key):
            total = totals[key] = totals.pop(key)
            total.idle = 0
            total.place = None

    def _age(self, kind: Kind, open_: Aggregates) -> None:
        active = open_[kind]
        for key, total in self._totals[kind].items():
            total.idle = 1 if key in active else total.idle + 1
            if self._has_left(kind, key):
                total.leave()

    def _has_left(self, kind: Kind, key: str) -> bool:
        stay = self.idle.stay.get(kind)
        return stay is not None and self._totals[kind][key].idle >= stay and key not in self.idle.kept

    def _present(self, kind: Kind) -> Iterable[str]:
        if kind not in self.idle.stay:
            return self._totals[kind]
        return [key for key in self._totals[kind] if not self._has_left(kind, key)]

    def idle_since(self, before: float) -> Iterator[tuple[Kind, str]]:
        """Yield the series to which nothing happened at or after ``before``."""
        for kind in KINDS:
            for key, total in self._totals[kind].items():
                if total.active < before:
                    yield kind, key

    def forget(self, kind: Kind, key: str) -> None:
        """Drop an expired series."""
        self._totals[kind].pop(key, None)

    # -- over a restart

    def entries(self, of: Aggregates | None = None) -> list[tuple[Kind, str, Total]]:
        """Return the series in ``of``, or all, each with its total."""
        return [
            (kind, key, totals[key])
            for kind, totals in self._totals.items()
            for key in (totals if of is None else of[kind])
            if key in totals
        ]

    def restore(self, earlier: Mapping[Kind, Mapping[str, Total]]) -> None:
        """Add what is known from an earlier process to what is known already, and put the rest of it behind that."""
        for kind, totals in earlier.items():
            known = self._totals[kind]
            for key, total in totals.items():
                if key in known:
                    total.add(known[key])
                known[key] = total

    def reckon_idle(self, end: float, interval: float) -> None:
        """Have every series idle as it would be, had there been a window every ``interval`` seconds up to ``end``."""
        for kind, totals in self._totals.items():
            for key, total in totals.items():
                total.idle = 1 + max(0, int((end - total.active) // interval))
                if self._has_left(kind, key):
                    total.leave()
