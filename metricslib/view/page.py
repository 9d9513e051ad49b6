"""A report as one HTML page, complete in itself: no script, nothing to load, everything escaped.

Series stand in the order of their paths. What a path shares with the one above it is written faintly, so that it
reads as an indented tree, and can still be searched for and copied whole.
"""

from collections.abc import Iterator, Mapping
from html import escape
from urllib.parse import urlencode

from ..delivery import NodeStatus, SenderStatus
from .figures import age, amount, moment, size, time_of_day
from .query import Query
from .report import Report, Section
from .style import STYLE
from .table import series_table

__all__ = ["page", "parts"]

_NONE = "–"


def page(report: Report, query: Query | None = None) -> str:
    """Return the page. ``query`` is what it was asked for with: links keep to it."""
    return "".join(parts(report, query or Query(match=report.match)))


def parts(report: Report, query: Query) -> Iterator[str]:
    """Yield what :func:`page` returns, piece by piece."""
    title = escape(report.title)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    if query.refresh:
        yield f'<meta http-equiv="refresh" content="{query.refresh}">\n'
    yield f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    yield f"<header>\n<h1>{title}</h1>\n{_links(query)}</header>\n"
    yield from _facts(report)
    yield from _destinations(report)
    for name, section in report.sections.items():
        yield f"<h2>{escape(str(name))}</h2>\n"
        yield from _section(section)
    yield from series_table(report, query)
    yield "</body>\n</html>\n"


def _links(query: Query) -> str:
    match = {"match": query.match} if query.match else {}
    refresh = {} if query.refresh else {"refresh": "10"}
    told = "Stop reloading" if query.refresh else "Reload every 10 s"
    links = (({**match, **refresh}, told), ({**match, "format": "json"}, "JSON"))
    return f"<nav>{' '.join(_link(to, text) for to, text in links)}</nav>\n"


def _link(to: dict[str, str], text: str) -> str:
    return f'<a href="?{escape(urlencode(to))}">{text}</a>'


# -- at the top: when, and whether all is well


def _facts(report: Report) -> Iterator[str]:
    flusher = report.flusher
    facts = {"Last interval": _window(report), "Interval": f"{flusher.interval} s", "Up for": age(report.uptime)}
    if flusher.prefix:
        facts["Prefix"] = escape(flusher.prefix)
    facts["Series"] = amount(report.total)
    if report.memory:
        facts["Memory"] = _memory(report.memory)
    facts["Dropped"] = _causes(report.dropped, "nothing")
    if flusher.errors:
        facts["Errors"] = _causes(flusher.errors, "none")
    if flusher.steps_back:
        facts["Clock set back"] = f"{amount(flusher.steps_back)} ×"
    if flusher.skipped:
        facts["Ended late"] = f"{amount(flusher.skipped)} intervals, told in the one after"
    if not flusher.running:
        facts["Flusher"] = '<span class="bad">not running: intervals do not end</span>'
    yield "<dl>\n"
    for name, text in facts.items():
        yield f"<div><dt>{name}</dt><dd>{text}</dd></div>\n"
    yield "</dl>\n"


def _window(report: Report) -> str:
    if report.window is None:
        return f'none yet; the first ends in <span class="dim">{age(report.open[1] - report.time)}</span>'
    start, end = report.window
    told = f"{moment(start)} – {time_of_day(end)} UTC"
    return f'{told} <span class="dim">({age(report.time - end)} ago)</span>'


def _memory(shares: Mapping[str, Mapping[str, int]]) -> str:
    told = {name: f"{size(share['used'])} of {size(share['allowed'])}" for name, share in shares.items()}
    total = told.pop("total")
    parts = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in told.items())
    return f'{total} <span class="dim">({parts})</span>'


def _causes(counts: Mapping[str, int], none: str) -> str:
    told = [f"{escape(str(cause))} {amount(count)}" for cause, count in counts.items() if count]
    return f'<span class="bad">{", ".join(told)}</span>' if told else none


def _destinations(report: Report) -> Iterator[str]:
    yield "<h2>Destinations</h2>\n"
    if not report.destinations:
        yield '<p class="note">None: what is measured is shown here, and sent nowhere.</p>\n'
        return
    yield "<table>\n<thead><tr><th>destination</th><th>state</th><th>last success</th>"
    yield "".join(f'<th class="n">{name}</th>' for name in ("windows", "points", "bytes", "waiting"))
    yield '<th>in</th><th class="n">errors</th><th>dropped</th><th>last error</th></tr></thead>\n<tbody>\n'
    for status in report.destinations:
        yield f"<tr>{''.join(_destination(status, report.time))}</tr>\n"
    yield "</tbody></table>\n"


