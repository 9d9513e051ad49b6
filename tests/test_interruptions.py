"""What a signal handler raises reaches the program, wherever it strikes, and leaves every account right.

A handler runs where the interpreter looks for signals: after a call has returned, at the beginning of a function, at a
backward jump. `interrupted_everywhere` goes through all these places inside metricslib one after the other: in its k-th
run a trace function raises at the k-th place, as the handler of a time limit would. What C does at once has no such
place inside. A short run with real signals stands beside it.
"""

import dis
import enum
import gc
import importlib
import os
import signal
import sys
import time
import uuid
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import pytest

import metricslib
from metricslib.registry import Registry
from metricslib.testing import ManualClock

PACKAGE = str(Path(metricslib.__file__).parent)
PLACES = ("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


@cache
def places(code):
    """Return for each offset whether a signal handler could run after the instruction there."""
    return [dis.opname[number].startswith(PLACES) for number in code.co_code]


class Limit(Exception):
    """What the handler of a time limit raises."""


class Interrupt:
    """A trace function that raises once, at the k-th place where a signal handler could run inside metricslib."""

    def __init__(self, k: int) -> None:
        self.left = k
        self.before: dict[object, bool] = {}
        self.struck = False

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = self.before.get(frame, False)
            self.before[frame] = places(frame.f_code)[frame.f_lasti]
            if before and not self.struck:
                self.left -= 1
                if self.left < 0:
                    self.struck = True
                    raise Limit
        return self


def interrupted_everywhere(use):
    """Yield what `use()` does to a fresh registry, for each place, as (registry, returned, whether it was struck)."""
    trace, k = sys.gettrace(), 0
    gc.disable()
    while True:
        registry, interrupt, heard = Registry(clock=ManualClock()), Interrupt(k), False
        work = use(registry)
        sys.settrace(interrupt)
        try:
            work()
        except Limit:
            heard = True
        finally:
            sys.settrace(trace)
            interrupt.before.clear()
        assert heard == interrupt.struck, f"swallowed at place {k}"
        yield registry, heard
        if not heard:
            assert k > 0 or sys.flags.optimize or _in_c()
            break
        k += 1
    gc.enable()


def _in_c() -> bool:
    return importlib.import_module("metricslib.decorators")._speedups is not None


pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let buffers be full at once, so that folds are among what is interrupted, and nobody wait long for a lock."""
    for module in ("base", "counter", "gauge", "timer", "histogram"):
        module = importlib.import_module(f"metricslib.instruments.{module}")
        for name, value in (("FULL", 1), ("_PATIENCE", 0.001)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


IDENTIFIER = uuid.uuid4()

USES = {
    "inc": lambda registry: registry.counter("x").inc,
    "inc a foreign number": lambda registry: lambda: registry.counter("x").inc(Decimal(1)),
    "inc an int without end": lambda registry: lambda: registry.counter("x").inc(10**400),
    "set": lambda registry: lambda: registry.gauge("x").set(1),
    "gauge inc": lambda registry: registry.gauge("x").inc,
    "dec": lambda registry: registry.gauge("x").dec,
    "dec a float": lambda registry: lambda: registry.gauge("x").dec(0.5),
    "dec a foreign number": lambda registry: lambda: registry.gauge("x").dec(Decimal(1)),
    "observe": lambda registry: lambda: registry.timer("x").observe(1.5),
    "observe a size": lambda registry: lambda: registry.histogram("x").observe(1.5),
    "add a text": lambda registry: lambda: registry.unique("x").add("a"),
    "add an int": lambda registry: lambda: registry.unique("x").add(5),
    "add a float": lambda registry: lambda: registry.unique("x").add(1.5),
    "add an object": lambda registry: lambda: registry.unique("x").add(IDENTIFIER),
    "tag with a text": lambda registry: lambda: registry.counter("x").tagged(a="b").inc(),
    "tag with numbers": lambda registry: lambda: registry.counter("x").tagged(a=1, b=1.5, c=True, d=None).inc(),
    "start and stop": lambda registry: lambda: registry.timer("x").time().start().stop(),
    "a tagged block": lambda registry: lambda: tagged_block(registry.timer("x")),
    "make instruments": lambda registry: lambda: registry.scope("s", {"a": 1}).counter("x", {"b": 2.5}).inc(),
}


def tagged_block(timer):
    with timer.time() as span:
        span.tag(status=200)


@pytest.mark.parametrize("use", USES)
def test_an_exception_of_a_handler_reaches_the_program_and_is_no_bad_value(use):
    """At no place is it swallowed, and at none does it count as the value's fault. A value is there once, or not."""

    def twice(registry):
        once = USES[use](registry)

        def work():
            once()
            once()

        return work

    expected = {"bad_value": 2} if use == "inc an int without end" else {}
    for registry, heard in interrupted_everywhere(twice):
        registry.tick(10, 10)
        totals = registry.drops.totals()
        assert totals == expected or (heard and totals.keys() <= expected.keys())


# -- calls that are under way


def plain():
    return 1


async def coroutine():
    return 1


def generator():
    yield 1


async def async_generator():
    yield 1


def consumed(function):
    """Run it to its end, whatever kind it is, without a loop that would be interrupted itself."""
    made = function()
    if hasattr(made, "__anext__"):
        drive(anext(made))
        drive(made.aclose())
    elif hasattr(made, "send"):
        drive(made)


def drive(made):
    try:
        while True:
            made.send(None)
    except StopIteration:
        pass


class Broken(Exception):
    pass


def broken():
    raise Broken


KINDS = [plain, coroutine, generator, async_generator]


@pytest.mark.parametrize("function", KINDS)
def test_no_call_stays_in_progress_wherever_a_handler_raises(function):
    """After it nothing is under way, whether the call was struck at its beginning, its end or never."""

    def use(registry):
        decorated = registry.in_progress("x")(function)
        return lambda: consumed(decorated)

    struck = 0
    for registry, heard in interrupted_everywhere(use):
        gc.collect()
        gauges = registry.tick(10, 10).cumulative.gauges
        assert gauges == {"x": 0} or (heard and gauges == {})
        struck += heard
    assert struck >= 4


def test_no_call_that_raises_stays_in_progress_wherever_a_handler_raises():
    """The same where the function fails by itself."""

    def use(registry):
        decorated = registry.in_progress("x")(broken)

        def work():
            try:
                decorated()
            except Broken:
                pass

        return work

    for registry, heard in interrupted_everywhere(use):
        gauges = registry.tick(10, 10).cumulative.gauges
        assert gauges == {"x": 0} or (heard and gauges == {})


@pytest.mark.parametrize("decorator", ["timed", "counted", "count_exceptions"])
@pytest.mark.parametrize("function", KINDS)
def test_no_decorator_swallows_what_a_handler_raises(decorator, function):
    """What one call measured may be lost with it, but never doubled."""

    def use(registry):
        decorated = getattr(registry, decorator)("x")(function)
        return lambda: consumed(decorated)

    for registry, heard in interrupted_everywhere(use):
        gc.collect()
        window = registry.tick(10, 10).cumulative
        expected = {"timed": window.timers.get("x"), "counted": None, "count_exceptions": None}[decorator]
        count = expected.count if expected else window.counters.get("x", 0)
        assert count in ((0, 1) if heard else (0,) if decorator == "count_exceptions" else (1,))
        assert registry.drops.totals() == {}


def test_an_interrupted_async_generator_leaves_the_hooks_of_its_thread():
    """Its wrapper takes them away for a moment; a loop that lost them would close no generator any more."""

    def first(asyncgen): ...

    def last(asyncgen): ...

    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first, last)
    try:
        for _ in interrupted_everywhere(lambda registry: lambda: consumed(registry.counted("x")(async_generator))):
            assert sys.get_asyncgen_hooks() == (first, last)
    finally:
        sys.set_asyncgen_hooks(*before)


