"""A request answered: status, headers and body, whatever door it came through."""

import json
import logging

import pytest

from metricslib.view.answer import View


@pytest.fixture
def view(flusher):
    return View.of(flusher, title="shop")


def test_a_page_says_how_it_may_be_treated(view, registry):
    """HTML that loads nothing, is not guessed at, not framed and not kept."""
    registry.counter("hits").inc()
    answer = view.answer("GET", "")
    headers = dict(answer.headers)
    assert answer.status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert int(headers["Content-Length"]) == len(answer.body)
    assert b"<h1>shop</h1>" in answer.body


def test_json_is_asked_for_by_format(view, registry):
    """The same report, filtered the same way."""
    registry.counter("web.hits").inc(3)
    registry.counter("db.hits").inc()
    answer = view.answer("GET", "format=json&match=web.*")
    assert dict(answer.headers)["Content-Type"] == "application/json"
    found = json.loads(answer.body)
    assert [(row["key"], row["open"]) for row in found["series"]] == [("web.hits", {"count": 3})]
    assert found["count"] == {"total": 2, "matched": 1, "shown": 1}


def test_time_is_the_registry_s_clock(view, registry, clock, end_interval):
    """Uptime counts from when the page was set up; the open interval ends at the next multiple of the interval."""
    end_interval()
    clock.advance(4)
    found = json.loads(view.answer("GET", "format=json").body)
    assert found["uptime"] == 14
    assert found["open"] == {"start": clock.time() - 4, "end": clock.time() + 6}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", ""])
def test_the_page_is_only_read(view, method):
    """Any other method is refused, with those that are not."""
    answer = view.answer(method, "")
    assert answer.status == 405
    assert dict(answer.headers)["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("query", ["format=xml", "refresh=x", "limit=0"])
def test_a_wrong_query_is_told_in_plain_text(view, query):
    """Status 400 and a sentence with the parameter's name; what was sent is no markup."""
    answer = view.answer("GET", query)
    assert answer.status == 400
    assert dict(answer.headers)["Content-Type"].startswith("text/plain")
    assert answer.body.decode().startswith(query.partition("=")[0])


def test_an_unknown_format_names_the_known_ones(view):
    """So that the next try succeeds."""
    assert b"must be one of html, json" in view.answer("GET", "format=%3Cb%3E").body


def test_what_goes_wrong_is_logged_and_not_shown(flusher, caplog):
    """Status 500 without the error's text, which may be secret; the log has it."""

    def extra():
        raise RuntimeError("password=hunter2")

    with caplog.at_level(logging.ERROR, "metricslib"):
        answer = View.of(flusher, extra=extra).answer("GET", "")
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert "hunter2" in caplog.text


def test_extra_sections_are_asked_for_at_each_request(flusher):
    """A program that has more to say says what is true now."""
    counts = iter(range(10))
    view = View.of(flusher, extra=lambda: {"Account": {"received": next(counts)}})
    told = [json.loads(view.answer("GET", "format=json").body)["sections"] for _ in range(2)]
    assert told == [{"Account": {"received": 0}}, {"Account": {"received": 1}}]


def test_a_surrogate_in_an_error_does_not_break_the_bytes(flusher):
    """Text that no encoding holds is replaced."""
    view = View.of(flusher, extra=lambda: {"Last error": {"text": "\ud800"}})
    assert view.answer("GET", "").body.decode().count("?") > 0
    assert view.answer("GET", "format=json").status == 200
