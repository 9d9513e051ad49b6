"""Visitors: HTTP traffic from a few threads, each with a mind of its own but the same in every run.

There are more by day than by night.
"""

import random
import threading
import time
from collections import Counter
from typing import Any, Protocol

import requests

from .day import PRODUCTS, busy


class Traffic:
    """Sends ``rate`` requests a second on average from ``visitors`` threads, and counts what it sent."""

    def __init__(self, shop: str, visitors: int = 4, rate: float = 40.0) -> None:
        self._shop = shop
        self._pause = visitors / rate
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number,), name=f"visitor-{number}") for number in range(visitors)
        ]
        self._lock = threading.Lock()
        self.sent: Counter[str] = Counter()
        """Requests answered, by status."""

    def start(self) -> None:
        """Let the visitors in."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let everybody finish the request they are at."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, number: int) -> None:
        mind = random.Random(number)
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.wait(mind.expovariate(busy(time.time()) / self._pause)):
                session.headers["X-Visitor"] = f"visitor-{mind.randrange(200)}"
                try:
                    status = str(step(session, self._shop, mind).status_code)
                except requests.RequestException as error:
                    status = type(error).__name__
                with self._lock:
                    self.sent[status] += 1


class Client(Protocol):
    """What a visitor needs: a session of requests, or a test client of Flask."""

    def get(self, url: str, /, *, timeout: float) -> Any: ...
    def post(self, url: str, /, *, timeout: float) -> Any: ...


def step(client: Client, shop: str, mind: random.Random) -> Any:
    """Do one thing in the shop, and return the answer."""
    dice = mind.random()
    product = mind.choice(list(PRODUCTS))
    if dice < 0.4:
        return client.get(f"{shop}/", timeout=30)
    if dice < 0.75:
        return client.get(f"{shop}/search?q={product[: mind.randint(0, 3)]}", timeout=30)
    items = mind.randint(1, 6)
    product = product if dice < 0.98 else "gold"
    return client.post(f"{shop}/checkout/{product}?items={items}", timeout=30)
