"""What people see: the shop's page and the forwarder's, in a real Chromium."""

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from metricslib import Flusher, Registry
from metricslib.testing import ManualClock
from metricslib.view import Server, wsgi
from metricslib.view.report import Section
from tests.peers import FOREVER, Forwarder, eventually
from tests.sockets import send

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
    browser.open("about:blank")
    # The page asks for news until it is left, and a test may have closed its server before.
    assert [line for line in browser.console() if not re.search(r"[?&]since=.*ERR_CONNECTION_REFUSED", line)] == []


def cards(browser: Browser) -> dict[str, str]:
    """The cards of the grid: by name, all that can be read on them."""
    script = "[...document.querySelectorAll('.card')].map(card => [card.querySelector('.n').innerText, card.innerText])"
    return dict(browser.run(f"return {script}"))


def shown(browser: Browser) -> int:
    """How many cards there are, also out of view."""
    return int(browser.run("return document.querySelectorAll('.card').length"))


def loaded(browser: Browser, url: str, *names: str) -> bool:
    browser.open(url)
    return cards(browser).keys() >= set(names)


def fits(browser: Browser) -> bool:
    """Whether nothing is wider than the window."""
    return bool(browser.run("return document.documentElement.scrollWidth <= window.innerWidth"))


def test_the_shops_page(browser: Browser, shop: Shop):
    """Each kind has its card, with a chart; style sheet and script are let in by the page's policy."""
    names = {
        "shop.basket.items": "histogram",
        "shop.requests": "counter",
        "shop.request": "timer",
        "shop.stock": "gauge",
        "shop.visitors": "unique",
    }
    eventually(functools.partial(loaded, browser, shop.metrics, *names))
    eventually(functools.partial(drawn, browser, shop.metrics))
    found = cards(browser)
    assert [kind for name, kind in names.items() if kind not in found[name]] == []
    assert browser.run("return document.title") == "shop"
    assert browser.run("return getComputedStyle(document.querySelector('.grid')).display") == "grid"
    assert browser.run("return document.scripts.length + document.images.length + document.styleSheets.length") == 2


def drawn(browser: Browser, url: str) -> bool:
    """Whether there are charts: the first interval has ended."""
    browser.open(url)
    return bool(browser.run("return document.querySelectorAll('.card svg path').length >= 5"))


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


def test_search_and_links(browser: Browser, shop: Shop):
    """What is searched for is what is shown; the key / leads to the search, links to health, a metric and JSON."""
    eventually(functools.partial(loaded, browser, shop.metrics, "shop.checkout", "shop.search"))
    browser.type("body", "/")
    assert browser.run("return document.activeElement.name") == "query"
    browser.type("input[name=query]", "shop.check*")
    browser.run("document.querySelector('form').requestSubmit()")
    eventually(lambda: "query=" in browser.run("return location.search"))
    assert cards(browser).keys() - {"shop.checkout.errors"} == {"shop.checkout", "shop.checkout.running"}
    assert browser.run("return document.querySelector('input[name=query]').value") == "shop.check*"
    browser.click(".card")
    eventually(lambda: "/series/shop.checkout" in browser.run("return location.pathname"))
    browser.click(".tabs a[href$=health]")
    eventually(lambda: "Destinations" in browser.run("return document.body.innerText"))
    found = requests.get(browser.run("return document.querySelector('.tabs a:last-child').href"), timeout=60).json()
    assert {row["name"] for row in found["series"]} >= {"shop.checkout", "shop.checkout.running"}


def test_a_metrics_page(browser: Browser, shop: Shop):
    """Its chart, its breakdown by a tag, its distribution and its intervals; on a telephone nothing is too wide."""
    eventually(functools.partial(drawn, browser, shop.metrics))
    url = f"{shop.metrics.rstrip('/')}/series/shop.request"
    for width in (1280, 500):
        browser.resize(width)
        browser.open(url)
        text = browser.run("return document.body.innerText")
        for shown in ("shop.request", "By route", "Distribution", "Intervals", "Elsewhere"):
            assert shown in text
        assert browser.run("return document.querySelector('.chart .l').getBoundingClientRect().width") > 0
        assert fits(browser), width


