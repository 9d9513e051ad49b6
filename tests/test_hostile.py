"""Whatever a method is given, and in whatever state: an exception or a counted drop, never a crash or a wrong total.

Objects here run code where a number is wanted, and that code uses the very instrument or distribution. Each test runs
on the C and on the Python implementation; ``tests/fuzz/types.py`` does the same at random.
"""

import gc
import math
import threading
from fractions import Fraction
from unittest import mock

import pytest

from metricslib._accelerate import load
from tests.implementations import packages

NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.fixture(params=[True, False], ids=["Python", "C"])
def modules(request):
    if not request.param and load("metricslib._speedups") is None:
        pytest.skip("the C implementation was not built, or is not wanted")
    return packages(request.param)


@pytest.fixture
def distribution_type(modules):
    return modules["metricslib.sketch"].Distribution


@pytest.fixture
def registry(modules):
    return modules["metricslib.registry"].Registry()


def total(registry, kind, name="x"):
    return getattr(registry.tick(10, 10).cumulative, kind)[name]


class Acting:
    """A number whose value is asked for by running ``act``."""

    def __init__(self, act, value=1.0):
        self._act, self._value = act, value

    def __float__(self):
        self._act()
        return self._value

    def __index__(self):
        self._act()
        return int(self._value)

    def __bool__(self):
        self._act()
        return True


def raising():
    raise KeyError("mine")


# -- distributions


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize(
    "write",
    [
        lambda distribution, bad: distribution.add(bad),
        lambda distribution, bad: distribution.extend([2.0, bad]),
        lambda distribution, bad: distribution.merge(type(distribution)([2.0, bad])),
        lambda distribution, bad: distribution.extended(distribution, [2.0, bad], 10),
    ],
    ids=["add", "extend", "made", "extended"],
)
def test_a_sample_that_is_not_finite_is_refused(distribution_type, bad, write):
    distribution = distribution_type([1.0])
    with pytest.raises(ValueError, match="a sample must be a finite number"):
        write(distribution, bad)
    assert (distribution.freeze().count, distribution.sum) == (1, 1.0)


@pytest.mark.parametrize("bad", [*NOT_FINITE, 0, -1, -0.0])
def test_a_weight_that_is_none_is_refused(distribution_type, bad):
    distribution = distribution_type([1.0])
    with pytest.raises(ValueError, match="a weight must be a finite number greater than 0"):
        distribution.add(2.0, bad)
    assert distribution.freeze().count == 1


@pytest.mark.parametrize("bad", ["5", b"5", None, [], 1j, 10**400, Acting(raising)])
def test_a_sample_that_is_no_number_is_refused_with_all_that_came_with_it(distribution_type, bad):
    distribution = distribution_type([1.0])
    errors = (TypeError, OverflowError, KeyError)
    with pytest.raises(errors) as one:
        distribution.add(bad)
    with pytest.raises(errors) as many:
        distribution.extend([2.0, bad])
    assert one.type is many.type
    with pytest.raises(one.type):
        distribution_type.extended(distribution, [2.0, bad], 10)
    with pytest.raises(one.type):
        distribution.shares([50, bad])
    assert (distribution.freeze().count, distribution.sum) == (1, 1.0)


def test_what_a_number_is_asked_for_may_shrink_the_list_it_is_in(distribution_type):
    distribution = distribution_type([1.0, 2.0, 3.0]).freeze()
    percents = [Acting(lambda: percents.clear(), 90.0), *map(float, range(64))]
    assert len(distribution.shares(percents)) == 65
    values = [Acting(lambda: values.clear(), 4.0), *map(float, range(64))]
    distribution.extend(values)
    assert distribution.freeze().count == 68


def test_what_a_number_is_asked_for_may_write_the_distribution(distribution_type):
    """What was written by then counts, and nothing twice."""
    distribution = distribution_type([1.0], limit=4)
    distribution.add(Acting(lambda: distribution.extend([2.0] * 100), 3.0))
    distribution.extend([Acting(lambda: distribution.merge(distribution_type([5.0]))), 1.0])
    distribution.shares([Acting(lambda: distribution.add(7.0), 50.0)])
    assert (distribution.freeze().count, distribution.sum) == (106, 1.0 + 200.0 + 3.0 + 5.0 + 2.0 + 7.0)
    distribution.extend([Acting(lambda: distribution.__init__(limit=2))] * 3)
    assert (distribution.freeze().count, distribution.limit) == (3, 2)


@pytest.mark.parametrize("samples", [[(1.0, 1), (2.0, 1)], [(1.0, 2.5), (2.0, 1)], [(float(n), 1) for n in range(9)]])
def test_merging_a_distribution_with_itself_doubles_it(distribution_type, samples):
    distribution = distribution_type(limit=4)
    for value, weight in samples:
        distribution.add(value, weight)
    distribution.merge(distribution)
    assert distribution.freeze().count == 2 * sum(weight for _, weight in samples)
    assert distribution.sum == 2 * sum(value * weight for value, weight in samples)


