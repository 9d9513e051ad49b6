"""The C implementation do what the Python ones do: both are fed the same, and everything that comes out is compared."""

import inspect
import math
import os
import pickle
import subprocess
import sys
import weakref
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metricslib._accelerate import load
from tests.implementations import packages
from tests.peers import ROOT

LARGE = [2**53, 2**62, 2**63 - 1, 2**63, -(2**63), 2**1000, 1e308, -1e308, 5e-324, 1e306]
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([0.1, 0.5, 2.5, -0.0, 0.0, 1e-3, 12.75]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.sampled_from(LARGE),
)
ODD: st.SearchStrategy[Any] = st.sampled_from([True, False, None, "5", b"5", Decimal("1.5"), 1 + 2j, [], 10**400])
VALUES = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD)
TAGS = st.dictionaries(st.sampled_from(["a", "b", "self"]), st.sampled_from(["x", 1, True, 1.0, "1", None]), max_size=2)
CALLS = st.one_of(
    st.tuples(st.just("counter"), st.just("inc"), st.one_of(st.just(()), st.tuples(VALUES))),
    st.tuples(st.just("gauge"), st.just("set"), st.tuples(VALUES)),
    st.tuples(st.just("gauge"), st.sampled_from(["inc", "dec"]), st.one_of(st.just(()), st.tuples(VALUES))),
    st.tuples(st.sampled_from(["timer", "histogram"]), st.just("observe"), st.tuples(VALUES)),
    st.tuples(st.just("unique"), st.just("add"), st.tuples(st.one_of(VALUES, st.text(max_size=3)))),
)
STEPS = st.one_of(
    st.tuples(CALLS, TAGS, st.sampled_from([1, 1, 1, 3, 300, 700])),
    st.sampled_from(["flush", "tick", "snapshot", "sleep"]),
)


@pytest.fixture(autouse=True)
def c_is_built():
    """Without C there is nothing to compare. Where it must be there, as in CI, its absence is an error elsewhere."""
    if load_c() is None:
        pytest.skip("the C implementation was not built, or is not wanted")


def load_c():
    return load("metricslib._speedups")


def test_methods_in_c_have_the_docstrings_of_the_python_methods():
    """And signatures, annotations aside."""
    registries = [packages(pure)["metricslib.registry"].Registry() for pure in (False, True)]
    for name, method in [
        ("counter", "inc"),
        ("gauge", "set"),
        ("gauge", "inc"),
        ("timer", "observe"),
        ("timer", "time"),
        ("histogram", "observe"),
        ("counter", "tagged"),
    ]:
        ours, theirs = (getattr(type(getattr(registry, name)("a")), method) for registry in registries)
        assert ours is not theirs
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


class Side:
    """A registry of one implementation, and everything that came out of it."""

    def __init__(self, pure):
        self.modules = packages(pure)
        self.clock = self.modules["metricslib.testing"].ManualClock()
        self.registry = self.modules["metricslib.registry"].Registry(clock=self.clock, exact=20, max_tag_sets=5)
        self.out = []

    def do(self, step):
        if step in ("flush", "tick", "snapshot"):
            getattr(self, step)()
        elif step == "sleep":
            for instrument in self.registry._active_instruments():
                instrument._fall_asleep()
        else:
            (kind, method, arguments), tags, times = step
            for _ in range(times):
                instrument = getattr(self.registry, kind)("x").tagged(**tags)
                getattr(instrument, method)(*arguments)

    def tick(self):
        self.clock.advance(10)
        flush = self.registry.tick(int(self.clock.time()), 10)
        self.out.append([plain(flush.cumulative), plain(flush.delta), self.registry.drops.totals()])

    def flush(self):
        self.out.append(plain(self.registry.flush(int(self.clock.time()) + 10, 10).delta))

    def snapshot(self):
        snapshot = self.registry.snapshot()
        totals = {
            (kind, key): (exact(total.sum), total.count, sorted(total.powers.items()))
            for kind, series in snapshot.totals.items()
            for key, total in series.items()
        }
        self.out.append([plain(snapshot.open), totals, snapshot.dropped])