def test_the_page_is_kept_up_to_date(browser: Browser):
    """Values change in place, with no reload; what has the focus keeps it. New metrics appear.

    When the program is gone, the page says so.
    """
    registry = Registry()
    depth = registry.gauge("depth")
    depth.set(7)
    flusher = Flusher(registry, interval=1)
    flusher.start()
    server = Server(wsgi(flusher, open=True), 0)
    try:
        eventually(functools.partial(drawn_once, browser, server.url))
        browser.run("window.same = true; document.querySelector('.card').focus()")
        depth.set(12345)
        eventually(lambda: "12.3 k" in cards(browser)["depth"])
        registry.counter("hits").inc()
        eventually(lambda: "hits" in cards(browser))
        assert browser.run("return window.same && document.activeElement.dataset.live") == "gauge:depth"
        browser.open(f"{server.url}series/depth")
        browser.run("window.same = true; document.querySelector('.scroll').focus()")
        depth.set(5)
        eventually(lambda: "5 now" in browser.run("return document.querySelector('.big').innerText"))
        assert browser.run("return window.same && document.activeElement.dataset.live") == "intervals"
    finally:
        server.close()
        flusher.stop()
    eventually(lambda: browser.run("return document.body.classList.contains('stale')"))
    assert all("ERR_CONNECTION_REFUSED" in line for line in browser.console())


def drawn_once(browser: Browser, url: str) -> bool:
    browser.open(url)
    return bool(browser.run("return document.querySelector('.card svg path') !== null"))


@pytest.fixture
def hour() -> Iterator[str]:
    """The address of a page with an hour behind it. The counter of hits counts 10 in the first interval, then 20, …"""
    clock = ManualClock(1_700_000_000 - 1_700_000_000 % 3600)
    registry = Registry(clock=clock)
    flusher = Flusher(registry, interval=10)
    for number in range(1, 361):
        registry.counter("hits").inc(10 * number)
        registry.gauge("depth").set(number)
        registry.timer("query").observe(number / 1000)
        for place in range(100 if number == 360 else 0):
            registry.counter(f"zeros.c{place:03}").inc()
        clock.advance(10)
        flusher.tick()
    server = Server(wsgi(flusher, open=True), 0)
    yield server.url
    server.close()


def readings(browser: Browser) -> dict[str, tuple[str, str]]:
    """What the cards say at the cursor."""
    script = "[...document.querySelectorAll('.reading .v[data-number]')].map(value =>"
    script += " [value.parentElement.dataset.live, [value.dataset.number, value.dataset.unit]])"
    return {key: tuple(value) for key, value in browser.run(f"return {script}")}


def test_hovering_reads_all_charts_at_one_instant(browser: Browser, hour: str):
    """The time under the cursor, the value of every card then, and a line in every chart; afterwards what was."""
    browser.open(hour)
    browser.move(".card[data-live='counter:hits'] .plot", 0.5)
    eventually(lambda: "counter:hits" in readings(browser))
    found = readings(browser)
    depth = int(found["gauge:depth"][0])
    assert abs(depth - 180) <= 3
    assert found["counter:hits"] == (str(depth), "/s")
    assert found["timer:query"] == (str(depth), f"ms median · p90 {depth}")
    assert re.fullmatch(r"22:[23].:[0-9]0 UTC", browser.run("return document.querySelector('.instant').innerText"))
    line = "getComputedStyle(document.querySelectorAll('.plot')[5], '::after').left"
    assert browser.run(
        f"return parseFloat({line}) / document.querySelectorAll('.plot')[5].clientWidth"
    ) == pytest.approx(0.5, abs=0.02)
    browser.move("h1", 0.5)
    eventually(lambda: not readings(browser))
    assert "last hour" in browser.run("return document.querySelector('.bar').innerText")


def test_dragging_zooms_and_the_address_has_the_range(browser: Browser, hour: str):
    """On a metric's page and on the grid; Escape, the link and the browser's back button lead out again."""
    for path, plot in (("series/hits", ".axes .plot"), ("", ".card .plot")):
        browser.open(f"{hour}{path}")
        browser.move(plot, 0.25, 0.4, 0.5, drag=True)
        eventually(lambda: "from=" in browser.run("return location.search"))
        start, until = (int(part.partition("=")[2]) for part in browser.run("return location.search")[1:].split("&"))
        assert until - start == pytest.approx(900, abs=30)
        assert browser.run("return document.querySelector('.when').innerText").count(":") == 4
        browser.run("history.back()")
        eventually(lambda: "last hour" in browser.run("return document.querySelector('.bar').innerText"))
    browser.open(f"{hour}?from={start}&until={until}")
    browser.type("body", "\ue00c")
    eventually(lambda: browser.run("return location.search") == "")


