"""The page as a WSGI application, checked against PEP 3333 by the standard library's own validator."""

import io
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from metricslib.view import wsgi


@pytest.fixture
def get(flusher):
    """Call with a path, query and method; returns status, headers and body."""
    app = validator(wsgi(flusher, open=True, title="forwarder", extra=lambda: {"DropCounter": {"received": 5}}))

    def get(path="/", query="", method="GET", script=""):
        environ = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method, "SCRIPT_NAME": script}
        setup_testing_defaults(environ)
        environ |= {"PATH_INFO": path, "SCRIPT_NAME": script, "wsgi.errors": io.StringIO()}
        started = []
        result = app(environ, lambda status, headers, exc_info=None: started.append((status, headers)))
        body = b"".join(result)
        result.close()
        ((status, headers),) = started
        return status, dict(headers), body

    return get


def test_it_answers_at_its_root(get):
    """The page with title and sections, with or without a slash where it is mounted."""
    for path, script in (("/", ""), ("", "/metrics"), ("/", "/metrics")):
        status, _, body = get(path, script=script)
        assert status == "200 OK"
        assert b"<title>forwarder</title>" in body
        assert b"<h2>DropCounter</h2>" in get("/health", script=script)[2]


def test_head_has_the_headers_and_no_body(get):
    """The length is that of the page."""
    _, headers, body = get()
    status, head, nothing = get(method="HEAD")
    assert (status, nothing) == ("200 OK", b"")
    assert {**head, "Content-Length": ""} == {**headers, "Content-Length": ""}
    assert abs(int(head["Content-Length"]) - len(body)) < 10


def test_elsewhere_is_nothing(get):
    """Any other path is 404, in plain text."""
    status, headers, body = get("/favicon.ico")
    assert status == "404 Not Found"
    assert headers["Content-Type"].startswith("text/plain")
    assert body
    assert get("/x", method="HEAD")[2] == b""


def test_other_methods_and_formats_are_refused(get):
    """With their proper status lines."""
    assert get(method="POST")[0] == "405 Method Not Allowed"
    assert get(query="format=xml")[0] == "400 Bad Request"
