"""The page as a Flask blueprint, through Flask's own test client."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin

import flask
import pytest

from metricslib import view

ROOT = Path(__file__).parent.parent.parent


def app_with(*blueprints):
    app = flask.Flask("shop")
    for blueprint, prefix in blueprints:
        app.register_blueprint(blueprint, url_prefix=prefix)
    return app


def run(program):
    """Run a program in a fresh interpreter with warnings as errors; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METRICSLIB_")}
    with tempfile.TemporaryDirectory() as groups:  # or it would show what another program with a page measures
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=ROOT,
            env={**environment, "METRICSLIB_GROUP_DIR": groups},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("prefix", ["/metrics", "/deep/down/here", "/", None])
def test_it_works_under_any_prefix(flusher, registry, prefix):
    """With and without the final slash, without a redirect; its links are relative to where it is."""
    registry.counter("hits").inc()
    client = app_with((view.blueprint(flusher, open=True), prefix)).test_client()
    root = (prefix or "").rstrip("/")
    for path in {root or "/", f"{root}/"}:
        response = client.get(path)
        assert response.status_code == 200
        assert '?format=json"' in response.text
        (style,) = re.findall('<link rel="stylesheet" href="(.*?)">', response.text)
        assert client.get(urljoin(f"http://localhost{path}", style)).content_type == "text/css; charset=utf-8"
    for below in ("health", "top", "board", "series/hits"):
        assert client.get(f"{root}/{below}").status_code == 200
    assert client.get(f"{root}/nothing").status_code == 404


def test_page_and_json_come_with_their_headers(flusher, registry):
    """What the view answers reaches the browser as it is."""
    registry.counter("web.hits").inc(3)
    client = app_with((view.blueprint(flusher, open=True, title="shop"), "/metrics")).test_client()
    page = client.get("/metrics?refresh=5")
    assert page.content_type == "text/html; charset=utf-8"
    assert page.headers.getlist("Content-Length") == [str(len(page.data))]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<title>shop</title>" in page.text
    found = client.get("/metrics?format=json&match=%77eb.*").json
    assert [row["key"] for row in found["series"]] == ["web.hits"]
    assert client.get("/metrics?format=yaml").status_code == 400


def test_only_get_and_head(flusher):
    """HEAD has no body; every other method is refused."""
    client = app_with((view.blueprint(flusher, open=True), "/metrics")).test_client()
    head = client.head("/metrics/")
    assert (head.status_code, head.data) == (200, b"")
    assert int(head.headers["Content-Length"]) > 1000
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused = client.open("/metrics/", method=method)
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_two_applications_and_two_blueprints_in_one(flusher):
    """Each call makes a new blueprint; in one application they need names of their own."""
    first = app_with((view.blueprint(flusher, open=True), "/metrics"))
    second = app_with(
        (view.blueprint(flusher, open=True, title="one"), "/a"),
        (view.blueprint(flusher, open=True, name="b", title="two"), "/b"),
    )
    assert first.test_client().get("/metrics").status_code == 200
    assert "<title>one</title>" in second.test_client().get("/a/").text
    assert "<title>two</title>" in second.test_client().get("/b/").text
    with second.test_request_context():
        assert flask.url_for("metricslib.metrics") == "/a/"
    with pytest.raises(ValueError, match="already registered"):
        app_with((view.blueprint(flusher, open=True), "/a"), (view.blueprint(flusher, open=True), "/b"))


def test_a_hundred_pages_change_no_value(flusher, registry, end_interval):
    """The last interval, the open one and the totals are what they were."""
    registry.counter("hits").inc(3)
    registry.timer("query").observe(0.5)
    end_interval()
    registry.counter("hits").inc(2)
    client = app_with((view.blueprint(flusher, open=True), "/metrics")).test_client()

    def values():
        return client.get("/metrics?format=json").json["series"]

    before = values()
    for number in range(100):
        assert client.get("/metrics" + ("?format=json" if number % 2 else "")).status_code == 200
    assert values() == before
    end_interval()
    assert registry.snapshot().last.counters["hits"] == 2


def test_importing_starts_nothing_and_registering_ends_intervals():
    """Neither import nor ``blueprint()`` starts a thread or loads Flask; registering starts one flusher."""
    threads = run(
        """
import sys, threading
import metricslib.view
from metricslib import _default
assert "flask" not in sys.modules
print(threading.active_count())
blueprints = [metricslib.view.blueprint(open=True), metricslib.view.blueprint(open=True, name="second")]
print(threading.active_count())
import flask
app = flask.Flask("shop")
for blueprint in blueprints:
    app.register_blueprint(blueprint, url_prefix="/" + blueprint.name)
print(threading.active_count())
_default.default_registry.counter("hits").inc(7)
one = app.test_client().get("/second?format=json&match=hits").json["series"][0]
print((one["open"] or one["last"])["count"])  # an interval may end
"""
    )
    assert threads == ["1", "1", "2", "7"]


def test_start_may_follow_the_page(tmp_path):
    """A destination given later is on the page, and nothing measured before is lost."""
    told = run(
        f"""
import flask, metricslib.view
from metricslib import _default, _shipping
app = flask.Flask("shop")
app.register_blueprint(metricslib.view.blueprint(open=True), url_prefix="/metrics")
_default.default_registry.counter("hits").inc(7)
_shipping.start("file://{tmp_path}/out.jsonl", interval=1000)
found = app.test_client().get("/metrics?format=json&match=hits").json
one = found["series"][0]
print(len(found["destinations"]), found["interval"], (one["open"] or one["last"])["count"])
"""
    )
    assert told == ["1", "1000", "7"]


def test_without_flask_the_extra_is_named():
    """The error says what to install; page and server work without."""
    told = run(
        """
import sys
sys.modules["flask"] = None
import metricslib.view
try:
    metricslib.view.blueprint(open=True)
except ImportError as error:
    print("metricslib[view]" in str(error), error.name)
"""
    )
    assert told == ["True", "flask"]


def test_json_is_what_flask_would_parse(flusher, registry):
    """One object, strictly."""
    registry.gauge("depth").set(1.5)
    client = app_with((view.blueprint(flusher, open=True), "/m")).test_client()
    assert json.loads(client.get("/m?format=json").data)["schema"] == 1
