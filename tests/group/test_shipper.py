"""The shipper: one of the members sends what all of them wrote, and nothing is lost or doubled, however they end."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metricslib.drops import DropCounter
from metricslib.group import shipper
from metricslib.group.member import Member
from metricslib.group.record import Slot
from metricslib.group.shipper import GRACE, Shipper, State, covers, read_state
from metricslib.window import Aggregates

INTERVAL = 10
BEGIN = 1_700_000_000


def hits(count: float) -> Aggregates:
    found = Aggregates()
    if count:
        found.counters = {"hits": count}
    return found


class Graphite:
    """Keeps the last value of each slot, and how often it was sent."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}
        self.sendings: list[tuple[int, float]] = []
        self.away = False

    def send(self, stamp: int, slot: Slot) -> None:
        if self.away:
            raise ConnectionError("away")
        value = slot.aggregates.counters.get("hits", 0)
        self.sendings.append((stamp, value))
        self.values[stamp] = value


class Process:
    """A member and its shipper, of a process that counts."""

    def __init__(self, folder: Path, send) -> None:
        self.member = Member(folder, INTERVAL)
        self.shipper = Shipper(self.member, INTERVAL, send)
        self.counted = 0.0
        self.slot = 0
        self.member.join()

    def count(self, slot: int, n: float, now: float) -> None:
        if slot != self.slot:
            self.slot, self.counted = slot, 0
        self.counted += n
        self.member.append(slot, hits(n), {}, now)

    def close(self, slot: int, now: float) -> None:
        if slot != self.slot:
            self.slot, self.counted = slot, 0
        self.member.append(slot, hits(self.counted), {}, now, whole=True)

    def end(self, slot: int, now: float, deliver=lambda: True) -> bool:
        self.close(slot, now)
        self.member.leave()
        return self.shipper.end(now, deliver)


@pytest.fixture
def graphite() -> Graphite:
    return Graphite()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "group"


@pytest.fixture
def process(folder, graphite) -> Iterator:
    made = []

    def process(send=graphite.send) -> Process:
        made.append(Process(folder, send))
        return made[-1]

    yield process
    for each in made:
        kill(each)


def kill(process: Process) -> None:
    """Do what the kernel does: close all files, and so release the locks."""
    process.member.leave()
    process.shipper.give_up()


SLOT = BEGIN + INTERVAL


def test_a_slot_is_sent_once_when_all_living_members_have_closed_it(process, graphite):
    one, other = process(), process()
    one.shipper.step(SLOT - 2, idle=True)
    one.count(SLOT, 1, SLOT - 2)
    other.count(SLOT, 2, SLOT - 1)
    one.shipper.step(SLOT - 1, idle=True)
    other.shipper.step(SLOT - 1, idle=True)
    assert (one.shipper.shipping, other.shipper.shipping) == (True, False)
    one.close(SLOT, SLOT)
    assert one.shipper.step(SLOT + 0.1, idle=True) < 0.1  # it looks again soon
    assert graphite.sendings == []
    other.close(SLOT, SLOT + 0.1)
    one.shipper.step(SLOT + 0.2, idle=True)
    other.shipper.step(SLOT + 0.2, idle=True)
    for at in range(1, 30):
        one.shipper.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 3)]


def test_a_stopped_member_holds_up_a_slot_for_a_moment_and_is_added_when_it_goes_on(process, graphite):
    one, stopped = process(), process()
    stopped.count(SLOT, 2, SLOT - 1)
    one.count(SLOT, 1, SLOT - 2)
    one.close(SLOT, SLOT)
    one.shipper.step(SLOT + GRACE - 0.1, idle=True)
    assert graphite.sendings == []
    one.shipper.step(SLOT + GRACE, idle=True)
    assert graphite.sendings == [(SLOT, 3)]
    stopped.count(SLOT, 4, SLOT + 5)
    one.shipper.step(SLOT + 5.1, idle=True)
    assert graphite.sendings == [(SLOT, 3), (SLOT, 7)]


def test_the_open_slot_is_sent_when_a_member_asks_for_it_at_most_once_a_second(process, graphite):
    one = process()
    one.count(SLOT, 1, SLOT - 9)
    one.shipper.step(SLOT - 9, idle=True)
    assert graphite.sendings == []
    one.close(SLOT, SLOT - 8)
    one.shipper.step(SLOT - 8, idle=True)
    one.count(SLOT, 1, SLOT - 7.8)
    one.close(SLOT, SLOT - 7.7)
    one.shipper.step(SLOT - 7.5, idle=True)
    assert graphite.sendings == [(SLOT, 1)]
    one.shipper.step(SLOT - 7, idle=True)
    assert graphite.sendings == [(SLOT, 1), (SLOT, 2)]


