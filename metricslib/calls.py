"""Something done around every call of a function, whatever kind of function it is.

:func:`around` takes a function and a pair. ``begin`` runs when the function's body would; ``end`` when that is over,
with what ``begin`` returned, what came out if that was an exception, and the call's arguments. Neither may raise. It
returns a function that behaves as the one given, to its callers and to :mod:`inspect`: results, exceptions, and what is
sent or thrown into a generator pass unchanged. Only wrong arguments for a coroutine or a generator are refused later:
when its body would begin. The function is a Python function whatever it wraps, with a body that does everything: so it
can be bound, pickled, copied and asked for its signature as any other.

A plain function is under way from call to return, an ``async def`` while it is awaited, a generator from its first
``next`` to its end; closing it early is no exception. Nothing of one call is kept where another could find it, so calls
may recurse, and run at the same time in threads, tasks and greenlets.

A signal handler may raise wherever the interpreter looks for signals: when a call has returned, when a function begins,
at a backward jump. Then ``end`` may be missed, which costs one measurement. What is kept of the calls that are under
way (:class:`UnderWay`) stays right even then: what ``begin`` returned is added inside the ``try``, and discarded by the
first call of the ``finally``, before which the interpreter does not look.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from functools import wraps
from types import coroutine
from typing import Any, Protocol

__all__ = ["Begin", "End", "Function", "UnderWay", "around", "is_plain"]

Function = Callable[..., Any]
Begin = Callable[[], Any]
End = Callable[[Any, BaseException | None, tuple[Any, ...], dict[str, Any]], object]


class UnderWay(Protocol):
    """Keeps what ``begin`` returned of each call that is under way."""

    _running: set[object]

    def _enter(self, begun: object) -> None:
        """Add ``begun`` to the set."""
        ...


def around(function: Function, begin: Begin, end: End, calls: UnderWay | None = None) -> Function:
    """Return ``function`` with ``begin`` and ``end`` around each call, each kept in ``calls`` until it is over."""
    return _adapter(function)(function, begin, end, calls)


def is_plain(function: Function) -> bool:
    """Whether a call of ``function`` is over when it returns, as far as can be seen before."""
    return _adapter(function) is _plain


# The same lines stand in every kind, for a context manager in their place takes 400 ns more a call.


def _plain(function: Function, begin: Begin, end: End, calls: UnderWay | None) -> Function:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = begin()
        try:
            if calls is not None:
                calls._enter(begun)
            result = function(*args, **kwargs)
        except BaseException as error:
            end(begun, _raised(error), args, kwargs)
            raise
        finally:
            if calls is not None:
                calls._running.discard(begun)
        end(begun, None, args, kwargs)
        return result

    return wrapper


def _coroutine(function: Function, begin: Begin, end: End, calls: UnderWay | None) -> Function:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = begin()
        try:
            if calls is not None:
                calls._enter(begun)
            result = await function(*args, **kwargs)
        except BaseException as error:
            end(begun, _raised(error), args, kwargs)
            raise
        finally:
            if calls is not None:
                calls._running.discard(begun)
        end(begun, None, args, kwargs)
        return result

    return wrapper


def _generator(function: Function, begin: Begin, end: End, calls: UnderWay | None) -> Function:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        begun = begin()
        try:
            if calls is not None:
                calls._enter(begun)
            result = yield from function(*args, **kwargs)
        except BaseException as error:
            end(begun, _raised(error), args, kwargs)
            raise
        finally:
            if calls is not None:
                calls._running.discard(begun)
        end(begun, None, args, kwargs)
        return result

    from inspect import CO_ITERABLE_COROUTINE

    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return coroutine(wrapper) if flags & CO_ITERABLE_COROUTINE else wrapper


def _async_generator(function: Function, begin: Begin, end: End, calls: UnderWay | None) -> Function:
    @wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        begun = begin()
        try:
            if calls is not None:
                calls._enter(begun)
            generator = function(*args, **kwargs)
            step = _first_step(generator)
            while True:
                # A jump back is where a handler may raise, and a `try` that is jumped to is in no range of the table of
                # exceptions: hence a statement in between, which also lets go of the value.
                value = None
                try:
                    value = await step
                except StopAsyncIteration:
                    break
                finally:
                    del step  # it may hold an error, whose traceback holds this frame
                try:
                    sent = yield value
                except BaseException as error:
                    step = generator.athrow(error)
                else:
                    step = generator.asend(sent)
        except BaseException as error:
            end(begun, _raised(error), args, kwargs)
            raise
        finally:
            if calls is not None:
                calls._running.discard(begun)
        end(begun, None, args, kwargs)

    return wrapper


def _raised(error: BaseException) -> BaseException | None:
    """Return the error, unless it says no more than that nobody wants the rest of a generator or a coroutine."""
    return None if isinstance(error, GeneratorExit) else error


def _first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin ``generator`` unseen by the event loop.

    At its end a loop closes every generator that it saw begin, all at the same time. This one is closed by its wrapper,
    and would complain to whoever comes second.
    """
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, None)
        step = generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return step


def _adapter(function: Any) -> Callable[[Function, Begin, End, UnderWay | None], Function]:
    """Return what suits the kind of ``function``, which may also be an object that has a ``__call__`` of that kind."""
    import inspect  # only decorating needs it, and it takes half as long to load as this whole package

    for is_kind, adapter in (
        (inspect.iscoroutinefunction, _coroutine),
        (inspect.isgeneratorfunction, _generator),
        (inspect.isasyncgenfunction, _async_generator),
    ):
        if is_kind(function) or is_kind(function.__call__):
            return adapter
    return _plain
