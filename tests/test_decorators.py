"""The four decorators: what they measure, under which name, and what they refuse."""

import asyncio
import functools
import threading

import greenlet
import pytest
from freezegun import freeze_time

from metricslib.decorators import SlowCall
from metricslib.errors import InvalidOption, InvalidType
from metricslib.registry import Registry

ALL = ["timed", "counted", "count_exceptions", "in_progress"]
SUFFIXES = {"timed": "", "counted": "", "count_exceptions": ".exceptions", "in_progress": ".in_progress"}


def named():
    """A function with a name that tests know."""
    raise KeyError


HERE = named.__module__


@pytest.fixture
def durations(tick):
    """Call to end the interval and to learn of each timer how often it measured, and how many seconds in all."""
    return lambda: {key: (timer.count, timer.sum / 1000) for key, timer in tick().cumulative.timers.items()}


@pytest.fixture
def keys(tick):
    """Call to end the interval and to learn all keys, of whatever kind."""

    def keys():
        whole = tick().cumulative
        return {*whole.counters, *whole.timers, *whole.gauges}

    return keys


def ignoring(error, function, *args):
    try:
        function(*args)
    except error:
        pass


# -- names and places


@pytest.mark.parametrize("decorator", ALL)
@pytest.mark.parametrize("parentheses", [False, True])
def test_a_function_lends_its_name(registry, keys, decorator, parentheses):
    """Module and qualified name; what would look alike in Graphite gets a suffix."""
    decorate = getattr(registry, decorator)
    ignoring(KeyError, (decorate() if parentheses else decorate)(named))
    tag = ";exception=KeyError" if decorator == "count_exceptions" else ""
    assert keys() == {f"{HERE}.named{SUFFIXES[decorator]}{tag}"}


@pytest.mark.parametrize("decorator", ALL)
@pytest.mark.parametrize("keyword", [False, True])
def test_a_name_and_tags_may_be_given(registry, keys, decorator, keyword):
    """They are then used as they are, in a scope behind its own."""
    tags = {"tier": "gold"}
    for maker in (registry, registry.scope("db", tags={"pool": "main"})):
        decorate = getattr(maker, decorator)
        ignoring(KeyError, (decorate(name="x", tags=tags) if keyword else decorate("x", tags=tags))(named))
    tag = "exception=KeyError;" if decorator == "count_exceptions" else ""
    assert keys() == {f"x;{tag}tier=gold", f"db.x;{tag}pool=main;tier=gold"}


def test_local_functions_and_lambdas_have_readable_names(registry, keys):
    """`<locals>` says nothing, and `<` and `>` are no characters of a name."""

    class Local:
        @registry.timed
        def method(self): ...

    registry.timed(lambda: None)
    test = f"{HERE}.test_local_functions_and_lambdas_have_readable_names"
    assert keys() == {f"{test}.Local.method", f"{test}.lambda"}


def test_one_decorator_may_decorate_several_functions(registry, keys):
    """Each under its own name, with the tags of all."""
    decorate = registry.timed(tags={"a": 1})
    decorate(len)
    decorate(abs)
    assert keys() == {"builtins.len;a=1", "builtins.abs;a=1"}


def test_a_function_is_there_before_it_is_called(registry, tick):
    """Idle, as every instrument is. Only of exceptions it is not known which will come."""
    for decorator in ALL:
        getattr(registry, decorator)("x")(named)
    whole = tick().cumulative
    assert whole.counters == {"x": 0}
    assert whole.timers["x"].count == 0
    assert whole.gauges == {}


@pytest.mark.parametrize("decorator", ALL)
@pytest.mark.parametrize("wrapper", [classmethod, staticmethod])
@pytest.mark.parametrize("above", [False, True])
def test_the_order_with_classmethod_and_staticmethod_is_all_the_same(registry, keys, decorator, wrapper, above):
    """Above or below: it stays what it was, and is measured."""
    decorate = getattr(registry, decorator)("x")

    def method(*args):
        return args

    class Thing:
        make = decorate(wrapper(method)) if above else wrapper(decorate(method))

    assert isinstance(vars(Thing)["make"], wrapper)
    for owner in (Thing, Thing()):
        assert owner.make(1) == ((Thing, 1) if wrapper is classmethod else (1,))
    assert keys() == (set() if decorator == "count_exceptions" else {"x"})


