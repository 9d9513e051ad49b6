"""A queue loses nothing without saying so, and holds no more than it may; in memory and on disk alike."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metricslib.delivery import Batch, Queue
from metricslib.delivery.queue import ADVICE
from metricslib.delivery.store import Store
from metricslib.errors import InvalidOption
from metricslib.testing import ManualClock
from tests.peers import ROOT

OVERHEAD = 250
Make = Callable[..., Queue]


def batch(points: int = 1, size: int = 10, windows: int = 1) -> Batch:
    return Batch(0, points, b"x" * size, windows)


def take(queue: Queue) -> Batch:
    taken = queue.take()
    assert taken is not None
    return taken


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Call with the bounds of a queue for one with them, of each kind."""
    stores: list[Store] = []

    def make(*bounds: Any, **more: Any) -> Queue:
        if request.param == "memory":
            return Queue(*bounds, **more)
        stores.append(Store(tmp_path))
        queue = Queue(*bounds, **{"label": "place", **more}, store=stores[-1])
        stores[-1].open()
        return queue

    yield make
    for store in stores:
        store.close()


def waiting(queue: Queue) -> list[int]:
    """Take and deliver all that waits; return the points of each batch."""
    order = []
    while (taken := queue.take()) is not None:
        order.append(taken.points)
        queue.ack(taken)
    return order


def test_batches_leave_in_the_order_in_which_they_came(make: Make):
    """Oldest first, and each is there until it is settled."""
    queue = make()
    queue.put([batch(1)])
    queue.put([batch(2)])
    first = take(queue)
    assert queue.take() is first
    queue.ack(first)
    second = take(queue)
    assert (first.points, second.points) == (1, 2)
    queue.ack(second)
    assert queue.take() is None


def test_what_an_earlier_process_left_is_sent_before_newer_batches_of_its_slots_and_within_the_bound():
    """So that an older value of a slot never arrives last."""
    queue = Queue(max_bytes=3 * (10 + OVERHEAD), replay=1000.0)
    queue.put([Batch(20, 1, b"2" * 10)])
    queue.put_backlog([Batch(10, 2, b"1" * 10), Batch(20, 4, b"1" * 10), Batch(20, 8, b"1" * 10)])
    assert queue.stamps() == {10, 20}
    assert [one.points for one in queue.batches({20})] == [4, 8, 1]
    assert queue.stats().backlog_points == 14
    queue.put_backlog([Batch(30, 16, b"0" * 10)])
    assert queue.stats().dropped == {"spool_full": 16}
    assert waiting(queue) == [4, 8, 1, 2]


def test_the_oldest_is_dropped_when_it_is_full(make: Make):
    """The newest are what is asked for first after an outage. The newest window is beside the bound."""
    queue = make(max_bytes=2 * (100 + OVERHEAD))
    for points in (1, 2, 4, 8):
        queue.put([batch(points, 100)])
    held = queue.stats()
    assert held.dropped == {"spool_full": 1}
    assert (held.waiting_points, held.waiting_batches, held.waiting_bytes) == (14, 3, 300)


def test_a_window_larger_than_the_bound_waits_whole_until_the_next(make: Make):
    """A healthy destination gets all of it: the bound is for what waits beside the window in flight."""
    queue = make(max_bytes=1000)
    queue.put([batch(1, 200, windows=0), batch(2, 200, windows=0), batch(4, 200)])
    assert queue.stats().dropped == {}
    assert queue.stats().waiting_points == 7
    queue.put([batch(8, 100)])
    assert queue.stats().dropped == {"spool_full": 1}
    assert waiting(queue) == [2, 4, 8]


def test_a_window_that_is_being_sent_stays_whole_when_the_next_comes(make: Make):
    """As at a stop right after a tick. When it fails, the bound is for what is left of it, too."""
    queue = make(max_bytes=1000)
    queue.put([batch(1, 400, windows=0), batch(2, 400, windows=0), batch(4, 400)])
    queue.ack(take(queue))
    queue.put([batch(8, 100)])
    assert queue.stats().dropped == {}
    queue.retry(take(queue))
    queue.put([batch(16, 100)])
    assert queue.stats().dropped == {"spool_full": 2}


