"""Computes the paths and values that statsd would send to Graphite for a window.

In: a window. Out: paths and values in statsd's order: counters, timers, histograms, gauges, sets. Within a kind, they
are in order of first appearance. A path consists of the namespace, the prefix, the name of the series, the statistic,
the suffix, and the tags: ``stats.timers.shop.web1.db.query.upper_90;pool=main``. The paths of a series are built once
and cached.

statsd has no histograms. Here they have the namespace ``histograms`` and the statistics of timers.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress
from operator import methodcaller

from .errors import InvalidOption, InvalidType
from .series import Kind, filled, prefixed, sanitise, text_of, without_empty_parts
from .sketch import Distribution
from .window import Window
from .wire.graphite import Pairs, number

__all__ = ["Bins", "Naming", "Spelled", "expanded"]


class Spelled(float):
    """A number that keeps its spelling in names: ``Spelled("90.0")`` gives ``upper_90_0``.

    Args:
        text: A decimal number.

    Raises:
        ValueError: If ``text`` is not a decimal number, or contains white space or ``_``.
    """

    def __new__(cls, text: str) -> "Spelled":
        if not _SPELLED.fullmatch(text):
            raise ValueError(f"{text!r} is not a number")
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        self.text = text

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


_SPELLED = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|Infinity)")


def _spelled(value: float) -> str:
    return value.text if isinstance(value, Spelled) else number(value)


Bins = tuple[str, tuple[float, ...]]
"""A text that a timer's key must contain, and the exclusive upper bounds of its bins; ``inf`` may be the last.

A bound that is :class:`Spelled` keeps its spelling."""

_FEW = 1000
_BLOCK = 4096
"""Number of series whose paths are built at once. Other threads run between two blocks."""
_RATE = 4  # index of count_ps after the statistics of the shares; count is the one before it
_NOT_IN_PATH = re.compile(r"[\s;\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that would end a path in a line, or make the line unreadable for Graphite."""
_PERCENT = re.compile(r"_(top)?[0-9]+\Z")


def expanded(prefix: str) -> str:
    """Return a prefix with ``{host}`` and ``{pid}`` replaced, and sanitised like a name.

    Raises :class:`~.errors.InvalidOption` for other words in braces, and :class:`~.errors.InvalidType` if it is not a
    string.
    """
    if not isinstance(prefix, str):
        raise InvalidType("prefix", prefix, "a string")
    words = {"host": socket.gethostname().split(".")[0], "pid": str(os.getpid())}
    return without_empty_parts(sanitise(filled("prefix", text_of(prefix), words)).replace(";", "_"))


_Affixes = tuple[tuple[str, str] | None, ...]
"""For each statistic of a series, the text before and after the name; None for a statistic that is not sent."""


