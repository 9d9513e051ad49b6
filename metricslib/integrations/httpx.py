"""Measure the HTTP requests that a program sends with `httpx`, of synchronous and asynchronous clients::

    from metricslib.integrations import httpx

    httpx.instrument()

Each request that goes out is one value of the timer ``http.client.request.duration``, until the response's headers are
read, tagged ``method``, ``host`` and ``status`` (``2xx``; ``error`` if there was no response). A redirect is a request
of its own.
"""

from collections.abc import Callable
from typing import Any

import httpx

from .._scope import Instruments
from ._base import instruments_of, replace
from ._http import ClientRequests

__all__ = ["instrument"]


def instrument(*, instruments: Instruments | None = None) -> None:
    """Measure all requests from now on, of all clients that use httpx's own transports. A second call does nothing.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    requests = ClientRequests(instruments_of(instruments))

    def measured(handle: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(transport: Any, request: httpx.Request) -> Any:
            began, status = requests.now(), 0
            try:
                response = handle(transport, request)
                status = response.status_code
                return response
            finally:
                requests.observe(began, request.method, request.url.host, status)

        return wrapper

    def measured_async(handle: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapper(transport: Any, request: httpx.Request) -> Any:
            began, status = requests.now(), 0
            try:
                response = await handle(transport, request)
                status = response.status_code
                return response
            finally:
                requests.observe(began, request.method, request.url.host, status)

        return wrapper

    replace(httpx.HTTPTransport, "handle_request", measured)
    replace(httpx.AsyncHTTPTransport, "handle_async_request", measured_async)
