"""What Graphite's API is answered from: the history of a program, and the files of a ``whisper://`` destination.

Paths are those that the program sends. The history has only a part of each timer's statistics (:data:`_FROM_HISTORY`);
whisper files have all. A path is read from its file if the history does not have it, or not from the time on that is
asked for. As in Graphite, globs find series without tags; those with tags are found by their tags, or by their name as
it is written: ``stats.counters.web.hits.count;route=u``.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..delivery.whisper import relative_path
from ..history import DISTRIBUTIONS, HOUR, MINUTE, History
from ..naming import Naming
from ..series import KINDS, Kind, canonical_path
from .path_globs import PathGlob
from .report import TooSlow

__all__ = ["Path", "Points", "Store", "TooMany"]

_BLOCK = 500
_MOST_POINTS = 1_000_000
_MOST_FOUND = 100_000
_FROM_HISTORY: Mapping[Kind, Mapping[str, str]] = {
    "counter": {"count": "value", "rate": "value"},
    "gauge": {"value": "value"},
    "unique": {"count": "value"},
    **{
        kind: {"count": "count", "count_ps": "count", "median": "median", "upper": "max", "upper_90": "p90"}
        for kind in DISTRIBUTIONS
    },
}
"""By kind and statistic, the column of the history."""
_RATES = ("rate", "count_ps")


class TooMany(Exception):
    """More points or paths than one answer may have."""


class Points(NamedTuple):
    """The values of a path at ``start``, ``start + step`` and so on, all before ``end``; None where there is none."""

    start: int
    step: int
    values: list[float | None]

    @property
    def end(self) -> int:
        return self.start + self.step * len(self.values)


class Path(NamedTuple):
    """A path, and where it comes from."""

    path: str
    series: tuple[Kind, str, str] | None = None
    """Kind, key and statistic in the history; None: it has only a whisper file."""

    def tags(self) -> dict[str, str]:
        """Return its tags as Graphite has them: the name is one of them."""
        name, _, tags = self.path.partition(";")
        return {"name": name, **dict(tag.split("=", 1) for tag in tags.split(";") if "=" in tag)}


class Store:
    """Finds paths, and reads their points. One request uses one, until ``in_time`` returns False."""

    def __init__(
        self,
        history: History,
        naming: Naming,
        directories: Sequence[str] = (),
        *,
        now: float,
        in_time: Callable[[], bool] = lambda: True,
    ) -> None:
        self._history = history
        self._naming = naming
        self._directories = directories
        self._now = int(now)
        self._in_time = in_time
        self._points = 0

    # -- paths

    def find(self, glob: PathGlob) -> list[Path]:
        """Return the paths that match all of a glob, in order; a path with tags if the glob is its plain name."""
        found: dict[str, Path] = {}
        if glob.is_plain:
            asked = canonical_path(glob.text)
            for each in self._known(glob.text.partition(";")[0]):
                if each.path == asked:
                    return [each]
            return [Path(asked)] if asked and self._file(asked) else []
        for each in self._known(glob.literal):
            if ";" not in each.path and glob.matches(each.path):
                found[each.path] = each
        for path, is_leaf in self._on_disk(glob):
            if is_leaf:
                found.setdefault(path, Path(path))
        return [found[path] for path in sorted(found)]

    def nodes(self, glob: PathGlob) -> list[tuple[str, bool]]:
        """Return what the parts of a glob lead to, and whether it is a path itself or has paths below."""
        count = len(glob.parts)
        found = set[tuple[str, bool]]()
        for each in self._known(glob.literal):
            if ";" in each.path:
                continue
            parts = each.path.split(".")
            if len(parts) >= count and glob.begins(parts[:count], count):
                found.add((".".join(parts[:count]), len(parts) == count))
        found.update(self._on_disk(glob))
        return sorted(found)

    def all(self) -> list[str]:
        """Return every path without tags."""
        found = {each.path for each in self._known("") if ";" not in each.path}
        for directory in self._directories:
            for at, folders, files in os.walk(directory):
                folders[:] = [folder for folder in folders if not folder.startswith(("_", "."))]
                inside = os.path.relpath(at, directory).replace(os.sep, ".").lstrip(".")
                found.update(f"{inside}.{file[:-4]}".lstrip(".") for file in files if file.endswith(".wsp"))
                self._check(len(found))
        return sorted(found)

    def tagged(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Yield all paths of the history with their tags."""
        for each in self._known(""):
            yield each, each.tags()

    def _known(self, literal: str) -> Iterator[Path]:
        """Yield the paths of the history that may begin with a text."""
        number = 0
        for kind in KINDS:
            affixes: dict[bool, Sequence[tuple[str, str, str]]] = {}
            for key in self._history.keys(kind):
                number += 1
                if not number % _BLOCK:
                    self._check(0)
                own = key.startswith(self._naming.unprefixed)
                if own not in affixes:
                    affixes[own] = self._affixes(kind, key, literal)
                if not affixes[own]:
                    continue
                name, semicolon, tags = key.partition(";")
                for statistic, before, behind in affixes[own]:
                    path = before + name + behind + semicolon + tags
                    if path.startswith(literal):
                        yield Path(path, (kind, key, statistic))

    def _affixes(self, kind: Kind, key: str, literal: str) -> list[tuple[str, str, str]]:
        affixes = self._naming.affixes(kind, key)
        return [
            (statistic, *affixes[statistic])
            for statistic in _FROM_HISTORY[kind]
            if statistic in affixes
            and (affixes[statistic][0].startswith(literal) or literal.startswith(affixes[statistic][0]))
        ]

    def _on_disk(self, glob: PathGlob) -> Iterator[tuple[str, bool]]:
        for directory in self._directories:
            folders = [("", directory)]
            for number, part in enumerate(glob.parts):
                is_last = number == len(glob.parts) - 1
                inside: list[tuple[str, str]] = []
                for path, folder in folders:
                    self._check(len(inside))
                    for name, is_folder in _listed(folder):
                        if part.matches(name):
                            below = f"{path}.{name}" if path else name
                            if is_last:
                                yield below, not is_folder
                            elif is_folder:
                                inside.append((below, os.path.join(folder, name)))
                folders = inside

    def _check(self, found: int) -> None:
        if not self._in_time():
            raise TooSlow
        if found > _MOST_FOUND:
            raise TooMany

    # -- points

    def read(self, of: Path, start: int, end: int) -> Points:
        """Return what a path had after ``start``, up to ``end``."""
        self._check(0)
        points = self._read(of, start, end)
        self._points += len(points.values)
        if self._points > _MOST_POINTS:
            raise TooMany
        return points

    def _read(self, of: Path, start: int, end: int) -> Points:
        ends = self._history.ends()
        # The first moment of which the history knows nothing any more.
        begun = (ends[0] if ends else self._now) - int(self._history.last.interval if self._history.last else 0)
        file = self._file(of.path) if of.series is None or start < begun else None
        if file and (found := _fetched(file, start, end, self._now)):
            return found
        if of.series is None or not ends or self._history.last is None:
            return Points(start, MINUTE, [])
        kind, key, statistic = of.series
        minutes = start < max(begun, ends[-1] - HOUR) and bool(self._history.ends(minutes=True))
        points = self._history.points(kind, [key], start, minutes=minutes)
        step = max(MINUTE, int(self._history.last.interval)) if minutes else int(self._history.last.interval) or 1
        column = points.columns[_FROM_HISTORY[kind][statistic]]
        values = dict(zip(points.ends, column, strict=True))
        if statistic in _RATES:
            values = {at: value / step for at, value in values.items()}
        first = start - start % step + step
        last = min(end, max(ends[-1], self._now))
        if (last - first) // step > _MOST_POINTS:
            raise TooMany
        return Points(first, step, [_finite(values.get(at)) for at in range(first, last + 1, step)])

    def _file(self, path: str) -> str | None:
        relative = relative_path(path)
        if relative is None:
            return None
        files = (os.path.join(directory, relative) for directory in self._directories)
        return next(filter(os.path.isfile, files), None)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _listed(folder: str) -> Iterable[tuple[str, bool]]:
    """Return the parts of paths in a folder, and whether there is more below."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if entry.name.endswith(".wsp"):
                    yield entry.name[:-4], False
                elif entry.is_dir(follow_symlinks=False):
                    yield entry.name, True
    except OSError:  # it has just gone
        return


def _fetched(file: str, start: int, end: int, now: int) -> Points | None:
    import whisper

    try:
        found: Any = whisper.fetch(file, start, end, now=now)
    except (OSError, ValueError, whisper.WhisperException):  # damaged, or being made
        return None
    if found is None:
        return None
    (first, _, step), values = found
    return Points(first, step, values)