@pytest.mark.parametrize("other", [None, 5, [1.0], object()])
def test_merging_what_is_no_distribution_is_refused(distribution_type, other):
    distribution = distribution_type([1.0])
    with pytest.raises(TypeError, match="not a distribution"):
        distribution.merge(other)
    if other is not None:
        with pytest.raises(TypeError, match="not a distribution"):
            distribution_type.extended(other, [2.0], 10)
    assert distribution.freeze().count == 1


def test_subclasses_take_each_other_in(distribution_type):
    subclass = type("Sub", (distribution_type,), {})
    distribution, sub = distribution_type([1.0]), subclass([2.0])
    distribution.merge(sub)
    sub.merge(distribution)
    assert (distribution.freeze().count, sub.freeze().count) == (2, 3)
    assert type(subclass.extended(distribution, [3.0], 10)) is subclass


def test_a_distribution_can_be_begun_anew(distribution_type):
    distribution = distribution_type(range(1000), limit=10)
    distribution.__init__([5.0])
    assert (distribution.freeze().count, distribution.exact, distribution.limit) == (1, True, 256)
    with pytest.raises(ValueError, match="finite"):
        distribution.__init__([math.nan])
    assert distribution.freeze().sum == 5.0


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (True, 1), (2**31, 2**31 - 1), (10**30, 2**31 - 1)])
def test_any_limit_that_is_no_negative_number_is_taken(distribution_type, limit, kept):
    distribution = distribution_type([1.0, 2.0], limit=limit)
    assert (distribution.limit, distribution.freeze().count) == (kept, 2)


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), (-(10**30), ValueError), (1.5, TypeError), ("5", TypeError)]
)
def test_a_limit_that_is_none_is_refused(distribution_type, limit, error):
    with pytest.raises(error):
        distribution_type(limit=limit)
    with pytest.raises(error):
        distribution_type.extended(None, [1.0], limit)


@pytest.mark.parametrize("size", [5, 500])
@pytest.mark.parametrize(
    ("percent", "error"), [(math.nan, ValueError), (math.inf, OverflowError), (-math.inf, OverflowError)]
)
def test_a_percent_that_is_not_finite_is_refused(distribution_type, size, percent, error):
    distribution = distribution_type(map(float, range(size))).freeze()
    with pytest.raises(error):
        distribution.shares([percent])


@pytest.mark.parametrize(("percent", "weight"), [(1e300, 500), (-1e300, 500), (0.0, None), (-1e-320, None)])
def test_any_finite_percent_has_a_share_or_none(distribution_type, percent, weight):
    (share,) = distribution_type(map(float, range(500))).freeze().shares([percent])
    assert (share and share.weight) == weight


def test_the_collector_of_garbage_may_write_what_is_being_read(distribution_type):
    """Making a list can start the collector, whose callbacks are code like any other."""

    def write(phase, info):
        distribution.__init__([1.0] * 3, limit=2)
        distribution.__init__([2.0] * 50)

    distribution = distribution_type([1.0] * 10)
    threshold = gc.get_threshold()
    gc.callbacks.append(write)
    gc.set_threshold(1)
    try:
        for _ in range(200):
            assert distribution.parts()
            assert distribution.freeze()._sorted()
            assert distribution.powers()
            assert distribution.shares((50, 90))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(write)


# -- instruments


def test_a_negative_number_of_values_is_refused(registry):
    counter = registry.counter("x")
    for _ in range(3):
        counter._put("waits")
    for refused in (
        lambda: counter._drop(-1),
        lambda: counter._begin(-1),
        lambda: counter._commit(counter._lock, 5, -1),
    ):
        with pytest.raises(ValueError, match="must not be negative"):
            refused()
    assert counter._pending_count == 3
    assert counter._drop(10**30) is False
    assert counter._commit(counter._lock, 5, 10**30) is True
    assert total(registry, "counters") == 5


def test_a_state_that_is_an_empty_tuple_of_the_right_type_is_kept_as_an_object(modules, registry):
    change = modules["metricslib.window"].GaugeChange
    gauge = registry.gauge("x")
    empty = tuple.__new__(change, ())
    assert gauge._commit(gauge._lock, empty, 0) is True
    assert gauge._take() is empty


def test_an_empty_change_of_a_gauge_is_counted_as_bad(modules, registry):
    gauge = registry.gauge("x")
    gauge.set(5)
    gauge._put(tuple.__new__(modules["metricslib.instruments.gauge"]._Delta, ()))
    assert total(registry, "gauges") == 5
    assert registry.drops.totals() == {"bad_value": 1}


