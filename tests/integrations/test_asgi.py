"""ASGI applications: Starlette's and FastAPI's by Starlette's client, and bare ones."""

import asyncio
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from metricslib.integrations import asgi

DURATION = "http.server.request.duration"


def get(app: Any, *paths: str) -> list[int]:
    with TestClient(app, raise_server_exceptions=False) as client:
        return [client.get(path).status_code for path in paths]


def durations(measured: Any) -> dict[str, float]:
    return {key.removeprefix(f"{DURATION};"): n for key, n in measured().items() if key.startswith(DURATION)}


def test_fastapi_routes(registry, measured, tmp_path):
    """Templates of included routers and of mounted applications are whole; what nothing matches is one series."""
    (tmp_path / "a.css").write_text("x")
    router, inner = APIRouter(prefix="/items"), FastAPI()

    @router.get("/{number}")
    def item(number: int):
        return 1 / number

    @inner.get("/x/{path:path}")
    def x(path: str):
        return path

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.mount("/sub/{tenant}", inner)
    app.mount("/static", StaticFiles(directory=tmp_path))
    assert asgi.instrument(app, instruments=registry) is app
    asgi.instrument(app, instruments=registry)
    paths = ("/v1/items/3", "/v1/items/4", "/v1/items/no", "/v1/items/0", "/sub/a/x/1/2", "/static/a.css", "/nope/3")
    assert get(app, *paths) == [200, 200, 422, 500, 200, 200, 404]
    counts = measured()
    assert counts["http.server.exceptions;exception=ZeroDivisionError;route=-v1-items-number"] == 1
    assert counts["http.server.active_requests"] == 0
    assert {key.removeprefix(f"{DURATION};method=GET;"): n for key, n in counts.items() if DURATION in key} == {
        "route=-v1-items-number;status=2xx": 2,
        "route=-v1-items-number;status=4xx": 1,
        "route=-v1-items-number;status=5xx": 1,
        "route=-sub-tenant-x-path;status=2xx": 1,
        "route=-static;status=2xx": 1,
        "route=unmatched;status=4xx": 1,
    }


def test_starlette_routes(registry, measured):
    """Those of mounts, too; a method that a route does not have is a request of that route."""

    async def user(request):
        return PlainTextResponse(request.path_params["name"])

    app = Starlette(routes=[Route("/u/{name}", user), Mount("/m", routes=[Route("/u/{name:str}", user)])])
    asgi.instrument(app, instruments=registry)
    assert get(app, "/u/ann", "/m/u/bob") == [200, 200]
    with TestClient(app) as client:
        assert client.post("/u/ann").status_code == 405
    assert durations(measured) == {
        "method=GET;route=-u-name;status=2xx": 1,
        "method=GET;route=-m-u-name;status=2xx": 1,
        "method=POST;route=-u-name;status=4xx": 1,
    }


def test_a_request_lasts_to_the_end_of_its_body_and_not_of_its_background_tasks(registry, clock, tick):
    """A stream counts to its last piece."""
    app = FastAPI()

    @app.get("/stream")
    async def stream(background: BackgroundTasks):
        async def pieces():
            clock.advance(1)
            yield "a"
            clock.advance(1)
            yield "b"

        background.add_task(clock.advance, 100)
        return StreamingResponse(pieces())

    asgi.instrument(app, instruments=registry)
    assert get(app, "/stream") == [200]
    assert clock.monotonic() == 102
    assert tick().cumulative.timers[f"{DURATION};method=GET;route=-stream;status=2xx"].sum == 2000


def test_a_bare_application(registry, measured):
    """It has no routes but those of the function; what is no request passes unchanged."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])
        if scope["type"] == "http":
            if scope["path"] == "/broken":
                raise KeyError("x")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def send(message):
        pass

    measured_app = asgi.instrument(app, route=lambda scope: scope["path"][:4], instruments=registry)
    for scope in ({"type": "lifespan"}, {"type": "http", "path": "/abcdef", "method": "GET"}):
        asyncio.run(measured_app(scope, None, send))
    with pytest.raises(KeyError):
        asyncio.run(measured_app({"type": "http", "path": "/broken", "method": "GET"}, None, send))
    assert seen == ["lifespan", "http", "http"]
    assert durations(measured) == {
        "method=GET;route=-abc;status=2xx": 1,
        "method=GET;route=-bro;status=5xx": 1,
    }


def test_a_request_that_is_cancelled_ends(registry, measured):
    """A client that goes away leaves no request in progress."""

    async def app(scope, receive, send):
        await asyncio.sleep(3600)

    async def main():
        task = asyncio.create_task(
            asgi.instrument(app, instruments=registry)({"type": "http", "path": "/", "method": "GET"}, None, None)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert measured()["http.server.active_requests"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert measured() == {f"{DURATION};method=GET;route=any;status=error": 1, "http.server.active_requests": 0}
