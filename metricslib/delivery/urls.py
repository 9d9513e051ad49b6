"""Parses URLs of destinations: hosts, ports, paths, and the options that all destinations have.

The messages of ValueErrors do not contain values of options, which may be secrets.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import InvalidOption, InvalidType
from .destination import Options
from .transport import Endpoint

__all__ = [
    "before_verify",
    "host",
    "options",
    "path",
    "query",
    "several",
    "split_urls",
    "whole",
    "without_bad_port",
    "without_secrets",
]

_SIZE = re.compile(r"([0-9]{1,15})(?:([kmg])(i?)b|b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SEPARATOR = re.compile(r",(?=[\s,]*(?:$|[a-z][a-z+]*:(?!\d+\s*(?:[:,/?]|$))))", re.IGNORECASE)
"""A comma before a scheme, or before only commas and white space. A host with a port does not count as a scheme."""
_LONGEST = 1_000_000_000  # seconds, 31 years
_LONGEST_ATTEMPT = 86_400  # seconds; a socket's own limit is 24 days
_VERIFY = re.compile(r"[?&]verify=https?:", re.IGNORECASE)
_BAD_PORT = re.compile(r"((?:^|,)(?:\[[^\]]*\]|[^:,/\[\]]*)):(?!\d{0,5}(?:[:,/]|$)).*", re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


def split_urls(text: str) -> list[str]:
    """Return the URLs in a list separated by commas.

    A comma separates URLs only before a scheme or at the end; other commas are part of a URL. Empty parts are ignored.
    In a file name, a comma before a scheme must be written ``%2C``.

    >>> split_urls("whisper:///data?retentions=10s:1d,1m:30d, console:")
    ['whisper:///data?retentions=10s:1d,1m:30d', 'console:']
    >>> split_urls("graphite://east:2003:a,west:2003:b?hash=carbon_ch,file:metrics.jsonl")
    ['graphite://east:2003:a,west:2003:b?hash=carbon_ch', 'file:metrics.jsonl']
    >>> split_urls(",file:x,,console:,")
    ['file:x', 'console:']
    """
    return [url.strip() for url in _SEPARATOR.split(text) if url.strip()]


def several(to: str | Iterable[str], argument: str = "to") -> tuple[str, ...]:
    """Return the URLs in ``to``: a list separated by commas, or several such lists.

    Raises :class:`~..errors.InvalidType` for other types, and :class:`~..errors.InvalidOption` for a text without a
    destination.
    """
    if not isinstance(to, Iterable):
        raise InvalidType(argument, to, "a URL, or several")
    urls: list[str] = []
    for text in (to,) if isinstance(to, str) else to:
        if not isinstance(text, str):
            raise InvalidType(argument, text, "a URL, or several")
        if not (found := split_urls(text)):
            raise InvalidOption(argument, text, "names no destination")
        urls += found
    return tuple(urls)


def before_verify(url: str) -> str:
    """Return ``url`` up to its option ``verify``, because errors in the value, also a URL, concern only the option.

    >>> before_verify("graphite://host?timeout=5s&verify=http://me:secret@graphite/render"), before_verify("console:")
    ('graphite://host?timeout=5s&', 'console:')
    """
    found = _VERIFY.search(url)
    return url[: found.start() + 1] if found else url


def without_secrets(url: str) -> str:
    """Return ``url`` without parts that may be a password or a key.

    >>> without_secrets("graphite://me:secret@host:2003?key=secret"), without_secrets("graphite://host:secret")
    ('graphite://host:2003?…', 'graphite://host:…')
    """
    url = before_verify(url)
    place, question, query = url.partition("?")
    if "@" in query:  # most likely the password has a question mark
        place, question = url, ""
    place = re.sub(r"(?<=:)(//)?.*@", r"\1", place, flags=re.DOTALL)
    scheme, slashes, rest = place.partition("://")
    if slashes:
        place = scheme + slashes + without_bad_port(rest, "…")
    return place + question + ("…" if question else "")


def without_bad_port(hosts: str, mark: str) -> str:
    """Return ``HOST:PORT,…``, truncated with ``mark`` at the first port that is not a number: it may be a password."""
    return _BAD_PORT.sub(lambda found: f"{found[1]}:{mark}", hosts, count=1)


def host(parts: SplitResult, scheme: str, port: int | None) -> Endpoint:
    """Return host and port. ``port`` is the default; None: the URL must have a port. Raises ValueError."""
    example = f"write {scheme}://host:{port or 'port'}"
    if not parts.hostname:
        raise ValueError(f"has no host; {example}")
    if parts.path not in ("", "/"):
        raise ValueError("takes no path")
    try:
        given = parts.port
    except ValueError:  # its message may contain a part of a password
        given = 0
    if given == 0:
        raise ValueError(f"the port must be a number from 1 to 65535; {example}")
    if not (found := given or port):
        raise ValueError(f"has no port; {example}")
    return Endpoint(parts.hostname, found)


def path(parts: SplitResult, scheme: str) -> str:
    """Return the path. Raises ValueError."""
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"takes no host; write {scheme}:///path with three slashes")
    found = unquote(parts.path)
    if not found or (found.endswith("/") and scheme != "whisper") or "\0" in found:
        raise ValueError(f"has no path; write {scheme}:///path")
    return found


def query(parts: SplitResult, known: Sequence[str]) -> dict[str, str]:
    """Return the options as text. Raises ValueError for an option that is not ``known``, or given twice."""
    found: dict[str, str] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}" if close else f"known are {', '.join(known)}"
            if not close and "verify" in found:
                hint += "; a & in the value of verify is written %26"
            raise ValueError(f"unknown option {name}; {hint}")
        if name in found:
            raise ValueError(f"option {name} is given twice")
        found[name] = text
    return found


def options(texts: Mapping[str, str], host: str) -> Options:
    """Return the options that all destinations have, and ignore others. Raises ValueError.

    An error about ``verify`` suggests a render API on ``host``.
    """
    found = {name: parse(name, texts[name]) for name, parse in _OPTIONS.items() if name in texts}
    return Options(**found, verify=_render(texts["verify"], host) if "verify" in texts else None)


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{name} must be a time above 0, such as 5s or 1d")
    return seconds


def _attempt(name: str, text: str) -> float:
    seconds = _seconds(name, text)
    if seconds > _LONGEST_ATTEMPT:
        raise ValueError(f"{name} must be at most 1d")
    return seconds


def whole(name: str, text: str) -> int:
    """Return ``text`` as a whole number above 0. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,15}", text) or not int(text):
        raise ValueError(f"{name} must be a whole number above 0")
    return int(text)


