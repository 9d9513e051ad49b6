"""After an outage what is new goes first, the backlog beside it at its rate, and no old value arrives last."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metricslib.delivery import Batch, Queue
from metricslib.delivery.queue import OVERHEAD
from metricslib.testing import ManualClock


@pytest.fixture
def queue(clock: ManualClock) -> Queue:
    return Queue(keep=60, replay=100, clock=clock)


def put(queue: Queue, *stamps: int, points: int = 1) -> None:
    for stamp in stamps:
        queue.put([Batch(stamp, points, b"x")])


def take(queue: Queue) -> Batch:
    taken = queue.take()
    assert taken is not None
    return taken


def fail(queue: Queue) -> None:
    taken = take(queue)
    queue.retry(taken)


def deliver(queue: Queue) -> int:
    taken = take(queue)
    queue.ack(taken)
    return taken.stamp


def test_the_newest_stamp_goes_first(queue: Queue):
    """An outage leaves a backlog; later windows pass it, and what people look at arrives first."""
    put(queue, 10, 20)
    fail(queue)
    put(queue, 30, 40)
    held = queue.stats()
    assert (held.backlog_batches, held.backlog_points, held.waiting_batches) == (2, 2, 4)
    assert [deliver(queue) for _ in range(4)] == [40, 30, 20, 10]
    assert queue.stats().backlog_points == 0


def test_within_a_stamp_it_is_first_in_first_out(queue: Queue):
    """Graphite keeps the last value it gets: the one of the flush must not arrive after the one of the tick."""
    put(queue, 10, 20)
    fail(queue)
    put(queue, 20, points=7)
    put(queue, 30)
    assert [deliver(queue), deliver(queue)] == [30, 20]
    assert take(queue).points == 7


def test_what_failed_keeps_its_place(queue: Queue):
    """While it is on its way, and when it comes back."""
    put(queue, 10)
    fail(queue)
    taken = take(queue)
    put(queue, 10, points=7)
    queue.retry(taken)
    assert take(queue).points == 1
    assert deliver(queue) == 10
    assert take(queue).points == 7


def test_what_is_sent_again_goes_before_its_own_slot(queue: Queue):
    """It keeps its sequence, which is smaller."""
    put(queue, 10)
    deliver(queue)
    put(queue, 10, points=7)
    put(queue, 20, 30)
    queue.ack(take(queue), resend=True)
    assert deliver(queue) == 20
    assert take(queue).points == 1
    assert deliver(queue) == 10
    assert take(queue).points == 7


def test_of_a_slot_only_the_last_window_is_sent_again(queue: Queue):
    """A process that ends in the middle of it would otherwise leave an older value in the slot."""
    for points in (1, 2):
        put(queue, 10, points=points)
        deliver(queue)
    queue.put([Batch(10, 3, b"x", 0), Batch(10, 4, b"x")])
    assert [deliver(queue), deliver(queue)] == [10, 10]
    put(queue, 20, points=5)
    queue.ack(take(queue), resend=True)
    again = [take(queue).points]
    queue.ack(take(queue))
    again.append(take(queue).points)
    queue.ack(take(queue))
    assert again == [3, 4]
    assert not len(queue)


def test_what_is_sent_again_gives_way_to_what_was_never_delivered(clock: ManualClock):
    """Also where it is of the newest window, which is otherwise kept beside the bound."""
    queue = Queue(max_bytes=4 * (OVERHEAD + 1), keep=60, replay=100, clock=clock)
    put(queue, 10)
    deliver(queue)
    assert queue.resend([b"x"]) == [b"x"]
    for _ in range(4):
        queue.put([Batch(0, 7, b"x", 0)])
    assert (queue.stats().waiting_points, queue.stats().waiting_batches, queue.stats().dropped) == (28, 4, {})


def test_what_is_sent_again_does_not_hide_how_old_the_rest_is(queue: Queue, clock: ManualClock):
    """The lag is that of what has waited longest."""
    put(queue, 10)
    clock.advance(100)
    put(queue, 20)
    deliver(queue)
    put(queue, 30)
    queue.ack(take(queue), resend=True)
    assert queue.stats().waiting_batches == 2
    assert queue.stats().lag == 100


def test_a_backlog_goes_out_at_its_rate(queue: Queue, clock: ManualClock):
    """At 100 points a second: a second's worth at once, then as time passes. What is new never waits for it."""
    for stamp in range(10, 60, 10):
        put(queue, stamp, points=100)
    fail(queue)
    assert queue.stats().replay_rate == 100
    assert [deliver(queue), deliver(queue)] == [50, 40]
    assert queue.take() is None
    assert queue.wait() == 1
    put(queue, 60)
    assert queue.wait() == 0
    assert deliver(queue) == 60
    clock.advance(0.5)
    assert queue.wait() == 0.5
    clock.advance(0.5)
    assert deliver(queue) == 30
    assert queue.take() is None
    taken = queue.take(hurry=True)
    assert taken is not None
    assert taken.stamp == 20


