"""The spool loses nothing without saying so, and holds no more than it may; in memory and on disk alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metricslib.delivery import Batch, MemorySpool, Spool
from metricslib.delivery.journal import Journal
from metricslib.delivery.lanes import Lanes
from metricslib.errors import InvalidOption
from metricslib.testing import ManualClock

OVERHEAD = 250
Make = Callable[..., Spool]


def batch(points: int = 1, size: int = 10, windows: int = 1) -> Batch:
    return Batch(0, points, b"x" * size, windows)


def take(spool: Spool) -> Batch:
    taken = spool.head()
    assert taken is not None
    return taken


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Call with the bounds of lanes for a spool with them, of each kind."""
    journals: list[Journal] = []

    def make(*bounds: Any, **more: Any) -> Spool:
        lanes = Lanes(*bounds, **more)
        if request.param == "memory":
            return MemorySpool(lanes)
        journals.append(Journal(tmp_path))
        spool = journals[-1].spool("place", lanes, once=False)
        journals[-1].open()
        return spool

    yield make
    for journal in journals:
        journal.close()


def waiting(spool: Spool) -> list[int]:
    """Take and deliver all that waits; return the points of each batch."""
    order = []
    while (taken := spool.head()) is not None:
        order.append(taken.points)
        spool.settle(taken)
    return order


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_batches_leave_in_the_order_in_which_they_came(make: Make):
    """Oldest first, and each is there until it is settled."""
    spool = make()
    spool.put(batch(1))
    spool.put(batch(2))
    first = take(spool)
    assert spool.head() is first
    spool.settle(first)
    second = take(spool)
    assert (first.points, second.points) == (1, 2)
    spool.settle(second)
    assert spool.head() is None


def test_the_oldest_is_dropped_when_it_is_full(make: Make):
    """The newest are what is asked for first after an outage."""
    spool = make(max_bytes=2 * (100 + OVERHEAD))
    for points in (1, 2, 4):
        spool.put(batch(points, 100))
    held = spool.holdings()
    assert held.dropped == {"spool_full": 1}
    assert (held.waiting_points, held.waiting_batches, held.waiting_bytes) == (6, 2, 200)


def test_a_batch_larger_than_the_bound_is_dropped_alone(make: Make):
    """It does not drive out what fits."""
    spool = make(max_bytes=1000)
    spool.put(batch(1, 100))
    spool.put(batch(5, 1001 - OVERHEAD))
    assert spool.holdings().dropped == {"spool_full": 5}
    assert spool.holdings().waiting_points == 1


def test_what_is_being_delivered_is_never_dropped(make: Make):
    """Or it could be counted as delivered and as dropped; the next oldest goes."""
    spool = make(max_bytes=2 * (100 + OVERHEAD), max_age=5, clock=ManualClock())
    spool.put(batch(1, 100))
    taken = take(spool)
    for points in (2, 4):
        spool.put(batch(points, 100))
    assert spool.holdings().dropped == {"spool_full": 2}
    spool.settle(taken)
    assert spool.holdings().delivered == 1


def test_what_cannot_fit_beside_the_batch_on_its_way_drives_out_nothing(make: Make):
    """It alone is dropped."""
    spool = make(max_bytes=2000)
    for points, size in ((1, 1000), (2, 10), (4, 900)):
        spool.put(batch(points, size))
        spool.head()
    assert spool.holdings().dropped == {"spool_full": 4}
    assert spool.holdings().waiting_points == 3


def test_what_has_waited_too_long_is_dropped(make: Make, clock: ManualClock):
    """By the time it waited, whatever its stamp says."""
    spool = make(max_age=60, clock=clock)
    spool.put(batch(1))
    clock.advance(60)
    spool.put(batch(2))
    assert spool.holdings().dropped == {}
    clock.advance(1)
    assert take(spool).points == 2
    assert spool.holdings().dropped == {"too_old": 1}


def test_many_small_batches_are_bounded_too(make: Make):
    """An empty payload takes memory as well."""
    spool = make(max_bytes=10_000)
    for _ in range(1000):
        spool.put(batch(1, 0))
    assert spool.holdings().waiting_batches == 10_000 // OVERHEAD


def test_a_part_that_remains_stays_at_the_head(make: Make):
    """What was delivered and what was lost of a batch are counted; the rest goes first."""
    spool = make()
    whole, rest, later = batch(10), batch(3), batch(1)
    spool.put(whole)
    spool.put(later)
    spool.settle(take(spool), rest, {"refused": 2})
    held = spool.holdings()
    assert (held.delivered, held.dropped, held.waiting_points) == (5, {"refused": 2}, 4)
    assert take(spool).points == 3


def test_an_outcome_that_cannot_be_is_refused(make: Make):
    """More lost than there was would unbalance the account."""
    spool = make()
    spool.put(batch(2))
    taken = take(spool)
    with pytest.raises(ValueError, match="more"):
        spool.settle(taken, None, {"bad_path": 3})
    spool.settle(taken)
    assert spool.holdings().delivered == 2


