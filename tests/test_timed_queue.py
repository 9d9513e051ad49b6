"""A queue that is waited for with a limit keeps it, and loses neither an item nor a wake-up."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib.timed_queue import Empty, TimedQueue
from tests.peers import eventually
from tests.sockets import PATIENCE

ROOT = Path(__file__).parent.parent


def test_items_come_out_in_order():
    queue = TimedQueue[int]()
    for number in range(3):
        queue.put(number)
    assert len(queue) == 3
    assert [queue.get(), queue.get(timeout=1), queue.get(timeout=0)] == [0, 1, 2]
    assert not queue


@pytest.mark.parametrize("timeout", [0, 1e-9, 0.01])
def test_an_empty_queue_is_waited_for_no_longer_than_the_limit(timeout):
    with pytest.raises(Empty):
        TimedQueue[int]().get(timeout=timeout)


def test_a_limit_that_is_over_before_the_wait_begins_is_a_limit():
    """``SimpleQueue`` waits for ever then: after some hundred of these."""
    over = threading.Event()

    def wait() -> None:
        for number in range(20_000):
            queue = TimedQueue[int]()
            for _ in range(2):
                with pytest.raises(Empty):
                    queue.get(timeout=number % 2000 * 1e-9)
                queue.put(1)
                queue.get()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    assert over.wait(PATIENCE)


def test_a_waiting_thread_is_woken_by_each_item():
    """Also by many items that are put before it looks."""
    asked, answers, found = TimedQueue[int](), TimedQueue[int](), []

    def answer() -> None:
        while number := asked.get(timeout=PATIENCE):
            answers.put(number)

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(1, 2001):
        asked.put(number)
        if number % 3 == 0:
            found += [answers.get(timeout=PATIENCE) for _ in range(3)]
    asked.put(0)
    thread.join(PATIENCE)
    found += [answers.get(timeout=0) for _ in range(len(answers))]
    assert found == list(range(1, 2001))


def test_several_waiting_threads_get_everything():
    """One that is woken passes on the wake-up while there is more."""
    queue, found = TimedQueue[int](), TimedQueue[int]()

    def take() -> None:
        while number := queue.get(timeout=PATIENCE):
            found.put(number)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in [*range(1, 1001), 0, 0, 0, 0]:
        queue.put(number)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(found.get() for _ in range(len(found))) == list(range(1, 1001))


@pytest.fixture
def on_alarm() -> Iterator[TimedQueue[int]]:
    """A queue in which each SIGALRM puts a number, from the handler."""
    queue = TimedQueue[int]()
    before = signal.signal(signal.SIGALRM, lambda number, _frame: queue.put(number))
    yield queue
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_wake_the_thread_that_it_interrupts(on_alarm):
    """It runs in the middle of a wait."""
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    assert on_alarm.get(timeout=PATIENCE) == signal.SIGALRM


def test_signals_do_not_prolong_a_wait():
    """Each interrupts it, and the rest of the time is computed again."""
    over, main = threading.Event(), os.getpid()
    before = signal.signal(signal.SIGALRM, lambda *_: None)

    def disturb() -> None:
        while not over.wait(0.0005):
            os.kill(main, signal.SIGALRM)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(Empty):
                TimedQueue[int]().get(timeout=0.005)
        assert time.monotonic() - began < PATIENCE
    finally:
        over.set()
        thread.join(PATIENCE)
        eventually(lambda: not thread.is_alive())
        signal.signal(signal.SIGALRM, before)


def test_nothing_waits_with_a_limit_for_a_queue_of_the_standard_library():
    """It might never return."""
    for package in ("metricslib", "forwarder"):
        for file in (ROOT / package).rglob("*.py"):
            source = file.read_text()
            if file.name != "timed_queue.py" and re.search(r"\.get\((block|timeout|True)", source):
                assert "SimpleQueue" not in source, file
