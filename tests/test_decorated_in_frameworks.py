"""A decorated function is taken by whatever takes functions: the standard library, and frameworks as they are.

Each test hands a decorated function to one of them, lets it be called, and looks at what was measured.
"""

import abc
import asyncio
import contextlib
import copy
import doctest
import functools
import importlib.util
import inspect
import json
import os
import pickle
import subprocess
import sys
import threading
import types
import typing
import weakref
from pathlib import Path
from unittest import mock

import pytest

from metricslib.registry import Registry
from metricslib.testing import ManualClock

ROOT = Path(__file__).parent.parent
DECORATORS = ["timed", "counted", "count_exceptions", "in_progress"]

shared = Registry(clock=ManualClock())
"""For functions that must be found in this module by their names."""


@pytest.fixture
def count(tick):
    """Call to end the interval, and learn how often the timer `x` measured."""
    return lambda: tick().cumulative.timers["x"].count


def function(a: int, b: str = "b", *c: float, d: bool = True, **e: bytes) -> list[int]:
    """Take a bit of everything.

    >>> function(1)
    [1]
    """
    return [a]


@shared.timed("importable")
def importable(a: int = 1) -> int:
    return a


# -- the language and the standard library


@pytest.fixture(params=DECORATORS)
def decorated(request, registry):
    return getattr(registry, request.param)("x")(function)


def test_it_is_a_function_to_inspect(decorated):
    """With the signature, the annotations, the source and the text of the original, as `functools.wraps` gives them."""

    @functools.wraps(function)
    def wrapper(*args: typing.Any, **kwargs: typing.Any) -> typing.Any: ...

    assert type(decorated) is types.FunctionType
    assert inspect.isfunction(decorated)
    assert inspect.signature(decorated) == inspect.signature(function)
    assert inspect.getfullargspec(decorated) == inspect.getfullargspec(wrapper)
    assert typing.get_type_hints(decorated) == typing.get_type_hints(function)
    assert inspect.getsource(decorated) == inspect.getsource(function)
    assert inspect.unwrap(decorated) is function
    assert repr(decorated).startswith("<function function at ")


def test_it_is_copied_and_referred_to_as_a_function(decorated):
    """A copy is the function itself; one made of its parts is another that does the same."""
    assert copy.copy(decorated) is copy.deepcopy(decorated) is decorated
    assert weakref.ref(decorated)() is decorated
    parts = decorated.__code__, decorated.__globals__, "twin", decorated.__defaults__, decorated.__closure__
    assert types.FunctionType(*parts)(1) == decorated(1) == [1]


def test_it_has_attributes_as_a_function(registry):
    """Those of the original, and what is put on it later."""

    def original(): ...

    original.before = 1
    decorated = registry.timed("x")(original)
    decorated.after = 2
    assert (decorated.before, decorated.after) == (1, 2)
    assert not hasattr(original, "after")


def test_a_copy_made_of_its_parts_measures_too(registry, count):
    """Its body does all of it, whatever else makes a call fast."""
    timed = registry.timed("x")(function)
    again = types.FunctionType(timed.__code__, timed.__globals__, "again", None, timed.__closure__)
    assert [again(1), again(1, "c", d=False), timed(1)] == [[1], [1], [1]]
    assert count() == 3


def test_it_is_pickled_by_its_name():
    """As any function that can be imported."""
    assert pickle.loads(pickle.dumps(importable)) is importable


@pytest.mark.parametrize("decorator", DECORATORS)
def test_methods_that_the_language_knows_by_name(registry, decorator):
    """`__init_subclass__`, `__class_getitem__` and `__new__` are bound as Python binds functions of these names."""
    decorate = getattr(registry, decorator)("x")

    class Base:
        @decorate
        def __new__(cls, value):
            made = super().__new__(cls)
            made.value = value
            return made

        @decorate
        def __init_subclass__(cls, /, mark=None):
            cls.mark = mark

        @decorate
        def __class_getitem__(cls, item):
            return cls, item

        @decorate
        def __call__(self, more):
            return self.value + more

        @property
        @decorate
        def double(self):
            return 2 * self.value

        @decorate
        def __getitem__(self, index):
            return index, self.value

        @decorate
        def __eq__(self, other):
            return self.value == other.value

        __hash__ = None

    class Sub(Base, mark="m"): ...

    assert (Sub.mark, Base[5], Sub(3)(4), Sub(3).double, Sub(3)[1]) == ("m", (Base, 5), 7, 6, (1, 3))
    assert Sub(3) == Base(3)


