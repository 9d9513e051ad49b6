"""Answers a request to the page, independently of framework and server: method and query string in, an answer out.

Reading changes nothing: it takes a snapshot of the registry, and only the flusher ends intervals.

The cost of requests is bounded. One report is computed at a time, of at most 10,000 series, which are selected within
two seconds of processor time. The lock of the registry is held while keys are listed and values are copied, and never
while a client reads. The text of a report is generated while the client reads it, 64 KiB at a time, and stops when the
client disconnects.
"""

import gzip
import json
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from .._process import register_fork_handler
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption
from ..flusher import Flusher, Measured
from ..registry import Registry
from ..series_state import Snapshot
from . import as_json, graphite_api, prometheus, render
from .board import board
from .cards import grid, metrics_of, rail, readings
from .graphite_store import Store, TooMany
from .health import health
from .metric import detail, reading
from .query import Query
from .report import Order, Report, Section, Selection, TooSlow, report, select, still_there
from .search import Search
from .top import top

__all__ = [
    *("BUDGET", "HEALTH", "LOGIN", "LOGOUT", "METHODS", "PATIENCE", "POSTED", "ROUTES", "SERIES", "TOP"),
    *("Answer", "Extra", "View", "accepted", "busy", "root_of", "simple", "wanted"),
]

log = logging.getLogger("metricslib")

METHODS = ("GET", "HEAD")

Extra = Callable[[], Mapping[str, Section]]
"""Called at each request. Returns further sections of the page by title."""

