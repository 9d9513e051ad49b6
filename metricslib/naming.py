"""A window's values under the paths that statsd gives them in Graphite, computed by statsd's arithmetic.

In: a window. Out: ``(path, value)`` pairs in statsd's order: counters, timers, histograms, gauges, sets; within a kind
by first appearance. A path is a namespace, the prefix, the series' name, the statistic, the suffix, and the tags:
``stats.timers.shop.web1.db.query.upper_90;pool=main``. Paths are built once a series and kept.

statsd has no histograms; ours get the namespace ``histograms`` and the arithmetic of timers.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .distribution import Distribution
from .errors import InvalidOption, InvalidType
from .names import prefixed, sanitise
from .window import Window
from .wire.graphite import number

__all__ = ["Bins", "Naming", "expanded"]

Bins = tuple[str, tuple[float, ...]]
"""A text that a timer's key must contain, and the exclusive upper bounds of its bins; ``inf`` may be the last."""

_FEW = 1000
_PERCENT = re.compile(r"_(top)?[0-9]+\Z")


def expanded(prefix: str) -> str:
    """Return a prefix with ``{host}`` and ``{pid}`` filled in and its characters treated as in names.

    Raises :class:`~.errors.InvalidOption` for another word in braces, and :class:`~.errors.InvalidType` for no string.
    """
    if not isinstance(prefix, str):
        raise InvalidType("prefix", prefix, "a string")
    host = socket.gethostname().split(".")[0]
    try:
        text = prefix.format(host=host, pid=os.getpid())
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InvalidOption("prefix", prefix, "only {host} and {pid} may stand in braces") from error
    return sanitise(text).replace(";", "_").strip(".")


@dataclass(frozen=True)
class Naming:
    """How series are named. The defaults are statsd's newer namespace; ``legacy=True`` is the namespace statsd defaults
    to.

    ``percentiles`` are percents from -100 to 100; negative ones describe the largest samples. ``calculated`` names the
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
    _paths: dict[str, dict[str, tuple[str, ...]]] = field(
        default_factory=lambda: {kind: {} for kind in "cthgs"}, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        for percent in self.percentiles:
            if not isinstance(percent, int | float) or not 0 < abs(percent) <= 100:
                raise InvalidOption("percentiles", percent, "must be percents from -100 to 100, and not 0")
        distinct = {number(percent): percent for percent in self.percentiles}
        object.__setattr__(self, "percentiles", tuple(distinct.values()))

    @property
    def unprefixed(self) -> str:
        """Series whose names start so get no prefix."""
        return f"{self.own}." if self.own else "\0"

    def own_path(self, statistic: str) -> str:
        """Return the path of what a daemon says of itself without its being a series."""
        namespace = "stats" if self.legacy else self.namespace
        if self.legacy and statistic == "numStats":  # statsd leaves it out here, and dashboards rely on it
            namespace = ""
        return f"{prefixed(namespace, self.own)}.{statistic}{self._suffix}"

    def pairs(self, window: Window) -> list[tuple[str, float]]:
        """Return the window's paths and values.

        Statistics that are no finite numbers (a sum beyond doubles) are left out.
        """
        if sum(map(len, self._paths.values())) > 2 * len(window) + _FEW:
            for known in self._paths.values():
                known.clear()
        # Written for speed: there may be a million pairs, and a tick must be over soon.
        paths, interval, pairs = self._paths, window.interval, list[tuple[str, float]]()
        append, known = pairs.append, paths["c"]
        for key, count in window.counters.items():
            rate_path, count_path = known.get(key) or self._remember("c", key, self._counter_paths)
            append((rate_path, count / interval))
            if self.flush_counts:
                append((count_path, count))
        for kind, distributions in (("t", window.timers), ("h", window.histograms)):
            known = paths[kind]
            for key, distribution in distributions.items():
                named = known.get(key) or self._remember(kind, key, self._distribution_paths)
                pairs += self._statistics(key, distribution, named, interval)
        for key, value in window.gauges.items():
            (path,) = paths["g"].get(key) or self._remember("g", key, self._gauge_path)
            append((path, value))
        for key, members in window.uniques.items():
            (path,) = paths["s"].get(key) or self._remember("s", key, self._set_path)
            append((path, len(members)))
        return pairs

    # -- statistics of timers and histograms

    def _statistics(
        self, key: str, distribution: Distribution, paths: tuple[str, ...], interval: float
    ) -> list[tuple[str, float]]:
        """Pair the statistics with their paths, which are in the same order; those left out have an empty path."""
        if not distribution.count:
            return [(path, 0) for path in paths[-2:] if path]
        values: list[float | None] = []
        for share in distribution.shares(self.percentiles):
            if share is None:
                values += [None] * 5
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
        return [
            (path, value)
            for path, value in zip(paths, values, strict=False)
            if path and value is not None and math.isfinite(value)
        ]

    def _statistic_names(self, key: str) -> Iterator[str]:
        for percent in self.percentiles:
            text = number(percent).replace(".", "_", 1).replace("-", "top", 1)
            boundary = "upper" if percent > 0 else "lower"
            yield from (f"{part}_{text}" for part in ("count", "mean", boundary, "sum", "sum_squares"))
        yield from ("std", "upper", "lower", "count", "count_ps", "sum", "sum_squares", "mean", "median")
        for bound in self._bounds(key):
            yield "histogram.bin_" + ("inf" if bound == math.inf else number(bound).replace(".", "_", 1))

    def _bounds(self, key: str) -> tuple[float, ...]:
        return next((bounds for part, bounds in self.bins if part in key), ())

    # -- paths

    def _remember(self, kind: str, key: str, build: Callable[[str, str], tuple[str, ...]]) -> tuple[str, ...]:
        built = self._paths[kind][key] = build(kind, key)
        return built

    def _path(self, namespace: str, key: str, statistic: str = "") -> str:
        name, semicolon, tags = key.partition(";")
        if not name.startswith(self.unprefixed):
            name = prefixed(self.prefix, name)
        if statistic:
            name = f"{name}.{statistic}"
        return f"{prefixed(namespace, name)}{self._suffix}{semicolon}{tags}"

    @property
    def _suffix(self) -> str:
        return f".{self.suffix}" if self.suffix else ""

    def _namespace(self, part: str) -> str:
        return ".".join(filter(None, (self.namespace, part)))

    def _counter_paths(self, _kind: str, key: str) -> tuple[str, ...]:
        if self.legacy:
            return self._path("stats", key), self._path("stats_counts", key)
        return tuple(self._path(self._namespace(self.counters), key, part) for part in ("rate", "count"))

    def _distribution_paths(self, kind: str, key: str) -> tuple[str, ...]:
        """Paths of all statistics, in order, then those of ``count_ps`` and ``count`` again: what an idle one sends."""
        part, legacy = ("timers", self.timers) if kind == "t" else ("histograms", self.histograms)
        namespace = f"stats.{part}" if self.legacy else self._namespace(legacy)
        names = [*self._statistic_names(key), "count_ps", "count"]
        return tuple(self._path(namespace, key, name) if self._wants(name) else "" for name in names)

    def _wants(self, statistic: str) -> bool:
        if not self.calculated or statistic in self.calculated:
            return True
        return _PERCENT.sub("_percent", statistic.partition(".")[0]) in self.calculated

    def _gauge_path(self, _kind: str, key: str) -> tuple[str, ...]:
        return (self._path("stats.gauges" if self.legacy else self._namespace(self.gauges), key),)

    def _set_path(self, _kind: str, key: str) -> tuple[str, ...]:
        return (self._path("stats.sets" if self.legacy else self._namespace(self.sets), key, "count"),)
