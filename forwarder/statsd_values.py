"""What statsd's values are in the forwarder's configuration: milliseconds are seconds, one number is a list.

In: a configuration of statsd, as :class:`Statsd`. Out: for an option of ours the value that TOML would hold, or None
where statsd's says nothing. What cannot be taken over is left out there, with the reason. Like statsd these functions
take numbers in quotes, and what is empty, 0 or false for not given where that does the same there.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Statsd", "as_given", "deleted", "interval", "log_level", "number", "seconds", "whole"]
__all__ += ["bins", "gauges_ttl", "percentiles"]


class Statsd:
    """statsd's options by name, those of a table as ``graphite.globalPrefix``, and what could not be taken over."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in _flat(given) if value is not None}
        self.used: list[str] = []
        """The options that were asked for and given, since this was last emptied."""
        self.left_out: list[tuple[str, str]] = []
        """Options and reasons."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._given.items())

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option's value."""
        if name not in self._given:
            return default
        if name not in self.used:
            self.used.append(name)
        return self._given[name]

    def leave(self, name: str, why: str) -> None:
        """Leave an option out."""
        if (name, why) not in self.left_out:
            self.left_out.append((name, why))


TABLES = ("graphite", "keyFlush", "console", "log")


def _flat(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name in TABLES and isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


# -- one option


def as_given(name: str, statsd: Statsd) -> Any:
    """Return the option ``name`` as it is."""
    return statsd.get(name)


def seconds(name: str, statsd: Statsd) -> float | None:
    """Return the seconds of an option in milliseconds."""
    value = statsd.get(name)
    return None if value is None else _plain(number(value) / 1000)


def interval(statsd: Statsd) -> int:
    """Return ``flushInterval`` in whole seconds."""
    exact = number(statsd.get("flushInterval") or 10_000) / 1000
    rounded = max(1, round(exact))
    if rounded != exact:
        statsd.leave(
            "flushInterval", f"stamps are whole seconds, so intervals are, too: {exact:g} s became {rounded} s"
        )
    return rounded


def percentiles(statsd: Statsd) -> list[float]:
    """Return ``percentThreshold`` as a list."""
    value = statsd.get("percentThreshold") or 90
    return [_plain(number(percent)) for percent in (value if isinstance(value, list) else [value])]


def bins(statsd: Statsd) -> list[dict[str, Any]] | None:
    """Return ``histogram`` with the names of ours."""
    value = statsd.get("histogram")
    if value is None:
        return None
    bounds = {"inf": math.inf}
    return [
        {"match": entry["metric"], "bounds": [bounds.get(bound) or _plain(number(bound)) for bound in entry["bins"]]}
        for entry in value
    ]


def gauges_ttl(statsd: Statsd) -> int | None:
    """Return ``gaugesMaxTTL``, which is 1 unless it is a whole number above."""
    value = statsd.get("gaugesMaxTTL")
    return None if value is None else value if _is_whole(value) and value > 1 else 1


def log_level(statsd: Statsd) -> str:
    """Return ``debug`` as a level."""
    return "debug" if statsd.get("debug") else "info"


_DELETE = {
    "counters": "deleteCounters",
    "timers": "deleteTimers",
    "histograms": "deleteTimers",
    "gauges": "deleteGauges",
    "sets": "deleteSets",
}


def deleted(statsd: Statsd) -> list[str]:
    """Return the kinds of series that ``deleteIdleStats`` and the options for single kinds delete."""
    every = bool(statsd.get("deleteIdleStats"))
    return [kind for kind, option in _DELETE.items() if statsd.get(option, every)]


# -- numbers


def number(value: object) -> float:
    """Return a number, also one in quotes. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def whole(value: object) -> int:
    """Return a whole number, also one in quotes. Raises ValueError."""
    found = number(value)
    if not _is_whole(found):
        raise ValueError(f"{value!r} is no whole number")
    return int(found)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


def _plain(value: float) -> float:
    """Write what is whole without a point."""
    return int(value) if value.is_integer() else value
