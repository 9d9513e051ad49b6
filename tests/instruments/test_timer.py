"""A timer: seconds in, milliseconds kept; every block under its own start."""

import asyncio
import math
import threading
from contextlib import AbstractContextManager, ExitStack
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib._accelerate import load
from metricslib.registry import Registry
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock
from tests.implementations import packages


def test_durations_are_kept_in_milliseconds(registry, tick):
    """0.25 seconds are 250 ms; an idle interval is empty."""
    timer = registry.timer("x")
    timer.observe(0.25)
    timer.observe(2)
    window = tick().cumulative
    assert (window.timers["x"].count, window.timers["x"].min, window.timers["x"].max) == (2, 250.0, 2000.0)
    idle = tick()
    assert idle.cumulative.timers["x"].count == 0
    assert idle.delta.timers == {}


@given(st.lists(st.floats(0, 1e6) | st.integers(0, 10**6), min_size=1, max_size=1200))
def test_every_duration_is_multiplied_once(durations):
    """So that every route to Graphite ends in the same buckets, to the bit."""
    registry = Registry(clock=ManualClock())
    timer = registry.timer("x")
    for duration in durations:
        timer.observe(duration)
    timed = registry.tick(10, 10).cumulative.timers["x"]
    expected = Distribution([duration * 1000.0 for duration in durations]).freeze()
    assert (timed.count, timed.min, timed.max) == (expected.count, expected.min, expected.max)
    assert timed.powers() == expected.powers()
    assert timed.percentile(90) == expected.percentile(90)


@pytest.mark.parametrize("seconds", [-1, -1e-9, -5e-324, 1e306, 2**1022, math.inf, math.nan, -math.inf])
def test_a_duration_that_cannot_be_is_counted_as_bad(registry, tick, seconds):
    """Negative, endless or beyond what milliseconds can say; the good ones around it count."""
    timer = registry.timer("x")
    for each in (1, seconds, 2):
        timer.observe(each)
    assert tick().cumulative.timers["x"].sum == 3000
    assert registry.drops.totals() == {"bad_value": 1}


def test_zero_is_a_duration_with_either_sign(registry, tick):
    """A clock with coarse ticks says 0 often."""
    timer = registry.timer("x")
    timer.observe(0)
    timer.observe(-0.0)
    assert (tick().cumulative.timers["x"].count, registry.drops.totals()) == (2, {})


# -- blocks


def test_a_block_is_timed_by_the_registrys_monotonic_clock(registry, clock, tick):
    """A step of the wall clock in its middle does not count."""
    with registry.timer("x").time() as span:
        clock.advance(1.5)
        assert span.elapsed == 1.5
        clock.set_time(0)
        clock.advance(0.5)
    clock.advance(3)
    assert span.elapsed == 2
    assert tick().cumulative.timers["x"].sum == 2000


def test_a_block_that_raises_is_timed_and_its_exception_goes_on(registry, clock, tick):
    """Failures take time too."""

    def fail():
        clock.advance(1)
        raise KeyError

    with pytest.raises(KeyError), registry.timer("x").time():
        fail()
    assert tick().cumulative.timers["x"].sum == 1000


def test_blocks_may_nest_and_overlap(registry, clock, tick):
    """Each has its own start, so one timer serves any number at the same time."""
    timer = registry.timer("x")
    outer, other = timer.time(), timer.time()
    with outer:
        clock.advance(1)
        other.__enter__()
        with timer.time():
            clock.advance(1)
    clock.advance(1)
    other.__exit__(None, None, None)
    assert sorted(tick().cumulative.timers["x"]._samples) == [1000, 2000, 2000]


def test_a_span_may_be_used_again(registry, clock, tick):
    """It starts anew each time it is entered."""
    span = registry.timer("x").time()
    for seconds in (1, 2):
        with span:
            clock.advance(seconds)
    assert tick().cumulative.timers["x"]._samples == [1000, 2000]


