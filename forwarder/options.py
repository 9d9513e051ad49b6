"""The kinds of value that options have. They are read from text (flag, environment) or TOML, checked, and written as
TOML.

The input is text or a TOML value. The output is an immutable value; an invalid one raises :class:`ValueError`, and the
caller, which knows the origin of the value, makes the message with :attr:`Kind.expected`. This module names no option.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metricslib.delivery import split_urls, urls
from metricslib.errors import MetricsError
from metricslib.naming import Spelled
from metricslib.series import Kind as SeriesKind
from metricslib.view.boards import board_query
from metricslib.view.query import Query

from .addresses import host_and_port

__all__ = ["Kind", "toml"]
__all__ += [
    "ADDRESS",
    "BINS",
    "BOARDS",
    "COUNT",
    "DURATION",
    "HEALTH",
    "GROUP",
    "LEVEL",
    "LEVELS",
    "MEMORY",
    "MODE",
    "NAME",
    "PERCENT",
    "PERCENTS",
    "SERIES",
    "SERIES_KINDS",
    "SIZE",
    "STOP",
    "SWITCH",
    "TEXT",
    "THREADS",
    "URLS",
    "WORDS",
]

LEVELS = ("debug", "info", "warning", "error")
"""Log levels, the most detailed first."""

SERIES: Mapping[str, SeriesKind] = {
    "counters": "counter",
    "timers": "timer",
    "histograms": "histogram",
    "gauges": "gauge",
    "sets": "unique",
}
"""Kinds of series, by their names in configurations."""

LONGEST = 1_000_000_000
"""Maximum duration in seconds, 31 years: far below the range of clocks, timers and Graphite's timestamps."""
_LARGEST = 1 << 30
_MOST_MEMORY = 1 << 50
_LONGEST_STOP = 86_400
_MOST_THREADS = 256
_MOST_BOARDS = 100
_BOARD = {"title", "series", "warn", "crit", "night"}
_MOST = 1_000
"""Maximum number of values in a list."""
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. ``of_text`` turns text to a TOML value, ``check`` that to the value; ``raw`` reverts it."""

    expected: str
    check: Callable[[Any], Any]
    of_text: Callable[[str], Any] = str
    raw: Callable[[Any], Any] = lambda value: value


def _refuse() -> Any:
    raise ValueError


def _must(condition: object) -> None:
    if not condition:
        raise ValueError


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number_or_text(text: str) -> float | str:
    try:
        return _number(text)
    except ValueError:
        return text


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def _text(value: object) -> str:
    _must(isinstance(value, str))
    return str(value)


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or len(values) > _MOST:
        raise ValueError
    _must(all(isinstance(item, str) and item for item in values))
    return tuple(values)


def _name(value: object) -> str:
    text = _text(value)
    _must(re.fullmatch(r"[a-zA-Z0-9_.-]*", text) and not text.startswith(".") and not text.endswith("."))
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _count(value: Any) -> int:
    _must(_is_number(value) and 1 <= value <= _LARGEST and value == int(value))
    return int(value)


def _bytes(value: Any) -> int:
    number = urls.size("", value) if isinstance(value, str) else value
    _must(_is_number(number) and 0 <= number <= _MOST_MEMORY and number == int(number))
    return int(number)


def _buffer(value: Any) -> int:
    return _count(_bytes(value))


def _threads(value: Any) -> int:
    threads = _count(value)
    _must(threads <= _MOST_THREADS)
    return threads


def _duration(value: Any) -> float:
    _must(_is_number(value) and 0 <= value <= LONGEST)
    return int(value) if value == int(value) else float(value)


def _spelled(value: Any) -> Any:
    """A number that is given as text keeps its spelling in names."""
    return Spelled(value) if isinstance(value, str) else value


def _stop(value: Any) -> float:
    seconds = _duration(value)
    _must(seconds <= _LONGEST_STOP)
    return seconds


def _percents(value: Any) -> tuple[float, ...]:
    values = [value] if _is_number(value) else value
    _must(isinstance(values, Sequence) and not isinstance(values, str) and len(values) <= _MOST)
    percents = tuple(map(_spelled, values))
    _must(all(_is_number(item) and 0 < abs(item) <= 100 for item in percents))
    return percents


def _percent(value: Any) -> float:
    _must(_is_number(value) and 0 < value <= 100)
    return float(value) if value % 1 else int(value)


def _switch(value: object) -> bool:
    _must(isinstance(value, bool))
    return bool(value)


def _mode(value: object) -> int:
    """Numbers are refused: ``660`` is decimal in TOML, which is rarely intended."""
    text = _text(value)
    _must(re.fullmatch(r"(0o?)?[0-7]{3}", text))
    return int(text.removeprefix("0o"), 8)


def _group(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    _must(re.fullmatch(r"([a-zA-Z_][a-zA-Z0-9_.-]*\$?)?|[0-9]{1,9}", text))
    return text


def _series(value: object) -> tuple[str, ...]:
    words = _texts(value)
    _must(set(words) <= SERIES.keys())
    return tuple(dict.fromkeys(words))


def _level(value: object) -> str:
    text = _text(value).lower()
    _must(text in LEVELS)
    return text


def _health(value: object) -> str:
    text = _text(value).lower()
    _must(text in ("up", "down"))
    return text


def _bins(value: Any) -> tuple[tuple[str, tuple[float, ...]], ...]:
    _must(
        isinstance(value, list)
        and len(value) <= _MOST
        and all(isinstance(entry, dict) and entry.keys() == {"match", "bounds"} for entry in value)
    )
    bins = []
    for entry in value:
        _must(isinstance(entry["match"], str) and isinstance(entry["bounds"], list))
        _must(len(entry["bounds"]) <= _MOST)
        bounds = tuple(map(_spelled, entry["bounds"]))
        _must(all(map(_is_number, bounds)) and list(bounds) == sorted(set(bounds)))
        bins.append((entry["match"], bounds))
    return tuple(bins)


def _boards(value: Any) -> tuple[tuple[str, str], ...]:
    """Return the title and the query string of each board."""
    _must(isinstance(value, list) and len(value) <= _MOST_BOARDS)
    boards = {}
    for entry in value:
        _must(isinstance(entry, dict) and {"title", "series"} <= entry.keys() <= _BOARD)
        warn, crit = (entry.get(name, []) for name in ("warn", "crit"))
        for limits in (warn, crit):
            _must(all(map(_is_number, limits)) if isinstance(limits, list) else _is_number(limits))
        _must(isinstance(entry["series"], list) and isinstance(entry.get("night", False), bool))
        try:
            query = board_query(entry["title"], entry["series"], warn, crit, entry.get("night", False))
        except MetricsError as error:
            raise ValueError(str(error)) from None
        boards[entry["title"]] = query
    return tuple(boards.items())


def _raw_boards(boards: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return boards as they stand in a file."""
    raw = []
    for title, text in boards:
        query = Query.parse(text)
        rest = {"warn": [*query.warn], "crit": [*query.crit], "night": query.night}
        board: dict[str, Any] = {"title": title, "series": [*query.series]}
        raw.append(board | {name: value for name, value in rest.items() if value})
    return raw


