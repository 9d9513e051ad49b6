"""Boards that a program names: the page links to them."""

from collections.abc import Iterable
from urllib.parse import urlencode

from .._default import default_registry
from ..errors import InvalidOption, InvalidType
from ..registry import Registry
from .query import Query

__all__ = ["board", "board_query"]

_MOST = 100


def board(
    title: str,
    series: Iterable[str],
    *,
    warn: float | Iterable[float] = (),
    crit: float | Iterable[float] = (),
    night: bool = False,
    registry: Registry | None = None,
) -> None:
    """Put a board for a wall on the metrics page, which links to it on its view ``board``.

    Args:
        title: What stands above the board. Another call with the same title replaces it.
        series: Up to 60 series: names, which stand for all their tag sets, or series with tags. Of a timer or
            histogram, ``:median``, ``:p90``, ``:max`` or ``:rate`` may follow; otherwise it is the median.
        warn: A threshold for all series, or one for each: the last one is for all that follow. Timers are in
            milliseconds, counters are rates.
        crit: The same for the critical state. Where it is below ``warn``, small values are bad.
        night: True to show the board dark, whatever the reader's system prefers.
        registry: The registry that the page shows. None: the default registry.

    Raises:
        InvalidOption: If there are too many series, a threshold is not a finite number, or there are 100 boards.
        InvalidType: If ``title`` or a series is not a string.
    """
    boards = (default_registry if registry is None else registry).boards
    query = board_query(title, series, warn, crit, night)
    if title not in boards and len(boards) >= _MOST:
        raise InvalidOption("title", title, f"is one board too many: at most {_MOST}")
    boards[title] = query


def board_query(
    title: str, series: Iterable[str], warn: float | Iterable[float], crit: float | Iterable[float], night: bool
) -> str:
    """Return the query string of a board. Raises what :func:`board` raises."""
    if not isinstance(title, str) or not title:
        raise InvalidType("title", title, "a text that is not empty")
    names = [series] if isinstance(series, str) else [*series]
    for name in names:
        if not isinstance(name, str) or not name or "," in name:
            raise InvalidType("series", name, "the name of a series, without a comma")
    asked = {"series": ",".join(names), "warn": _joined(warn), "crit": _joined(crit), "title": title}
    text = urlencode({name: value for name, value in asked.items() if value} | ({"night": 1} if night else {}))
    if not Query.parse(text).series:
        raise InvalidOption("series", names, "must have at least one series")
    return text


def _joined(limits: float | Iterable[float]) -> str:
    return ",".join(map(str, [limits] if isinstance(limits, int | float) else limits))
