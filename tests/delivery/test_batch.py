"""A deadline runs out, and can be brought forward."""

from metricslib.delivery.batch import Deadline


def test_a_deadline_runs_out_and_is_never_negative():
    """Seconds left fall to 0 and stay there."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    assert deadline.left() == 5
    now[0] += 4
    assert deadline.left() == 1
    now[0] += 4
    assert deadline.left() == 0


def test_a_deadline_is_brought_forward_but_never_put_off():
    """By stop(), which shortens an attempt and gives it no more time."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    deadline.cut(2)
    assert deadline.left() == 2
    deadline.cut(60)
    assert deadline.left() == 2


def test_a_deadline_is_extended_by_what_it_is_for_alone():
    """An attempt may extend it, but not beyond where it was cut from outside."""
    now = [100.0]
    deadline = Deadline(5, lambda: now[0])
    deadline.extend(20)
    assert deadline.left() == 20
    deadline.cut(10)
    deadline.extend(20)
    assert deadline.left() == 10
    deadline.extend(1)
    assert deadline.left() == 1
