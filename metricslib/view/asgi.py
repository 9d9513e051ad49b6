"""The page as an ASGI application, for any server and without a framework.

Everything that reads the registry or makes a page runs in threads of its own: at most four, and not the threads in
which the application runs its own functions. The event loop only passes on what they return.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Never

from .._process import register_fork_handler
from ..flusher import Flusher
from ..hints import unknown_option
from .access import Allow, Page
from .answer import Answer, Extra, busy
from .request import LONGEST_BODY, Request, has_body

__all__ = ["asgi"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_THREADS = 4
_MOST_REQUESTS = 16
"""Requests in progress; a further one is refused."""


def asgi(
    flusher: Flusher | None = None,
    *,
    token: str | None = None,
    allow: Allow | None = None,
    open: bool = False,
    title: str = "metricslib",
    extra: Extra | None = None,
    **unknown: Never,
) -> Callable[[_Message, _Receive, _Send], Awaitable[None]]:
    """Return an ASGI application with the metrics page at its root.

    Who may read it is decided by ``token``, ``allow`` or ``open``. Without a decision, every request gets status 403.
    Nothing that takes long runs on the event loop.

    Args:
        flusher: The flusher whose registry and destinations are shown. None: the default registry, whose intervals end
            from now on, with or without :func:`metricslib.start`.
        token: Readers must know this token, see :func:`metricslib.view.wsgi`.
        allow: A function that gets each :class:`request <metricslib.view.Request>`, and returns True if it may read the
            page. It is called in a thread, and must not be a coroutine function.
        open: True: everybody may read the page.
        title: The title of the page.
        extra: A function that returns additional sections of the page, see :func:`metricslib.view.wsgi`.

    Raises:
        InvalidOption: If an argument has an invalid value, or if there is more than one decision.
    """
    if unknown:
        raise unknown_option(asgi, unknown)
    page = Page(flusher, "metrics.view.asgi", title=title, extra=extra, token=token, allow=allow, open=open)
    page.view.find()
    return _Application(page)


class _Application:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._threads: ThreadPoolExecutor | None = None
        self._requests = 0
        register_fork_handler(self)

    def reset_after_fork(self) -> None:
        self._threads = None
        self._requests = 0

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        else:  # a websocket
            await send({"type": f"{scope['type']}.close"})

    async def _answer(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        request = _from_scope(scope)
        if has_body(request.method, request.path):
            request = replace(request, body=await _body(receive))
        if self._requests >= _MOST_REQUESTS:
            await _pass_on(busy("Too many requests at a time."), scope["method"], send, _at_once)
            return
        self._requests += 1
        try:
            answer = await self._in_thread(self._page.answer, request)
            await _pass_on(answer, scope["method"], send, self._in_thread)
        finally:
            self._requests -= 1

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "metricslib-page")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


async def _pass_on(answer: Answer, method: str, send: _Send, call: Callable[..., Awaitable[Any]]) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if method != "HEAD":
        parts = iter(answer.parts)
        while (part := await call(next, parts, None)) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _body(receive: _Receive) -> bytes:
    """Return the body of a request, as far as it is read."""
    body = b""
    while len(body) < LONGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:LONGEST_BODY]


def _from_scope(scope: _Message) -> Request:
    """Return the request of an ASGI scope.

    ``path`` includes ``root_path``, but with old servers and frameworks it does not.
    """
    mount, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if path == mount or path.startswith(f"{mount}/"):
        path = path[len(mount) :]
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joint = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{joint}{value}" if name in headers else value
    client = scope.get("client") or ("",)
    query = scope.get("query_string", b"").decode("latin-1")
    scheme = scope.get("scheme", "http")
    return Request(scope["method"], path, query, mount, headers, client[0] or "", scheme, native=scope)