def test_when_the_shipper_is_killed_another_sends_recent_slots_and_once_more_an_interval_later(process, graphite):
    one, other = process(), process()
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 1)
        each.close(SLOT, SLOT)
    one.shipper.step(SLOT, idle=True)
    assert graphite.sendings == [(SLOT, 2)]
    kill(one)
    other.shipper.step(SLOT + 1, idle=True)
    assert other.shipper.shipping
    assert graphite.sendings == [(SLOT, 2)] * 2
    for at in range(1, 10):
        other.shipper.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 2)] * 2
    for at in range(11, 40):
        other.shipper.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 2)] * 3


def test_a_new_shipper_does_not_send_again_what_was_delivered_long_ago(process, graphite):
    one, other = process(), process()
    one.shipper.step(SLOT - 1, idle=True)
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    one.shipper.step(SLOT + GRACE, idle=False)
    one.shipper.step(SLOT + 2, idle=True)
    one.count(SLOT + INTERVAL, 5, SLOT + 3)
    one.close(SLOT + INTERVAL, SLOT + INTERVAL)
    one.shipper.step(SLOT + INTERVAL + GRACE, idle=False)  # this is never delivered
    kill(one)
    graphite.sendings.clear()
    other.shipper.step(SLOT + 100, idle=True)
    assert graphite.sendings == [(SLOT + INTERVAL, 5)]


def test_what_is_to_be_sent_once_more_is_left_to_the_next_by_one_that_ends(process, graphite):
    """The killed shipper's bytes may arrive after those of a process that takes over only to end."""
    one, other, last = process(), process(), process()
    one.shipper.step(SLOT - 5, idle=True)
    other.count(SLOT, 1, SLOT - 5)
    kill(one)
    assert other.end(SLOT, SLOT - 4)
    assert graphite.values == {SLOT: 1}
    graphite.values[SLOT] = 0
    last.shipper.step(SLOT + 40, idle=True)
    assert graphite.values == {SLOT: 1}


def test_what_could_not_be_sent_is_sent_at_the_next_step(process, graphite):
    one = process()
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    graphite.away = True
    with pytest.raises(ConnectionError):
        one.shipper.step(SLOT, idle=True)
    graphite.away = False
    one.shipper.step(SLOT + 1, idle=True)
    assert graphite.sendings == [(SLOT, 1)]


def test_the_last_one_ships_the_open_slot(process, graphite):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.shipper.step(SLOT - 5, idle=True)
    assert one.end(SLOT, SLOT - 4)
    assert other.end(SLOT, SLOT - 3)
    assert graphite.values == {SLOT: 3}


def test_what_is_written_while_the_shipper_ends_is_shipped_by_it(process, graphite):
    """The other's record came after the last look, and it found the lock taken."""
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.shipper.step(SLOT - 5, idle=True)

    def deliver() -> bool:
        if other.member.number is not None:
            other.count(SLOT, 4, SLOT - 4)
            assert other.end(SLOT, SLOT - 4)
        return True

    assert one.end(SLOT, SLOT - 4, deliver)
    assert graphite.values == {SLOT: 7}


def test_what_was_not_delivered_by_the_end_is_sent_by_the_next_process(process, graphite):
    one = process()
    one.count(SLOT, 1, SLOT - 5)
    assert not one.end(SLOT, SLOT - 4, lambda: False)
    graphite.values.clear()
    later = process()
    later.shipper.step(SLOT + 300, idle=True)
    assert graphite.values == {SLOT: 1}


def test_the_state_says_what_was_delivered(process, folder):
    one = process()
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    end = (folder / str(SLOT) / "0").stat().st_size
    one.shipper.step(SLOT, idle=True)
    assert not covers(folder, SLOT, 0, end)
    one.shipper.step(SLOT + 1, idle=False)
    assert not covers(folder, SLOT, 0, end)
    one.shipper.step(SLOT + 2, idle=True)
    assert covers(folder, SLOT, 0, end)
    assert not covers(folder, SLOT, 0, end + 1)
    assert not covers(folder, SLOT, 1, 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"delivered":{"a":{}}}', b'{"delivered":[]}', b"\xff", b'{"delivered":{},"again":["a"]}'],
)
def test_a_broken_state_says_nothing(folder, content):
    folder.mkdir()
    (folder / "state").write_bytes(content)
    assert read_state(folder) == State({}, [])


def test_a_folder_deleted_while_it_ships_is_made_anew_and_no_slot_becomes_less(process, graphite, folder):
    one, other = process(), process()
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 3)
        each.close(SLOT, SLOT - 3)
    one.shipper.step(SLOT - 3, idle=True)
    assert graphite.values == {SLOT: 2}
    shutil.rmtree(folder)
    one.shipper.step(SLOT - 2, idle=True)
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 1)
        one.shipper.step(SLOT - 1, idle=True)
        other.shipper.step(SLOT - 1, idle=True)
    one.close(SLOT, SLOT)
    one.shipper.step(SLOT + GRACE, idle=True)
    other.shipper.step(SLOT + GRACE, idle=True)
    assert graphite.values[SLOT] == 4
    assert graphite.sendings == sorted(graphite.sendings)


