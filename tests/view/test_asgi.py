"""The page as an ASGI application, asked as a server would."""

import asyncio
import json
import threading
from urllib.parse import urlencode

import pytest

from metricslib import view
from metricslib.errors import InvalidOption

TOKEN = "correct-horse-battery"


@pytest.fixture
def ask(flusher):
    """Call with the decision; returns a function that asks and returns status, headers and body."""

    def ask(**decision):
        app = view.asgi(flusher, **{"open": True, **decision} if "token" not in decision else decision)

        def get(path="/", query="", method="GET", headers=(), body=(), **scope):
            return asyncio.run(answered(app, path, query, method, headers, body, **scope))

        return get

    return ask


async def answered(app, path="/", query="", method="GET", headers=(), body=(), **more):
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages = iter([*parts, {"type": "http.request", "body": b"", "more_body": False}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        **more,
    }
    await app(scope, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert [part["type"] for part in rest] == ["http.response.body"] * len(rest)
    assert [part.get("more_body", False) for part in rest] == [True] * (len(rest) - 1) + [False]
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(part["body"] for part in rest)


def test_it_answers_as_every_entry_point(ask, registry):
    """Page, JSON, HEAD, and what is not there."""
    registry.counter("web.hits").inc(3)
    get = ask()
    status, headers, body = get(headers=[("accept", "text/html")])
    assert (status, headers["content-type"], b"web.hits" in body) == (200, "text/html; charset=utf-8", True)
    found = json.loads(get(query="format=json")[2])
    assert found["series"][0]["open"] == {"count": 3}
    status, headers, body = get(method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 500
    assert get("/nothing")[0] == 404
    assert get(method="POST")[0] == 405


@pytest.mark.parametrize(
    ("path", "root_path", "root"),
    [
        ("/", "", "./"),
        ("/metrics/", "/metrics", "./"),
        ("/metrics", "/metrics", "metrics/"),
        ("/shop/metrics/health", "/shop/metrics", "./"),
        ("/health", "/metrics", "./"),
        ("/metrics/series/hits", "/metrics", "../"),
        ("/metrics/series/hits", "/metrics/", "../"),
        ("/series/hits", "/s", "../"),
    ],
)
def test_it_is_mounted_by_old_and_by_new_frameworks(ask, registry, path, root_path, root):
    """Whose path has where it is mounted, or has not."""
    registry.counter("hits").inc()
    status, _, body = ask()(path, root_path=root_path)
    assert status == 200
    assert f'href="{root}assets/style.' in body.decode()


def test_nothing_is_made_on_the_event_loop(ask, registry):
    """Neither the report, nor the text that is generated while it is sent, nor the decision."""
    threads = set()

    def noted(value):
        threads.add(threading.current_thread())
        return value

    for number in range(1_000):
        registry.counter(f"hits{number}").inc()
    get = ask(extra=lambda: {"Here": noted({})}, allow=lambda _: noted(True), open=False)
    status, _, body = get(query="format=json")
    assert (status, len(json.loads(body)["series"])) == (200, 1_000)
    assert {thread.name.rstrip("0123456789") for thread in threads} == {"metricslib-page_"}


def test_the_loop_goes_on_while_a_page_is_made(flusher):
    """The function below waits for what the loop does only later."""
    begun, goes_on = threading.Event(), threading.Event()

    def extra():
        begun.set()
        assert goes_on.wait(60)
        return {}

    async def main():
        asked = asyncio.create_task(answered(view.asgi(flusher, open=True, extra=extra), query="format=json"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        goes_on.set()
        return await asked

    assert asyncio.run(main())[0] == 200


def test_too_many_requests_are_refused(flusher):
    """At once: they do not wait for a thread."""
    goes_on = threading.Event()

    def allow(_):
        return goes_on.wait(60)

    async def main():
        app = view.asgi(flusher, allow=allow)
        asked = [asyncio.create_task(answered(app, query="format=json")) for _ in range(16)]
        await asyncio.sleep(0)
        refused = await answered(app)
        goes_on.set()
        return refused, await asyncio.gather(*asked), await answered(app)

    refused, answers, after = asyncio.run(main())
    assert (refused[0], refused[1]["retry-after"]) == (503, "5")
    assert {status for status, _, _ in answers} == {200}
    assert after[0] == 200


def test_a_log_in_over_several_messages(ask):
    """The form may come in pieces; what is too long is not read to its end."""
    get = ask(token=TOKEN)
    assert get()[0] == 401
    form = urlencode({"token": TOKEN, "next": "/top"}).encode()
    status, headers, _ = get("/login", method="POST", body=[form[:9], form[9:]], scheme="https")
    assert (status, headers["location"]) == (303, "./top")
    assert "; Secure" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    assert get(headers=[("Cookie", "a=b"), ("Cookie", cookie)])[0] == 200
    endless = (b"x" * 60_000 for _ in iter(int, 1))
    assert get("/login", method="POST", body=[next(endless) for _ in range(100)])[0] == 401


def test_a_client_without_an_address(ask):
    """Behind a Unix socket there is none."""
    for client in (None, ("192.0.2.1", 5), (None, None)):
        assert ask()(client=client)[0] == 200


def test_a_reader_that_goes_away_ends_the_generation(flusher, registry):
    """Its error goes to the server; the next request is answered."""
    for number in range(1_000):
        registry.counter(f"hits{number}").inc()
    app = view.asgi(flusher, open=True)

    async def gone(message):
        if message["type"] == "http.response.body":
            raise OSError("gone")

    async def main():
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"format=json", "headers": []}
        with pytest.raises(OSError, match="gone"):
            await app(scope, None, gone)
        return [(await answered(app))[0] for _ in range(20)]

    assert asyncio.run(main()) == [200] * 20


def test_other_protocols(flusher):
    """The start and end of the server are confirmed; a websocket is refused."""
    sent = []

    async def main():
        app = view.asgi(flusher)
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive():
            return {"type": next(messages)}

        async def send(message):
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/"}, receive, send)

    asyncio.run(main())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


def test_unknown_options_and_wrong_ones(flusher):
    with pytest.raises(TypeError, match="asgi\\(\\) has no option 'titel'; did you mean 'title'"):
        view.asgi(flusher, titel="")
    with pytest.raises(InvalidOption):
        view.asgi(flusher, token="short")
