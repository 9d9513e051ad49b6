"""What statsd's values are in the forwarder's configuration: milliseconds are seconds, one number is a list.

In: a configuration of statsd, as :class:`Statsd`. Out: for an option of ours the value that TOML would hold, or None
where statsd's says nothing. What cannot be taken over is left out there, with the reason; of a list only the entries
that cannot be. Values are converted as JavaScript does where statsd lets it: ``null``, ``0`` and ``""`` are mostly
what is not given, an empty list is not, and numbers may stand in quotes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metricslib.naming import Spelled

from .javascript import UNDEFINED, shown, to_number, to_text, truthy

__all__ = ["TABLES", "Statsd", "bins", "calculated", "deleted", "gauges_ttl", "given", "interval", "key_flush_interval"]
__all__ += ["key_flush_percent", "legacy", "log_level", "namespace", "own_prefix", "percentiles", "suffix", "switch"]
__all__ += ["text"]


class Statsd:
    """statsd's options by name, those of a table as ``graphite.globalPrefix``, and what could not be taken over."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in _flat(given) if value is not UNDEFINED}
        self.used: dict[str, None] = {}
        """The options that were asked for and given, since this was last emptied, in order."""
        self.left_out: dict[tuple[str, str], None] = {}
        """Options and reasons, in order."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._given.items())

    def get(self, name: str) -> Any:
        """Return an option's value, :data:`~.javascript.UNDEFINED` if it is not given."""
        if name in self._given:
            self.used[name] = None
        return self.peek(name)

    def peek(self, name: str) -> Any:
        """Return an option's value like :meth:`get`, without noting that it was asked for."""
        return self._given.get(name, UNDEFINED)

    def either(self, name: str, default: Any) -> Any:
        """Return an option's value, or the default where statsd takes ``config.name || default``."""
        value = self.get(name)
        return value if truthy(value) else default

    def leave(self, name: str, why: str) -> None:
        """Leave an option out."""
        self.left_out[name, why] = None


TABLES = ("graphite", "keyFlush", "console", "log")


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name in TABLES and isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif name not in TABLES or truthy(value):  # to statsd, a table that is false is none
            yield name, value


# -- one option


def given(name: str, statsd: Statsd) -> Any:
    """Return the option ``name`` if statsd would not take its default instead."""
    return statsd.either(name, None)


def switch(name: str, statsd: Statsd) -> bool | None:
    """Return whether the option ``name`` is true to JavaScript."""
    value = statsd.get(name)
    return None if value is UNDEFINED else truthy(value)


def text(name: str, statsd: Statsd) -> str | None:
    """Return the option ``name`` as text."""
    value = statsd.get(name)
    return None if value is UNDEFINED else to_text(value)


def log_level(statsd: Statsd) -> str:
    """Return ``debug`` as a level."""
    return "debug" if truthy(statsd.get("debug")) else "info"


_LONGEST_TIMER = 2**31 - 1
"""Milliseconds. Node's timers that are longer end at once."""


def _milliseconds(value: float) -> float:
    if not 0 < value <= _LONGEST_TIMER:
        raise ValueError(value)
    return value


def interval(statsd: Statsd) -> int:
    """Return ``flushInterval`` in whole seconds."""
    exact = _milliseconds(to_number(statsd.either("flushInterval", 10_000))) / 1000
    rounded = max(1, round(exact))
    if rounded != exact:
        statsd.leave(
            "flushInterval", f"stamps are whole seconds, so intervals are, too: {exact:g} s became {rounded} s"
        )
    return rounded


def key_flush_interval(statsd: Statsd) -> float | None:
    """Return ``keyFlush.interval`` in seconds."""
    value = to_number(statsd.either("keyFlush.interval", 0))
    return _plain(_milliseconds(value) / 1000) if value > 0 else None  # what is no number, or below 0, is none


def key_flush_percent(statsd: Statsd) -> float | None:
    """Return ``keyFlush.percent``."""
    value = statsd.either("keyFlush.percent", None)
    return None if value is None else to_number(value)


def gauges_ttl(statsd: Statsd) -> int | None:
    """Return ``gaugesMaxTTL``, which is 1 unless it is a whole number above, and not in quotes."""
    value = statsd.get("gaugesMaxTTL")
    if value is UNDEFINED:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    return int(value) if whole and value > 1 else 1


_DELETE = {
    "counters": "deleteCounters",
    "timers": "deleteTimers",
    "histograms": "deleteTimers",
    "gauges": "deleteGauges",
    "sets": "deleteSets",
}


def deleted(statsd: Statsd) -> list[str]:
    """Return the kinds of series that ``deleteIdleStats`` and the options for single kinds delete."""
    every = statsd.get("deleteIdleStats")
    own = {kind: statsd.get(option) for kind, option in _DELETE.items()}
    return [kind for kind, value in own.items() if truthy(every if value is UNDEFINED else value)]


# -- names


