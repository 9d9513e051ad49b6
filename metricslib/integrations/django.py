"""Measure a Django project: its requests, and the queries of its databases.

In ``settings.py``, first in the list::

    MIDDLEWARE = ["metricslib.integrations.django.middleware", ...]

or where the application is made, in ``wsgi.py`` or ``asgi.py``, before that::

    from metricslib.integrations import django

    django.instrument()

Each request is one value of the timer ``http.server.request.duration``, until the response is made, tagged ``method``,
``route`` (such as ``/users/{id}/``) and ``status``. ``http.server.active_requests`` is the number of requests in
progress, ``http.server.exceptions`` counts exceptions that no view handled. Each query is one value of the timer
``db.client.operation.duration``, tagged ``system``, ``db`` (the alias) and ``operation`` (``SELECT``).
"""

import sys
from collections.abc import Awaitable, Callable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings
from django.contrib.admindocs.views import simplify_regex
from django.core.signals import got_request_exception
from django.db import connections
from django.db.backends.signals import connection_created
from django.utils.decorators import sync_and_async_middleware

from .._scope import Instruments
from ._base import instruments_of
from ._http import UNMATCHED, ServerRequests, template
from ._sql import Queries, operation

__all__ = ["instrument", "middleware"]

_MIDDLEWARE = f"{__name__}.middleware"
_instruments: Instruments | None = None


def instrument(*, instruments: Instruments | None = None) -> None:
    """Put :func:`middleware` first into the settings, if it is not in them. Call it before the application is made.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    global _instruments
    _instruments = instruments_of(instruments)
    if _MIDDLEWARE not in settings.MIDDLEWARE:
        settings.MIDDLEWARE = [_MIDDLEWARE, *settings.MIDDLEWARE]


@sync_and_async_middleware  # type: ignore[untyped-decorator]
def middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Measure requests and queries. It belongs in the first place of ``MIDDLEWARE``; Django calls it."""
    instruments = instruments_of(_instruments)
    requests = ServerRequests(instruments)
    _measure_exceptions(requests)
    _measure_queries(Queries(instruments))

    def end(request: Any, began: float, call: object, status: int) -> None:
        requests.active.end(call)
        requests.observe(began, request.method or "", _route(request), status)

    def measured(request: Any) -> Any:
        call, began = requests.active.begin(), requests.now()
        status = 500
        try:
            response = get_response(request)
            status = response.status_code
        finally:
            end(request, began, call, status)
        return response

    async def measured_async(request: Any) -> Any:
        call, began = requests.active.begin(), requests.now()
        status = 500
        try:
            response = await get_response(request)
            status = response.status_code
        finally:
            end(request, began, call, status)
        return response

    made: Callable[[Any], Any | Awaitable[Any]] = measured_async if iscoroutinefunction(get_response) else measured
    return made


def _route(request: Any) -> str:
    match = request.resolver_match
    return UNMATCHED if match is None else _simple(match.route)


@lru_cache(maxsize=10_000)
def _simple(route: str) -> str:
    """Return the template of a route of ``path()`` or ``re_path()``."""
    return template(simplify_regex(route) if "(" in route or "^" in route else f"/{route}")


def _measure_exceptions(requests: ServerRequests) -> None:
    def failed(request: Any = None, **_more: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            requests.failed(error, UNMATCHED if request is None else _route(request))

    got_request_exception.connect(failed, weak=False, dispatch_uid=__name__)


def _measure_queries(queries: Queries) -> None:
    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        connection = context["connection"]
        began = queries.now()
        try:
            return run(sql, params, many, context)
        finally:
            queries.observe(began, connection.vendor, connection.alias, operation(sql))

    def connected(connection: Any, **_more: Any) -> None:
        if not any(getattr(wrapper, "__module__", "") == __name__ for wrapper in connection.execute_wrappers):
            connection.execute_wrappers.append(execute)

    connection_created.connect(connected, weak=False, dispatch_uid=__name__)
    for connection in connections.all(initialized_only=True):
        connected(connection)
