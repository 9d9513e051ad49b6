"""Graphite's HTTP API below the page's URL, for Grafana's Graphite data source, tasseo and others.

=============================  =======================================================================================
path                           answer
=============================  =======================================================================================
``render``                     points of targets, as JSON
``metrics/find``               what the parts of a path may be
``metrics/expand``             the paths that match
``metrics/index.json``         all paths
``tags``, ``tags/autoComplete``  tags and their values
``functions``                  the functions of targets, for Grafana's editor
``version``                    the version of Graphite whose API this is
``events/get_data``            nothing: there are no events
=============================  =======================================================================================

Parameters may stand in the query, or in a form that is sent with POST. An answer has at most a million points and
100,000 paths, and takes at most two seconds of processor time.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from ..errors import InvalidOption
from .graphite_store import Store
from .graphite_targets import FUNCTIONS, Found, consolidated, evaluate, tag_filter
from .path_globs import PathGlob

__all__ = ["FORMS", "PATHS", "VERSION", "answer"]

VERSION = "1.1.10"
FORMS = ("render", "metrics/find", "metrics/expand")
"""Paths to which forms may be sent."""
_MOST_FIELDS = 200
_DAY = 86_400
_DEFAULT_LIMIT = 100
_MOST_LIMIT = 10_000

Fields = Mapping[str, Sequence[str]]


def answer(path: str, query: str, form: bytes, store: Store, now: float) -> tuple[str, str] | None:
    """Return content type and text of the answer to a request, or None if there is no such path.

    Raises:
        InvalidOption: If a parameter has an invalid value.
        TooMany: If the answer would have too many points or paths.
        TooSlow: If it takes too long.
    """
    handler = PATHS.get(path)
    tag = path.removeprefix("tags/") if path.startswith("tags/") and handler is None else ""
    if handler is None and not tag:
        return None
    text = "&".join(filter(None, (query, form.decode("utf-8", "replace"))))
    try:
        fields = parse_qs(text, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidOption("query", f"{text[:50]}…", f"has more than {_MOST_FIELDS} parameters") from None
    if path == "version":
        return "text/plain; charset=utf-8", VERSION
    found = _values_of(tag, store) if handler is None else handler(fields, store, int(now))
    return "application/json", json.dumps(found, allow_nan=False, separators=(",", ":"))


def _one(fields: Fields, name: str, default: str = "") -> str:
    return fields.get(name, [default])[-1]


def _whole(fields: Fields, name: str, default: int, most: int) -> int:
    text = _one(fields, name, str(default))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:10]) <= most and len(text) <= 10):
        raise InvalidOption(name, text[:50], f"must be a whole number from 1 to {most}")
    return int(text)


# -- render


def _render(fields: Fields, store: Store, now: int) -> list[dict[str, Any]]:
    format = _one(fields, "format", "json")
    if format != "json":
        raise InvalidOption("format", format[:50], "must be json; this page draws no pictures of targets")
    start = _time("from", _one(fields, "from", "-24hours"), now)
    end = _time("until", _one(fields, "until", "now"), now)
    if start >= end:
        raise InvalidOption("from", _one(fields, "from")[:50], "must be before until")
    most = _whole(fields, "maxDataPoints", 1_000_000_000, 9_999_999_999)
    found = [each for target in fields.get("target", ()) for each in evaluate(target, store, start, end)]
    return [_rendered(each, most, "noNullPoints" in fields) for each in found]


def _rendered(found: Found, most: int, no_nulls: bool) -> dict[str, Any]:
    points = found.points
    points = consolidated(points, -(-len(points.values) // most), found.merge)
    times = range(points.start, points.end, points.step)
    values = [value if value is not None and math.isfinite(value) else None for value in points.values]
    pairs = [pair for pair in zip(values, times, strict=True) if not no_nulls or pair[0] is not None]
    return {"target": found.name, "tags": dict(found.tags), "datapoints": pairs}


_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "m"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
    **dict.fromkeys(("mon", "month", "months"), 30 * _DAY),
    **dict.fromkeys(("y", "year", "years"), 365 * _DAY),
}
_RELATIVE = re.compile(r"(?:now)?\s*([+-])\s*(\d{1,9})\s*([a-z]+)")
_STAMP = re.compile(r"\d{9,12}")


def _time(name: str, text: str, now: int) -> int:
    """Return a time of Graphite: ``now``, ``-5min``, seconds since the epoch, ``20261128`` or ``18:30_20261128``."""
    text = text.strip()
    if text == "now":
        return now
    if relative := _RELATIVE.fullmatch(text):
        sign, count, unit = relative.groups()
        if unit in _UNITS:
            return now + int(count) * _UNITS[unit] * (1 if sign == "+" else -1)
    if _STAMP.fullmatch(text):
        return int(text)
    for pattern in ("%H:%M_%Y%m%d", "%Y%m%d"):
        try:
            return int(datetime.strptime(text, pattern).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    raise InvalidOption(name, text[:50], "must be like -5min, now, 1795804200, 20261128 or 18:30_20261128 (in UTC)")


# -- paths


def _find(fields: Fields, store: Store, now: int) -> Any:
    text = _one(fields, "query")
    if not text:
        raise InvalidOption("query", "", "must be a path, such as * or stats.*")
    format = _one(fields, "format", "treejson")
    completer = format == "completer"
    if format not in ("treejson", "completer"):
        raise InvalidOption("format", format[:50], "must be treejson or completer")
    if completer and not text.endswith("*"):
        text += "*"
    nodes = store.nodes(PathGlob(text))
    if completer:
        return {
            "metrics": [
                {"path": path if leaf else f"{path}.", "name": path.rpartition(".")[2], "is_leaf": str(int(leaf))}
                for path, leaf in nodes
            ]
        }
    return [
        {
            **{"text": path.rpartition(".")[2], "id": path, "leaf": int(leaf), "context": {}},
            **dict.fromkeys(("expandable", "allowChildren"), int(not leaf)),
        }
        for path, leaf in nodes
    ]


def _expand(fields: Fields, store: Store, now: int) -> Any:
    leaves_only = _one(fields, "leavesOnly", "0") == "1"
    found = {
        text: sorted({path for path, leaf in store.nodes(PathGlob(text)) if leaf or not leaves_only})
        for text in fields.get("query", ())
    }
    if _one(fields, "groupByExpr", "0") == "1":
        return {"results": found}
    return {"results": sorted({path for paths in found.values() for path in paths})}


def _index(fields: Fields, store: Store, now: int) -> list[str]:
    return store.all()


# -- tags


def _values_by_tag(store: Store, expressions: Sequence[str] = ()) -> dict[str, dict[str, int]]:
    matches = tag_filter(expressions)
    found: dict[str, dict[str, int]] = {}
    for _, tags in store.tagged():
        if matches(tags):
            for tag, value in tags.items():
                values = found.setdefault(tag, {})
                values[value] = values.get(value, 0) + 1
    return found


def _tags(fields: Fields, store: Store, now: int) -> list[dict[str, str]]:
    return [{"tag": tag} for tag in sorted(_values_by_tag(store))]


def _values_of(tag: str, store: Store) -> dict[str, Any]:
    values = _values_by_tag(store).get(tag, {})
    return {"tag": tag, "values": [{"value": value, "count": values[value]} for value in sorted(values)]}


def _complete_tags(fields: Fields, store: Store, now: int) -> list[str]:
    prefix, limit = _one(fields, "tagPrefix"), _whole(fields, "limit", _DEFAULT_LIMIT, _MOST_LIMIT)
    tags = _values_by_tag(store, fields.get("expr", ()))
    return sorted(tag for tag in tags if tag.startswith(prefix))[:limit]


def _complete_values(fields: Fields, store: Store, now: int) -> list[str]:
    prefix, limit = _one(fields, "valuePrefix"), _whole(fields, "limit", _DEFAULT_LIMIT, _MOST_LIMIT)
    values = _values_by_tag(store, fields.get("expr", ())).get(_one(fields, "tag"), {})
    return sorted(value for value in values if value.startswith(prefix))[:limit]


def _find_series(fields: Fields, store: Store, now: int) -> list[str]:
    if "expr" not in fields:
        raise InvalidOption("expr", "", "must be given, such as tag=value")
    matches = tag_filter(fields["expr"])
    return sorted(path.path for path, tags in store.tagged() if matches(tags))


# -- the rest


def _functions(fields: Fields, store: Store, now: int) -> dict[str, Any]:
    return {
        name: {
            "name": name,
            "function": f"{name}({', '.join(parameter for parameter, _ in function.parameters)})",
            "description": function.describes,
            "module": "metricslib",
            "group": "Transform",
            "params": [
                {
                    "name": parameter,
                    "type": kind,
                    "required": number < function.required,
                    "multiple": function.multiple and number == len(function.parameters) - 1,
                }
                for number, (parameter, kind) in enumerate(function.parameters)
            ],
        }
        for name, function in FUNCTIONS.items()
    }


def _nothing(fields: Fields, store: Store, now: int) -> list[Any]:
    return []


PATHS: Mapping[str, Callable[[Fields, Store, int], Any]] = {
    "render": _render,
    "metrics/find": _find,
    "metrics/expand": _expand,
    "metrics/index.json": _index,
    "tags": _tags,
    "tags/autoComplete/tags": _complete_tags,
    "tags/autoComplete/values": _complete_values,
    "tags/findSeries": _find_series,
    "functions": _functions,
    "version": _nothing,
    "events/get_data": _nothing,
}
"""By path, what makes the answer; also ``tags/NAME``."""