def test_calls_that_the_interpreter_specialises(registry, count):
    """The same call, property or item again and again takes shortcuts, which must not lead around the measuring."""

    class Thing:
        @registry.timed("x")
        def __getitem__(self, index):
            return index

        @property
        @registry.timed("x")
        def value(self):
            return 1

        @registry.timed("x")
        def method(self, a, b=2):
            return a + b

        @registry.timed("x")
        def rows(self):
            return iter((1, 2))

        @registry.timed("x")
        def __getattribute__(self, name):
            return object.__getattribute__(self, name)

    thing, plain = Thing(), registry.timed("x")(lambda a=1: a)
    total = 0
    for _ in range(1000):
        total += (
            thing[1] + thing.value + thing.method(1) + thing.method(1, b=1) + sum(thing.rows()) + plain() + plain(2)
        )
    assert total == 1000 * (1 + 1 + 3 + 2 + 3 + 1 + 2)
    assert count() == 1000 * (7 + 4)  # and each attribute of the thing, but not __getitem__, which is the type's


def test_a_function_whose_code_is_replaced_does_what_the_new_code_says(registry, count):
    """Debuggers and coverage tools do so."""
    timed = registry.timed("x")(function)
    timed(1)

    def other(call, function):
        def wrapper(*args, **kwargs):
            return "other", function is not None, call is not None

        return wrapper

    free = dict.fromkeys(timed.__code__.co_freevars)
    if set(free) == {"call", "function"}:
        timed.__code__ = other(1, 1).__code__
        assert timed(1) == ("other", True, True)
    assert count() == 1


def test_abstract_methods_stay_abstract(registry):
    """Above and below."""

    class Shape(abc.ABC):
        @registry.timed("x")
        @abc.abstractmethod
        def area(self): ...

        @abc.abstractmethod
        @registry.timed("x")
        def edge(self): ...

    assert Shape.__abstractmethods__ == {"area", "edge"}


def test_wrappers_of_functools(registry, count):
    """Caches, partial functions, dispatch by type, cached properties; and orders."""
    cached = functools.lru_cache(registry.timed("x")(lambda a: a))
    assert [cached(1), cached(1), cached(2)] == [1, 1, 2]
    assert functools.partial(registry.timed("x")(function), 7)() == [7]

    @functools.singledispatch
    @registry.timed("x")
    def described(value):
        return "object"

    @described.register
    @registry.timed("x")
    def _(value: int):
        return "int"

    assert [described("a"), described(1)] == ["object", "int"]

    @functools.total_ordering
    class Thing:
        @functools.cached_property
        @registry.timed("x")
        def value(self):
            return 5

        @registry.timed("x")
        def __lt__(self, other):
            return self.value < other.value

        half = functools.partialmethod(registry.timed("x")(lambda self, by: self.value / by), 2)

        @functools.singledispatchmethod
        @registry.timed("x")
        def kind(self, value):
            return "object"

    thing = Thing()
    assert [thing.value, thing.value, thing >= Thing(), thing.half(), thing.kind(1)] == [5, 5, True, 2.5, "object"]
    assert count() == 2 + 1 + 2 + 2 + 1 + 1 + 1


def test_a_timed_generator_makes_a_context_manager(registry, clock, tick):
    """Timed over the block."""

    @contextlib.contextmanager
    @registry.timed("x")
    def block():
        yield 5

    @contextlib.asynccontextmanager
    @registry.timed("x")
    async def async_block():
        yield 6

    async def main():
        async with async_block() as value:
            clock.advance(2)
            return value

    with block() as value:
        clock.advance(1)
    assert (value, asyncio.run(main())) == (5, 6)
    assert tick().cumulative.timers["x"].sum == 3000


def test_mocks_know_its_signature(registry):
    """An autospec refuses what the function would refuse."""
    timed = registry.timed("x")(function)
    spec = mock.create_autospec(timed, return_value=[9])
    assert spec(1, "c", d=False) == [9]
    with pytest.raises(TypeError):
        spec()
    with mock.patch(f"{__name__}.importable", autospec=True) as patched:
        patched(a=3)
        patched.assert_called_once_with(a=3)
        with pytest.raises(TypeError):
            patched(b=3)


def test_doctest_finds_it(registry):
    """And runs its examples."""
    timed = registry.timed("x")(function)
    finder = doctest.DocTestFinder()
    (found,) = finder.find(timed, "function", module=sys.modules[__name__], globs={"function": timed})
    assert doctest.DocTestRunner().run(found) == (0, 1)