def test_what_is_relayed_leaves_the_window_in_flight_alone(make: Make):
    """It is no window: over the bound it is dropped itself."""
    queue = make(max_bytes=1000)
    queue.put([batch(1, 2000)])
    for points in (2, 4, 8):
        queue.put([batch(points, 200, windows=0)])
    assert queue.stats().dropped == {"spool_full": 2}
    assert waiting(queue) == [1, 4, 8]


def test_a_window_larger_than_memory_loses_its_tail(make: Make):
    """Counted; what comes first is sent."""
    queue = make(max_bytes=400, window_bytes=2 * (100 + OVERHEAD))
    queue.put([batch(points, 100, windows=points // 8) for points in (1, 2, 4, 8)])
    held = queue.stats()
    assert (held.put, held.dropped, held.waiting_points) == (15, {"spool_full": 12}, 3)


def test_the_first_drop_of_a_cause_is_one_warning_and_then_one_a_minute(
    make: Make, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """With the number, the cause and what to change."""
    queue = make(max_bytes=100, clock=clock, label="graphite://host:2003")
    for _ in range(5):
        queue.put([batch(3)])
    queue.refuse(7, "unsupported")
    assert [record.getMessage() for record in caplog.records] == [
        "graphite://host:2003: 3 points dropped, cause spool_full: set spool_bytes=200 or more in its URL",
        "graphite://host:2003: 7 points dropped, cause unsupported:"
        " send relayed points to a URL that begins with graphite, whisper or console",
    ]
    clock.advance(60)
    queue.put([batch(3)])
    assert "12 points dropped, cause spool_full" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 3


def test_what_is_being_delivered_is_never_dropped(make: Make):
    """Or it could be counted as delivered and as dropped; the next oldest goes."""
    queue = make(max_bytes=2 * (100 + OVERHEAD), max_age=5, clock=ManualClock())
    queue.put([batch(1, 100)])
    taken = take(queue)
    for points in (2, 4, 8, 16):
        queue.put([batch(points, 100)])
    assert queue.stats().dropped == {"spool_full": 2}
    queue.ack(taken)
    assert queue.stats().delivered == 1


def test_what_has_waited_too_long_is_dropped(make: Make, clock: ManualClock):
    """By the time it waited, whatever its stamp says."""
    queue = make(max_age=60, clock=clock)
    queue.put([batch(1)])
    clock.advance(60)
    queue.put([batch(2)])
    assert queue.stats().dropped == {}
    clock.advance(1)
    assert take(queue).points == 2
    assert queue.stats().dropped == {"too_old": 1}


def test_many_small_batches_are_bounded_too(make: Make):
    """An empty payload takes memory as well."""
    queue = make(max_bytes=10_000)
    for _ in range(1000):
        queue.put([batch(1, 0)])
    assert queue.stats().waiting_batches == 10_000 // OVERHEAD + 1


def test_a_part_that_remains_stays_at_the_head(make: Make):
    """What was delivered and what was lost of a batch are counted; the rest goes first."""
    queue = make()
    whole, rest, later = batch(10), batch(3), batch(1)
    queue.put([whole])
    queue.put([later])
    queue.retry(take(queue), rest, {"refused": 2})
    held = queue.stats()
    assert (held.delivered, held.dropped, held.waiting_points) == (5, {"refused": 2}, 4)
    assert take(queue).points == 3


def test_an_outcome_that_cannot_be_is_refused(make: Make):
    """More lost than there was would unbalance the account."""
    queue = make()
    queue.put([batch(2)])
    taken = take(queue)
    with pytest.raises(ValueError, match="more"):
        queue.ack(taken, {"bad_path": 3})
    queue.ack(taken)
    assert queue.stats().delivered == 2


def test_windows_count_when_their_last_batch_is_delivered(make: Make):
    """Pieces of one window, and relayed points, are no windows; one that was lost was not sent."""
    queue = make()
    for windows in (0, 1, 1):
        queue.put([batch(1, windows=windows)])
    queue.ack(take(queue))
    assert queue.stats().windows == 0
    queue.ack(take(queue))
    queue.ack(take(queue), {"unconfirmed": 1})
    assert queue.stats().windows == 1


def test_what_cannot_be_carried_is_in_the_account(make: Make):
    """Refused points were to be put, and are dropped."""
    queue = make()
    queue.refuse(7, "unsupported")
    assert (queue.stats().put, queue.stats().dropped) == (7, {"unsupported": 7})


def deliver(queue: Queue, points: int, size: int = 10, *, resend: bool = False) -> None:
    queue.put([batch(points, size)])
    queue.ack(take(queue), resend=resend)


def test_after_an_outage_the_last_seconds_go_in_front_again(make: Make, clock: ManualClock):
    """Oldest first, before all that waits; counted back from the last delivery, however long ago that was."""
    queue = make(keep=60, clock=clock)
    for points in (1, 2, 4, 8):
        deliver(queue, points)
        clock.advance(30)
    clock.advance(3600)
    queue.put([Batch(10, 16, b"x")])
    queue.put([Batch(20, 32, b"x")])
    queue.ack(take(queue), resend=True)
    assert waiting(queue) == [2, 4, 8, 32]


def test_after_an_outage_what_ended_it_still_arrives_last(make: Make, clock: ManualClock):
    """An older batch may hold an older value of the same slot: nothing older may be the last to arrive."""
    queue = make(keep=60, clock=clock)
    deliver(queue, 1)
    deliver(queue, 2, resend=True)
    assert waiting(queue) == [1, 2]
    assert queue.stats().delivered == queue.stats().put == 3


def test_a_repeat_counts_once(make: Make, clock: ManualClock):
    """It was delivered before: neither doing it again nor dropping it changes that. Only its bytes wait."""
    queue = make(keep=60, clock=clock)
    deliver(queue, 5)
    deliver(queue, 1, resend=True)
    held = queue.stats()
    assert (held.delivered, held.waiting_points, held.waiting_batches, held.waiting_bytes) == (6, 0, 2, 20)
    queue.ack(take(queue), {"bad_path": 2})
    assert (queue.stats().delivered, queue.stats().dropped) == (6, {})
    queue.drop_all("shutdown")
    assert (queue.stats().delivered, queue.stats().dropped) == (6, {})


def test_a_batch_is_repeated_once(make: Make, clock: ManualClock):
    """A destination that comes and goes gets everything twice at most, so what waits gets its turn."""
    queue = make(keep=60, clock=clock)
    deliver(queue, 5)
    deliver(queue, 7, resend=True)
    assert waiting(queue) == [5, 7]
    queue.put([batch(9)])
    queue.ack(take(queue), resend=True)
    assert waiting(queue) == []


def lines_of(*texts: bytes) -> list[Batch]:
    return [Batch(stamp, 1, b"a 1 1\n" + text, 1) for stamp, text in enumerate(texts)]


def payloads(queue: Queue) -> list[bytes]:
    """Deliver all that waits; return it."""
    found = []
    while taken := queue.take():
        found.append(taken.payload)
        queue.ack(taken)
    return found


def test_a_delivered_batch_is_sent_again_by_its_last_line_once(make: Make, clock: ManualClock):
    """In the account it was delivered once. What is not kept is not found."""
    queue = make(keep=60, replay=1000, clock=clock)
    first, second = lines_of(b"x 1 1\n", b"y 2 2\n")
    queue.put([first])
    queue.put([second])
    assert len(payloads(queue)) == 2
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)
    assert queue.resend([b"x 1 1\n", b"z 3 3\n", b""]) == [b"x 1 1\n"]
    assert woken == [True]
    assert queue.stats().waiting_points == 0
    assert queue.stats().waiting_batches == 1
    assert payloads(queue) == [first.payload]
    assert queue.resend([b"x 1 1\n"]) == []
    assert queue.stats().delivered == queue.stats().put == 2


def test_what_is_sent_again_never_overwrites_what_is_newer(make: Make, clock: ManualClock):
    """Later values of the slot go again behind it, and wait for nothing while one of them is on its way."""
    queue = make(keep=60, replay=1000, clock=clock)
    early, whole, late = (Batch(7, 1, b"x %d 7\n" % value) for value in (1, 2, 3))
    other = Batch(8, 1, b"x 9 8\n")
    for one in (early, whole, other):
        queue.put([one])
    payloads(queue)
    queue.put([late])
    taken = take(queue)
    assert queue.resend([early.payload]) is None
    assert queue.resend([other.payload]) == [other.payload]
    queue.retry(taken)
    assert queue.resend([early.payload]) == [early.payload]
    clock.advance(60)
    assert payloads(queue) == [other.payload, early.payload, whole.payload, late.payload]


def test_what_is_sent_again_fits_into_the_queue(make: Make, clock: ManualClock):
    """It gives way to what was never delivered, the oldest first."""
    queue = make(max_bytes=8 * (100 + OVERHEAD), keep=60, replay=1000, clock=clock)
    queue.put([Batch(7, 1, b"x" * 100), Batch(7, 1, b"y" * 100)])
    payloads(queue)
    for _ in range(7):
        queue.put([batch(1, 100)])
    assert queue.resend([b"x" * 100, b"y" * 100]) == [b"y" * 100]
    assert queue.stats().dropped == {}


def test_what_is_delivered_can_be_kept_longer(make: Make, clock: ManualClock):
    """For as long as it is looked for, in a forked child too."""
    queue = make(keep=60, replay=1000, clock=clock)
    queue.keep(120)
    queue.reset_after_fork()
    first, second = lines_of(b"x 1 1\n", b"y 2 2\n")
    queue.put([first])
    payloads(queue)
    clock.advance(119)
    queue.put([second])
    payloads(queue)
    assert queue.resend([b"x 1 1\n"]) == [b"x 1 1\n"]


def test_what_is_kept_to_repeat_is_bounded(make: Make, clock: ManualClock):
    """By a quarter of the queue; and repeats give way to what was never delivered."""
    queue = make(max_bytes=8 * (100 + OVERHEAD), keep=60, clock=clock)
    for _ in range(6):
        deliver(queue, 1, 100)
    queue.put([Batch(7, 1, b"x" * 100)])
    queue.ack(take(queue), resend=True)
    assert queue.stats().waiting_batches == 2
    for _ in range(9):
        queue.put([batch(1, 100)])
    assert queue.stats().waiting_batches == 9
    assert queue.stats().waiting_points == 9
    assert queue.stats().dropped == {}


def test_what_is_kept_to_repeat_does_not_grow_old(make: Make, clock: ManualClock):
    """Of what is older than a minute before the last delivery, nothing is kept, and no memory used."""
    queue = make(keep=60, clock=clock)
    for _ in range(10):
        deliver(queue, 1)
        clock.advance(30)
    queue.put([Batch(7, 1, b"x")])
    queue.ack(take(queue), resend=True)
    assert queue.stats().waiting_batches == 3


def test_nothing_is_kept_where_a_repeat_would_do_harm(make: Make, clock: ManualClock):
    """Without ``keep`` there is nothing to send again."""
    queue = make(clock=clock)
    deliver(queue, 5)
    deliver(queue, 5, resend=True)
    assert queue.stats().waiting_batches == 0


def test_what_is_abandoned_is_counted_and_a_late_outcome_is_not(make: Make):
    """A delivery that comes to its end after the queue was given up changes nothing."""
    queue = make()
    for points in (1, 2):
        queue.put([batch(points)])
    taken = take(queue)
    assert queue.drop_all("shutdown") == 3
    queue.ack(taken)
    held = queue.stats()
    assert (held.delivered, held.dropped, held.waiting_points) == (0, {"shutdown": 3}, 0)
    queue.put([batch(4)])
    assert take(queue).points == 4


def test_a_child_starts_empty_whatever_lock_the_parent_held():
    """forget() takes no lock, so one that was held at the fork does not matter."""
    queue = Queue()
    queue.put([batch(3)])
    queue.take()
    held = queue._lock
    queue.reset_after_fork()
    assert queue._lock is not held
    assert queue.stats() == Queue().stats()
    assert queue.take() is None


@pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"max_bytes": -1}, {"max_age": 0}])
def test_a_bound_that_means_nothing_is_refused(bounds):
    """A queue that could hold nothing is a mistake of set-up."""
    with pytest.raises(InvalidOption):
        Queue(**bounds)


