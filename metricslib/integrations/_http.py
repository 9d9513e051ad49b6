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
from contextvars import ContextVar
from functools import lru_cache
from urllib.parse import urlsplit

from .._scope import Instruments
from ._base import InProgress, Tagged, monotonic_of

__all__ = ["UNMATCHED", "ClientRequests", "ServerRequests", "host_of", "inside", "status_class", "template"]

UNMATCHED = "unmatched"
"""The route of requests that no route of the application matches."""
OTHER = "_OTHER"
"""The method of requests with a method that is not in :data:`METHODS`, as OpenTelemetry writes it."""
METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"])
inside: ContextVar[bool] = ContextVar("metricslib_inside_request", default=False)
"""True while a library is at work whose requests are measured above the one that it uses."""
_CLASSES = {first: f"{first}xx" for first in range(1, 6)}


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


class ServerRequests:
    """Measures the requests that a server answers. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        self.now = monotonic_of(instruments)
        """The clock for ``began``, in seconds."""
        self.active = InProgress(instruments.gauge("http.server.active_requests"))
        self._durations = Tagged(instruments.timer, "http.server.request.duration", "method", "route", "status")
        self._exceptions = Tagged(instruments.counter, "http.server.exceptions", "exception", "route")

    def observe(self, began: float, method: str, route: str, status: int) -> None:
        """Add a request that began at ``began``, with the status of its response (0: there was none)."""
        seconds = max(0.0, self.now() - began)
        self._durations(method if method in METHODS else OTHER, route, status_class(status)).observe(seconds)

    def failed(self, error: BaseException, route: str) -> None:
        """Count an exception that the application did not handle."""
        self._exceptions(type(error).__qualname__, route).inc()


class ClientRequests:
    """Measures the requests that a client sends. Its methods never raise."""

    def __init__(self, instruments: Instruments) -> None:
        self.now = monotonic_of(instruments)
        """The clock for ``began``, in seconds."""
        self._durations = Tagged(instruments.timer, "http.client.request.duration", "method", "host", "status")

    def observe(self, began: float, method: str, host: str, status: int) -> None:
        """Add a request that began at ``began``, with the status of its response (0: there was none)."""
        seconds = max(0.0, self.now() - began)
        self._durations(method if method in METHODS else OTHER, host, status_class(status)).observe(seconds)