def size(name: str, text: str) -> int:
    """Return ``text``, with or without a unit, as a number of bytes above 0. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    found = int(match[1]) * (1024 if match[3] else 1000) ** _POWERS[(match[2] or "").lower()] if match else 0
    if not found:
        raise ValueError(f"{name} must be a number of bytes above 0, such as 67108864 or 64MiB")
    return found


def _switch(name: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"{name} must be on or off")
    return text == "on"


def _render(text: str, host: str) -> str:
    """Return the value of ``verify`` if it is a valid URL of a render API."""
    write = f"write verify=http://{f'[{host}]' if ':' in host else host}/render, with the host of graphite-web"
    try:
        parts = urlsplit(text)
    except ValueError:  # the brackets do not contain an IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path in ("", "/"):
        raise ValueError(f"verify must be the URL of Graphite's render API; {write}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"verify takes no user name and no password; {write}")
    if without_bad_port(parts.netloc, "") != parts.netloc:
        raise ValueError(f"the port in verify must be a number; {write}")
    if parts.fragment or not text.isascii() or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("verify must be ASCII without white space or #; write other characters as %XX")
    if parts.scheme == "https" and not find_spec("_ssl"):
        raise ValueError("verify=https://… needs a Python with OpenSSL; write verify=http://…")
    return text


_OPTIONS: dict[str, Callable[[str, str], Any]] = {
    "timeout": _attempt,
    "spool_bytes": size,
    "max_age": _seconds,
    "revise": _switch,
    "replay": whole,
}