def test_a_destination_that_is_slower_than_the_rate_is_not_waited_for(queue: Queue, clock: ManualClock):
    """And the rate that is told is its own."""
    put(queue, 10, 20, 30, points=100)
    fail(queue)
    for stamp in (30, 20, 10):
        taken = take(queue)
        assert taken.stamp == stamp
        clock.advance(4)
        queue.ack(taken)
        assert queue.stats().replay_rate == 25
    assert queue.wait() is None


def test_a_failed_attempt_costs_the_backlog_no_time(queue: Queue):
    """Only what arrives is paid for."""
    put(queue, 10, points=10_000)
    for _ in range(5):
        fail(queue)
    assert queue.wait() == 0


def test_the_oldest_is_dropped_first_and_the_last_to_be_sent(clock: ManualClock):
    """So what is left after a long outage are the newest windows."""
    queue = Queue(2 * 251, replay=100, clock=clock)
    put(queue, 10, 20)
    fail(queue)
    put(queue, 30, 40)
    assert [deliver(queue) for _ in range(3)] == [40, 30, 20]
    assert queue.stats().dropped == {"spool_full": 1}


def test_without_a_rate_it_is_first_in_first_out(clock: ManualClock):
    """Who adds up gets everything in its order."""
    queue = Queue(clock=clock)
    put(queue, 20, 10)
    fail(queue)
    put(queue, 30)
    assert queue.stats().backlog_batches == 0
    assert [deliver(queue) for _ in range(3)] == [20, 10, 30]


def test_what_was_dropped_leaves_no_trace(clock: ManualClock):
    """An outage for ever under a bound takes no more memory than the bound."""
    queue = Queue(10 * 251, replay=100, clock=clock)
    for stamp in range(10_000):
        put(queue, stamp)
    assert len(queue._order) < 100


class LastValues(RuleBasedStateMachine):
    """Whatever fails whenever: what a destination got last for a slot is the last that was put for it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.queue = Queue(keep=60, replay=20, clock=self.clock)
        self.put: dict[int, int] = {}
        self.got: dict[int, int] = {}
        self.value = 0
        self.failed = False

    @rule(stamp=st.integers(1, 4), points=st.integers(1, 30))
    def send(self, stamp: int, points: int) -> None:
        self.value += 1
        self.put[stamp] = self.value
        self.queue.put([Batch(stamp, points, b"%d" % self.value)])

    @rule(fails=st.booleans(), arrives=st.booleans())
    def attempt(self, fails: bool, arrives: bool) -> None:
        taken = self.queue.take()
        if taken is None:
            return
        if arrives or not fails:
            self.got[taken.stamp] = int(taken.payload)
        if fails:
            self.queue.retry(taken)
        else:
            self.queue.ack(taken, resend=self.failed)
        self.failed = fails

    @rule(seconds=st.integers(0, 120))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def drain(self) -> None:
        while taken := self.queue.take(hurry=True):
            self.got[taken.stamp] = int(taken.payload)
            self.queue.ack(taken)
        self.failed = False
        assert self.got == self.put
        assert self.queue.wait() is None

    @invariant()
    def balances(self) -> None:
        held = self.queue.stats()
        assert held.put == held.delivered + held.waiting_points
        assert 0 <= held.backlog_batches <= held.waiting_batches
        assert (held.backlog_points > 0) == (held.backlog_batches > 0)


TestLastValues = LastValues.TestCase
