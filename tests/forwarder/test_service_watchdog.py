"""When the service manager is told that the forwarder is alive, and when not."""

import logging
from types import SimpleNamespace

import pytest

from forwarder.service import Notifier, Watchdog
from metricslib.testing import ManualClock
from tests.peers import eventually


class Told(Notifier):
    """Remembers what would have been told."""

    def __init__(self, watchdog: float) -> None:
        super().__init__("nowhere", watchdog)
        self.told: list[str] = []

    def _tell(self, *lines: str) -> None:
        self.told += lines


@pytest.fixture
def flusher():
    return SimpleNamespace(interval=10, turns=0)


@pytest.fixture
def listeners():
    return [SimpleNamespace(address=f"udp://127.0.0.1:{port}", alive=True) for port in (1, 2)]


@pytest.fixture
def notifier():
    return Told(30)


@pytest.fixture
def watchdog(notifier, flusher, listeners, clock: ManualClock):
    return Watchdog(notifier, flusher, listeners, clock=clock)


def test_alive_while_intervals_end(watchdog, notifier, flusher, clock):
    """Every look is reported while the flusher turns, however long that goes on."""
    for _ in range(100):
        clock.advance(15)
        flusher.turns += 1
        assert watchdog.look() == ""
    assert notifier.told == ["WATCHDOG=1"] * 100


def test_an_interval_may_be_long_and_late_by_the_patience_of_the_manager(watchdog, notifier, flusher, clock):
    """No turn is missed before an interval and the watchdog's time have passed."""
    flusher.interval = 3600
    clock.advance(3630)
    assert watchdog.look() == ""
    clock.advance(1)
    assert watchdog.look() == "no interval has ended for more than 3630 s"


def test_a_flusher_that_does_not_turn_is_not_reported_alive(watchdog, notifier, flusher, clock, caplog):
    """The manager is told once what is wrong, the log too; when it turns again, all is well again."""
    clock.advance(41)
    with caplog.at_level(logging.ERROR):
        assert watchdog.look()
        assert watchdog.look()
    assert notifier.told == ["STATUS=no interval has ended for more than 40 s"]
    assert caplog.text.count("no interval has ended") == 1
    flusher.turns += 1
    assert watchdog.look() == ""
    assert notifier.told[-1] == "WATCHDOG=1"


def test_a_listener_that_is_not_read_is_not_reported_alive(watchdog, notifier, listeners):
    """One dead listener is enough, for what is sent to it is lost."""
    listeners[1].alive = False
    assert watchdog.look() == "udp://127.0.0.1:2 is no longer read"
    assert "WATCHDOG=1" not in notifier.told


def test_it_looks_by_itself_until_it_is_stopped(flusher, listeners):
    """Twice in the time that the manager waits."""
    notifier = Told(0.002)
    watchdog = Watchdog(notifier, flusher, listeners)
    watchdog.start()
    eventually(lambda: len(notifier.told) > 2)
    watchdog.stop()
    looked = len(notifier.told)
    watchdog.stop()
    assert len(notifier.told) == looked


def test_without_a_watchdog_nobody_looks(flusher, listeners):
    """A manager that does not wait for it is not told."""
    notifier = Told(0)
    watchdog = Watchdog(notifier, flusher, listeners)
    watchdog.start()
    watchdog.stop()
    assert notifier.told == []