def test_slots_that_were_delivered_are_deleted_after_a_while(process, folder):
    one = process()
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    for at in (0, 1, 600):
        one.shipper.step(SLOT + at, idle=True)
        assert (folder / str(SLOT)).exists()
    one.shipper.step(SLOT + 700, idle=True)
    assert not (folder / str(SLOT)).exists()
    assert read_state(folder).delivered


def test_very_many_slots_that_cannot_be_delivered_are_bounded_and_counted(process, folder, monkeypatch):
    monkeypatch.setattr(shipper, "MOST_SLOTS", 5)
    one = process()
    one.shipper = Shipper(one.member, INTERVAL, lambda *_: None, drops=(drops := DropCounter()))
    stamps = range(SLOT, SLOT + 100 * INTERVAL, INTERVAL)
    for stamp in stamps:
        one.count(stamp, 1, stamp - 1)
        one.close(stamp, stamp)
        one.shipper.step(stamp, idle=False)
    left = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    assert left == [stamp for stamp in stamps if stamp >= stamps[-1] - 600 - 3 * INTERVAL]
    assert drops.totals() == {"slots_full": len(stamps) - len(left)}


class Group(RuleBasedStateMachine):
    """Members start, count, close slots, end and are killed in any order; bytes of a killed shipper arrive late."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.folder = Path(self.directory.name, "group")
        self.now = BEGIN + 0.5
        self.processes: list[Process] = []
        self.counted: dict[int, float] = {}
        self.graphite = Graphite()
        self.late: list[tuple[float, int, float]] = []
        self.hanging = False
        self.killed = False

    def slot(self) -> int:
        return (int(self.now) // INTERVAL + 1) * INTERVAL

    def send(self, stamp: int, slot: Slot) -> None:
        if self.hanging:
            self.late.append((self.now + INTERVAL - 1, stamp, slot.aggregates.counters.get("hits", 0)))
        else:
            self.graphite.send(stamp, slot)

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def start(self) -> None:
        self.processes.append(Process(self.folder, self.send))

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), n=st.integers(1, 9))
    def count(self, which: int, n: int) -> None:
        process = self.processes[which % len(self.processes)]
        process.count(self.slot(), n, self.now)
        self.counted[self.slot()] = self.counted.get(self.slot(), 0) + n

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3))
    def flush(self, which: int) -> None:
        process = self.processes[which % len(self.processes)]
        if process.slot == self.slot():
            process.close(self.slot(), self.now)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), idle=st.booleans())
    def step(self, which: int, idle: bool) -> None:
        self.processes[which % len(self.processes)].shipper.step(self.now, idle=idle)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        kill(self.processes.pop(which % len(self.processes)))
        self.killed = True

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3))
    def kill_while_it_sends(self, which: int) -> None:
        process = self.processes.pop(which % len(self.processes))
        self.hanging = True
        process.shipper.step(self.now, idle=False)
        self.hanging = False
        kill(process)
        self.killed = True

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), together=st.booleans())
    def end(self, which: int, together: bool) -> None:
        process = self.processes.pop(which % len(self.processes))

        def deliver() -> bool:
            if together and self.processes:
                self.processes.pop().end(self.slot(), self.now)
            return True

        process.end(self.slot(), self.now, deliver)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 10.0, 25.0]))
    def wait(self, seconds: float) -> None:
        before = self.slot()
        self.now += seconds
        if self.slot() != before:
            for process in self.processes:
                if process.slot == before:
                    process.close(before, self.now)
        due, self.late = [each for each in self.late if each[0] <= self.now], [e for e in self.late if e[0] > self.now]
        for _, stamp, value in due:
            self.graphite.values[stamp] = value

    @invariant()
    def nothing_is_doubled(self) -> None:
        for stamp, value in self.graphite.values.items():
            assert value <= self.counted.get(stamp, 0)

    @invariant()
    def what_ended_in_order_was_shipped(self) -> None:
        """Whoever is killed leaves what it wrote to the next process, of which :meth:`teardown` starts one."""
        if not self.processes and not self.killed:
            assert {stamp: value for stamp, value in self.graphite.values.items() if value} == self.counted

    def teardown(self) -> None:
        last = Process(self.folder, self.send)
        for _ in range(6):
            self.wait(INTERVAL)
            last.shipper.step(self.now, idle=True)
            for process in self.processes:
                process.shipper.step(self.now, idle=True)
        assert {stamp: value for stamp, value in self.graphite.values.items() if value} == self.counted
        for process in (*self.processes, last):
            kill(process)
        self.directory.cleanup()


Group.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGroup = Group.TestCase
