"""Decides who may read the page: nobody, until the program has decided.

The page shows names, tags and values of a program. An application that mounts it says who may read them: those who know
a token, those for whom a function returns True, or everybody. Without a decision every answer is 403, and says how to
decide. The style sheet and the script are answered in any case: they are the same in every program.

A token comes in the header ``Authorization: Bearer``, or from a form that sets a cookie. The cookie has the time at
which the session ends, signed with a key that is derived from the token. So every worker accepts the cookies of the
others, the server stores nothing, and a new token ends all sessions. The cookie has no ``Path``: browsers send it to
the path of the form and below, which is where the page is mounted, even if a proxy has removed a prefix.
"""

import hashlib
import hmac
import inspect
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, quote

from .._shipping import ensure_flusher
from ..clock import Clock
from ..errors import InvalidOption
from ..flusher import Flusher
from . import render
from .answer import LOGIN, LOGOUT, METHODS, Answer, Extra, View, root_of, simple, wanted
from .hosts import is_known, is_loopback
from .request import Request, has_body

__all__ = ["Access", "Allow", "Page", "access"]

log = logging.getLogger("metricslib")

Allow = Callable[[Request], bool]
"""Returns whether a request may read the page."""

_SHORTEST = 16
_SESSION = 30 * 86_400
"""Seconds until a session ends."""
_FAILURES = 10
"""Wrong tokens from one address in one minute. Further tokens from there are refused unseen until the next minute."""
_SLOTS = 1024
_FORWARDING = (
    *("forwarded", "x-forwarded-", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "x-original-", "x-envoy-", "via"),
    *("cf-", "cdn-", "true-client-ip", "fastly-", "fly-", "akamai-", "x-amz-cf-", "x-amzn-", "x-azure-", "x-arr-"),
)
"""How the names of headers begin that proxies add."""


class Access(Protocol):
    """Decides about each request."""

    has_log_out: bool
    """Whether pages have a button to log out."""

    def answer(self, request: Request) -> Answer | None:
        """Return the answer to a request that may not read the page, or that logs in or out; None to all others."""
        ...


class Page:
    """The view of a flusher, and who may read it. Thread-safe.

    Args:
        flusher: The flusher whose registry and destinations are shown. None: the default registry's.
        call: What the program calls, as in ``metrics.view.wsgi``: a refusal shows how to call it.
        title: The title of the page.
        extra: Returns further sections of the page.
        token: The token that readers must know.
        allow: A function that returns whether a request may read the page.
        open: Whether everybody may.
        debug: Returns whether the application is in debug mode. None: it has no such mode.

    Raises:
        InvalidOption: If more than one of ``token``, ``allow`` and ``open`` is given, or if one has an invalid value.
    """

    def __init__(
        self,
        flusher: Flusher | None,
        call: str,
        *,
        title: str = "metricslib",
        extra: Extra | None = None,
        token: str | None = None,
        allow: Allow | None = None,
        open: bool = False,
        debug: Callable[[], bool] | None = None,
    ) -> None:
        if flusher is None:
            self.view = View(ensure_flusher, title=title, extra=extra)
        else:
            self.view = View.of(flusher, title=title, extra=extra)
        self._access = access(call, token=token, allow=allow, open=open, clock=self.view.clock, debug=debug)

    def answer(self, request: Request) -> Answer:
        """Answer a request; never raises."""
        refused = None
        if not request.path.removeprefix("/").startswith(render.ASSETS):
            refused = self._access.answer(request)
        return refused or self.view.answer(
            request.method,
            request.query,
            request.path,
            mount=request.mount,
            encodings=request.headers.get("accept-encoding", ""),
            accept=request.headers.get("accept", ""),
            log_out=self._access.has_log_out,
            form=request.body,
        )


def access(
    call: str,
    *,
    token: str | None,
    allow: Allow | None,
    open: bool,
    clock: Clock,
    debug: Callable[[], bool] | None = None,
) -> Access:
    """Return the access for which a program has decided; the arguments are those of a page.

    Raises:
        InvalidOption: If more than one of the three is given, or if one has an invalid value.
    """
    if not isinstance(open, bool):
        raise InvalidOption("open", open, "must be True or False")
    given = [name for name, there in (("token", token), ("allow", allow), ("open", open or None)) if there is not None]
    if len(given) > 1:
        raise InvalidOption(given[1], "…", f"cannot be given together with {given[0]}")
    if token is not None:
        return _Token(token, clock)
    if allow is not None:
        if not callable(allow) or inspect.iscoroutinefunction(allow):
            raise InvalidOption("allow", allow, "must be a function of a request that returns True or False, not async")
        return _Allowed(allow)
    return _Open() if open else _Undecided(call, debug)


