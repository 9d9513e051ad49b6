"""From lines to aggregates, in Python: what one listener heard since the registry last asked.

In: batches of datagrams, or blocks of whole lines from a stream. Out: :class:`~metricslib.window.Aggregates`, and the
account of what came in. A batch has the same effect as its lines one by one. To get there fast, equal lines are counted
first, and each different one is read once a batch. That is right where order does not matter: for whole numbers added
to counters, for samples (their sums, once sketched, may differ in the last digit) and for members of sets. Where it
does, the lines are gone through in order: for gauges, and for all counters as soon as one of them has a fraction, for
0.1 added ten times is not 1. Of a line whose form is known, which is all but its value, only the value is read.

Where all lines of a batch are plain, they are read :mod:`column by column <.columns>` instead, and the numbers of each
series wait in order. :func:`~.parser.parse` is the specification, and every line that is not plain goes through it.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TypeVar

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.series import Kind
from metricslib.unique import MEMBERS
from metricslib.window import Aggregates, GaugeChange

from .columns import Columns, columns
from .counts import BadLine, BadLines, Counts
from .interval import Changes, Interval, Tally, amount
from .keys import Keys, Registry
from .parser import Line, parse
from .waiting import Waiting

__all__ = ["IntakeInPython"]

_PLAIN = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?").fullmatch
_REMEMBERED = 1 << 16
_LONGEST_REMEMBERED = 256
_HEAVIEST = 1e200
"""A weight with which every number that is plain stays in range, its square too."""

_Form = tuple[str, str]
"""What is around the value of a line: the key as written, and all behind the first bar."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Effect = TypeVar("_Effect", Tally, Changes)


class _Ordered:
    """The part of a batch in which order may matter: by line, what it does to counters and to gauges."""

    __slots__ = ("counters", "fractional", "gauges")

    def __init__(self) -> None:
        self.counters: dict[str, Tally] = {}
        self.gauges: dict[str, Changes] = {}
        self.fractional = False


