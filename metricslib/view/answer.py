"""One request answered, through whatever framework or server it came: method and query string in, a whole answer out.

Reading changes nothing: the registry is asked for a snapshot, and only its flusher ends intervals.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption
from ..flusher import Flusher
from .as_json import as_json
from .page import page
from .query import Query
from .report import Report, Section, report
from .style import POLICY

__all__ = ["METHODS", "Answer", "Extra", "View"]

log = logging.getLogger("metricslib")

METHODS = ("GET", "HEAD")

Extra = Callable[[], Mapping[str, Section]]
"""Asked at each request for what else the page is to say: sections by title."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers and a body; for HEAD the body is left out by whoever sends it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class View:
    """Answers requests about the registry of the flusher that ``find`` returns. Any number of threads may call it."""

    def __init__(
        self,
        find: Callable[[], Flusher],
        *,
        title: str = "metricslib",
        extra: Extra | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.find = find
        self.title = title
        self._extra = extra
        self._clock = clock
        self._since = clock.monotonic()

    @classmethod
    def of(cls, flusher: Flusher, *, title: str = "metricslib", extra: Extra | None = None) -> "View":
        """Return a view of that flusher and its registry."""
        return cls(lambda: flusher, title=title, extra=extra, clock=flusher.registry.clock)

    def answer(self, method: str, query_string: str) -> Answer:
        """Answer with a page or JSON, or with a text that says what is wrong; never raises."""
        if method not in METHODS:
            return _text(405, "This page can only be read, with GET or HEAD.", ("Allow", ", ".join(METHODS)))
        try:
            query = Query.parse(query_string)
        except InvalidOption as error:
            return _text(400, f"{error}.")
        try:
            found = self.report(query)
            if query.format == "json":
                return _answer(200, "application/json", as_json(found))
            return _answer(200, "text/html; charset=utf-8", page(found, query))
        except Exception:
            log.exception("the metrics page could not be made")
            return _text(500, "The page could not be made; the program's log says why.")

    def report(self, query: Query) -> Report:
        """Return the report that answers ``query``, as of now."""
        flusher = self.find()
        registry, interval = flusher.registry, flusher.interval
        end = (int(registry.clock.time() // interval) + 1) * interval
        return report(
            registry.snapshot(end, interval),
            flusher.status(),
            percentiles=flusher.naming.percentiles,
            match=query.match,
            limit=query.limit,
            title=self.title,
            uptime=self._clock.monotonic() - self._since,
            sections=self._extra() if self._extra else None,
        )


def _text(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    return _answer(status, "text/plain; charset=utf-8", text + "\n", *headers)


def _answer(status: int, content_type: str, text: str, *headers: tuple[str, str]) -> Answer:
    body = text.encode("utf-8", "replace")
    common = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    )
    return Answer(status, (*common, *headers), body)
