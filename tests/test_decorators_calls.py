"""What is put around the calls of a function: its callers and `inspect` see none of it, whatever kind it is."""

import asyncio
import functools
import gc
import inspect
import pickle
import threading
import traceback
import types
import weakref

import greenlet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.decorators import around, is_plain


class Log(list):
    """What happened, in order; each call has a number, which its end must have got back."""

    def around(self, function):
        numbers = iter(range(1, 1000))

        def begin() -> int:
            number = next(numbers)
            self.append(("begin", number))
            return number

        def end(number: int, error: BaseException | None, args: tuple, kwargs: dict) -> None:
            self.append(("end", number, type(error).__name__ if error else None))
            self.arguments = args, kwargs

        return around(function, begin, end)


@pytest.fixture
def log() -> Log:
    return Log()


# -- functions of every kind, to be wrapped


def plain(x, *, y=2):
    """Add."""
    return x + y


async def coroutine(x, *, y=2):
    """Add."""
    await asyncio.sleep(0)
    return x + y


def generator(x, *, y=2):
    """Add."""
    yield x
    return x + y


async def async_generator(x, *, y=2):
    """Add."""
    yield x
    await asyncio.sleep(0)
    yield x + y


KINDS = [plain, coroutine, generator, async_generator]


def run(function, *args, **kwargs):
    """Call it, and go on to the end of whatever it returned."""

    async def last(items):
        return [item async for item in items][-1]

    def returned(items):
        while True:
            try:
                next(items)
            except StopIteration as stop:
                return stop.value

    result = function(*args, **kwargs)
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isasyncgen(result):
        return asyncio.run(last(result))
    return returned(result) if inspect.isgenerator(result) else result


pickled = around(plain, lambda: None, lambda *_: None)
pickled.__qualname__ = pickled.__name__ = "pickled"


# -- what is the same for all


@pytest.mark.parametrize("function", KINDS)
def test_a_call_is_measured_once_and_its_result_and_arguments_are_its_own(log, function):
    """Begin, end, no error; the end knows the arguments as they were given."""
    assert run(log.around(function), 1, y=3) == 4
    assert log == [("begin", 1), ("end", 1, None)]
    assert log.arguments == ((1,), {"y": 3})


@pytest.mark.parametrize("function", KINDS)
def test_an_exception_passes_unchanged(log, function):
    """The same object with the same context; of ours there is one line in its traceback, and the end was told."""
    with pytest.raises(TypeError) as caught:
        run(log.around(function), "a", y=3)
    assert log == [("begin", 1), ("end", 1, "TypeError")]
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[names.index("wrapper") :] == ["wrapper", function.__name__]


@pytest.mark.parametrize("function", KINDS)
def test_inspect_sees_the_function_that_was_wrapped(log, function):
    """Kind, name, documentation, signature and the way back to the original."""
    wrapped = log.around(function)
    for question in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert question(wrapped) == question(function)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(wrapped, attribute) == getattr(function, attribute)
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert wrapped.__wrapped__ is function
    assert is_plain(function) == (function is plain)


def test_a_wrapped_function_is_pickled_by_its_name():
    """As every function is, so that it may go to a process pool."""
    assert pickle.loads(pickle.dumps(pickled)) is pickled


class Callable:
    """An object that is called as a coroutine function is, though `inspect` does not say so."""

    async def __call__(self, x, *, y=2):
        return x + y


@pytest.mark.parametrize("function", [*map(functools.partial, KINDS), Callable()])
def test_partial_functions_and_callable_objects_are_of_the_kind_that_they_call(log, function):
    """Not to see that a coroutine or a generator comes back would mean to measure nothing."""
    assert is_plain(function) == (getattr(function, "func", None) is plain)
    assert run(log.around(function), 1, y=3) == 4
    assert log == [("begin", 1), ("end", 1, None)]


@pytest.mark.parametrize("function", [coroutine, generator, async_generator])
def test_nothing_begins_before_the_body_does(log, function):
    """A coroutine that nobody awaits and a generator that nobody asks are no calls under way."""
    result = log.around(function)(1)
    if function is coroutine:
        result.close()
    del result
    assert log == []


def test_each_call_has_its_own_beginning_in_recursion(log):
    """Nested calls end in reverse order, each with what its own beginning returned."""

    def factorial(n):
        return n * wrapped(n - 1) if n else 1

    wrapped = log.around(factorial)
    assert wrapped(2) == 2
    assert log == [("begin", n) for n in (1, 2, 3)] + [("end", n, None) for n in (3, 2, 1)]


