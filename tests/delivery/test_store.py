"""A store keeps what was committed, whatever becomes of the process; and says what it cannot keep."""

import errno
import logging
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metricslib.delivery import Batch, Queue
from metricslib.delivery.store import Store, cannot_write
from metricslib.delivery.store.file import Changes, Record, SpoolFile
from metricslib.delivery.store.store import _Disk
from metricslib.testing import ManualClock
from tests.peers import eventually

ROOT = Path(__file__).parent.parent.parent
Open = Callable[..., tuple[Store, Queue]]


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """Call for a store in the test's directory, with one queue."""
    stores = []

    def opened(
        place: str = "place",
        *,
        once: bool = False,
        replay: float | None = None,
        own: bool = True,
        directory: Path = tmp_path,
        **more: Any,
    ) -> tuple[Store, Queue]:
        store = Store(directory, clock=clock, **more)
        queue = Queue(clock=clock, replay=replay, once=once, label=place, store=store)
        store.open(own=own)
        stores.append(store)
        return store, queue

    yield opened
    for store in stores:
        store.close()


def batch(number: int, size: int = 10) -> Batch:
    return Batch(number, 1, b"%d " % number + b"x" * size)


def commit(store: Store, puts: list[tuple[Queue, Batch]], checkpoint: dict[str, bytes | None] | None = None) -> None:
    """Put batches and set entries of the checkpoint in one transaction, as the dispatcher does."""
    entries = [(queue, queue.entries([batch])) for queue, batch in puts]
    store.put([record for queue, some in entries for record in queue.records(some)], checkpoint)
    for queue, some in entries:
        queue.admit(some)


def drain(queue: Queue) -> list[int]:
    """Deliver all that waits; return the stamps."""
    order = []
    while taken := queue.take(hurry=True):
        assert taken.payload.startswith(b"%d " % taken.stamp)
        order.append(taken.stamp)
        queue.ack(taken)
    return order


def balanced(queue: Queue) -> bool:
    held = queue.stats()
    return held.put == held.delivered + sum(held.dropped.values()) + held.waiting_points


def files(directory: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in directory.iterdir())


def has_a_reserve(directory: Path) -> bool:
    """Whether there is room to give back when the disk is full, beside the one spool."""
    (path,) = directory.glob("*.sqlite")
    return path.with_name(f"{path.name}-spare").stat().st_size > 0


