"""A forwarder that is killed, or told to end, again and again while programs send to it over a Unix stream.

What is in carbon's own files in the end is compared with what was sent. The long runs are left to ``make faults``.
"""

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from metricslib.delivery import Sender, open_destination
from metricslib.naming import Naming
from metricslib.window import Flush, Window
from tests.end_to_end.conftest import Carbon
from tests.peers import Forwarder, Program, eventually

StartForwarder = Callable[..., Forwarder]
StartCarbon = Callable[[int], Carbon]

CLIENTS = 3
FEW, MANY = 2, pytest.param(20, marks=[pytest.mark.faults, pytest.mark.timeout(400)])
"""Lives of the forwarder: a minute is some twenty of them."""
HIT = Window(0, 10, 10, counters={"hits": 1})


class Client:
    """Counts on and on, ships each count as a batch of its own, and knows what became of it."""

    def __init__(self, url: str) -> None:
        self._sender = Sender(open_destination(url, Naming()), rng=lambda: 0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count)
        self.counted = 0

    def start(self) -> None:
        self._sender.start()
        self._thread.start()

    def _count(self) -> None:
        while not self._ended.wait(0.002):
            if self._sender.status().waiting_batches < 20:
                self._sender.put(*self._sender.destination.encode(Flush(HIT, HIT)))
                self.counted += 1

    @property
    def delivered(self) -> int:
        return self._sender.status().points_sent

    @property
    def up(self) -> bool:
        return self._sender.status().up

    def end(self) -> Counter[str]:
        """Count no more, and return what became of every count."""
        self.kill()
        assert self._sender.wait_idle(60)
        self._sender.stop(1)
        status = self._sender.status()
        return Counter({"delivered": status.points_sent, **status.dropped})

    def kill(self) -> None:
        self._ended.set()
        self._thread.join()


class Lives:
    """A forwarder with a spool directory that begins anew whenever it has ended. Carbon gets what its file gets."""

    def __init__(self, start: StartForwarder, listen: str, carbon: Carbon, folder: Path) -> None:
        self._start = start
        self._carbon = carbon
        self._file = folder / "windows.jsonl"
        self._flags = (
            *("--listen", listen, "--to", carbon.url, "--to", f"file://{self._file}"),
            *("--interval", "1", "--spool", f"{folder}/spool"),
        )
        self._began = int(time.time())
        self.begin()

    def begin(self) -> None:
        self.process = self._start(*self._flags)
        self.process.ready()

    def safe_since_now(self) -> None:
        """Wait until all that has been read up to now is in windows that are in the spool.

        One interval may end at this moment without what was read last, and is counted before it is in the spool.
        """
        self.process.ticks(3)

    def arrived(self) -> int:
        """End it, and return how many hits are in carbon's files."""
        assert self.process.end(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in self._file.read_text().splitlines()]
        slots = {line["end"]: line["counters"].get("hits", 0) for line in lines}
        total = sum(slots.values())
        self._carbon.adds_up({"stats.counters.hits.count": total}, self._began, int(time.time()) + 10)
        return int(total)


@pytest.fixture
def clients() -> Iterator[Callable[[str], list[Client]]]:
    """Call with a URL for clients that send to it."""
    started: list[Client] = []

    def start(url: str) -> list[Client]:
        started.extend(Client(url) for _ in range(CLIENTS))
        for client in started:
            client.start()
        return started

    yield start
    for client in started:
        client.kill()


def delivered(clients: list[Client]) -> int:
    return sum(client.delivered for client in clients)


def has_delivered(clients: list[Client], until: int) -> bool:
    return delivered(clients) >= until


@pytest.mark.parametrize("times", [FEW, MANY])
def test_kill_9_costs_plain_statsd_the_open_interval(
    forwarder: StartForwarder, start_carbon: StartCarbon, clients, tmp_path: Path, times: int
):
    """Nothing is counted twice. Lost are what a client itself counts as ``unconfirmed``, and, of what was read, no more
    than what came since the last interval that was whole when the forwarder died.
    """
    lives = Lives(forwarder, f"unix://{tmp_path}/s", start_carbon(1), tmp_path)
    senders = clients(f"statsd+unix://{tmp_path}/s?timeout=60s")
    dice, at_risk = random.Random(3), 0
    for _ in range(times):
        safe = delivered(senders)
        lives.safe_since_now()
        time.sleep(dice.random())
        lives.process.end(signal.SIGKILL)
        eventually(lambda: not any(client.up for client in senders))
        at_risk += delivered(senders) - safe
        lives.begin()
    fates = sum((client.end() for client in senders), Counter[str]())
    arrived = lives.arrived()
    assert fates.total() == sum(client.counted for client in senders)
    assert set(fates) <= {"delivered", "unconfirmed"}
    assert fates["unconfirmed"] <= times * CLIENTS
    assert fates["delivered"] - at_risk <= arrived <= fates.total()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_minute_of_kill_9_costs_numbered_batches_nothing(
    forwarder: StartForwarder, start_carbon: StartCarbon, program: Callable[..., Program], tmp_path: Path
):
    """Every count of every program is in carbon's files, once."""
    url, carbon = f"forwarder+unix://{tmp_path}/f", start_carbon(1)
    flags = ("--listen", url, "--to", carbon.url, "--interval", "1", "--spool", f"{tmp_path}/spool")
    dice, began = random.Random(4), int(time.time())
    process = forwarder(*flags)
    process.ready()
    programs = [program(f"w{number}", url) for number in range(CLIENTS)]
    for _ in range(30):
        time.sleep(dice.uniform(0, 4))
        process.end(signal.SIGKILL)
        process = forwarder(*flags)
        process.ready()
    for one in programs:
        one.tell_to_end()
    counted = sum((one.counted() for one in programs), Counter[str]())
    assert process.end(signal.SIGTERM) == 0
    kinds = {"hits": "counters", "took": "timers"}
    totals = {f"stats.{kinds[name.rpartition('.')[2]]}.{name}.count": float(n) for name, n in counted.items()}
    assert len(totals) == 2 * CLIENTS
    carbon.adds_up(totals, began, int(time.time()) + 10)


@pytest.mark.parametrize("times", [FEW, MANY])
def test_sigterm_under_load_loses_nothing_that_was_read(
    forwarder: StartForwarder, start_carbon: StartCarbon, clients, tmp_path: Path, times: int
):
    """It takes what has come, ends well, and the next goes on in the same slot. What was on its way to a socket that
    was closed is ``unconfirmed``, by the client's own count, and is all that may be missing.
    """
    lives = Lives(forwarder, f"unix://{tmp_path}/s", start_carbon(1), tmp_path)
    senders = clients(f"statsd+unix://{tmp_path}/s?timeout=60s")
    dice = random.Random(5)
    for _ in range(times):
        until = delivered(senders) + 1
        eventually(partial(has_delivered, senders, until))
        time.sleep(dice.random())
        assert lives.process.end(signal.SIGTERM) == 0
        lives.begin()
    fates = sum((client.end() for client in senders), Counter[str]())
    arrived = lives.arrived()
    assert fates.total() == sum(client.counted for client in senders)
    assert set(fates) <= {"delivered", "unconfirmed"}
    assert fates["delivered"] <= arrived <= fates.total()
