"""statsd's management console, without its socket: answers commands, and holds the health that they set.

The answers are those of statsd to the letter, except that JavaScript objects are JSON, with one entry on each line. A
command is the first word of its line. Words are separated by single spaces, and commands are case-sensitive::

    help                        the list of commands
    stats                       uptime, ages of the last message, flush and error, and figures of the last flush
    counters, timers, gauges    values of the open interval, and values of gauges
    delcounters NAME…           delete series: NAME, or with ``prefix.*`` all that start with ``prefix.``;
                                ``deltimers`` and ``delgauges`` do the same
    health [up|down]            show or set health
    config                      the configuration, without secrets
    quit                        close the connection

The answer to anything else is ``ERROR``.

Health tells load balancers whether this server accepts traffic. It is also available on the page's port: ``GET
/health`` returns ``{"health": "up"}`` with status 200, or ``down`` with status 503. Browsers get a page there.
"""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.drops import DropCounter
from metricslib.registry import Registry
from metricslib.series import Kind, join, split
from metricslib.sketch import Readable

from .stats import DaemonStats

__all__ = ["Console", "Health"]

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


PATH = "/health"


class Health:
    """The state of health. Any thread may read or set it."""

    def __init__(self, status: Literal["up", "down"] = "up") -> None:
        self.status: Literal["up", "down"] = status

    def beside(self, page: "WSGIApplication") -> "WSGIApplication":
        """Return a WSGI application that answers at ``/health``, and passes every other request to ``page``.

        A browser, which asks for HTML, gets the page's own view of that name.
        """

        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if environ.get("PATH_INFO") != PATH or "text/html" in environ.get("HTTP_ACCEPT", ""):
                return page(environ, start_response)
            method = environ["REQUEST_METHOD"]
            if method not in ("GET", "HEAD"):
                return _send(start_response, "405 Method Not Allowed", "text/plain", b"", ("Allow", "GET, HEAD"))
            status = "200 OK" if self.status == "up" else "503 Service Unavailable"
            body = json.dumps({"health": self.status}).encode() + b"\n"
            sent = _send(start_response, status, "application/json", body)
            return [] if method == "HEAD" else sent

        return answer


def _send(
    start_response: "StartResponse", status: str, content_type: str, body: bytes, *headers: tuple[str, str]
) -> Iterable[bytes]:
    common = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(status, [*common, ("X-Content-Type-Options", "nosniff"), *headers])
    return [body]


log = logging.getLogger("forwarder")

_HELP = "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, config, quit\n\n"
_WHOLE = 2.0**53
_END = "END\n\n"
_ERROR = "ERROR\n"
_REFUSED = "ERROR: not allowed on this address, unless console_admin is configured\n"
_KINDS: Mapping[str, Kind] = {"counters": "counter", "timers": "timer", "gauges": "gauge"}