def test_methods_find_their_object(registry, durations):
    """A decorated method is bound like any other, and one timer measures all objects."""

    class Thing:
        @registry.timed("x")
        def me(self):
            return self

    one, other = Thing(), Thing()
    assert one.me() is one
    assert other.me() is other
    assert durations() == {"x": (2, 0)}


def test_decorators_stack(registry, tick):
    """In any order, the name is the function's, and each measures its own."""

    @registry.in_progress
    @registry.timed
    @registry.counted
    @registry.count_exceptions
    async def broken():
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(broken())
    whole = tick().cumulative
    name = f"{HERE}.test_decorators_stack.broken"
    assert whole.counters == {name: 1, f"{name}.exceptions;exception=KeyError": 1}
    assert whole.timers[name].count == 1
    assert whole.gauges == {f"{name}.in_progress": 0}


# -- what is refused


@pytest.mark.parametrize("decorator", ALL)
@pytest.mark.parametrize("wrong", [5, b"name", object, property(repr), functools.cached_property(repr)])
def test_what_is_no_function_is_refused(registry, decorator, wrong):
    """With or without parentheses, when it is decorated, and the error has it."""
    with pytest.raises(InvalidType, match="a function") as caught:
        getattr(registry, decorator)(wrong)
    assert caught.value.argument == "function"
    with pytest.raises(InvalidType, match="a function"):
        getattr(registry, decorator)("x")(wrong)


@pytest.mark.parametrize("decorator", ALL)
def test_what_has_no_name_must_be_given_one(registry, keys, decorator):
    """Not to end up under the name of `functools.partial`, with all others."""
    with pytest.raises(InvalidType, match="partial") as caught:
        getattr(registry, decorator)(functools.partial(named))
    assert caught.value.argument == "name"
    ignoring(KeyError, getattr(registry, decorator)("x")(functools.partial(named)))
    assert len(keys()) == 1


@pytest.mark.parametrize("decorator", ALL)
@pytest.mark.parametrize("wrong", [{"name": ""}, {"tags": 5}, {"tags": [("a", 1)]}])
def test_a_wrong_name_or_wrong_tags_are_refused_at_once(registry, decorator, wrong):
    """When the function is decorated, not when it is called or fails."""
    with pytest.raises(InvalidType):
        getattr(registry, decorator)(**wrong)(named)


# -- timed


def test_each_call_is_one_observation(registry, clock, durations):
    """Of the time from call to return."""
    work = registry.timed("x")(clock.advance)
    work(2)
    work(3)
    assert durations() == {"x": (2, 5)}
    assert durations() == {"x": (0, 0)}


def test_recursion_measures_every_level(registry, clock, durations):
    """The outer calls take as long as all that is inside."""

    @registry.timed("x")
    def descend(levels):
        clock.advance(1)
        if levels:
            descend(levels - 1)

    descend(2)
    assert durations() == {"x": (3, 1 + 2 + 3)}


@pytest.mark.parametrize("options", [{}, {"slow": 100, "on_slow": print}])
def test_calls_in_greenlets_have_their_own_start(registry, clock, durations, options):
    """A greenlet that waits while another begins is timed from its own beginning."""

    @registry.timed("x", **options)
    def wait():
        greenlet.getcurrent().parent.switch()

    first, second = greenlet.greenlet(wait), greenlet.greenlet(wait)
    first.switch()
    clock.advance(1)
    second.switch()
    clock.advance(1)
    first.switch()
    clock.advance(1)
    second.switch()
    assert durations() == {"x": (2, 2 + 2)}


