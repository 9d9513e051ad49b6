"""The shipper: one of the members sends what all of them wrote, and nothing is lost or doubled, however they end."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from metricslib.group.shipper import GRACE, Delivered, covers, read_delivered
from metricslib.window import Window

from .model import INTERVAL, Process

BEGIN = 1_700_000_000


class Graphite:
    """Keeps the last value of each slot, and how often it was sent."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}
        self.sendings: list[tuple[int, float]] = []
        self.away = False

    def send(self, window: Window) -> None:
        if self.away:
            raise ConnectionError("away")
        stamp, value = window.end, window.counters.get("hits", 0)
        self.sendings.append((stamp, value))
        self.values[stamp] = value


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
        each.kill()


SLOT = BEGIN + INTERVAL


def test_a_slot_is_sent_once_when_all_living_members_have_closed_it(process, graphite):
    one, other = process(), process()
    one.step(SLOT - 2, idle=True)
    one.count(SLOT, 1, SLOT - 2)
    other.count(SLOT, 2, SLOT - 1)
    one.step(SLOT - 1, idle=True)
    other.step(SLOT - 1, idle=True)
    assert (one.shipper.shipping, other.shipper.shipping) == (True, False)
    one.close(SLOT, SLOT)
    assert one.step(SLOT + 0.1, idle=True) < 0.1  # it looks again soon
    assert graphite.sendings == []
    other.close(SLOT, SLOT + 0.1)
    one.step(SLOT + 0.2, idle=True)
    other.step(SLOT + 0.2, idle=True)
    for at in range(1, 30):
        one.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 3)]


def test_a_stopped_member_holds_up_a_slot_for_a_moment_and_is_added_when_it_goes_on(process, graphite):
    one, stopped = process(), process()
    stopped.count(SLOT, 2, SLOT - 1)
    one.count(SLOT, 1, SLOT - 2)
    one.close(SLOT, SLOT)
    one.step(SLOT + GRACE - 0.1, idle=True)
    assert graphite.sendings == []
    one.step(SLOT + GRACE, idle=True)
    assert graphite.sendings == [(SLOT, 3)]
    stopped.count(SLOT, 4, SLOT + 5)
    one.step(SLOT + 5.1, idle=True)
    assert graphite.sendings == [(SLOT, 3), (SLOT, 7)]


def test_the_open_slot_is_sent_when_a_member_asks_for_it_at_most_once_a_second(process, graphite):
    one = process()
    one.count(SLOT, 1, SLOT - 9)
    one.step(SLOT - 9, idle=True)
    assert graphite.sendings == []
    one.close(SLOT, SLOT - 8)
    one.step(SLOT - 8, idle=True)
    one.count(SLOT, 1, SLOT - 7.8)
    one.close(SLOT, SLOT - 7.7)
    one.step(SLOT - 7.5, idle=True)
    assert graphite.sendings == [(SLOT, 1)]
    one.step(SLOT - 7, idle=True)
    assert graphite.sendings == [(SLOT, 1), (SLOT, 2)]


def test_when_the_shipper_is_killed_another_sends_recent_slots_and_once_more_an_interval_later(process, graphite):
    one, other = process(), process()
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 1)
        each.close(SLOT, SLOT)
    one.step(SLOT, idle=True)
    assert graphite.sendings == [(SLOT, 2)]
    one.kill()
    other.step(SLOT + 1, idle=True)
    assert other.shipper.shipping
    assert graphite.sendings == [(SLOT, 2)] * 2
    for at in range(1, 10):
        other.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 2)] * 2
    for at in range(11, 40):
        other.step(SLOT + at, idle=True)
    assert graphite.sendings == [(SLOT, 2)] * 3


def test_a_new_shipper_does_not_send_again_what_was_delivered_long_ago(process, graphite):
    one, other = process(), process()
    one.step(SLOT - 1, idle=True)
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    one.step(SLOT + GRACE, idle=False)
    one.step(SLOT + 2, idle=True)
    one.count(SLOT + INTERVAL, 5, SLOT + 3)
    one.close(SLOT + INTERVAL, SLOT + INTERVAL)
    one.step(SLOT + INTERVAL + GRACE, idle=False)  # this is never delivered
    one.kill()
    graphite.sendings.clear()
    other.step(SLOT + 100, idle=True)
    assert graphite.sendings == [(SLOT + INTERVAL, 5)]


def test_what_is_to_be_sent_once_more_is_left_to_the_next_by_one_that_ends(process, graphite):
    """The killed shipper's bytes may arrive after those of a process that takes over only to end."""
    one, other, last = process(), process(), process()
    one.step(SLOT - 5, idle=True)
    other.count(SLOT, 1, SLOT - 5)
    one.kill()
    assert other.end(SLOT, SLOT - 4)
    assert graphite.values == {SLOT: 1}
    graphite.values[SLOT] = 0
    last.step(SLOT + 40, idle=True)
    assert graphite.values == {SLOT: 1}


def test_what_could_not_be_sent_is_sent_at_the_next_step(process, graphite):
    one = process()
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    graphite.away = True
    with pytest.raises(ConnectionError):
        one.step(SLOT, idle=True)
    graphite.away = False
    one.step(SLOT + 1, idle=True)
    assert graphite.sendings == [(SLOT, 1)]


