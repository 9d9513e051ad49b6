"""Health on the page's port."""

import json
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from forwarder.console import Health


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the page"]


def ask(health, path="/health", method="GET", accept="*/*"):
    said = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": "", "SCRIPT_NAME": "/mounted"}
    environ["HTTP_ACCEPT"] = accept
    setup_testing_defaults(environ)
    answer = validator(health.beside(page))(environ, lambda status, headers, _=None: said.extend([status, headers]))
    body = b"".join(answer)
    answer.close()
    return said[0], dict(said[1]), body


@pytest.mark.parametrize(("status", "line"), [("up", "200 OK"), ("down", "503 Service Unavailable")])
def test_health_has_a_status_that_load_balancers_understand(status, line):
    """200 while it is up, 503 while it is down, and never from a cache."""
    told, headers, body = ask(Health(status))
    assert told == line
    assert json.loads(body) == {"health": status}
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(body))


def test_head_has_no_body():
    """And the headers that GET would have."""
    told, headers, body = ask(Health(), method="HEAD")
    assert (told, body) == ("200 OK", b"")
    assert headers["Content-Length"] == str(len(ask(Health())[2]))


def test_health_can_only_be_read():
    """Changing it is for the console."""
    told, headers, _ = ask(Health(), method="POST")
    assert (told, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "", "/healthy", "/health/", "/x/health"])
def test_every_other_path_is_the_pages(path):
    """Whatever it makes of it."""
    assert ask(Health("down"), path) == ("200 OK", {"Content-Type": "text/plain"}, b"the page")


def test_a_browser_gets_the_pages_view_of_health():
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    assert ask(Health("down"), accept=accept)[2] == b"the page"
    assert ask(Health("down"), accept="application/json, */*")[0] == "503 Service Unavailable"