def test_each_call_has_its_own_beginning_in_threads(log):
    """Two threads inside the same function at once: whoever came first may leave first."""
    inside, first_left = threading.Barrier(2), threading.Event()

    def work(first):
        inside.wait()
        if not first:
            first_left.wait()

    wrapped = log.around(work)

    def run_first():
        wrapped(True)
        first_left.set()

    threads = [threading.Thread(target=run_first), threading.Thread(target=wrapped, args=(False,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log) == [("begin", 1), ("begin", 2), ("end", 1, None), ("end", 2, None)]
    assert {event[0] for event in log[:2]} == {"begin"}


def test_each_call_has_its_own_beginning_in_greenlets(log):
    """A greenlet that leaves while another is inside ends its own call."""
    wrapped = log.around(lambda: greenlet.getcurrent().parent.switch())
    first, second = greenlet.greenlet(wrapped), greenlet.greenlet(wrapped)
    first.switch()
    second.switch()
    first.switch()
    second.switch()
    assert log == [("begin", 1), ("begin", 2), ("end", 1, None), ("end", 2, None)]


def test_each_call_has_its_own_beginning_in_tasks(log):
    """A task that leaves while another is inside ends its own call."""

    async def two_tasks():
        wrapped = log.around(asyncio.Event.wait)
        gates = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(wrapped(gate)) for gate in gates]
        await asyncio.sleep(0)
        for gate, task in zip(gates, tasks, strict=True):
            gate.set()
            await task

    asyncio.run(two_tasks())
    assert log == [("begin", 1), ("begin", 2), ("end", 1, None), ("end", 2, None)]


# -- coroutines


def test_cancelling_is_an_exception_that_passes_through(log):
    """The function may clean up, the canceller sees it cancelled, and the end is told."""

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cleaned up")

    async def cancel():
        task = asyncio.create_task(log.around(forever)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert log == [("begin", 1), "cleaned up", ("end", 1, "CancelledError")]


def test_a_coroutine_closed_half_way_raised_nothing(log):
    """As with a generator: nobody wanted the rest of it."""
    begun = log.around(coroutine)(1)
    begun.send(None)
    begun.close()
    assert log == [("begin", 1), ("end", 1, None)]


def test_a_generator_that_may_be_awaited_still_may(log):
    """`types.coroutine` is how low-level libraries make awaitables; it is a flag that a wrapper must not lose."""

    @types.coroutine
    def switch(x):
        yield
        return x

    wrapped = log.around(switch)

    async def use():
        return await wrapped(5)

    assert run(use) == 5
    assert log == [("begin", 1), ("end", 1, None)]


# -- generators


def talkative():
    """Say what was sent and thrown in, until told to stop; swallow a KeyError, turn a ValueError into another."""
    heard = "begun"
    while heard != "stop":
        try:
            heard = yield heard
        except KeyError:
            heard = "a key error"
        except ValueError as error:
            raise LookupError("turned") from error
    return "stopped"


async def talkative_async():
    """The same, asynchronously."""
    heard = "begun"
    while heard != "stop":
        try:
            heard = yield heard
            await asyncio.sleep(0)
        except KeyError:
            heard = "a key error"
        except ValueError as error:
            raise LookupError("turned") from error


def stubborn():
    """Go on when closed."""
    try:
        yield "here"
    except GeneratorExit:
        yield "still here"


async def stubborn_async():
    """The same, asynchronously."""
    try:
        yield "here"
    except GeneratorExit:
        yield "still here"


ERRORS = [KeyError("k"), ValueError("v"), TypeError("t"), GeneratorExit(), StopIteration(1), StopAsyncIteration()]
STEPS = st.lists(
    st.sampled_from([("send", None), ("send", "word"), ("send", "stop"), ("close",)])
    | st.sampled_from([("throw", error) for error in ERRORS]),
    max_size=8,
)


def fresh(steps):
    """The steps with exceptions of their own, for an exception remembers where it has been."""
    return [(step[0], type(step[1])(*step[1].args)) if isinstance(step[-1], BaseException) else step for step in steps]


def reasons(error):
    """The exception and all that led to it."""
    return error and (type(error), str(error), reasons(error.__cause__), reasons(error.__context__))


def converse(generator, steps):
    """What comes of each step: a value, or an exception."""
    outcomes = []
    for name, *argument in fresh(steps):
        try:
            outcomes.append(getattr(generator, name)(*argument))
        except BaseException as error:
            outcomes.append(reasons(error))
    return outcomes


def converse_async(generator, steps):
    """The same, asynchronously, and without a loop that would close the generator at its end."""

    async def outcome(name, *argument):
        return await getattr(generator, "a" + name)(*argument)

    def driven(coroutine):
        while True:
            try:
                coroutine.send(None)
            except StopIteration as stop:
                return stop.value

    outcomes = []
    for step in fresh(steps):
        try:
            outcomes.append(driven(outcome(*step)))
        except BaseException as error:
            outcomes.append(reasons(error))
    return outcomes


@given(STEPS)
def test_a_wrapped_generator_cannot_be_told_from_the_bare_one(steps):
    """Whatever is sent, thrown or closed: the same values, and the same exceptions for the same reasons."""
    assert converse(Log().around(talkative)(), steps) == converse(talkative(), steps)


@given(STEPS)
def test_a_wrapped_async_generator_cannot_be_told_from_the_bare_one(steps):
    """The same for `asend`, `athrow` and `aclose`."""
    assert converse_async(Log().around(talkative_async)(), steps) == converse_async(talkative_async(), steps)


def test_a_generator_that_will_not_close_is_refused_as_ever(log):
    """Python's own RuntimeError reaches whoever closes it."""
    steps = [("send", None), ("close",)]
    assert converse(log.around(stubborn)(), steps) == converse(stubborn(), steps)
    assert converse_async(log.around(stubborn_async)(), steps) == converse_async(stubborn_async(), steps)


@pytest.mark.parametrize("body", [talkative, talkative_async])
@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([("send", None), ("send", "stop")], None),
        ([("send", None), ("throw", KeyError()), ("send", "stop")], None),
        ([("send", None), ("close",)], None),
        ([("send", None), ("throw", GeneratorExit())], None),
        ([("send", None), ("throw", TypeError())], "TypeError"),
        ([("send", None), ("throw", ValueError())], "LookupError"),
    ],
)
def test_a_generator_ends_once_however_it_ends(log, body, steps, error):
    """It is under way from the first step to the last. To be closed is no exception, nor is one that it handles."""
    generator = log.around(body)()
    talk = converse if body is talkative else converse_async
    talk(generator, steps[:-1])
    assert log == [("begin", 1)]
    talk(generator, [steps[-1], ("send", None), ("close",)])
    assert log == [("begin", 1), ("end", 1, error)]


