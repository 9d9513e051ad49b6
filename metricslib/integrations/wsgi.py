"""Measure any WSGI application::

    from metricslib.integrations import wsgi

    application = wsgi.instrument(application)

Each request is one value of the timer ``http.server.request.duration``, from the call of the application to the end of
its response's body, tagged ``method``, ``route`` and ``status``. ``http.server.active_requests`` is the number of
requests in progress.

WSGI itself has no routes. ``route`` is what the function given as ``route`` returns, or else ``any``.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from .._scope import Instruments
from ._base import instruments_of
from ._http import ServerRequests

__all__ = ["COMPLETE", "Measured", "instrument"]

COMPLETE = "metricslib.complete"
"""The key of an environ under which a framework notes that the body is made already, and not streamed."""

Environ: TypeAlias = dict[str, Any]
Route: TypeAlias = Callable[[Environ], str]
Application: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def _any(_environ: Environ) -> str:
    return "any"


def instrument(application: Application, *, route: Route = _any, instruments: Instruments | None = None) -> Application:
    """Return ``application`` with its requests measured.

    Args:
        application: The WSGI application. It is called as before; exceptions pass unchanged.
        route: Called with the environ after the application has answered; returns the route's template. It must return
            one of few values: each is a series. If it raises, the route is ``error``.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    return Measured(application, ServerRequests(instruments_of(instruments)), route)


class Measured:
    """A WSGI application that measures the requests of another one."""

    def __init__(
        self, application: Application, requests: ServerRequests, route: Route, *, exceptions: bool = True
    ) -> None:
        self.application = application
        self.requests = requests
        self.exceptions = exceptions
        """Whether exceptions of the application are counted here."""
        self._route = route

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = _Request(self, environ)

        def start(status: str, headers: Any, error: Any = None) -> Any:
            request.status = int(status[:3]) if status[:3].isdecimal() else 0
            return start_response(status, headers) if error is None else start_response(status, headers, error)

        try:
            body = self.application(environ, start)
        except BaseException as error:
            request.status = 500
            request.end(error)
            raise
        # A list is the whole body, and servers look at its length. A wrapped file is sent by the kernel if the server
        # sees its own wrapper.
        if environ.get(COMPLETE) or type(body) in (list, tuple, environ.get("wsgi.file_wrapper")):
            request.end()
            return body
        request.body = body
        return request

    def route(self, environ: Environ) -> str:
        """Return the route's template."""
        try:
            return self._route(environ)
        except Exception:  # the function is the program's; measuring must not break the response
            return "error"


class _Request:
    """A request in progress, and the iterable of its body: the server closes it when the response is sent."""

    __slots__ = ("_began", "_call", "_environ", "_measured", "body", "status")

    def __init__(self, measured: Measured, environ: Environ) -> None:
        self._measured = measured
        self._environ = environ
        self._call: object | None = measured.requests.active.begin()
        self._began = measured.requests.now()
        self.status = 0
        self.body: Iterable[bytes] = ()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except Exception as error:
            self.status = 500
            self.end(error)
            raise
        self.end()

    def close(self) -> None:
        """Close the body, and end the measurement. The server calls it, also when the client went away."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """Add the request to the metrics, once."""
        if self._call is None:
            return
        call, self._call = self._call, None
        requests, environ = self._measured.requests, self._environ
        route = self._measured.route(environ)
        requests.active.end(call)
        requests.observe(self._began, environ.get("REQUEST_METHOD", ""), route, self.status)
        if self._measured.exceptions and isinstance(error, Exception):
            requests.failed(error, route)
