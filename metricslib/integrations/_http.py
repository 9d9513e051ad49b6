"""The series of HTTP requests, for servers and for clients, with tags of bounded number.

=============================================  =======  ================================
series                                         kind     tags
=============================================  =======  ================================
``http.server.request.duration``               timer    ``method``, ``route``, ``status``
``http.server.active_requests``                gauge
``http.server.exceptions``                     counter  ``exception``, ``route``
``http.client.request.duration``               timer    ``method``, ``host``, ``status``
=============================================  =======  ================================
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from .._scope import Instruments
from ..instruments.timer import Timer
from ._base import InProgress

__all__ = ["UNMATCHED", "ClientRequests", "ServerRequests", "host_of", "inside", "status_class", "template"]

UNMATCHED = "unmatched"
"""The route of requests that no route of the application matches."""
OTHER = "_OTHER"
"""The method of requests with a method that is not in :data:`METHODS`, as OpenTelemetry writes it."""
METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"])
inside: ContextVar[bool] = ContextVar("metricslib_inside_request", default=False)
"""True while a library is at work whose requests are measured above the one that it uses."""
_CLASSES = {first: f"{first}xx" for first in range(1, 6)}
_REMEMBERED = 10_000
"""Timers that are found without a look at their tags. Beyond it, the memory is begun anew."""


def status_class(status: int) -> str:
    """Return ``2xx`` for 204. A status outside of the standard's range is ``error``."""
    return _CLASSES.get(status // 100, "error")


_PARAMETER = re.compile(r"<(?:[^<>:]*:)?([^<>]*)>|{([^{}:]*)(?::[^{}]*)?}")


@lru_cache(maxsize=10_000)
def template(route: str) -> str:
    """Return a route with its parameters as ``{name}``, without their types: ``/users/<int:id>`` is ``/users/{id}``."""
    return _PARAMETER.sub(lambda found: f"{{{found[1] or found[2] or ''}}}", route)


def host_of(url: str | None) -> str:
    """Return the host of a URL; ``none`` if it has none."""
    try:
        return urlsplit(url or "").hostname or "none"
    except ValueError:
        return "none"


class _Timers:
    """The children of a timer by method, place and class of status. Finds one faster than ``tagged()`` does."""

    __slots__ = ("_key", "_known", "_timer", "now")

    def __init__(self, timer: Timer, key: str) -> None:
        self._timer = timer
        self._key = key
        self._known: dict[tuple[str, str, int], Timer] = {}
        self.now: Callable[[], float] = timer._now

    def observe(self, began: float, method: str, place: str, status: int) -> None:
        """Add the time since ``began``."""
        seconds = max(0.0, self.now() - began)
        way = (method, place, status // 100)
        timer = self._known.get(way)
        if timer is None:
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            tags: dict[str, Any] = {
                "method": method if method in METHODS else OTHER,
                self._key: place,
                "status": status_class(status),
            }
            timer = self._timer.tagged(**tags)
            if method in METHODS:
                self._known[way] = timer
        timer.observe(seconds)


class ServerRequests:
    """Measures the requests that a server answers. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        timers = _Timers(instruments.timer("http.server.request.duration"), "route")
        self.now = timers.now
        """The clock for ``began``, in seconds."""
        self.observe = timers.observe
        """Call with when the request began, its method, its route and the status of its response."""
        self.active = InProgress(instruments.gauge("http.server.active_requests"))
        self._exceptions = instruments.counter("http.server.exceptions")

    def failed(self, error: BaseException, route: str) -> None:
        """Count an exception that the application did not handle."""
        self._exceptions.tagged(exception=type(error).__qualname__, route=route).inc()


class ClientRequests:
    """Measures the requests that a client sends. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        timers = _Timers(instruments.timer("http.client.request.duration"), "host")
        self.now = timers.now
        """The clock for ``began``, in seconds."""
        self.observe = timers.observe
        """Call with when the request began, its method, the host, and the status (0: there was no response)."""