def test_a_record_that_is_written_while_its_slot_is_sent_is_sent_at_the_next_step(process, graphite):
    other = process()

    def send(window: Window) -> None:
        graphite.send(window)
        if len(graphite.sendings) == 1:
            other.count(SLOT, 2, SLOT)

    one = process(send)
    one.count(SLOT, 1, SLOT - 1)
    one.step(SLOT + GRACE)
    one.step(SLOT + GRACE + 1)
    assert graphite.sendings == [(SLOT, 1), (SLOT, 3)]


def test_the_last_one_ships_the_open_slot(process, graphite):
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.step(SLOT - 5, idle=True)
    assert one.end(SLOT, SLOT - 4)
    assert other.end(SLOT, SLOT - 3)
    assert graphite.values == {SLOT: 3}


def test_what_is_written_while_the_shipper_ends_is_shipped_by_it(process, graphite):
    """The other's record came after the last look, and it found the lock taken."""
    one, other = process(), process()
    one.count(SLOT, 1, SLOT - 5)
    other.count(SLOT, 2, SLOT - 5)
    one.step(SLOT - 5, idle=True)

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
    later.step(SLOT + 300, idle=True)
    assert graphite.values == {SLOT: 1}


def test_the_state_says_what_was_delivered(process, folder):
    one = process()
    one.count(SLOT, 1, SLOT - 1)
    one.close(SLOT, SLOT)
    end = (folder / str(SLOT) / "0").stat().st_size
    one.step(SLOT, idle=True)
    assert not covers(folder, SLOT, 0, end)
    one.step(SLOT + 1, idle=False)
    assert not covers(folder, SLOT, 0, end)
    one.step(SLOT + 2, idle=True)
    assert covers(folder, SLOT, 0, end)
    assert not covers(folder, SLOT, 0, end + 1)
    assert not covers(folder, SLOT, 1, 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"delivered":{"a":{}}}', b'{"delivered":[]}', b"\xff", b'{"delivered":{},"again":["a"]}'],
)
def test_a_broken_state_says_nothing(folder, content):
    folder.mkdir()
    (folder / "delivered").write_bytes(content)
    assert read_delivered(folder) == Delivered({}, [])


def test_a_folder_deleted_while_it_ships_is_made_anew_and_no_slot_becomes_less(process, graphite, folder):
    one, other = process(), process()
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 3)
        each.close(SLOT, SLOT - 3)
    one.step(SLOT - 3, idle=True)
    assert graphite.values == {SLOT: 2}
    shutil.rmtree(folder)
    one.step(SLOT - 2, idle=True)
    for each in (one, other):
        each.count(SLOT, 1, SLOT - 1)
        one.step(SLOT - 1, idle=True)
        other.step(SLOT - 1, idle=True)
    one.close(SLOT, SLOT)
    one.step(SLOT + GRACE, idle=True)
    other.step(SLOT + GRACE, idle=True)
    assert graphite.values[SLOT] == 4
    assert graphite.sendings == sorted(graphite.sendings)


def test_a_shipper_that_does_not_run_is_named_after_three_intervals_and_costs_the_others_nothing(
    process, graphite, caplog
):
    """It was stopped, or it spins: it has the lock, and nobody else may send."""
    stuck, other = process(), process()
    stuck.count(SLOT, 1, SLOT - 5)
    stuck.step(SLOT - 5)
    for now in range(SLOT - 5, SLOT + 25):
        other.step(now)
    assert caplog.text == ""
    for now in range(SLOT + 26, SLOT + 100):
        other.step(now)
    (record,) = caplog.records
    assert f"process {os.getpid()}, which ships for this group, has not run for 31 s" in record.message
    other.count(SLOT + 100, 2, SLOT + 100)
    assert other.end(SLOT + 100, SLOT + 101)  # without having waited
    assert graphite.values == {}
    stuck.step(SLOT + 110)
    assert graphite.values == {SLOT: 1, SLOT + 100: 2}


def test_a_shipper_that_runs_again_and_stops_again_is_named_again(process, caplog):
    stuck, other = process(), process()
    for begin in (SLOT, SLOT + 100):
        stuck.step(begin)
        other.step(begin + 1)
        other.step(begin + 40)
    assert len(caplog.records) == 2


def test_an_idle_series_is_0_after_a_change_of_the_shipper_too(process, folder):
    sent: list[Window] = []
    one = process(sent.append)
    one.count(SLOT, 3, SLOT - 1)
    for slot in range(SLOT, SLOT + 300, INTERVAL):
        one.close(slot, slot)
        one.step(slot + GRACE)
    one.kill()
    other = process(sent.append)
    other.close(SLOT + 300, SLOT + 300)
    other.step(SLOT + 300 + GRACE)
    assert (sent[-1].end, sent[-1].counters) == (SLOT + 300, {"hits": 0})


def test_an_idle_series_of_a_slot_that_was_delivered_but_not_closed_is_0_after_a_change_of_the_shipper(process):
    sent: list[Window] = []
    one = process(sent.append)
    one.count(SLOT, 3, SLOT - 1)
    for slot in range(SLOT, SLOT + 60, INTERVAL):
        one.close(slot, slot)
        one.step(slot + GRACE)
    one.kill()
    other = process(sent.append)
    other.close(SLOT + 60, SLOT + 60)
    other.step(SLOT + 60 + GRACE)
    assert (sent[-1].end, sent[-1].counters) == (SLOT + 60, {"hits": 0})