class Console:
    """Answers commands. One thread at a time may use it.

    ``config`` returns the effective configuration as plain values, without secrets. While ``may_change`` returns False,
    commands that change something are refused and counted.
    """

    def __init__(
        self,
        registry: Registry,
        health: Health,
        *,
        daemon_stats: Callable[[], DaemonStats],
        config: Callable[[], Mapping[str, Any]],
        may_change: Callable[[], bool] = lambda: True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._registry = registry
        self._health = health
        self._vitals = daemon_stats
        self._config = config
        self._may_change = may_change
        self._clock = clock
        self._account = DropCounter()

    def counts(self) -> Mapping[str, int]:
        """Return the number of commands, and of those that were unknown, refused, or failed."""
        return {"commands": 0, **self._account.totals()}

    def answer(self, line: str) -> Iterable[str] | None:
        """Return the answer to a command, in parts; None closes the connection. Only generating a part may raise."""
        command, *words = line.strip().split(" ")
        self._account.add("commands")
        if command == "quit":
            return None
        if command.lower() == "host:":
            # The second line of an HTTP request, probably from a browser. Its body may contain commands.
            self._account.add("http")
            return None
        try:
            return self._answer(command, words)
        except Exception:
            log.exception("the console could not answer %s", ascii(command[:20]))
            self._account.add("failed")
            return [_ERROR]

    def _answer(self, command: str, words: Sequence[str]) -> Iterable[str]:
        kind = _KINDS.get(command.removeprefix("del"))
        if command == "help":
            return [_HELP]
        if command == "stats":
            return self._stats()
        if command == "config":
            return [json.dumps(_plain(self._config()), indent=2), "\n", _END]
        if command == "health":
            return self._tell_health(words)
        if kind and command.startswith("del"):
            return self._change(lambda: self._delete(kind, words))
        if kind:
            return _listed(self._registry.snapshot().open[kind])
        self._account.add("unknown")
        return [_ERROR]

    def _change(self, change: Callable[[], Iterable[str]]) -> Iterable[str]:
        if self._may_change():
            return change()
        self._account.add("refused")
        return [_REFUSED]

    def _stats(self) -> Iterable[str]:
        daemon_stats, now = self._vitals(), round(self._clock.time())

        def age(moment: float | None, otherwise: float) -> int:
            return now - round(otherwise if moment is None else moment)

        # As in statsd, events that have not happened count from the start, and an exception from the epoch.
        return [
            f"uptime: {age(daemon_stats.started, 0)}\n",
            f"messages.last_msg_seen: {age(daemon_stats.last_message, daemon_stats.started)}\n",
            f"messages.bad_lines_seen: {daemon_stats.bad_lines}\n",
            f"graphite.last_flush: {age(daemon_stats.last_flush, daemon_stats.started)}\n",
            f"graphite.last_exception: {age(daemon_stats.last_exception, 0)}\n",
            f"graphite.flush_time: {round(daemon_stats.flush_time * 1000)}\n",
            f"graphite.flush_length: {daemon_stats.flush_length}\n",
            _END,
        ]

    def _tell_health(self, words: Sequence[str]) -> Iterable[str]:
        health = self._health
        wanted = words[0].lower() if words else ""

        def told() -> Iterable[str]:
            return [f"health: {health.status}\n"]

        def changed() -> Iterable[str]:
            log.warning("console: health is %s", wanted)
            health.status = "up" if wanted == "up" else "down"
            return told()

        return self._change(changed) if wanted in ("up", "down") else told()

    def _delete(self, kind: Kind, names: Sequence[str]) -> Iterable[str]:
        there = dict.fromkeys(self._registry.keys(kind))
        found: list[tuple[str, list[str]]] = []
        for name in names:
            chosen = [key] if (key := join(*split(name))) in there else []
            if name.endswith(".*"):
                chosen += [key for key in there if key.startswith(name[:-1])]
            for key in chosen:
                del there[key]
            found.append((name, chosen))
        deleted = self._registry.forget(kind, [key for _, chosen in found for key in chosen])
        if deleted:
            log.warning("console: deleted %d series of kind %s: %s", len(deleted), kind, ", ".join(deleted)[:200])
        return _deleted(found)


def _deleted(found: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    for name, chosen in found:
        if not chosen:
            yield f"metric {name} not found\n"
        for key in chosen:
            yield f"deleted: {key}\n"
    yield _END


# -- values as JSON


def _listed(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield an object with one entry on each line."""
    before = "{\n"
    for key, value in values.items():
        yield f"{before}  {json.dumps(key)}: {json.dumps(_plain(value))}"
        before = ",\n"
    yield "\n}\n" if values else "{}\n"
    yield _END


def _plain(value: Any) -> Any:
    """Return ``value`` as plain JSON values; a distribution has the fields of the page's JSON for an open interval."""
    if isinstance(value, Readable):
        if not value.count:
            return {"count": 0}
        return {name: _plain(getattr(value, name)) for name in ("count", "sum", "mean", "min", "max")}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() and abs(value) < _WHOLE else value  # 3 as in statsd, not 3.0
    return value
