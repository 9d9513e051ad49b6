"""Measure an ASGI application, such as one of Starlette or FastAPI::

    from metricslib.integrations import asgi

    app = asgi.instrument(app)

Each HTTP request is one value of the timer ``http.server.request.duration``, from the call of the application to the
end of the response's body, tagged ``method``, ``route`` and ``status``. Background tasks that follow the response do
not count. ``http.server.active_requests`` is the number of requests in progress, ``http.server.exceptions`` counts
exceptions that the application did not handle. WebSockets are not measured.

``route`` is the template of Starlette's or FastAPI's route, such as ``/users/{id}``, with the templates of the mounts
before it. Other applications have no routes that a middleware can see: ``route`` is what the function given as
``route`` returns, or else ``any``.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from .._scope import Instruments
from ._base import instruments_of
from ._http import UNMATCHED, ServerRequests, template

__all__ = ["instrument"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Route: TypeAlias = Callable[[Scope], str]


def instrument(app: Any, *, route: Route | None = None, instruments: Instruments | None = None) -> Any:
    """Measure the requests of ``app``.

    Args:
        app: An ASGI application. One of Starlette or FastAPI gets a middleware; do this before it serves.
        route: Called with the scope after the application has answered; returns the route's template. It must return
            one of few values: each is a series. If it raises, the route is ``error``.
        instruments: A registry or a scope; None: the default registry.

    Returns:
        ``app`` itself if it is one of Starlette or FastAPI, otherwise the application to serve in its place.

    Raises:
        InvalidType: If ``instruments`` is neither.
        RuntimeError: If the application serves already.
    """
    requests = ServerRequests(instruments_of(instruments))
    if not hasattr(app, "add_middleware") or not hasattr(app, "routes"):
        return Measured(app, requests=requests, route=route or _any)
    measured = any(getattr(middleware, "cls", None) is Measured for middleware in app.user_middleware)
    if not measured:
        app.add_middleware(Measured, requests=requests, route=route or _Template(app))
    return app


def _any(_scope: Scope) -> str:
    return "any"


class Measured:
    """An ASGI application that measures the requests of another one."""

    def __init__(self, app: Application, requests: ServerRequests, route: Route) -> None:
        self.app = app
        self._requests = requests
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        requests = self._requests
        root = scope.get("root_path", "")
        status, ended = 0, False
        call = requests.active.begin()
        began = requests.now()

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                requests.active.end(call)
                requests.observe(began, scope["method"], self._template(scope, root), status)

        async def sent(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            await send(message)
            if kind == "http.response.body" and not message.get("more_body"):
                end()

        try:
            await self.app(scope, receive, sent)
        except Exception as error:
            status = status or 500
            requests.failed(error, self._template(scope, root))
            raise
        finally:
            end()

    def _template(self, scope: Scope, root: str) -> str:
        try:
            if isinstance(self._route, _Template):
                return self._route.of(scope, root)
            return self._route(scope)
        except Exception:  # the function is the program's; measuring must not break the response
            return "error"


class _Template:
    """The templates of the routes of an application of Starlette or FastAPI."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, scope: Scope) -> str:
        return self.of(scope, "")

    def of(self, scope: Scope, root: str) -> str:
        """Return the template of the route that answered. ``root`` was the root path before it was looked for."""
        mounted = scope.get("root_path", "") != root
        mounts = _mounts(self._app.routes, scope["path"].removeprefix(root)) if mounted else ""
        found = scope.get("route") or self._by_endpoint(scope.get("endpoint"))
        # FastAPI keeps the prefix of an included router beside the route.
        context = (scope.get("fastapi") or {}).get("effective_route_context")
        if context is not None and getattr(context, "original_route", None) is found:
            found = context
        if found is None or hasattr(found, "routes"):  # a mount of something without routes, such as files, or nothing
            return template(mounts) or UNMATCHED
        return template(f"{mounts}{getattr(found, 'path', '')}") or UNMATCHED

    def _by_endpoint(self, endpoint: Any) -> Any:
        """Return the route with this endpoint, where Starlette is too old to tell it."""
        if endpoint is None:
            return None
        return next((route for route in self._app.routes if getattr(route, "endpoint", None) is endpoint), None)


def _mounts(routes: Iterable[Any], path: str) -> str:
    """Return the templates of the mounts on the way to ``path``, joined."""
    for route in routes:
        inner = getattr(route, "app", None)
        expression = getattr(route, "path_regex", None)
        if inner is None or expression is None or hasattr(route, "endpoint"):
            continue
        found = expression.match(path)
        if found and "path" in found.groupdict():
            return f"{route.path}{_mounts(getattr(route, 'routes', None) or (), '/' + found['path'])}"
    return ""
