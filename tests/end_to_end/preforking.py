"""An application for preforking servers, started as the documentation says; it counts requests, before and after.

``TO`` is the destination; the names are ``requests.count`` and so on, behind the prefix ``shop``.
"""

import os

import metricslib as metrics

metrics.start(os.environ["TO"], prefix="shop", interval=2)
metrics.counter("loaded").inc()
requests = metrics.counter("requests")
took = metrics.timer("took")
running = metrics.in_progress("running")


def application(environ, start_response):
    """Count a request."""
    with took.time():
        requests.inc()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
