"""Measure the HTTP requests that a program sends with `urllib3`, itself or by libraries that use it::

    from metricslib.integrations import urllib3

    urllib3.instrument()

Each request that goes out is one value of the timer ``http.client.request.duration``, until the response's headers are
read, tagged ``method``, ``host`` and ``status`` (``2xx``; ``error`` if there was no response). Redirects and retries
are requests of their own. Requests that :mod:`metricslib.integrations.requests` measures do not count twice.
"""

from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection

from .._scope import Instruments
from ._base import instruments_of, replace
from ._http import ClientRequests, inside

__all__ = ["instrument"]

_REQUEST = "_metricslib_request"


def instrument(*, instruments: Instruments | None = None) -> None:
    """Measure all requests from now on, of all pools. A second call does nothing.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    requests = ClientRequests(instruments_of(instruments))

    def end(connection: HTTPConnection, status: int) -> None:
        begun = connection.__dict__.pop(_REQUEST, None)
        if begun is not None:
            began, method = begun
            requests.observe(began, method, connection.host, status)

    def sending(request: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(connection: HTTPConnection, method: str, *args: Any, **kwargs: Any) -> Any:
            if not inside.get():
                connection.__dict__[_REQUEST] = (requests.now(), method)
            try:
                return request(connection, method, *args, **kwargs)
            except BaseException:
                end(connection, 0)
                raise

        return wrapper

    def receiving(getresponse: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(connection: HTTPConnection, *args: Any, **kwargs: Any) -> Any:
            status = 0
            try:
                response = getresponse(connection, *args, **kwargs)
                status = response.status
                return response
            finally:
                end(connection, status)

        return wrapper

    if replace(HTTPConnection, "request", sending):
        replace(HTTPConnection, "getresponse", receiving)