class _Open:
    """Everybody may read the page."""

    has_log_out = False

    def answer(self, request: Request) -> Answer | None:
        return None


class _Allowed:
    """A function of the program decides. What it raises is logged, and refused."""

    has_log_out = False

    def __init__(self, allow: Allow) -> None:
        self._allow = allow

    def answer(self, request: Request) -> Answer | None:
        try:
            allowed = self._allow(request)
        except Exception:
            log.exception("the function for allow= failed; the metrics page is refused")
            return simple(500, "Whether you may read this page could not be decided; the program's log says why.")
        # A coroutine is true, and has decided nothing.
        if allowed and not inspect.isawaitable(allowed):
            return None
        return _refusal(request, 403, "You may not read this page.")


class _Undecided:
    """Closed; but in debug mode open to this machine, where no proxy is in between."""

    has_log_out = False

    def __init__(self, call: str, debug: Callable[[], bool] | None) -> None:
        self._debug = debug
        self._ways = [(f"{call}({argument})", meaning) for argument, meaning in _WAYS.items()]

    def answer(self, request: Request) -> Answer | None:
        if self._debug and self._debug() and _is_here(request):
            return None
        text = "This page is closed, because the program has not decided who may read it."
        if self._debug:
            text += " Without a decision it is open only in debug mode, to this machine, and not through a proxy."
        return _refusal(request, 403, text, self._ways)


_WAYS = {
    'token=os.environ["METRICS_TOKEN"]': "for those who know the token: they log in, or send Authorization: Bearer",
    "allow=may_read": "for requests for which may_read(request) returns True",
    "open=True": "for everybody",
}


def _is_here(request: Request) -> bool:
    """Return True if the client is a program of this machine that asks for this machine by name or address."""
    try:
        here = is_loopback(request.address)
    except ValueError:  # a Unix socket, behind which there is a proxy
        return False
    host = request.headers.get("host", "")
    return here and is_known(host, ()) and not any(name.startswith(_FORWARDING) for name in request.headers)


