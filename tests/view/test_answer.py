"""A request answered: status, headers and body, whichever entry point it came through."""

import gzip
import itertools
import json
import logging
import re
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from metricslib.series_state import SummedTotal
from metricslib.view import render
from metricslib.view import report as report_module
from metricslib.view.answer import View


@pytest.fixture
def view(flusher):
    return View.of(flusher, title="shop")


def test_a_page_says_how_it_may_be_treated(view, registry):
    """HTML that loads nothing from elsewhere and has nothing inline, is not guessed at, not framed and not kept."""
    registry.counter("hits").inc()
    answer = view.answer("GET", "")
    headers = dict(answer.headers)
    assert answer.status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert int(headers["Content-Length"]) == len(answer.body)
    assert b"<title>shop</title>" in answer.body


@pytest.mark.parametrize(
    ("encodings", "gzipped"),
    [("gzip, deflate, br", True), ("*", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("", False)],
)
def test_a_page_is_compressed_for_who_reads_that(view, encodings, gzipped):
    plain, answer = view.answer("GET", ""), view.answer("GET", "", encodings=encodings)
    headers = dict(answer.headers)
    assert headers.get("Content-Encoding") == ("gzip" if gzipped else None)
    assert headers["Vary"] == "Accept-Encoding"
    assert int(headers["Content-Length"]) == len(answer.body)
    assert (gzip.decompress(answer.body) if gzipped else answer.body) == plain.body


@pytest.mark.parametrize("format", ["json", "prometheus", "openmetrics"])
@pytest.mark.parametrize("series", [0, 50, 3000])
def test_what_programs_read_is_compressed_for_those_that_read_that(view, registry, format, series):
    """Whether it has its length, or is generated while it is read."""
    for number in range(series):
        registry.counter(f"c.{number}").inc()
    plain = view.answer("GET", f"format={format}")
    answer = view.answer("GET", f"format={format}", encodings="gzip")
    headers = dict(answer.headers)
    compressed = answer.body
    text = plain.body
    assert headers.get("Content-Encoding") == ("gzip" if len(text) > 1000 else None)
    assert {headers["Vary"], dict(plain.headers)["Vary"]} == {"Accept-Encoding"}
    assert ("Content-Length" in headers) == (len(text) < 64 << 10)
    assert int(headers.get("Content-Length", len(compressed))) == len(compressed)
    assert (gzip.decompress(compressed) if len(text) > 1000 else compressed) == text


def test_health_for_programs(view, registry):
    """What the page of health has, as JSON without series."""
    registry.counter("hits").inc()
    found = json.loads(view.answer("GET", "format=json", "/health").body)
    whole = json.loads(view.answer("GET", "format=json").body)
    assert whole["series"] != []
    assert found == {**whole, "series": [], "count": {**whole["count"], "shown": 0}}
    asked = view.answer("GET", "", "/health", accept="application/json")
    assert json.loads(asked.body).keys() == found.keys()


WITHOUT = """
import asyncio, io, json, sys
for name in ("flask", "jinja2", "markupsafe", "werkzeug", "waitress"):
    sys.modules[name] = None
import metricslib as metrics

metrics.counter("hits").inc(3)
application, other = metrics.view.wsgi(open=True), metrics.view.asgi(open=True)

def over_wsgi(path, query):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, "wsgi.url_scheme": "http"}
    return b"".join(application(environ, lambda status, headers: print(status[:3], end=" ")))

async def over_asgi(path, query):
    found = []
    async def send(message):
        found.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    await other(scope, None, send)
    print(found[0]["status"], end=" ")
    return b"".join(message["body"] for message in found[1:])

for ask in (over_wsgi, lambda *asked: asyncio.run(over_asgi(*asked))):
    one = json.loads(ask("/", "format=json&match=hits"))["series"][0]
    assert (one["open"] or one["last"])["count"] == 3  # an interval may end
    assert json.loads(ask("/health", "format=json"))["flusher"]["running"]
    assert b"hits_total 3" in ask("/", "format=prometheus")
    assert b"hits_total 3" in ask("/", "format=openmetrics")
    assert b"metricslib[view]" in ask("/", "")
import urllib.request
with metrics.serve(port=0) as server:
    with urllib.request.urlopen(f"{server.url}?format=prometheus") as answer:
        assert b"hits_total 3" in answer.read()
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(loaded - sys.stdlib_module_names - {"metricslib", "__main__"} - before))
"""


def test_what_programs_read_needs_nothing_but_the_standard_library():
    """Over WSGI, ASGI and a port of its own; the page in HTML says what it needs."""
    program = f"import sys; before = {{name.partition('.')[0] for name in sys.modules}}\n{WITHOUT}"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["200", "200", "200", "200", "501"] * 2


def test_a_page_is_made_again_when_an_interval_has_ended(view, registry, end_interval):
    """Otherwise the answer is empty; health changes at any time."""
    registry.counter("hits").inc()
    assert view.answer("GET", "since=5").status == 204
    end_interval()
    end = int(re.search('data-end="([0-9]+)"', view.answer("GET", "").body.decode())[1])
    for path in ("/", "/series/hits"):
        answer = view.answer("GET", f"since={end}", path)
        assert (answer.status, answer.body) == (204, b"")
    assert view.answer("GET", f"since={end}", "/health").status == 200
    end_interval()
    assert view.answer("GET", f"since={end}").status == 200


@pytest.mark.parametrize("path", ["/x", "/static/style.css", "/assets/style.css", "/assets/../render.py", "/healthy"])
def test_elsewhere_is_nothing(view, path):
    assert view.answer("GET", "", path).status == 404


def test_files_of_the_page_are_kept_by_browsers(view):
    """Their names change with their contents. What they are is said, and not guessed at."""
    page = view.answer("GET", "", "/health").body.decode()
    found = re.findall('(?:href|src)="\\./(assets/[^"]*)"', page)
    assert sorted(re.sub("[.][0-9a-f]{12}", "", name) for name in found) == [
        "assets/icon.svg",
        "assets/script.js",
        "assets/style.css",
    ]
    for name in found:
        for encodings in ("", "gzip"):
            answer = view.answer("GET", "", f"/{name}", encodings=encodings)
            headers = dict(answer.headers)
            assert (answer.status, headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert int(headers["Content-Length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("path", "mount", "root"),
    [("/", "/metrics", "./"), ("", "/metrics", "metrics/"), ("", "", "./"), ("", "/a/b", "b/"), ("/health", "", "./")],
)
def test_links_lead_to_where_the_page_is_mounted(view, registry, path, mount, root):
    registry.counter("web.hits").inc()
    assert f'href="{root}assets/style.' in view.answer("GET", "", path, mount=mount).body.decode()
    assert 'href="../assets/style.' in view.answer("GET", "", "/series/web.hits").body.decode()
    assert 'href="../../assets/style.' in view.answer("GET", "", "/series/web/hits").body.decode()


def test_without_jinja_the_page_says_what_to_install(view, monkeypatch):
    """JSON is answered all the same."""
    render.environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    answer = view.answer("GET", "")
    assert answer.status == 501
    assert b"pip install 'metricslib[view]'" in answer.body
    assert view.answer("GET", "format=json").status == 200


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
        answer = View.of(flusher, extra=extra).answer("GET", "", "/health")
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert "hunter2" in caplog.text


def test_extra_sections_are_asked_for_at_each_request(flusher):
    """A program that has more to say says what is true now."""
    counts = iter(range(10))
    view = View.of(flusher, extra=lambda: {"DropCounter": {"received": next(counts)}})
    told = [json.loads(view.answer("GET", "format=json").body)["sections"] for _ in range(2)]
    assert told == [{"DropCounter": {"received": 0}}, {"DropCounter": {"received": 1}}]


def test_a_surrogate_in_an_error_does_not_break_the_bytes(flusher):
    """Text that no encoding holds is replaced."""
    view = View.of(flusher, extra=lambda: {"Last error": {"text": "\ud800"}})
    assert view.answer("GET", "", "/health").body.decode().count("?") > 0
    assert view.answer("GET", "format=json").status == 200


def test_more_series_than_a_page_has_come_page_by_page(view, registry):
    """Each page says what the next is to come after; the last one does not."""
    for number in range(25):
        registry.counter(f"c.{number}").inc(number)
    registry.gauge("c.7").set(1)
    found, after = [], ""
    while after is not None:
        page = json.loads(view.answer("GET", f"format=json&limit=10&{urlencode({'after': after})}").body)
        assert page["count"]["matched"] == 26
        found += [(row["kind"], row["key"]) for row in page["series"]]
        after = page["next"]
    assert found == [(row["kind"], row["key"]) for row in json.loads(view.answer("GET", "format=json").body)["series"]]


def test_a_large_answer_is_made_as_it_is_read(view, registry):
    """In blocks, and no further when the reader goes."""
    for number in range(3000):
        registry.counter(f"c.{number}").inc()
    answer = view.answer("GET", "format=json&limit=3000")
    assert "Content-Length" not in dict(answer.headers)
    parts = iter(answer.parts)
    assert 64 << 10 <= len(next(parts)) < 80 << 10
    parts.close()  # as a server does when the client is gone
    assert list(parts) == []
    whole = view.answer("GET", "format=json&limit=3000").body.decode()
    assert whole.count("c.2999") >= 1
    assert len(json.loads(whole)["series"]) == 3000


def test_one_report_is_made_at_a_time(view, registry, monkeypatch):
    """Who asks meanwhile waits for it, for a while; who reads slowly keeps nobody waiting."""
    for number in range(3000):
        registry.counter(f"c.{number}").inc()
    first = view.answer("GET", "format=json&limit=3000")  # nobody reads it yet
    assert view.answer("GET", "").status == 200
    monkeypatch.setattr("metricslib.view.answer.PATIENCE", 0.01)
    with view._making:
        busy = view.answer("GET", "")
    assert (busy.status, dict(busy.headers)["Retry-After"]) == (503, "5")
    assert b"c.2999" in first.body
    view._making.acquire()
    view.reset_after_fork()  # a fork while a report was being made
    assert view.answer("GET", "").status == 200


def test_a_search_that_takes_too_long_is_given_up(flusher, registry):
    """With a status that says so, and the page goes on for others. A machine that is busy otherwise costs no time."""
    for number in range(1000):
        registry.counter(f"c.{number}").inc()
    spent = itertools.count(step=0.9)
    view = View(lambda: flusher, spent=lambda: next(spent))
    for query in ("match=*x*", "match=*x*&format=json", "query=x", "sort=change", ""):
        answer = view.answer("GET", query)
        assert answer.status == 503
        assert b"too many series to look for that" in answer.body
        assert View(lambda: flusher, spent=lambda: 0.0).answer("GET", query).status == 200


def test_a_page_holds_the_registry_s_lock_for_what_it_shows_alone(view, registry, flusher, monkeypatch):
    """A tick in the middle of a page does not wait for it, and copies are made of no more than is shown."""
    for number in range(200):
        registry.counter(f"c.{number}").inc()
    flusher.tick()
    copied = []
    copy = SummedTotal.copy
    monkeypatch.setattr(SummedTotal, "copy", lambda total: copied.append(total) or copy(total))
    chosen = report_module.select

    def select(*arguments):
        assert not registry._lock.locked()
        return chosen(*arguments)

    monkeypatch.setattr("metricslib.view.answer.select", select)
    found = json.loads(view.answer("GET", "format=json&limit=5").body)
    assert len(found["series"]) == 5
    assert len(copied) == 5


HOSTILE = ["<script>alert(1)</script>", "evil\u202egpj.exe", "a\u2066b", "\x1b[31mred", '" onload="alert(1)']


def test_a_text_is_shown_as_what_it_is(registry, flusher):
    """Wherever it comes from: markup is escaped, and what is not seen, or turns text around, is shown as an escape."""
    for text in HOSTILE:
        registry.counter(text, tags={text: text}).inc()
        registry.timer(text).observe(1)
    flusher.tick()
    view = View.of(flusher, title=HOSTILE[0], extra=lambda: {text: [{text: [text, {text: text}]}] for text in HOSTILE})
    asked = [urlencode({name: text}) for text in HOSTILE for name in ("query", "match", "prefix", "by")]
    for path in ("/", "/health", "/top", *(f"/series/{name}" for name in registry.series()["timer"])):
        for query in ("", *asked):
            answer = view.answer("GET", query, path)
            if dict(answer.headers)["Content-Type"].startswith("text/plain"):
                assert (answer.status, query != "") in ((400, True), (404, True))
                continue
            found = answer.body.decode()
            assert "<script>alert" not in found
            assert 'onload="alert' not in found
            assert query or not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", found)
    health = view.answer("GET", "", "/health").body.decode()
    assert "evil\\u202egpj.exe" in health
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in health
