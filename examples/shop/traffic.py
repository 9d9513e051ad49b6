"""Visitors: steady HTTP traffic from a few threads, each with a mind of its own but the same in every run."""

import random
import threading
from collections import Counter

import requests

from .app import PRODUCTS


class Traffic:
    """Sends ``rate`` requests a second to the shop from ``visitors`` threads, and counts what it sent."""

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
            session.headers["X-Visitor"] = f"visitor-{number}"
            while not self._stop.wait(mind.expovariate(1 / self._pause)):
                try:
                    status = str(self._step(session, mind).status_code)
                except requests.RequestException as error:
                    status = type(error).__name__
                with self._lock:
                    self.sent[status] += 1

    def _step(self, session: requests.Session, mind: random.Random) -> requests.Response:
        dice = mind.random()
        product = mind.choice(list(PRODUCTS))
        if dice < 0.4:
            return session.get(f"{self._shop}/", timeout=30)
        if dice < 0.75:
            return session.get(f"{self._shop}/search", params={"q": product[: mind.randint(0, 3)]}, timeout=30)
        items = mind.randint(1, 6)
        product = product if dice < 0.98 else "gold"
        return session.post(f"{self._shop}/checkout/{product}", params={"items": items}, timeout=30)