def test_windows_count_when_their_last_batch_is_delivered(make: Make):
    """Pieces of one window, and relayed points, are no windows; one that was lost was not sent."""
    spool = make()
    for windows in (0, 1, 1):
        spool.put(batch(1, windows=windows))
    spool.settle(take(spool))
    assert spool.holdings().windows == 0
    spool.settle(take(spool))
    spool.settle(take(spool), None, {"unconfirmed": 1})
    assert spool.holdings().windows == 1


def test_what_cannot_be_carried_is_in_the_account(make: Make):
    """Refused points were to be put, and are dropped."""
    spool = make()
    spool.refuse(7, "unsupported")
    assert (spool.holdings().put, spool.holdings().dropped) == (7, {"unsupported": 7})


def deliver(spool: Spool, points: int, size: int = 10) -> None:
    spool.put(batch(points, size))
    spool.settle(take(spool))


def test_a_rewind_puts_the_last_seconds_in_front_again(make: Make, clock: ManualClock):
    """Oldest first, before all that waits; counted back from the last delivery, however long ago that was."""
    spool = make(keep=60, clock=clock)
    for points in (1, 2, 4, 8):
        deliver(spool, points)
        clock.advance(30)
    clock.advance(3600)
    spool.put(batch(16))
    assert spool.rewind(60) == 14
    assert waiting(spool) == [2, 4, 8, 16]


def test_after_a_rewind_the_batch_on_its_way_still_arrives_last(make: Make, clock: ManualClock):
    """An older batch may hold an older value of the same slot: nothing older may be the last to arrive."""
    spool = make(keep=60, clock=clock)
    deliver(spool, 1)
    spool.put(batch(2))
    arrived = take(spool)
    assert spool.rewind(60) == 1
    spool.settle(arrived)  # it arrived, but it is sent once more
    assert waiting(spool) == [1, 2]
    assert spool.holdings().delivered == spool.holdings().put == 3


def test_a_repeat_counts_once(make: Make, clock: ManualClock):
    """It was delivered before: neither doing it again nor dropping it changes that. Only its bytes wait."""
    spool = make(keep=60, clock=clock)
    deliver(spool, 5)
    assert spool.rewind(60) == 5
    held = spool.holdings()
    assert (held.delivered, held.waiting_points, held.waiting_batches, held.waiting_bytes) == (5, 0, 1, 10)
    spool.settle(take(spool), None, {"bad_path": 2})
    assert (spool.holdings().delivered, spool.holdings().dropped) == (5, {})
    deliver(spool, 3)
    spool.rewind(60)
    spool.abandon("shutdown")
    assert (spool.holdings().delivered, spool.holdings().dropped) == (8, {})


def test_a_batch_is_repeated_once(make: Make, clock: ManualClock):
    """A destination that comes and goes gets everything twice at most, so what waits gets its turn."""
    spool = make(keep=60, clock=clock)
    deliver(spool, 5)
    assert spool.rewind(60) == 5
    spool.settle(take(spool))
    assert spool.rewind(60) == 0


def test_what_is_kept_to_repeat_is_bounded(make: Make, clock: ManualClock):
    """By a quarter of the spool; and repeats give way to what was never delivered."""
    spool = make(max_bytes=8 * (100 + OVERHEAD), keep=60, clock=clock)
    for _ in range(6):
        deliver(spool, 1, 100)
    assert spool.rewind(60) == 2
    spool.abandon("shutdown")
    for _ in range(6):
        deliver(spool, 1, 100)
    for _ in range(7):
        spool.put(batch(1, 100))
    assert spool.rewind(60) == 1
    spool.put(batch(1, 100))
    assert spool.holdings().waiting_batches == 8
    assert spool.holdings().waiting_points == 8
    assert spool.holdings().dropped == {}


def test_what_is_kept_to_repeat_does_not_grow_old(make: Make, clock: ManualClock):
    """Of what is older than a minute before the last delivery, nothing is kept, and no memory used."""
    spool = make(keep=60, clock=clock)
    for _ in range(10):
        deliver(spool, 1)
        clock.advance(30)
    assert spool.rewind(1e9) == 3


def test_nothing_is_kept_where_a_repeat_would_do_harm(make: Make, clock: ManualClock):
    """Without ``keep`` there is nothing to rewind."""
    spool = make(clock=clock)
    deliver(spool, 5)
    assert spool.rewind(60) == 0


def test_what_is_abandoned_is_counted_and_a_late_outcome_is_not(make: Make):
    """A delivery that comes to its end after the spool was given up changes nothing."""
    spool = make()
    for points in (1, 2):
        spool.put(batch(points))
    taken = take(spool)
    assert spool.abandon("shutdown") == 3
    spool.settle(taken)
    held = spool.holdings()
    assert (held.delivered, held.dropped, held.waiting_points) == (0, {"shutdown": 3}, 0)
    spool.put(batch(4))
    assert take(spool).points == 4


