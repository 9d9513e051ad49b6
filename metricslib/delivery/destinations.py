"""URL in, destination out: what each scheme means, and what is wrong with a URL that means nothing.

===============================  =============================================================
``graphite://host:2003``         Graphite's lines over TCP; ``graphite+udp://`` over UDP
``graphite+tls://host:port``     the same under TLS, ``?ca=FILE``, ``?cert=FILE&key=FILE``, ``?name=NAME``
``graphite+pickle://host:2004``  the same points in frames of pickle, over TCP
``statsd://host:8125``           deltas over UDP; ``statsd+tcp://`` over TCP
``statsd+unix:///path``          deltas over a Unix stream socket; ``statsd+unixgram:///path`` datagrams
``forwarder+tcp://host:8129``    deltas in numbered batches, each counted once; ``forwarder+unix:///path``
``whisper:///dir``               Graphite's files, ``?retentions=10s:1d,1m:30d,10m:1y``
``file:///path.jsonl``           a line of JSON a window, ``?rotate=100MB&keep=5``
``console:``                     Graphite's lines to standard output
===============================  =============================================================

All take ``?timeout=5s`` (an attempt's), ``?spool_bytes=67108864`` and ``?max_age=1d``, and those that are sent whole
slots ``?revise=off``: each slot once, when it is complete. Where sending again is harmless, ``?replay=20000`` says how
many points a second of a backlog go out beside what is new. A time is in seconds, or has a unit: s, m, h, d, w.
"""

import re
import socket
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TextIO
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import InvalidDestination, InvalidType
from ..naming import Naming
from .carriers import Carrier, LineDatagrams, LineStream, PickleStream
from .destination import Destination, Options
from .files import ConsoleDestination, FileDestination
from .forwarder import ForwarderDestination
from .graphite import GraphiteDestination
from .rotation import KEEP, Rotation
from .statsd import StatsdDestination
from .transport import Datagrams, Endpoint, Resolve, Stream
from .whisper_files import RETENTIONS, WhisperDestination, parse_retentions

__all__ = ["SCHEMES", "open_destination", "split_urls", "without_secrets"]

SCHEMES = (
    "graphite",
    "graphite+tls",
    "graphite+pickle",
    "graphite+udp",
    "statsd",
    "statsd+tcp",
    "statsd+unix",
    "statsd+unixgram",
    "forwarder+tcp",
    "forwarder+unix",
    "whisper",
    "file",
    "console",
)

