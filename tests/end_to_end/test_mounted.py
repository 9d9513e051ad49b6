"""The page mounted in real frameworks under real servers, as the documentation says.

Each section of ``docs/how-to/mount-the-page.md`` is served as it stands there, with a token and without one.
"""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from tests.peers import ROOT, eventually, free_port

PAGE = ROOT / "docs" / "how-to" / "mount-the-page.md"
TOKEN = "1nMvkSy1q2tI-an-example"
PREFIX = "/shop"
SETTINGS = "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'settings'\nurlpatterns = []\n"
MEASURED = """
metrics.counter("web.hits", tags={"route": "/u"}).inc()
metrics.timer("web.request").observe(0.1)
"""
CASES = [
    *(("Flask", 0, "wsgi"), ("FastAPI", 0, "asgi"), ("Django", 1, "asgi"), ("Pyramid", 0, "wsgi")),
    ("Any WSGI server", 0, "wsgi"),
    # Little is different in these, so only `make matrix` runs them.
    pytest.param("Starlette", 0, "asgi", marks=pytest.mark.matrix),
    pytest.param("Django", 0, "wsgi", marks=pytest.mark.matrix),
    pytest.param("Any ASGI server", 0, "asgi", marks=pytest.mark.matrix),
]


def code(section: str, place: int) -> str:
    """Return a block of code of a section of the page."""
    _, text = PAGE.read_text().split(f"\n## {section}\n")
    return re.findall("```python[^\n]*\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)[place]


@contextmanager
def serving(folder: Path, kind: str, token: str | None) -> Iterator[str]:
    """Serve ``shop.py`` of the folder behind a prefix; yields its URL."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METRICS")}
    environment |= {"PYTHONPATH": f"{folder}:{ROOT}", "DJANGO_SETTINGS_MODULE": "settings"}
    if token:
        environment["METRICS_TOKEN"] = token
    if kind == "wsgi":
        environment["SCRIPT_NAME"] = PREFIX
        options = ["gunicorn", "-b", f"127.0.0.1:{port}", "--log-level", "warning", "shop"]
    else:
        options = ["uvicorn", "--port", str(port), "--root-path", PREFIX, "--log-level", "warning", "shop:application"]
    process = subprocess.Popen([sys.executable, "-m", *options], cwd=folder, env=environment, start_new_session=True)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}{PREFIX}/"))
        if kind == "wsgi":  # gunicorn removes the prefix
            yield f"http://127.0.0.1:{port}{PREFIX}"
        else:
            with proxy(port) as front:
                yield f"http://127.0.0.1:{front}{PREFIX}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def proxy(port: int) -> Iterator[int]:
    """Pass requests on to ``port`` without the prefix, as proxies do; yields the port of the proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == PREFIX:
                self.send_response(308)
                self.send_header("Location", f"{PREFIX}/")
                self.end_headers()
                return
            assert self.path.startswith(f"{PREFIX}/")
            back = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            back.request(self.command, self.path.removeprefix(PREFIX), body, dict(self.headers))
            answer = back.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() != "transfer-encoding":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())
            back.close()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield front.server_port
        finally:
            front.shutdown()
            thread.join()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).status_code > 0
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize(("section", "place", "kind"), CASES, ids=lambda value: str(value))
def test_it_is_mounted_as_documented(tmp_path: Path, need: Callable[..., None], section: str, place: int, kind: str):
    """Closed without a decision; with a token, a log-in leads to pages whose links all lead to other pages."""
    (tmp_path / "shop.py").write_text(code(section, place) + MEASURED)
    (tmp_path / "settings.py").write_text(SETTINGS)
    mount = "" if section.startswith("Any") else "/metrics"
    with serving(tmp_path, kind, None) as root:
        for path in ("", "/", "/health", "/series/web.hits"):
            refused = requests.get(root + mount + path, headers={"Accept": "text/html"}, timeout=60)
            assert refused.status_code == 403
            assert f"metrics.view.{'blueprint' if section == 'Flask' else kind}(open=True)" in refused.text
    with serving(tmp_path, kind, TOKEN) as root:
        header = {"Authorization": f"Bearer {TOKEN}"}
        told = requests.get(f"{root}{mount}/?format=json", headers=header, timeout=60).json()
        assert {row["key"] for row in told["series"]} >= {"web.hits;route=-u", "web.request"}
        browser = requests.Session()
        browser.headers["Accept"] = "text/html"
        asked = browser.get(f"{root}{mount}/health", timeout=60)
        assert asked.status_code == 401
        (action,) = re.findall('<form method="post" action="(.*?)">', asked.text)
        (then,) = re.findall('name="next" value="(.*?)"', asked.text)
        page = browser.post(urljoin(asked.url, action), {"token": TOKEN, "next": then}, timeout=60)
        assert (page.status_code, page.url) == (200, f"{root}{mount}/health")
        seen = linked(browser, f"{root}{mount}/")
        assert {f"{root}{mount}/{path}" for path in ("", "health", "top", "series/web.hits")} <= seen
        assert linked(browser, root + mount) | seen == seen | {root + mount}
        out = browser.post(f"{root}{mount}/logout", timeout=60)
        assert (out.status_code, out.url) == (401, f"{root}{mount}/")


def linked(browser: requests.Session, url: str) -> set[str]:
    """Follow links from ``url``, without their query strings; all lead to something below the page."""
    seen: set[str] = set()
    waiting = [url]
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        seen.add(url)
        answer = browser.get(url, timeout=60)
        assert answer.status_code == 200, url
        if answer.headers["Content-Type"].startswith("text/html"):
            found = re.findall('(?:href|src)="([^"#?]*)[^"]*"', answer.text)
            waiting += [urljoin(answer.url, each) for each in found]
    return seen
