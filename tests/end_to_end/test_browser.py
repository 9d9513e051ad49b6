"""What people see: the shop's page and the forwarder's, in a real Chromium."""

import functools
import json
from collections.abc import Callable, Iterator

import pytest
import requests

from metricslib import Flusher, Registry
from metricslib.view import Server, application
from metricslib.view.report import Section
from tests.peers import FOREVER, Forwarder, eventually, send

from .browser import Browser
from .conftest import Shop

pytestmark = pytest.mark.xdist_group("browser")  # one Chromium and one shop for all

HOSTILE = [
    "<script>window.owned = 1</script>",
    "\"><img src=x onerror='window.owned = 1'>",
    "</title></style></textarea><svg onload=window.owned=1>",
    "' autofocus onfocus='window.owned=1",
    "javascript:window.owned=1",
    "{{constructor.constructor('window.owned=1')()}}",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]) -> Iterator[Browser]:
    need("chromium", "chromedriver")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop") / "data")
    yield shop
    shop.kill()


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Whatever a test opens, the console says nothing: no error, and nothing that the page's own policy forbids."""
    browser.resize(1280)
    browser.prefer("light")
    yield
    assert browser.console() == []


def rows(browser: Browser) -> dict[str, list[str]]:
    """The table of series: by path, what can be read in the other cells."""
    cells = "[...row.cells].map(cell => cell.innerText)"
    table = browser.run(f"return [...document.querySelectorAll('.series tbody tr')].map(row => {cells})")
    return {path: others for path, *others in table}


def loaded(browser: Browser, url: str, *paths: str) -> bool:
    browser.open(url)
    return rows(browser).keys() >= set(paths)


def fits(browser: Browser) -> bool:
    """Whether nothing is wider than the window."""
    return bool(browser.run("return document.documentElement.scrollWidth <= window.innerWidth"))


def test_the_shops_page(browser: Browser, shop: Shop):
    """All kinds of series stand in the table, readable, with values; the style sheet is let in by the page's policy."""
    paths = ("shop.requests;route=-;status=200", "shop.request;route=-", "shop.stock;warehouse=north", "shop.visitors")
    eventually(functools.partial(loaded, browser, shop.metrics, "shop.basket.items", *paths))
    table = rows(browser)
    kinds = [table[path][0] for path in ("shop.basket.items", *paths)]
    assert kinds == ["histogram", "counter", "timer", "gauge", "unique"]
    assert sum(int(cell.replace(",", "")) for cell in table[paths[0]][-2:]) > 0  # so far, and in all intervals before
    assert browser.run("return document.title") == "metricslib"
    assert browser.run("return getComputedStyle(document.body).maxWidth") == "1536px"
    assert browser.run("return document.scripts.length + document.images.length + document.styleSheets.length") == 1


def test_the_page_is_drawn(browser: Browser, shop: Shop):
    """A picture of the window is one of a full page, in light and in dark, on a desk and on a telephone."""
    eventually(functools.partial(loaded, browser, shop.metrics, "shop.visitors"))
    pictures = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        for width in (1280, 800, 500):
            browser.resize(width)
            picture = pictures[scheme, width] = browser.picture()
            assert picture.width == width
            assert picture.height > 500
            assert len(set(picture.rows)) > 100
            assert fits(browser), width
    assert pictures["light", 1280].rows[0] != pictures["dark", 1280].rows[0]


def test_the_filter_and_the_links(browser: Browser, shop: Shop):
    """What is typed into the filter is what is shown; the links lead to all series, to reloading, and to JSON."""
    eventually(functools.partial(loaded, browser, shop.metrics, "shop.checkout", "shop.search"))
    browser.type("input[name=match]", "shop.check*")
    browser.click("form button")
    eventually(lambda: "match=" in browser.run("return location.search"))
    assert set(rows(browser)) == {"shop.checkout", "shop.checkout.running", *filtered(browser, "shop.checkout.errors")}
    assert browser.run("return document.querySelector('input[name=match]').value") == "shop.check*"
    browser.click("nav a:last-child")
    found = json.loads(browser.run("return document.body.innerText"))
    assert {row["name"] for row in found["series"]} >= {"shop.checkout", "shop.checkout.running"}
    browser.open(shop.metrics)
    browser.click("nav a:first-child")
    assert browser.run("return document.querySelector('meta[http-equiv=refresh]').content") == "10"


def filtered(browser: Browser, name: str) -> set[str]:
    """The series of that name which the page shows, if any."""
    return {path for path in rows(browser) if path.partition(";")[0] == name}


def test_the_forwarders_page(browser: Browser, forwarder: Callable[..., Forwarder]):
    """It shows its listeners and the account of what they heard, and each series with what it was sent."""
    process = forwarder("--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--interval", str(FOREVER))
    ready = process.ready()
    send(ready["tcp"], "web.hits:2|c|#route:/u\nquery:12.5|ms\nbroken\n", times=1000)
    eventually(functools.partial(loaded, browser, ready["http"], "web.hits;route=-u", "query"))
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] == 3000)
    browser.open(ready["http"])
    table = rows(browser)
    assert table["web.hits;route=-u"][-2] == "2,000"
    assert table["query"][-2] == "1,000"
    text = browser.run("return document.body.innerText")
    for shown in ("forwarder", ready["tcp"], ready["udp"], "3,000", "Last bad lines", "broken", "no value"):
        assert shown in text
    assert fits(browser)


def test_a_hostile_line_is_shown_and_not_run(browser: Browser, forwarder: Callable[..., Forwarder]):
    """Whatever a sender writes, in names, tags, values or bad lines, is text on the page, and runs nowhere."""
    process = forwarder("--listen", "tcp://127.0.0.1:0", "--interval", str(FOREVER))
    ready = process.ready()
    lines = [line for text in HOSTILE for line in (f"{text}:1|c", f"a:{text}|c", f"b:1|c|#{text}:{text}", text)]
    send(ready["tcp"], "".join(f"{line}\n" for line in lines))
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] >= len(lines))
    browser.open(ready["http"])
    assert browser.run("return window.owned === undefined && document.images.length + document.scripts.length === 0")
    text = browser.run("return document.body.innerText").replace("\\'", "'")
    assert [hostile for hostile in HOSTILE if hostile not in text] == []
    for query in HOSTILE:
        address = requests.Request("GET", ready["http"] + "/", params={"match": query}).prepare().url
        assert address is not None
        browser.open(address)
        assert browser.run("return document.querySelector('input[name=match]').value") == query
        assert browser.run("return window.owned === undefined")


def test_a_hostile_program_is_shown_and_not_run(browser: Browser):
    """Nor does what the program itself puts on its page: titles, sections, names, tags."""
    registry = Registry()
    for text in HOSTILE:
        registry.counter(text, tags={text: text}).inc()
    sections: dict[str, Section] = {text: [{text: text}, {text: {text: [text]}}] for text in HOSTILE}
    flusher = Flusher(registry)
    flusher.start()
    server = Server(application(flusher, title=HOSTILE[2], extra=lambda: sections), 0)
    try:
        browser.open(server.url)
        assert browser.run("return document.title") == HOSTILE[2]
        headings = browser.run("return [...document.querySelectorAll('h2')].map(heading => heading.innerText)")
        assert set(HOSTILE) <= set(headings)
        assert browser.run("return window.owned === undefined")
    finally:
        server.close()
        flusher.stop()
