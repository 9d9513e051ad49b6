"""One request answered, through whatever framework or server it came: method and query string in, an answer out.

Reading changes nothing: the registry is asked for a snapshot, and only its flusher ends intervals.

However many ask, and for however much, they cost the program little. One report is made at a time, from at most 10,000
series, which are chosen in two seconds of processor time; the registry's lock is held while their keys are listed and
their values copied, and by nothing that grows with the time a client takes. What a report says is written as the client
reads it, 64 KiB at a time, and no further when the client is gone.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from .._process import register_fork_handler
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidOption
from ..flusher import Flusher
from . import as_json, page
from .query import Query
from .report import Report, Section, TooSlow, report, select
from .style import POLICY

__all__ = ["BUDGET", "METHODS", "PATIENCE", "Answer", "Extra", "View", "busy"]

log = logging.getLogger("metricslib")

METHODS = ("GET", "HEAD")

Extra = Callable[[], Mapping[str, Section]]
"""Asked at each request for what else the page is to say: sections by title."""

PATIENCE = 5.0
"""Seconds for which a request waits for the report of another."""
BUDGET = 2.0
"""Seconds of processor time that choosing a request's series may take."""
_CHUNK = 64 << 10
"""Bytes that are written at once; what is shorter is answered whole, with its length."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers and the parts of a body, to be read once; for HEAD the sender leaves them out."""

    status: int
    headers: tuple[tuple[str, str], ...]
    parts: Iterable[bytes]

    @property
    def body(self) -> bytes:
        """All parts in one."""
        return b"".join(self.parts)


class View:
    """Answers requests about the registry of the flusher that ``find`` returns. Any number of threads may call it."""

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
        self._clock = clock
        self._since = clock.monotonic()
        self._making = threading.Lock()
        register_fork_handler(self)

    def reset_after_fork(self) -> None:
        """In a forked child: a report that was being made is the parent's."""
        self._making = threading.Lock()

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
        making = self._making
        if not making.acquire(timeout=PATIENCE):
            return busy("Others ask for this page; it is made for one at a time.")
        try:
            found = self.report(query)
        except TooSlow:
            return busy("There are too many series to look for that; a word, or a pattern like web.*, is found faster.")
        except Exception:
            return _failed()
        finally:
            making.release()
        try:
            if query.format == "json":
                return _streamed("application/json", as_json.parts(found))
            return _streamed("text/html; charset=utf-8", page.parts(found, query))
        except Exception:
            return _failed()

    def report(self, query: Query) -> Report:
        """Return the report that answers ``query``, as of now. Raises :class:`~.report.TooSlow`."""
        flusher = self.find()
        registry, interval = flusher.registry, flusher.interval
        until = self._spent() + BUDGET
        in_time = lambda: self._spent() <= until  # noqa: E731
        selection = select(registry.series(), query.match, query.limit, query.after, in_time)
        end = (int(registry.clock.time() // interval) + 1) * interval
        return report(
            registry.snapshot(end, interval, selection.keys()),
            flusher.status(),
            selection,
            percentiles=flusher.naming.percentiles,
            match=query.match,
            title=self.title,
            uptime=self._clock.monotonic() - self._since,
            memory=registry.budget.usage(),
            sections=self._extra() if self._extra else None,
        )


def _text(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    body = f"{text}\n".encode("utf-8", "replace")
    return _answer(status, "text/plain; charset=utf-8", [body], ("Content-Length", str(len(body))), *headers)


def busy(text: str) -> Answer:
    """Return the answer to a request that comes at a bad time."""
    return _text(503, text, ("Retry-After", "5"))


def _failed() -> Answer:
    log.exception("the metrics page could not be made")
    return _text(500, "The page could not be made; the program's log says why.")


def _streamed(content_type: str, texts: Iterator[str]) -> Answer:
    """Return an answer that is made as it is read; whole, and with its length, if it is short."""
    chunks = _chunks(texts)
    first = next(chunks)
    if len(first) < _CHUNK:
        return _answer(200, content_type, [first], ("Content-Length", str(len(first))))
    return _answer(200, content_type, _begun(first, chunks))


def _begun(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    try:
        yield from chunks
    except Exception:
        log.exception("the metrics page was cut off by an error")
        raise


def _chunks(texts: Iterable[str]) -> Iterator[bytes]:
    """Yield the texts in blocks; the last one alone is shorter than others, and may be empty."""
    block = bytearray()
    for text in texts:
        block += text.encode("utf-8", "replace")
        if len(block) >= _CHUNK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _answer(status: int, content_type: str, parts: Iterable[bytes], *headers: tuple[str, str]) -> Answer:
    common = (
        ("Content-Type", content_type),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    )
    return Answer(status, (*common, *headers), parts)
