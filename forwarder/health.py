"""Whether this server wants traffic, for load balancers: ``up`` or ``down``, as somebody said on the console.

It is on the page's port as well: ``GET /health`` answers ``{"health": "up"}`` with status 200, or ``down`` with 503.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Health"]

PATH = "/health"


class Health:
    """One word that any thread may read or change."""

    def __init__(self, status: Literal["up", "down"] = "up") -> None:
        self.status: Literal["up", "down"] = status

    def beside(self, page: "WSGIApplication") -> "WSGIApplication":
        """Return a WSGI application that answers at ``/health``, and passes every other request to ``page``."""

        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if environ.get("PATH_INFO") != PATH:
                return page(environ, start_response)
            method = environ["REQUEST_METHOD"]
            if method not in ("GET", "HEAD"):
                return _send(start_response, "405 Method Not Allowed", "text/plain", b"", ("Allow", "GET, HEAD"))
            status = "200 OK" if self.status == "up" else "503 Service Unavailable"
            body = json.dumps({"health": self.status}).encode() + b"\n"
            sent = _send(start_response, status, "application/json", body)
            return [] if method == "HEAD" else sent

        return answer


def _send(
    start_response: "StartResponse", status: str, content_type: str, body: bytes, *headers: tuple[str, str]
) -> Iterable[bytes]:
    common = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(status, [*common, ("X-Content-Type-Options", "nosniff"), *headers])
    return [body]
