"""An application for preforking servers, started as the documentation says; it counts requests, before and after.

``TO`` is the destination; the names are ``requests.count`` and so on, behind the prefix ``shop``.
"""

import os

import metricslib as metrics

flusher = metrics.start(os.environ["TO"], prefix="shop", interval=2)
page = metrics.view.wsgi(flusher, open=True)
metrics.counter("loaded").inc()
requests = metrics.counter("requests")
took = metrics.timer("took")
running = metrics.in_progress("running")


def application(environ, start_response):
    """Count a request, or show what all workers counted, at ``/metrics`` with the worker in a header."""
    if environ["PATH_INFO"].startswith("/metrics"):
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/metrics")

        def start(status, headers):
            return start_response(status, [*headers, ("Worker", str(os.getpid()))])

        return page(environ, start)
    with took.time():
        requests.inc()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
