"""A sender delivers in order, tries again in good time, survives everything, accounts for all, and ends when told."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from metricslib.delivery import (
    Batch,
    Deadline,
    Destination,
    Options,
    Queue,
    Sender,
    Undelivered,
    open_destination,
    verify,
)
from metricslib.delivery.store import Store
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from tests.peers import GraphitePeer, eventually
from tests.sockets import datagram_server

LINE = b"a 1 1700000000\n"
Outcome = Exception | Mapping[str, int] | Callable[[bytes, Deadline], Mapping[str, int]]


def fails(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
    """The destination is away."""
    raise Undelivered("host:2003: Connection refused", payload) from ConnectionRefusedError()


class Fake(Destination):
    """A destination that does what the test says, one outcome after the other, and succeeds when nothing is said."""

    def __init__(self, *outcomes: Outcome, **options) -> None:
        super().__init__("fake://host", Options(**options))
        self.outcomes = list(outcomes)
        self.delivered: list[bytes] = []
        self.attempts = 0
        self.closed = 0

    def encode(self, flush: Flush) -> list[Batch]:
        return [Batch(flush.cumulative.end, 1, b"window %d\n" % flush.cumulative.end)]

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        self.attempts += 1
        outcome = self.outcomes.pop(0) if self.outcomes else {}
        if isinstance(outcome, Exception):
            raise outcome
        lost = outcome(payload, deadline) if callable(outcome) else outcome
        self.delivered.append(payload)
        return lost

    def close(self) -> None:
        self.closed += 1


def batch(text: bytes = LINE, points: int | None = None) -> Batch:
    return Batch(0, text.count(b"\n") if points is None else points, text)


@pytest.fixture
def senders() -> Iterator[Callable[..., Sender]]:
    """Call with a destination for a sender whose thread ends with the test."""
    made: list[Sender] = []

    def make(destination, **options) -> Sender:
        made.append(Sender(destination, **options))
        return made[-1]

    yield make
    for sender in made:
        sender.stop(0)


def balanced(sender: Sender) -> bool:
    held = sender.queue.stats()
    return held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points


# -- one step after the other


def test_only_who_is_waited_for_or_has_more_behind_it_is_urgent(senders):
    """A destination that could wait for an answer, or ask for one, knows so which to do."""
    urgent: list[bool] = []

    def note(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        urgent.append(deadline.urgent)
        return {}

    def wait(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        eventually(lambda: deadline.urgent)
        return {}

    one = senders(Fake(note, note, wait))
    one.put(batch(), batch())
    one.step()
    one.step()
    assert urgent == [True, False]
    one.put(batch())
    assert one.stop(5)


def test_a_destination_says_how_many_points_remain_where_not_every_line_is_one(senders):
    """Headers among them are no points."""
    rest = b"header\na 1 0\n"
    one = senders(Fake(Undelivered("reset", rest, points=1)))
    one.put(batch(b"header\na 1 0\n" * 2, points=2))
    one.step()
    held = one.queue.stats()
    assert (held.delivered, held.waiting_points) == (1, 1)


def test_batches_are_delivered_in_order_and_nothing_is_due_then():
    """One attempt a step; None says that nothing waits."""
    destination = Fake()
    sender = Sender(destination)
    for text in (b"1\n", b"2\n", b"3\n"):
        sender.put(batch(text))
    assert [sender.step(), sender.step(), sender.step(), sender.step()] == [0, 0, None, None]
    assert destination.delivered == [b"1\n", b"2\n", b"3\n"]


def test_a_window_that_arrived_is_counted():
    """By the batch that stands for it."""
    destination = Fake()
    sender = Sender(destination)
    sender.put(Batch(10, 1, b"window 10\n"))
    sender.step()
    assert destination.delivered == [b"window 10\n"]
    assert sender.status().windows_sent == 1


def test_relayed_points_keep_path_and_stamp_and_are_no_window():
    """They pass by naming and prefix."""
    destination = Fake()
    sender = Sender(destination)
    sender.relay([("a.b", 0.5, 1_700_000_000), ("c;k=v", 2, 5)])
    sender.relay([])
    sender.step()
    assert destination.delivered == [b"a.b 0.5 1700000000\nc;k=v 2 5\n"]
    assert (sender.status().points_sent, sender.status().windows_sent) == (2, 0)


def test_points_that_a_destination_cannot_carry_are_counted():
    """Cause ``unsupported``; nothing waits."""
    destination = Fake()
    destination.relays = False
    sender = Sender(destination)
    sender.relay([("a.b", 0.5, 1_700_000_000)] * 3)
    assert sender.step() is None
    assert sender.status().dropped == {"unsupported": 3}
    assert balanced(sender)


def test_waits_between_attempts_grow_to_a_bound(clock: ManualClock):
    """From half a second, doubled each time, to half a minute; and nothing is tried before it is due."""
    destination = Fake(*[fails] * 10)
    sender = Sender(destination, clock=clock, rng=lambda: 1.0)
    sender.put(batch())
    waits = []
    for _ in range(10):
        wait = sender.step()
        assert wait is not None
        waits.append(wait)
        assert sender.step() == wait
        clock.advance(wait)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert destination.attempts == 10
    assert sender.step() is None
    assert destination.delivered == [LINE]


def test_waits_are_a_random_share_of_the_bound(clock: ManualClock):
    """A server that comes back is not met by everybody at once."""
    sender = Sender(Fake(fails, fails), clock=clock, rng=iter([0.25, 0.75]).__next__)
    sender.put(batch())
    assert sender.step() == 0.125
    clock.advance(0.125)
    assert sender.step() == 0.75


def test_the_wait_starts_small_again_after_a_success(clock: ManualClock):
    """Each outage is a new one."""
    sender = Sender(Fake(fails, fails, {}, fails), clock=clock, rng=lambda: 1.0)
    sender.put(batch())
    for wait in (0.5, 1.0, None):
        assert sender.step() == wait
        clock.advance(wait or 0)
    sender.put(batch())
    assert sender.step() == 0.5


def test_what_was_lost_on_the_way_is_dropped_by_cause():
    """A delivery may succeed and still have lost something, such as paths that are none."""
    sender = Sender(Fake({"bad_path": 2}))
    sender.put(batch(LINE * 5))
    sender.step()
    assert sender.status().points_sent == 3
    assert sender.status().dropped == {"bad_path": 2}
    assert sender.status().up


def test_a_part_that_remains_is_tried_again_alone(clock: ManualClock):
    """What was delivered, lost and kept of it is counted in lines."""
    destination = Fake(Undelivered("refused", b"c:1|c\n\nd:1|c\ne:1|c", {"refused": 1}))
    sender = Sender(destination, clock=clock)
    sender.put(Batch(10, 5, b"a:1|c\n\nb:1|c\n\nc:1|c\n\nd:1|c\ne:1|c"))
    sender.step()
    status = sender.status()
    assert (status.points_sent, status.dropped, status.waiting_points) == (1, {"refused": 1}, 3)
    assert status.windows_sent == 0
    clock.advance(30)
    sender.step()
    assert destination.delivered == [b"c:1|c\n\nd:1|c\ne:1|c"]
    assert (sender.status().points_sent, sender.status().windows_sent) == (4, 1)
    assert balanced(sender)


def test_what_must_not_be_sent_again_is_gone():
    """All of unknown fate is lost; nothing waits, and the destination is down."""
    sender = Sender(Fake(Undelivered("reset", b"", {"unconfirmed": 2})))
    sender.put(batch(b"a:1|c\nb:1|c\n"))
    assert sender.step() is None
    status = sender.status()
    assert (status.dropped, status.waiting_points, status.up) == ({"unconfirmed": 2}, 0, False)


def test_after_an_outage_the_last_minute_is_sent_again(clock: ManualClock):
    """A Graphite server may have died with it in memory. Counted once; old before new, for the last value stays."""
    destination = Fake()
    sender = Sender(destination, clock=clock)
    for number in range(10):
        sender.put(batch(b"%d\n" % number))
        sender.step()
        clock.advance(10)
    destination.outcomes = [fails] * 3
    sender.put(batch(b"10\n"))
    for _ in range(3):
        sender.step()
        clock.advance(600)
    destination.delivered.clear()
    while sender.step() is not None:
        pass
    assert destination.delivered == [b"10\n", *[b"%d\n" % number for number in range(3, 10)], b"10\n"]
    assert sender.status().points_sent == 11
    assert sender.status().windows_sent == 11
    assert balanced(sender)


def test_what_graphite_does_not_show_is_sent_again(clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    """The sender has what it delivered looked for, in the resend buffer of its queue."""
    shown: list[str] = []
    monkeypatch.setattr(verify, "_get", lambda url, timeout: f"[{','.join(shown)}]".encode())
    destination = Fake(verify="http://graphite/render")
    sender = Sender(destination, clock=clock)
    stamp = int(clock.time())
    text = LINE + b"metricslib.verify.host.0 5 %d\n" % stamp
    sender.put(Batch(stamp, 2, text))
    sender.step()
    assert sender.verifier
    for _ in range(12):
        sender.verifier.step()
        clock.advance(6)
    assert sender.step() is None
    assert destination.delivered == [text, text]
    shown.append(f'{{"target": "metricslib.verify.host.0", "datapoints": [[5, {stamp}]]}}')
    clock.advance(6)
    sender.verifier.step()
    status = sender.status()
    assert (status.verified, status.unverified, status.verify_trouble) == (stamp, 0, None)
    assert (status.points_sent, status.waiting_points) == (2, 0)


def test_looking_goes_on_with_other_options(senders):
    """A reload with the same URL loses nothing; with another, or none, it begins anew, or ends."""
    sender = senders(Fake(verify="http://a/render"))
    sender.start()
    first = sender.verifier
    sender.redirect(Fake(verify="http://a/render", timeout=1.0))
    assert sender.verifier is first
    sender.redirect(Fake(verify="http://b/render"))
    assert sender.verifier is not first
    sender.redirect(Fake())
    assert sender.verifier is None
    eventually(lambda: not any("verify" in thread.name for thread in threading.enumerate()))


def test_a_forked_child_waits_for_no_lock_of_its_parents(senders):
    """Another thread may have held the queue's when the process was forked."""
    sender = senders(Fake(verify="http://graphite/render"))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with sender.queue._lock:
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    child = threading.Thread(target=sender.reset_after_fork, daemon=True)
    child.start()
    child.join(5)
    in_time = not child.is_alive()
    done.set()
    holder.join()
    assert in_time


