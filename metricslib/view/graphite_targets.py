"""The targets of Graphite's render API: ``alias(sumSeries(stats.counters.web.*.rate), 'requests')``.

A target is a path, a glob, or a function of targets, numbers and texts. A function that is not in :data:`FUNCTIONS` is
an error that names it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidOption
from .graphite_store import Path, Points, Store
from .path_globs import PathGlob

__all__ = ["FUNCTIONS", "Found", "consolidated", "evaluate", "tag_filter"]

_LONGEST = 4_096
_DEEPEST = 20
_MOST_SERIES = 10_000
Value = float | None


@dataclass(frozen=True, slots=True)
class Found:
    """A series of an answer."""

    name: str
    points: Points
    tags: Mapping[str, str]
    path: str
    """The path, or the target of which it is made."""
    merge: str = "average"
    """How points become one if there are too many."""


# -- functions


def _merged(name: str, merge: Callable[[Sequence[float]], float]) -> Callable[..., list[Found]]:
    def merged(*lists: list[Found]) -> list[Found]:
        series = [each for found in lists for each in found]
        if not series:
            return []
        step = math.lcm(*(each.points.step for each in series))
        if step > 86_400:
            raise InvalidOption("target", name, "has series whose intervals do not fit together")
        columns = [column for each in series if (column := _steps(each.points, step))]
        start, end = min(map(min, columns), default=0), max(map(max, columns), default=-step)
        values: list[Value] = []
        for at in range(start, end + step, step):
            there = [value for column in columns if (value := column.get(at)) is not None]
            values.append(merge(there) if there else None)
        of = ",".join(dict.fromkeys(each.path for each in series))
        target = f"{name}({of})"
        common = dict(set(series[0].tags.items()).intersection(*(each.tags.items() for each in series[1:])))
        return [Found(target, Points(start, step, values), {**common, "name": common.get("name", target)}, target)]

    return merged


def _steps(points: Points, step: int) -> dict[int, Value]:
    """Return values by time, in a step that may be longer: then means."""
    if points.step == step:
        return dict(zip(range(points.start, points.end, step), points.values, strict=True))
    longer = consolidated(points, step // points.step, "average")
    return dict(zip(range(longer.start, longer.end, step), longer.values, strict=True))


def _mapped(name: str, change: Callable[..., Value]) -> Callable[..., list[Found]]:
    def mapped(series: list[Found], by: float) -> list[Found]:
        found = []
        for each in series:
            values = [None if value is None else change(value, by) for value in each.points.values]
            target = f"{name}({each.name},{by:g})"
            found.append(replace(each, name=target, points=each.points._replace(values=values), path=target))
        return found

    return mapped


def _alias(series: list[Found], name: str) -> list[Found]:
    return [replace(each, name=name) for each in series]


def _alias_by_node(series: list[Found], *nodes: float | str) -> list[Found]:
    def named(each: Found) -> str:
        path = re.split(r"[,)]", each.path.rpartition("(")[2])[0].partition(";")[0].split(".")
        texts = []
        for node in nodes:
            if isinstance(node, str):
                texts.append(each.tags.get(node, ""))
            elif node == int(node) and -len(path) <= node < len(path):
                texts.append(path[int(node)])
        return ".".join(texts)

    return [replace(each, name=named(each)) for each in series]


def _keep_last_value(series: list[Found], limit: float = math.inf) -> list[Found]:
    found = []
    for each in series:
        values, last, gap = list[Value](), None, 0
        for value in each.points.values:
            gap = 0 if value is not None else gap + 1
            last = value if value is not None else last
            values.append(last)
        # A gap that is longer than the limit stays one.
        if limit < math.inf:
            values = _only_short_gaps(each.points.values, values, limit)
        target = f"keepLastValue({each.name})"
        found.append(replace(each, name=target, points=each.points._replace(values=values), path=target))
    return found


def _only_short_gaps(before: Sequence[Value], filled: Sequence[Value], limit: float) -> list[Value]:
    kept, place = list(filled), 0
    while place < len(before):
        end = place
        while end < len(before) and before[end] is None:
            end += 1
        if end - place > limit:
            kept[place:end] = [None] * (end - place)
        place = end + 1
    return kept


def _consolidate_by(series: list[Found], merge: str) -> list[Found]:
    if merge not in _MERGES:
        raise InvalidOption("consolidateBy", merge, f"must be one of {', '.join(_MERGES)}")
    return [replace(each, name=f'consolidateBy({each.name},"{merge}")', merge=merge) for each in series]


def _group(*lists: list[Found]) -> list[Found]:
    return [each for found in lists for each in found]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_MERGES: Mapping[str, Callable[[Sequence[float]], float]] = {
    **{"average": _mean, "avg": _mean, "sum": sum, "min": min, "max": max},
    **{"first": lambda values: values[0], "last": lambda values: values[-1]},
}

_SERIES, _NUMBER, _TEXT, _NODE = "seriesList", "float", "string", "node"

_TYPES: Mapping[str, tuple[type, ...]] = {_SERIES: (list,), _NUMBER: (float,), _TEXT: (str,), _NODE: (float, str)}


@dataclass(frozen=True, slots=True)
class _Function:
    call: Callable[..., list[Found]]
    parameters: Sequence[tuple[str, str]]
    """Names and types."""
    required: int
    describes: str
    multiple: bool = False
    """Whether the last parameter may be given more than once."""


_SUM, _AVERAGE = _merged("sumSeries", sum), _merged("averageSeries", _mean)
_ALL = (("seriesLists", _SERIES),)
_BY = (("seriesList", _SERIES), ("factor", _NUMBER))
FUNCTIONS: Mapping[str, _Function] = {
    "alias": _Function(_alias, (("seriesList", _SERIES), ("newName", _TEXT)), 2, "Names the series."),
    "aliasByNode": _Function(
        _alias_by_node, (("seriesList", _SERIES), ("nodes", _NODE)), 2, "Names series by parts of their path.", True
    ),
    "aliasByTags": _Function(
        _alias_by_node, (("seriesList", _SERIES), ("tags", _NODE)), 2, "Names series by their tags.", True
    ),
    "sumSeries": _Function(_SUM, _ALL, 1, "The sum of all series.", True),
    "sum": _Function(_SUM, _ALL, 1, "The sum of all series.", True),
    "averageSeries": _Function(_AVERAGE, _ALL, 1, "The mean of all series.", True),
    "avg": _Function(_AVERAGE, _ALL, 1, "The mean of all series.", True),
    "minSeries": _Function(_merged("minSeries", min), _ALL, 1, "The lowest of all series.", True),
    "maxSeries": _Function(_merged("maxSeries", max), _ALL, 1, "The highest of all series.", True),
    "group": _Function(_group, _ALL, 1, "All series in one list.", True),
    "scale": _Function(_mapped("scale", lambda value, by: value * by), _BY, 2, "Each value times a factor."),
    "offset": _Function(_mapped("offset", lambda value, by: value + by), _BY, 2, "Each value plus a number."),
    "keepLastValue": _Function(
        _keep_last_value, (("seriesList", _SERIES), ("limit", _NUMBER)), 1, "Fills gaps with the value before."
    ),
    "consolidateBy": _Function(
        _consolidate_by, (("seriesList", _SERIES), ("consolidationFunc", _TEXT)), 2, "How points become fewer."
    ),
}
"""The functions that a target may have, but for ``seriesByTag``."""


# -- targets


_TOKEN = re.compile(r"""\s*(?:(?P<text>'[^']*'|"[^"]*")|(?P<call>[A-Za-z]\w*)\s*\(|(?P<end>[,)])|[^\s,()'"])""")
_NUMERIC = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


