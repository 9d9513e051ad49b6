"""Who may read the page: nobody, until the program has decided."""

import io
import json
import logging
import re
import sys
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin
from wsgiref.util import setup_testing_defaults

import flask
import pytest

from metricslib import view
from metricslib.errors import InvalidOption
from metricslib.view import render
from metricslib.view.access import Page
from metricslib.view.request import Request, from_environ

TOKEN = "correct-horse-battery"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
STYLE = f"/{render.ASSETS}style"


@pytest.fixture
def page(flusher):
    """Call with the decision; returns a function that asks: path, query, and the parts of a request."""

    def page(**decision):
        page = Page(flusher, "metrics.view.wsgi", **decision)

        def ask(path="/", query="", method="GET", **parts):
            return page.answer(Request(method, path, query, "/metrics", **parts))

        return ask

    return page


@pytest.fixture
def locked(page):
    return page(token=TOKEN)


def log_in(ask, token=TOKEN, then="", **parts):
    form = urlencode({"token": token, "next": then}).encode()
    return ask("/login", method="POST", body=form, **parts)


def cookie_of(answer):
    (found,) = SimpleCookie(dict(answer.headers)["Set-Cookie"]).values()
    return found


# -- undecided


@pytest.mark.parametrize("path", ["", "/", "/health", "/top", "/series/hits", "/login", "/logout", "/elsewhere"])
def test_undecided_is_closed(page, registry, path):
    """Every path, for everybody; a name of a metric stands nowhere."""
    registry.counter("hits").inc()
    for method in ("GET", "HEAD", "POST"):
        answer = page()(path, method=method, headers=BROWSER, address="127.0.0.1")
        assert answer.status == 403
        assert b">hits<" not in answer.body


def test_a_refusal_says_how_to_decide(page):
    """For a browser as a page, for programs as JSON or text: the lines to write, with the call that was used."""
    ask = page()
    lines = [
        'metrics.view.wsgi(token=os.environ["METRICS_TOKEN"])',
        "metrics.view.wsgi(allow=may_read)",
        "metrics.view.wsgi(open=True)",
    ]
    told = "the program has not decided who may read it"
    html = ask(headers=BROWSER)
    assert dict(html.headers)["Content-Type"] == "text/html; charset=utf-8"
    for line in (told, *lines):
        assert line.replace('"', "&#34;") in html.body.decode()
    found = json.loads(ask(query="format=json").body)
    assert (told in found["error"], found["decide"]) == (True, lines)
    assert json.loads(ask(headers={"accept": "application/json"}).body)["decide"] == lines
    for text in (ask(), ask(query="format=prometheus"), ask(headers={"accept": "*/*"})):
        assert dict(text.headers)["Content-Type"] == "text/plain; charset=utf-8"
        assert [line for line in (told, *lines) if line not in text.body.decode()] == []


def test_a_refusal_needs_no_jinja(page, monkeypatch):
    """It is a text then."""
    render.environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    answer = page()(headers=BROWSER)
    assert answer.status == 403
    assert b"open=True" in answer.body


def test_the_style_of_a_refusal_is_not_refused(page):
    ask = page()
    text = ask("/series/hits", headers=BROWSER).body.decode()
    (style,) = re.findall('<link rel="stylesheet" href="(.*?)">', text)
    assert style.startswith("../assets/style.")
    assert ask(f"/{style.removeprefix('../')}").status == 200
    assert ask("/assets/../health").status in (403, 404)


# -- debug mode