def _address(value: object) -> str:
    text = _text(value)
    if text != "off":
        host_and_port(text)
    return text


def toml(value: object) -> str:
    """Return a plain value (text, number, boolean, or a list or table of these) as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case Spelled():
            return f'"{value.text}"'
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


TEXT = Kind("text", _text)
NAME = Kind("letters, digits, '_', '-' and inner dots", _name)
WORDS = Kind("a list of names", _texts, _words)
URLS = Kind(
    "a list of URLs",
    _texts,
    split_urls,
)
COUNT = Kind("a whole number from 1 to 2^30", _count, _number)
SIZE = Kind("a number of bytes from 1 to 1 GiB, such as 67108864 or 64MiB", _buffer, _number_or_text)
MEMORY = Kind("a number of bytes from 0 to 2^50, such as 67108864 or 64MiB", _bytes, _number_or_text)
THREADS = Kind("a whole number from 1 to 256", _threads, _number)
DURATION = Kind("a number of seconds from 0 to a billion", _duration, _number)
STOP = Kind("a number of seconds from 0 to 86400, a day", _stop, _number)
PERCENT = Kind("a percentage above 0, at most 100", _percent, _number)
PERCENTS = Kind(
    "percents from -100 to 100, and not 0", _percents, lambda text: [_number(word) for word in _words(text)]
)
SWITCH = Kind(
    "true or false", _switch, lambda text: _SWITCHES[text.lower()] if text.lower() in _SWITCHES else _refuse()
)
SERIES_KINDS = Kind(f"a list of {', '.join(SERIES)}", _series, _words)
MODE = Kind('a file mode in octal, in quotes, such as "0660"', _mode, raw=lambda mode: f"{mode:04o}")
GROUP = Kind("the name or the number of a group", _group)
LEVEL = Kind(f"one of {', '.join(LEVELS)}", _level)
HEALTH = Kind("up or down", _health)
ADDRESS = Kind("HOST:PORT, with an IPv6 address in brackets, or off", _address)
BOARDS = Kind(
    'a list of boards such as { title = "Shop", series = ["shop.hits"], warn = [10], crit = [20] }',
    _boards,
    lambda _: _refuse(),
    raw=_raw_boards,
)
BINS = Kind(
    'a list of tables such as { match = "web", bounds = [10, 100, inf] }, bounds rising',
    _bins,
    lambda _: _refuse(),
    raw=lambda bins: [{"match": match, "bounds": bounds} for match, bounds in bins],
)