class IntakeInPython:
    """A source of ``registry``, fed by one listener. Feeding, collecting and reading the account exclude each other.

    At most ``members`` are kept for a set and interval; more are dropped and counted, cause ``unique_full``. Of keys as
    they are written ``keys`` are remembered for each kind; it should be more than there are live series.
    """

    def __init__(
        self, registry: Registry, *, clock: Clock = SYSTEM_CLOCK, members: int = MEMBERS, keys: int = 1 << 20
    ) -> None:
        self._keys = Keys(registry, keys)
        self._tallies: dict[str, Tally] = {}  # by line, of lines that only add whole numbers to counters
        self._forms: dict[_Form, tuple[Kind, str, float]] = {}  # of lines with one value: kind, series and weight
        self._new_interval: Callable[[], Interval] = lambda: Interval(registry.exact, members, Waiting(self._keys))
        self._interval = self._new_interval()
        self._lock = threading.Lock()
        self._clock = clock
        self._seen = 0.0
        self._bad_lines = BadLines(clock)
        self._packets = self._lines = self._aggregated = self._bad = 0
        self._dropped: Counter[str] = Counter()
        self._collected = Counts()

    # -- for the listener

    def feed(self, chunks: Sequence[bytes]) -> None:
        """Take datagrams, or blocks of whole lines. Never raises for what is in them; what is no UTF-8 is replaced."""
        # An empty line is not plain, and what is whole often ends with a line feed.
        lines = b"\n".join(filter(None, map(bytes.rstrip, chunks, repeat(b"\r\n"))))
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        plain = columns(lines)
        with self._lock:
            if self._keys.sweep():
                self._tallies.clear()
                self._forms.clear()
                self._interval.waiting.ask_again()
            self._packets += len(chunks)
            self._seen = self._clock.time()
            if plain is None or not self._took(plain):
                self._take(lines.decode("utf-8", "replace").split("\n"))
            self._interval.make_room()
        self._bad_lines.report()

    def drop(self, cause: str, count: int = 1) -> None:
        """Account for pieces that the listener itself could not hand over."""
        with self._lock:
            self._dropped[cause] += count

    def settle(self) -> None:
        """Do nothing: what was fed is held back by nobody, and is in the next collection."""

    # -- for the registry

    def collect(self) -> Aggregates:
        """Return what is new since the last call, and forget it."""
        with self._lock:
            interval, self._interval = self._interval, self._new_interval()
            self._collected = self._counts()
        return interval.aggregates()

    def forget(self, kind: Kind, key: str) -> None:
        """The series expired: when it comes again, the registry is asked again."""
        with self._lock:
            self._keys.forget(kind, key)

    # -- for the page

    def counts(self) -> Counts:
        """Return the account since the start."""
        with self._lock:
            return self._counts()

    def collected(self) -> Counts:
        """Return the account as it was at the last collection: of exactly the pieces that have been collected."""
        return self._collected

    def bad_lines(self) -> list[BadLine]:
        """Return the last bad lines, oldest first."""
        return self._bad_lines.recent()

    def _counts(self) -> Counts:
        dropped = dict(self._dropped)
        received = self._aggregated + self._bad + sum(dropped.values())
        return Counts(self._packets, self._lines, received, self._aggregated, self._bad, dropped, self._seen)

    # -- a batch; the lock is held

    def _took(self, plain: Columns) -> bool:
        """Take plain lines, and return whether all of them were plain indeed."""
        refused, waiting = 0, self._interval.waiting
        if not waiting.put(plain):
            return False
        for cause, numbers in waiting.taken(waiting.refused):
            self._dropped[cause] += len(numbers)
            refused += len(numbers)
        self._lines += len(plain.numbers)
        self._aggregated += len(plain.numbers) - refused
        return True

    def _take(self, lines: list[str]) -> None:
        counted = Counter(lines)
        self._lines += len(lines) - counted.pop("", 0)
        ordered = _Ordered()
        interval = self._interval
        interval.settle()
        self._read(counted, ordered)
        if ordered.fractional or interval.fractional:
            interval.fractional = True
            _in_order(lines, ordered.counters, interval.add)
        else:
            for line, tally in ordered.counters.items():
                interval.add_whole(tally, counted[line])
        if ordered.gauges:
            _in_order(lines, ordered.gauges, interval.change)

    def _read(self, counted: Counter[str], ordered: _Ordered) -> None:
        """Read each line once: do at once what may be done in any order, and leave the rest in ``ordered``."""
        forms, tallies, interval = self._forms, self._tallies, self._interval
        for line, times in counted.items():
            tally = tallies.get(line)
            if tally is not None:
                ordered.counters[line] = tally
                self._aggregated += times * len(tally)
                continue
            # The short way. That the form is known shows that there is nothing special about it.
            written, _, rest = line.partition(":")
            text, _, fields = rest.partition("|")
            form = forms.get((written, fields))
            if form is None or not (_PLAIN(text) or (form[0] == "unique" and text)):
                self._read_slowly(line, times, ordered)
                continue
            kind, key, weight = form
            self._aggregated += times
            if kind == "unique":
                if not interval.member(key, text):
                    self._aggregated -= times
                    self._dropped["unique_full"] += times
            elif kind == "counter":
                self._tally(line, ((key, amount(float(text) * weight)),), ordered, only=True)
            elif kind == "gauge":
                ordered.gauges[line] = ((key, GaugeChange(float(text))),)
            else:
                interval.sample(kind, key, float(text), weight, times)

    def _read_slowly(self, line: str, times: int, ordered: _Ordered) -> None:
        parsed = parse(line)
        if not parsed.pieces:
            self._lines -= times
        if parsed.skipped:
            self._dropped[parsed.skipped] += times
        if parsed.bad:
            self._bad += times * len(parsed.bad)
            self._bad_lines.add(line, parsed.bad[0], times * len(parsed.bad))
        interval, good = self._interval, 0
        tally: list[tuple[str, float]] = []
        changes: list[tuple[str, GaugeChange]] = []
        for kind, value, weight, relative, member in parsed.samples:
            key = self._keys.find(kind, parsed.key)
            if key is None:
                self._dropped[self._keys.refusal(kind, parsed.key)] += times
                continue
            if kind == "unique" and not interval.member(key, member):
                self._dropped["unique_full"] += times
                continue
            good += 1
            if kind == "counter":
                tally.append((key, amount(value * weight)))
            elif kind == "gauge":
                changes.append((key, GaugeChange(None, value) if relative else GaugeChange(value)))
            elif kind != "unique":
                interval.sample(kind, key, value, weight, times)
        self._aggregated += times * good
        if changes:
            ordered.gauges[line] = tuple(changes)
        if tally:
            self._tally(line, tuple(tally), ordered, only=len(tally) == parsed.pieces)
        if good == 1 == parsed.pieces:
            self._learn(line, parsed)

    def _learn(self, line: str, parsed: Line) -> None:
        """Remember the form of ``line``, which has one sample and nothing else."""
        kind, _, weight, _, _ = parsed.samples[0]
        key = self._keys.find(kind, parsed.key)
        if key is not None and weight < _HEAVIEST and len(line) <= _LONGEST_REMEMBERED:
            written, _, rest = line.partition(":")
            _remember(self._forms, (written, rest.partition("|")[2]), (kind, key, weight))

    def _tally(self, line: str, tally: Tally, ordered: _Ordered, *, only: bool) -> None:
        """Note what ``line`` adds to counters, and remember it if that is the ``only`` thing it does."""
        ordered.counters[line] = tally
        if any(type(amount) is float for _, amount in tally):
            ordered.fractional = True
        elif only and len(line) <= _LONGEST_REMEMBERED:
            _remember(self._tallies, line, tally)


def _remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value


def _in_order(lines: list[str], effects: Mapping[str, _Effect], apply: Callable[[_Effect], None]) -> None:
    for line in lines:
        effect = effects.get(line)
        if effect is not None:
            apply(effect)