def legacy(statsd: Statsd) -> bool:
    """Return ``graphite.legacyNamespace``. What is neither true nor false is no legacy namespace: see `namespace`."""
    return statsd.get("graphite.legacyNamespace") in (UNDEFINED, True) and not _is_mixed(statsd)


def _is_mixed(statsd: Statsd) -> bool:
    value = statsd.peek("graphite.legacyNamespace")
    return value is not UNDEFINED and not isinstance(value, bool)


_MIXED = {"globalPrefix": "stats", "prefixCounter": "", "prefixTimer": "timers", "prefixGauge": "gauges"}
_MIXED["prefixSet"] = "sets"


def namespace(option: str, statsd: Statsd) -> str | None:
    """Return a part of the namespace.

    Where ``legacyNamespace`` is neither true nor false, such as 0, statsd takes the parts of the legacy namespace, and
    the order of the newer one: ``stats.NAME.rate`` and ``stats.timers.NAME.mean``.
    """
    if _is_mixed(statsd):
        statsd.get("graphite.legacyNamespace")
        return _MIXED[option]
    value = statsd.get(f"graphite.{option}")
    if value is UNDEFINED:
        return None
    part = "" if value is None else to_text(value)
    if not part and value != "":
        statsd.leave(
            f"graphite.{option}", f"{shown(value)} makes a part of the path that is empty; here, there is none"
        )
    return part


def suffix(statsd: Statsd) -> str | None:
    """Return ``graphite.globalSuffix``."""
    found = text("graphite.globalSuffix", statsd)
    if found == "":
        statsd.leave("graphite.globalSuffix", "empty, statsd sends a dot behind every name; here, nothing")
    return found


def own_prefix(statsd: Statsd) -> str | None:
    """Return ``prefixStats``. What is neither text nor a number makes statsd die, or names that do not agree."""
    value = statsd.get("prefixStats")
    if value is None or isinstance(value, list | dict):
        raise ValueError(value)
    return None if value is UNDEFINED else to_text(value)


# -- lists


def percentiles(statsd: Statsd) -> list[float]:
    """Return ``percentThreshold`` as a list. A number in quotes keeps its spelling, for it stands in names."""
    value = statsd.either("percentThreshold", 90)
    found: list[float] = []
    for percent in value if isinstance(value, list) else [value]:
        number = _number(percent)
        if number is None or not 0 < abs(number) <= 100:
            statsd.leave(
                "percentThreshold", f"{shown(percent)} cannot be made a percentage from -100 to 100, and not 0"
            )
        else:
            found.append(number)
    return found


def bins(statsd: Statsd) -> list[dict[str, Any]]:
    """Return ``histogram`` with the names of ours.

    A bound that does not rise, or is no number, has no sample in statsd, and leaves the others as they are.
    """
    value = statsd.either("histogram", [])
    found: list[dict[str, Any]] = []
    if not isinstance(value, list):
        statsd.leave("histogram", f"{shown(value)} is no list")
        return found
    for place, entry in enumerate(value):
        if not isinstance(entry, dict):
            statsd.leave("histogram", f"entry {place} is no metric with bins: {shown(entry)}")
            continue
        bounds = entry.get("bins", UNDEFINED)
        if not isinstance(bounds, list):
            statsd.leave("histogram", f"entry {place}: {shown(bounds)} is no list of bins")
            bounds = []  # the metric has none, whatever later entries say
        rising = list(_rising(bounds, place, statsd))
        found.append({"match": to_text(entry.get("metric", UNDEFINED)), "bounds": rising})
    return found


def _rising(bounds: Iterable[Any], place: int, statsd: Statsd) -> Iterator[float]:
    last = -math.inf
    for bound in bounds:
        number = math.inf if to_text(bound) == "inf" else _number(bound)
        if number is None or not number > last:
            statsd.leave("histogram", f"entry {place}: {shown(bound)} is no number above the bound before it")
        else:
            yield number
            last = number


def calculated(statsd: Statsd) -> list[str] | None:
    """Return ``calculatedTimerMetrics``, which statsd ignores if it is no list, or an empty one."""
    value = statsd.get("calculatedTimerMetrics")
    if value is UNDEFINED:
        return None
    if not isinstance(value, list):
        if truthy(value):
            statsd.leave("calculatedTimerMetrics", f"{shown(value)} is no list, so statsd ignores it, and sends all")
        return []
    names = [name for name in value if isinstance(name, str) and name]
    # In statsd, a list of names that no statistic has lets none pass.
    return names if names or not value else ["none"]


def _number(value: Any) -> float | None:
    """Return a number; with its spelling if it is in quotes and JavaScript would write it otherwise; None if it is
    none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | list):
        return None
    number, text = to_number(value), to_text(value)
    if math.isnan(number) or not text:
        return None
    if to_text(number) == text:
        return Spelled(text) if math.isinf(number) else _plain(number)
    try:
        return Spelled(text)
    except ValueError:  # white space, another base
        return None


def _plain(value: float) -> float:
    """Write what is whole without a point."""
    return int(value) if float(value).is_integer() else value
