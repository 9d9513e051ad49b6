"""Take the pictures of the metrics page: ``python -m examples.shop.screenshots FOLDER``. Needs chromium and its driver.

The shop runs for an hour in two minutes: in every interval it gets a part of the requests that ten seconds would bring,
and then the clock is set on. The last intervals are real ones. So the charts are full, and nothing is made up.
"""

import base64
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import metricslib as metrics
from metricslib import Flusher
from metricslib.clock import Clock
from metricslib.view import Server, wsgi
from tests.end_to_end.browser import Browser

from .day import busy
from .traffic import step

INTERVAL = 10
HOURS = 1.02

BOARD = (
    "board?series=shop.requests,shop.request:p90,shop.db.query:p90,shop.checkout.errors,shop.stock,shop.visitors"
    "&warn=8,10,40,0.2,60,30&crit=16,60,80,0.5,20,20&title=The+shop"
)
PICTURES = {
    "page": ("?prefix=shop", "light", 1200, 800),
    "grid": ("", "light", 1440, 900),
    "dark": ("?prefix=shop", "dark", 1440, 760),
    "metric": ("series/shop.request", "light", 1440, 1180),
    "top": ("top", "light", 1440, 900),
    "health": ("health", "light", 1440, 430),
    "board": (f"{BOARD}&night=1", "dark", 1440, 810),
    "phone": ("?prefix=shop&sort=change", "dark", 390, 844),
}
"""By name: path, colours, width and height."""


class Past(Clock):
    """A clock that is ``late``: it can be set on until it is right."""

    def __init__(self, late: float) -> None:
        self.late = late

    def time(self) -> float:
        return time.time() - self.late

    def monotonic(self) -> float:
        return time.monotonic() - self.late


def live(flusher: Flusher, client: "Untimed", clock: Past) -> None:
    """Let an hour pass."""
    while clock.late > 0:
        for _ in range(round(client.mind.gauss(30, 3) * busy(clock.time()))):
            client.visit()
        rest = INTERVAL - clock.time() % INTERVAL
        clock.late = max(0.0, clock.late - rest - 0.01)
        flusher.tick()


def visit(client: "Untimed", done: threading.Event) -> None:
    """Go on visiting until it is done."""
    while not done.wait(client.mind.expovariate(3 * busy(time.time()))):
        client.visit()


class Untimed:
    """A test client of Flask, which knows no time limits."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.mind = random.Random(7)

    def visit(self) -> None:
        self._client.environ_base["HTTP_X_VISITOR"] = f"visitor-{self.mind.randrange(200)}"
        step(self, "", self.mind)

    def get(self, url: str, /, *, timeout: float) -> Any:
        return self._client.get(url)

    def post(self, url: str, /, *, timeout: float) -> Any:
        return self._client.post(url)


def main(folder: Path) -> None:
    clock = Past(HOURS * 3600)
    metrics.default_registry.clock = clock
    from .app import create_app  # its instruments read that clock

    with tempfile.TemporaryDirectory() as data:
        flusher = metrics.start(f"whisper://{data}", interval=INTERVAL, group=None)
        server = Server(wsgi(flusher, open=True, title="shop"), 0)
        client, done = Untimed(create_app().test_client()), threading.Event()
        live(flusher, client, clock)
        visitor = threading.Thread(target=visit, args=(client, done))
        visitor.start()
        time.sleep(2.2 * INTERVAL)  # a whole interval as it comes
        browser = Browser(Path(data))
        try:
            for name, (path, scheme, width, height) in PICTURES.items():
                browser.prefer(scheme)
                browser.emulate(width, height)
                browser.open(f"{server.url}{path}")
                (folder / f"{name}.png").write_bytes(base64.b64decode(browser.png()))
        finally:
            browser.close()
            done.set()
            visitor.join()
            server.close()
            metrics.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
