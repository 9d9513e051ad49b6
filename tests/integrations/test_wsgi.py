"""WSGI applications: what of a request is measured, and that nothing else of it changes."""

import io
from wsgiref.util import FileWrapper

import pytest

from metricslib.errors import InvalidType
from metricslib.integrations import wsgi

ENVIRON = {"REQUEST_METHOD": "GET", "PATH_INFO": "/users/7"}
DURATION = "http.server.request.duration"


class Answer:
    """A response of two pieces, which takes a second each."""

    def __init__(self, clock, fails=False):
        self.clock, self.fails, self.closed = clock, fails, False

    def __iter__(self):
        self.clock.advance(1)
        yield b"a"
        if self.fails:
            raise KeyError("x")
        self.clock.advance(1)
        yield b"b"

    def close(self):
        self.closed = True


def serve(application, environ=ENVIRON):
    """Answer one request as a server does, and return the body, or what was raised."""
    body = application(dict(environ), lambda status, headers, error=None: lambda data: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def test_a_request_lasts_until_its_body_is_sent(registry, clock, tick):
    """The body's own close() is called, once."""
    answer = Answer(clock)

    def application(environ, start_response):
        clock.advance(1)
        start_response("201 Created", [])
        return answer

    assert serve(wsgi.instrument(application, instruments=registry)) == b"ab"
    assert answer.closed
    (timer,) = [
        t for key, t in tick().cumulative.timers.items() if key == f"{DURATION};method=GET;route=any;status=2xx"
    ]
    assert (timer.count, timer.sum) == (1, 3000)


def test_a_list_and_a_wrapped_file_pass_unchanged(registry, measured):
    """A server knows a list's length, and sends its own wrapper's file by the kernel."""
    for body in ([b"a"], (b"a",), FileWrapper(io.BytesIO(b"a"))):

        def application(environ, start_response, body=body):
            start_response("200 OK", [])
            return body

        application = wsgi.instrument(application, instruments=registry)
        assert application({**ENVIRON, "wsgi.file_wrapper": FileWrapper}, lambda *_: None) is body
    assert measured()[f"{DURATION};method=GET;route=any;status=2xx"] == 3


@pytest.mark.parametrize("when", ["call", "body"])
def test_an_exception_is_counted_and_goes_on(registry, clock, measured, when):
    """Whether the application raises when it is called, or later in its body."""

    def application(environ, start_response):
        if when == "call":
            raise KeyError("x")
        start_response("200 OK", [])
        return Answer(clock, fails=True)

    with pytest.raises(KeyError):
        serve(wsgi.instrument(application, route=lambda _: "/users/<id>", instruments=registry))
    assert measured() == {
        f"{DURATION};method=GET;route=-users-id;status=5xx": 1,
        "http.server.exceptions;exception=KeyError;route=-users-id": 1,
        "http.server.active_requests": 0,
    }


def test_requests_in_progress_are_shown(registry, clock, tick):
    """From the call until the server closes the body."""

    def application(environ, start_response):
        start_response("200 OK", [])
        return Answer(clock)

    application = wsgi.instrument(application, instruments=registry)
    bodies = [application(dict(ENVIRON), lambda *_: None) for _ in range(3)]
    assert tick().cumulative.gauges["http.server.active_requests"] == 3
    bodies[0].close()
    bodies[0].close()
    assert tick().cumulative.gauges["http.server.active_requests"] == 2


def test_values_of_tags_are_few(registry, measured):
    """Whatever a client sends as a method, and an application as a status."""

    def application(environ, start_response):
        start_response(environ["status"], [])
        return []

    application = wsgi.instrument(application, route=lambda _: 1 / 0, instruments=registry)
    for method, status in (("GET", "204 x"), ("HACK", "999 x"), ("X" * 9999, "nonsense"), ("PUT", "302")):
        serve(application, {"REQUEST_METHOD": method, "status": status})
    counts = {key.removeprefix(f"{DURATION};"): value for key, value in measured().items() if DURATION in key}
    assert counts == {
        "method=GET;route=error;status=2xx": 1,
        "method=_OTHER;route=error;status=error": 2,
        "method=PUT;route=error;status=3xx": 1,
    }


def test_a_scope_is_a_place_to_measure_into(registry, measured):
    """And what is none is named at set-up."""
    application = wsgi.instrument(lambda environ, start: [], instruments=registry.scope("shop", tags={"tier": "gold"}))
    serve(application)
    assert measured()[f"shop.{DURATION};method=GET;route=any;status=error;tier=gold"] == 1
    with pytest.raises(InvalidType, match="instruments"):
        wsgi.instrument(application, instruments="shop")