@pytest.mark.parametrize(
    ("debug", "address", "headers", "status"),
    [
        (True, "127.0.0.1", {}, 200),
        (True, "::1", {"Host": "[::1]:5000"}, 200),
        (True, "::ffff:127.0.0.1", {"Host": "localhost:5000"}, 200),
        (True, "127.8.9.1", {"Host": "127.0.0.1"}, 200),
        (False, "127.0.0.1", {}, 403),
        (True, "192.0.2.1", {}, 403),
        (True, "0.0.0.0", {}, 403),
        (True, "", {}, 403),
        (True, "unix:", {}, 403),
        (True, "127.0.0.1", {"Host": "evil.example"}, 403),
        (True, "127.0.0.1", {"Host": "127.0.0.1.evil.example"}, 403),
        *(
            (True, "127.0.0.1", {name: "1"}, 403)
            for name in (
                *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"),
                *("CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Envoy-External-Address", "X-Original-URL"),
            )
        ),
    ],
)
def test_in_debug_mode_it_is_open_to_this_machine(flusher, debug, address, headers, status):
    """And to nobody else: neither through a proxy, nor under a host name that only resolves to this machine."""
    app = flask.Flask("shop")
    app.debug = debug
    app.register_blueprint(view.blueprint(flusher), url_prefix="/metrics")
    client = app.test_client()
    answer = client.get("/metrics/health", headers=headers, environ_base={"REMOTE_ADDR": address})
    assert answer.status_code == status
    assert status == 200 or "only in debug mode, to this machine" in answer.text


def test_debug_mode_decides_nothing_where_there_is_a_token(flusher):
    app = flask.Flask("shop")
    app.debug = True
    app.register_blueprint(view.blueprint(flusher, token=TOKEN), url_prefix="/metrics")
    assert app.test_client().get("/metrics/").status_code == 401


# -- decisions


def test_open_is_open(page):
    ask = page(open=True)
    assert ask(headers={"x-forwarded-for": "192.0.2.1"}, address="192.0.2.1").status == 200
    assert ask("/login").status == 404
    assert b"Log out" not in ask().body


def test_a_function_decides(page, caplog):
    """By all that a request has. What is true decides; what it raises is logged, and closes."""
    ask = page(allow=lambda request: request.headers["x-team"] == "ops")
    assert ask(headers={"x-team": "ops"}).status == 200
    refused = ask(headers={"x-team": "sales", **BROWSER})
    assert (refused.status, b"open=True" in refused.body) == (403, False)
    failed = ask()
    assert (failed.status, b"KeyError" in failed.body) == (500, False)
    assert "KeyError: 'x-team'" in caplog.text
    for nothing in (None, 0, ""):
        assert page(allow=lambda _, nothing=nothing: nothing)().status == 403


def test_a_coroutine_decides_nothing(page):
    """A coroutine is true: a function that returns one is refused, at once where that can be seen."""

    async def allow(_):
        return False

    with pytest.raises(InvalidOption, match="not async"):
        page(allow=allow)
    made = []
    assert page(allow=lambda request: made.append(allow(request)) or made[-1])().status == 403
    made[0].close()


def test_in_flask_the_function_has_the_request_of_flask(flusher):
    app = flask.Flask("shop")
    app.secret_key = "x"
    page = view.blueprint(flusher, allow=lambda _: flask.session.get("admin", False))
    app.register_blueprint(page, url_prefix="/metrics")
    client = app.test_client()
    assert client.get("/metrics/").status_code == 403
    with client.session_transaction() as session:
        session["admin"] = True
    assert client.get("/metrics/").status_code == 200


@pytest.mark.parametrize(
    ("decision", "named"),
    [
        ({"token": ""}, "token"),
        ({"token": "short"}, "token"),
        ({"token": "ünicode-ünicode-ünicode"}, "token"),
        ({"token": "line\nline\nline\nline"}, "token"),
        ({"token": b"correct-horse-battery"}, "token"),
        ({"allow": True}, "allow"),
        ({"open": "yes"}, "open"),
        ({"open": None}, "open"),
        ({"token": TOKEN, "open": True}, "open"),
        ({"token": TOKEN, "allow": bool}, "allow"),
    ],
)
def test_a_decision_that_is_none_is_refused_at_once(flusher, decision, named):
    """By every way in, and without the token in the message."""
    for call in (view.blueprint, view.wsgi, view.asgi):
        with pytest.raises(InvalidOption) as caught:
            call(flusher, **decision)
        assert caught.value.option == named
        for text in ("short", "battery", "line\\n"):
            assert text not in str(caught.value)