PATIENCE = 5.0
"""Seconds for which a request waits for the report of another request."""
BUDGET = 2.0
"""Seconds of processor time in which the series of a request must be selected."""
HEALTH = "health"
"""The path of the page that says how things go."""
TOP = "top"
"""The path of the page of what costs."""
BOARD = "board"
"""The path of the board."""
SERIES = "series/"
"""What stands before the name of a metric in the path of its page."""
_RAIL = 100_000
"""Series up to which a metric's page says what else there is."""
LOGIN = "login"
"""The path of the form to log in, where a token is wanted."""
LOGOUT = "logout"
_GRAPHITE = tuple(dict.fromkeys("metrics/" if path.startswith("metrics/") else path for path in graphite_api.PATHS))
ROUTES = (HEALTH, TOP, BOARD, LOGIN, LOGOUT, SERIES, render.ASSETS, *_GRAPHITE, "tags/")
"""All paths below the page; those with a slash at the end have something behind it."""
POSTED = (LOGIN, LOGOUT, *graphite_api.FORMS)
"""Those of them to which a form is sent."""
_LONGEST_LOOKED_AT = 10_000
_SMALL = 1_000
"""Bytes that are not worth compressing."""
_CHUNK = 64 << 10
"""Bytes that are written at once. A shorter answer is sent as a whole, with its length."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers, and the parts of a body, which can be read once. For HEAD the sender omits the body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    parts: Iterable[bytes]

    @property
    def body(self) -> bytes:
        """The joined parts."""
        return b"".join(self.parts)


class View:
    """Answers requests about the registry of the flusher that ``find`` returns. Thread-safe."""

    def __init__(
        self,
        find: Callable[[], Flusher],
        *,
        title: str = "metricslib",
        extra: Extra | None = None,
        clock: Clock = SYSTEM_CLOCK,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._spent = spent
        self.find = find
        self.title = title
        self._extra = extra
        self.clock = clock
        self._since = clock.monotonic()
        self._making = threading.Lock()
        # What is remembered from one answer to the next; used by whoever makes the report.
        self._order = Order()
        self._texts = as_json.Texts()
        self._plans = prometheus.Plans()
        register_fork_handler(self)

    def reset_after_fork(self) -> None:
        """In a forked child: forget a report in progress, which only the parent completes."""
        self._making = threading.Lock()

    @classmethod
    def of(cls, flusher: Flusher, *, title: str = "metricslib", extra: Extra | None = None) -> "View":
        """Return a view of that flusher and its registry."""
        flusher.for_page()
        return cls(lambda: flusher, title=title, extra=extra, clock=flusher.registry.clock)

    def answer(
        self,
        method: str,
        query_string: str,
        path: str = "/",
        *,
        mount: str = "",
        encodings: str = "",
        accept: str = "",
        log_out: bool = False,
        form: bytes = b"",
    ) -> Answer:
        """Answer with a page or JSON, or with a text that says what is wrong; never raises.

        Args:
            method: The request's method.
            query_string: What stands behind the question mark.
            path: The path below where the page is mounted, decoded; empty or with a slash in front.
            mount: The path at which it is mounted: links are relative to it where ``path`` is empty.
            encodings: The request's ``Accept-Encoding``.
            accept: The request's ``Accept``, which decides the format where the query does not.
            log_out: Whether the page has a button to log out.
            form: The body of a form that was sent with POST, for Graphite's API.
        """
        here = path.removeprefix("/")
        graphite = here.rstrip("/")
        if method not in METHODS and not (method == "POST" and graphite in graphite_api.FORMS):
            return simple(405, "This page can only be read, with GET or HEAD.", ("Allow", ", ".join(METHODS)))
        if graphite in graphite_api.PATHS or here.startswith("tags/"):
            return self._graphite(graphite, query_string, form, encodings)
        if here.startswith(render.ASSETS):
            return _asset(here, encodings)
        if here not in ("", HEALTH, TOP, BOARD) and not here.startswith(SERIES):
            return simple(404, "There is nothing here; the metrics are at /.")
        try:
            query = Query.parse(query_string, accepted(accept))
            Search(query.query)
        except InvalidOption as error:
            return simple(400, f"{error}.")
        root = root_of(path, mount)
        making = self._making
        if not making.acquire(timeout=PATIENCE):
            return busy("Others ask for this page; it is made for one at a time.")
        try:
            if here == HEALTH and query.format == "json":
                found = replace(self.report(Query(limit=1)), rows=(), next="")
                content_type, texts = "application/json", as_json.parts(found)
            elif here or query.format == "html":
                return self._page(here, query, root, encodings, log_out)
            elif query.format == "json":
                content_type, texts = "application/json", as_json.parts(self.report(query), self._texts)
            else:
                openmetrics = query.format == "openmetrics"
                content_type = prometheus.OPENMETRICS if openmetrics else prometheus.TEXT
                flusher = self.find()
                selection, snapshot = self._snapshot(flusher, flusher.measured(), query)
                chosen = selection.chosen if selection.complete else still_there(selection.chosen, snapshot)
                texts = prometheus.parts(snapshot, chosen, openmetrics=openmetrics, plans=self._plans)
        except TooSlow:
            return busy("There are too many series to look for that; a word, or a pattern like web.*, is found faster.")
        except ImportError as error:
            return simple(501, f"{error}.")
        except Exception:
            return _failed()
        finally:
            making.release()
        try:
            return _streamed(content_type, texts, _takes_gzip(encodings))
        except Exception:
            return _failed()

    def _graphite(self, path: str, query: str, form: bytes, encodings: str) -> Answer:
        making = self._making
        if not making.acquire(timeout=PATIENCE):
            return busy("Others ask for this page; it is made for one at a time.")
        try:
            flusher = self.find()
            measured = flusher.measured()
            now = self.clock.time()
            store = Store(measured.history, measured.naming, flusher.directories, now=now, in_time=self._in_time())
            found = graphite_api.answer(path, query, form, store, now)
        except InvalidOption as error:
            return simple(400, f"{error}.")
        except TooMany:
            return simple(400, "The answer would have too many points or paths; ask for fewer, or for a shorter time.")
        except TooSlow:
            return busy("There are too many series to look for that; a path that begins with a text is found faster.")
        except Exception:
            return _failed()
        finally:
            making.release()
        return simple(404, "There is nothing here.") if found is None else _whole(*found, encodings)

    def _page(self, here: str, query: Query, root: str, encodings: str, log_out: bool) -> Answer:
        flusher = self.find()
        measured = flusher.measured()
        last = measured.history.last
        if query.since and here != HEALTH and (last is None or last.end <= query.since):
            return Answer(204, (*_headers("text/html; charset=utf-8"), ("Cache-Control", "no-store")), [])
        if query.values:
            return self._values(measured, here, query, encodings)
        series = measured.registry.series()
        count = sum(map(len, series.values()))
        uptime = self.clock.monotonic() - self._since
        strip = render.strip(measured, flusher.status(), count, uptime, LOGOUT if log_out else "")
        if here == HEALTH:
            found = self._report(flusher, measured, Query(limit=1))
            more = health(flusher, measured, self._in_time())
            text = render.health_page(root, query, self.title, strip, found, measured.history, more)
        elif here == TOP:
            text = render.top_page(root, query, self.title, strip, top(measured, self._in_time()))
        elif here == BOARD:
            tiles = board(series, measured.history, query, self._in_time())
            boards = flusher.registry.boards
            text = render.board_page(root, query, self.title, strip, tiles, boards)
        elif here:
            shown = detail(measured, _name_in(here), query)
            if shown is None:
                return simple(404, "There is no metric of that name.")
            everything = metrics_of(series, self._in_time()) if count <= _RAIL else []
            around = rail(everything, replace(query, prefix=shown.metric.name))
            text = render.metric_page(root, query, self.title, strip, shown, around)
        else:
            cards = grid(series, measured.history, query, self._in_time())
            text = render.grid_page(root, query, self.title, strip, cards)
        return _whole("text/html; charset=utf-8", text, encodings)

    def _values(self, measured: Measured, here: str, query: Query, encodings: str) -> Answer:
        """Answer with what the charts show, as texts by time."""
        if here.startswith(SERIES):
            found = reading(measured, _name_in(here), query)
        elif not here:
            found = readings(measured.registry.series(), measured.history, query, self._in_time())
        else:
            found = {}
        if found is None:
            return simple(404, "There is no metric of that name.")
        return _whole("application/json", json.dumps(found, ensure_ascii=False), encodings)

    def _snapshot(self, flusher: Flusher, measured: Measured, query: Query) -> tuple[Selection, Snapshot]:
        registry, interval = measured.registry, flusher.interval
        end = (int(registry.clock.time() // interval) + 1) * interval
        if isinstance(registry, Registry) and not query.match and not query.after and len(registry) <= query.limit:
            snapshot = registry.snapshot(end, interval)
            selection = self._order.of(snapshot.totals, self._in_time())
            if selection.total <= query.limit:
                return selection, snapshot
        selection = select(registry.series(), query.match, query.limit, query.after, self._in_time())
        return selection, registry.snapshot(end, interval, selection.keys())

    def _in_time(self) -> Callable[[], bool]:
        until = self._spent() + BUDGET
        return lambda: self._spent() <= until

    def report(self, query: Query) -> Report:
        """Return the report for ``query``. Raises :class:`~.report.TooSlow`."""
        flusher = self.find()
        return self._report(flusher, flusher.measured(), query)

    def _report(self, flusher: Flusher, measured: Measured, query: Query) -> Report:
        selection, snapshot = self._snapshot(flusher, measured, query)
        return report(
            snapshot,
            flusher.status(),
            selection,
            percentiles=flusher.naming.percentiles,
            match=query.match,
            title=self.title,
            uptime=self.clock.monotonic() - self._since,
            memory=flusher.registry.budget.usage(),
            members=measured.members,
            sections=self._extra() if self._extra else None,
        )


def _name_in(here: str) -> str:
    """Return the name of a metric from the path of its page."""
    return here.removeprefix(SERIES).replace("/", ".")


def accepted(accept: str) -> str:
    """Return the format that a request's ``Accept`` asks for: the best of those it names that there is.

    HTML if there is none. A client that takes anything, such as curl, gets Prometheus's text, because that can be read
    in a terminal. Prometheus names OpenMetrics first, then its own text; versions that we do not write are left out.
    """
    best, quality = "html", 0.0
    for each in accept.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        format = _ACCEPTED.get(name)
        version = next((part[8:].strip('"') for part in parameters if part.startswith("version=")), "")
        if version and version != _VERSIONS.get(name):
            continue
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if format and _WEIGHT.fullmatch(weight) and float(weight) > quality:
            best, quality = format, float(weight)
    return best


_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")
_ACCEPTED = {
    "text/html": "html",
    "application/json": "json",
    "application/openmetrics-text": "openmetrics",
    "text/plain": "prometheus",
    "*/*": "prometheus",
}
_VERSIONS = {"application/openmetrics-text": "1.0.0", "text/plain": "0.0.4"}


def wanted(query: str, accept: str) -> str:
    """Return the format of an answer that is no page of metrics: ``html`` only for a client that names it."""
    asked = dict(parse_qsl(query[:_LONGEST_LOOKED_AT])).get("format", "")
    best = accepted(accept)
    return asked or ("text" if best == "html" and "text/html" not in accept.lower() else best)


def root_of(path: str, mount: str) -> str:
    """Return the URL of where the page is mounted, relative to that of ``path`` below it."""
    if not path and mount:
        return f"{mount.rpartition('/')[2]}/"
    return "../" * path.removeprefix("/").count("/") or "./"


def simple(
    status: int, text: str, *headers: tuple[str, str], content_type: str = "text/plain; charset=utf-8"
) -> Answer:
    """Return an answer with a short text, which is not to be kept."""
    body = f"{text}\n".encode("utf-8", "replace")
    return _answer(status, content_type, [body], ("Content-Length", str(len(body))), *headers)


def busy(text: str) -> Answer:
    """Return the answer to a request that cannot be processed now."""
    return simple(503, text, ("Retry-After", "5"))


def _asset(name: str, encodings: str) -> Answer:
    found = render.asset(name)
    if found is None:
        return simple(404, "There is no such file.")
    kept = ("Cache-Control", "public, max-age=31536000, immutable")
    return _encoded(found.content_type, found.body, found.gzipped, encodings, kept)


def _whole(content_type: str, text: str, encodings: str) -> Answer:
    body = text.encode("utf-8", "replace")
    return _encoded(content_type, body, None, encodings, ("Cache-Control", "no-store"))


def _encoded(
    content_type: str, body: bytes, gzipped: bytes | None, encodings: str, *headers: tuple[str, str]
) -> Answer:
    """Return a whole answer, compressed for a client that reads that."""
    if _takes_gzip(encodings) and len(body) > _SMALL:
        body = gzipped or gzip.compress(body, 1, mtime=0)
        headers = (*headers, ("Content-Encoding", "gzip"))
    length = ("Content-Length", str(len(body)))
    return Answer(200, (*_headers(content_type), *headers, ("Vary", "Accept-Encoding"), length), [body])


def _takes_gzip(encodings: str) -> bool:
    for each in encodings.lower().split(","):
        name, _, quality = each.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _failed() -> Answer:
    log.exception("the metrics page could not be made")
    return simple(500, "The page could not be made; the program's log says why.")


def _streamed(content_type: str, texts: Iterator[str], gzipped: bool) -> Answer:
    """Return an answer that is generated while it is read or, if it is short, as a whole with its length."""
    chunks = _chunks(texts)
    first = next(chunks)
    headers = [("Vary", "Accept-Encoding")]
    if len(first) < _CHUNK:
        whole = gzip.compress(first, 1, mtime=0) if gzipped and len(first) > _SMALL else first
        if whole is not first:
            headers.append(("Content-Encoding", "gzip"))
        return _answer(200, content_type, [whole], ("Content-Length", str(len(whole))), *headers)
    if not gzipped:
        return _answer(200, content_type, _begun(first, chunks), *headers)
    return _answer(200, content_type, _compressed(_begun(first, chunks)), ("Content-Encoding", "gzip"), *headers)


def _begun(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    try:
        yield from chunks
    except Exception:
        log.exception("the metrics page was cut off by an error")
        raise


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: with the header of gzip
    for chunk in chunks:
        if compressed := stream.compress(chunk):
            yield compressed
    yield stream.flush()


def _chunks(texts: Iterable[str]) -> Iterator[bytes]:
    """Yield the texts in blocks. The last block may be shorter, or empty."""
    block = bytearray()
    for text in texts:
        block += text.encode("utf-8", "replace")
        if len(block) >= _CHUNK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _answer(status: int, content_type: str, parts: Iterable[bytes], *headers: tuple[str, str]) -> Answer:
    return Answer(status, (*_headers(content_type), ("Cache-Control", "no-store"), *headers), parts)


def _headers(content_type: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", content_type),
        ("Content-Security-Policy", render.POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
    )
