"""Streams that are not meant for us: HTTP requests, and binary protocols such as TLS. No I/O.

A page on the web can make a browser send a POST to any port of the machine it runs on, with lines of its choice in the
body. What comes first cannot be chosen: it is a request line, or bytes that no line of text has.
"""

import re

__all__ = ["is_foreign", "redacted"]

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f]")
_REQUEST = re.compile(rb"[A-Z]{2,32} \S.* HTTP/\d(?:\.\d)?\s*", re.DOTALL)
_TARGET = re.compile(rb"[A-Z]{2,32} (?:/|[a-z]+://)")  # in a line so long that its end is not looked for
_LONGEST = 4096  # bytes: commands, which are shorter than lines of metrics, have no more
_HEADER = re.compile(
    r"([A-Za-z][A-Za-z0-9-]*:\s+|(?:set-)?cookie:|(?:proxy-)?authorization:).+", re.IGNORECASE | re.DOTALL
)
_SHOWN_REQUEST = re.compile(r"([A-Z]{2,32} )(?:/|[a-z]+://).*", re.DOTALL)


def is_foreign(line: bytes, *, whole: bool) -> bool:
    """Return whether the first ``line`` of a stream, without its line feed, is of another protocol.

    ``whole`` says that nothing more comes of the line, or that it is already longer than a line may be.
    """
    if _CONTROL.search(line):
        return True
    return whole and bool(_REQUEST.fullmatch(line) or (len(line) > _LONGEST and _TARGET.match(line)))


def redacted(line: str) -> str:
    """Return ``line`` as it may be shown: of what looks like HTTP, which may hold a password, only the first word.

    >>> redacted("Cookie: session=secret"), redacted("GET /?token=secret HTTP/1.1"), redacted("web.hits:1")
    ('Cookie: (redacted)', 'GET (redacted)', 'web.hits:1')
    """
    found = _HEADER.fullmatch(line) or _SHOWN_REQUEST.fullmatch(line)
    return f"{found[1]}(redacted)" if found else line