def _destination(status: SenderStatus, now: float) -> Iterator[str]:
    state = _state(status, now)
    if status.up and status.age is None:
        state = "not tried yet"
    where = "".join([escape(status.label), *(_node(node, now) for node in status.nodes), _behind(status, now)])
    yield f'<td class="where">{where}</td><td class="word" title="state">{state}</td>'
    yield f'<td class="word" title="last success">{_NONE if status.age is None else age(status.age) + " ago"}</td>'
    counts = {"windows": status.windows_sent, "points": status.points_sent}
    sizes = {"bytes": status.bytes_sent, "waiting": status.waiting_bytes}
    yield "".join(f'<td class="n" title="{name}">{amount(count)}</td>' for name, count in counts.items())
    yield "".join(f'<td class="n" title="{name}">{size(count)}</td>' for name, count in sizes.items())
    yield f'<td class="word" title="in">{_where(status)}</td>'
    yield f'<td class="n" title="errors">{amount(status.errors)}</td>'
    yield f'<td title="dropped">{_causes(status.dropped, "0")}</td>'
    yield f'<td class="dim" title="last error">{escape(status.last_error or "")}</td>'


def _where(status: SenderStatus) -> str:
    """Return where waiting data is; on a disk that refuses, what it took before is still there."""
    if status.on_disk:
        return "disk"
    return f"disk {size(status.disk_bytes)}, the rest in memory" if status.disk_bytes else "memory"


def _behind(status: SenderStatus, now: float) -> str:
    """Return how far behind a destination is, what of it is verified, and what is wrong: lines below its name."""
    told = []
    if status.waiting_batches and status.lag >= 1:
        told.append(f'<div title="lag">behind by {age(status.lag)}</div>')
    if status.backlog_points:
        left = "" if status.drained_in is None else f", drained in {age(status.drained_in)}"
        rate = f", {amount(round(status.replay_rate))} a second" if status.replay_rate else ""
        told.append(f'<div title="backlog">backlog points: {amount(status.backlog_points)}{rate}{left}</div>')
    if status.verified is not None:
        told.append(f'<div title="verified">verified up to {age(max(0, now - status.verified))} ago</div>')
    if status.unverified:
        told.append(f'<div class="bad" title="unverified">unverified points: {amount(status.unverified)}</div>')
    if status.verify_trouble:
        told.append(f'<div class="bad" title="verify">{escape(status.verify_trouble)}</div>')
    if status.spool_trouble:
        told.append(f'<div class="bad" title="spool">{escape(status.spool_trouble)}</div>')
    return "".join(told)


def _state(status: SenderStatus | NodeStatus, now: float) -> str:
    state = '<span class="good">up</span>' if status.up else '<span class="bad">down</span>'
    return f'{state} <span class="dim">for {age(now - status.since)}</span>'


def _node(node: NodeStatus, now: float) -> str:
    """Return one of the servers behind a destination: a line below the destination's name."""
    error = f' <span class="dim">{escape(node.last_error)}</span>' if node.last_error else ""
    return f'<div title="node">{escape(node.label)} {_state(node, now)}{error}</div>'


# -- what else the program has to say


def _section(section: Section) -> Iterator[str]:
    if isinstance(section, Mapping):
        yield "<dl>\n"
        for name, value in section.items():
            yield f"<div><dt>{escape(str(name))}</dt><dd>{_told(value)}</dd></div>\n"
        yield "</dl>\n"
        return
    columns = list(dict.fromkeys(name for row in section for name in row))
    yield '<table class="section">\n<thead><tr>'
    yield "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    yield "</tr></thead>\n<tbody>\n"
    for row in section:
        yield "<tr>"
        yield "".join(f'<td title="{escape(str(name))}">{_told(row.get(name))}</td>' for name in columns)
        yield "</tr>\n"
    yield "</tbody></table>\n"


def _told(value: object) -> str:
    if value is None or value == {} or value == []:
        return _NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(name))} {_told(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_told, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return amount(value)
    return escape(str(value))
