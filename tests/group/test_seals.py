"""Destinations with ``revise=off`` get each slot once, and all slots together have everything."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from metricslib.delivery.batch import Batch
from metricslib.group.seals import Seals
from metricslib.group.state import slots_in

from .model import INTERVAL, Process, killed_at

BEGIN = 1_700_000_000
SLOT = BEGIN + INTERVAL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "group"


class Receiver:
    """Keeps all that it gets, or the first of it."""

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []

    def confirmed(self, batch: Batch) -> None:
        self.got.append((batch.stamp, int(batch.payload)))

    @property
    def counted(self) -> list[tuple[int, int]]:
        return [(stamp, value) for stamp, value in self.got if value]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def process(folder, receiver):
    made: list[Process] = []

    def process() -> Process:
        made.append(Process(folder, confirmed=receiver.confirmed, once=True))
        return made[-1]

    yield process
    for each in made:
        each.kill()


def test_a_slot_is_sent_once_when_it_is_complete_and_what_comes_later_is_in_the_next(process, receiver):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.step(SLOT - 4)
    one.shipper.ship_now(SLOT - 3)  # a flush sends nothing of an open slot
    one.close(SLOT, SLOT)
    one.step(SLOT + 0.5)
    assert receiver.got == []
    one.step(SLOT + 1.3)
    one.step(SLOT + 2)
    assert receiver.got == [(SLOT, 3)]
    other.count(SLOT, 4, SLOT + 3)  # it was stopped
    one.count(SLOT + 10, 8, SLOT + 4)
    for now in range(SLOT + 4, SLOT + 10):
        one.step(now)
    assert receiver.got == [(SLOT, 3)]
    one.close(SLOT + 10, SLOT + 10)
    other.close(SLOT + 10, SLOT + 10)
    for now in range(SLOT + 10, SLOT + 15):
        one.step(now)
    assert receiver.got == [(SLOT, 3), (SLOT + 10, 12)]


def test_the_last_member_alone_sends_the_open_slot(process, receiver):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.step(SLOT - 5)
    assert one.end(SLOT, SLOT - 4)
    assert receiver.got == []
    assert other.end(SLOT, SLOT - 3)
    assert receiver.got == [(SLOT, 3)]
    later = process()
    later.count(SLOT, 4, SLOT - 2)
    assert later.end(SLOT, SLOT - 1)
    assert receiver.got == [(SLOT, 3), (SLOT + 10, 4)]


def test_what_is_written_while_the_last_one_seals_is_in_the_next_slot(process, receiver):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    one.step(SLOT - 5)
    other.member.leave()

    def deliver() -> bool:
        if not other.counted:
            other.count(SLOT, 4, SLOT - 4)
            assert other.end(SLOT, SLOT - 4)
        return True

    assert one.end(SLOT, SLOT - 4, deliver)
    assert receiver.got == [(SLOT, 1), (SLOT + 10, 4)]


def test_a_successor_sends_exactly_what_was_sealed(process, receiver):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    one.close(SLOT, SLOT)
    other.close(SLOT, SLOT)
    one.step(SLOT + 1, idle=False)
    one.kill()  # before anything is confirmed
    other.count(SLOT, 2, SLOT + 1)
    for now in range(SLOT + 2, SLOT + 9):
        other.step(now)
    assert receiver.got == [(SLOT, 1)]
    other.close(SLOT + 10, SLOT + 10)
    for now in range(SLOT + 10, SLOT + 15):
        other.step(now)
    assert receiver.got == [(SLOT, 1), (SLOT + 10, 2)]
    other.kill()
    third = process()
    for now in range(SLOT + 15, SLOT + 40):
        third.step(now)
    assert receiver.got == [(SLOT, 1), (SLOT + 10, 2)]  # what was confirmed is not sent again


def test_a_kill_between_any_two_changes_of_files_loses_nothing(tmp_path):
    """And sends twice nothing that was noted as confirmed."""
    for at in range(1, 1000):
        receiver, folder = Receiver(), tmp_path / str(at)
        one = Process(folder, confirmed=receiver.confirmed, once=True)
        one.count(SLOT, 1, SLOT - 1)
        with killed_at(at) as fault:
            one.close(SLOT, SLOT)
            one.step(SLOT)
            one.step(SLOT + 1)
            one.step(SLOT + 2)
        one.kill()
        other = Process(folder, confirmed=receiver.confirmed, once=True)
        for slot in range(SLOT, SLOT + 200, INTERVAL):
            other.close(slot, slot)
            other.step(slot + 1)
            other.step(slot + 2)
        other.kill()
        assert receiver.counted == [(SLOT, 1)] * len(receiver.counted), at
        assert 1 <= len(receiver.counted) <= 2, at
        assert SLOT not in slots_in(folder)[0]
        if fault.left > 0:
            break
    assert at > 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"last":1}', b'{"last":1,"end":[],"waiting":[]}'])
def test_seals_that_make_no_sense_are_none(folder, content):
    folder.mkdir()
    (folder / "seals").write_bytes(content)
    seals = Seals(folder, lambda stamp, slot: None)
    seals.load()
    assert seals.last == 0


class Group(RuleBasedStateMachine):
    """Members come, count, are late, end and are killed: all that was counted arrives, each stamp once."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.folder = Path(self.directory.name, "group")
        self.now = BEGIN + 0.5
        self.processes: list[Process] = []
        self.counted = 0
        self.receiver = Receiver()

    def slot(self) -> int:
        return (int(self.now) // INTERVAL + 1) * INTERVAL

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def start(self) -> None:
        self.processes.append(Process(self.folder, confirmed=self.receiver.confirmed, once=True))

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2), n=st.integers(1, 9), late=st.booleans())
    def count(self, which: int, n: int, late: bool) -> None:
        process = self.processes[which % len(self.processes)]
        process.count(process.slot if late and process.slot > self.now - 60 else self.slot(), n, self.now)
        self.counted += n

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def step(self, which: int) -> None:
        self.processes[which % len(self.processes)].step(self.now)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        """What is being sent arrives; then it must be noted before the kill to be sent once."""
        process = self.processes.pop(which % len(self.processes))
        process.step(self.now)
        process.kill()

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 2))
    def end(self, which: int) -> None:
        process = self.processes.pop(which % len(self.processes))
        process.end(self.slot(), self.now)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        before = self.slot()
        self.now += seconds
        if self.slot() != before:
            for process in self.processes:
                process.close(before, self.now)

    def teardown(self) -> None:
        last = Process(self.folder, confirmed=self.receiver.confirmed, once=True)
        for _ in range(4):
            self.wait(INTERVAL)
            for process in (*self.processes, last):
                process.close(self.slot(), self.now)
                process.step(self.now)
        for process in (*self.processes, last):
            process.end(self.slot(), self.now)
        stamps = [stamp for stamp, _ in self.receiver.counted]
        assert sum(value for _, value in self.receiver.got) == self.counted
        assert len(stamps) == len(set(stamps))
        self.directory.cleanup()


Group.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestGroup = Group.TestCase
