"""Creates destinations from URLs: the schemes, their options, and the errors for invalid URLs.

===============================  =============================================================
``graphite://host:2003``         Graphite lines over TCP; ``graphite+udp://`` over UDP
``graphite+tls://host:port``     the same under TLS, ``?ca=FILE``, ``?cert=FILE&key=FILE``, ``?name=NAME``
``graphite+pickle://host:2004``  the same points in frames of pickle, over TCP
``statsd://host:8125``           deltas over UDP; ``statsd+tcp://`` over TCP
``statsd+unix:///path``          deltas over a Unix stream socket; ``statsd+unixgram:///path`` datagrams
``forwarder+tcp://host:8129``    deltas in numbered batches, each counted once; ``forwarder+unix:///path``
``auto:``                        the same to the forwarder of this host, from when there is one; ``auto:///path``
``whisper:///dir``               Graphite's files, ``?retentions=10s:1d,1m:30d,10m:1y``
``file:///path.jsonl``           one line of JSON per window, ``?rotate=100MB&keep=5``
``console:``                     Graphite lines to standard output
===============================  =============================================================

Destinations that send lines have the option ``?max_line=16384``: the longest line that the server reads, in bytes.
Longer lines are never sent. ``graphite+pickle`` has ``?max_frame=262144``.

All have ``?timeout=5s`` (for one attempt), ``?spool_bytes=67108864`` and ``?max_age=1d``. Destinations that receive
complete slots have ``?revise=off``: each slot is sent once, when it is complete. If repetitions are harmless, at most
``?replay=20000`` points per second of a backlog are sent in addition to new data. A time is in seconds, or has a unit:
s, m, h, d, w.

``graphite``, ``graphite+tls`` and ``graphite+pickle`` have ``?verify=http://graphite/render``: see :mod:`.verify`.
"""

import re
import socket
from difflib import get_close_matches
from typing import TextIO
from urllib.parse import urlsplit

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidDestination, InvalidType
from ..naming import Naming
from ..wire.pickle import FRAME
from . import urls
from .destination import Destination, Options
from .files import KEEP, ConsoleDestination, FileDestination, Rotation
from .forwarder import SOCKET, ForwarderDestination, LocalForwarder
from .graphite import DATAGRAM_LINE, LINE, GraphiteDestination, LineDatagrams, LineStream, LineTransport, PickleStream
from .statsd import STATSD_LINE, StatsdDestination
from .transport import Datagrams, Endpoint, LineLimit, Resolve, Stream
from .whisper import RETENTIONS, WhisperDestination, parse_retentions

__all__ = ["SCHEMES", "open_destination"]

_NETWORK, _LOCAL = ("timeout", "spool_bytes", "max_age"), ("timeout", "spool_bytes", "max_age", "revise")
_GRAPHITE = (*_LOCAL, "replay")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "graphite": (*_GRAPHITE, "verify", "max_line"),
    "graphite+tls": (*_GRAPHITE, "verify", "ca", "cert", "key", "name", "max_line"),
    "graphite+pickle": (*_GRAPHITE, "verify", "max_frame"),
    "graphite+udp": (*_GRAPHITE, "max_line"),
    "statsd": (*_NETWORK, "max_line"),
    "statsd+tcp": (*_NETWORK, "max_line"),
    "statsd+unix": (*_NETWORK, "max_line"),
    "statsd+unixgram": (*_NETWORK, "max_line"),
    "forwarder+tcp": (*_NETWORK, "max_line"),
    "forwarder+unix": (*_NETWORK, "max_line"),
    "auto": (*_NETWORK, "max_line"),
    "whisper": (*_GRAPHITE, "retentions"),
    "file": (*_LOCAL, "rotate", "keep"),
    "console": _LOCAL,
}
"""By scheme, the options of a URL."""
SCHEMES = tuple(_OPTIONS)
_PORTS = {
    "graphite": 2003,
    "graphite+tls": None,
    "graphite+pickle": 2004,
    "graphite+udp": 2003,
    "statsd": 8125,
    "statsd+tcp": 8125,
    "forwarder+tcp": 8129,
}
"""Schemes with a host, with their default port; None: the URL must have a port."""


def open_destination(
    url: str,
    naming: Naming,
    *,
    clock: Clock = SYSTEM_CLOCK,
    console: TextIO | None = None,
    resolve: Resolve | None = None,
) -> Destination:
    """Return the destination of ``url``. Nothing is connected or written yet.

    ``resolve`` replaces :func:`socket.getaddrinfo` for Graphite's hosts.

    Raises :class:`~..errors.InvalidDestination`, whose text and ``url`` contain neither user info nor option values.
    """
    if not isinstance(url, str):
        raise InvalidType("destination", url, "a URL")
    try:
        return _open(url, naming, clock, console, resolve)
    except ValueError as error:
        raise InvalidDestination(urls.without_secrets(url), str(error)) from None


