"""The windows that are kept are bounded."""

from metricslib.history import History
from metricslib.window import Window


def ends(history):
    return [window.end for window in history.windows()]


def test_windows_are_bounded_in_number():
    history = History(windows=3)
    for end in range(5):
        history.append(Window(0, end, 10))
    assert ends(history) == [2, 3, 4]


def test_windows_are_bounded_by_what_they_hold():
    """Series, and members of sets; the last window stays in any case."""
    history = History(windows=10, values=6)
    for end in range(3):
        history.append(Window(0, end, 10, counters={"a": 1, "b": 2, "c": 3}))
    assert ends(history) == [1, 2]
    history.append(Window(0, 3, 10, uniques={"u": frozenset("abcd")}))
    assert ends(history) == [3]
    history.append(Window(0, 4, 10, uniques={"u": frozenset("abcdefghi")}))
    assert ends(history) == [4]
    history.append(Window(0, 5, 10))
    assert ends(history) == [5]
