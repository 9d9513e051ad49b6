"""One thread has the desk; nobody hangs who asks it in vain."""

import threading
from collections.abc import Iterator

import pytest

from metricslib.delivery.owner import Gone, Owner


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner(list, lambda desk: None, 60)
    owner.start()
    yield owner
    owner.end(10)


def test_all_work_is_done_by_one_thread_at_one_desk(owner: Owner):
    """And what it raises is raised to who asked."""
    owner.do(lambda desk: desk.append(threading.get_ident()))
    owner.do(lambda desk: desk.append(threading.get_ident()))
    first, second = owner.do(list)
    assert first == second != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        owner.do(lambda desk: 1 / 0)
    assert len(owner.do(list)) == 2


def test_who_has_no_patience_gets_no_answer_and_the_work_is_done_later(owner: Owner):
    """A disk that hangs does not hang the end of a program."""
    go = threading.Event()
    with pytest.raises(Gone, match="no answer"):
        owner.do(lambda desk: go.wait(20) and desk.append("late"), patience=0.01)
    go.set()
    assert owner.do(list) == ["late"]


def test_before_the_start_and_after_the_end_there_is_nobody(owner: Owner):
    """Whoever asks does without."""
    with pytest.raises(Gone, match="not open"):
        Owner(list, lambda desk: None, 60).do(list)
    owner.end(10)
    with pytest.raises(Gone, match="not open"):
        owner.do(list)
    owner.start()
    assert owner.do(list) == []


def test_a_signal_handler_in_the_middle_of_a_fork_does_not_wait_for_itself(owner: Owner):
    """The forking thread keeps the owner outside of SQLite: it would never get an answer. Others wait for the fork."""
    owner.pause()
    with pytest.raises(Gone, match="forking"):
        owner.do(list)
    answers: list[list[object]] = []
    other = threading.Thread(target=lambda: answers.append(owner.do(list)))
    other.start()
    owner.resume()
    other.join(20)
    assert answers == [[]]


def test_a_child_of_a_fork_that_could_not_wait_stays_away_from_sqlite(monkeypatch: pytest.MonkeyPatch):
    """A lock of the library may be held in it for ever."""
    monkeypatch.setattr("metricslib.delivery.owner._PATIENCE", 0.01)
    owner = Owner(list, lambda desk: None, 60)
    owner.start()
    go = threading.Event()
    with pytest.raises(Gone):
        owner.do(lambda desk: go.wait(20), patience=0.01)
    owner.pause()
    owner.forget()  # as if this were the child
    with pytest.raises(Gone, match="forked while"):
        owner.start()
    go.set()
