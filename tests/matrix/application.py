"""An application for every server of the matrix, started as the documentation says; it counts the requests.

The environment has the destination, the prefix and the interval: ``METRICSLIB_TO`` and so on.
"""

import os

import metricslib as metrics

metrics.start()
requests = metrics.counter("requests")
took = metrics.timer("took")


def answer() -> bytes:
    """Count a request, and name the process that did."""
    with took.time():
        requests.inc()
        return str(os.getpid()).encode()


def application(environ, start_response):
    """A WSGI application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer()]


async def asgi(scope, receive, send):
    """An ASGI application."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": answer()})
