"""After an outage what is new goes first, the backlog beside it at its rate, and no old value arrives last."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metricslib.delivery import Batch, MemorySpool
from metricslib.delivery.lanes import Lanes
from metricslib.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def spool(clock: ManualClock) -> MemorySpool:
    return MemorySpool(Lanes(keep=60, replay=100, clock=clock))


def put(spool: MemorySpool, *stamps: int, points: int = 1) -> None:
    for stamp in stamps:
        spool.put(Batch(stamp, points, b"x"))


def take(spool: MemorySpool) -> Batch:
    taken = spool.head()
    assert taken is not None
    return taken


def fail(spool: MemorySpool) -> None:
    taken = take(spool)
    spool.settle(taken, taken)


def deliver(spool: MemorySpool) -> int:
    taken = take(spool)
    spool.settle(taken)
    return taken.stamp


def test_what_is_new_goes_before_a_backlog(spool: MemorySpool):
    """An outage makes a backlog of all that waits; later windows pass it, in their order."""
    put(spool, 10, 20)
    fail(spool)
    put(spool, 30, 40)
    held = spool.holdings()
    assert (held.backlog_batches, held.backlog_points, held.waiting_batches) == (2, 2, 4)
    assert [deliver(spool) for _ in range(4)] == [30, 40, 10, 20]
    assert spool.holdings().backlog_points == 0


def test_each_failure_makes_a_backlog_of_what_waits_since(spool: MemorySpool):
    """While the destination is away each attempt is made with the newest; the order of the backlog stays."""
    for stamp in (10, 20, 30):
        put(spool, stamp)
        fail(spool)
    assert [deliver(spool) for _ in range(3)] == [10, 20, 30]


def test_a_slot_that_is_in_the_backlog_is_not_passed(spool: MemorySpool):
    """Graphite keeps the last value it gets: the one of the flush must not arrive after the one of the tick."""
    put(spool, 10, 20)
    fail(spool)
    put(spool, 20, 30)
    assert [deliver(spool) for _ in range(4)] == [30, 10, 20, 20]


def test_a_slot_that_is_on_its_way_out_of_the_backlog_is_not_passed_either(spool: MemorySpool):
    """It may come back."""
    put(spool, 10)
    fail(spool)
    taken = take(spool)
    put(spool, 10)
    assert spool.holdings().backlog_batches == 2
    spool.settle(taken, taken)
    assert [deliver(spool), deliver(spool)] == [10, 10]
    put(spool, 10)
    assert spool.holdings().backlog_batches == 0


def test_what_is_sent_again_is_not_passed_by_its_own_slot(spool: MemorySpool):
    """Repeats go before all that waits, what was live as well."""
    put(spool, 10)
    deliver(spool)
    put(spool, 10, 20, 30)
    arrived = take(spool)
    assert spool.rewind(60) == 1
    spool.settle(arrived)
    put(spool, 40)
    assert [deliver(spool) for _ in range(5)] == [40, 10, 10, 20, 30]


def test_a_backlog_goes_out_at_its_rate(spool: MemorySpool, clock: ManualClock):
    """At 100 points a second: a second's worth at once, then as time passes. What is new never waits for it."""
    for stamp in range(10, 60, 10):
        put(spool, stamp, points=100)
    fail(spool)
    assert spool.holdings().replay_rate == 100
    assert [deliver(spool), deliver(spool)] == [10, 20]
    assert spool.head() is None
    assert spool.pause() == 1
    put(spool, 60)
    assert spool.pause() == 0
    assert deliver(spool) == 60
    clock.advance(0.5)
    assert spool.pause() == 0.5
    clock.advance(0.5)
    assert deliver(spool) == 30
    assert spool.head() is None
    taken = spool.head(hurry=True)
    assert taken is not None
    assert taken.stamp == 40


def test_a_destination_that_is_slower_than_the_rate_is_not_waited_for(spool: MemorySpool, clock: ManualClock):
    """And the rate that is told is its own."""
    put(spool, 10, 20, 30, points=100)
    fail(spool)
    for stamp in (10, 20, 30):
        taken = take(spool)
        assert taken.stamp == stamp
        clock.advance(4)
        spool.settle(taken)
        assert spool.holdings().replay_rate == 25
    assert spool.pause() is None


def test_a_failed_attempt_costs_the_backlog_no_time(spool: MemorySpool):
    """Only what arrives is paid for."""
    put(spool, 10, points=10_000)
    for _ in range(5):
        fail(spool)
    assert spool.pause() == 0


def test_the_oldest_is_dropped_first_in_whichever_lane(clock: ManualClock):
    """Of the backlog, and then of what is live."""
    spool = MemorySpool(Lanes(3 * 251, replay=100, clock=clock))
    put(spool, 10, 20, points=1)
    fail(spool)
    put(spool, 30, 40, points=1)
    assert [deliver(spool) for _ in range(3)] == [30, 40, 20]
    assert spool.holdings().dropped == {"spool_full": 1}


def test_without_a_rate_there_is_one_lane(clock: ManualClock):
    """Who adds up gets everything in its order: first in, first out."""
    spool = MemorySpool(Lanes(clock=clock))
    put(spool, 10, 20)
    fail(spool)
    put(spool, 30)
    assert spool.holdings().backlog_batches == 0
    assert [deliver(spool) for _ in range(3)] == [10, 20, 30]


class LastValues(RuleBasedStateMachine):
    """Whatever fails whenever: what a destination got last for a slot is the last that was put for it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.spool = MemorySpool(Lanes(keep=60, replay=20, clock=self.clock))
        self.put: dict[int, int] = {}
        self.got: dict[int, int] = {}
        self.value = 0
        self.failed = False

    @rule(stamp=st.integers(1, 4), points=st.integers(1, 30))
    def send(self, stamp: int, points: int) -> None:
        self.value += 1
        self.put[stamp] = self.value
        self.spool.put(Batch(stamp, points, b"%d" % self.value))

    @rule(fails=st.booleans(), arrives=st.booleans())
    def attempt(self, fails: bool, arrives: bool) -> None:
        taken = self.spool.head()
        if taken is None:
            return
        if arrives or not fails:
            self.got[taken.stamp] = int(taken.payload)
        if fails:
            self.spool.settle(taken, taken)
        elif not (self.failed and self.spool.rewind(60)):
            self.spool.settle(taken)
        self.failed = fails

    @rule(seconds=st.integers(0, 120))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def drain(self) -> None:
        while taken := self.spool.head(hurry=True):
            self.got[taken.stamp] = int(taken.payload)
            self.spool.settle(taken)
        self.failed = False
        assert self.got == self.put
        assert self.spool.pause() is None

    @invariant()
    def balances(self) -> None:
        held = self.spool.holdings()
        assert held.put == held.delivered + held.waiting_points
        assert 0 <= held.backlog_batches <= held.waiting_batches
        assert (held.backlog_points > 0) == (held.backlog_batches > 0)


TestLastValues = LastValues.TestCase