def test_a_span_is_a_context_manager_to_whoever_takes_one(registry, clock, tick):
    """A stack of them asks the type for its methods; and as a decorator, which it is not, it is refused at once."""
    with ExitStack() as stack:
        span = stack.enter_context(registry.timer("x").time())
        clock.advance(1)
    assert span.elapsed == 1
    assert isinstance(span, AbstractContextManager)
    kind = type(span)
    assert kind.__enter__(span) is span
    clock.advance(2)
    assert kind.__exit__(span, None, None, None) is None
    assert tick().cumulative.timers["x"]._samples == [1000, 2000]
    with pytest.raises(TypeError, match="a Span cannot be called"):
        span(lambda: None)
    with pytest.raises((TypeError, AttributeError)):
        kind.__enter__(5)


# -- from start() to stop()


def test_a_span_measures_from_start_to_stop(registry, clock, tick):
    """Where a block does not fit: `start()` returns the span, and `elapsed` stands still at `stop()`."""
    timer = registry.timer("x")
    span = timer.time()
    clock.advance(1)
    assert span.elapsed == 0
    assert span.start() is span
    clock.advance(2)
    assert span.elapsed == 2
    assert span.stop() is None
    clock.advance(4)
    assert span.elapsed == 2
    assert tick().cumulative.timers["x"]._samples == [2000]


def test_a_span_that_was_not_started_measures_nothing(registry, clock, tick):
    """Neither by `stop()` nor as the end of a block that was never entered, and however often."""
    timer = registry.timer("x")
    for end in (lambda span: span.stop(), lambda span: span.__exit__(None, None, None)):
        span = timer.time()
        span.tag(a=1)
        clock.advance(1)
        end(span)
        end(span)
        assert span.elapsed == 0
    window = tick().cumulative
    assert set(window.timers) == {"x"}
    assert window.timers["x"].count == 0
    assert registry.drops.totals() == {}


def test_a_span_is_measured_once_for_each_start(registry, clock, tick):
    """A second `stop()` changes nothing, be it that of a block; a second `start()` begins anew."""
    span = registry.timer("x").time().start()
    clock.advance(1)
    span.stop()
    clock.advance(1)
    span.stop()
    assert span.elapsed == 1
    span.start()
    clock.advance(2)
    span.start()
    clock.advance(4)
    span.stop()
    with span:
        clock.advance(8)
        span.stop()
        clock.advance(16)
    assert span.elapsed == 8
    assert tick().cumulative.timers["x"]._samples == [1000, 4000, 8000]


def test_what_is_discarded_is_what_is_running(registry, clock, tick):
    """The next start measures again; tags stay."""
    span = registry.timer("x").time()
    span.tag(a=1)
    for discarded in (True, False):
        span.start()
        clock.advance(1)
        if discarded:
            span.discard()
        span.stop()
        assert span.elapsed == 1
    assert tick().cumulative.timers["x;a=1"]._samples == [1000]


def test_spans_that_are_started_may_nest_and_overlap(registry, clock, tick):
    """As blocks may."""
    timer = registry.timer("x")
    outer = timer.time().start()
    clock.advance(1)
    inner = timer.time().start()
    clock.advance(1)
    outer.stop()
    clock.advance(2)
    inner.stop()
    assert tick().cumulative.timers["x"]._samples == [2000, 3000]


def test_tagged_may_be_replaced(registry, clock, monkeypatch):
    """As tests do with mocks: what comes from it is told, whatever it is."""
    child = mock.Mock()
    monkeypatch.setattr(type(registry.timer("x")), "tagged", lambda self, **tags: child)
    with registry.timer("x").time() as span:
        clock.advance(2)
        span.tag(a=1)
    child.observe.assert_called_once_with(2.0)


def test_a_clock_that_uses_the_span_finds_it_whole(tick):
    """A clock may be code of the program's own, which may do anything."""

    class Clock(ManualClock):
        def monotonic(self):
            if spans:
                span = spans.pop()
                span.stop(), span.start(), span.discard(), span.elapsed, span.tag(a=1)
            return 5.0

    spans = []
    timer = Registry(clock=Clock()).timer("x")
    span = timer.time()
    for step in (span.start, span.stop, span.stop, span.start, lambda: span.elapsed, span.stop):
        spans.append(span)
        step()
    assert span.elapsed == 0


