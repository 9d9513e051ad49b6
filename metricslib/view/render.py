"""HTML from the templates, and the files that belong to it.

Jinja2 is imported when a page is first made, and nowhere else: JSON needs nothing but the standard library. Everything
is escaped by default. Charts alone are not: they are made of numbers, and of labels that are escaped there.
"""

import gzip
import hashlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ..flusher import Flusher, FlusherStatus, Measured
from ..history import HOUR, History
from . import figures
from .board import Board
from .cards import Grid, Rail, Span
from .figures import age, amount, short
from .health import Health
from .metric import Detail
from .query import Query
from .report import Report
from .top import Ranking

if TYPE_CHECKING:
    import jinja2

__all__ = [
    "ASSETS",
    "POLICY",
    "Asset",
    "Strip",
    "asset",
    "board_page",
    "closed_page",
    "environment",
    "grid_page",
    "metric_page",
    "health_page",
    "strip",
    "top_page",
]

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page: nothing inline, and nothing from another host."""

_FOLDER = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_DESTINATIONS = 3
_NONE = "–"
ASSETS = "assets/"
"""What stands before the names of files: an application at the root of which the page is mounted has its own static."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that the pages load. Its name has a hash of its contents, so a browser may keep it for good."""

    name: str
    content_type: str
    body: bytes
    gzipped: bytes


@cache
def _assets() -> dict[str, Asset]:
    found = {}
    for path in sorted((_FOLDER / "static").iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:12]
            name = f"{ASSETS}{path.stem}.{digest}{path.suffix}"
            found[path.name] = Asset(name, _TYPES[path.suffix], body, gzip.compress(body, mtime=0))
    return found


def asset(name: str) -> Asset | None:
    """Return the file that the pages call ``name``, as in ``assets/style.0123456789ab.css``."""
    return next((each for each in _assets().values() if each.name == name), None)


@cache
def environment() -> "jinja2.Environment":
    """Return the templates. Raises ImportError where Jinja2 is not installed."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ImportError(
            "the page needs Jinja2, which is not installed: pip install 'metricslib[view]'; ?format=json needs nothing",
            name=error.name,
        ) from error
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(_FOLDER / "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, auto_reload=False
    )
    made.globals.update(
        static=lambda name: _assets()[name].name,
        drawn=Markup,
        path_of=lambda name: quote(name, safe=""),
        plainly=_plainly,
        told_span=_told_span,
        columns_of=lambda rows: list(dict.fromkeys(name for row in rows for name in row)),
        **{name: getattr(figures, name) for name in ("age", "amount", "moment", "short", "size", "time_of_day")},
    )
    return made


def _told_span(span: Span, now: int) -> str:
    """Return from when to when charts go, as text."""
    end = f"{figures.time_of_day(span.end)} UTC"
    if span.end == now and span.end - span.start == HOUR:
        return f"last hour, to {end}"
    return f"{figures.time_of_day(span.start).removesuffix(':00')} – {end}"


def _plainly(value: object) -> str:
    """Return what a section has, as text."""
    if value is None or value == {} or value == []:
        return _NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{_plainly(name)} {_plainly(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plainly, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return amount(value)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))


_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that are not seen, or that turn the text behind them around: they are shown as escape sequences."""


# -- the strip at the top of every page


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the strip, and what explains it."""

    text: str
    name: str
    href: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A destination in the strip."""

    scheme: str
    up: bool
    told: str


@dataclass(frozen=True, slots=True)
class Strip:
    """What stands at the top of every page."""

    host: str
    interval: int
    end: int
    """The end of the last interval; 0: none has ended."""
    first_ends: str
    figures: Sequence[Figure]
    destinations: Sequence[Target]
    log_out: str = ""
    """The path at which a reader logs out; empty for one who has not logged in."""