class Accounts(RuleBasedStateMachine):
    """Whatever happens in whatever order: put = delivered + dropped + waiting, and the bound holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.queue = Queue(max_bytes=2000, max_age=100, keep=60, clock=self.clock)
        self.taken: Batch | None = None
        self.late = False  # whether it was abandoned meanwhile
        self.put = self.newest = 0

    @rule(points=st.integers(0, 9), size=st.integers(0, 900))
    def put_one(self, points: int, size: int) -> None:
        self.put += points
        self.newest = size + OVERHEAD
        self.queue.put([batch(points, size)])

    @rule(points=st.integers(0, 9))
    def refuse(self, points: int) -> None:
        self.put += points
        self.queue.refuse(points, "unsupported")

    @rule()
    def take(self) -> None:
        head = self.queue.take()
        assert self.taken is None or self.late or head is self.taken
        self.taken, self.late = head, False

    @rule(data=st.data(), resend=st.booleans())
    def settle(self, data, resend: bool) -> None:
        if self.taken is not None:
            remains = data.draw(st.integers(0, self.taken.points))
            lost = data.draw(st.integers(0, self.taken.points - remains))
            before = self.queue.stats().delivered
            if remains:
                rest = batch(remains, len(self.taken.payload) // 2)
                self.queue.retry(self.taken, rest, {"refused": lost})
            else:
                self.queue.ack(self.taken, {"refused": lost}, resend=resend)
            delivered = self.queue.stats().delivered - before
            assert delivered in (0, self.taken.points - remains - lost)
            assert not (self.late and delivered)
            self.taken = None

    @rule(size=st.integers(0, 900))
    def resend(self, size: int) -> None:
        before = self.queue.stats()
        self.queue.resend([b"x" * size, batch(1, size).payload])
        after = self.queue.stats()
        assert (after.put, after.delivered, after.dropped) == (before.put, before.delivered, before.dropped)

    @rule()
    def fail(self) -> None:
        if self.taken is not None:
            self.queue.retry(self.taken)
            self.taken = None

    @rule(seconds=st.integers(0, 120))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def abandon(self) -> None:
        self.queue.drop_all("shutdown")
        self.late = True
        assert self.queue.stats().waiting_batches == 0

    @invariant()
    def balances(self) -> None:
        held = self.queue.stats()
        assert held.put == self.put
        assert held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points
        assert min(held.delivered, held.waiting_points, held.waiting_bytes, *held.dropped.values(), 0) == 0
        assert held.waiting_bytes + OVERHEAD * held.waiting_batches <= 2000 + self.newest + 900 + OVERHEAD


TestAccounts = Accounts.TestCase


# -- batches that are taken together


def test_batches_that_wait_together_can_be_taken_as_one(make: Make, clock: ManualClock):
    """With ``join`` between their payloads, in their order, and with the points of all of them."""
    queue = make(join=b"|", clock=clock)
    for number in (1, 2, 3):
        queue.put([Batch(7, number, b"%d" % number, windows=number)])
    taken = take(queue)
    assert (taken.stamp, taken.points, taken.payload, taken.windows) == (7, 6, b"1|2|3", 6)
    assert take(queue) is taken
    queue.put([batch()])
    assert queue.stats().waiting_batches == 2
    queue.ack(taken, {"lost": 1})
    held = queue.stats()
    assert (held.put, held.delivered, held.dropped, held.waiting_points) == (7, 5, {"lost": 1}, 1)
    assert (held.waiting_batches, held.waiting_bytes) == (1, 10)


def test_what_is_taken_together_is_bounded(make: Make):
    """At about a mebibyte; a larger batch is taken alone."""
    queue = make(join=b"\n")
    sizes = [1 << 19, 1 << 19, 10, 1 << 21, 10]
    for size in sizes:
        queue.put([batch(size=size)])
    taken = []
    while one := queue.take():
        taken.append(len(one.payload))
        queue.ack(one)
    assert taken == [(1 << 20) + 1, 10, 1 << 21, 10]


def test_what_remains_of_batches_taken_together_goes_on_waiting(make: Make, clock: ManualClock):
    """In front, as old as the oldest of them, and within the bound."""
    queue = make(2 * (OVERHEAD + 20), max_age=60, join=b"\n", clock=clock)
    queue.put([batch(2)])
    clock.advance(50)
    queue.put([batch(3)])
    both = take(queue)
    queue.retry(both, Batch(0, 4, b"x" * 18, 0))
    assert queue.stats().delivered == 1
    clock.advance(11)
    assert queue.take() is None
    held = queue.stats()
    assert (held.dropped, held.waiting_points, held.waiting_bytes) == ({"too_old": 4}, 0, 0)
    for _ in range(4):
        queue.put([batch()])
    assert queue.stats().dropped == {"too_old": 4, "spool_full": 1}


def test_a_single_point_is_one_point(caplog: pytest.LogCaptureFixture):
    """In a warning, as in "1 point dropped"."""
    Queue(label="d").refuse(1, "refused")
    assert caplog.messages == [
        "d: 1 point dropped, cause refused: start the server, or correct host and port in its URL"
    ]


def test_a_window_larger_than_memory_names_the_option_of_the_registry(caplog: pytest.LogCaptureFixture):
    """Not ``spool_bytes``, which would not help."""
    Queue(window_bytes=1000, label="d").put([batch(1, 2000)])
    assert caplog.messages == [
        "d: 1 point dropped, cause spool_full: one window is too large; measure less,"
        " or set the registry's max_bytes=2000 or more"
    ]


def test_an_advice_names_a_value_that_the_option_takes(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """However long it is."""
    queue = Queue(max_age=30 * 86400, label="d", clock=clock)
    queue.put([batch(2)])
    clock.advance(31 * 86400)
    queue.put([])
    assert caplog.messages == ["d: 2 points dropped, cause too_old: set max_age=5184000s or more in its URL"]


def test_every_cause_in_the_reference_has_an_advice():
    """A warning of a drop names what to change; ``shutdown`` has its own line at the end."""
    page = (ROOT / "docs/reference/destinations.md").read_text()
    table = page.partition("| cause | destinations | |\n")[2].partition("\n\n")[0]
    causes = {cause for row in table.splitlines() for cause in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert causes - {"shutdown"} == set(ADVICE)


def test_the_end_logs_what_a_warning_a_minute_held_back(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """The process may be gone before the next minute."""
    queue = Queue(label="d", clock=clock)
    for _ in range(2):
        queue.refuse(2, "corrupt")
    queue.drop_unsaved("shutdown")
    assert [message.partition(",")[0] for message in caplog.messages] == ["d: 2 points dropped"] * 2