class _Paths(dict[str, tuple[str, ...]]):
    """The paths of each series by key, built on first access. Paths of statistics that are not sent are empty.

    ``affixes`` are the texts that series have in common if they have the same ``bounds`` of bins, and either all or
    none of their names start with ``unprefixed``.
    """

    def __init__(
        self,
        unprefixed: str,
        affixes: Callable[[bool, tuple[float, ...]], _Affixes],
        bounds: Callable[[str], tuple[float, ...]] | None = None,
    ) -> None:
        super().__init__()
        self._is_unprefixed = methodcaller("startswith", unprefixed)
        self._affixes = affixes
        self._bounds = bounds

    def of(self, keys: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Yield the paths of each of these series."""
        # Optimised, because a tick may have many new series. Other threads run between two blocks.
        keys = list(keys)
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            found = list(map(self.get, block))
            if all(found):
                yield from found  # type: ignore[misc]
            else:
                built = self._build([key for key, paths in zip(block, found, strict=True) if not paths])
                self.update(built)
                yield from [paths or built[key] for key, paths in zip(block, found, strict=True)]

    def _build(self, keys: list[str]) -> dict[str, tuple[str, ...]]:
        alike: dict[tuple[bool, tuple[float, ...]], list[str]] = {}
        if self._bounds or any(map(self._is_unprefixed, keys)):
            for key in keys:
                bounds = self._bounds(key) if self._bounds else ()
                alike.setdefault((self._is_unprefixed(key), bounds), []).append(key)
        else:
            alike[False, ()] = keys
        built: dict[str, tuple[str, ...]] = {}
        for (unprefixed, bounds), same in alike.items():
            parts = [key.partition(";") for key in same]
            columns: list[Iterable[str]] = []
            for affix in self._affixes(unprefixed, bounds):
                if affix:
                    before, behind = affix
                    columns.append([before + name + behind + semicolon + tags for name, semicolon, tags in parts])
                else:
                    columns.append([""] * len(parts))
            built.update(zip(same, zip(*columns, strict=True), strict=True))
        return built


@dataclass(frozen=True)
class Naming:
    """The names of series in Graphite, and the statistics that are sent. The default is statsd's newer namespace.

    If a part of the namespace is empty, its dot is omitted, too.

    Raises:
        InvalidOption: If a part contains white space, a control character or ``;``, or a percentile is invalid.
    """

    prefix: str = ""
    percentiles: tuple[float, ...] = (90,)
    legacy: bool = False
    namespace: str = "stats"
    counters: str = "counters"
    timers: str = "timers"
    histograms: str = "histograms"
    gauges: str = "gauges"
    sets: str = "sets"
    suffix: str = ""
    flush_counts: bool = True
    bins: tuple[Bins, ...] = ()
    calculated: tuple[str, ...] = ()
    own: str = ""
    """The first part of the names of a daemon's own metrics. Series under it get no prefix, and Graphite destinations
    add the metrics that statsd sends about itself. Empty: there are no such metrics.
    """
    _paths: dict[Kind, _Paths] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for part in ("namespace", "counters", "timers", "histograms", "gauges", "sets", "suffix", "own"):
            text = text_of(getattr(self, part))
            if _NOT_IN_PATH.search(text):
                raise InvalidOption(part, text, "must not contain white space, control characters or ;")
            object.__setattr__(self, part, text)
        for percent in self.percentiles:
            if not isinstance(percent, int | float) or not 0 < abs(percent) <= 100:
                raise InvalidOption("percentiles", percent, "must be percents from -100 to 100, and not 0")
        distinct: dict[str, float] = {}
        for percent in self.percentiles:
            distinct.setdefault(_spelled(percent), percent)
        object.__setattr__(self, "percentiles", tuple(distinct.values()))
        bounds = self._bounds if self.bins else None
        timers, histograms = (partial(self._distribution_affixes, part) for part in ("timers", "histograms"))
        self._paths["counter"] = _Paths(self.unprefixed, self._counter_affixes)
        self._paths["timer"] = _Paths(self.unprefixed, timers, bounds)
        self._paths["histogram"] = _Paths(self.unprefixed, histograms, bounds)
        self._paths["gauge"] = _Paths(self.unprefixed, self._gauge_affixes)
        self._paths["unique"] = _Paths(self.unprefixed, self._set_affixes)

    @property
    def unprefixed(self) -> str:
        """Series whose names start with this get no prefix."""
        return f"{self.own}." if self.own else "\0"

    def own_path(self, statistic: str) -> str:
        """Return the path of a metric that a daemon sends about itself and that is not a series."""
        namespace = "stats" if self.legacy else self.namespace
        if self.legacy and statistic == "numStats":  # as in statsd, which omits the namespace here
            namespace = ""
        return f"{prefixed(namespace, self.own)}.{statistic}{self._suffix}"

    def affixes(self, kind: Kind, key: str = "") -> dict[str, tuple[str, str]]:
        """Return, by statistic, the text before and after the name of a series in its paths.

        A counter has ``rate`` and ``count``, a timer or histogram the statistics of statsd, a gauge ``value``, and a
        unique ``count``. Statistics that are not sent are omitted.
        """
        names: Iterable[str]
        if kind == "counter":
            names = ("rate", "count")
        elif kind in ("timer", "histogram"):
            names = self._statistic_names(self._bounds(key))
        else:
            names = ("value",) if kind == "gauge" else ("count",)
        bounds = self._bounds(key) if kind in ("timer", "histogram") else ()
        found = self._paths[kind]._affixes(key.startswith(self.unprefixed), bounds)
        return {name: affix for name, affix in zip(names, found, strict=False) if affix}

    def pairs(self, window: Window) -> Pairs:
        """Return the window's paths and values.

        Statistics that are not finite, such as a sum beyond the range of doubles, are omitted.
        """
        if sum(map(len, self._paths.values())) > 2 * len(window) + _FEW:
            for known in self._paths.values():
                known.clear()
        # Optimised by computing columns, because a tick may have a million pairs.
        pairs = Pairs()
        pairs.paths += chain.from_iterable(self._paths["counter"].of(window.counters))
        pairs.values += self._counter_values(window.counters, window.interval)
        self._add_distributions(pairs, "timer", window)
        self._add_distributions(pairs, "histogram", window)
        pairs.paths += chain.from_iterable(self._paths["gauge"].of(window.gauges))
        pairs.values += window.gauges.values()
        pairs.paths += chain.from_iterable(self._paths["unique"].of(window.uniques))
        pairs.values += map(len, window.uniques.values())
        return pairs

    def _counter_values(self, counters: Mapping[str, float], interval: float) -> list[float]:
        rates = [count / interval for count in counters.values()]
        if not self.flush_counts:
            return rates
        values = rates * 2
        values[::2], values[1::2] = rates, counters.values()
        return values

    # -- statistics of timers and histograms

    def _add_distributions(self, pairs: Pairs, kind: Kind, window: Window) -> None:
        rate = 5 * len(self.percentiles) + _RATE
        for known, (key, distribution) in zip(self._paths[kind].of(window[kind]), window[kind].items(), strict=True):
            paths: Iterable[str] = known
            if distribution.count:
                values: Iterable[float] = self._statistics(key, distribution, window.interval)
            else:
                paths, values = (known[rate], known[rate - 1]), (0, 0)
            if self.calculated or not math.isfinite(sum(values)):  # the sum is not finite if one value is not
                chosen = [bool(path) and math.isfinite(value) for path, value in zip(paths, values, strict=True)]
                paths, values = compress(paths, chosen), compress(values, chosen)
            pairs.paths += paths
            pairs.values += values

    def _statistics(self, key: str, distribution: Distribution, interval: float) -> list[float]:
        """Return all statistics in the order of their names; NaN for those of a share without samples."""
        values: list[float] = []
        for share in distribution.shares(self.percentiles):
            if share is None:
                values += [math.nan] * 5
            else:
                values += [share.weight, share.mean, share.boundary, share.sum, share.sum_squares]
        values += [
            distribution.std,
            distribution.max,
            distribution.min,
            distribution.count,
            distribution.count / interval,
            distribution.sum,
            distribution.sum_squares,
            distribution.mean,
            distribution.median,
        ]
        before = 0.0
        for bound in self._bounds(key):
            below = distribution.below(bound)
            values.append(below - before)
            before = below
        return values

    def _statistic_names(self, bounds: tuple[float, ...]) -> Iterator[str]:
        for percent in self.percentiles:
            text = _spelled(percent).replace(".", "_", 1).replace("-", "top", 1)
            boundary = "upper" if percent > 0 else "lower"
            yield from (f"{part}_{text}" for part in ("count", "mean", boundary, "sum", "sum_squares"))
        yield from ("std", "upper", "lower", "count", "count_ps", "sum", "sum_squares", "mean", "median")
        for bound in bounds:
            text = _spelled(bound) if bound < math.inf or isinstance(bound, Spelled) else "inf"
            yield "histogram.bin_" + text.replace(".", "_", 1)

    def _bounds(self, key: str) -> tuple[float, ...]:
        return next((bounds for part, bounds in self.bins if part in key), ()) if self.bins else ()

    # -- paths: the text before and after the name

    def _affix(self, own: bool, namespace: str, statistic: str = "") -> tuple[str, str]:
        prefix = "" if own or not self.prefix else f"{self.prefix}."
        return prefixed(namespace, prefix), (f".{statistic}" if statistic else "") + self._suffix

    @property
    def _suffix(self) -> str:
        return f".{self.suffix}" if self.suffix else ""

    def _namespace(self, part: str) -> str:
        return ".".join(filter(None, (self.namespace, part)))

    def _counter_affixes(self, own: bool, _: tuple[float, ...]) -> _Affixes:
        if self.legacy:
            affixes = self._affix(own, "stats"), self._affix(own, "stats_counts")
        else:
            namespace = self._namespace(self.counters)
            affixes = self._affix(own, namespace, "rate"), self._affix(own, namespace, "count")
        return affixes if self.flush_counts else affixes[:1]

    def _distribution_affixes(self, part: str, own: bool, bounds: tuple[float, ...]) -> _Affixes:
        """Return the affixes of all statistics, in order."""
        namespace = f"stats.{part}" if self.legacy else self._namespace(getattr(self, part))
        names = self._statistic_names(bounds)
        return tuple(self._affix(own, namespace, name) if self._wants(name) else None for name in names)

    def _wants(self, statistic: str) -> bool:
        if not self.calculated or statistic in self.calculated:
            return True
        return _PERCENT.sub("_percent", statistic.partition(".")[0]) in self.calculated

    def _gauge_affixes(self, own: bool, _: tuple[float, ...]) -> _Affixes:
        return (self._affix(own, "stats.gauges" if self.legacy else self._namespace(self.gauges)),)

    def _set_affixes(self, own: bool, _: tuple[float, ...]) -> _Affixes:
        return (self._affix(own, "stats.sets" if self.legacy else self._namespace(self.sets), "count"),)
