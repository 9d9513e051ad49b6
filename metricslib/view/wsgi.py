"""The page as a WSGI application, for any server and without a framework.

It answers at the path at which it is mounted; other paths below get status 404.
"""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Never

from ..flusher import Flusher
from ..hints import unknown_option
from .access import Allow, Page
from .answer import Answer, Extra, busy
from .request import from_environ

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RESERVED", "application_of", "wsgi"]

RESERVED = "metricslib.reserved"
"""True in the environment of a request for which a server has room only because it keeps some for health. The page is
not made then; an application in front of it may answer for something small."""


_PATHS = ("PATH_INFO", "SCRIPT_NAME")


def wsgi(
    flusher: Flusher | None = None,
    *,
    token: str | None = None,
    allow: Allow | None = None,
    open: bool = False,
    title: str = "metricslib",
    extra: Extra | None = None,
    **unknown: Never,
) -> "WSGIApplication":
    """Return a WSGI application with the metrics page at its root.

    Who may read it is decided by ``token``, ``allow`` or ``open``. Without a decision, every request gets status 403.

    Args:
        flusher: The flusher whose registry and destinations are shown. None: the default registry, whose intervals end
            from now on, with or without :func:`metricslib.start`.
        token: Readers must know this token, of at least 16 printable ASCII characters. A program sends it in the header
            ``Authorization: Bearer``; a browser gets a form, and then a cookie for 30 days.
        allow: A function that gets each :class:`request <metricslib.view.Request>`, and returns True if it may read the
            page.
        open: True: everybody may read the page.
        title: The title of the page.
        extra: A function that is called at each request and returns additional sections of the page and of the JSON, by
            title. A section is a mapping of names to values, or a list of such mappings, which is shown as a table.

    Raises:
        InvalidOption: If an argument has an invalid value, or if there is more than one decision.
    """
    if unknown:
        raise unknown_option(wsgi, unknown)
    page = Page(flusher, "metrics.view.wsgi", title=title, extra=extra, token=token, allow=allow, open=open)
    page.view.find()
    return application_of(page)


def application_of(page: Page) -> "WSGIApplication":
    """Return a WSGI application that passes requests to ``page``."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get(RESERVED):
            return _send(busy("Too many requests at a time."), environ, start_response)
        path, mount = (environ.get(name, "").encode("latin-1").decode("utf-8", "replace") for name in _PATHS)
        return _send(page.answer(from_environ(environ, path, mount)), environ, start_response)

    return answer


def _send(
    answer: Answer, environ: "WSGIEnvironment", start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else answer.parts
