"""Compares what both daemons send for a case, and explains each difference by the list of deviations, or fails.

A case is equal if every line is. If not, lines that statsd reads otherwise are given to it in words that it
understands as we do (see :mod:`.readings`), and then every line must be equal but for these, which are of arithmetic
and not of reading:

weighted-timers  sums and counts scale by 1/rate, to the last digit where all samples have one; the rest is the same
mixed-rates      only the lines that do not depend on how samples are weighed are compared
gauge-deltas     the last digits of a gauge that is changed by so much may differ
endless-sums, top-100
                 where statsd sends no finite number, we may send a finite one or none
histograms       ours has lines of histograms, and their number in ``numStats``
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .daemons import Case, Crash, Statsd, ours, shown
from .readings import plain

__all__ = ["Tally", "Unexplained", "judge"]

_SCALED = ("count_", "sum", "sum_squares", "histogram.")
_EXACT = ("upper", "lower")
_COUNTS = ("count", "count_ps")
_ADDED = ("count_", "histogram.")
"""Weights that are added up one by one, so that the last digit may differ."""
_LAX = 1e-9


class Unexplained(AssertionError):
    """The daemons differ, and the list does not say why."""


class Tally:
    """How many cases were compared, and how many of them showed which deviation."""

    def __init__(self) -> None:
        self.cases = 0
        self.lines = 0
        self.deviating = 0
        self.deviations: Counter[str] = Counter()

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what another tally, perhaps of another process, had in its ``vars()``."""
        self.cases += counts["cases"]
        self.lines += counts["lines"]
        self.deviating += counts["deviating"]
        self.deviations.update(counts["deviations"])

    def __str__(self) -> str:
        which = ", ".join(f"{id} {count}" for id, count in self.deviations.most_common()) or "none"
        return (
            f"{self.cases} cases, {self.lines} lines of output: {self.cases - self.deviating} the same,"
            f" {self.deviating} with a listed deviation, 0 others ({which})"
        )


def judge(case: Case, statsd: Statsd, tally: Tally) -> frozenset[str]:
    """Return the deviations that a case shows. Raises :class:`Unexplained`."""
    mine = [shown(flush, case.options) for flush in ours(case)]
    deviations = frozenset[str]()
    try:
        theirs = [shown(flush, case.options) for flush in statsd(case)]
    except Crash as crash:
        theirs = [[str(crash)]]
    if mine != theirs:
        deviations = _explained(case, statsd, mine, theirs)
    tally.cases += 1
    tally.lines += sum(map(len, mine))
    tally.deviating += bool(deviations)
    tally.deviations.update(deviations)
    return deviations


def _explained(
    case: Case, statsd: Statsd, mine: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]
) -> frozenset[str]:
    aliases: dict[str, str] = {}
    deviations: set[str] = set()
    intervals: list[list[bytes]] = []
    flushes = []
    adrift = _Adrift()
    for datagrams in case.intervals:
        timers: dict[str, list[tuple[float, float]]] = {}
        intervals.append([])
        for datagram in datagrams:
            read = [plain(line, aliases) for line in datagram.decode("utf-8", "replace").split("\n")]
            intervals[-1].append("\n".join([line.line for line in read]).encode())
            for line in read:
                deviations |= line.deviations
                adrift.follow(line.gauges)
                for key, samples in line.timers.items():
                    timers.setdefault(key, []).extend(samples)
        flushes.append((timers, adrift.end()))
    try:
        plainly = [shown(flush, case.options) for flush in statsd(Case(intervals, case.options))]
    except Crash as crash:
        raise Unexplained(f"{case}\nstatsd dies of it, also when it is put plainly: {crash}") from None
    names = {alias: name for name, alias in aliases.items()}
    for mine_now, theirs_now, plainly_now, (timers, changed) in zip(
        mine, [*theirs, *[[]] * len(mine)], plainly, flushes, strict=False
    ):
        lines = [_renamed(line, names) for line in plainly_now]
        rules = _Rules(case.options, timers, changed, "histograms" in deviations)
        difference = list(rules.compare(mine_now, lines))
        if difference:
            shown_difference = "\n".join(f"  ours {one!r}, statsd {other!r}" for one, other in difference)
            raise Unexplained(f"{case}\n{shown_difference}\nbefore: statsd {theirs_now}\nlisted: {deviations}")
        deviations |= rules.used
    if not deviations:
        raise Unexplained(f"{case}\nours {mine}\nstatsd {theirs}")
    return frozenset(deviations)


def _renamed(line: str, names: Mapping[str, str]) -> str:
    for alias, name in names.items():
        line = line.replace(alias, name)
    return line