def test_opening_a_cell_may_open_it(registry):
    counter = registry.counter("x")
    counter._put("waits")
    counter._open(Acting(lambda: counter._open(True)))
    counter.inc(2)
    assert total(registry, "counters") == 2


class Finalized:
    """Runs ``act`` when it goes."""

    def __init__(self, act):
        self._act = act

    def __del__(self):
        self._act()


@pytest.mark.parametrize("method", ["_open", "_drop", "_commit", "_take", "_children", "_lock", "_now"])
def test_what_a_destructor_does_counts(registry, method):
    """It runs in the middle of a method that lets go of an object, and uses the instrument."""
    timer = registry.timer("x")

    def act():
        timer.observe(1)
        timer._put(2)

    if method in ("_children", "_lock", "_now"):
        before = getattr(timer, method)
        setattr(timer, method, Finalized(act))
        setattr(timer, method, before)
    else:
        timer._put(Finalized(act))
        if method == "_commit":
            timer._commit(timer._lock, None, 1)
        elif method == "_take":
            timer._commit(timer._lock, Finalized(act), 1)
            timer._take()
        else:
            getattr(timer, method)(0 if method == "_drop" else True)
    gc.collect()
    count = total(registry, "timers").count
    assert count == (4 if method == "_take" else 2)


def test_a_deep_chain_of_children_goes_without_recursion(modules, registry):
    kind = type(registry.counter("x"))
    last = None
    for _ in range(100_000):
        cell = kind.__new__(kind)
        cell._children = last
        last = cell
    del cell, last


def test_a_class_of_instruments_can_be_half_made(modules, registry):
    """Made without its ``__init__``: an AttributeError, or nothing happens."""
    for kind, call in (
        ("counter", "inc"),
        ("gauge", "inc"),
        ("timer", "time"),
        ("timer", "observe"),
        ("unique", "add"),
    ):
        cls = type(getattr(registry, kind)("x"))
        bare = cls.__new__(cls)
        arguments = (1,) if call in ("observe", "add") else ()
        try:
            span = getattr(bare, call)(*arguments)
            if span is not None:
                span.start()
        except AttributeError:
            pass
    assert registry.drops.totals() == {}


# -- spans


def test_a_tagged_that_was_replaced_is_used_as_it_is(registry):
    timer = registry.timer("x")
    with mock.patch.object(type(timer), "tagged") as tagged, timer.time() as span:
        span.tag(a=1)
    tagged.assert_called_once_with(a=1)
    tagged().observe.assert_called_once_with(span.elapsed)


@pytest.mark.parametrize("kind", ["counter", "gauge", "unique"])
def test_a_tagged_that_gives_another_kind_takes_no_duration(registry, kind):
    timer, other = registry.timer("x"), getattr(registry, kind)("x")
    span = timer.time().start()
    span.tag(a=1)
    with mock.patch.object(type(timer), "tagged", return_value=other), pytest.raises(AttributeError):
        span.stop()
    assert other._take() is None


def test_a_span_that_was_never_entered_measures_nothing(registry):
    timer = registry.timer("x")
    timer.time().__exit__(None, None, None)
    assert timer.time().elapsed == 0.0
    assert total(registry, "timers").count == 0


def test_a_clock_may_stop_the_span_that_asks_it(registry):
    """It is measured once."""
    timer = registry.timer("x")
    asked = []

    def clock():
        asked.append(1)
        if len(asked) == 2:
            span.stop()
        return float(len(asked))

    timer._now = clock
    span = timer.time().start()
    span.stop()
    assert total(registry, "timers").count == 1


def test_a_clock_may_replace_itself(registry):
    timer = registry.timer("x")

    class Clock:
        def __init__(self):
            self.text = "still here"

        def __call__(self):
            timer._now = lambda: 5.0
            return float(len(self.text))

    timer._now = Clock()
    with timer.time():
        pass
    del timer._now
    with pytest.raises(AttributeError):
        timer.time().start()
    assert total(registry, "timers").count == 1


def test_numbers_of_any_class_are_counted_or_bad(registry):
    counter = registry.counter("x")
    for value in (Fraction(1, 2), Acting(raising), Acting(lambda: counter.inc(5), 1.0), True, math.nan, "1"):
        counter.inc(value)
    assert total(registry, "counters") == 0.5 + 1.0 + 1
    assert registry.drops.totals() == {"bad_value": 3}
    assert total_after_another_tick(registry) == 5


def total_after_another_tick(registry):
    return registry.tick(20, 10).cumulative.counters["x"]


def test_a_lock_may_be_replaced_or_deleted(registry):
    """A fold that began under the one before keeps its hands off."""
    counter = registry.counter("x")
    counter._put(3)
    before = counter._lock
    counter._begin(10)
    counter._lock = threading.Lock()
    assert counter._commit(before, 99, 1) is False
    assert total(registry, "counters") == 3