def test_the_search_finds_as_one_types(browser: Browser, hour: str):
    """In place, with the address; half a comparison is no search yet, and changes nothing."""
    browser.open(hour)
    browser.run("window.same = true")
    browser.type("input[type=search]", "p90 >")
    eventually(lambda: browser.run("return document.querySelector('input[aria-invalid]') !== null"))
    assert shown(browser) == 60
    browser.type("input[type=search]", " 100")
    eventually(lambda: list(cards(browser)) == ["query"])
    assert browser.run("return window.same && document.activeElement.name") == "query"
    assert browser.run("return new URLSearchParams(location.search).get('query')") == "p90 > 100"
    assert browser.run("return document.querySelector('.when').innerText.includes('1 of 103')")
    browser.console()  # it tells of the answer 400


def test_more_cards_come_with_scrolling(browser: Browser, hour: str):
    """Page by page; those that are in view are read and kept up to date."""
    browser.open(hour)
    assert shown(browser) == 60
    browser.run("scrollTo(0, 1e6)")
    eventually(lambda: shown(browser) == 103)
    assert browser.run("return document.querySelector('.pages').innerText") == "page 2 of 2"
    browser.move(".card[data-live='counter:zeros.c099'] .plot", 0.99)
    eventually(lambda: "counter:zeros.c099" in readings(browser))
    assert "counter:zeros.c005" not in readings(browser)


def test_what_was_looked_at_recently_is_in_the_list(browser: Browser, hour: str):
    """The latest first, but for the one that is shown."""
    for name in ("hits", "depth", "hits", "query"):
        browser.open(f"{hour}series/{name}")
    browser.open(hour)
    assert browser.run("return document.querySelector('#recent').innerText").split() == [
        "Recent",
        "query",
        "hits",
        "depth",
    ]
    browser.click("#recent a")
    eventually(lambda: browser.run("return location.pathname").endswith("/series/query"))
    assert browser.run("return document.querySelector('#recent').innerText").split() == ["Recent", "hits", "depth"]


def test_keys_do_what_the_list_of_keys_says(browser: Browser, hour: str):
    """? lists them; the arrows move the cursor, by one or by ten; + zooms; Escape leads back, step by step."""
    browser.open(f"{hour}series/depth")
    browser.type("body", "?")
    assert "read all charts" in browser.run("return document.querySelector('dialog[open]').innerText")
    browser.click("dialog button")
    assert browser.run("return document.querySelector('dialog[open]')") is None
    instant = "return document.querySelector('.instant').innerText"
    browser.type("body", "\ue012")
    eventually(lambda: browser.run(instant) == "22:59:50 UTC · 359 now")
    browser.type("body", "\ue012")
    eventually(lambda: browser.run(instant) == "22:59:40 UTC · 358 now")
    browser.type("body", "\ue008\ue012\ue008")
    eventually(lambda: browser.run(instant) == "22:58:00 UTC · 348 now")
    browser.type("body", "\ue014")
    eventually(lambda: browser.run(instant) == "22:58:10 UTC · 349 now")
    browser.type("body", "\ue00c")
    eventually(lambda: browser.run(instant) == "")
    browser.type("body", "+")
    eventually(lambda: "from=" in browser.run("return location.search"))
    browser.type("body", "\ue00c")
    eventually(lambda: "from=" not in browser.run("return location.search"))


def test_a_board_changes_colour_and_shape_as_it_happens(browser: Browser):
    """Night is dark, whatever the reader prefers."""
    registry = Registry()
    depth = registry.gauge("depth")
    depth.set(1)
    flusher = Flusher(registry, interval=1)
    flusher.start()
    server = Server(wsgi(flusher, open=True), 0)
    look = """return [document.querySelector('.state').innerText,
        getComputedStyle(document.querySelector('.state'), '::before').content,
        getComputedStyle(document.querySelector('.tile b')).color]"""
    try:
        eventually(functools.partial(drawn_once, browser, server.url))
        browser.open(f"{server.url}board?series=depth&warn=10&crit=20")
        found = {}
        for value, word in ((1, "ok"), (10, "warning"), (20, "critical")):
            depth.set(value)
            eventually(functools.partial(lambda word: browser.run(look)[0] == word, word))
            found[word] = browser.run(look)[1:]
        assert len({shape for shape, _ in found.values()}) == len({colour for _, colour in found.values()}) == 3
        background = "return getComputedStyle(document.body).backgroundColor"
        light = browser.run(background)
        browser.click(".sort a[href*=night]")
        eventually(lambda: browser.run(background) != light)
        browser.prefer("dark")
        night = browser.run(background)
        browser.open(f"{server.url}board")
        assert browser.run(background) == night
    finally:
        server.close()
        flusher.stop()