def _open(url: str, naming: Naming, clock: Clock, console: TextIO | None, resolve: Resolve | None) -> Destination:
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in SCHEMES:
        close = get_close_matches(scheme, SCHEMES, 1)
        hint = f"did you mean {close[0]}:" if close else f"known are {', '.join(SCHEMES)}"
        if scheme in ("http", "https"):
            hint = "a render API is an option: graphite://HOST?verify=http://HOST/render; a comma in it is written %2C"
        raise ValueError(f"unknown scheme; {hint}")
    parts = urlsplit(url)
    if "@" in (urls.before_verify(url) if scheme in _PORTS else parts.netloc):
        raise ValueError("takes no user name and no password")
    if parts.fragment:
        raise ValueError("takes no fragment; write # as %23")
    known = _OPTIONS[scheme]
    if "verify" not in known and re.search(r"(?:\A|&)verify=", parts.query):
        takers = [scheme for scheme, options in _OPTIONS.items() if "verify" in options]
        raise ValueError(f"takes no option verify, which needs a connection to one carbon: {', '.join(takers)}")
    texts = urls.query(parts, known)
    options = urls.options(texts, parts.hostname or "graphite")
    own = {name: text for name, text in texts.items() if name not in _GRAPHITE and name != "verify"}
    if scheme == "console":
        if parts.netloc or parts.path:
            raise ValueError("takes no host and no path: write console:")
        return ConsoleDestination("console:", naming, options, console)
    if scheme == "auto" and not parts.netloc and not parts.path:
        endpoint, label = Endpoint(path=SOCKET), "auto:"
    elif scheme in _PORTS:
        endpoint = urls.host(parts, scheme, _PORTS[scheme])
        label = f"{scheme}://{endpoint}"
    else:
        path = urls.path(parts, scheme)
        endpoint = Endpoint(path=path)
        label = f"{scheme}://{path}" if path.startswith("/") else f"{scheme}:{path}"
    if scheme.startswith("graphite"):
        transport = _line_transport(scheme, label, endpoint, own, resolve)
        return GraphiteDestination(label, transport, naming, options, clock=clock)
    if scheme == "file":
        return FileDestination(label, endpoint.path, naming, options, rotation=_rotation(own))
    if scheme == "whisper":
        return _whisper(label, endpoint.path, naming, options, own.get("retentions", RETENTIONS), clock)
    limit = _limit(label, own, STATSD_LINE)
    if scheme == "auto":
        return LocalForwarder(label, endpoint, naming, options, limit)
    if scheme.startswith("forwarder"):
        return ForwarderDestination(label, endpoint, naming, options, limit)
    assert scheme.startswith("statsd"), scheme  # otherwise _OPTIONS has a scheme that is missing here
    kind = socket.SOCK_STREAM if scheme in ("statsd+tcp", "statsd+unix") else socket.SOCK_DGRAM
    return StatsdDestination(label, endpoint, naming, options, limit, kind=kind)


def _limit(label: str, own: dict[str, str], default: int) -> LineLimit:
    text = own.pop("max_line", None)
    return LineLimit(label, default if text is None else urls.size("max_line", text))


def _line_transport(
    scheme: str, label: str, endpoint: Endpoint, own: dict[str, str], resolve: Resolve | None
) -> LineTransport:
    if scheme == "graphite+udp":
        return LineDatagrams(Datagrams(endpoint, resolve=resolve), _limit(label, own, DATAGRAM_LINE))
    if scheme == "graphite+tls":
        from .tls import Tls  # here, because it loads OpenSSL

        limit = _limit(label, own, LINE)
        secure = Tls(**{"name": endpoint.host, **own})
        return LineStream(Stream(endpoint, secure, resolve=resolve), limit)
    stream = Stream(endpoint, resolve=resolve)
    if scheme == "graphite+pickle":
        return PickleStream(stream, label, urls.size("max_frame", own.get("max_frame", str(FRAME))))
    return LineStream(stream, _limit(label, own, LINE))


def _rotation(own: dict[str, str]) -> Rotation | None:
    if "rotate" in own:
        return Rotation.parse(own["rotate"], own.get("keep", str(KEEP)))
    if own:
        raise ValueError("keep needs rotate, such as rotate=100MB")
    return None


def _whisper(label: str, path: str, naming: Naming, options: Options, text: str, clock: Clock) -> Destination:
    try:
        retentions = parse_retentions(text)
    except ImportError:
        raise ValueError("needs the package whisper: pip install 'metricslib[forwarder]'") from None
    except ValueError as error:
        raise ValueError(f"retentions: {error}") from None
    return WhisperDestination(label, path, naming, options, retentions=retentions, clock=clock)