def exact(number):
    """A number to the last bit; an int and a float that are the same number are the same."""
    return float(number).hex() if abs(number) < 2**1000 else str(number)


def plain(window):
    """Everything in a window."""
    return {
        "counters": {key: exact(value) for key, value in window.counters.items()},
        "gauges": {key: exact(value) for key, value in window.gauges.items()},
        "timers": {key: contents(value) for key, value in window.timers.items()},
        "histograms": {key: contents(value) for key, value in window.histograms.items()},
        "uniques": {key: sorted(value) for key, value in window.uniques.items()},
    }


def contents(distribution):
    numbers = [
        getattr(distribution, name) for name in ("count", "sum", "sum_squares", "min", "max", "mean", "std", "median")
    ]
    values, weights = distribution._sorted()
    shares = [share and tuple(map(exact_or_none, share)) for share in distribution.shares((50, 90, -10, 99.9, -100, 1))]
    return [
        [exact_or_none(number) for number in numbers],
        [exact_or_none(value) for value in values],
        [exact(weight) for weight in weights],
        shares,
        sorted(distribution.powers().items()),
        (distribution.exact, distribution.limit, bool(distribution), repr(distribution)),
        [(exact_or_none(value), exact(weight)) for value, weight in distribution.entries()],
    ]


def exact_or_none(number):
    return exact(number) if math.isfinite(number) else repr(number)


@given(st.lists(STEPS, max_size=40))
@example([((("counter", "inc", (2**63 - 1,)), {}, 3)), "tick", (("counter", "inc", (0.1,)), {}, 700), "tick"])
@example([(("gauge", "inc", (2**63 - 1,)), {}, 3), "flush", (("gauge", "set", (math.nan,)), {}, 1), "tick"])
@example([(("timer", "observe", (True,)), {}, 1), (("timer", "observe", (0.5,)), {}, 700), "snapshot", "tick"])
def test_the_same_calls_come_out_the_same(steps):
    """Whatever the values, also bad ones, and however calls, ticks, flushes and snapshots follow each other."""
    sides = [Side(pure) for pure in (True, False)]
    for step in [*steps, "tick", "tick"]:
        for side in sides:
            side.do(step)
        assert sides[1].out == sides[0].out


SAMPLES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.0**-40, 2.0**40, 1e-300, -3.5]),
    st.integers(-40, 40).map(lambda power: 2.0**power),
)
WEIGHTS = st.sampled_from([1, 1, 1, 10.0, 1 / 0.3, 2.5])
WRITES = st.one_of(
    st.tuples(st.just("add"), SAMPLES, WEIGHTS),
    st.tuples(st.just("adjust"), SAMPLES, SAMPLES),
    st.tuples(st.just("extend"), st.lists(SAMPLES, max_size=30)),
    st.tuples(st.just("merge"), st.lists(st.tuples(SAMPLES, WEIGHTS), max_size=30), st.sampled_from([3, 100])),
)


def written(pure, writes, limit):
    distribution_type = packages(pure)["metricslib.sketch"].Distribution
    distribution = distribution_type(limit=limit)
    for write in writes:
        if write[0] == "merge":
            other = distribution_type(limit=write[2])
            for value, weight in write[1]:
                other.add(value, weight)
            distribution.merge(other)
        else:
            getattr(distribution, write[0])(*write[1:])
    extended = distribution_type.extended(distribution, [3.0, 1.0], limit)
    return [contents(each.freeze()) for each in (distribution, extended)]


@given(st.lists(WRITES, max_size=15), st.sampled_from([1, 5, 20, 256]))
def test_distributions_hold_the_same(writes, limit):
    """To the last bit, weighted or not, before they are a sketch and after, and what merges them too."""
    assert written(False, writes, limit) == written(True, writes, limit)


