"""Something done around every call of a function, whatever kind of function it is.

In: a function, and a pair. ``begin`` runs when the function's body would; ``end`` when that is over, with what
``begin`` returned, what came out if that was an exception, and the call's arguments. Neither may raise. Out: a function
that behaves as the one given, to its callers and to :mod:`inspect`: results, exceptions, and what is sent or thrown
into a generator pass unchanged. Only wrong arguments for a coroutine or a generator are refused later: when its body
would begin.

A plain function is under way from call to return, an ``async def`` while it is awaited, a generator from its first
``next`` to its end; closing it early is no exception. Nothing of one call is kept where another could find it, so calls
may recurse, and run at the same time in threads, tasks and greenlets.
"""

import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from functools import wraps
from types import TracebackType, coroutine
from typing import Any

__all__ = ["Begin", "End", "Function", "around", "is_plain"]

Function = Callable[..., Any]
Begin = Callable[[], Any]
End = Callable[[Any, BaseException | None, tuple[Any, ...], dict[str, Any]], object]


def around(function: Function, begin: Begin, end: End) -> Function:
    """Return ``function`` with ``begin`` and ``end`` around each call."""
    return _adapter(function)(function, begin, end)


def is_plain(function: Function) -> bool:
    """Whether a call of ``function`` is over when it returns, as far as can be seen before."""
    return _adapter(function) is _plain


class _Call:
    """A call under way, as a context manager."""

    __slots__ = ("_args", "_begin", "_begun", "_end", "_kwargs")

    def __init__(self, begin: Begin, end: End, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._begin = begin
        self._end = end
        self._args = args
        self._kwargs = kwargs

    def __enter__(self) -> None:
        self._begun = self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(self._begun, None if isinstance(error, GeneratorExit) else error, self._args, self._kwargs)


def _plain(function: Function, begin: Begin, end: End) -> Function:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = begin()  # by hand what _Call does, in half the time
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            end(begun, error, args, kwargs)
            raise
        end(begun, None, args, kwargs)
        return result

    return wrapper


def _coroutine(function: Function, begin: Begin, end: End) -> Function:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with _Call(begin, end, args, kwargs):
            return await function(*args, **kwargs)

    return wrapper


def _generator(function: Function, begin: Begin, end: End) -> Function:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with _Call(begin, end, args, kwargs):
            return (yield from function(*args, **kwargs))

    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return coroutine(wrapper) if flags & inspect.CO_ITERABLE_COROUTINE else wrapper


def _async_generator(function: Function, begin: Begin, end: End) -> Function:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with _Call(begin, end, args, kwargs):
            generator = function(*args, **kwargs)
            step = _first_step(generator)
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                finally:
                    del step  # it may hold an error, whose traceback holds this frame
                try:
                    sent = yield value
                except BaseException as error:
                    step = generator.athrow(error)
                else:
                    step = generator.asend(sent)

    return wrapper


def _first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin ``generator`` unseen by the event loop.

    At its end a loop closes every generator that it saw begin, all at the same time. This one is closed by its wrapper,
    and would complain to whoever comes second.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


_ADAPTERS: tuple[tuple[Callable[[object], bool], Callable[[Function, Begin, End], Function]], ...] = (
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
    (inspect.isasyncgenfunction, _async_generator),
)


def _adapter(function: Any) -> Callable[[Function, Begin, End], Function]:
    """Return what suits the kind of ``function``, which may also be an object that has a ``__call__`` of that kind."""
    for is_kind, adapter in _ADAPTERS:
        if is_kind(function) or is_kind(function.__call__):
            return adapter
    return _plain
