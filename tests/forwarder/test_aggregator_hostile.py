"""The aggregator in C, called in wrong states and with nonsense: an exception or a counted drop, never a crash.

And forgetting at the worst moments: while a collection makes objects, and while a batch is about to begin.
"""

import contextlib
import gc
import threading
from array import array

import pytest

from metricslib._accelerate import load
from metricslib.registry import Registry
from metricslib.sketch import Distribution
from metricslib.window import GaugeChange

_aggregator = load("forwarder._aggregator")
ROOM = 1 << 40, array("q", [0, 0]), 1 << 40  # bytes for raw keys; where members are counted, and bytes for them
pytestmark = pytest.mark.skipif(_aggregator is None, reason="the C implementation was not built, or is not wanted")


class Key(str):
    def __hash__(self):
        raise ZeroDivisionError

    def __eq__(self, other):
        raise ZeroDivisionError


class Owner:
    """Answers as it is told to."""

    def __init__(self, answer=None, before=None, admit=lambda names: None):
        self.answer, self.before, self.admit = answer, before, admit

    def _admit(self, names):
        return self.admit(names)

    def _answer(self, questions):
        return self.answer(questions)

    def _before_batch(self):
        if self.before is not None:
            self.before()


def made(owner=None, exact=8, members=8, keys=8):
    return _aggregator.Aggregator(owner or Owner(), exact, members, keys, 1, Distribution, GaugeChange, *ROOM)


def collected(aggregator):
    *found, _ = aggregator.collect()
    return [dict(each) for each in found]


DROPPED = 9  # in the account: what nobody could answer for


# -- arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.series(99, "k", False),
        lambda one: one.series(-1, "k", False),
        lambda one: one.series(2**40, "k", False),
        lambda one: one.series(0, Key("k"), False),
        lambda one: one.series(0, b"k", False),
        lambda one: one.series(),
        lambda one: one.remember(0, b"k", 123456),
        lambda one: one.remember(0, b"k", -1),
        lambda one: one.remember(0, b"k", -(2**70)),
        lambda one: one.remember(7, b"k", -2),
        lambda one: one.remember(0, b"k" * (1 << 25), -2),
        lambda one: one.look_up(5, b"k"),
        lambda one: one.look_up(0, "k" * 3 + "\udc80"),
        lambda one: one.expire(5),
        lambda one: one.expire([5]),
        lambda one: one.expire([(0, Key("k"))]),
        lambda one: one.expire([(9, "k")]),
        lambda one: one.expire([()]),
        lambda one: one.feed(5),
        lambda one: one.feed([b"a:1|c", "a:1|c"]),
        lambda one: one.receive(10**6, -1),
        lambda one: one.receive(-1, -1),
        lambda one: one.receive(0, -1, float("nan")),
        lambda one: one.receive(0, -1, 5.0),
        lambda one: one.receive(0, -1, -1.0),
        lambda one: type(one)(),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, int, GaugeChange, *ROOM).collect() and None,
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, int, *ROOM),
        lambda one: type(one)(Owner(), -1, 1, 1, 1, Distribution, GaugeChange, *ROOM),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, -1, *ROOM[1:]),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, 1, *ROOM[1:2], -1),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, 1, array("q", [0]), 1),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, 1, bytearray(16), 1),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, 1, b"x" * 16, 1),
        lambda one: type(one)(Owner(), 1, 1, 1, 1, Distribution, GaugeChange, 1, None, 1),
        lambda one: type("Sub", (type(one),), {}),
    ],
)
def test_nonsense_changes_nothing(call):
    aggregator = made()
    number = aggregator.series(0, "a", False)
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError, BufferError):
        call(aggregator)
    assert aggregator.series(0, "a", False) == number
    assert collected(aggregator) == [{}, {}, {}, {}, {}]


@pytest.mark.parametrize("keys", [1 << 20, 2**31, 2**32, 2**32 + 4, 10**30])
def test_any_number_of_keys_may_be_remembered(keys):
    asked = []

    def answer(questions):
        asked.extend(questions)
        return [aggregator.series(kind, key.decode(), False) for kind, key, _ in questions]

    aggregator = made(Owner(answer), keys=keys)
    for _ in range(3):
        aggregator.feed([b"\n".join(b"k%d:1|c" % number for number in range(50))])
    assert len(asked) == 50
    assert collected(aggregator)[0] == {f"k{number}": 3 for number in range(50)}


def test_a_key_asks_once_a_batch():
    asked = []

    def answer(questions):
        asked.extend(questions)
        return [aggregator.series(kind, key.decode(), False) for kind, key, _ in questions]

    aggregator = made(Owner(answer))
    aggregator.feed([b"a:1|c\nb:1|c\na:2|c\na:3|ms\nb:5|c"])
    assert asked == [(0, b"a", b""), (0, b"b", b""), (1, b"a", b"")]
    counters, timers, *_ = collected(aggregator)
    assert (counters, timers["a"].count) == ({"a": 3, "b": 6}, 1)


# -- answers


