"""Numbers of members, with real processes that fork, are killed, are stopped and lose their folder."""

import multiprocessing
import os
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from metricslib.group import member as module
from metricslib.group.member import Locks, Member
from metricslib.group.record import FileReader, combine
from metricslib.window import Aggregates

SLOT = 1_700_000_010


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "group"


def hits(count: int) -> Aggregates:
    found = Aggregates()
    found.counters = {"hits": count}
    return found


def total(folder: Path, slot: int = SLOT) -> float:
    files = {}
    for path in (folder / str(slot)).iterdir():
        files[int(path.name)] = reader = FileReader(path)
        reader.read()
        assert reader.bad == 0
    return combine(files).aggregates.counters["hits"]


def work(folder: Path, pipe) -> None:
    """Be a member: append what is asked for, and say the number and the writer."""
    member = Member(folder, 10)
    while (count := pipe.recv()) is not None:
        member.append(SLOT, hits(count), {}, 1.0)
        pipe.send((member.number, member.writer))
    member.leave()


@contextmanager
def worker(folder: Path):
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=work, args=(folder, theirs))
    process.start()

    def append(count: int):
        mine.send(count)
        assert mine.poll(60)
        return mine.recv()

    try:
        yield process, append, mine
    finally:
        process.kill()
        process.join()


def test_members_of_one_process_have_numbers_of_their_own(folder):
    one, other = Member(folder, 10), Member(folder, 10)
    assert (one.join(), other.join(), one.join()) == (0, 1, 0)
    one.append(SLOT, hits(1), {}, 1.0)
    other.append(SLOT, hits(2), {}, 1.0)
    assert one.living() == [0, 1]
    one.leave()
    assert other.living() == [1]
    third = Member(folder, 10)
    assert third.join() == 0
    third.append(SLOT, hits(4), {}, 1.0)
    assert total(folder) == 7
    for member in (other, third):
        member.leave()


def test_the_lowest_free_number_is_taken_and_its_file_goes_on(folder):
    mine = Member(folder, 10)
    mine.join()
    with worker(folder) as (process, append, _):
        number, writer = append(10)
        assert number == 1
        assert mine.living() == [0, 1]
        process.kill()
        process.join()
        assert mine.living() == [0]
    with worker(folder) as (process, append, _):
        again, other = append(5)
        assert again == 1
        assert other != writer
    assert total(folder) == 15
    mine.leave()


def test_a_record_that_a_killed_member_tore_is_cut_by_the_next(folder):
    with worker(folder) as (process, append, _):
        append(10)
        process.kill()
        process.join()
    path = folder / str(SLOT) / "0"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    assert mine.number == 0
    assert total(folder) == 11
    mine.leave()


def test_a_stopped_member_keeps_its_number_and_holds_up_nobody(folder):
    mine = Member(folder, 10)
    with worker(folder) as (process, append, _):
        assert append(1)[0] == 0
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        mine.append(SLOT, hits(2), {}, 1.0)
        assert mine.number == 1
        assert mine.living() == [0, 1]
        os.kill(process.pid, signal.SIGCONT)
        assert append(4)[0] == 0
    assert total(folder) == 7
    mine.leave()


def test_a_forked_child_is_another_member(folder):
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            assert mine.number is None
            mine.append(SLOT, hits(2), {}, 1.0)
            os.write(write, bytes([mine.number]) + mine.writer)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said[0] == 1
    assert said[1:] != mine.writer
    mine.append(SLOT, hits(4), {}, 1.0)
    assert mine.living() == [0]  # the child closed the parent's lock file, and released nothing
    assert total(folder) == 7
    mine.leave()


def test_a_child_of_which_python_was_not_told_is_another_member(folder, monkeypatch):
    """As uWSGI forks: nothing is reset, and the process id is another."""
    locks = Locks()
    mine = Member(folder, 10, locks=locks)
    mine.append(SLOT, hits(1), {}, 1.0)
    writer, descriptor = mine.writer, mine._lock.descriptor
    pid = os.getpid()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: pid + 1)
        assert mine.forked
        mine.append(SLOT, hits(2), {}, 1.0)
        assert not mine.forked
        assert mine.writer != writer
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor) if descriptor != mine._lock.descriptor else os.fstat(-1)
        mine.leave()
    assert total(folder) == 3