def test_threads_and_executors_call_it(registry, count):
    """As a target and as work."""
    timed = registry.timed("x")(function)
    thread = threading.Thread(target=timed, args=(1,))
    thread.start()
    thread.join()

    async def main():
        return await asyncio.to_thread(timed, 2)

    assert asyncio.run(main()) == [2]
    assert count() == 2


# -- frameworks


def test_celery(registry, count):
    """As a task, run where it is sent, and bound to itself."""
    from celery import Celery

    app = Celery("tests", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True

    @app.task
    @registry.timed("x")
    def add(a, b=2):
        return a + b

    @app.task(bind=True, name="bound")
    @registry.timed("x")
    def bound(self, a):
        return self.name, a

    assert add.delay(1).get() == 3
    assert add.apply_async((1,), {"b": 5}).get() == 6
    assert add.s(1)() == add(1) == 3
    assert bound.delay(7).get() == ("bound", 7)
    assert isinstance(add.delay().result, TypeError)  # its argument is missing
    assert count() == 6


def test_pydantic(registry, count):
    """As validators, serialisers and computed fields, and as a function whose arguments are checked."""
    from pydantic import BaseModel, ValidationError, computed_field, field_validator, model_validator, validate_call

    class Order(BaseModel):
        items: int

        @field_validator("items")
        @classmethod
        @registry.timed("x")
        def some(cls, value: int) -> int:
            if value < 1:
                raise ValueError("none")
            return value

        @model_validator(mode="after")
        @registry.timed("x")
        def checked(self) -> typing.Self:
            return self

        @computed_field
        @property
        @registry.timed("x")
        def double(self) -> int:
            return 2 * self.items

        @registry.timed("x")
        def price(self, each: int) -> int:
            return self.items * each

    assert Order(items="3").model_dump() == {"items": 3, "double": 6}
    assert Order(items=3).price(2) == 6
    with pytest.raises(ValidationError):
        Order(items=0)
    assert validate_call(registry.timed("x")(function))("5") == [5]
    with pytest.raises(ValidationError):
        validate_call(registry.timed("x")(function))("five")
    assert count() == 3 + 3 + 1 + 1


def get(app, path, query=""):
    """Ask an ASGI application, and return the status and the JSON of its answer."""
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


def test_fastapi(registry, clock, tick):
    """As endpoints and dependencies, `def` and `async def`, with their parameters, which come from the signature."""
    from fastapi import Depends, FastAPI

    app = FastAPI()

    @registry.timed("x")
    def user(name: str = "ada") -> str:
        return name

    @app.get("/items/{number}")
    @registry.timed("x")
    async def item(number: int, size: int = 1, who: str = Depends(user)) -> dict[str, object]:
        clock.advance(1)
        return {"number": number, "size": size, "who": who}

    @app.get("/plain/{number}")
    @registry.timed("x")
    def plain(number: int) -> int:
        clock.advance(2)
        return number

    assert get(app, "/items/5", "size=2&name=bob") == (200, {"number": 5, "size": 2, "who": "bob"})
    assert get(app, "/items/five")[0] == 422
    assert get(app, "/plain/5") == (200, 5)
    timer = tick().cumulative.timers["x"]
    assert (timer.count, timer.sum) == (4, 3000)  # the dependency of the refused request was called too


def test_django(registry, count):
    """As a view, also an asynchronous one, and as the default of a field, which a migration refers to by name."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(DEFAULT_CHARSET="utf-8", ALLOWED_HOSTS=["testserver"])
    from django.db.migrations.writer import MigrationWriter
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.utils.decorators import method_decorator
    from django.views import View

    @registry.timed("x")
    def view(request, number):
        return HttpResponse(f"{number}")

    @registry.timed("x")
    async def async_view(request):
        return HttpResponse("async")

    class ClassView(View):
        @method_decorator(registry.timed("x"))
        def get(self, request):
            return HttpResponse("class")

    request = RequestFactory().get("/")
    assert view(request, number=5).content == b"5"
    assert asyncio.run(async_view(request)).content == b"async"
    assert ClassView.as_view()(request).content == b"class"
    assert MigrationWriter.serialize(importable) == (f"{__name__}.importable", {f"import {__name__}"})
    assert count() == 3


def test_click(registry, count):
    """As a command, whose options become its arguments."""
    import click
    from click.testing import CliRunner

    @click.command()
    @click.option("--number", type=int)
    @registry.timed("x")
    def command(number):
        """Say a number."""
        click.echo(number + 1)

    result = CliRunner().invoke(command, ["--number", "4"])
    assert (result.output, result.exit_code, command.help) == ("5\n", 0, "Say a number.")
    assert count() == 1


def test_invoke(registry, count):
    """As a task, whose arguments come from the signature."""
    import invoke

    @invoke.task
    @registry.timed("x")
    def build(context, target, times=1):
        """Build it."""
        return target, times

    assert [argument.name for argument in build.get_arguments()] == ["target", "times"]
    assert build(invoke.Context(), "docs", times=2) == ("docs", 2)
    assert count() == 1


def test_flask(registry, clock, tick):
    """As views of every kind of method."""
    from flask import Flask

    app = Flask(__name__)

    @app.route("/<int:number>", methods=["GET", "POST"])
    @registry.timed("x")
    def view(number):
        clock.advance(1)
        return {"number": number}

    client = app.test_client()
    assert client.get("/5").json == client.post("/5").json == {"number": 5}
    assert tick().cumulative.timers["x"].sum == 2000


SENDER = """
import cloudpickle, sys
import metricslib as metrics

@metrics.timed("timed")
@metrics.counted("counted")
@metrics.in_progress("in_progress")
@metrics.count_exceptions("exceptions")
def work(a, b=2):
    if a < 0:
        raise ValueError
    return a + b

@metrics.timed("rows", exceptions=False)
def rows(n):
    yield from range(n)

@metrics.timed("async")
async def wait():
    return 3

plain = metrics.timed("plain")(lambda a: a)
scoped = metrics.scope("s", {"k": "v"}).count_exceptions("e")(lambda a: 1 // a)
sys.stdout.buffer.write(cloudpickle.dumps([work, rows, wait, plain, scoped]))
"""
RECEIVER = """
import asyncio, cloudpickle, sys
from metricslib import default_registry

work, rows, wait, plain, scoped = cloudpickle.loads(sys.stdin.buffer.read())
assert [work(1), work(1, b=5), list(rows(3)), asyncio.run(wait()), plain(4)] == [3, 6, [0, 1, 2], 3, 4]
for call, argument, error in (work, -1, ValueError), (scoped, 0, ZeroDivisionError):
    try:
        call(argument)
    except error:
        pass
window = default_registry.tick(10, 10).cumulative
print({key: timer.count for key, timer in window.timers.items()}, window.counters, window.gauges)
"""


@pytest.mark.parametrize("to_pure", ["0", "1"])
@pytest.mark.parametrize("from_pure", ["0", "1"])
def test_cloudpickle(from_pure, to_pure):
    """Sent to another process, it measures there, in the default registry; either end may be in C or in Python."""
    if importlib.util.find_spec("metricslib._speedups") is None and "0" in (from_pure, to_pure):
        pytest.skip("the C implementation was not built")

    def run(code, pure, given=b""):
        environment = {**os.environ, "METRICSLIB_PURE": pure}
        run = subprocess.run([sys.executable, "-c", code], input=given, cwd=ROOT, env=environment, capture_output=True)
        assert run.returncode == 0, run.stderr.decode()
        return run.stdout

    assert run(RECEIVER, to_pure, run(SENDER, from_pure)).decode() == (
        "{'timed': 3, 'rows': 1, 'async': 1, 'plain': 1} "
        "{'counted': 3, 'exceptions;exception=ValueError': 1, 's.e;exception=ZeroDivisionError;k=v': 1} "
        "{'in_progress': 0}\n"
    )


def test_instruments_of_the_default_registry_are_pickled_as_references():
    """Where they are unpickled, they are the instruments of that series there. No other registry is anywhere else."""
    from metricslib import default_registry as registry

    for made in (
        registry.timer("pickled.timer", tags={"a": 1}),
        registry.counter("pickled").tagged(b=2),
        registry.gauge("pickled"),
        registry.histogram("pickled"),
        registry.unique("pickled"),
        registry,
        registry.counter("pickled").inc,
    ):
        assert pickle.loads(pickle.dumps(made)) == made
    own = Registry()
    with pytest.raises(TypeError, match="only the default registry"):
        pickle.dumps(own.timer("x"))
    assert copy.copy(own.timer("x")) is copy.deepcopy(own.timer("x")) is own.timer("x")