def run(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """Begin a program that has the names it needs."""
    prelude = """
import os, sys
from metricslib.delivery import Batch, Queue
from metricslib.delivery.store import Store
def opened(once=False):
    store = Store(sys.argv[1])
    queue = Queue(once=once, label="place", store=store)
    found = store.open()
    return store, queue, found
def commit(store, puts, checkpoint=None):
    entries = [(queue, queue.entries([batch])) for queue, batch in puts]
    store.put([record for queue, some in entries for record in queue.records(some)], checkpoint)
    for queue, some in entries:
        queue.admit(some)
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
    """With its order, its age and the checkpoint that belongs to it; and for the account it was put anew."""
    first, queue = opened()
    commit(first, [(queue, batch(1)), (queue, batch(2))], {"a": b"1", "b": b"2"})
    commit(first, [(queue, batch(3))], {"b": None, "c": b"3"})
    assert queue.drop_unsaved("shutdown") == 0
    first.close()
    assert queue.stats().waiting_points == 3
    second = Store(tmp_path)
    queue = Queue(label="place", store=second)
    assert second.open() == {"a": b"1", "c": b"3"}
    held = queue.stats()
    assert (held.put, held.waiting_points, held.on_disk, held.trouble) == (3, 3, True, None)
    assert drain(queue) == [1, 2, 3]
    commit(second, [], {"a": None, "c": None})
    second.close()
    assert files(tmp_path) == []


def test_what_was_found_after_a_restart_is_a_backlog(opened: Open):
    """What is measured now goes before what an earlier process left."""
    store, queue = opened(replay=1e9)
    queue.put([batch(1)])
    queue.drop_unsaved("shutdown")
    store.close()
    _, queue = opened(replay=1e9)
    queue.put([batch(2)])
    assert queue.stats().backlog_batches == 1
    assert drain(queue) == [2, 1]


def test_what_was_found_counts_towards_the_bound_when_something_is_put(tmp_path: Path):
    """The oldest is dropped first, here and on the disk; the window that is being sent stays whole."""
    for ending in ("first", "second"):
        store = Store(tmp_path)
        queue = Queue(1000, label="place", store=store)
        store.open()
        if ending == "first":
            for number in range(5):
                queue.put([Batch(number, 1, b"x" * 150, 0), Batch(number, 1, b"x" * 150)])
                queue.take()
            assert queue.stats().dropped == {"spool_full": 4}
        else:
            assert queue.stats().waiting_batches == 6
            queue.take()
            queue.put([batch(9)])
            assert queue.stats().dropped == {"spool_full": 2}
            assert len(drain_all(queue)) == 5
        store.close()
    assert files(tmp_path) == []


def drain_all(queue: Queue) -> list[Batch]:
    found = []
    while taken := queue.take(hurry=True):
        found.append(taken)
        queue.ack(taken)
    return found


def test_age_goes_on_while_no_process_runs(clock: ManualClock, tmp_path: Path):
    """By the wall clock, for there is no other that both know."""
    store = Store(tmp_path, clock=clock)
    store.open()
    Queue(label="place", clock=clock, store=store).put([batch(1)])
    store.close()
    clock.advance(61)
    store = Store(tmp_path, clock=clock)
    queue = Queue(max_age=60, clock=clock, label="place", store=store)
    store.open()
    assert queue.take() is None
    assert queue.stats().dropped == {"too_old": 1}
    assert balanced(queue)
    store.close()


def test_the_order_outlives_a_clock_that_is_set_back(opened: Open, monkeypatch: pytest.MonkeyPatch):
    """Between processes: what the later one put for a slot must not be sent before what the earlier one put for it."""
    for hours, payload in ((2, b"earlier"), (1, b"later")):
        monkeypatch.setattr("time.time_ns", lambda hours=hours: hours * 3600 * 10**9)
        store, queue = opened(replay=100.0)
        queue.put([Batch(10, 1, payload)])
        store.close()
    _, queue = opened(replay=100.0)
    sent = []
    while taken := queue.take(hurry=True):
        sent.append(taken.payload)
        queue.ack(taken)
    assert sent == [b"earlier", b"later"]


def test_a_store_can_be_closed_and_opened_again(opened: Open):
    """A flusher that is stopped may be started; in between what is put waits in memory, and is counted once."""
    store, queue = opened()
    queue.put([batch(1)])
    queue.drop_unsaved("shutdown")
    store.close()
    queue.put([batch(2)])
    assert not queue.stats().on_disk
    queue.forget_stored()
    store.open()
    held = queue.stats()
    assert (held.put, held.waiting_points, held.on_disk) == (2, 2, True)
    assert sorted(drain(queue)) == [1, 2]
    assert balanced(queue)


def test_what_has_no_destination_now_waits_for_one(opened: Open, caplog: pytest.LogCaptureFixture):
    """And the log says so; a destination that is added later finds it."""
    store, queue = opened("old")
    queue.put([batch(1)])
    queue.drop_unsaved("shutdown")
    store.close()
    store, queue = opened("new")
    assert drain(queue) == []
    assert "1 batch for old, which is no longer a destination" in caplog.text
    assert drain(Queue(label="old", store=store)) == [1]


def test_twice_the_same_destination_is_two_spools(opened: Open):
    """What waits for one is not what waits for the other."""
    store, first = opened()
    second = Queue(label="place", store=store)
    first.put([batch(1)])
    second.put([batch(2)])
    assert (drain(first), drain(second)) == ([1], [2])


def test_only_this_user_can_read_it(opened: Open, tmp_path: Path):
    """Names of metrics may tell more than they should."""
    _, queue = opened(directory=tmp_path / "a" / "b")
    queue.put([batch(1)])
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_a_backlog_gives_its_room_on_the_disk_back(opened: Open, tmp_path: Path):
    """Once it is delivered."""
    _, queue = opened()
    for number in range(20):
        queue.put([batch(number, 1 << 20)])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 20 << 20
    drain(queue)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20


# -- sudden death


def test_kill_9_costs_nothing_that_was_committed(opened: Open, tmp_path: Path):
    """At any moment: batches and checkpoint of one commit are there together, and in their order."""
    program = """
store, queue, found = opened()
number = int(found.get("number", b"0"))
print("ready", flush=True)
while True:
    number += 1
    commit(store, [(queue, batch(number)), (queue, batch(number, 20_000))], {"number": b"%d" % number})
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
        assert int(lines[1]) == committed + 1  # it goes on where its checkpoint ends
        committed = int(lines[-1])
        # One more may be committed, and killed before it could say so.
        store = Store(tmp_path)
        noted = int(store.open()["number"])
        assert noted in (committed, committed + 1)
        committed = noted
        store.close()
    _, queue = opened()
    assert drain(queue) == [number for number in range(1, committed + 1) for _ in range(2)]


@pytest.mark.parametrize(("once", "left"), [(True, 0), (False, 1)])
def test_what_was_on_its_way_at_a_sudden_death(opened: Open, tmp_path: Path, once: bool, left: int):
    """Nobody knows whether it arrived: who adds up must not get it again, and it is counted; others do."""
    program = f"""
store, queue, _ = opened(once={once})
queue.put([batch(1)])
queue.put([batch(2)])
queue.ack(queue.take())
queue.take()
os.kill(os.getpid(), 9)
"""
    ran(program, str(tmp_path), code=-9)
    _, queue = opened(once=once)
    assert drain(queue) == [2] * left
    assert queue.stats().dropped == ({"unconfirmed": 1} if once else {})
    assert balanced(queue)


def test_what_certainly_did_not_arrive_is_sent_after_a_sudden_death(opened: Open, tmp_path: Path):
    """An attempt that failed leaves no doubt, and what remains of a batch is all that is sent."""
    program = """
store, queue, _ = opened(once=True)
queue.put([Batch(1, 3, b"1 2 3")])
queue.put([batch(2)])
taken = queue.take()
queue.retry(taken)
taken = queue.take()
queue.retry(taken, Batch(1, 2, b"1 3"))
os.kill(os.getpid(), 9)
"""
    ran(program, str(tmp_path), code=-9)
    _, queue = opened(once=True)
    taken = queue.take()
    assert taken
    assert (taken.points, taken.payload) == (2, b"1 3")
    queue.ack(taken)
    assert drain(queue) == [2]
    assert queue.stats().put == 3


# -- other processes


def test_each_process_has_a_file_of_its_own(opened: Open, tmp_path: Path):
    """Two at once do not meet, and neither takes what is the other's."""
    _, first = opened()
    first.put([batch(1)])
    _, second = opened()
    second.put([batch(2)])
    assert len(list(tmp_path.glob("*.sqlite"))) == 2
    assert (drain(first), drain(second)) == ([1], [2])


def test_files_of_dead_processes_are_adopted(opened: Open, tmp_path: Path):
    """At the start and about once a minute. What has no destination here stays, and so do checkpoints."""
    program = """
store, queue, _ = opened()
other = Queue(label="elsewhere", store=store)
commit(store, [(queue, batch(int(sys.argv[2]))), (other, batch(9))])
os.kill(os.getpid(), 9)
"""
    woken: list[bool] = []
    _, queue = opened(look=0.05)
    queue.wake = lambda: woken.append(True)
    queue.put([batch(5)])
    ran(program, str(tmp_path), "1", code=-9)
    ran(program, str(tmp_path), "2", code=-9)  # which may take over what the one before left
    eventually(lambda: queue.stats().waiting_batches == 3)
    assert woken
    assert sorted(drain(queue)) == [1, 2, 5]
    assert balanced(queue)
    _, elsewhere = opened("elsewhere")
    assert drain(elsewhere) == [9, 9]


def test_a_busy_process_adopts_too(opened: Open, tmp_path: Path, clock: ManualClock):
    """The clock says when to look, for the thread that does may never be idle."""
    _, queue = opened()
    program = "store, queue, _ = opened()\nqueue.put([batch(1)])\nos.kill(os.getpid(), 9)"
    ran(program, str(tmp_path), code=-9)
    for seconds in range(61):
        queue.put([batch(100 + seconds)])
        clock.advance(1)
    queue.put([batch(2)])
    assert {1, 2} < set(drain(queue))


def test_a_start_takes_over_one_file_and_adopts_the_others(opened: Open, tmp_path: Path):
    """Two at once died: all of what they left is sent, and one file is left."""
    one, queue = opened()
    queue.put([batch(1)])
    other, queue = opened()
    queue.put([batch(2)])
    one.close()
    other.close()
    store, queue = opened()
    assert sorted(drain(queue)) == [1, 2]
    assert len(list(tmp_path.glob("*.sqlite"))) == 1
    store.close()
    assert files(tmp_path) == []


def test_a_batch_that_is_in_two_files_is_sent_once(opened: Open, tmp_path: Path):
    """A crash in the middle of an adoption leaves it in both, under one id."""
    store, queue = opened()
    queue.put([batch(1)])
    store.close()
    (path,) = tmp_path.glob("*.sqlite")
    copy = path.read_bytes()
    (tmp_path / "spool-copy.sqlite").write_bytes(copy)
    _, queue = opened()
    assert drain(queue) == [1]
    assert len(list(tmp_path.glob("*.sqlite"))) == 1


def test_another_users_file_is_left_alone(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And one that cannot be locked."""
    store, queue = opened()
    queue.put([batch(1)])
    store.close()
    (lock,) = tmp_path.glob("*.lock")
    lock.unlink()
    lock.symlink_to("/dev/null")  # as good as one that may not be opened: links are not followed
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    other, queue = opened()
    queue.put([batch(2)])
    assert queue.stats().on_disk
    assert drain(queue) == [2]
    other.close()
    lock.unlink()
    _, queue = opened()
    assert drain(queue) == []
    monkeypatch.undo()
    _, queue = opened()
    assert drain(queue) == [1]


# -- forks


def test_a_forked_child_touches_nothing_of_the_parents(tmp_path: Path):
    """It has a file of its own from its first use on; the parent's is intact when it ends, and goes on being used."""
    output = ran(
        """
store, queue, _ = opened()
commit(store, [(queue, batch(1))], {"a": b"1"})
if (pid := os.fork()) == 0:
    queue.reset_after_fork()
    store.reset_after_fork()
    assert not queue.stats().waiting_batches
    queue.put([batch(7)])                    # not open yet: in memory
    store.open(own=False)
    commit(store, [(queue, batch(8))], {"a": b"8"})
    print(len([name for name in os.listdir(sys.argv[1]) if name.endswith(".sqlite")]), flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
queue.put([batch(2)])
commit(store, [(queue, batch(3))])
taken = queue.take()
print(taken.stamp, taken.payload[:2], queue.stats().waiting_batches, queue.stats().trouble)
queue.drop_unsaved("shutdown")
store.close()
store, queue, found = opened()
order = []
while taken := queue.take(hurry=True):
    order.append(taken.stamp)
    queue.ack(taken)
print(sorted(order), found)
""",
        str(tmp_path),
    )
    assert output.splitlines() == ["2", "1 b'1 ' 3 None", "[1, 2, 3, 7, 8] {'a': b'1'}"]


def test_the_parents_file_is_free_when_the_parent_is_gone(opened: Open, tmp_path: Path):
    """A child that lives on does not hold it."""
    output = ran(
        """
store, queue, _ = opened()
queue.put([batch(1)])
reading, writing = os.pipe()
if (pid := os.fork()) == 0:
    os.close(writing)
    if os.fork() == 0:
        queue.reset_after_fork()
        store.reset_after_fork()
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
    _, queue = opened()
    assert drain(queue) == [1]


def test_forks_while_the_disk_is_busy_hang_nobody(tmp_path: Path):
    """A hundred children, forked at any moment while threads commit: each uses SQLite, and ends."""
    output = ran(
        """
import threading
store, queue, _ = opened()
stop = threading.Event()
def work():
    number = 0
    while not stop.is_set():
        number += 1
        queue.put([batch(number, 5000)])
        queue.ack(queue.take())
threads = [threading.Thread(target=work)]
[thread.start() for thread in threads]
for _ in range(30):
    if (pid := os.fork()) == 0:
        queue.reset_after_fork()
        store.reset_after_fork()
        store.open(own=False)
        queue.put([batch(1)])
        ok = queue.stats().on_disk and queue.take().stamp == 1
        queue.ack(queue.take())
        store.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
[thread.join() for thread in threads]
held = queue.stats()
print(held.put == held.delivered + held.waiting_points, held.trouble)
""",
        str(tmp_path),
    )
    assert output == "True None\n"


# -- disks that refuse


def pages(store: Store, limit: int) -> None:
    """Let the disk be full when the file has so many pages."""
    store._thread.do(
        lambda disk: disk._work(lambda file: file._db.execute(f"PRAGMA max_page_count={limit}").fetchall())
    )


def test_a_full_disk_costs_nothing_but_the_promise(opened: Open, clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """What cannot be written waits in memory, in its place, until there is room again; and all that is told."""
    caplog.set_level(logging.INFO, "metricslib")
    store, queue = opened()
    queue.put([batch(1)])
    pages(store, 1)
    for number in (2, 3):
        commit(store, [(queue, batch(number, 100_000))], {"number": b"%d" % number})
    held = queue.stats()
    assert (held.waiting_points, held.on_disk, held.trouble) == (3, False, "database or disk is full")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    taken = queue.take()
    assert taken
    assert taken.stamp == 1  # which is on the disk
    queue.ack(taken)
    pages(store, 1 << 20)
    queue.put([batch(4)])
    assert not queue.stats().on_disk  # too early to try again
    clock.advance(30)
    commit(store, [])
    assert queue.stats().on_disk
    assert queue.stats().trouble is None
    assert caplog.records[-1].getMessage().endswith("can be written again")
    assert queue.drop_unsaved("shutdown") == 0
    store.close()
    _, queue = opened()
    assert drain(queue) == [2, 3, 4]


def test_the_checkpoint_is_kept_in_memory_while_the_disk_is_full(opened: Open, clock: ManualClock, tmp_path: Path):
    """The last of each key, and written with all else; what is delivered meanwhile does not come back."""
    store, queue = opened()
    commit(store, [(queue, batch(1))], {"a": b"1", "b": b"1"})
    pages(store, 1)
    commit(store, [(queue, batch(2, 100_000))], {"a": b"2", "b": None})
    commit(store, [(queue, batch(3, 100_000))], {"a": b"3"})
    assert drain(queue) == [1, 2, 3]
    pages(store, 1 << 20)
    clock.advance(30)
    commit(store, [])
    store.close()
    store = Store(tmp_path)
    queue = Queue(label="place", store=store)
    assert store.open() == {"a": b"3"}
    assert drain(queue) == []
    store.close()


def test_what_is_delivered_while_it_is_written_does_not_come_back(opened: Open, monkeypatch: pytest.MonkeyPatch):
    """The sender does not wait for the disk."""
    store, queue = opened()
    write = SpoolFile.write

    def then_delivered(file: SpoolFile, changes: Changes) -> None:
        write(file, changes)
        if changes.records:
            store._pending.gone.add(0)  # something else to remove, so that the next write is no surprise
            sync = monkeypatch.context()
            with sync as patched:
                patched.setattr(store, "sync", lambda **_: None)  # which would wait for this thread
                store.ack(changes.records)

    monkeypatch.setattr(SpoolFile, "write", then_delivered)
    queue.put([batch(1, 100_000)])
    store.close()
    _, queue = opened()
    assert drain(queue) == []


def test_what_is_in_memory_alone_at_the_end_is_dropped_and_counted(opened: Open):
    """Cause ``shutdown``; what is on the disk stays."""
    store, queue = opened()
    queue.put([batch(1)])
    pages(store, 1)
    queue.put([batch(2, 100_000)])
    assert queue.drop_unsaved("shutdown") == 1
    assert queue.stats().dropped == {"shutdown": 1}
    assert queue.stats().waiting_points == 1
    assert balanced(queue)


def test_a_directory_that_cannot_be_is_no_reason_not_to_start(
    opened: Open, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """It works in memory, and begins to write when the directory is there."""
    (tmp_path / "file").write_text("")
    store, queue = opened(directory=tmp_path / "file" / "spool")
    queue.put([batch(1)])
    assert (queue.stats().on_disk, queue.stats().trouble) == (False, "Not a directory")
    assert len(caplog.records) == 1
    (tmp_path / "file").unlink()
    clock.advance(30)
    queue.put([batch(2)])
    assert queue.stats().on_disk
    store.close()
    _, queue = opened(directory=tmp_path / "file" / "spool")
    assert drain(queue) == [1, 2]


def test_a_read_only_directory_is_no_reason_not_to_start(tmp_path: Path):
    """Nor one of somebody else's: in memory, and said so."""
    tmp_path.chmod(0o555)
    output = ran(
        """
if os.getuid() == 0:
    os.setuid(65534)
store, queue, _ = opened()
queue.put([batch(1)])
print(queue.stats().on_disk, queue.stats().trouble, queue.take().stamp)
""",
        str(tmp_path / "spool"),
    )
    assert output == "False Permission denied 1\n"


def full(store: Store, monkeypatch: pytest.MonkeyPatch, *, room: Callable[[], bool]) -> None:
    """Let the disk take nothing that writes batches, and deletions alone only if there is ``room``."""
    write = SpoolFile.write

    def writing(file: SpoolFile, changes: Changes) -> None:
        if changes.records or not room():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        write(file, changes)

    monkeypatch.setattr(SpoolFile, "write", writing)


def test_what_a_disk_took_before_it_was_full_is_still_on_it(opened: Open, monkeypatch: pytest.MonkeyPatch):
    """The rest waits in memory; both are told."""
    store, queue = opened()
    queue.put([batch(1, 1000)])
    assert queue.stats().disk_bytes == queue.stats().waiting_bytes
    full(store, monkeypatch, room=lambda: False)
    queue.put([batch(2, 500)])
    held = queue.stats()
    assert (held.on_disk, held.disk_bytes, held.waiting_bytes - held.disk_bytes) == (False, 1002, 502)


def test_a_full_disk_is_left_by_the_room_held_in_reserve(
    opened: Open, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was delivered meanwhile is removed from the file, and not sent again after a sudden death."""
    store, queue = opened()
    queue.put([batch(1)])
    queue.put([batch(2)])
    (spare,) = tmp_path.glob("*-spare")
    full(store, monkeypatch, room=lambda: not spare.exists())
    queue.put([batch(3)])
    assert not queue.stats().on_disk
    queue.ack(queue.take())  # type: ignore[arg-type]
    clock.advance(30)
    store.sync()
    (path,) = tmp_path.glob("*.sqlite")
    assert [record.batch.stamp for record in copied(path)] == [2]
    monkeypatch.undo()
    clock.advance(30)
    store.sync()
    assert queue.stats().on_disk
    assert drain(queue) == [2, 3]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_disk_is_left_when_nothing_waits_any_more(
    opened: Open, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
):
    """Where not even the reserve helps, an empty file takes the place of the one that is full; the checkpoint stays."""
    store, queue = opened()
    commit(store, [(queue, batch(number, 1 << 20)) for number in range(8)], {"a": b"1"})
    (path,) = tmp_path.glob("*.sqlite")
    full(store, monkeypatch, room=lambda: not path.exists())
    assert len(drain(queue)) == 8
    clock.advance(30)
    if not at_once:  # somebody else was quicker to take the room
        with monkeypatch.context() as patched:
            patched.setattr(_Disk, "_make", refuse)
            store.sync()
        assert (queue.stats().on_disk, queue.stats().trouble) == (False, "No space left on device")
        clock.advance(30)
    store.sync()
    assert queue.stats().on_disk
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) < 1 << 20
    monkeypatch.undo()
    store.close()
    again = Store(tmp_path)
    queue = Queue(label="place", store=again)
    assert again.open() == {"a": b"1"}
    assert drain(queue) == []
    again.close()


def test_a_small_disk_gets_its_room_back_when_nothing_waits(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where little is left on the disk, a backlog of less than what is else worth keeping leaves nothing behind."""
    monkeypatch.setattr(SpoolFile, "_room", lambda file: 0)
    store, queue = opened()
    commit(store, [(queue, batch(number, 100_000)) for number in range(20)], {"a": b"1"})
    assert len(drain(queue)) == 20
    store.sync()
    assert sum(one.stat().st_size for one in tmp_path.glob("*.sqlite*") if not one.name.endswith("-spare")) < 200_000


def test_a_full_file_in_which_nothing_waits_gives_its_room_back(opened: Open, monkeypatch: pytest.MonkeyPatch):
    """Also when the first change after a start only adds something, so that nothing is to be removed."""
    _, queue = opened()
    shrunk: list[int | None] = []
    monkeypatch.setattr(SpoolFile, "shrink", lambda file, spare=None: shrunk.append(spare))
    write = SpoolFile.write

    def writing(file: SpoolFile, changes: Changes) -> None:
        if 0 not in shrunk:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        write(file, changes)

    monkeypatch.setattr(SpoolFile, "write", writing)
    queue.put([batch(1)])
    assert queue.stats().on_disk
    assert drain(queue) == [1]


def refuse(disk: _Disk) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def copied(path: Path) -> list[Record]:
    """What is in a file that is in use."""
    with tempfile.TemporaryDirectory() as directory:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, directory)
        file = SpoolFile(Path(directory, path.name))
        try:
            return file.records()
        finally:
            file.close()


@pytest.mark.parametrize(
    "remove", [lambda path: shutil.rmtree(path), lambda path: [one.unlink() for one in path.iterdir()]]
)
def test_a_directory_that_is_removed_while_in_use_is_made_anew(
    opened: Open, tmp_path: Path, remove: Callable[[Path], object], caplog: pytest.LogCaptureFixture
):
    """With the next interval, with all that waits and the checkpoint; the page and the log say so."""
    store, queue = opened(directory=tmp_path / "spool")
    commit(store, [(queue, batch(1)), (queue, batch(2))], {"a": b"1"})
    remove(tmp_path / "spool")
    commit(store, [])
    held = queue.stats()
    assert (held.on_disk, held.waiting_points) == (True, 2)
    assert "files were removed from it while in use" in str(held.trouble)
    assert caplog.text.count("files were removed from it while in use") == 1
    assert has_a_reserve(tmp_path / "spool")
    assert queue.drop_unsaved("shutdown") == 0
    store.close()
    again = Store(tmp_path / "spool")
    queue = Queue(label="place", store=again)
    assert again.open() == {"a": b"1"}
    assert drain(queue) == [1, 2]
    again.close()


def test_a_directory_that_cannot_be_made_anew_outlives_nothing(opened: Open, tmp_path: Path, clock: ManualClock):
    """What waits is sent, but is not said to be on disk; when the directory can be made again, all of it is there."""
    store, queue = opened(directory=tmp_path / "a" / "spool")
    queue.put([batch(1)])
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").write_text("")
    queue.put([batch(2)])
    assert (queue.stats().on_disk, queue.stats().trouble) == (False, "Not a directory")
    taken = queue.take()
    assert taken
    queue.retry(taken)
    assert store.unsaved() is None
    (tmp_path / "a").unlink()
    clock.advance(30)
    commit(store, [])
    assert queue.stats().on_disk
    assert store.unsaved() == set()
    store.close()
    _, queue = opened(directory=tmp_path / "a" / "spool")
    assert drain(queue) == [1, 2]


def test_what_is_nowhere_is_not_said_to_be_kept(opened: Open, tmp_path: Path):
    """At the end it is dropped, cause ``shutdown``."""
    _, queue = opened(directory=tmp_path / "a" / "spool")
    queue.put([batch(1)])
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").write_text("")
    assert queue.drop_unsaved("shutdown") == 1
    assert queue.stats().dropped == {"shutdown": 1}


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
    """What was in it is dropped, cause ``corrupt``, as far as the file still tells how much that was; the page and the
    log say what happened.
    """
    store, queue = opened()
    for number in range(100):
        queue.put([batch(number, 5000)])
    store.close()
    (path,) = tmp_path.glob("*.sqlite")
    damage(path)
    store, queue = opened()
    assert drain(queue) == []
    assert balanced(queue)
    held = queue.stats()
    assert held.dropped == ({} if damage is overwritten else {"corrupt": 100})
    assert held.on_disk
    assert held.trouble
    assert held.trouble.startswith("a damaged file was set aside as spool-")
    assert caplog.text.count("a damaged file was set aside") == 1
    assert len(list(tmp_path.glob("*.corrupt-*"))) == 1
    queue.put([batch(200)])
    store.close()
    _, queue = opened()
    assert drain(queue) == [200]


def test_a_bit_that_flipped_in_a_batch_is_found(opened: Open, tmp_path: Path):
    """The batch is dropped, cause ``corrupt``; those around it are sent."""
    store, queue = opened()
    for number in (1, 2, 3):
        queue.put([batch(number, 20_000)])
    store.close()
    (path,) = tmp_path.glob("*.sqlite")
    content = bytearray(path.read_bytes())
    content[content.index(b"2 xxxx") + 100] ^= 1
    path.write_bytes(content)
    _, queue = opened()
    assert drain(queue) == [1, 3]
    assert queue.stats().dropped == {"corrupt": 1}
    assert balanced(queue)


def test_a_file_that_is_damaged_while_it_is_used_is_set_aside(opened: Open, tmp_path: Path):
    """What cannot be read of it any more is dropped, cause ``corrupt``; everything else goes on."""
    _, queue = opened()
    for number in range(50):
        queue.put([batch(number, 50_000)])
    (path,) = tmp_path.glob("*.sqlite")
    for part in (path, path.with_name(path.name + "-wal")):
        with part.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xaa" * (part.stat().st_size - 4096))
    drain(queue)
    held = queue.stats()
    assert held.dropped["corrupt"] > 0
    assert balanced(queue)
    queue.put([batch(100)])
    assert queue.stats().on_disk
    assert drain(queue) == [100]
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 1
    assert has_a_reserve(tmp_path)


def test_few_damaged_files_are_left_to_look_at(opened: Open, tmp_path: Path):
    """They do not fill the disk."""
    for _ in range(5):
        store, queue = opened()
        queue.put([batch(1)])
        store.close()
        (path,) = tmp_path.glob("*.sqlite")
        overwritten(path)
    opened()
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 3


def test_a_disk_that_refuses_a_new_file_is_left_as_it_was(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is tried again and again: each attempt would leave an empty file and its lock behind."""

    def full(self: SpoolFile) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SpoolFile, "_begin", full)
    store, _ = opened()
    store.sync(force=True)
    assert store.trouble == cannot_write(tmp_path) == "database or disk is full"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707])
def test_a_directory_that_everybody_can_write_is_refused(
    opened: Open, tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
):
    """Others could put files there that SQLite would read, or links that it would write through."""
    directory = tmp_path / "spool"
    directory.mkdir()
    directory.chmod(mode)
    store, queue = opened(directory=directory)
    queue.put([batch(1)])
    assert not store.on_disk
    assert "can be written by everybody" in caplog.text
    assert list(directory.iterdir()) == []
    assert f"spool {directory}: {cannot_write(directory)};" in caplog.text
    assert drain(queue) == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Root's is fine, and our own."""
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o755)
    os.chown(directory, 65534, -1)
    store, _ = opened(directory=directory)
    assert not store.on_disk
    assert "belongs to another user" in caplog.text
    assert f"spool {directory}: {cannot_write(directory)};" in caplog.text


@pytest.mark.parametrize("plant", [os.link, os.symlink])
def test_a_file_with_a_second_name_is_left_alone(
    opened: Open, tmp_path: Path, plant: Callable[[Path, Path], None], caplog: pytest.LogCaptureFixture
):
    """It may be another database of ours, which would be changed, and deleted when it is empty."""
    store, queue = opened()
    queue.put([batch(1)])
    store.close()
    (left,) = tmp_path.glob("spool-*.sqlite")
    left.rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    plant(tmp_path / "elsewhere", left)
    for _ in range(2):
        store, queue = opened()
        assert drain(queue) == []
        store.close()
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert left.exists()
    assert f"{left.name} is left alone: it " in caplog.text
