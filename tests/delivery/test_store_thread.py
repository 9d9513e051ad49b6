"""One thread has the disk; nobody hangs who asks it in vain."""

import threading
from collections.abc import Iterator

import pytest

from metricslib.delivery.store.thread import Gone, StoreThread


@pytest.fixture
def thread() -> Iterator[StoreThread]:
    thread = StoreThread(list, lambda disk: None, 60)
    thread.start()
    yield thread
    thread.stop(10)


def test_all_work_is_done_by_one_thread_at_one_disk(thread: StoreThread):
    """And what it raises is raised to who asked."""
    thread.do(lambda disk: disk.append(threading.get_ident()))
    thread.do(lambda disk: disk.append(threading.get_ident()))
    first, second = thread.do(list)
    assert first == second != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        thread.do(lambda disk: 1 / 0)
    assert len(thread.do(list)) == 2


def test_who_has_no_patience_gets_no_answer_and_the_work_is_done_later(thread: StoreThread):
    """A disk that hangs does not hang the end of a program."""
    go = threading.Event()
    with pytest.raises(Gone, match="no answer"):
        thread.do(lambda disk: go.wait(20) and disk.append("late"), patience=0.01)
    go.set()
    assert thread.do(list) == ["late"]


def test_before_the_start_and_after_the_end_there_is_nobody(thread: StoreThread):
    """Whoever asks does without."""
    with pytest.raises(Gone, match="not open"):
        StoreThread(list, lambda disk: None, 60).do(list)
    thread.stop(10)
    with pytest.raises(Gone, match="not open"):
        thread.do(list)
    thread.start()
    assert thread.do(list) == []


def test_a_signal_handler_in_the_middle_of_a_fork_does_not_wait_for_itself(thread: StoreThread):
    """The forking thread keeps the thread outside of SQLite: it would never get an answer. Others wait for the fork."""
    thread.pause()
    with pytest.raises(Gone, match="forking"):
        thread.do(list)
    answers: list[list[object]] = []
    other = threading.Thread(target=lambda: answers.append(thread.do(list)))
    other.start()
    thread.resume()
    other.join(20)
    assert answers == [[]]


def test_a_child_of_a_fork_that_could_not_wait_stays_away_from_sqlite(monkeypatch: pytest.MonkeyPatch):
    """A lock of the library may be held in it for ever."""
    monkeypatch.setattr("metricslib.delivery.store.thread._PATIENCE", 0.01)
    thread = StoreThread(list, lambda disk: None, 60)
    thread.start()
    go = threading.Event()
    with pytest.raises(Gone):
        thread.do(lambda disk: go.wait(20), patience=0.01)
    thread.pause()
    thread.reset_after_fork()  # as if this were the child
    with pytest.raises(Gone, match="forked while"):
        thread.start()
    go.set()