VIEWS = (
    *("board", "board?series=web.errors,web.request:p90,queue.depth,none&warn=30,9,50&crit=40,99,30"),
    *("", "?query=nothing", "?prefix=web&sort=change", "top", "health"),
    *("series/web.request", "series/queue.depth", "series/visitors?range=1d"),
)
OUTSIDE = """return [...document.querySelectorAll('svg text')].filter(text => {
    const [it, card] = [text, text.closest('.card, .panel')].map(element => element.getBoundingClientRect());
    return it.left < card.left || it.right > card.right || it.top < card.top || it.bottom > card.bottom;
}).map(text => text.outerHTML)"""
"""Labels of charts that are not inside their card."""
AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(browser: Browser, need: Callable[..., None], scheme: str):
    """axe-core finds nothing, wide and narrow: contrast, names, order of headings, keyboard."""
    need("tests/end_to_end/node_modules/axe-core")
    clock = ManualClock()
    registry = Registry(clock=clock)
    flusher = Flusher(registry, interval=10)
    for number in range(40):
        for route in ("/", "/search", "/checkout"):
            registry.counter("web.errors", tags={"route": route}).inc(number * number)
            registry.timer("web.request", tags={"route": route}).observe(0.01 * (number + 1))
        registry.gauge("queue.depth").set(number)
        registry.histogram("basket").observe(number)
        registry.unique("visitors").add(str(number))
        clock.advance(10)
        flusher.tick()
    sections: dict[str, Section] = {"Listeners": [{"address": f"udp://x:{port}", "lines": port} for port in range(5)]}
    server = Server(wsgi(flusher, open=True, extra=lambda: sections), 0)
    try:
        browser.prefer(scheme)
        for width in (1280, 500):
            browser.resize(width)
            for path in VIEWS:
                browser.open(f"{server.url}{path}")
                assert browser.violations(AXE.read_text()) == [], path
                assert fits(browser), path
                assert browser.run(OUTSIDE) == [], path
    finally:
        server.close()


def test_the_forwarders_page(browser: Browser, forwarder: Callable[..., Forwarder]):
    """It shows each series, and on its view of health the listeners and the account of what they heard."""
    process = forwarder("--listen", "udp://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0", "--interval", str(FOREVER))
    ready = process.ready()
    send(ready["tcp"], "web.hits:2|c|#route:/u\nquery:12.5|ms\nbroken\n", times=1000)
    eventually(functools.partial(loaded, browser, ready["http"], "web.hits", "query"))
    eventually(lambda: process.page()["sections"]["Pieces"]["Received"] == 3000)
    browser.open(f"{ready['http']}/health")
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
    browser.open(f"{ready['http']}/health")
    assert browser.run("return window.owned === undefined && document.images.length + document.scripts.length === 1")
    text = browser.run("return document.body.innerText").replace("\\'", "'")
    assert [hostile for hostile in HOSTILE if hostile not in text] == []
    for query in HOSTILE:
        address = (
            requests.Request("GET", ready["http"] + "/", params={"match": query, "prefix": query, "tag": query})
            .prepare()
            .url
        )
        assert address is not None
        browser.open(address)
        assert browser.run("return document.querySelector('input[name=query]').value") == query
        assert browser.run("return window.owned === undefined")


def test_a_hostile_program_is_shown_and_not_run(browser: Browser):
    """Nor does what the program itself puts on its page: titles, sections, names, tags."""
    registry = Registry()
    for text in HOSTILE:
        registry.counter(text, tags={text: text}).inc()
    sections: dict[str, Section] = {text: [{text: text}, {text: {text: [text]}}] for text in HOSTILE}
    flusher = Flusher(registry)
    flusher.start()
    server = Server(wsgi(flusher, open=True, title=HOSTILE[2], extra=lambda: sections), 0)
    try:
        browser.open(server.url)
        assert browser.run("return document.title") == HOSTILE[2]
        assert browser.run("return window.owned === undefined")
        browser.open(f"{server.url}health")
        headings = browser.run("return [...document.querySelectorAll('h2')].map(heading => heading.innerText)")
        assert set(HOSTILE) <= set(headings)
        assert browser.run("return window.owned === undefined")
    finally:
        server.close()
        flusher.stop()