def raising(_):
    raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "answer",
    [
        raising,
        lambda questions: None,
        lambda questions: [],
        lambda questions: questions.clear(),
        lambda questions: [None] * len(questions),
        lambda questions: [10**30] * len(questions),
        lambda questions: [-1] * len(questions),
        lambda questions: [-1000] * len(questions),
        lambda questions: [5] * len(questions),
        lambda questions: [()] * len(questions),
        lambda questions: [([], -1)] * len(questions),
        lambda questions: [([()], 0)] * len(questions),
        lambda questions: [([(0, 0, 0, 1.0, 1.0, "x")], 0)] * len(questions),
        lambda questions: [([(9, 0, 0, 1.0, 1.0, b"")], 0)] * len(questions),
        lambda questions: [([(0, 4, 0, 1.0, 1.0, b"x")], 0)] * len(questions),
        lambda questions: [([(-2, 0, 0, float("nan"), 1.0, b"")], 0)] * len(questions),
        lambda questions: [([(-2, 0, 0, 1.0, -1.0, b"")], 0)] * len(questions),
    ],
)
def test_what_is_answered_with_nonsense_is_counted_as_dropped(answer):
    aggregator = made(Owner(answer))
    aggregator.series(0, "known", False)
    aggregator.feed([b"a:1|c\nb:0x10|q\nc:1|ms"])
    assert collected(aggregator) == [{}, {}, {}, {}, {}]
    account = aggregator.account()
    assert (account[1], account[2], account[DROPPED]) == (3, 0, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_number_that_runs_code_cannot_pull_the_answer_away():
    class Number:
        def __init__(self, effects):
            self.effects = effects

        def __float__(self):
            self.effects.clear()
            gc.collect()
            return 2.0

    def answer(questions):
        number = aggregator.series(0, "a", False)
        effects = [(number, 0, 0, 1.0, 1.0, b"")]
        effects[:0] = [(number, 0, 0, Number(effects), 1.0, b"")]
        return [(effects, 0)] * len(questions)

    aggregator = made(Owner(answer))
    aggregator.feed([b"a:+1|q"])
    assert collected(aggregator)[0] == {"a": 3}


# -- wrong moments


def test_the_owner_may_collect_but_not_feed_in_mid_batch():
    seen = []

    def answer(questions):
        for call in (
            lambda: aggregator.feed([b"x:1|c"]),
            lambda: aggregator.receive(0, -1),
            lambda: aggregator.expire([(0, "a")]),
        ):
            with pytest.raises(RuntimeError):
                call()
        seen.append(collected(aggregator)[0])
        return [aggregator.series(kind, key.decode(), False) for kind, key, _ in questions]

    aggregator = made(Owner(answer))
    aggregator.feed([b"a:1|c"])
    aggregator.feed([b"a:1|c\nb:1|c"])
    assert (seen, collected(aggregator)[0]) == ([{}, {"a": 1}], {"a": 1, "b": 1})


def test_a_series_that_was_forgotten_and_comes_again_keeps_its_count():
    def answer(questions):
        return [aggregator.series(kind, key.decode(), False) for kind, key, _ in questions]

    aggregator = made(Owner(answer))
    aggregator.feed([b"a:1|c"])
    aggregator.expire([(0, "a"), (0, "a"), (1, "a"), (0, "never")])
    aggregator.feed([b"a:2|c"])
    aggregator.expire([(0, "a")])
    assert collected(aggregator)[0] == {"a": 3}
    aggregator.feed([b"a:4|c\nb:1|c"])
    assert collected(aggregator)[0] == {"a": 4, "b": 1}


def test_numbers_of_forgotten_series_are_used_again():
    aggregator = made()
    for turn in range(50):
        numbers = [aggregator.series(0, f"k{turn}.{number}", False) for number in range(40)]
        assert max(numbers) < 80
        aggregator.expire([(0, f"k{turn}.{number}") for number in range(40)])
        aggregator.collect()


@pytest.mark.parametrize("pure", [True, False], ids=["Python", "C"])
def test_feeding_collecting_and_forgetting_at_once_loses_nothing(pure):
    from forwarder.aggregator import PythonAggregator
    from forwarder.aggregator_c import CAggregator

    registry = Registry(max_series=500)
    aggregator = (PythonAggregator if pure else CAggregator)(registry)
    rounds, keys = (100, 40) if pure else (1500, 200)
    over = threading.Event()
    totals = {}

    def feed():
        for turn in range(rounds):
            aggregator.feed([b"\n".join(b"k%d:1|c" % ((turn * 7 + number) % keys) for number in range(60))])
        over.set()

    def forget():
        while not over.is_set():
            for number in range(keys):
                aggregator.forget("counter", f"k{number}")

    def collect():
        last = False
        while not last:
            last = over.is_set()
            for key, count in aggregator.collect().counters.items():
                with adding:
                    totals[key] = totals.get(key, 0) + count

    adding = threading.Lock()
    threads = [threading.Thread(target=work) for work in (feed, forget, collect, collect)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(totals.values()) == rounds * 60
    assert set(totals) == {f"k{number}" for number in range(keys)}
    counts = aggregator.counts()
    assert (counts.aggregated, counts.received) == (rounds * 60, rounds * 60)


def test_what_is_forgotten_while_a_batch_begins_is_not_lost():
    from forwarder.aggregator_c import CAggregator

    expired = []

    class Recording:
        def expire(self, pairs):
            expired.extend(pairs)

    aggregator = CAggregator(Registry())
    aggregator._forgotten.append((0, "a"))

    class Late(type(aggregator._forgotten)):
        """One more is forgotten each time that one is taken out, as by another thread."""

        def popleft(self):
            found = super().popleft()
            if len(expired_late) < 3:
                expired_late.append(found)
                self.append((0, f"late{len(expired_late)}"))
            return found

    expired_late = []
    aggregator._forgotten = Late(aggregator._forgotten)
    aggregator._c = Recording()
    aggregator._before_batch()
    assert expired == [(0, "a"), (0, "late1"), (0, "late2"), (0, "late3")]


def test_one_that_the_garbage_collector_cleared_is_harmless():
    class Cycle(Owner):
        def __del__(self):
            self.aggregator.interrupt()
            self.aggregator.feed([b"a:1|c"])
            self.aggregator.account()

    owner = Cycle(lambda questions: [])
    owner.aggregator = made(owner)
    del owner
    gc.collect()