def test_an_abandoned_generator_ends_when_it_is_collected(log):
    """Nobody will ever ask it again, and what it holds is let go of."""
    generator = log.around(talkative)()
    next(generator)
    del generator
    assert log == [("begin", 1), ("end", 1, None)]


def test_an_abandoned_async_generator_is_closed_by_its_loop(log):
    """It cleans up asynchronously, as the bare one would."""

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def leave_early():
        async for _ in log.around(numbers)():
            break
        while len(log) < 3:
            await asyncio.sleep(0)

    asyncio.run(leave_early())
    assert log == [("begin", 1), "cleaned up", ("end", 1, None)]


def test_a_loop_that_ends_closes_a_wrapped_async_generator_without_complaint(log):
    """It closes all generators that it knows at once, so it must not know of the one inside, which the outer closes."""
    complaints, kept = [], []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def leave_open():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        for _ in range(10):
            kept.append(around(log.around(numbers), lambda: None, lambda *_: None)())
            await anext(kept[-1])

    asyncio.run(leave_open())
    assert complaints == []
    assert log.count("cleaned up") == 10
    assert [event[0] for event in log if event != "cleaned up"] == ["begin"] * 10 + ["end"] * 10


@pytest.mark.parametrize("step", [("throw", TypeError()), ("throw", KeyError()), ("throw", ValueError())])
@pytest.mark.parametrize("body", [talkative, talkative_async])
def test_a_thrown_error_is_not_held_on_to(log, body, step):
    """No circle of error, traceback and frame is left for the garbage collector, so arguments go when the call does."""

    class Thrown(type(step[1])):
        pass

    async def throw():
        generator = log.around(body)()
        if body is talkative:
            next(generator)
        else:
            await anext(generator)
        error = Thrown()
        seen = weakref.ref(error)
        try:
            answer = generator.throw(error) if body is talkative else await generator.athrow(error)
            assert answer == "a key error"
        except (TypeError, LookupError):
            pass
        del error
        return seen() is None

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(throw())
    finally:
        gc.enable()