def test_the_c_twins_are_in_use_where_they_were_built():
    """Instruments are C's, and so is what a timer holds."""
    modules = packages(False)
    c = modules["metricslib._speedups"]
    registry = modules["metricslib.registry"].Registry()
    assert isinstance(registry.counter("x"), c.Cell)
    assert issubclass(modules["metricslib.sketch"].Distribution, c.Samples)
    assert [type(cell.cell_contents) for cell in registry.timed("f")(abs).__closure__] == [type(abs)] * 2
    assert not hasattr(packages(True)["metricslib.instruments.counter"].Counter, "count")


@pytest.mark.parametrize(("pure", "outcome"), [("1", "Cell"), ("0", "Cell"), ("2", "METRICSLIB_PURE = '2'")])
def test_the_environment_chooses(pure, outcome):
    """1 takes Python, 0 C, and anything else is refused at once."""
    code = "from metricslib.instruments.base import Cell; print(Cell.__module__, Cell.__name__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "METRICSLIB_PURE": pure},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert outcome in run.stdout + run.stderr
    assert ("_speedups" in run.stdout) == (pure == "0")


def plainly_timed(a, b=2):
    """What it says."""
    return a + b


def test_a_timed_plain_function_is_one_to_its_users():
    """Name, text, signature, attributes, pickling by name, weak references, and binding as a method."""
    registry = packages(False)["metricslib.registry"].Registry()
    before = plainly_timed
    timed = registry.timed("x")(before)
    globals()["plainly_timed"] = timed
    try:
        assert (timed.__name__, timed.__doc__, timed.__module__) == (before.__name__, before.__doc__, before.__module__)
        assert timed.__wrapped__ is before
        timed.mark = 1
        assert (timed.mark, timed(1), timed(1, b=1)) == (1, 3, 2)
        assert pickle.loads(pickle.dumps(timed)) is timed
        assert weakref.ref(timed)() is timed
        assert repr(timed).startswith("<function plainly_timed at ")
        owner = type("Owner", (), {"method": timed})
        assert type(owner().method).__name__ == "method"
        with pytest.raises(TypeError):
            timed()
    finally:
        globals()["plainly_timed"] = before
    assert registry.tick(10, 10).cumulative.timers["x"].count == 3


def test_nothing_leaks():
    """Once caches have grown to their size, as many objects and blocks of memory are there after more of everything."""
    code = """
import gc, sys
from metricslib.registry import Registry

def all_of_it():
    registry = Registry(exact=8)
    timer, counter, gauge = registry.timer("t"), registry.counter("c"), registry.gauge("g")
    @registry.timed("f")
    def fails():
        raise KeyError
    for number in range(100):
        timer.observe(number)
        counter.inc(number if number % 9 else "odd")
        gauge.set(number); gauge.inc(0.5); gauge.inc(True)
        counter.tagged(a=number % 3, b="x").inc()
        with timer.time() as span:
            span.tag(a=span)
        try:
            fails()
        except KeyError:
            pass
    window = registry.tick(10, 10).cumulative
    for timer in window.timers.values():
        timer.shares((50, 90, -10, 0.1)); timer.powers(); list(timer.entries()); timer.std; timer.median

def size():
    gc.collect()
    return len(gc.get_objects()), sys.getallocatedblocks()

for _ in range(1000):
    all_of_it()
before = size()
for _ in range(300):
    all_of_it()
after = size()
print(after[0] - before[0], after[1] - before[1])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    objects, blocks = map(int, run.stdout.split())
    assert abs(objects) < 30
    assert abs(blocks) < 200


@pytest.mark.parametrize("kind", ["Counter", "Gauge", "Timer", "Histogram", "Unique"])
def test_the_classes_show_the_same(kind):
    """Public names, and what help() says of each."""

    def shown(pure):
        cls = getattr(packages(pure)["metricslib"], kind)
        return {name: inspect.getdoc(getattr(cls, name)) for name in dir(cls) if not name.startswith("_")}

    assert shown(pure=False) == shown(pure=True)
    assert {"count", "observe_seconds"}.isdisjoint(shown(pure=False))