def evaluate(target: str, store: Store, start: int, end: int) -> list[Found]:
    """Return the series of a target. Raises :class:`~.errors.InvalidOption` where it is none."""
    if len(target) > _LONGEST:
        raise InvalidOption("target", f"{target[:50]}…", f"must have at most {_LONGEST} characters")
    reader = _Reader(target, store, start, end)
    found = reader.argument(0)
    if not isinstance(found, list) or reader.rest():
        raise reader.error("is no target")
    return found


class _Reader:
    """Reads a target from left to right, and evaluates it."""

    def __init__(self, text: str, store: Store, start: int, end: int) -> None:
        self._text = text
        self._place = 0
        self._store = store
        self._start, self._end = start, end
        self._series = 0

    def error(self, reason: str) -> InvalidOption:
        return InvalidOption("target", self._text[:100], reason)

    def rest(self) -> str:
        return self._text[self._place :].strip()

    def argument(self, depth: int) -> Any:
        """Return the series of what stands here, or a number or text."""
        if depth > _DEEPEST:
            raise self.error(f"has more than {_DEEPEST} functions in one another")
        token = _TOKEN.match(self._text, self._place)
        if token is None or token["end"]:
            raise self.error("ends too early, or has an argument too few")
        if token["text"]:
            self._place = token.end()
            return token["text"][1:-1]
        if token["call"]:
            self._place = token.end()
            return self._called(token["call"], depth)
        return self._path_or_number()

    def _called(self, name: str, depth: int) -> list[Found]:
        arguments: list[Any] = []
        closing = re.compile(r"\s*\)").match(self._text, self._place)
        while not closing:
            arguments.append(self.argument(depth + 1))
            token = _TOKEN.match(self._text, self._place)
            if token is None or not token["end"]:
                raise self.error("lacks a closing parenthesis")
            self._place = token.end()
            if token["end"] == ")":
                break
        if closing:
            self._place = closing.end()
        if name == "seriesByTag":
            return self._by_tags(arguments)
        function = FUNCTIONS.get(name)
        if function is None:
            known = ", ".join([*FUNCTIONS, "seriesByTag"])
            raise InvalidOption("target", f"{name}(…)", f"is no function of this page, which has {known}")
        return self._applied(name, function, arguments)

    def _applied(self, name: str, function: _Function, arguments: Sequence[Any]) -> list[Found]:
        most = math.inf if function.multiple else len(function.parameters)
        if not function.required <= len(arguments) <= most:
            raise InvalidOption("target", f"{name}(…)", f"needs {function.required} arguments, not {len(arguments)}")
        for number, argument in enumerate(arguments):
            parameter, kind = function.parameters[min(number, len(function.parameters) - 1)]
            if not isinstance(argument, _TYPES[kind]):
                raise InvalidOption("target", f"{name}(…)", f"has a {parameter} that is no {kind}")
        try:
            return function.call(*arguments)
        except OverflowError:
            raise InvalidOption("target", f"{name}(…)", "has numbers beyond what can be computed") from None

    def _path_or_number(self) -> Any:
        place, braces = self._place, 0
        text = self._text
        while place < len(text) and text[place].isspace():
            place += 1
        start = place
        while place < len(text) and (braces or text[place] not in "(),'\" \t\r\n"):
            braces += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        self._place = place
        word = text[start:place]
        if _NUMERIC.fullmatch(word):
            return float(word)
        return self._read(self._store.find(PathGlob(word)))

    def _by_tags(self, expressions: Sequence[Any]) -> list[Found]:
        if not expressions or not all(isinstance(each, str) for each in expressions):
            raise InvalidOption("target", "seriesByTag(…)", "needs texts such as 'name=stats.counters.web.hits.count'")
        matches = tag_filter(expressions)
        return self._read(sorted(path for path, tags in self._store.tagged() if matches(tags)))

    def _read(self, paths: Sequence[Path]) -> list[Found]:
        self._series += len(paths)
        if self._series > _MOST_SERIES:
            raise self.error(f"has more than {_MOST_SERIES:,} series")
        found = []
        for path in paths:
            points = self._store.read(path, self._start, self._end)
            found.append(Found(path.path, points, path.tags(), path.path))
        return found