class _Token:
    """Those who know a token."""

    has_log_out = True

    def __init__(self, token: str, clock: Clock) -> None:
        if not isinstance(token, str) or len(token) < _SHORTEST or not (token.isascii() and token.isprintable()):
            advice = "python -c 'import secrets; print(secrets.token_urlsafe())' prints one"
            raise InvalidOption("token", "…", f"must have at least {_SHORTEST} printable ASCII characters; {advice}")
        self._digest = hashlib.sha256(token.encode()).digest()
        self._key = hmac.digest(token.encode(), b"metricslib: key of sessions", "sha256")
        self._cookie = f"metricslib_{self._signed('name')[:8]}"
        self._clock = clock
        self._failures = [(0, 0)] * _SLOTS

    def answer(self, request: Request) -> Answer | None:
        here = request.path.removeprefix("/")
        if here == LOGIN and request.method == "POST":
            return self._log_in(request)
        if here == LOGOUT:
            return self._log_out(request)
        if request.method not in METHODS and not has_body(request.method, request.path):
            return None  # refused in any case
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self._is_limited(request):
                return _limited(request)
            if not self._is_token(given.strip(), request):
                return _refusal(request, 401, _WRONG, headers=_CHALLENGE)
        elif not self._has_session(request):
            then = "" if here == LOGIN else f"{request.path}?{request.query}"
            return _refusal(request, 401, "Log in to read this page.", log_in=True, then=then, headers=_CHALLENGE)
        if here == LOGIN:
            return _see_other("./")
        return None

    def _log_in(self, request: Request) -> Answer:
        if self._is_limited(request):
            return _limited(request)
        if _is_from_elsewhere(request):
            return _refusal(request, 403, "Another site has sent this form.")
        try:
            fields = parse_qs(request.body.decode("latin-1"), max_num_fields=5)
        except ValueError:
            fields = {}
        if not self._is_token(fields.get("token", [""])[0].strip(), request):
            then = fields.get("next", [""])[0]
            return _refusal(request, 401, _WRONG, log_in=True, then=then, headers=_CHALLENGE)
        ends = f"{int(self._clock.time()) + _SESSION}"
        return _see_other(
            _below(fields.get("next", [""])[0]), self._set_cookie(request, f"{ends}.{self._signed(ends)}", _SESSION)
        )

    def _log_out(self, request: Request) -> Answer:
        if request.method != "POST":
            return simple(405, "Logging out takes a POST.", ("Allow", "POST"))
        if _is_from_elsewhere(request):
            return _refusal(request, 403, "Another site has sent this form.")
        return _see_other("./", self._set_cookie(request, "", 0))

    def _set_cookie(self, request: Request, value: str, age: int) -> tuple[str, str]:
        secure = "; Secure" if _is_secure(request) else ""
        return ("Set-Cookie", f"{self._cookie}={value}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")

    def _signed(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()

    def _has_session(self, request: Request) -> bool:
        for each in request.headers.get("cookie", "").split(";"):
            name, _, value = each.strip().partition("=")
            ends, _, signature = value.partition(".")
            if name != self._cookie or not (ends.isascii() and ends.isdigit() and signature.isascii()):
                continue
            if hmac.compare_digest(signature, self._signed(ends)) and int(ends) > self._clock.time():
                return True
        return False

    def _is_token(self, given: str, request: Request) -> bool:
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        if hmac.compare_digest(digest, self._digest):
            return True
        minute, slot = self._minute(), hash(request.address) % _SLOTS
        last, failures = self._failures[slot]
        self._failures[slot] = minute, failures + 1 if last == minute else 1
        return False

    def _is_limited(self, request: Request) -> bool:
        return self._failures[hash(request.address) % _SLOTS] >= (self._minute(), _FAILURES)

    def _minute(self) -> int:
        return int(self._clock.monotonic() // 60) + 1


_WRONG = "This is not the token."
_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="metrics"'),)


def _is_secure(request: Request) -> bool:
    """Return True if the browser uses https, as far as the server or a proxy tells."""
    forwarded = request.headers.get("forwarded", "").lower().replace('"', "")
    proxied = request.headers.get("x-forwarded-proto", "").lower().partition(",")[0].strip()
    return "https" in (request.scheme, proxied) or "proto=https" in forwarded


def _is_from_elsewhere(request: Request) -> bool:
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _below(path: str) -> str:
    """Return the URL of a path of the page, relative to that of the form: it never leads to another site."""
    path, mark, query = path.removeprefix("/").partition("?")
    if ".." in path.split("/"):
        return "./"
    return f"./{quote(path)}{mark}{quote(query, safe='/?&=%+:;,*!()~')}"


def _see_other(url: str, *headers: tuple[str, str]) -> Answer:
    return simple(303, "See there.", ("Location", url), *headers)


def _limited(request: Request) -> Answer:
    text = "Too many wrong tokens came from your address. Try again in a minute."
    return _refusal(request, 429, text, headers=(("Retry-After", "60"),))


def _refusal(
    request: Request,
    status: int,
    text: str,
    ways: Sequence[tuple[str, str]] = (),
    *,
    log_in: bool = False,
    then: str = "",
    headers: Sequence[tuple[str, str]] = (),
) -> Answer:
    """Return a page for browsers, JSON for programs that ask for it, and a text for others."""
    format = wanted(request.query, request.headers.get("accept", ""))
    if format == "json":
        told: dict[str, Any] = {"error": text}
        if ways:
            told["decide"] = [line for line, _ in ways]
        return simple(status, json.dumps(told), *headers, content_type="application/json")
    if format == "html":
        try:
            root = root_of(request.path, request.mount)
            action = LOGIN if log_in else ""
            page = render.closed_page(root, text, ways, log_in=action, then=then, wrong=text is _WRONG)
            return simple(status, page, *headers, content_type="text/html; charset=utf-8")
        except ImportError:
            pass  # no templates without Jinja2
    if log_in:
        text += " A program sends the token in the header Authorization: Bearer."
    lines = [text, *(f"\n    {line}\n        {meaning}" for line, meaning in ways)]
    return simple(status, "\n".join(lines), *headers)
