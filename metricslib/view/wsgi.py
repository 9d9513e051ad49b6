"""The page as a WSGI application, for any server and without a framework.

It answers at the path at which it is mounted; other paths below get status 404.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Never

from ..flusher import Flusher
from ..hints import unknown_option
from .answer import Answer, Extra, View, busy

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RESERVED", "application", "application_of"]

RESERVED = "metricslib.reserved"
"""True in the environment of a request for which a server has room only because it keeps some for health. The page is
not made then; an application in front of it may answer for something small."""


_PATHS = ("PATH_INFO", "SCRIPT_NAME")


def application(
    flusher: Flusher, *, title: str = "metricslib", extra: Extra | None = None, **unknown: Never
) -> "WSGIApplication":
    """Return a WSGI application with the metrics page at its root.

    Args:
        flusher: The flusher whose registry and destinations are shown.
        title: The title of the page.
        extra: A function that is called at each request and returns additional sections of the page and of the JSON, by
            title. A section is a mapping of names to values, or a list of such mappings, which is shown as a table.
    """
    if unknown:
        raise unknown_option(application, unknown)
    return application_of(View.of(flusher, title=title, extra=extra))


def application_of(view: View) -> "WSGIApplication":
    """Return a WSGI application that passes requests to ``view``."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get(RESERVED):
            return _send(busy("Too many requests at a time."), environ, start_response)
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        path, mount = (environ.get(name, "").encode("latin-1").decode("utf-8", "replace") for name in _PATHS)
        encodings = environ.get("HTTP_ACCEPT_ENCODING", "")
        accept = environ.get("HTTP_ACCEPT", "")
        answered = view.answer(method, query, path, mount=mount, encodings=encodings, accept=accept)
        return _send(answered, environ, start_response)

    return answer


def _send(
    answer: Answer, environ: "WSGIEnvironment", start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else answer.parts