_EXPRESSION = re.compile(r"([^!=~;]+)(=~|!=~|!=|=)(.*)", re.DOTALL)
_SAFE = re.compile(r"(?:[\w\-:/=@%]|\\[.\-/]|\.\*|\.|[|])*")


def tag_filter(expressions: Sequence[str]) -> Callable[[Mapping[str, str]], bool]:
    """Return what tells whether tags fulfil all expressions: ``tag=value``, ``tag!=value``, ``tag=~pattern``.

    A pattern is a text with ``.*``, ``.`` and ``|``, and matches at the beginning, as in Graphite. Other regular
    expressions are refused, because they could take exponential time.
    """
    tests: list[tuple[str, Callable[[str], bool], bool]] = []
    for text in expressions:
        found = _EXPRESSION.fullmatch(text)
        if not found:
            raise InvalidOption("expr", text[:50], "must be like tag=value")
        tag, operator, value = found.groups()
        negated = operator.startswith("!")
        if operator.endswith("~"):
            tests.append((tag, _pattern(value), negated))
        else:
            tests.append((tag, value.__eq__, negated))
    return lambda tags: all(test(tags.get(tag, "")) != negated for tag, test, negated in tests)


def _pattern(text: str) -> Callable[[str], bool]:
    inner = text.removeprefix("^")
    whole = inner.endswith("$")
    inner = inner.removesuffix("$")
    if inner.startswith("(") and inner.endswith(")"):
        inner = inner[1:-1]
    if not _SAFE.fullmatch(inner):
        raise InvalidOption("expr", text[:50], "may only have texts, .*, . and |")
    ways = []
    for way in inner.split("|"):
        # A dot of the text would be a part of a path: texts are matched as one part, with dots out of the way.
        glob = re.sub(r"\\(.)|\.\*|\.", lambda each: each[1] or {".*": "*", ".": "?"}[each[0]], way)
        ways.append(PathGlob(glob.replace(".", "\0") + ("" if whole else "*")).parts[0])
    return lambda value: any(way.matches(value.replace(".", "\0")) for way in ways)


def consolidated(points: Points, many: int, merge: str) -> Points:
    """Return points of which each stands for ``many``, at times that are multiples of the longer step."""
    if many <= 1:
        return points
    step = points.step * many
    bands: dict[int, list[float]] = {}
    first = points.start - points.start % step
    for number, value in enumerate(points.values):
        at = points.start + number * points.step
        band = bands.setdefault(at - at % step, [])
        if value is not None:
            band.append(value)
    whole = _MERGES[merge]
    return Points(first, step, [whole(band) if band else None for _, band in sorted(bands.items())])
