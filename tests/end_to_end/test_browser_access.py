"""Who may read the page, in a real Chromium: a refusal, a log-in and a log-out."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metricslib import Flusher, Registry
from metricslib.view import Server, wsgi
from tests.peers import eventually

from .browser import Browser

pytestmark = pytest.mark.xdist_group("browser")

TOKEN = "1nMvkSy1q2tI-an-example"
AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
TEXT = "return document.body.innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Iterator[Browser]:
    need("chromium", "chromedriver", "tests/end_to_end/node_modules/axe-core")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """The console says nothing but the status of what was refused."""
    yield
    browser.open("about:blank")
    assert [line for line in browser.console() if not re.search(r"status of (401|403|429) ", line)] == []


@pytest.fixture
def flusher() -> Iterator[Flusher]:
    registry = Registry()
    registry.counter("web.hits").inc()
    flusher = Flusher(registry, interval=1)
    flusher.start()
    yield flusher
    flusher.stop()


def is_fine(browser: Browser) -> bool:
    """Whether axe-core finds nothing, in light and dark, wide and narrow, and nothing is wider than the window."""
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        for width in (1280, 500):
            browser.resize(width)
            assert browser.violations(AXE.read_text()) == []
            assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    return True


def test_a_refusal(browser: Browser, flusher: Flusher):
    """It says what to write, and nothing of what is measured."""
    with Server(wsgi(flusher)) as server:
        for path in ("", "series/web.hits"):
            browser.open(server.url + path)
            text = browser.run(TEXT)
            assert 'metrics.view.wsgi(token=os.environ["METRICS_TOKEN"])' in text
            assert "the program has not decided" in text
            assert browser.run("return document.scripts.length + document.forms.length") == 0
            assert browser.run("return getComputedStyle(document.querySelector('main')).maxWidth") == "560px"
        assert is_fine(browser)


def test_logging_in_and_out(browser: Browser, flusher: Flusher):
    """A wrong token, the right one, which leads to where the reader wanted to go, live updates, and the end of it."""
    with Server(wsgi(flusher, token=TOKEN)) as server:
        browser.open(f"{server.url}series/web.hits?range=5m")
        assert "web.hits" not in browser.run(TEXT)
        assert browser.run("return document.activeElement.name") == "token"
        assert is_fine(browser)
        browser.type("#token", "wrong\n")
        eventually(lambda: "This is not the token." in browser.run(TEXT))
        assert browser.run("return document.querySelector('[role=alert]').innerText") == "This is not the token."
        assert is_fine(browser)
        browser.type("#token", TOKEN)
        browser.click("button")
        eventually(lambda: browser.run("return location.pathname + location.search") == "/series/web.hits?range=5m")
        assert "web.hits" in browser.run(TEXT)
        assert browser.run("return document.cookie") == ""
        assert TOKEN not in browser.run("return document.documentElement.outerHTML + location.href")
        assert is_fine(browser)
        browser.resize(1280)
        browser.open(server.url)
        browser.run("window.same = true")
        flusher.registry.counter("new.hits").inc()
        eventually(lambda: "new.hits" in browser.run(TEXT))
        assert browser.run("return window.same")
        browser.click("form[action$=logout] button")
        eventually(lambda: "Log in to read this page." in browser.run(TEXT))
        for path in ("", "health", "login"):
            browser.open(server.url + path)
            assert "Log in to read this page." in browser.run(TEXT)


def test_a_page_whose_session_has_ended_says_so(browser: Browser, flusher: Flusher):
    """It keeps what it shows, and is marked."""
    with Server(wsgi(flusher, token=TOKEN)) as server:
        browser.open(server.url)
        browser.type("#token", f"{TOKEN}\n")
        eventually(lambda: "web.hits" in browser.run(TEXT))
        browser.run("fetch('logout', {method: 'POST'})")
        eventually(lambda: browser.run("return document.body.classList.contains('stale')"))
        assert "web.hits" in browser.run(TEXT)
