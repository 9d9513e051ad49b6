"""Checks the host names in requests to a server on loopback.

Any web site can let its host name point to 127.0.0.1 (DNS rebinding). Its scripts may then read answers of a server at
this address, because the browser takes it for their own site. Only the header ``Host`` distinguishes such requests.
"""

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["is_loopback", "only_for", "is_known"]

_REFUSED = b"This server answers to IP addresses, localhost and the names in its option for hosts.\n"


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach a socket that is bound to the address ``host``."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_known(host: str, names: Iterable[str]) -> bool:
    """Return True if the header ``host``, without its port, is an IP address, ``localhost`` or one of ``names``.

    >>> [is_known(host, ["metrics.lan"]) for host in ("127.0.0.1:8127", "[::1]", "metrics.lan:80", "evil.example")]
    [True, True, True, False]
    """
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return False
        return _is_address(name, 6)
    name, colon, port = host.partition(":")
    if colon and not _is_port(colon + port):
        return False
    name = name.removesuffix(".").lower()
    return name in ("localhost", *(known.removesuffix(".").lower() for known in names)) or _is_address(name, 4)


def only_for(names: Iterable[str], app: "WSGIApplication") -> "WSGIApplication":
    """Wrap ``app``: requests to other hosts than an IP address, ``localhost`` or one of ``names`` get status 421.

    Browsers always send ``Host``, so a request without it is answered.
    """
    names = tuple(names)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        host = environ.get("HTTP_HOST")
        if not host or is_known(host.strip(), names):
            return app(environ, start_response)
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(_REFUSED)))]
        start_response("421 Misdirected Request", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [_REFUSED]

    return answer


def _is_port(text: str) -> bool:
    return text.startswith(":") and (text == ":" or (text[1:].isascii() and text[1:].isdecimal()))


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