def test_a_call_too_deep_leaves_nothing_in_progress(registry, tick):
    """Wherever on its way the stack came to its end."""

    @registry.in_progress("x")
    def descend():
        return descend()

    for _ in range(20):
        with pytest.raises(RecursionError):
            descend()
    assert tick().cumulative.gauges == {"x": 0}


def test_a_forked_child_is_in_no_call_of_its_parent(registry, clock):
    """Its gauge is 0 at the end of the call that forked, not -1, and counts calls of its own."""

    @registry.in_progress("x")
    def forks():
        child = os.fork()
        return child, inside(child)

    @registry.in_progress("x")
    def inside(child):
        return registry.tick(10, 10).cumulative.gauges

    parent, failed = os.getpid(), True
    try:
        child, within = forks()
        after = registry.tick(20, 10).cumulative.gauges
        failed = (within, after) != ({"x": 1}, {"x": 0})
    finally:
        if os.getpid() != parent:
            os._exit(failed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (within, after) == ({"x": 2}, {"x": 0})


def test_calls_of_all_functions_of_a_name_are_in_progress_together(registry, tick):
    """One gauge for both, as for any name that is given twice; and it shows calls that last longer than an interval."""
    one, other = (registry.in_progress("x")(generator)() for _ in range(2))
    next(one), next(other)
    assert [tick().cumulative.gauges, tick().delta.gauges] == [{"x": 2}, {"x": 2}]
    one.close()
    assert registry.snapshot().open.gauges == {"x": 1}
    other.close()
    assert tick().cumulative.gauges == {"x": 0}
    assert tick().delta.gauges == {}


def test_a_call_longer_than_series_live_is_in_progress_all_the_time(clock):
    """Its gauge does not expire under it, nor is it -1 afterwards."""
    registry = Registry(clock=clock, expire=30)
    call = registry.in_progress("x")(generator)()
    next(call)
    for _ in range(20):
        clock.advance(10)
        assert registry.tick(int(clock.time()), 10).cumulative.gauges == {"x": 1}
    call.close()
    clock.advance(10)
    assert registry.tick(int(clock.time()), 10).cumulative.gauges == {"x": 0}


# -- a handler that runs inside code of the program's own


class Colour(enum.Enum):
    """Made by code in Python that no signal handler is, though `SIG_DFL` is a member of an Enum too."""

    A = "a"


def limit(*_):
    raise Limit


class Limiter:
    def method(self, *_):
        limit()

    def __call__(self, *_):
        limit()


HANDLERS = {"function": limit, "method": Limiter().method, "partial": partial(limit, 1), "object": Limiter()}


@pytest.fixture
def strike():
    """Call to be struck by a signal whose handler raises; `strike.install(handler)` takes another handler."""
    before = signal.signal(signal.SIGUSR1, limit)

    def strike(*_):
        signal.raise_signal(signal.SIGUSR1)
        return 1

    strike.install = lambda handler: signal.signal(signal.SIGUSR1, handler)
    yield strike
    signal.signal(signal.SIGUSR1, before)


def foreign(does):
    """A value whose methods are code of the program's own."""
    methods = dict.fromkeys(("__str__", "__float__", "__neg__"), lambda self: does())
    return type("Foreign", (), methods)()


def on_slow(registry, does):
    registry.timed("x", slow=0, on_slow=does)(plain)()


def first_use(registry, does):
    registry.on_first_use(does)
    registry.counter("first").inc()


CODE = {
    "a member": lambda registry, does: registry.unique("x").add(foreign(does)),
    "a tag": lambda registry, does: registry.counter("x").tagged(a=foreign(does)),
    "a number": lambda registry, does: (registry.counter("x").inc(foreign(does)), registry.tick(10, 10)),
    "a negative": lambda registry, does: registry.gauge("x").dec(foreign(does)),
    "a hook": on_slow,
    "a callback": lambda registry, does: (registry.gauge("x", read=does), registry.tick(10, 10)),
    "the first use": first_use,
}


@pytest.mark.parametrize("code", CODE)
def test_a_handler_that_runs_inside_code_of_the_programs_own_is_heard(registry, strike, code):
    """It is not taken for a failure of that code."""
    with pytest.raises(Limit):
        CODE[code](registry, strike)
    assert registry.drops.totals() == {}


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_is_known_whatever_is_called(registry, strike, handler):
    """A function, a method, a partial function, or an object."""
    strike.install(HANDLERS[handler])
    with pytest.raises(Limit):
        registry.unique("x").add(foreign(strike))


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("error", [Limit, ValueError, lambda: Colour("b")])
def test_what_fails_by_itself_is_counted(registry, strike, code, error):
    """Also while handlers are installed, and where the error is of the class that they raise."""

    def fails(*_):
        raise error()

    CODE[code](registry, fails)
    assert sum(registry.drops.totals().values()) == 1


def test_a_filter_that_is_struck_is_no_failure_of_its_own(strike):
    """Nor is the series refused: it is made the next time."""
    strikes = [strike]
    registry = Registry(filters=[lambda series: (strikes and strikes.pop()(), series)[1]])
    with pytest.raises(Limit):
        registry.counter("x")
    assert registry.counter("x").live
    assert registry.drops.totals() == {}


# -- real signals


@pytest.mark.parametrize(
    "use",
    ["inc", "dec", "dec a foreign number", "add a text", "add a float", "add an object", "tag with numbers"],
)
def test_a_time_limit_ends_a_loop_of_calls(use):
    """All of two hundred limits are heard."""
    call, heard = USES[use](Registry()), 0

    def handler(*_):
        raise Limit

    def until(end):
        while time.perf_counter() < end:
            call()

    before, trace = signal.signal(signal.SIGALRM, handler), sys.gettrace()
    gc.disable()
    sys.settrace(None)
    try:
        for attempt in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + attempt * 1e-6)
                until(time.perf_counter() + 0.1)
            except Limit:
                heard += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(trace)
        gc.enable()
    assert heard == 200