def test_a_token_from_an_environment_that_has_none_leaves_it_closed(page):
    """``os.environ.get("METRICS_TOKEN")`` is None then."""
    assert page(token=None)().status == 403


# -- the token


def test_a_program_sends_the_token(locked):
    """In a header; it needs no cookie, and gets none."""
    for scheme in ("Bearer", "bearer"):
        answer = locked(query="format=json", headers={"authorization": f"{scheme} {TOKEN}"})
        assert (answer.status, "Set-Cookie" in dict(answer.headers)) == (200, False)
    for wrong in (f"Bearer {TOKEN}x", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Token {TOKEN}"):
        answer = locked(query="format=json", headers={"authorization": wrong})
        assert answer.status == 401
        assert dict(answer.headers)["WWW-Authenticate"] == 'Bearer realm="metrics"'
        assert "error" in json.loads(answer.body)


def test_a_token_in_the_address_is_not_looked_at(locked):
    assert locked(query=f"token={TOKEN}").status == 401


def test_a_browser_logs_in(locked, registry):
    """It is asked where it wanted to go, and goes on there, with a cookie that is not the token."""
    registry.counter("hits").inc()
    asked = locked("/series/hits", "range=5m", headers=BROWSER)
    text = asked.body.decode()
    assert asked.status == 401
    assert ">hits<" not in text
    (action,) = re.findall('<form method="post" action="(.*?)">', text)
    assert urljoin("/metrics/series/hits", action) == "/metrics/login"
    (then,) = re.findall('name="next" value="(.*?)"', text)
    answer = log_in(locked, then=then)
    assert (answer.status, dict(answer.headers)["Location"]) == (303, "./series/hits?range=5m")
    cookie = cookie_of(answer)
    assert TOKEN not in cookie.value
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"], cookie["path"]) == (True, "Strict", "", "")
    for name, there in (("/", True), ("/login", True), ("/nothing", False)):
        headers = {"cookie": f"a=b; {cookie.key}={cookie.value}; c", **BROWSER}
        assert locked(name, headers=headers).status == {"/login": 303}.get(name, 200 if there else 404)
    assert b"Log out" in locked(headers={"cookie": f"{cookie.key}={cookie.value}"}).body


def test_a_browser_logs_out(locked):
    """The cookie is removed; only a form does that, and not one of another site."""
    answer = locked("/logout", method="POST")
    cookie = cookie_of(answer)
    assert (answer.status, cookie.value, cookie["max-age"]) == (303, "", "0")
    assert cookie.key == cookie_of(log_in(locked)).key
    assert locked("/logout").status == 405
    for form in ("/login", "/logout"):
        for site in ("cross-site", "same-site"):
            assert locked(form, method="POST", headers={"sec-fetch-site": site}).status == 403


def test_the_cookie_is_secure_where_the_browser_uses_https(locked):
    """As the server knows, or as a proxy tells."""
    for parts in (
        {"scheme": "https"},
        {"headers": {"x-forwarded-proto": "https"}},
        {"headers": {"forwarded": 'for=192.0.2.1;proto="HTTPS"'}},
    ):
        assert cookie_of(log_in(locked, **parts))["secure"] is True


def test_a_session_ends(locked, page, clock):
    """After 30 days, with another token, and if anything of it is changed; other workers know it."""
    cookie = cookie_of(log_in(locked))

    def status(ask=locked, value=cookie.value, name=cookie.key):
        return ask(headers={"cookie": f"{name}={value}"}).status

    assert (status(), status(page(token=TOKEN))) == (200, 200)
    assert status(page(token=f"{TOKEN}2")) == 401
    ends, _, signature = cookie.value.partition(".")
    later = f"{int(ends) + 1}.{signature}"
    for value in (
        later,
        ends,
        f"{ends}.",
        f".{signature}",
        f"{ends}.{signature[:-1]}",
        "",
        "9" * 5000 + ".x",
        "²." + signature,
    ):
        assert status(value=value) == 401
    assert status(name="metricslib") == 401
    clock.advance(30 * 86_400 - 1)
    assert status() == 200
    clock.advance(1)
    assert status() == 401


@pytest.mark.parametrize(
    ("then", "location"),
    [
        ("", "./"),
        ("/", "./"),
        ("/health", "./health"),
        ("/series/a/b?range=1d&by=%3Cx%3E", "./series/a/b?range=1d&by=%3Cx%3E"),
        ("/series/ü<>", "./series/%C3%BC%3C%3E"),
        ("//evil.example", ".//evil.example"),
        ("https://evil.example", "./https%3A//evil.example"),
        ("/../../admin", "./"),
        ("/x\r\nSet-Cookie: a=b", "./x%0D%0ASet-Cookie%3A%20a%3Db"),
        ("/?x\r\nSet-Cookie: a=b", "./?x%0D%0ASet-Cookie:%20a=b"),
        ("\\\\evil.example", "./%5C%5Cevil.example"),
    ],
)
def test_a_log_in_leads_nowhere_else(locked, then, location):
    """Whatever the form says: a path of the page."""
    answer = log_in(locked, then=then)
    assert dict(answer.headers)["Location"] == location
    assert urljoin("http://shop.example/metrics/login", location).startswith("http://shop.example/metrics/")


@pytest.mark.parametrize(
    "body", [b"", b"token=", b"token", b"\xff\x00=&&&", b"a=b&" * 100, b"token=%FF%FE", b"x" * 65536]
)
def test_a_form_that_is_none_is_a_wrong_token(locked, body):
    answer = locked("/login", method="POST", body=body, headers=BROWSER)
    assert answer.status == 401
    assert b"This is not the token" in answer.body


def test_what_was_wrong_is_not_shown(locked):
    """Somebody may have typed another password."""
    assert b"my-bank-password" not in log_in(locked, "my-bank-password", headers=BROWSER).body


def test_wrong_tokens_are_limited(locked, clock):
    """Ten a minute from one address, in forms and headers alike; then no token of it is looked at. Sessions go on."""
    cookie = cookie_of(log_in(locked, address="192.0.2.1"))
    for number in range(10):
        wrong = {"authorization": "Bearer wrong"}
        answer = locked(headers=wrong, address="192.0.2.1") if number % 2 else log_in(locked, "x", address="192.0.2.1")
        assert answer.status == 401
    for answer in (
        log_in(locked, address="192.0.2.1"),
        locked(headers={"authorization": f"Bearer {TOKEN}"}, address="192.0.2.1"),
    ):
        assert (answer.status, dict(answer.headers)["Retry-After"]) == (429, "60")
    assert locked(headers={"cookie": f"{cookie.key}={cookie.value}"}, address="192.0.2.1").status == 200
    free = next(f"192.0.2.{n}" for n in range(2, 9) if hash(f"192.0.2.{n}") % 1024 != hash("192.0.2.1") % 1024)
    assert log_in(locked, address=free).status == 303
    clock.advance(60)
    assert log_in(locked, address="192.0.2.1").status == 303


def test_the_token_is_in_no_log(locked, caplog):
    """Neither the right one nor a wrong one."""
    caplog.set_level(logging.DEBUG)
    log_in(locked)
    log_in(locked, "my-bank-password")
    locked(headers={"authorization": f"Bearer {TOKEN}"})
    assert TOKEN not in caplog.text
    assert "my-bank" not in caplog.text
    assert TOKEN not in repr(Request("POST", "/login", body=f"token={TOKEN}".encode()))


# -- the request


@pytest.mark.parametrize(
    ("length", "read"), [("3", b"abc"), ("", b""), ("x", b""), ("-1", b""), ("²", b""), ("9" * 20, b"abcdef")]
)
def test_a_body_is_read_within_bounds(length, read):
    environ = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"abcdef")}
    setup_testing_defaults(environ)
    assert from_environ(environ, "/", "").body == b""
    assert from_environ(environ, "/login", "").body == read
    assert from_environ({**environ, "REQUEST_METHOD": "GET"}, "/login", "").body == b""