def test_a_stop_in_a_child_does_not_release_the_parent_s_lock(folder):
    mine = Member(folder, 10)
    mine.join()
    if (child := os.fork()) == 0:
        mine.leave()
        os._exit(0)
    os.waitpid(child, 0)
    with worker(folder) as (_, append, _):
        assert append(1)[0] == 1
    mine.leave()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_new_slot_joins_again_where_the_lock_file_is_another(folder, how):
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    writer = mine.writer
    if how == "deleted":
        shutil.rmtree(folder)
    else:
        (folder / "members" / "0").unlink()
        (folder / "members" / "0").touch()
    mine.append(SLOT + 10, hits(2), {}, 1.0)
    assert mine.number == 0
    assert mine.writer != writer
    assert mine.living() == [0]
    assert total(folder, SLOT + 10) == 2
    mine.leave()


def test_a_folder_deleted_in_mid_slot_is_made_anew_and_the_whole_record_restores_the_slot(folder):
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    shutil.rmtree(folder)
    mine.append(SLOT, hits(2), {}, 2.0)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert total(folder) == 2
    mine.append(SLOT, hits(3), {}, 3.0, whole=True)
    assert total(folder) == 3
    mine.leave()


def test_no_record_goes_to_an_older_slot_than_the_last(folder):
    mine = Member(folder, 10)
    assert mine.append(SLOT, hits(1), {}, 1.0) == SLOT
    assert mine.append(SLOT - 10, hits(2), {}, 1.0) == SLOT
    assert mine.append(SLOT + 10, hits(4), {}, 1.0) == SLOT + 10
    assert total(folder) == 3
    assert mine.append(SLOT - 1000, hits(8), {}, 1.0) == SLOT - 1000  # the clock was set back
    mine.leave()


def test_a_descriptor_that_is_another_file_s_is_not_closed(folder, tmp_path):
    """Daemonisers close all descriptors, which the program then has for its own files."""
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    descriptors = [mine._lock.descriptor, mine._file._descriptor]
    for descriptor in descriptors:
        os.close(descriptor)
    strangers = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT) for number in range(2)]
    assert set(strangers) == set(descriptors)
    mine.append(SLOT, hits(2), {}, 1.0)
    assert mine.number == 0
    mine.leave()
    for stranger in strangers:
        assert os.write(stranger, b"still open") == 10
        os.close(stranger)
    assert total(folder) == 3


def test_a_lock_lost_in_mid_slot_counts_nothing_twice(folder):
    """Another takes the number; the whole record still supersedes what its writer wrote before."""
    mine = Member(folder, 10)
    mine.append(SLOT, hits(1), {}, 1.0)
    for descriptor in (mine._lock.descriptor, mine._file._descriptor):
        os.close(descriptor)
    with worker(folder) as (_, append, _):
        assert append(10)[0] == 0
        mine.append(SLOT, hits(2), {}, 2.0)
        append(10)
        mine.append(SLOT, hits(3), {}, 3.0, whole=True)
        assert total(folder) == 23
        mine.append(SLOT + 10, hits(5), {}, 4.0)
        assert mine.number == 1
    assert total(folder, SLOT + 10) == 5
    mine.leave()


def test_threads_take_each_lock_once(folder):
    locks, got = Locks(), []
    folder.mkdir()
    threads = [threading.Thread(target=lambda: got.append(locks.acquire(folder / "ship"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lock,) = [each for each in got if each]
    assert locks.is_locked(folder / "ship")
    locks.release(lock)
    assert not locks.is_locked(folder / "ship")
    assert not locks.is_locked(folder / "absent")


def test_another_spelling_of_a_held_lock_s_path_does_not_release_it(folder, tmp_path):
    """Closing any descriptor of the file would."""
    mine = Member(folder, 10)
    mine.join()
    (tmp_path / "link").symlink_to(folder)
    assert module.LOCKS.acquire(tmp_path / "link" / "members" / "0") is None
    assert module.LOCKS.is_locked(tmp_path / "link" / "members" / "0")
    with worker(folder) as (_, append, _):
        assert append(1)[0] == 1
    mine.leave()


def test_files_that_do_not_change_are_touched_for_each_slot(folder):
    """Cleaners of /tmp delete what is old."""
    member = Member(folder, 10)
    member.append(SLOT, hits(1), {}, 1.0)
    files = [folder / "members" / name for name in ("0", "0.json")]
    for file in files:
        os.utime(file, (1.0, 1.0))
    member.append(SLOT, hits(1), {}, 1.0)
    assert [file.stat().st_mtime for file in files] == [1.0, 1.0]
    member.append(SLOT + 10, hits(1), {}, 1.0)
    assert all(file.stat().st_mtime > 1.0 for file in files)
    assert member.number == 0
    member.leave()