def test_an_api_that_hangs_holds_up_nothing(senders, peer, over: threading.Event):
    """Neither deliveries nor the end of the program."""
    asked = threading.Event()

    def hang(connection: socket.socket) -> None:
        asked.set()
        over.wait(60)

    api = peer(hang)
    sender = senders(Fake(verify=f"http://127.0.0.1:{api.port}/render"))
    sender.start()
    text = LINE + b"metricslib.verify.host.0 5 1700000000\n"
    sender.put(Batch(1_700_000_000, 2, text))
    eventually(lambda: sender.status().points_sent == 2)
    assert asked.wait(20)
    for _ in range(3):
        sender.put(Batch(1_700_000_000, 2, text))
    eventually(lambda: sender.status().points_sent == 8)
    began = time.monotonic()
    assert sender.stop(5)
    assert time.monotonic() - began < 4


def test_a_destination_that_is_down_drains_no_backlog(clock: ManualClock):
    """Whatever the limit of the rate is: nothing goes out."""
    sender = Sender(Fake(fails), clock=clock, rng=lambda: 1.0)
    sender.put(batch())
    sender.step()
    status = sender.status()
    assert (status.backlog_points, status.replay_rate, status.drained_in) == (1, 0.0, None)
    clock.advance(1)
    sender.put(batch(), batch())
    sender.step()
    assert sender.status().replay_rate == 20_000


