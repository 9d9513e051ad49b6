"""A request for the page, independently of framework and server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .answer import POSTED

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["LONGEST_BODY", "Request", "from_environ", "has_body"]

LONGEST_BODY = 64 << 10
"""Bytes of a body that are read: the log-in form and a query of Grafana are much shorter."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a function for ``allow=`` gets."""

    method: str
    """``GET``, ``HEAD`` or another."""
    path: str
    """The path below where the page is mounted, decoded; empty, or with a slash in front."""
    query: str = ""
    """What stands behind the question mark."""
    mount: str = ""
    """The path at which the page is mounted."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name, in lower case with hyphens: ``headers.get("x-user")``."""
    address: str = ""
    """The IP address of the client as the server tells it. Behind a proxy it is the proxy's."""
    scheme: str = "http"
    """``http`` or ``https``."""
    body: bytes = field(default=b"", repr=False)
    """The first 64 KiB of a form."""
    native: Any = field(default=None, repr=False)
    """The environment of WSGI, or the scope of ASGI."""


def has_body(method: str, path: str) -> bool:
    """Return whether the body of such a request is looked at."""
    return method == "POST" and path.strip("/") in POSTED


def from_environ(environ: "WSGIEnvironment", path: str, mount: str) -> Request:
    """Return the request of a WSGI server for ``path``, below ``mount``."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    body, length = b"", environ.get("CONTENT_LENGTH", "")
    if has_body(environ["REQUEST_METHOD"], path) and length.isascii() and length.isdecimal():
        try:
            body = environ["wsgi.input"].read(min(int(length[:9]), LONGEST_BODY))
        except OSError:
            pass  # the client does not send it
    return Request(
        environ["REQUEST_METHOD"],
        path,
        environ.get("QUERY_STRING", ""),
        mount,
        headers,
        environ.get("REMOTE_ADDR", ""),
        environ["wsgi.url_scheme"],
        body,
        environ,
    )
