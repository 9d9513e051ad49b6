"""A journal keeps what was committed, whatever becomes of the process; and says what it cannot keep."""

import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metricslib.delivery import Batch
from metricslib.delivery.claims import cannot_write
from metricslib.delivery.journal import Journal
from metricslib.delivery.journal_spool import JournalSpool
from metricslib.delivery.lanes import Lanes
from metricslib.testing import ManualClock
from tests.peers import eventually

ROOT = Path(__file__).parent.parent.parent
Open = Callable[..., tuple[Journal, JournalSpool]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """Call for a journal in the test's directory, with one spool."""
    journals = []

    def opened(
        place: str = "place", *, once: bool = False, own: bool = True, directory: Path = tmp_path, **more: Any
    ) -> tuple[Journal, JournalSpool]:
        journal = Journal(directory, clock=clock, **more)
        spool = journal.spool(place, Lanes(clock=clock, replay=None if once else 1e9), once=once)
        journal.open(own=own)
        journals.append(journal)
        return journal, spool

    yield opened
    for journal in journals:
        journal.close()


def batch(number: int, size: int = 10) -> Batch:
    return Batch(number, 1, b"%d " % number + b"x" * size)


def drain(spool: JournalSpool) -> list[int]:
    """Deliver all that waits; return the stamps."""
    order = []
    while taken := spool.head(hurry=True):
        assert taken.payload.startswith(b"%d " % taken.stamp)
        order.append(taken.stamp)
        spool.settle(taken)
    return order


def balanced(spool: JournalSpool) -> bool:
    held = spool.holdings()
    return held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points


def files(directory: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in directory.iterdir())


def run(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Begin a program that has the names it needs."""
    prelude = """
import os, sys
from metricslib.delivery import Batch
from metricslib.delivery.journal import Journal
from metricslib.delivery.lanes import Lanes
def opened(once=False):
    journal = Journal(sys.argv[1])
    spool = journal.spool("place", Lanes(), once=once)
    notes = journal.open()
    return journal, spool, notes
def batch(number, size=10):
    return Batch(number, 1, b"%d " % number + b"x" * size)
"""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", prelude + program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def ran(program: str, *arguments: str, code: int = 0) -> str:
    """Run a program to its end, which is as expected; return what it printed."""
    process = run(program, *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    return output


# -- from one process to the next


def test_what_waits_is_there_after_a_restart(opened: Open, tmp_path: Path):
    """With its order, its age and the notes that belong to it; and for the account it was put anew."""
    first, spool = opened()
    first.commit([(spool, batch(1)), (spool, batch(2))], {"a": b"1", "b": b"2"})
    first.commit([(spool, batch(3))], {"b": None, "c": b"3"})
    assert spool.end("shutdown") == 0
    first.close()
    assert spool.holdings().waiting_points == 3
    second = Journal(tmp_path)
    spool = second.spool("place", Lanes(), once=False)
    assert second.open() == {"a": b"1", "c": b"3"}
    held = spool.holdings()
    assert (held.put, held.waiting_points, held.on_disk, held.trouble) == (3, 3, True, None)
    assert drain(spool) == [1, 2, 3]
    second.commit([], {"a": None, "c": None})
    second.close()
    assert files(tmp_path) == []


def test_what_was_found_after_a_restart_is_a_backlog(opened: Open):
    """What is measured now goes before what an earlier process left."""
    journal, spool = opened()
    spool.put(batch(1))
    spool.end("shutdown")
    journal.close()
    _, spool = opened()
    spool.put(batch(2))
    assert spool.holdings().backlog_batches == 1
    assert drain(spool) == [2, 1]


def test_age_goes_on_while_no_process_runs(clock: ManualClock, tmp_path: Path):
    """By the wall clock, for there is no other that both know."""
    journal = Journal(tmp_path, clock=clock)
    journal.open()
    journal.spool("place", Lanes(clock=clock), once=False).put(batch(1))
    journal.close()
    clock.advance(61)
    journal = Journal(tmp_path, clock=clock)
    spool = journal.spool("place", Lanes(max_age=60, clock=clock), once=False)
    journal.open()
    assert spool.head() is None
    assert spool.holdings().dropped == {"too_old": 1}
    assert balanced(spool)
    journal.close()


def test_a_journal_can_be_closed_and_opened_again(opened: Open):
    """A flusher that is stopped may be started; in between what is put waits in memory, and is counted once."""
    journal, spool = opened()
    spool.put(batch(1))
    spool.end("shutdown")
    journal.close()
    spool.put(batch(2))
    assert not spool.holdings().on_disk
    journal.open()
    held = spool.holdings()
    assert (held.put, held.waiting_points, held.on_disk) == (2, 2, True)
    assert sorted(drain(spool)) == [1, 2]
    assert balanced(spool)


def test_what_has_no_destination_now_waits_for_one(opened: Open, caplog: pytest.LogCaptureFixture):
    """And the log says so; a destination that is added later finds it."""
    journal, spool = opened("old")
    spool.put(batch(1))
    spool.end("shutdown")
    journal.close()
    journal, spool = opened("new")
    assert drain(spool) == []
    assert "1 batches for old wait" in caplog.text
    assert drain(journal.spool("old", Lanes(), once=False)) == [1]


def test_twice_the_same_destination_is_two_spools(opened: Open):
    """What waits for one is not what waits for the other."""
    journal, first = opened()
    second = journal.spool("place", Lanes(), once=False)
    first.put(batch(1))
    second.put(batch(2))
    assert (drain(first), drain(second)) == ([1], [2])


def test_only_this_user_can_read_it(opened: Open, tmp_path: Path):
    """Names of metrics may tell more than they should."""
    _, spool = opened(directory=tmp_path / "a" / "b")
    spool.put(batch(1))
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_a_backlog_gives_its_room_on_the_disk_back(opened: Open, tmp_path: Path):
    """Once it is delivered."""
    _, spool = opened()
    for number in range(20):
        spool.put(batch(number, 1 << 20))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 20 << 20
    drain(spool)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20


# -- sudden death


def test_kill_9_costs_nothing_that_was_committed(opened: Open, tmp_path: Path):
    """At any moment: batches and notes of one commit are there together, and in their order."""
    program = """
journal, spool, notes = opened()
number = int(notes.get("number", b"0"))
print("ready", flush=True)
while True:
    number += 1
    journal.commit([(spool, batch(number)), (spool, batch(number, 20_000))], {"number": b"%d" % number})
    os.write(1, b"%d\\n" % number)
"""
    committed = 0
    for _ in range(5):
        process = run(program, str(tmp_path))
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(30)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        assert int(lines[1]) == committed + 1  # it goes on where its notes end
        committed = int(lines[-1])
        # One more may be committed, and killed before it could say so.
        journal = Journal(tmp_path)
        noted = int(journal.open()["number"])
        assert noted in (committed, committed + 1)
        committed = noted
        journal.close()
    _, spool = opened()
    assert drain(spool) == [number for number in range(1, committed + 1) for _ in range(2)]


@pytest.mark.parametrize(("once", "left"), [(True, 0), (False, 1)])
def test_what_was_on_its_way_at_a_sudden_death(opened: Open, tmp_path: Path, once: bool, left: int):
    """Nobody knows whether it arrived: who adds up must not get it again, and it is counted; others do."""
    program = f"""
journal, spool, _ = opened(once={once})
spool.put(batch(1))
spool.put(batch(2))
spool.settle(spool.head())
spool.head()
os.kill(os.getpid(), 9)
"""
    ran(program, str(tmp_path), code=-9)
    _, spool = opened(once=once)
    assert drain(spool) == [2] * left
    assert spool.holdings().dropped == ({"unconfirmed": 1} if once else {})
    assert balanced(spool)


def test_what_certainly_did_not_arrive_is_sent_after_a_sudden_death(opened: Open, tmp_path: Path):
    """An attempt that failed leaves no doubt, and what remains of a batch is all that is sent."""
    program = """
journal, spool, _ = opened(once=True)
spool.put(Batch(1, 3, b"1 2 3"))
spool.put(batch(2))
taken = spool.head()
spool.settle(taken, taken)
taken = spool.head()
spool.settle(taken, Batch(1, 2, b"1 3"))
os.kill(os.getpid(), 9)
"""
    ran(program, str(tmp_path), code=-9)
    _, spool = opened(once=True)
    taken = spool.head()
    assert taken
    assert (taken.points, taken.payload) == (2, b"1 3")
    spool.settle(taken)
    assert drain(spool) == [2]
    assert spool.holdings().put == 3


# -- other processes


def test_each_process_has_a_file_of_its_own(opened: Open, tmp_path: Path):
    """Two at once do not meet, and neither takes what is the other's."""
    _, first = opened()
    first.put(batch(1))
    _, second = opened()
    second.put(batch(2))
    assert len(list(tmp_path.glob("*.sqlite"))) == 2
    assert (drain(first), drain(second)) == ([1], [2])


def test_files_of_dead_processes_are_adopted(opened: Open, tmp_path: Path):
    """At the start and, by those that run, about once a minute. What has no destination here stays, and so do notes."""
    program = """
journal, spool, _ = opened()
other = journal.spool("elsewhere", Lanes(), once=False)
journal.commit([(spool, batch(int(sys.argv[2]))), (other, batch(9))])
os.kill(os.getpid(), 9)
"""
    woken: list[bool] = []
    _, spool = opened(look=0.05)
    spool.wake = lambda: woken.append(True)
    spool.put(batch(5))
    ran(program, str(tmp_path), "1", code=-9)
    ran(program, str(tmp_path), "2", code=-9)  # which may take over what the one before left
    eventually(lambda: spool.holdings().waiting_batches == 3)
    assert woken
    assert sorted(drain(spool)) == [1, 2, 5]
    assert balanced(spool)
    _, elsewhere = opened("elsewhere")
    assert drain(elsewhere) == [9, 9]


def test_a_start_takes_over_one_file_and_adopts_the_others(opened: Open, tmp_path: Path):
    """Two at once died: all of what they left is sent, and one file is left."""
    one, spool = opened()
    spool.put(batch(1))
    other, spool = opened()
    spool.put(batch(2))
    one.close()
    other.close()
    journal, spool = opened()
    assert sorted(drain(spool)) == [1, 2]
    assert len(list(tmp_path.glob("*.sqlite"))) == 1
    journal.close()
    assert files(tmp_path) == []


def test_a_batch_that_is_in_two_files_is_sent_once(opened: Open, tmp_path: Path):
    """A crash in the middle of an adoption leaves it in both, under one id."""
    journal, spool = opened()
    spool.put(batch(1))
    journal.close()
    (path,) = tmp_path.glob("*.sqlite")
    copy = path.read_bytes()
    (tmp_path / "spool-copy.sqlite").write_bytes(copy)
    _, spool = opened()
    assert drain(spool) == [1]
    assert len(list(tmp_path.glob("*.sqlite"))) == 1


def test_another_users_file_is_left_alone(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And one that cannot be locked."""
    journal, spool = opened()
    spool.put(batch(1))
    journal.close()
    (lock,) = tmp_path.glob("*.lock")
    lock.unlink()
    lock.symlink_to("/dev/null")  # as good as one that may not be opened: links are not followed
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    other, spool = opened()
    spool.put(batch(2))
    assert spool.holdings().on_disk
    assert drain(spool) == [2]
    other.close()
    lock.unlink()
    _, spool = opened()
    assert drain(spool) == []
    monkeypatch.undo()
    _, spool = opened()
    assert drain(spool) == [1]


# -- forks


def test_a_forked_child_touches_nothing_of_the_parents(tmp_path: Path):
    """It has a file of its own from its first use on; the parent's is intact when it ends, and goes on being used."""
    output = ran(
        """
journal, spool, _ = opened()
journal.commit([(spool, batch(1))], {"a": b"1"})
if (pid := os.fork()) == 0:
    spool.forget()
    journal.forget()
    assert not spool.holdings().waiting_batches
    spool.put(batch(7))                      # not open yet: in memory
    journal.open(own=False)
    journal.commit([(spool, batch(8))], {"a": b"8"})
    print(len([name for name in os.listdir(sys.argv[1]) if name.endswith(".sqlite")]), flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
spool.put(batch(2))
journal.commit([(spool, batch(3))])
taken = spool.head()
print(taken.stamp, taken.payload[:2], spool.holdings().waiting_batches, spool.holdings().trouble)
spool.end("shutdown")
journal.close()
journal, spool, notes = opened()
order = []
while taken := spool.head(hurry=True):
    order.append(taken.stamp)
    spool.settle(taken)
print(sorted(order), notes)
""",
        str(tmp_path),
    )
    assert output.splitlines() == ["2", "1 b'1 ' 3 None", "[1, 2, 3, 7, 8] {'a': b'1'}"]


def test_the_parents_file_is_free_when_the_parent_is_gone(opened: Open, tmp_path: Path):
    """A child that lives on does not hold it."""
    output = ran(
        """
journal, spool, _ = opened()
spool.put(batch(1))
reading, writing = os.pipe()
if (pid := os.fork()) == 0:
    os.close(writing)
    if os.fork() == 0:
        spool.forget()
        journal.forget()
        os.close(1)
        os.read(reading, 1)                  # lives as long as who started it all
        os._exit(0)
    os.execv(sys.executable, [sys.executable, "-c", "pass"])
os.waitpid(pid, 0)
print("done", flush=True)
os._exit(0)
""",
        str(tmp_path),
    )
    assert output == "done\n"
    _, spool = opened()
    assert drain(spool) == [1]


def test_forks_while_the_disk_is_busy_hang_nobody(tmp_path: Path):
    """A hundred children, forked at any moment while threads commit: each uses SQLite, and ends."""
    output = ran(
        """
import threading
journal, spool, _ = opened()
stop = threading.Event()
def work():
    number = 0
    while not stop.is_set():
        number += 1
        spool.put(batch(number, 5000))
        spool.settle(spool.head())
threads = [threading.Thread(target=work)]
[thread.start() for thread in threads]
for _ in range(30):
    if (pid := os.fork()) == 0:
        spool.forget()
        journal.forget()
        journal.open(own=False)
        spool.put(batch(1))
        ok = spool.holdings().on_disk and spool.head().stamp == 1
        spool.settle(spool.head())
        journal.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
[thread.join() for thread in threads]
held = spool.holdings()
print(held.put == held.delivered + held.waiting_points, held.trouble)
""",
        str(tmp_path),
    )
    assert output == "True None\n"


# -- disks that refuse


def pages(journal: Journal, limit: int) -> None:
    """Let the disk be full when the file has so many pages."""
    journal._owner.do(
        lambda desk: desk.work(lambda file: file._db.execute(f"PRAGMA max_page_count={limit}").fetchall())
    )


def test_a_full_disk_costs_nothing_but_the_promise(opened: Open, clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """What cannot be written waits in memory, in its place, until there is room again; and all that is told."""
    caplog.set_level(logging.INFO, "metricslib")
    journal, spool = opened()
    spool.put(batch(1))
    pages(journal, 1)
    for number in (2, 3):
        journal.commit([(spool, batch(number, 100_000))], {"number": b"%d" % number})
    held = spool.holdings()
    assert (held.waiting_points, held.on_disk, held.trouble) == (3, False, "database or disk is full")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    taken = spool.head()
    assert taken
    assert taken.stamp == 1  # which is on the disk
    spool.settle(taken)
    pages(journal, 1 << 20)
    spool.put(batch(4))
    assert not spool.holdings().on_disk  # too early to try again
    clock.advance(30)
    journal.commit([])
    assert spool.holdings().on_disk
    assert spool.holdings().trouble is None
    assert caplog.records[-1].getMessage().endswith("can be written again")
    assert spool.end("shutdown") == 0
    journal.close()
    _, spool = opened()
    assert drain(spool) == [2, 3, 4]


def test_notes_are_kept_in_memory_while_the_disk_is_full(opened: Open, clock: ManualClock, tmp_path: Path):
    """The last of each key, and written with all else; what is delivered meanwhile does not come back."""
    journal, spool = opened()
    journal.commit([(spool, batch(1))], {"a": b"1", "b": b"1"})
    pages(journal, 1)
    journal.commit([(spool, batch(2, 100_000))], {"a": b"2", "b": None})
    journal.commit([(spool, batch(3, 100_000))], {"a": b"3"})
    assert drain(spool) == [1, 2, 3]
    pages(journal, 1 << 20)
    clock.advance(30)
    journal.commit([])
    journal.close()
    journal = Journal(tmp_path)
    spool = journal.spool("place", Lanes(), once=False)
    assert journal.open() == {"a": b"3"}
    assert drain(spool) == []
    journal.close()


def test_what_is_delivered_while_it_is_saved_does_not_come_back(
    opened: Open, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
):
    """The courier does not wait for the disk."""
    journal, spool = opened()
    pages(journal, 1)
    spool.put(batch(1, 100_000))
    unsaved = spool.unsaved

    def then_delivered() -> list[Any]:
        items = unsaved()
        drain(spool)
        return items

    monkeypatch.setattr(spool, "unsaved", then_delivered)
    pages(journal, 1 << 20)
    clock.advance(30)
    journal.commit([])
    journal.close()
    _, spool = opened()
    assert drain(spool) == []


def test_what_is_in_memory_alone_at_the_end_is_dropped_and_counted(opened: Open):
    """Cause ``shutdown``; what is on the disk stays."""
    journal, spool = opened()
    spool.put(batch(1))
    pages(journal, 1)
    spool.put(batch(2, 100_000))
    assert spool.end("shutdown") == 1
    assert spool.holdings().dropped == {"shutdown": 1}
    assert spool.holdings().waiting_points == 1
    assert balanced(spool)


def test_a_directory_that_cannot_be_is_no_reason_not_to_start(
    opened: Open, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """It works in memory, and begins to write when the directory is there."""
    (tmp_path / "file").write_text("")
    journal, spool = opened(directory=tmp_path / "file" / "spool")
    spool.put(batch(1))
    assert (spool.holdings().on_disk, spool.holdings().trouble) == (False, "Not a directory")
    assert len(caplog.records) == 1
    (tmp_path / "file").unlink()
    clock.advance(30)
    spool.put(batch(2))
    assert spool.holdings().on_disk
    journal.close()
    _, spool = opened(directory=tmp_path / "file" / "spool")
    assert drain(spool) == [1, 2]


def test_a_read_only_directory_is_no_reason_not_to_start(tmp_path: Path):
    """Nor one of somebody else's: in memory, and said so."""
    tmp_path.chmod(0o555)
    output = ran(
        """
if os.getuid() == 0:
    os.setuid(65534)
journal, spool, _ = opened()
spool.put(batch(1))
print(spool.holdings().on_disk, spool.holdings().trouble, spool.head().stamp)
""",
        str(tmp_path / "spool"),
    )
    assert output == "False Permission denied 1\n"


# -- damage


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    path.write_bytes(b"something else\n" * 10_000)


def flipped(path: Path) -> None:
    """In the middle, across several pages."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 20_000):
        content[place] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, overwritten, flipped])
def test_a_damaged_file_is_set_aside_and_service_goes_on(
    opened: Open, tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    """Whole batches that can still be read are sent, the others dropped, cause ``corrupt``, as long as the file still
    tells how many there were; the page and the log say what happened.
    """
    journal, spool = opened()
    for number in range(100):
        spool.put(batch(number, 5000))
    journal.close()
    (path,) = tmp_path.glob("*.sqlite")
    damage(path)
    journal, spool = opened()
    found = drain(spool)
    assert found == sorted(set(found))
    assert len(found) < 100
    assert balanced(spool)
    assert (len(found) > 50) == (damage is flipped)
    held = spool.holdings()
    assert held.dropped == ({} if damage is overwritten else {"corrupt": 100 - len(found)})
    assert held.on_disk
    assert held.trouble
    assert held.trouble.startswith("a damaged file was set aside as spool-")
    assert caplog.text.count("a damaged file was set aside") == 1
    assert len(list(tmp_path.glob("*.corrupt-*"))) == 1
    spool.put(batch(200))
    journal.close()
    _, spool = opened()
    assert drain(spool) == [200]


def test_a_bit_that_flipped_in_a_batch_is_found(opened: Open, tmp_path: Path):
    """The batch is dropped, cause ``corrupt``; those around it are sent."""
    journal, spool = opened()
    for number in (1, 2, 3):
        spool.put(batch(number, 20_000))
    journal.close()
    (path,) = tmp_path.glob("*.sqlite")
    content = bytearray(path.read_bytes())
    content[content.index(b"2 xxxx") + 100] ^= 1
    path.write_bytes(content)
    _, spool = opened()
    assert drain(spool) == [1, 3]
    assert spool.holdings().dropped == {"corrupt": 1}
    assert balanced(spool)


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(opened: Open, tmp_path: Path):
    """What cannot be read of it any more is dropped, cause ``corrupt``; everything else goes on."""
    _, spool = opened()
    for number in range(50):
        spool.put(batch(number, 50_000))
    (path,) = tmp_path.glob("*.sqlite")
    for part in (path, path.with_name(path.name + "-wal")):
        with part.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xaa" * (part.stat().st_size - 4096))
    drain(spool)
    held = spool.holdings()
    assert held.dropped["corrupt"] > 0
    assert balanced(spool)
    spool.put(batch(100))
    assert spool.holdings().on_disk
    assert drain(spool) == [100]
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 1


def test_few_damaged_files_are_left_to_look_at(opened: Open, tmp_path: Path):
    """They do not fill the disk."""
    for _ in range(5):
        journal, spool = opened()
        spool.put(batch(1))
        journal.close()
        (path,) = tmp_path.glob("*.sqlite")
        overwritten(path)
    opened()
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 3


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707])
def test_a_directory_that_everybody_can_write_is_refused(
    opened: Open, tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
):
    """Others could put files there that SQLite would read, or links that it would write through."""
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(mode)
    journal, spool = opened(directory=directory)
    spool.put(batch(1))
    assert not journal.on_disk
    assert "can be written by everybody" in caplog.text
    assert list(directory.iterdir()) == []
    assert str(cannot_write(directory)).endswith("can be written by everybody")
    assert drain(spool) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Root's is fine, and our own."""
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o755)
    os.chown(directory, 65534, -1)
    journal, _ = opened(directory=directory)
    assert not journal.on_disk
    assert "belongs to another user" in caplog.text
    assert str(cannot_write(directory)).endswith("belongs to another user")


@pytest.mark.parametrize("plant", [os.link, os.symlink])
def test_a_file_with_a_second_name_is_left_alone(
    opened: Open, tmp_path: Path, plant: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
):
    """It may be another database of ours, which would be changed, and deleted when it is empty."""
    journal, spool = opened()
    spool.put(batch(1))
    journal.close()
    (left,) = tmp_path.glob("spool-*.sqlite")
    left.rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    plant(tmp_path / "elsewhere", left)
    for _ in range(2):
        journal, spool = opened()
        assert drain(spool) == []
        journal.close()
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert left.exists()
    assert f"{left.name} is left alone: it " in caplog.text