def test_after_a_restart_an_outage_is_as_old_as_what_waits(tmp_path: Path, clock: ManualClock):
    """Nothing was confirmed since then, by this process or the one before."""
    began = clock.time()
    for _ in range(2):
        store = Store(tmp_path, clock=clock)
        sender = Sender(Fake(fails), Queue(label="fake://host", store=store, clock=clock), clock=clock)
        store.open()
        sender.put(batch())
        sender.step()
        assert not sender.status().up
        assert sender.status().since == began
        store.close()
        clock.advance(3600)


def test_other_options_of_a_destination_hold_for_its_queue(clock: ManualClock):
    """As after a reload: its warnings of drops ask for larger bounds."""
    sender = Sender(Fake(fails, spool_bytes=1, replay=1), clock=clock)
    sender.redirect(Fake(spool_bytes=10_000, max_age=60, replay=100))
    for _ in range(3):
        sender.put(batch())
    assert sender.queue.stats().waiting_points == 3
    assert sender.queue.stats().replay_rate == 100
    sender.redirect(Fake(spool_bytes=300))
    sender.put(batch())
    assert sender.queue.stats().dropped == {"spool_full": 2}
    sender.redirect(Fake(max_age=60))
    clock.advance(61)
    sender.put(batch())
    assert sender.queue.stats().dropped == {"spool_full": 2, "too_old": 2}


