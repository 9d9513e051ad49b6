"""What was dropped, by cause: exact, from anywhere, without waiting."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib import drops as account_module
from metricslib.drops import QUIET, DropCounter, DropLog

COUNTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=50)


@given(st.lists(COUNTS, max_size=5))
def test_every_cause_has_its_sum_however_often_it_is_read(rounds):
    """Reading changes nothing, and causes stand in the order in which they first appeared."""
    account, model = DropCounter(), {}
    for counts in rounds:
        for cause, count in counts:
            account.add(cause, count)
            model[cause] = model.get(cause, 0) + count
        assert account.totals() == model
        assert list(account.totals()) == list(model)


@given(st.lists(COUNTS, max_size=5))
def test_what_is_fresh_adds_up_to_the_totals(rounds):
    """For the one reader that passes the account on: nothing twice, nothing never."""
    account, passed_on = DropCounter(), {}
    for counts in rounds:
        for cause, count in counts:
            account.add(cause, count)
        for cause, count in account.fresh().items():
            assert count > 0
            passed_on[cause] = passed_on.get(cause, 0) + count
    assert passed_on == account.totals()


def test_what_is_returned_is_the_readers_own():
    """Changing it changes nothing in the account."""
    account = DropCounter()
    account.add("a")
    account.totals()["a"] = 7
    assert account.totals() == {"a": 1}


def test_threads_lose_nothing_while_totals_are_read():
    """Four threads count 20,000 each; every reading lies on the way up, and the last is exact."""
    account, seen = DropCounter(), []
    threads = [threading.Thread(target=lambda: [account.add("a") for _ in range(20_000)]) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(account.totals().get("a", 0))
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen == sorted(seen)
    assert account.totals() == {"a": 80_000}


def test_a_held_lock_stops_nobody_and_loses_nothing(monkeypatch):
    """A signal handler may ask for the totals in the middle of a count: it gets what is there, and later all of it."""
    monkeypatch.setattr(account_module, "_PATIENCE", 0.001)
    account = DropCounter()
    account.add("a")
    account.totals()
    with account._lock:
        for _ in range(1000):
            account.add("a")
        assert account.totals() == {"a": 1}
    assert account.totals() == {"a": 1001}


@pytest.mark.parametrize("count", [1, 10_000])
def test_what_waits_is_bounded(count):
    """Counting on and on without a reader keeps no list of it."""
    account = DropCounter()
    for _ in range(count):
        account.add("a")
    assert len(account._pending) <= 257
    assert account.totals() == {"a": count}


def test_drops_are_worth_a_warning_at_once_and_then_once_a_minute(clock):
    """With the number since the last warning, and each cause for itself."""
    drop_log = DropLog(clock)
    assert drop_log.due({}) == []
    assert drop_log.due({"a": 0}) == []
    assert drop_log.due({"a": 3}) == [("a", 3)]
    clock.advance(QUIET - 1)
    assert drop_log.due({"a": 5, "b": 1}) == [("b", 1)]
    clock.advance(1)
    assert drop_log.due({"a": 6, "b": 2}) == [("a", 3)]
    clock.advance(QUIET)
    assert drop_log.due({"a": 6, "b": 2}) == [("b", 1)]
    clock.advance(QUIET)
    assert drop_log.due({"a": 6, "b": 2}) == []