_PORTS = {
    "graphite": 2003,
    "graphite+tls": None,
    "graphite+pickle": 2004,
    "graphite+udp": 2003,
    "statsd": 8125,
    "statsd+tcp": 8125,
    "forwarder+tcp": 8129,
}
"""Schemes that take a host, and the port where none is given; None: it must be."""
_COMMON = ("timeout", "spool_bytes", "max_age")
_OWN = {"graphite+tls": ("ca", "cert", "key", "name"), "whisper": ("retentions",), "file": ("rotate", "keep")}
"""Options of one scheme alone."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SEPARATOR = re.compile(r",(?=\s*[a-z][a-z+]*:(?!\d+\s*(?:[:,/?]|$)))")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


def open_destination(
    url: str,
    naming: Naming,
    *,
    clock: Clock = SYSTEM_CLOCK,
    console: TextIO | None = None,
    resolve: Resolve | None = None,
) -> Destination:
    """Return the destination that ``url`` names. Nothing is connected or written yet.

    ``resolve`` takes the place of :func:`socket.getaddrinfo` for Graphite's hosts.

    Raises :class:`~..errors.InvalidDestination`, whose text and ``url`` hold no user info and no option's value.
    """
    if not isinstance(url, str):
        raise InvalidType("destination", url, "a URL")
    try:
        return _open(url, naming, clock, console, resolve)
    except ValueError as error:
        raise InvalidDestination(without_secrets(url), str(error)) from None


def split_urls(text: str) -> list[str]:
    """Return the URLs in a list separated by commas.

    A comma inside a URL does not separate, for what follows one that does is a scheme, and no host with its port.

    >>> split_urls("whisper:///data?retentions=10s:1d,1m:30d, console:")
    ['whisper:///data?retentions=10s:1d,1m:30d', 'console:']
    >>> split_urls("graphite://east:2003:a,west:2003:b?hash=carbon_ch,file:metrics.jsonl")
    ['graphite://east:2003:a,west:2003:b?hash=carbon_ch', 'file:metrics.jsonl']
    """
    return [url.strip() for url in _SEPARATOR.split(text) if url.strip()]


def without_secrets(url: str) -> str:
    """Return ``url`` without what may be a password or a key.

    >>> without_secrets("graphite://me:secret@host:2003?key=secret")
    'graphite://host:2003?…'
    """
    place, question, _ = url.partition("?")
    return re.sub(r"(?<=:)(//)?.*@", r"\1", place, flags=re.DOTALL) + question + ("…" if question else "")


def _open(url: str, naming: Naming, clock: Clock, console: TextIO | None, resolve: Resolve | None) -> Destination:
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in SCHEMES:
        close = get_close_matches(scheme, SCHEMES, 1)
        hint = f"did you mean {close[0]}:" if close else f"known are {', '.join(SCHEMES)}"
        raise ValueError(f"unknown scheme; {hint}")
    parts = urlsplit(url)
    if "@" in (url if scheme in _PORTS else parts.netloc) or parts.fragment:
        raise ValueError("takes no user name, password or fragment")
    query = _query(parts, scheme)
    own = {name: query.pop(name) for name in _OWN.get(scheme, ()) if name in query}
    options = Options(**{name: _OPTIONS[name](name, text) for name, text in query.items()})
    if scheme in _PORTS:
        endpoint = _host(parts, scheme, _PORTS[scheme])
        label = f"{scheme}://{endpoint}"
        if scheme.startswith("graphite"):
            return GraphiteDestination(label, _carrier(scheme, endpoint, own, resolve), naming, options, clock=clock)
        if scheme == "forwarder+tcp":
            return ForwarderDestination(label, endpoint, naming, options)
        kind = socket.SOCK_STREAM if scheme == "statsd+tcp" else socket.SOCK_DGRAM
        return StatsdDestination(label, endpoint, naming, options, kind=kind)
    if scheme == "console":
        if parts.netloc or parts.path:
            raise ValueError("takes no host and no path: write console:")
        return ConsoleDestination("console:", naming, options, console)
    path = _path(parts, scheme)
    label = f"{scheme}://{path}" if path.startswith("/") else f"{scheme}:{path}"
    if scheme == "file":
        return FileDestination(label, path, naming, options, rotation=_rotation(own))
    if scheme == "whisper":
        return _whisper(label, path, naming, options, own.get("retentions", RETENTIONS), clock)
    if scheme == "forwarder+unix":
        return ForwarderDestination(label, Endpoint(path=path), naming, options)
    kind = socket.SOCK_STREAM if scheme == "statsd+unix" else socket.SOCK_DGRAM
    return StatsdDestination(label, Endpoint(path=path), naming, options, kind=kind)


def _carrier(scheme: str, endpoint: Endpoint, own: dict[str, str], resolve: Resolve | None) -> Carrier:
    if scheme == "graphite+udp":
        return LineDatagrams(Datagrams(endpoint, resolve=resolve))
    if scheme == "graphite+tls":
        from .tls import Tls  # OpenSSL is loaded where it is asked for

        secure = Tls(**{"name": endpoint.host, **own})
        return LineStream(Stream(endpoint, secure, resolve=resolve))
    stream = Stream(endpoint, resolve=resolve)
    return PickleStream(stream) if scheme == "graphite+pickle" else LineStream(stream)


def _rotation(own: dict[str, str]) -> Rotation | None:
    if "rotate" in own:
        return Rotation.parse(own["rotate"], own.get("keep", str(KEEP)))
    if own:
        raise ValueError("keep needs rotate")
    return None


def _whisper(label: str, path: str, naming: Naming, options: Options, text: str, clock: Clock) -> Destination:
    try:
        retentions = parse_retentions(text)
    except ImportError:
        raise ValueError("needs the package whisper: pip install 'metricslib[forwarder]'") from None
    except ValueError as error:
        raise ValueError(f"retentions: {error}") from None
    return WhisperDestination(label, path, naming, options, retentions=retentions, clock=clock)


# -- parts of a URL


def _host(parts: SplitResult, scheme: str, port: int | None) -> Endpoint:
    example = f"write {scheme}://host:{port or 'port'}"
    if not parts.hostname:
        raise ValueError(f"has no host; {example}")
    if parts.path not in ("", "/"):
        raise ValueError("takes no path")
    try:
        given = parts.port
    except ValueError:  # its text quotes what may be half a password
        given = 0
    if given == 0:
        raise ValueError("the port is no number from 1 to 65535")
    if not (found := given or port):
        raise ValueError(f"has no port; {example}")
    return Endpoint(parts.hostname, found)


def _path(parts: SplitResult, scheme: str) -> str:
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"takes no host; write {scheme}:///path with three slashes")
    path = unquote(parts.path)
    if not path or (path.endswith("/") and scheme != "whisper") or "\0" in path:
        raise ValueError(f"has no path; write {scheme}:///path")
    return path


def _query(parts: SplitResult, scheme: str) -> dict[str, str]:
    known = [*_COMMON]
    if not scheme.startswith(("statsd", "forwarder")):
        known.append("revise")
    if scheme.startswith(("graphite", "whisper")):
        known.append("replay")
    known += _OWN.get(scheme, ())
    query: dict[str, str] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}" if close else f"known are {', '.join(known)}"
            raise ValueError(f"unknown option {name}; {hint}")
        if name in query:
            raise ValueError(f"option {name} is given twice")
        query[name] = text
    return query


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds < 1e9:
        raise ValueError(f"{name} must be a time above 0, such as 5s or 1d")
    return seconds


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text) or not int(text):
        raise ValueError(f"{name} must be a whole number above 0")
    return int(text)


def _switch(name: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"{name} must be on or off")
    return text == "on"


_OPTIONS: dict[str, Callable[[str, str], Any]] = {
    "timeout": _seconds,
    "spool_bytes": _whole,
    "max_age": _seconds,
    "revise": _switch,
    "replay": _whole,
}