def test_nothing_is_sent_again_to_who_adds_up(clock: ManualClock):
    """A statsd server would count it twice."""
    destination = Fake({}, fails)
    destination.resend = False
    sender = Sender(destination, clock=clock)
    for text in (b"1\n", b"2\n"):
        sender.put(batch(text))
        sender.step()
    clock.advance(30)
    while sender.step() is not None:
        pass
    assert destination.delivered == [b"1\n", b"2\n"]


def test_the_urls_options_bound_spool_and_attempt(clock: ManualClock):
    """Bytes, age, and the time of one attempt."""
    left: list[float] = []

    def deliver(payload, deadline):
        left.append(deadline.left())
        return {}

    sender = Sender(Fake(deliver, timeout=7.0, spool_bytes=1000, max_age=60), clock=clock)
    sender.put(batch(b"x" * 1001, 1))
    sender.put(batch(b"old\n"))
    assert sender.status().dropped == {"spool_full": 1}
    clock.advance(61)
    sender.put(batch(b"new\n"))
    sender.step()
    assert sender.status().dropped == {"spool_full": 1, "too_old": 1}
    assert 6 < left[0] <= 7


# -- errors


@pytest.mark.parametrize("error", [RuntimeError("hunter2"), ValueError(), MemoryError(), KeyError("x")])
def test_any_exception_is_survived_and_counted(clock: ManualClock, caplog: pytest.LogCaptureFixture, error):
    """A defect of a destination costs a wait and a line in the log, which has the place but not the error's text."""
    sender = Sender(Fake(error), clock=clock)
    sender.put(batch())
    sender.step()
    status = sender.status()
    assert status.errors_by_type == {type(error).__name__: 1}
    assert (status.errors, status.up, status.waiting_points) == (1, False, 1)
    assert status.last_error == f"unexpected {type(error).__name__}"
    (record,) = caplog.records
    assert "test_sender.py" in record.getMessage()
    assert "hunter2" not in record.getMessage()
    clock.advance(30)
    sender.step()
    assert sender.status().up
    assert balanced(sender)


