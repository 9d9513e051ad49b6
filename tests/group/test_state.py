"""Closing a slot: a crash at any line leaves the totals right, and what was measured arrives in whole."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metricslib.checkpoint import BadNote
from metricslib.delivery.batch import Batch
from metricslib.drops import DropCounter
from metricslib.group import shipper
from metricslib.group.member import Member
from metricslib.group.reading import GroupReader
from metricslib.group.state import State, folding_name, read_state, slots_in, write_state

from .model import INTERVAL, Process, killed_at

BEGIN = 1_700_000_000
SLOT = BEGIN + INTERVAL
LONG = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "group"


def total(folder: Path) -> float:
    """Return what the group counted, as a reader sees it: in closed slots, and in others."""
    found = GroupReader(Member(folder, INTERVAL), INTERVAL).read(BEGIN - LONG).snapshot()
    closed = found.totals["counter"]
    return (closed["hits"].sum if "hits" in closed else 0) + found.open.counters.get("hits", 0)


def run(process: Process, begin: int, end: int, *, idle: bool = True) -> None:
    """Let a process that measures nothing write and ship, interval by interval."""
    for slot in range(begin, end, INTERVAL):
        process.close(slot, slot)
        process.step(slot + 0.5, idle=idle)
        process.step(slot + 1.5, idle=idle)


def test_a_slot_is_folded_a_minute_after_it_was_delivered(folder):
    one = Process(folder)
    one.count(SLOT, 3, SLOT - 1)
    run(one, SLOT, SLOT + 60)
    assert SLOT in slots_in(folder)[0]
    run(one, SLOT + 60, SLOT + 120)
    assert SLOT not in slots_in(folder)[0]
    assert read_state(folder).mark >= SLOT
    assert total(folder) == 3
    one.kill()


def test_what_is_kept_does_not_grow(folder):
    one = Process(folder)
    for slot in range(SLOT, SLOT + 200 * INTERVAL, INTERVAL):
        one.count(slot, 1, slot - 1)
        run(one, slot, slot + INTERVAL)
    stamps, folding = slots_in(folder)
    assert len(stamps) + len(folding) < 12
    assert total(folder) == 200
    one.kill()


def test_a_slot_that_no_destination_takes_closes_ten_minutes_after_its_end_and_outlives_all_processes(folder):
    one = Process(folder)
    for slot in range(SLOT, SLOT + 5 * INTERVAL, INTERVAL):
        one.count(slot, 7, slot - 1)
        run(one, slot, slot + INTERVAL, idle=False)
    run(one, SLOT + 50, SLOT + LONG, idle=False)
    assert not slots_in(folder)[0] & {*range(SLOT, SLOT + 50, INTERVAL)}
    one.kill()
    arrived: dict[int, int] = {}
    other = Process(folder, confirmed=lambda batch: arrived.setdefault(batch.stamp, int(batch.payload)))
    run(other, SLOT + LONG, SLOT + LONG + 30)
    assert {stamp: value for stamp, value in arrived.items() if value} == dict.fromkeys(
        range(SLOT, SLOT + 50, INTERVAL), 7
    )
    assert total(folder) == 35
    assert not list(folder.glob("backlog-*"))  # all of it has arrived
    other.kill()


def test_a_stopped_member_holds_the_slot_to_which_it_wrote_last_and_no_other(folder):
    one, stopped = Process(folder), Process(folder)
    stopped.count(SLOT, 4, SLOT - 1)
    run(one, SLOT, SLOT + 3 * LONG)
    stamps, folding = slots_in(folder)
    assert SLOT in stamps
    assert len(stamps) + len(folding) < 12
    stopped.count(SLOT, 5, SLOT + 3 * LONG)  # it was stopped in the middle of this
    run(one, SLOT + 3 * LONG, SLOT + 3 * LONG + 30)
    assert total(folder) == 9
    stopped.close(SLOT + 3 * LONG + 40, SLOT + 3 * LONG + 40)
    run(one, SLOT + 3 * LONG + 40, SLOT + 4 * LONG)
    assert SLOT not in slots_in(folder)[0]
    assert total(folder) == 9
    one.kill()
    stopped.kill()


def test_a_slot_that_a_member_opened_just_before_it_was_renamed_waits_for_that_member(folder, monkeypatch):
    """The member may be stopped between its look at the file and its write."""
    one, other = Process(folder), Process(folder)
    one.count(SLOT, 3, SLOT - 1)
    rename = os.rename

    def too_late(old: Path, new: Path) -> None:
        if old == folder / str(SLOT) and not other.counted:
            other.count(SLOT, 4, SLOT + 70)
        rename(old, new)

    monkeypatch.setattr(os, "rename", too_late)
    run(one, SLOT, SLOT + 300)
    assert SLOT in slots_in(folder)[1].values()
    assert total(folder) == 7
    other.close(SLOT + 300, SLOT + 300)
    run(one, SLOT + 300, SLOT + 330)
    assert SLOT not in slots_in(folder)[1].values()
    assert total(folder) == 7
    one.kill()
    other.kill()


def test_a_record_for_a_closed_slot_is_added_to_the_oldest_open_one_and_counted(folder):
    sent: list[tuple[int, float]] = []
    drops = DropCounter()
    one = Process(folder, lambda window: sent.append((window.end, window.counters.get("hits", 0))), drops=drops)
    one.count(SLOT, 3, SLOT - 1)
    run(one, SLOT, SLOT + LONG)
    sent.clear()
    very_late = Process(folder)
    very_late.count(SLOT, 5, SLOT + LONG)
    run(one, SLOT + LONG, SLOT + LONG + 30)
    assert [(stamp, value) for stamp, value in sent if value] == [(min(slots_in(folder)[0]), 5)]
    assert drops.totals() == {"late": 1}
    assert SLOT not in slots_in(folder)[0]
    very_late.kill()
    run(one, SLOT + LONG + 30, SLOT + 3 * LONG)
    assert total(folder) == 8
    one.kill()


def test_a_clock_that_was_set_back_lowers_the_mark(folder):
    drops, sent = DropCounter(), dict[int, float]()
    one = Process(folder, lambda window: sent.update({window.end: window.counters.get("hits", 0)}), drops=drops)
    one.count(SLOT + LONG, 3, SLOT + LONG - 1)
    run(one, SLOT + LONG, SLOT + 2 * LONG)
    sent.clear()
    one.count(SLOT, 5, SLOT - 1)
    run(one, SLOT, SLOT + 30)
    assert (sent[SLOT], drops.totals()) == (5, {"clock_set_back": 1})
    assert total(folder) == 8
    one.kill()


def test_a_folder_that_was_deleted_loses_no_totals(folder):
    one = Process(folder)
    one.count(SLOT, 3, SLOT - 1)
    run(one, SLOT, SLOT + LONG)
    shutil.rmtree(folder)
    run(one, SLOT + LONG, SLOT + LONG + 30)
    assert total(folder) == 3
    one.kill()


def test_a_state_that_cannot_be_written_is_tried_again_and_counts_nothing_twice(folder, monkeypatch):
    one = Process(folder)
    one.count(SLOT, 3, SLOT - 1)
    run(one, SLOT, SLOT + 60)
    with monkeypatch.context() as full:
        full.setattr(shipper, "write_state", full_disk)
        for slot in range(SLOT + 60, SLOT + 200, INTERVAL):
            one.close(slot, slot)
            try:
                one.step(slot + 0.5)
            except OSError:
                continue
        assert total(folder) == 3
    run(one, SLOT + 200, SLOT + 300)
    assert total(folder) == read_state(folder).known().totals["counter"]["hits"].sum == 3
    one.kill()


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_very_many_slots_that_cannot_be_folded_are_bounded_and_counted(folder, monkeypatch):
    monkeypatch.setattr(shipper, "MOST_SLOTS", 5)
    monkeypatch.setattr(shipper.Backlog, "append", full_disk)
    drops = DropCounter()
    one = Process(folder, drops=drops)
    stamps = range(SLOT, SLOT + 100 * INTERVAL, INTERVAL)
    for stamp in stamps:
        one.count(stamp, 1, stamp - 1)
        one.close(stamp, stamp)
        try:
            one.step(stamp, idle=False)
        except OSError:
            continue
    left = sorted(slots_in(folder)[0])
    assert left == list(range(left[0], stamps[-1] + 1, INTERVAL))
    assert 600 <= stamps[-1] - left[0] + INTERVAL <= 600 + 2 * INTERVAL
    assert drops.totals() == {"slots_full": len(stamps) - len(left)}
    one.kill()


@pytest.mark.parametrize("idle", [True, False], ids=["delivered", "in an outage"])
def test_a_kill_between_any_two_changes_of_files_loses_nothing_and_doubles_nothing(tmp_path, idle):
    """While slots close: the next process has the same totals, and sends what the destination lacks."""
    for at in range(1, 1000):
        folder, arrived = tmp_path / str(at), dict[int, int]()
        one = Process(folder, confirmed=lambda batch, into=arrived: into.update({batch.stamp: int(batch.payload)}))
        for slot in (SLOT, SLOT + 10):
            one.count(slot, 7, slot - 1)
            run(one, slot, slot + INTERVAL, idle=idle)
        with killed_at(at) as fault:
            for slot in (SLOT + 620, SLOT + 640, SLOT + 660):
                run(one, slot, slot + INTERVAL, idle=idle)
        one.kill()
        assert total(folder) == 14, at
        other = Process(folder, confirmed=one.confirmed)
        for slot in (SLOT + 680, SLOT + 700, SLOT + 1400, SLOT + 1420):
            run(other, slot, slot + INTERVAL)
        other.kill()
        assert ({stamp: n for stamp, n in arrived.items() if n}, total(folder)) == ({SLOT: 7, SLOT + 10: 7}, 14), at
        assert not slots_in(folder)[0] & {SLOT, SLOT + 10}
        if fault.left > 0:
            break
    assert at > 30


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"mark":1}',
        b'{"mark":1,"folds":1,"open":["a"],"names":[],"series":null}',
        b'{"mark":1,"folds":1,"open":[],"names":[],"series":{}}',
        b'{"mark":1,"folds":1,"open":[],"names":[],"series":{"newest":1,"series":{"counter":[["a",1,1,1,"x",1,[]]]}}}',
    ],
)
def test_a_state_that_makes_no_sense_is_counted_and_begun_anew(folder, content):
    folder.mkdir(mode=0o700)
    (folder / "state").write_bytes(content)
    with pytest.raises(BadNote):
        read_state(folder).known()
    drops = DropCounter()
    one = Process(folder, drops=drops)
    one.count(SLOT, 3, SLOT - 1)
    run(one, SLOT, SLOT + LONG)
    assert total(folder) == 3
    assert drops.totals() == {"bad_note": 1}
    one.kill()


def test_a_state_comes_back_to_the_last_bit(folder):
    folder.mkdir(mode=0o700)
    state = State(SLOT, 3, [SLOT - 10], [folding_name(SLOT, 2)], {"newest": SLOT, "series": 0.1 + 0.2})
    write_state(folder, state)
    assert read_state(folder) == state
    assert json.loads((folder / "state").read_bytes())["series"]["series"] == 0.1 + 0.2


class Group(RuleBasedStateMachine):
    """Members start, count, close slots and end in any order, and are killed between any two changes of files.

    What a shipper has sent arrives when a step says so; what it had not sent, dies with it. What is on its way when it
    is killed arrives up to an interval later.
    """

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.folder = Path(self.directory.name, "group")
        self.now = BEGIN + 0.5
        self.processes: list[Process] = []
        self.counted: dict[int, float] = {}
        self.values: dict[int, float] = {}
        self.late: list[tuple[float, Batch]] = []
        self.killed = False

    def slot(self) -> int:
        return (int(self.now) // INTERVAL + 1) * INTERVAL

    def arrive(self, batch: Batch) -> None:
        self.values[batch.stamp] = int(batch.payload)

    def chosen(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def start(self) -> None:
        self.processes.append(Process(self.folder, confirmed=self.arrive))

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), n=st.integers(1, 9))
    def count(self, which: int, n: int) -> None:
        self.chosen(which).count(self.slot(), n, self.now)
        self.counted[self.slot()] = self.counted.get(self.slot(), 0) + n

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3))
    def flush(self, which: int) -> None:
        process = self.chosen(which)
        if process.slot == self.slot():
            process.close(self.slot(), self.now)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), idle=st.booleans())
    def step(self, which: int, idle: bool) -> None:
        self.chosen(which).step(self.now, idle=idle)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), at=st.integers(1, 25), how=st.sampled_from(["count", "close", "step", "end"]))
    def kill(self, which: int, at: int, how: str) -> None:
        """Kill a process in the middle of something; what it sends just then arrives late."""
        process = self.chosen(which)
        self.processes.remove(process)
        slot, n = self.slot(), 5
        with killed_at(at) as fault:
            if how == "count":
                process.count(slot, n, self.now)
            elif how == "close":
                process.close(process.slot or slot, self.now)
            elif how == "step":
                process.step(self.now, idle=False)
            else:
                process.end(slot, self.now, lambda: False)
        if how == "count" and fault.wrote:
            self.counted[slot] = self.counted.get(slot, 0) + n
        self.late += [(self.now + INTERVAL - 1, batch) for batch in process.queue.waiting.values()]
        process.kill()
        self.killed = True

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 3), together=st.booleans())
    def end(self, which: int, together: bool) -> None:
        process = self.chosen(which)
        self.processes.remove(process)

        def deliver() -> bool:
            if together and self.processes:
                self.processes.pop().end(self.slot(), self.now)
            return True

        process.end(self.slot(), self.now, deliver)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 10.0, 25.0, 100.0, 700.0]))
    def wait(self, seconds: float) -> None:
        before = self.slot()
        self.now += seconds
        if self.slot() != before:
            for process in self.processes:
                if process.slot == before:
                    process.close(before, self.now)
        due, self.late = [each for each in self.late if each[0] <= self.now], [e for e in self.late if e[0] > self.now]
        for _, batch in due:
            self.arrive(batch)

    @invariant()
    def totals_are_right(self) -> None:
        if self.folder.exists():
            assert total(self.folder) == sum(self.counted.values())

    @invariant()
    def nothing_is_doubled(self) -> None:
        for stamp, value in self.values.items():
            assert value <= self.counted.get(stamp, 0)

    @invariant()
    def what_ended_in_order_was_shipped(self) -> None:
        """What a killed process wrote is left to the next process, of which :meth:`teardown` starts one."""
        if not self.processes and not self.killed:
            assert {stamp: value for stamp, value in self.values.items() if value} == self.counted

    def teardown(self) -> None:
        last = Process(self.folder, confirmed=self.arrive)
        for _ in range(4):
            self.wait(INTERVAL)
            for process in (*self.processes, last):
                process.close(self.slot(), self.now)
            for process in (*self.processes, last):
                process.step(self.now)
                process.step(self.now)
        assert {stamp: value for stamp, value in self.values.items() if value} == self.counted
        for process in self.processes:
            process.kill()
        for _ in range(4):
            self.wait(100.0)
            last.close(self.slot(), self.now)
            last.step(self.now)
            last.step(self.now)
        assert len(slots_in(self.folder)[0]) <= 3
        self.totals_are_right()
        last.kill()
        self.directory.cleanup()


Group.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestGroup = Group.TestCase
