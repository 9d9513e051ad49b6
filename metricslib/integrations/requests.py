"""Measure the HTTP requests that a program sends with `requests`::

    from metricslib.integrations import requests

    requests.instrument()

Each request that goes out is one value of the timer ``http.client.request.duration``, until the response's headers are
read, tagged ``method``, ``host`` and ``status`` (``2xx``; ``error`` if there was no response). A redirect is a request
of its own, a retry of an adapter is not. A program that talks to very many hosts reaches the cap on tag sets.
"""

from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter

from .._scope import Instruments
from ._base import instruments_of, replace
from ._http import ClientRequests, host_of, inside

__all__ = ["instrument"]


def instrument(*, instruments: Instruments | None = None) -> None:
    """Measure all requests from now on, of all sessions. A second call does nothing.

    Args:
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    requests = ClientRequests(instruments_of(instruments))

    def measured(send: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
            began, status = requests.now(), 0
            outer = inside.set(True)
            try:
                response = send(adapter, request, *args, **kwargs)
                status = response.status_code
                return response
            finally:
                inside.reset(outer)
                requests.observe(began, request.method or "", host_of(request.url), status)

        return wrapper

    replace(HTTPAdapter, "send", measured)