# -- tags, and what is left out


def test_a_block_may_be_tagged_by_what_happens_in_it(registry, clock, tick):
    """Later tags win; the untagged timer stays idle."""
    with registry.timer("x").time() as span:
        span.tag(status="ok", tier="gold")
        span.tag(status="late")
        clock.advance(1)
    window = tick().cumulative
    assert window.timers["x;status=late;tier=gold"].sum == 1000
    assert window.timers["x"].count == 0


def test_a_block_may_be_discarded(registry, clock, tick):
    """It was no measurement after all."""
    with registry.timer("x").time() as span:
        clock.advance(1)
        span.discard()
    assert tick().cumulative.timers["x"].count == 0


def test_a_clock_that_goes_back_makes_no_negative_block(registry, clock, tick, monkeypatch):
    """Whatever a patched clock does, elapsed is at least 0."""
    with registry.timer("x").time() as span:
        monkeypatch.setattr(clock, "_monotonic", -5.0)
        assert span.elapsed == 0
    assert tick().cumulative.timers["x"]._samples == [0.0]
    assert registry.drops.totals() == {}


def test_threads_time_their_own_blocks(registry, clock, tick):
    """Two threads inside one timer's blocks at the same time: two measurements, each from its own start."""
    timer, inside, leave = registry.timer("x"), threading.Barrier(3), threading.Barrier(3)

    def work():
        with timer.time():
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    clock.advance(1)
    leave.wait()
    for thread in threads:
        thread.join()
    assert tick().cumulative.timers["x"]._samples == [1000, 1000]


def test_freezegun_does_not_break_timing():
    """It replaces the clocks of the time module; the default clock looks them up at each call."""
    freezegun = pytest.importorskip("freezegun")
    registry = Registry()
    timer = registry.timer("x")
    with freezegun.freeze_time("2026-01-01") as frozen, timer.time():
        frozen.tick(1.5)
    assert registry.tick(10, 10).cumulative.timers["x"]._samples == [1500.0]


class BackwardsClock(ManualClock):
    """A monotonic clock that goes back by a second each time it is read, as a virtual machine's has."""

    def monotonic(self):
        self._monotonic -= 1.0
        return self._monotonic


def timed_blocks(registry, slow):
    """Time something that returns at once, in every way there is; return how often."""
    timer = registry.timer("x")
    timed = registry.timed("x")
    hooked = registry.timed("x", slow=0, on_slow=slow.append)

    async def coroutine():
        pass

    async def async_generator():
        yield

    async def drained():
        async for _ in timed(async_generator)():
            pass

    with timer.time() as span:
        assert span.elapsed == 0
    assert span.elapsed == 0
    with timer.time() as span:
        span.tag(a=1)
    span = timer.time().start()
    span.stop()
    timed(lambda: None)()
    hooked(lambda: None)()
    list(timed(lambda: (yield))())
    asyncio.run(timed(coroutine)())
    asyncio.run(drained())
    with pytest.raises(ZeroDivisionError):
        timed(lambda: 1 / 0)()
    return 9


@pytest.mark.parametrize("pure", [True, False], ids=["Python", "C"])
def test_a_duration_by_a_clock_that_goes_back_is_0(pure):
    """However it is timed; a negative duration that the program itself observes is a mistake, and bad."""
    if not pure and load("metricslib._speedups") is None:
        pytest.skip("the C implementation was not built, or is not wanted")
    modules = packages(pure)
    registry, slow = modules["metricslib.registry"].Registry(clock=BackwardsClock()), []
    blocks = timed_blocks(registry, slow)
    window = registry.tick(1_700_006_410, 10).cumulative
    durations = [window.timers["x"], window.timers["x;a=1"]]
    assert sum(each.count for each in durations) == blocks
    assert [(each.min, each.max) for each in durations] == [(0, 0), (0, 0)]
    assert [call.seconds for call in slow] == [0]
    assert registry.drops.totals() == {}
    registry.timer("x").observe(-1)
    registry.tick(1_700_006_420, 10)
    assert registry.drops.totals() == {"bad_value": 1}
