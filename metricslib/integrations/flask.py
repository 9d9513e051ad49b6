"""Measure a Flask application::

    from metricslib.integrations import flask

    flask.instrument(app)

Each request is one value of the timer ``http.server.request.duration``, from the call of the application to the
response (if that is streamed, to the end of its body), tagged ``method``, ``route`` (the rule, such as
``/users/{id}``) and ``status`` (``2xx``). ``http.server.active_requests`` is the number of requests in progress,
``http.server.exceptions`` counts the exceptions that the application did not handle.
"""

from typing import Any

from flask import Flask, Response, got_request_exception, request

from .._scope import Instruments
from ._base import instruments_of
from ._http import UNMATCHED, ServerRequests, template
from .wsgi import COMPLETE, Environ, Measured

__all__ = ["instrument"]

_ROUTE = "metricslib.route"


def instrument(app: Flask, *, instruments: Instruments | None = None) -> None:
    """Measure the requests of ``app``. Call it once, where the application is made; a second call does nothing.

    Args:
        app: The application.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidType: If ``instruments`` is neither.
    """
    if _ROUTE in app.extensions:
        return
    requests = ServerRequests(instruments_of(instruments))
    app.extensions[_ROUTE] = requests
    app.wsgi_app = Measured(app.wsgi_app, requests, _route, exceptions=False)  # type: ignore[method-assign]  # the place that Flask documents for middleware

    def failed(_sender: Flask, exception: BaseException, **_more: Any) -> None:
        _note_route()
        requests.failed(exception, _route(request.environ))

    got_request_exception.connect(failed, app, weak=False)
    app.after_request_funcs.setdefault(None, []).insert(0, _note)  # they run in reverse order


def _note_route() -> None:
    rule = request.url_rule
    if rule is not None:
        request.environ[_ROUTE] = template(rule.rule)


def _note(response: Response) -> Response:
    """Note the route, also of what was answered in the place of a view, and whether the body is made."""
    _note_route()
    request.environ[COMPLETE] = response.is_sequence or response.content_length is not None
    return response


def _route(environ: Environ) -> str:
    return str(environ.get(_ROUTE, UNMATCHED))
