"""What all instruments promise: a call never waits, never raises, never loses; whatever the value and whoever calls."""

import gc
import math
import signal
import sys
import threading
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from importlib import import_module
from types import SimpleNamespace

import greenlet
import pytest

from metricslib.instruments import base as instrument_module
from metricslib.instruments.base import CHILDREN, CROWDED, FULL, Instrument
from metricslib.registry import Registry
from metricslib.series import KINDS

NUMERIC = [kind for kind in KINDS if kind != "unique"]


class Number(float):
    """As numpy's: a subclass of float whose sums are of its own type."""

    def __add__(self, other):
        return Number(float(self) + other)

    __radd__ = __add__

    def __mul__(self, other):
        return Number(float(self) * other)


class Whole(int):
    def __add__(self, other):
        return Whole(int(self) + other)

    __radd__ = __add__


class Level(IntEnum):
    HIGH = 3


class Floatable:
    def __float__(self):
        return 2.5


class Raising:
    """Every attempt to make a number or a text of it raises, each with an error of its own."""

    def __float__(self):
        raise RuntimeError("no float")

    def __str__(self):
        raise ZeroDivisionError("no text")

    def __neg__(self):
        raise KeyError("no negative")

    def __add__(self, other):
        raise LookupError("no sum")

    __radd__ = __mul__ = __rmul__ = __lt__ = __gt__ = __le__ = __ge__ = __add__


class Pretender:
    """Adds up like a number, but is none."""

    def __add__(self, other):
        return 1.0

    __radd__ = __mul__ = __rmul__ = __add__

    def __str__(self):
        raise ZeroDivisionError("no text")

    def __ge__(self, other):
        return True

    __lt__ = __gt__ = __le__ = __ge__


class Proxy:
    """Asking it for anything raises, as an unbound proxy does, also for its class."""

    def __getattribute__(self, name):
        raise RuntimeError("working outside of request context")

    def __str__(self):
        raise RuntimeError("working outside of request context")


GOOD = [
    (3, 3),
    (2.5, 2.5),
    (0.0, 0),
    (True, 1),
    (Number(2.5), 2.5),
    (Whole(4), 4),
    (Level.HIGH, 3),
    (Decimal("2.5"), 2.5),
    (Fraction(5, 2), 2.5),
    (Floatable(), 2.5),
]
BAD = [
    "5",
    b"5",
    bytearray(b"5"),
    "",
    None,
    math.nan,
    math.inf,
    -math.inf,
    Number("nan"),
    Decimal("nan"),
    Decimal("sNaN"),
    Decimal("inf"),
    10**400,
    -(10**400),
    Whole(10**400),
    Fraction(10**400),
    1 + 2j,
    [],
    [1],
    {},
    object(),
    object,
    Raising(),
    Pretender(),
    Proxy(),
    SimpleNamespace(value=1),
    lambda: 1,
]


def make(registry, kind, name="x", **tags):
    return getattr(registry, kind)(name, tags=tags or None)


def measure(instrument, value=1):
    """One measurement, in the way of the instrument's kind."""
    call = {"counter": "inc", "gauge": "set", "timer": "observe", "histogram": "observe", "unique": "add"}
    getattr(instrument, call[instrument.kind])(value)


def measured(window, kind, key="x"):
    """How many measurements of 1 the window holds, or what a gauge is set to."""
    value = window[kind].get(key)
    if kind in ("timer", "histogram"):
        return value and value.count
    return len(value) if kind == "unique" and value is not None else value


def plain_numbers(window):
    """All numbers in a window."""
    for kind in KINDS:
        for value in window[kind].values():
            if kind in ("timer", "histogram"):
                yield from (value.count, value.sum, value.sum_squares, value.min, value.max, value.percentile(50))
                yield from value._samples
            elif kind != "unique":
                yield value


def let_wait(instrument, value=1):
    """A measurement that waits for a fold, in both implementations, and all others behind it."""
    instrument._put(value)


def set_full(monkeypatch, full):
    """Fold after so few values; the C implementation, where few wait at all, keeps its own number."""
    for name in ("base", *NUMERIC):
        module = import_module(f"metricslib.instruments.{name}")
        if hasattr(module, "FULL"):
            monkeypatch.setattr(module, "FULL", full)


