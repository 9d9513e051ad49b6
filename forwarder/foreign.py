"""Detects streams in other protocols: HTTP requests, and binary protocols such as TLS. No I/O.

A web page can make a browser send a POST request to any port of the browser's machine, with any lines in the body. But
the page cannot choose the beginning of the stream, which is a request line, or, with TLS, binary data.
"""

import re

__all__ = ["is_foreign", "redacted"]

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x0c\x0e-\x1f]")
_REQUEST = re.compile(rb"[A-Z]{2,32} \S.* HTTP/\d(?:\.\d)?\s*", re.DOTALL)
_TARGET = re.compile(rb"[A-Z]{2,32} (?:/|[a-z]+://)")  # for a line that is too long to wait for its end
_LONGEST = 4096  # bytes: the longest command of the console, which is shorter than the longest line of metrics
_HEADER = re.compile(
    r"([A-Za-z][A-Za-z0-9-]*:\s+|(?:set-)?cookie:|(?:proxy-)?authorization:).+", re.IGNORECASE | re.DOTALL
)
_SHOWN_REQUEST = re.compile(r"([A-Z]{2,32} )(?:/|[a-z]+://).*", re.DOTALL)


def is_foreign(line: bytes, *, whole: bool) -> bool:
    """Return True if the first ``line`` of a stream, without its line feed, belongs to another protocol.

    ``whole``: the line is complete, or already longer than a line may be.
    """
    if _CONTROL.search(line):
        return True
    return whole and bool(_REQUEST.fullmatch(line) or (len(line) > _LONGEST and _TARGET.match(line)))


def redacted(line: str) -> str:
    """Return ``line`` for display. Of a line that looks like HTTP, which may contain a password, only the first word.

    >>> redacted("Cookie: session=secret"), redacted("GET /?token=secret HTTP/1.1"), redacted("web.hits:1")
    ('Cookie: (redacted)', 'GET (redacted)', 'web.hits:1')
    """
    found = _HEADER.fullmatch(line) or _SHOWN_REQUEST.fullmatch(line)
    return f"{found[1]}(redacted)" if found else line
