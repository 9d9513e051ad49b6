"""The table of series on the page, by path.

What a path shares with the one above it is written faintly, so that the column reads as an indented tree, and every
path can still be searched for and copied whole.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from urllib.parse import urlencode

from .figures import amount
from .query import Query
from .report import Report, Row, Values, percentile_name

__all__ = ["series_table"]

_NONE = "–"


def series_table(report: Report, query: Query) -> Iterator[str]:
    """Yield the filter and the table; columns are the same for all kinds."""
    yield "<h2>Series</h2>\n"
    yield from _filter(query)
    yield from _note(report, query)
    if not report.rows:
        return
    statistics = ["mean", "median", *map(percentile_name, report.percentiles), "max", "std"]
    span = 2 + len(statistics)
    yield '<table class="series">\n<thead>'
    yield f'<tr class="over"><th colspan="2"></th><th class="n from" colspan="{span}">last interval, timers in ms</th>'
    yield '<th class="n from">open interval</th><th class="n from">lifetime</th></tr>\n'
    yield "<tr><th>path</th><th>kind</th>"
    yield '<th class="n from">count or value</th><th class="n">rate /s</th>'
    yield "".join(f'<th class="n">{name}</th>' for name in statistics)
    yield '<th class="n from">so far</th><th class="n from">total</th></tr></thead>\n'
    above: list[str] = []
    for _, group in groupby(report.rows, key=lambda row: row.name.partition(".")[0]):
        yield "<tbody>\n"
        for row in group:
            path = _pieces(row)
            yield f'<tr><td class="name" title="{escape(row.key)}">{_name(path, above)}</td>'
            yield f'<td class="word kind">{row.kind}</td>'
            yield "".join(_cells(row, statistics))
            yield "</tr>\n"
            above = path
        yield "</tbody>\n"
    yield "</table>\n"


def _filter(query: Query) -> Iterator[str]:
    yield '<form><input name="match" aria-label="Filter" placeholder="Filter: a word, or a pattern like web.*"'
    yield f' value="{escape(query.match)}" maxlength="100"> <button>Show</button>'
    if query.refresh:
        yield f'<input type="hidden" name="refresh" value="{query.refresh}">'
    if query.match:
        yield ' <a href="?">Show all</a>'
    yield "</form>\n"


def _note(report: Report, query: Query) -> Iterator[str]:
    shown = len(report.rows)
    if not report.total:
        yield '<p class="note">Nothing has been measured yet.</p>\n'
    elif not report.matched:
        yield f'<p class="note">None of {amount(report.total)} series matches.</p>\n'
    elif shown < report.matched:
        where = "" if query.after else "The first "
        yield f'<p class="note">{where}{amount(shown)} of {amount(report.matched)} series; '
        yield f"{amount(report.matched - shown)} more are not shown. Filter for those you look for"
        if report.next:
            to = {"match": query.match, "limit": str(query.limit), "after": report.next}
            yield f', or see <a href="?{escape(urlencode({k: v for k, v in to.items() if v}))}">the next</a>'
        yield ".</p>\n"
    elif report.matched < report.total:
        yield f'<p class="note">{amount(shown)} of {amount(report.total)} series.</p>\n'


# -- paths


def _pieces(row: Row) -> list[str]:
    """Cut a series' text before every separator: ``web``, ``.hits``, ``;route=u``."""
    first, *others = row.name.split(".")
    return [first, *(f".{other}" for other in others), *(f";{key}={value}" for key, value in row.tags)]


def _name(path: Sequence[str], above: Sequence[str]) -> str:
    """Return the path with what it shares with the one above set back; its last piece never is."""
    shared = 0
    while shared < min(len(path) - 1, len(above)) and path[shared] == above[shared]:
        shared += 1
    faint = "<wbr>".join(map(escape, path[:shared]))
    own = "<wbr>".join(map(escape, path[shared:]))
    return f"<i>{faint}</i><wbr>{own}" if faint else own


# -- values


def _cells(row: Row, statistics: Sequence[str]) -> Iterator[str]:
    last, open_ = row.last, row.open
    distribution = row.kind in ("timer", "histogram")
    if last is None or (distribution and not last["count"]):
        yield f'<td class="n none from">no data</td><td class="blank" colspan="{1 + len(statistics)}"></td>'
    else:
        yield _cell(_main(row.kind), last, _main(row.kind), " from")
        yield _cell("rate", last, "rate")
        for name in statistics:
            yield _cell(name, last, name)
    yield _cell("so far", open_, _main(row.kind), " from")
    yield _cell("total", row.total, "count", " from")


def _main(kind: str) -> str:
    return "value" if kind == "gauge" else "count"


def _cell(title: str, values: Values | None, name: str, more: str = "") -> str:
    """Return one value; empty where the kind has none of that name, a dash where it is no finite number."""
    if values is None or name not in values:
        return f'<td class="n blank{more}"></td>'
    value = values[name]
    return f'<td class="n{more}" title="{title}">{_NONE if value is None else amount(value)}</td>'
