"""Parses the URLs of listeners: ``udp://HOST:PORT``, ``tcp://``, ``graphite://`` and ``forwarder+tcp://``, or
``unix:///PATH``, ``unixgram://`` and ``forwarder+unix://``.

In: text. Out: an :class:`Address`, or a ValueError with the reason. Nothing is resolved or bound.
"""

import difflib
from typing import NamedTuple

__all__ = ["Address", "host_and_port", "parse", "parse_target"]

PORTS = {"udp": 8125, "tcp": 8125, "graphite": 2003, "forwarder+tcp": 8129}
"""Schemes with host and port, with their default ports."""
PATHS = ("unix", "unixgram", "forwarder+unix")
"""Schemes with a path."""
_ALL = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "::1", "localhost", *_ALL)
_LONGEST_PATH = 107  # of sun_path, with its NUL


class Address(NamedTuple):
    """The address of a listener: host and port, or a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def reaches(self, listener: "Address") -> bool:
        """Return True if ``listener`` receives data sent to this address, as far as this is clear without a look-up."""
        if (self.scheme, self.port) != (listener.scheme, listener.port):
            return False
        return self.host == listener.host or (listener.host in _ALL and self.host in _LOOPBACK)


def parse(url: str) -> Address:
    """Return the address in ``url``. Raises ValueError with the reason if it is invalid."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("is not a URL: udp://HOST:PORT, for example")
    if scheme in PATHS:
        if not rest.startswith("/"):
            raise ValueError(f"needs an absolute path: {scheme}:///run/statsd.sock, for example")
        if len(rest.encode()) > _LONGEST_PATH or "\0" in rest:
            raise ValueError(f"has a path that no socket can have; the longest has {_LONGEST_PATH} bytes")
        return Address(scheme, path=rest)
    if scheme not in PORTS:
        near = difflib.get_close_matches(scheme, [*PORTS, *PATHS], 1)
        raise ValueError(f"has an unknown scheme{f'; did you mean {near[0]}?' if near else ''}")
    try:
        return Address(scheme, *host_and_port(rest.removesuffix("/"), PORTS[scheme]))
    except ValueError:
        raise ValueError("needs HOST:PORT, with an IPv6 address in brackets") from None


def parse_target(url: str) -> Address:
    """Return the address of another statsd server: ``udp://HOST:PORT`` or ``tcp://HOST:PORT``. Raises ValueError."""
    address = parse(url)
    if address.scheme not in ("udp", "tcp"):
        raise ValueError("is neither udp:// nor tcp://")
    if not address.port:
        raise ValueError("has port 0; use a port from 1 to 65535")
    return address


def host_and_port(text: str, default: int | None = None) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``. The port is optional if there is a default.

    Raises ValueError.
    """
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(text)
        colon, port = port[:1], port[1:]
    else:
        host, colon, port = text.partition(":")
    if not host or any(character in host for character in "/?#@[] ") or (not colon and default is None):
        raise ValueError(text)
    if colon and not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ValueError(text)
    return host, int(port) if colon else int(default or 0)