def ids(values):
    return [f"{type(value).__name__}-{index}" for index, value in enumerate(values)]


# -- values


@pytest.mark.parametrize("kind", NUMERIC)
@pytest.mark.parametrize(("value", "number"), GOOD, ids=ids([value for value, _ in GOOD]))
def test_numbers_of_any_type_count_as_the_plain_numbers_they_are(registry, tick, kind, value, number):
    """Alone or among plain ones; what comes out is of type int or float itself, never a subclass."""
    alone, among = make(registry, kind, "alone"), make(registry, kind, "among")
    measure(alone, value)
    for each in (1, value, 2.0):
        measure(among, each)
    window = tick().cumulative
    assert {type(each) for each in plain_numbers(window)} <= {int, float}
    if kind in ("timer", "histogram"):
        scale = 1000 if kind == "timer" else 1
        assert window[kind]["alone"].sum == number * scale
        assert (window[kind]["among"].count, window[kind]["among"].sum) == (3, (number + 3) * scale)
    else:
        assert window[kind]["alone"] == number
        assert window[kind]["among"] == (2.0 if kind == "gauge" else number + 3)
    assert registry.drops.totals() == {}


@pytest.mark.parametrize("kind", NUMERIC)
@pytest.mark.parametrize("index", range(len(BAD)), ids=ids(BAD))  # no framework should have to look at the values
def test_a_bad_value_never_raises_is_counted_and_spoils_nothing(registry, tick, kind, index):
    """The good values around it count; so does a bad one, once, under `bad_value`."""
    value = BAD[index]
    among, alone = make(registry, kind), make(registry, kind, "alone")
    measure(alone, value)
    for each in (1, value, 2.5, value):
        measure(among, each)
    window = tick().cumulative
    assert registry.drops.totals() == {"bad_value": 3}
    assert {type(each) for each in plain_numbers(window)} <= {int, float}
    if kind in ("timer", "histogram"):
        assert (window[kind]["x"].count, window[kind]["alone"].count) == (2, 0)
    elif kind == "counter":
        assert (window[kind]["x"], window[kind]["alone"]) == (3.5, 0)
    else:
        assert window[kind] == {"x": 2.5}


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_full_of_bad_values_raises_nowhere(registry, tick, kind):
    """Not in the call that folds them either."""
    instrument = make(registry, kind)
    for value in [*BAD, 1] * (2 * FULL // len(BAD)):
        measure(instrument, value)
    tick()
    assert all(math.isfinite(number) for number in plain_numbers(tick().cumulative) if type(number) is int)


# -- buffers


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_is_bounded_without_any_tick(registry, tick, kind):
    """Whoever finds it full empties it, so a program without a flusher does not grow."""
    instrument = make(registry, kind)
    for number in range(10 * FULL):
        measure(instrument, 1 if kind != "unique" else number % 7)
        assert instrument._pending_count <= FULL
    assert measured(tick().cumulative, kind) == {"gauge": 1, "unique": 7}.get(kind, 10 * FULL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tick_takes_over_from_a_fold_that_is_held_up(registry, tick, kind, monkeypatch):
    """A thread was stopped holding the lock: nobody hangs, and the tick has all that was measured."""
    monkeypatch.setattr(instrument_module, "_PATIENCE", 0.001)
    instrument = make(registry, kind)
    with instrument._lock:
        for number in range(2 * FULL):
            measure(instrument, 1 if kind != "unique" else number)
        assert measured(tick().delta, kind) == (1 if kind == "gauge" else 2 * FULL)
        for number in range(2 * FULL):
            measure(instrument, 1 if kind != "unique" else number)
    assert instrument._pending_count <= FULL
    assert measured(tick().delta, kind) == (1 if kind == "gauge" else 2 * FULL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fold_from_which_a_tick_took_over_adds_nothing_when_it_goes_on(registry, tick, kind, monkeypatch):
    """Stopped anywhere in the middle, as by a signal handler that waits for a flush: every value counts once."""
    monkeypatch.setattr(instrument_module, "_PATIENCE", 0.001)
    instrument, cuts = make(registry, kind), []
    absorbed = type(instrument)._absorbed

    def stopped(self, state, batch):
        monkeypatch.setattr(type(instrument), "_absorbed", absorbed)
        before = absorbed(self, state, batch)
        measure(instrument, 1 if kind != "unique" else 7)
        cuts.append(tick())
        measure(instrument, 1 if kind != "unique" else 8)
        return before

    monkeypatch.setattr(type(instrument), "_absorbed", stopped)
    for number in range(5):
        let_wait(instrument, 1 if kind != "unique" else number)
    instrument._fold()
    cuts.append(tick())
    assert [measured(flush.delta, kind) for flush in cuts] == [1 if kind == "gauge" else 6, 1]
    assert not instrument._lock.locked()


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_that_nobody_may_empty_has_an_end(registry, tick, kind, monkeypatch):
    """What comes then is dropped and counted; measured = aggregated + dropped."""
    monkeypatch.setattr(instrument_module, "OVERRUN", 1000)
    instrument = make(registry, kind)
    with instrument._lock:
        let_wait(instrument, 1 if kind != "unique" else 0)
        for number in range(1, 1500):
            measure(instrument, 1 if kind != "unique" else number)
        assert instrument._pending_count == 1000
    assert measured(tick().cumulative, kind) == (1 if kind == "gauge" else 1000)
    assert registry.drops.totals() == {"buffer_full": 500}


def test_callers_stand_back_for_a_moment_from_a_fold_that_cannot_keep_up(registry, monkeypatch):
    """One call in 512, once the buffer is crowded and until it is full: never long, and never for the fold's end."""

    class HeldUp:
        def __init__(self):
            self.waits = []

        def acquire(self, timeout):
            self.waits.append((counter._pending_count, timeout))
            return False

    monkeypatch.setattr(instrument_module, "OVERRUN", 2 * CROWDED)
    counter = registry.counter("x")
    counter._lock = HeldUp()
    let_wait(counter)
    for _ in range(4 * CROWDED - 1):
        counter.inc()
    waits = [(waiting, timeout) for waiting, timeout in counter._lock.waits if timeout]
    assert [waiting for waiting, _ in waits] == list(range(CROWDED + FULL, 2 * CROWDED, FULL))
    assert max(timeout for _, timeout in waits) <= 0.001
    assert registry.drops.totals() == {"buffer_full": 2 * CROWDED}


class Interruption(Exception):
    """What a handler of a time limit raises, wherever the program is."""


def test_an_interruption_in_the_middle_of_a_fold_reaches_the_program_and_costs_nothing(registry, tick, monkeypatch):
    """Not swallowed, for it is the application's; the values are still there, once, and measuring goes on."""
    instrument = registry.counter("x")
    let_wait(instrument, 7)

    def interrupted(self, state, batch):
        raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(type(instrument), "_absorbed", interrupted)
        with pytest.raises(Interruption):
            instrument._fold()
    instrument.inc(1)
    assert tick().cumulative.counters == {"x": 8}
    assert registry.drops.totals() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_raises_anywhere_loses_nothing_and_stops_nothing(kind, clock, monkeypatch):
    """It may hit between the taking of a lock and the `try`, so that nobody releases it: the next tick takes over."""
    monkeypatch.setattr(instrument_module, "_PATIENCE", 0.001)
    set_full(monkeypatch, 3)
    armed, registries = [], []

    def handler(*_):
        if armed:
            armed.clear()
            raise Interruption

    before, trace = signal.signal(signal.SIGALRM, handler), sys.gettrace()
    # What is called back in between could not bear the exception: coverage would never release its own lock.
    gc.disable()
    sys.settrace(None)
    try:
        for attempt in range(400):
            registry = Registry(clock=clock)
            registries.append(registry)
            instrument, made, interrupted = make(registry, kind), 0, 0

            def use():  # a function, for CPython 3.13 lets what is raised at a loop's jump back pass by its `except`
                nonlocal made
                while made < 300:
                    measure(instrument, made)  # noqa: B023
                    made += 1
                armed.clear()

            signal.setitimer(signal.ITIMER_REAL, (attempt % 100 + 1) * 1e-6)
            try:
                armed.append(True)
                use()
            except Interruption:
                interrupted = 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            window = registry.tick(10, 10).cumulative
            if kind in ("unique", "timer", "histogram"):
                assert made <= (measured(window, kind) or 0) <= made + interrupted
            elif made:
                last = {"counter": made * (made - 1) / 2, "gauge": made - 1}[kind]
                assert measured(window, kind) in (last, last + made if kind == "counter" else made)
            assert registry.drops.totals() == {}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(trace)
        gc.enable()


def test_a_fold_without_memory_or_stack_raises_nothing_and_is_done_later(registry, tick, monkeypatch):
    """The caller did nothing wrong, and nothing is lost."""
    instrument = registry.counter("x")
    let_wait(instrument, 7)

    def exhausted(self, state, batch):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(type(instrument), "_absorbed", exhausted)
        instrument._fold()
    assert tick().cumulative.counters == {"x": 7}
    assert registry.drops.totals() == {"fold_error": 1}


# -- callers from everywhere


class Handler:
    """A signal handler that measures, on a timer that fires as often as it can."""

    def __init__(self, call):
        self.calls = 0
        self._call = call

    def __call__(self, *_):
        self.calls += 1
        self._call(self.calls)

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self)
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_handler_may_measure_while_the_program_does(registry, tick, kind):
    """It interrupts calls, folds and ticks anywhere; nothing hangs and every call of both counts."""
    instrument = make(registry, kind)
    made = total = 0
    with Handler(lambda call: measure(instrument, 1 if kind != "unique" else -call)) as handler:
        while handler.calls < 100 or made < 20_000:
            made += 1
            measure(instrument, 1 if kind != "unique" else made)
            if made % 1000 == 0:
                total += measured(tick().delta, kind) or 0
    total += measured(tick().delta, kind) or 0
    if kind != "gauge":
        assert total == made + handler.calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_of_the_garbage_collector_may_measure(registry, tick, kind):
    """It runs in the middle of any allocation, also those of a fold or a tick."""
    instrument = make(registry, kind)
    calls = made = 0
    garbage = []

    def callback(phase, info):
        nonlocal calls
        calls += 1
        measure(instrument, 1 if kind != "unique" else -calls)
        make(registry, kind, f"made.{calls % 50}").tagged(phase=phase)

    threshold = gc.get_threshold()
    gc.callbacks.append(callback)
    try:
        gc.set_threshold(10)
        for made in range(1, 3001):
            measure(instrument, 1 if kind != "unique" else made)
            garbage.append([])
            if made % 500 == 0:
                registry.flush(10, 10.0)
                registry.snapshot()
    finally:
        gc.callbacks.remove(callback)
        gc.set_threshold(*threshold)
    assert calls > 100
    if kind != "gauge":
        assert measured(tick().cumulative, kind) == made + calls


@pytest.mark.parametrize("kind", KINDS)
def test_greenlets_that_switch_between_calls_lose_nothing(registry, tick, kind):
    """One measures, switches, and the other goes on where it was, also in the middle of a timed block."""
    instrument, timer = make(registry, kind), registry.timer("spans")

    def work(offset):
        for number in range(2000):
            with timer.time():
                measure(instrument, 1 if kind != "unique" else offset + number)
                greenlet.getcurrent().parent.switch()

    workers = [greenlet.greenlet(work) for _ in range(5)]
    while any(not worker.dead for worker in workers):
        for index, worker in enumerate(workers):
            if not worker.dead:
                worker.switch(index * 10_000) if not worker else worker.switch()
    window = tick().cumulative
    assert window.timers["spans"].count == 10_000
    if kind != "gauge":
        assert measured(window, kind) == 10_000


def test_a_value_that_measures_itself_does_not_hang(registry, tick):
    """A fold runs the value's own code; if that uses the same instrument, it finds the fold at work and goes on."""
    counter = registry.counter("x")

    class Busy:
        def __float__(self):
            for _ in range(FULL + 1):
                counter.inc()
            return 1.0

    counter.inc(Busy())
    total = tick().delta.counters["x"] + tick().delta.counters.get("x", 0)
    assert total == FULL + 2


# -- tags


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tags_are_the_same_object(registry, kind):
    """In whatever order, on whatever way, given at once or one after the other."""
    instrument = make(registry, kind)
    child = instrument.tagged(route="/u", status=200)
    assert child is instrument.tagged(status=200, route="/u")
    assert child is instrument.tagged(route="/u").tagged(status="200")
    assert child is make(registry, kind, "x", status=200, route="/u")
    assert child is make(registry, kind, "x;status=200;route=-u")
    assert child is not instrument
    assert type(child) is type(instrument)
    assert (child.name, child.tags, child.key) == ("x", (("route", "-u"), ("status", "200")), "x;route=-u;status=200")
    assert instrument.tagged() is instrument


class Colour(str, Enum):  # noqa: UP042  -- a StrEnum's text is its value, this one's is not
    RED = "red"


class Loud(str):
    def __str__(self):
        return "LOUD"


EQUALS = [1, True, 1.0, "1", Decimal(1), Decimal("1.0"), 200, 200.0, Fraction(200), 0, 0.0, -0.0, False]
EQUALS += ["red", Colour.RED, Loud("red"), None, "None", (1,), (True,), (1.0,)]


@pytest.mark.parametrize("order", [1, -1])
def test_equal_values_with_different_texts_are_different_tags(registry, order):
    """1, True and 1.0 are one dictionary key, but `1`, `True` and `1.0` three tags, whichever came first."""
    counter = registry.counter("x")
    for value in EQUALS[::order] * 2:
        assert counter.tagged(t=value).tags == make(registry, "counter", "y", t=value).tags, repr(value)
    assert counter.tagged(t=1) is counter.tagged(t="1")
    assert counter.tagged(t=1) is not counter.tagged(t=True)


class Shifting:
    """Its text changes, though the object stays."""

    text = "one"

    def __str__(self):
        return self.text


def test_a_value_whose_text_changes_changes_the_tag(registry):
    """Only what cannot change is remembered."""
    value, counter = Shifting(), registry.counter("x")
    assert counter.tagged(t=value).key == "x;t=one"
    value.text = "two"
    assert counter.tagged(t=value).key == "x;t=two"


class Unhashable:
    def __eq__(self, other):  # and so no __hash__
        return self is other

    def __str__(self):
        return "u"


class HashRaises:
    def __hash__(self):
        raise RuntimeError("no hash")

    def __str__(self):
        return "h"


class EqualRaises:
    def __hash__(self):
        return hash(("t", "a"))

    def __eq__(self, other):
        raise RuntimeError("no equality")

    def __str__(self):
        return "e"


@pytest.mark.parametrize(
    ("value", "text"),
    [([1], "1"), ({}, "_"), ({1}, "1"), (Unhashable(), "u"), (HashRaises(), "h"), (EqualRaises(), "e"), (b"x", "bx")],
)
def test_tags_of_any_type_are_their_texts(registry, value, text):
    """Hashable or not; what its `__hash__` or `__eq__` raises is nobody's business."""
    counter = registry.counter("x")
    counter.tagged(t="a")
    assert counter.tagged(t=value).tags == (("t", text),)


@pytest.mark.parametrize("make_value", [Raising, Proxy, lambda: 10**5000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_without_a_text_is_counted_and_left_out(registry, kind, make_value):
    """The measurement is kept, under the instrument without the tag."""
    instrument = make(registry, kind)
    assert instrument.tagged(t=make_value()) is instrument
    assert registry.drops.totals() == {"bad_tag": 1}


def test_any_key_may_be_a_tag(registry):
    """Also one that is a parameter's name elsewhere, or no identifier."""
    assert registry.counter("x").tagged(self=1, name=2, kind=3, **{"a b": 4}).key == "x;a_b=4;kind=3;name_=2;self=1"


def test_what_an_instrument_remembers_is_bounded(registry):
    """Ways of writing tags may be without number."""
    counter = registry.counter("x")
    for number in range(CHILDREN + 100):
        counter.tagged(t=number).inc()
    assert 0 < len(counter._children) <= CHILDREN


def test_tagged_is_safe_in_threads(registry, tick):
    """All get the same child, and nothing goes to one that nobody reads."""
    counter, barrier, children = registry.counter("x"), threading.Barrier(8), []

    def work():
        barrier.wait()
        for number in range(100):
            child = counter.tagged(t=number)
            child.inc()
            children.append((number, child))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(children)) == 100
    assert tick().cumulative.counters == {"x": 0} | {f"x;t={number}": 8 for number in range(100)}


def test_an_instrument_shows_what_it_is(registry):
    """The class and the series."""
    assert repr(registry.counter("x").tagged(a=1)) == "<Counter x;a=1>"
    assert issubclass(type(registry.counter("x")), Instrument)