def test_a_child_starts_empty_whatever_lock_the_parent_held():
    """forget() takes no lock, so one that was held at the fork does not matter."""
    spool = MemorySpool()
    spool.put(batch(3))
    spool.head()
    held = spool._lock
    spool.forget()
    assert spool._lock is not held
    assert spool.holdings() == MemorySpool().holdings()
    assert spool.head() is None


@pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"max_bytes": -1}, {"max_age": 0}])
def test_a_bound_that_means_nothing_is_refused(bounds):
    """A spool that could hold nothing is a mistake of set-up."""
    with pytest.raises(InvalidOption):
        Lanes(**bounds)


class Accounts(RuleBasedStateMachine):
    """Whatever happens in whatever order: put = delivered + dropped + waiting, and the bound holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.spool = MemorySpool(Lanes(max_bytes=2000, max_age=100, keep=60, clock=self.clock))
        self.taken: Batch | None = None
        self.late = False  # whether it was abandoned, or put back, meanwhile
        self.put = 0

    @rule(points=st.integers(0, 9), size=st.integers(0, 900))
    def put_one(self, points: int, size: int) -> None:
        self.put += points
        self.spool.put(batch(points, size))

    @rule(points=st.integers(0, 9))
    def refuse(self, points: int) -> None:
        self.put += points
        self.spool.refuse(points, "unsupported")

    @rule()
    def take(self) -> None:
        head = self.spool.head()
        assert self.taken is None or self.late or head is self.taken
        self.taken, self.late = head, False

    @rule(data=st.data())
    def settle(self, data) -> None:
        if self.taken is not None:
            remains = data.draw(st.integers(0, self.taken.points))
            lost = data.draw(st.integers(0, self.taken.points - remains))
            rest = batch(remains, len(self.taken.payload) // 2) if remains else None
            before = self.spool.holdings().delivered
            self.spool.settle(self.taken, rest, {"refused": lost})
            delivered = self.spool.holdings().delivered - before
            assert delivered in (0, self.taken.points - remains - lost)
            assert not (self.late and delivered)
            self.taken = None

    @rule()
    def fail(self) -> None:
        if self.taken is not None:
            self.spool.settle(self.taken, self.taken)
            self.taken = None

    @rule(seconds=st.integers(0, 120))
    def rewind(self, seconds: int) -> None:
        before = self.spool.holdings().waiting_batches
        self.spool.rewind(seconds)
        self.late = self.late or self.spool.holdings().waiting_batches > before  # then it waits behind these

    @rule(seconds=st.integers(0, 120))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def abandon(self) -> None:
        self.spool.abandon("shutdown")
        self.late = True
        assert self.spool.holdings().waiting_batches == 0

    @invariant()
    def balances(self) -> None:
        held = self.spool.holdings()
        assert held.put == self.put
        assert held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points
        assert min(held.delivered, held.waiting_points, held.waiting_bytes, *held.dropped.values(), 0) == 0
        assert held.waiting_bytes + OVERHEAD * held.waiting_batches <= 2000


TestAccounts = Accounts.TestCase


# -- batches that are taken together


def test_batches_that_wait_together_can_be_taken_as_one(make: Make, clock: ManualClock):
    """With ``join`` between their payloads, in their order, and with the points of all of them."""
    spool = make(join=b"|", clock=clock)
    for number in (1, 2, 3):
        spool.put(Batch(7, number, b"%d" % number, windows=number))
    taken = take(spool)
    assert (taken.stamp, taken.points, taken.payload, taken.windows) == (7, 6, b"1|2|3", 6)
    assert take(spool) is taken
    spool.put(batch())
    assert spool.holdings().waiting_batches == 2
    spool.settle(taken, None, {"lost": 1})
    held = spool.holdings()
    assert (held.put, held.delivered, held.dropped, held.waiting_points) == (7, 5, {"lost": 1}, 1)
    assert (held.waiting_batches, held.waiting_bytes) == (1, 10)


def test_what_is_taken_together_is_bounded(make: Make):
    """At about a mebibyte; a larger batch is taken alone."""
    spool = make(join=b"\n")
    sizes = [1 << 19, 1 << 19, 10, 1 << 21, 10]
    for size in sizes:
        spool.put(batch(size=size))
    taken = []
    while one := spool.head():
        taken.append(len(one.payload))
        spool.settle(one)
    assert taken == [(1 << 20) + 1, 10, 1 << 21, 10]


def test_what_remains_of_batches_taken_together_goes_on_waiting(make: Make, clock: ManualClock):
    """In front, as old as the oldest of them, and within the bound."""
    spool = make(2 * (OVERHEAD + 20), max_age=60, join=b"\n", clock=clock)
    spool.put(batch(2))
    clock.advance(50)
    spool.put(batch(3))
    both = take(spool)
    spool.settle(both, Batch(0, 4, b"x" * 18, 0))
    assert spool.holdings().delivered == 1
    clock.advance(11)
    assert spool.head() is None
    held = spool.holdings()
    assert (held.dropped, held.waiting_points, held.waiting_bytes) == ({"too_old": 4}, 0, 0)
    for _ in range(3):
        spool.put(batch())
    assert spool.holdings().dropped == {"too_old": 4, "spool_full": 1}