def test_no_call_is_lost_in_threads(registry, tick):
    """Eight threads in one function at once: every call counts, and all have left at the end."""
    together = threading.Barrier(8)

    @registry.timed("x")
    @registry.counted("x")
    @registry.in_progress("x")
    @registry.count_exceptions("e")
    def work():
        raise KeyError

    def thread():
        together.wait()
        for _ in range(1000):
            ignoring(KeyError, work)

    threads = [threading.Thread(target=thread) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    whole = tick().cumulative
    assert whole.counters == {"x": 8000, "e;exception=KeyError": 8000}
    assert whole.timers["x"].count == 8000
    assert whole.gauges == {"x": 0}


def test_a_coroutine_is_timed_while_it_is_awaited(registry, clock, durations):
    """Not from when it was made; and waiting is part of it."""

    @registry.timed("x")
    async def work(gate):
        await gate.wait()

    async def main():
        gate = asyncio.Event()
        made = work(gate)
        clock.advance(100)
        task = asyncio.create_task(made)
        await asyncio.sleep(0)
        clock.advance(2)
        gate.set()
        await task

    asyncio.run(main())
    assert durations() == {"x": (1, 2)}


def test_a_generator_is_timed_from_its_first_next_to_its_end(registry, clock, durations):
    """What its reader does in between is part of it."""

    @registry.timed("x")
    def rows():
        clock.advance(1)
        yield
        clock.advance(1)

    made = rows()
    clock.advance(100)
    for _ in made:
        clock.advance(3)
    assert durations() == {"x": (1, 5)}


def test_an_async_generator_is_timed_from_its_first_next_to_its_end(registry, clock, durations):
    """As a generator is."""

    @registry.timed("x")
    async def rows():
        clock.advance(1)
        yield
        clock.advance(1)

    async def main():
        made = rows()
        clock.advance(100)
        async for _ in made:
            clock.advance(3)

    asyncio.run(main())
    assert durations() == {"x": (1, 5)}


def fail(clock):
    clock.advance(1)
    raise KeyError


async def fail_async(clock):
    fail(clock)


def fail_generating(clock):
    yield from [fail(clock)]


async def fail_generating_async(clock):
    yield fail(clock)


def asked(result):
    """Let a coroutine or generator run to its failure."""
    if hasattr(result, "__anext__"):
        result = anext(result)
    if hasattr(result, "__await__"):

        async def main():
            await result

        asyncio.run(main())
    next(result)


@pytest.mark.parametrize("function", [fail, fail_async, fail_generating, fail_generating_async])
@pytest.mark.parametrize("exceptions", [True, False])
def test_calls_that_raise_may_be_left_out(registry, clock, durations, function, exceptions):
    """By default they are timed like all others."""
    timed = registry.timed("x", exceptions=exceptions)(function)
    ignoring(KeyError, lambda: asked(timed(clock)))
    assert durations() == {"x": (1, 1) if exceptions else (0, 0)}


def test_closing_a_generator_is_no_exception(registry, clock, durations):
    """Who reads ten rows of many has a call that went well."""

    @registry.timed("x", exceptions=False)
    def rows():
        while True:
            yield clock.advance(1)

    reader = rows()
    next(reader)
    reader.close()
    assert durations() == {"x": (1, 1)}


def test_freezegun_freezes_timed_functions_too():
    """The system's clock is looked up at each call, on the hot path as well as with options."""
    registry = Registry()
    plain = registry.timed("plain")(lambda frozen: frozen.tick(2.5))
    options = registry.timed("options", exceptions=False)(lambda frozen: frozen.tick(2.5))
    with freeze_time("2026-01-01") as frozen:
        plain(frozen)
        options(frozen)
        timers = registry.tick(10, 10).cumulative.timers
    assert timers["plain"].sum == timers["options"].sum == 2500


# -- timed, slow calls


def test_the_hook_is_told_of_slow_calls(registry, clock, durations):
    """Of those that take `slow` seconds or more: the series, how long, and which call it was."""
    told = []

    @registry.timed("x", tags={"a": 1}, slow=2, on_slow=told.append)
    def work(seconds, *, fails=None):
        clock.advance(seconds)
        if fails:
            raise fails

    error = KeyError()
    work(1)
    work(2)
    ignoring(KeyError, functools.partial(work, 3, fails=error))
    assert told == [SlowCall("x;a=1", 2.0, (2,), {}, None), SlowCall("x;a=1", 3.0, (3,), {"fails": error}, error)]
    assert durations() == {"x;a=1": (3, 6)}


def test_the_hook_is_told_of_a_slow_call_that_is_left_out_for_raising(registry, clock, durations):
    """A time-out is what one wants to be told of, also where the timer shows successes alone."""
    told = []
    ignoring(KeyError, registry.timed("x", exceptions=False, slow=1, on_slow=told.append)(fail), clock)
    assert [type(call.error) for call in told] == [KeyError]
    assert durations() == {"x": (0, 0)}


@pytest.mark.parametrize("fails", [False, True])
def test_a_hook_that_fails_breaks_nothing(registry, clock, durations, fails):
    """The call returns or raises as ever, the hook's exception is counted."""

    @registry.timed("x", slow=0, on_slow=lambda call: 1 / 0)
    def work():
        if fails:
            raise KeyError
        return 5

    if fails:
        with pytest.raises(KeyError) as caught:
            work()
        assert caught.value.__context__ is None
    else:
        assert work() == 5
    assert registry.drops.totals() == {"bad_hook": 1}
    assert durations() == {"x": (1, 0)}


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"slow": 1}, "on_slow"),
        ({"on_slow": print}, "slow"),
        ({"slow": "1", "on_slow": print}, "slow"),
        ({"slow": 1, "on_slow": "print"}, "on_slow"),
        ({"slow": 1, "on_slow": fail_async}, "on_slow"),
        ({"slow": 1, "on_slow": lambda call: (yield call)}, "on_slow"),
    ],
)
def test_a_hook_that_could_never_be_called_is_refused(registry, options, argument):
    """One of the two without the other, or a coroutine function or generator that nobody would run."""
    with pytest.raises(InvalidType) as caught:
        registry.timed("x", **options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("slow", [-1, float("nan")])
def test_a_limit_that_means_nothing_is_refused(registry, slow):
    """No call takes less than no time."""
    with pytest.raises(InvalidOption):
        registry.timed("x", slow=slow, on_slow=print)


# -- counted, in_progress


def test_counted_counts_calls_that_begin(registry, tick):
    """Those that raise too; a coroutine or a generator when its body begins."""
    numbers = registry.counted("generator")(lambda: (yield 1))
    numbers()
    next(numbers())
    ignoring(KeyError, registry.counted("plain")(named))
    assert tick().cumulative.counters == {"generator": 1, "plain": 1}


def test_in_progress_shows_who_is_inside(registry, tick):
    """Up when a call begins, down when it ends, however it ends."""

    @registry.in_progress("x")
    def rows(how_many):
        yield from range(how_many)
        raise KeyError

    one, other, third = rows(1), rows(1), rows(1)
    assert tick().cumulative.gauges == {}
    next(one), next(other), next(third)
    assert tick().cumulative.gauges == {"x": 3}
    ignoring(KeyError, next, one)
    assert tick().cumulative.gauges == {"x": 2}
    other.close()
    assert tick().cumulative.gauges == {"x": 1}
    del third
    assert tick().cumulative.gauges == {"x": 0}


def test_in_progress_sees_the_inside_of_a_plain_function(registry, tick):
    """Recursion counts each level."""

    @registry.in_progress("x")
    def descend(levels):
        return descend(levels - 1) if levels else tick().cumulative.gauges

    assert descend(2) == {"x": 3}
    assert tick().cumulative.gauges == {"x": 0}


# -- count_exceptions


def test_exceptions_are_counted_by_their_class(registry, tick):
    """Its own name, not that of the class that was asked for; a call that returns counts nothing."""

    @registry.count_exceptions("x", tags={"a": 1}, types=LookupError)
    def work(error=None):
        if error:
            raise error

    work()
    for error in (KeyError, KeyError, IndexError, TypeError):
        ignoring(error, work, error)
    assert tick().cumulative.counters == {"x;a=1;exception=IndexError": 1, "x;a=1;exception=KeyError": 2}


def test_what_is_no_error_is_not_counted_by_default(registry, tick):
    """To be cancelled, interrupted or told to exit is no fault of the function. Who wants to can count it."""

    @registry.count_exceptions("default")
    @registry.count_exceptions("asked", types=(asyncio.CancelledError, SystemExit))
    def work(error):
        raise error

    for error in (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
        ignoring(error, work, error)
    assert tick().cumulative.counters == {"asked;exception=CancelledError": 1, "asked;exception=SystemExit": 1}


def test_closing_a_generator_is_never_counted(registry, tick):
    """Even where every exception is asked for."""
    rows = registry.count_exceptions("x", types=BaseException)(lambda: (yield 1))()
    next(rows)
    rows.close()
    assert tick().cumulative.counters == {}


def test_a_cancelled_task_counts_where_it_was_asked_for(registry, tick):
    """`asyncio.CancelledError` passes through the coroutine as any other."""

    @registry.count_exceptions("x", types=asyncio.CancelledError)
    async def forever():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert tick().cumulative.counters == {"x;exception=CancelledError": 1}


@pytest.mark.parametrize("wrong", [5, "KeyError", KeyError(), int, (KeyError, "IndexError")])
def test_types_that_are_no_exceptions_are_refused(registry, wrong):
    """When the function is decorated, not when it fails."""
    with pytest.raises(InvalidType, match="types"):
        registry.count_exceptions(types=wrong)
