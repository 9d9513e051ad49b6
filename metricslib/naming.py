"""A window's values under the paths that statsd gives them in Graphite, computed by statsd's arithmetic.

In: a window. Out: paths and their values in statsd's order: counters, timers, histograms, gauges, sets; within a kind
by first appearance. A path is a namespace, the prefix, the series' name, the statistic, the suffix, and the tags:
``stats.timers.shop.web1.db.query.upper_90;pool=main``. Paths are built once a series and kept.

statsd has no histograms; ours get the namespace ``histograms`` and the arithmetic of timers.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import compress

from .distribution import Distribution
from .errors import InvalidOption, InvalidType
from .names import filled, prefixed, sanitise, text_of
from .series import Kind
from .window import Window
from .wire.graphite import Pairs, number

__all__ = ["Bins", "Naming", "Spelled", "expanded"]


class Spelled(float):
    """A number that is written in names as it was spelled: ``Spelled("90.0")`` makes ``upper_90_0``.

    Raises ValueError for a text that is not a decimal number, or has white space or ``_`` in it.
    """

    def __new__(cls, text: str) -> "Spelled":
        if not _SPELLED.fullmatch(text):
            raise ValueError(f"{text!r} is no number")
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
_RATE = 4  # where count_ps stands behind the shares; count is the one before it
_PERCENT = re.compile(r"_(top)?[0-9]+\Z")


def expanded(prefix: str) -> str:
    """Return a prefix with ``{host}`` and ``{pid}`` filled in and its characters treated as in names.

    Raises :class:`~.errors.InvalidOption` for anything else in braces, and :class:`~.errors.InvalidType` for no string.
    """
    if not isinstance(prefix, str):
        raise InvalidType("prefix", prefix, "a string")
    words = {"host": socket.gethostname().split(".")[0], "pid": str(os.getpid())}
    return sanitise(filled("prefix", text_of(prefix), words)).replace(";", "_").strip(".")


class _Paths(dict[str, tuple[str, ...]]):
    """By key, the paths of a series: built when they are first asked for, and kept."""

    def __init__(self, build: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__()
        self._build = build

    def __missing__(self, key: str) -> tuple[str, ...]:
        built = self[key] = self._build(key)
        return built

    def of(self, keys: Iterable[str]) -> list[str]:
        """Return all paths of these series, one after the other."""
        return [path for key in keys for path in self[key]]  # not chain(): here other threads have their turn


@dataclass(frozen=True)
class Naming:
    """How series are named. The defaults are statsd's newer namespace; ``legacy=True`` is the namespace statsd defaults
    to.

    ``percentiles`` are percents from -100 to 100; negative ones describe the largest samples, and one that is
    :class:`Spelled` keeps its spelling in names. ``calculated`` names the
    timer statistics to send, such as ``count`` or ``upper_90``, or as statsd does ``upper_percent`` for every whole
    percent, and ``histogram`` for all bins; empty sends all. An empty namespace part vanishes with its dot.
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
    """What a daemon's own metrics are called: series under it get no prefix, and Graphite destinations add to each
    window what statsd says of itself. Empty: there are none.
    """
    _paths: dict[Kind, _Paths] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for part in ("namespace", "counters", "timers", "histograms", "gauges", "sets", "suffix", "own"):
            object.__setattr__(self, part, text_of(getattr(self, part)))
        for percent in self.percentiles:
            if not isinstance(percent, int | float) or not 0 < abs(percent) <= 100:
                raise InvalidOption("percentiles", percent, "must be percents from -100 to 100, and not 0")
        distinct: dict[str, float] = {}
        for percent in self.percentiles:
            distinct.setdefault(_spelled(percent), percent)
        object.__setattr__(self, "percentiles", tuple(distinct.values()))
        self._paths["counter"] = _Paths(self._counter_paths)
        self._paths["timer"] = _Paths(partial(self._distribution_paths, "timers", self.timers))
        self._paths["histogram"] = _Paths(partial(self._distribution_paths, "histograms", self.histograms))
        self._paths["gauge"] = _Paths(self._gauge_path)
        self._paths["unique"] = _Paths(self._set_path)

    @cached_property
    def unprefixed(self) -> str:
        """Series whose names start so get no prefix."""
        return f"{self.own}." if self.own else "\0"

    def own_path(self, statistic: str) -> str:
        """Return the path of what a daemon says of itself without its being a series."""
        namespace = "stats" if self.legacy else self.namespace
        if self.legacy and statistic == "numStats":  # statsd leaves it out here, and dashboards rely on it
            namespace = ""
        return f"{prefixed(namespace, self.own)}.{statistic}{self._suffix}"

    def pairs(self, window: Window) -> Pairs:
        """Return the window's paths and values.

        Statistics that are no finite numbers (a sum beyond doubles) are left out.
        """
        if sum(map(len, self._paths.values())) > 2 * len(window) + _FEW:
            for known in self._paths.values():
                known.clear()
        # Written for speed, a column at a time: there may be a million pairs, and a tick must be over soon.
        pairs = Pairs()
        pairs.paths += self._paths["counter"].of(window.counters)
        pairs.values += self._counter_values(window.counters, window.interval)
        self._add_distributions(pairs, "timer", window)
        self._add_distributions(pairs, "histogram", window)
        pairs.paths += self._paths["gauge"].of(window.gauges)
        pairs.values += window.gauges.values()
        pairs.paths += self._paths["unique"].of(window.uniques)
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
        known = self._paths[kind]
        rate = 5 * len(self.percentiles) + _RATE
        for key, distribution in window[kind].items():
            paths: Iterable[str] = known[key]
            if distribution.count:
                values: Iterable[float] = self._statistics(key, distribution, window.interval)
            else:
                paths, values = (known[key][rate], known[key][rate - 1]), (0, 0)
            if self.calculated or not math.isfinite(sum(values)):  # a sum is not finite if one value is not
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

    def _statistic_names(self, key: str) -> Iterator[str]:
        for percent in self.percentiles:
            text = _spelled(percent).replace(".", "_", 1).replace("-", "top", 1)
            boundary = "upper" if percent > 0 else "lower"
            yield from (f"{part}_{text}" for part in ("count", "mean", boundary, "sum", "sum_squares"))
        yield from ("std", "upper", "lower", "count", "count_ps", "sum", "sum_squares", "mean", "median")
        for bound in self._bounds(key):
            text = _spelled(bound) if bound < math.inf or isinstance(bound, Spelled) else "inf"
            yield "histogram.bin_" + text.replace(".", "_", 1)

    def _bounds(self, key: str) -> tuple[float, ...]:
        return next((bounds for part, bounds in self.bins if part in key), ()) if self.bins else ()

    # -- paths

    def _ends(self, namespace: str, key: str) -> tuple[str, str]:
        """Return what stands before and after the statistic in the paths of a series."""
        name, semicolon, tags = key.partition(";")
        if not name.startswith(self.unprefixed):
            name = prefixed(self.prefix, name)
        return prefixed(namespace, name), f"{self._suffix}{semicolon}{tags}"

    def _path(self, namespace: str, key: str) -> str:
        return "".join(self._ends(namespace, key))

    @cached_property
    def _suffix(self) -> str:
        return f".{self.suffix}" if self.suffix else ""

    def _namespace(self, part: str) -> str:
        return ".".join(filter(None, (self.namespace, part)))

    @cached_property
    def _counter_namespace(self) -> str:
        return self._namespace(self.counters)

    def _counter_paths(self, key: str) -> tuple[str, ...]:
        if self.legacy:
            paths = self._path("stats", key), self._path("stats_counts", key)
        else:
            head, tail = self._ends(self._counter_namespace, key)
            paths = f"{head}.rate{tail}", f"{head}.count{tail}"
        return paths if self.flush_counts else paths[:1]

    def _distribution_paths(self, fixed: str, part: str, key: str) -> tuple[str, ...]:
        """Paths of all statistics, in order; those that are not wanted are empty."""
        namespace = f"stats.{fixed}" if self.legacy else self._namespace(part)
        head, tail = self._ends(namespace, key)
        return tuple(f"{head}.{name}{tail}" if self._wants(name) else "" for name in self._statistic_names(key))

    def _wants(self, statistic: str) -> bool:
        if not self.calculated or statistic in self.calculated:
            return True
        return _PERCENT.sub("_percent", statistic.partition(".")[0]) in self.calculated

    def _gauge_path(self, key: str) -> tuple[str, ...]:
        return (self._path("stats.gauges" if self.legacy else self._namespace(self.gauges), key),)

    def _set_path(self, key: str) -> tuple[str, ...]:
        head, tail = self._ends("stats.sets" if self.legacy else self._namespace(self.sets), key)
        return (f"{head}.count{tail}",)
