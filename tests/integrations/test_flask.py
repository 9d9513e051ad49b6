"""Flask applications, by Flask's own client."""

import pytest
from flask import Blueprint, Flask, abort, stream_with_context

from metricslib.integrations import flask

DURATION = "http.server.request.duration"


@pytest.fixture
def app(registry, clock):
    app = Flask("shop")
    users = Blueprint("users", __name__, url_prefix="/users")

    @users.get("/<int:number>")
    def user(number):
        if number == 0:
            raise KeyError("x")
        if number == 404:
            abort(404)
        clock.advance(2)
        return str(number)

    @users.get("/stream")
    def stream():
        def pieces():
            clock.advance(1)
            yield "a"
            clock.advance(1)
            yield "b"

        return app.response_class(stream_with_context(pieces()))

    app.register_blueprint(users)
    flask.instrument(app, instruments=registry)
    flask.instrument(app, instruments=registry)
    return app


def test_requests_are_measured_by_rule_and_status(app, measured):
    """Each once, although it was instrumented twice; 404s of scanners are one series."""
    client = app.test_client()
    for path in ("/users/7", "/users/8", "/users/404", "/users/0", "/nope", "/wp-login.php"):
        client.get(path)
    client.post("/users/7")
    assert measured() == {
        f"{DURATION};method=GET;route=-users-number;status=2xx": 2,
        f"{DURATION};method=GET;route=-users-number;status=4xx": 1,
        f"{DURATION};method=GET;route=-users-number;status=5xx": 1,
        f"{DURATION};method=GET;route=unmatched;status=4xx": 2,
        f"{DURATION};method=POST;route=unmatched;status=4xx": 1,
        "http.server.exceptions;exception=KeyError;route=-users-number": 1,
        "http.server.active_requests": 0,
    }


def test_an_exception_that_goes_through_is_counted_once(app, measured):
    """As in tests and under a debugger."""
    app.testing = True
    with pytest.raises(KeyError):
        app.test_client().get("/users/0")
    counts = measured()
    assert counts["http.server.exceptions;exception=KeyError;route=-users-number"] == 1
    assert counts[f"{DURATION};method=GET;route=-users-number;status=5xx"] == 1


def test_a_stream_lasts_to_its_end(app, tick):
    """What a view streams is part of its request."""
    assert app.test_client().get("/users/stream").text == "ab"
    assert tick().cumulative.timers[f"{DURATION};method=GET;route=-users-stream;status=2xx"].sum == 2000


def test_a_request_that_another_function_answers_has_its_route(registry, measured):
    """Also where that function was registered first."""
    other = Flask("other")
    other.before_request(lambda: "closed")
    other.add_url_rule("/x/<y>", "x", lambda y: y)
    flask.instrument(other, instruments=registry)
    assert other.test_client().get("/x/1").text == "closed"
    assert measured()[f"{DURATION};method=GET;route=-x-y;status=2xx"] == 1