@pytest.mark.parametrize(
    "outcome", [{"bad_path": 99}, Undelivered("odd", b"a\nb\nc\n"), Undelivered("odd", LINE, {"refused": 99})]
)
def test_an_impossible_account_costs_nothing(clock: ManualClock, outcome):
    """A destination that loses more than there was is wrong: the batch is tried again."""
    sender = Sender(Fake(outcome), clock=clock)
    sender.put(batch())
    sender.step()
    assert sender.status().waiting_points == 1
    assert sender.status().errors_by_type["ValueError"] == 1
    clock.advance(30)
    sender.step()
    assert sender.status().points_sent == 1
    assert balanced(sender)


def test_errors_are_logged_once_until_the_next_success(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """A night's outage is one line in the log, and its end another; the next outage is heard again."""
    caplog.set_level(logging.INFO, "metricslib")
    sender = Sender(Fake(fails, fails, fails, {}, fails, fails), clock=clock)
    for _ in range(2):
        sender.put(batch())
        for _ in range(5):
            sender.step()
            clock.advance(30)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING", "INFO"]
    assert caplog.records[0].getMessage().startswith("fake://host: host:2003: Connection refused")
    assert sender.status().errors_by_type == {"ConnectionRefusedError": 5}


def test_the_end_of_an_outage_says_what_became_of_its_points(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "metricslib")
    sender = Sender(Fake(fails, {}, {}, {}, fails, {}, {}), clock=clock)
    sender.put(batch(LINE))
    sender.step()
    sender.put(batch(LINE * 2))
    sender.put(batch(LINE * 3))
    for _ in range(3):
        clock.advance(30)
        sender.step()
    end = caplog.records[-1]
    expected = "fake://host: delivering again after 30 s; kept in memory: 6 points"
    assert (end.levelname, end.getMessage()) == ("INFO", expected)


def test_what_an_outage_dropped_is_a_warning_at_its_end(clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """Drops of an earlier outage are not counted again."""
    sender = Sender(Fake(fails, {}, fails, {}, spool_bytes=len(LINE) * 2), clock=clock)
    for _ in range(2):
        sender.put(batch(LINE))
        sender.step()
        sender.put(batch(LINE * 2))
        clock.advance(30)
        sender.step()
        clock.advance(120)  # what was delivered is not kept for another outage any more
    ends = [record.getMessage() for record in caplog.records if "again after" in record.getMessage()]
    assert ends == ["fake://host: delivering again after 30 s; kept in memory: 2 points, dropped: 1"] * 2


def test_the_status_says_how_it_goes(clock: ManualClock):
    """Up or down and since when, age of the last success, what was sent, failed and waits."""
    begin = clock.time()
    sender = Sender(Fake({}, fails), clock=clock)
    assert (sender.status().up, sender.status().since, sender.status().age) == (True, begin, None)
    sender.put(batch(LINE * 3))
    sender.step()
    clock.advance(5)
    assert sender.status().age == 5
    sender.put(batch(LINE))
    sender.step()
    clock.advance(3)
    status = sender.status()
    assert (status.label, status.up, status.since, status.age) == ("fake://host", False, begin + 5, 8)
    assert (status.windows_sent, status.points_sent, status.bytes_sent) == (1, 3, 3 * len(LINE))
    assert (status.waiting_batches, status.waiting_points, status.waiting_bytes) == (1, 1, len(LINE))
    assert status.last_error == "host:2003: Connection refused"


def test_the_status_says_when_it_failed_and_how_the_last_delivery_went(clock: ManualClock):
    """The last failure stays when it is over; seconds and bytes are of the last attempt that succeeded."""

    def slowly(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        clock.advance(2)
        return {}

    sender = Sender(Fake(fails, slowly), clock=clock, rng=lambda: 0.0)
    sender.put(batch())
    assert sender.status().last_failure == sender.status().last_seconds == sender.status().last_bytes == 0
    failed = clock.time()
    sender.step()
    assert (sender.status().last_failure, sender.status().last_bytes) == (failed, 0)
    sender.step()
    status = sender.status()
    assert (status.last_failure, status.last_seconds, status.last_bytes) == (failed, 2, len(LINE))


@pytest.mark.parametrize("failed", [False, True])
def test_a_destination_that_confirms_nothing_is_not_up(clock: ManualClock, failed: bool):
    """However long an attempt may take: five seconds after something was due, and since then; until it confirms."""
    states: list[tuple[bool, float]] = []

    def slowly(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        for _ in range(3):
            clock.advance(4)
            states.append((sender.status().up, sender.status().since))
        if failed:
            raise Undelivered("no answer", payload)
        return {}

    begin = clock.time()
    sender = Sender(Fake(slowly, timeout=60), clock=clock, rng=lambda: 1.0)
    sender.put(batch())
    sender.step()
    assert states == [(True, begin), (False, begin), (False, begin)]
    assert sender.status().up is not failed


def test_a_backlog_that_is_held_back_is_nothing_to_confirm(clock: ManualClock):
    """It waits for its rate, not for the destination."""
    sender = Sender(Fake(fails, replay=1), clock=clock, rng=lambda: 0.0)
    for _ in range(3):
        sender.put(batch(LINE * 10))
    for _ in range(4):
        sender.step()
    clock.advance(8)
    assert sender.status().waiting_batches == 2
    assert sender.status().up


def test_a_forwarder_is_up_while_it_may_still_confirm(clock: ManualClock):
    """It does so at the end of its own interval, and says how long that is."""
    states: list[bool] = []

    def at_the_end_of_the_interval(payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        clock.advance(60)
        states.append(sender.status().up)
        return {}

    destination = Fake(at_the_end_of_the_interval)
    destination.deltas = True
    sender = Sender(destination, clock=clock)
    sender.put(batch())
    sender.step()
    assert states == [True]


def test_a_thread_that_does_not_deliver_is_noticed(clock: ManualClock):
    """Whatever holds it up, such as a disk that hangs: what it should have sent was not confirmed."""
    sender = Sender(Fake(), clock=clock)
    sender.put(batch())
    clock.advance(6)
    assert not sender.status().up


# -- the thread


def test_the_thread_delivers_what_is_offered(senders):
    """In the background, without being asked."""
    destination = Fake()
    sender = senders(destination)
    sender.start()
    sender.start()
    for number in range(100):
        sender.put(batch(b"%d\n" % number))
    assert sender.wait_idle(20)
    assert destination.delivered == [b"%d\n" % number for number in range(100)]
    assert sender.stop(20)
    assert destination.closed == 1


def test_no_thread_runs_before_start():
    """Making a sender costs no thread."""
    before = threading.active_count()
    sender = Sender(Fake())
    sender.put(batch())
    assert threading.active_count() == before
    assert not sender.wait_idle(20)


def test_the_thread_survives_a_broken_spool(senders, monkeypatch: pytest.MonkeyPatch):
    """Whatever is wrong, it goes on."""
    waiting = Queue()
    destination = Fake()
    sender = senders(destination, queue=waiting)
    monkeypatch.setattr(waiting, "take", lambda **_: 1 / 0)
    sender.start()
    sender.put(batch())
    eventually(lambda: sender.status().errors_by_type.get("ZeroDivisionError"))
    monkeypatch.undo()
    sender.put(batch())
    assert sender.wait_idle(20)
    assert len(destination.delivered) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_ended_begins_again(senders):
    """Nothing should end it; if something has, nobody has to notice."""

    def kill(payload, deadline):
        raise SystemExit  # ends a thread without a word

    destination = Fake(kill)
    sender = senders(destination)
    sender.start()
    thread = sender._thread
    sender.put(batch(b"1\n"))
    thread.join(20)
    assert not thread.is_alive()
    sender.put(batch(b"2\n"))
    assert sender.wait_idle(20)
    assert destination.delivered == [b"1\n", b"2\n"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_cannot_begin_again_is_tried_with_each_batch(senders, monkeypatch: pytest.MonkeyPatch):
    """A batch that is offered meanwhile waits: whoever offers it is not disturbed."""

    def kill(payload, deadline):
        raise SystemExit  # ends a thread without a word

    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    destination = Fake(kill)
    sender = senders(destination)
    sender.start()
    thread = sender._thread
    sender.put(batch(b"1\n"))
    thread.join(20)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        sender.put(batch(b"2\n"))
        sender.put(batch(b"3\n"))
    assert sender.status().errors_by_type == {"RuntimeError": 2}
    sender.put(batch(b"4\n"))
    assert sender.wait_idle(20)
    assert destination.delivered == [b"1\n", b"2\n", b"3\n", b"4\n"]


def test_stop_delivers_what_waits(senders):
    """Also when no thread was ever begun."""
    for begun in (True, False):
        destination = Fake()
        sender = senders(destination)
        if begun:
            sender.start()
        for number in range(10):
            sender.put(batch(b"%d\n" % number))
        assert sender.stop(20)
        assert len(destination.delivered) == 10
        assert sender.status().dropped == {}


def test_stop_does_not_wait_for_the_next_attempt_to_be_due(senders, clock: ManualClock):
    """It tries at once, and again, however long the wait was to be."""
    destination = Fake(*[fails] * 5)
    sender = senders(destination, clock=clock, rng=lambda: 1.0)
    sender.put(batch())
    for _ in range(5):
        clock.advance(100)
        sender.step()
    destination.outcomes = []
    assert sender.stop(20)
    assert destination.delivered == [LINE]


def test_stop_counts_what_it_could_not_deliver(senders):
    """Cause ``shutdown``; the deadline holds, and the account balances."""
    sender = senders(Fake(*[fails] * 1000))
    sender.start()
    sender.put(batch(LINE * 3))
    sender.put(batch(LINE * 2))
    begin = time.monotonic()
    assert not sender.stop(0.3)
    assert time.monotonic() - begin < 10
    assert sender.status().dropped == {"shutdown": 5}
    assert sender.status().waiting_points == 0
    assert balanced(sender)


def hanging(over: threading.Event) -> tuple[Fake, threading.Event]:
    """A destination that hangs until ``over``, and an event that says that it has begun to."""
    begun = threading.Event()

    def hang(payload, deadline):
        begun.set()
        over.wait(60)
        return {}

    return Fake(hang), begun


def test_stop_ends_in_time_whatever_hangs(senders, over: threading.Event):
    """A resolver cannot be interrupted: stop() does not wait for it, and what it comes to later does not count."""
    destination, begun = hanging(over)
    sender = senders(destination)
    sender.start()
    thread = sender._thread
    sender.put(batch())
    begun.wait(20)
    begin = time.monotonic()
    assert not sender.stop(0.2)
    assert time.monotonic() - begin < 10
    assert sender.status().dropped == {"shutdown": 1}
    assert destination.closed == 0
    over.set()
    thread.join(20)
    assert not thread.is_alive()
    assert sender.status().points_sent == 0
    assert balanced(sender)


def test_a_thread_that_hung_through_a_stop_leaves_the_next_one_alone(senders, over: threading.Event):
    """There is one thread at a time: the old one ends as soon as it can, and delivers nothing more."""
    begun = threading.Event()
    by: list[threading.Thread] = []

    def hang(payload, deadline):
        begun.set()
        over.wait(60)
        return {}

    def note(payload, deadline):
        by.append(threading.current_thread())
        return {}

    sender = senders(Fake(hang, note, note))
    sender.start()
    old = sender._thread
    sender.put(batch())
    begun.wait(20)
    sender.stop(0)
    sender.start()
    sender.put(batch())
    assert sender.wait_idle(20)
    over.set()
    old.join(20)
    assert not old.is_alive()
    sender.put(batch())
    assert sender.wait_idle(20)
    assert by == [sender._thread] * 2


@pytest.mark.parametrize("scheme", ["graphite", "statsd+tcp"])
def test_stop_cuts_a_send_to_a_peer_that_never_reads(senders, over, peer, scheme: str):
    """The socket is given up within the deadline, and the thread ends."""
    one = peer(lambda connection: over.wait(60))
    sender = senders(open_destination(f"{scheme}://127.0.0.1:{one.port}?timeout=60", Naming()))
    sender.start()
    thread = sender._thread
    sender.put(batch(LINE * 1_000_000))
    eventually(lambda: sender._attempt)
    begin = time.monotonic()
    assert not sender.stop(0.5)
    assert time.monotonic() - begin < 10
    thread.join(60)
    assert not thread.is_alive()
    assert sum(sender.status().dropped.values()) == 1_000_000
    assert balanced(sender)


def test_a_stopped_sender_may_start_again(senders):
    """Under the same spool and counts."""
    destination = Fake()
    sender = senders(destination)
    for number in range(3):
        sender.start()
        sender.put(batch(b"%d\n" % number))
        assert sender.stop(20)
    assert destination.delivered == [b"0\n", b"1\n", b"2\n"]
    assert sender.status().points_sent == 3


def test_a_stop_without_threads_delivers_in_the_callers(monkeypatch: pytest.MonkeyPatch):
    """At the end of the interpreter no thread can begin any more."""

    def refuse(thread):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    destination = Fake()
    sender = Sender(destination)
    sender.put(batch())
    assert sender.stop(20)
    assert destination.delivered == [LINE]


def test_a_forked_child_has_nothing_of_its_parents(senders, over: threading.Event):
    """Neither thread nor lock nor what waits: that is the parent's to deliver. The child can begin anew."""
    destination, begun = hanging(over)
    sender = senders(destination)
    sender.start()
    sender.put(batch(b"parent's\n"))
    sender.put(batch(b"parent's too\n"))
    begun.wait(20)
    with sender.queue._lock:
        child = os.fork()
        if child == 0:
            done = 1
            try:
                sender.reset_after_fork()
                assert sender.status().waiting_batches == 0
                destination.outcomes, destination.delivered = [], []
                sender.start()
                sender.put(batch(b"child's\n"))
                assert sender.stop(20)
                assert destination.delivered == [b"child's\n"]
                done = 0
            finally:
                os._exit(done)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    over.set()
    assert sender.stop(20)
    assert destination.delivered == [b"parent's\n", b"parent's too\n"]


def test_a_graphite_that_dies_and_comes_back_has_every_point(senders):
    """With real sockets: nothing that was sent during its absence is missing, and nothing is counted twice."""
    first = GraphitePeer()
    sender = senders(open_destination(first.url, Naming()), rng=lambda: 0.0)
    sender.start()
    for stamp in range(10):
        sender.relay([("a", stamp, stamp)])
    assert sender.wait_idle(20)
    first.close()
    for stamp in range(10, 20):
        sender.relay([("a", stamp, stamp)])
    eventually(lambda: not sender.status().up)
    second = GraphitePeer(first.port)
    eventually(lambda: sender.status().waiting_batches == 0)
    assert second.at("a") == list(range(20))
    assert sender.status().points_sent == 20
    assert sender.status().dropped == {}
    second.close()


def test_a_statsd_server_that_comes_back_gets_every_increment_once(senders):
    """On the same host a refusal is heard at once, so nothing is sent into the void."""
    with datagram_server() as server:
        port = server.getsockname()[1]
    sender = senders(open_destination(f"statsd://127.0.0.1:{port}", Naming()), rng=lambda: 0.0)
    sender.start()
    for number in range(5):
        window = Window(0, 10, 10, counters={"a": number + 1})
        sender.put(*sender.destination.encode(Flush(window, window)))
    eventually(lambda: not sender.status().up)
    with datagram_server(port=port) as server:
        assert [server.recv(100) for _ in range(5)] == [b"a:%d|c" % (number + 1) for number in range(5)]
    assert sender.wait_idle(20)
    assert sender.status().dropped == {}