class _Adrift:
    """Follows gauges, for those that are changed by so much from a value of an earlier interval."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._new: set[str] = set()
        self._set: set[str] = set()  # in this interval
        self._adrift: set[str] = set()

    def follow(self, gauges: Sequence[tuple[str, bool]]) -> None:
        for key, relative in gauges:
            if not relative:
                self._set.add(key)
                self._adrift.discard(key)
            elif key in self._known and key not in self._set:
                self._adrift.add(key)
            self._new.add(key)

    def end(self) -> frozenset[str]:
        """The interval ends; return the gauges whose last digits may differ from now on."""
        self._known |= self._new
        self._set, self._new = set(), set()
        return frozenset(self._adrift)


class _Rules:
    """Compares the lines of one flush, and notes in ``used`` what it had to let pass."""

    def __init__(
        self,
        options: Mapping[str, Any],
        timers: Mapping[str, Sequence[tuple[float, float]]],
        changed: frozenset[str],
        histograms: bool,
    ) -> None:
        graphite = options.get("graphite", {})
        legacy = graphite.get("legacyNamespace", True)
        self._suffix = f".{graphite['globalSuffix']}" if "globalSuffix" in graphite else ""
        top = "stats" if legacy else graphite.get("globalPrefix", "stats")

        def namespace(option: str, part: str) -> str:
            return "".join(f"{word}." for word in (top, part if legacy else graphite.get(option, part)) if word)

        self._timers, self._gauges = namespace("prefixTimer", "timers"), namespace("prefixGauge", "gauges")
        self._histograms = namespace("", "histograms")
        self._own = f"{options.get('prefixStats', 'statsd')}.numStats"
        self._weights = {key: [weight for _, weight in samples] for key, samples in timers.items()}
        self._changed = changed
        self._with_histograms = histograms
        self.used: set[str] = set()

    def compare(self, mine: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield pairs of lines that should be equal."""
        if self._with_histograms:
            mine = [line for line in mine if not line.startswith(self._histograms) and self._own not in line]
            theirs = [line for line in theirs if self._own not in line]
        endless = {path for path, value in map(_divided, theirs) if not math.isfinite(_value(value))}
        if endless:
            self.used |= {"top-100" if "_top" in path else "endless-sums" for path in endless}
            mine = [line for line in mine if _divided(line)[0] not in endless]
            theirs = [line for line in theirs if _divided(line)[0] not in endless]
        mixed = [line for line in {*mine, *theirs} if self._is_mixed(line)]
        if mixed:
            self.used.add("mixed-rates")
            mine = [line for line in mine if line not in mixed]
            theirs = [line for line in theirs if line not in mixed]
        for position in range(max(len(mine), len(theirs))):
            one = mine[position] if position < len(mine) else ""
            other = theirs[position] if position < len(theirs) else ""
            if one != other and not self._is_near(one, other):
                yield one, other

    def _timer(self, path: str) -> tuple[Sequence[float], str]:
        """Return the weights of a timer's samples, and the statistic that a path is."""
        name, _, tags = path.partition(";")
        name = name.removeprefix(self._timers).removesuffix(self._suffix)
        for key, weights in self._weights.items():
            key_name, _, key_tags = key.partition(";")
            if tags == key_tags and name.startswith(f"{key_name}.") and path.startswith(self._timers):
                return weights, name.removeprefix(f"{key_name}.")
        return (), ""

    def _is_mixed(self, line: str) -> bool:
        weights, statistic = self._timer(_divided(line)[0])
        return len(set(weights)) > 1 and statistic not in _EXACT + _COUNTS

    def _is_near(self, one: str, other: str) -> bool:
        (path, value), (other_path, other_value) = _divided(one), _divided(other)
        if path != other_path or not value or not other_value:
            return False
        mine, theirs = _value(value), _value(other_value)
        weights, statistic = self._timer(path)
        if weights and set(weights) != {1}:
            self.used.add("weighted-timers")
            scaled = statistic.startswith(_SCALED) and statistic not in _COUNTS
            factor = weights[0] if scaled and len(set(weights)) == 1 else 1
            if len(set(weights)) == 1 and not statistic.startswith(_ADDED):
                return mine == theirs * factor
            # What is left of a mean or a deviation after cancellation is as near as the values are large.
            return math.isclose(mine, theirs * factor, rel_tol=_LAX, abs_tol=_LAX * max(1.0, *weights))
        key = path.removeprefix(self._gauges)
        if path.startswith(self._gauges) and any(key == self._suffixed(changed) for changed in self._changed):
            self.used.add("gauge-deltas")
            return math.isclose(mine, theirs, rel_tol=_LAX, abs_tol=_LAX)
        return False

    def _suffixed(self, key: str) -> str:
        name, semicolon, tags = key.partition(";")
        return f"{name}{self._suffix}{semicolon}{tags}"


def _divided(line: str) -> tuple[str, str]:
    path, _, value = line.partition(" ")
    return path, value


def _value(text: str) -> float:
    return 0.0 if text in ("", "…") else float(text.replace("Infinity", "inf"))