def strip(flusher: Flusher | Measured, status: FlusherStatus, series: int, uptime: float, log_out: str = "") -> Strip:
    """Return the strip as of now."""
    registry, last = flusher.registry, flusher.history.last
    dropped = sum(registry.drops.totals().values()) + sum(
        sum(destination.dropped.values()) for destination in status.destinations
    )
    found = [
        Figure(amount(series), "series", ""),
        Figure(short(dropped), "dropped", "health", dropped > 0),
        Figure(age(uptime), "up", "health"),
    ]
    if last is not None and last.timers:
        calls = sum(distribution.count for distribution in last.timers.values())
        found.insert(0, Figure(f"{short(calls / last.interval)}/s", "timed calls", "?kind=timer"))
    if not status.running:
        found.append(Figure("not running", "flusher", "health", True))
    now = registry.clock.time()
    first = (int(now // status.interval) + 1) * status.interval - now
    end = last.end if last else 0
    return Strip(socket.gethostname(), status.interval, end, age(first), found, list(_targets(status)), log_out)


def _targets(status: FlusherStatus) -> list[Target]:
    found = []
    for each in status.destinations[:_DESTINATIONS]:
        if not each.up:
            told = f"down for {age(each.age)}" if each.age is not None else "down"
        elif each.age is None:
            told = "not tried yet"
        else:
            waiting = f"{figures.size(each.waiting_bytes)} waiting" if each.waiting_batches else "nothing waits"
            told = f"delivered {age(each.age)} ago, {waiting}"
        if each.backlog_points and each.drained_in is not None:
            told += f", drained in {age(each.drained_in)}"
        found.append(Target(each.label.partition("://")[0].rstrip(":"), each.up, told))
    if len(status.destinations) > _DESTINATIONS:
        rest = status.destinations[_DESTINATIONS:]
        up = sum(each.up for each in rest)
        found.append(Target(f"{len(rest)} more", up == len(rest), f"{up} up"))
    return found


# -- pages


def _page(template: str, tab: str, root: str, query: Query, title: str, strip: Strip, **more: Any) -> str:
    asked = {"match": query.match, "format": "json"}
    return (
        environment()
        .get_template(template)
        .render(
            tab=tab,
            root=root,
            query=query,
            title=title,
            strip=strip,
            json_query=urlencode({name: text for name, text in asked.items() if text}),
            **more,
        )
    )


def grid_page(root: str, query: Query, title: str, strip: Strip, grid: Grid) -> str:
    """Return the grid; ``root`` leads from the page to where the pages are mounted."""
    return _page("grid.html", "metrics", root, query, title, strip, grid=grid, rail=grid.rail)


def metric_page(root: str, query: Query, title: str, strip: Strip, detail: Detail, rail: Rail) -> str:
    """Return a metric's page."""
    here = replace(query, query="", match="", prefix=detail.metric.name, kind=None, tag="")
    return _page("metric.html", "metrics", root, here, title, strip, detail=detail, rail=rail)


def top_page(root: str, query: Query, title: str, strip: Strip, rankings: Sequence[Ranking]) -> str:
    """Return the page of what costs."""
    return _page("top.html", "top", root, query, title, strip, rankings=rankings)


def board_page(root: str, query: Query, title: str, strip: Strip, board: Board, boards: Mapping[str, str]) -> str:
    """Return a board; without series, a form for one, and links to ``boards``: by title, the query of each."""
    return _page("board.html", "board", root, query, title, strip, board=board, boards=boards)


def health_page(
    root: str,
    query: Query,
    title: str,
    strip: Strip,
    report: Report,
    history: History,
    health: Health | None = None,
) -> str:
    """Return the page that says how things go: the interval, what was dropped, the destinations, and all sections."""
    return _page("health.html", "health", root, query, title, strip, report=report, history=history, health=health)


def closed_page(
    root: str, text: str, ways: Sequence[tuple[str, str]] = (), *, log_in: str = "", then: str = "", wrong: bool = False
) -> str:
    """Return the page of a request that may not read the metrics.

    Args:
        root: Leads from the page to where the pages are mounted.
        text: Says why.
        ways: Lines of code that would open the page, each with what it means.
        log_in: The path of the form to log in; empty: there is none.
        then: The page to show after that.
        wrong: Whether a token was given that is wrong.
    """
    return (
        environment()
        .get_template("closed.html")
        .render(root=root, text=text, ways=ways, log_in=log_in, then=then, wrong=wrong)
    )
