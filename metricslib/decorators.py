"""Decorators that measure every call of a function, of any kind.

In: a function, and the name of an instrument. Out: a function that behaves like the original. Each decorator is a pair
of functions ``begin`` and ``end``; :func:`around` wraps a function in such a pair.

``begin`` runs before the body of the function, and ``end`` after it, with the result of ``begin``, the exception if
there was one, and the arguments of the call. Neither may raise. The call of a plain function lasts until it returns,
that of an ``async def`` while it is awaited, and that of a generator from its first ``next`` to its end. Closing a
generator early is not an exception.

To callers and to :mod:`inspect`, the function that :func:`around` returns looks like the original: results, exceptions,
and values sent or thrown into a generator pass unchanged. Only wrong arguments for a coroutine or a generator raise
later, when the body would begin. The result is a Python function, whatever it wraps, so it can be bound, pickled,
copied and inspected. The state of a call is in its own frame, so calls may recurse, and overlap in threads, tasks and
greenlets.

A signal handler may raise wherever the interpreter checks for signals: after a call returns, when a function begins,
and at a backward jump. Then ``end`` may be missed, which loses one measurement. The set of running calls
(:class:`UnderWay`) is right even then: the result of ``begin`` is added inside the ``try``, and discarded by the first
call of the ``finally``, before the interpreter checks for signals.
"""

import math
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from functools import wraps
from types import SimpleNamespace, coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Never, Protocol, TypeVar, overload

from ._accelerate import load
from .attempt import from_signal_handler
from .clock import SystemClock
from .errors import InvalidOption, InvalidType
from .hints import unknown_option
from .instruments.counter import Counter
from .instruments.gauge import Gauge
from .instruments.timer import Timer
from .series import TagMapping, canonical_tags, checked_name, checked_tags, prefixed

__all__ = ["Begin", "Decorators", "End", "Function", "SlowCall", "UnderWay", "around", "is_plain"]

Function = Callable[..., Any]
Begin = Callable[[], Any]
End = Callable[[Any, BaseException | None, tuple[Any, ...], dict[str, Any]], object]


class UnderWay(Protocol):
    """Holds the result of ``begin`` for each call in progress."""

    _running: set[object]

    def _enter(self, begun: object) -> None:
        """Add ``begun`` to the set."""
        ...


def around(function: Function, begin: Begin, end: End, calls: UnderWay | None = None) -> Function:
    """Wrap ``function`` in ``begin`` and ``end``. ``calls`` holds each call in progress."""
    return _adapter(function)(function, begin, end, calls)


def is_plain(function: Function) -> bool:
    """Return True if a call ends when it returns, unlike that of a coroutine function or a generator."""
    return _adapter(function) is _plain


# The lines are repeated for every kind, because a context manager would cost 400 ns per call.


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
                # A signal handler may raise at a backward jump, and the exception table does not cover a `try` that is
                # the target of the jump. Therefore this statement is in between. It also releases the value.
                value = None
                try:
                    value = await step
                except StopAsyncIteration:
                    break
                finally:
                    del step  # it may refer to an error whose traceback refers to this frame
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
    """Return the error, or None if it only closes a generator or a coroutine."""
    return None if isinstance(error, GeneratorExit) else error


def _first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin ``generator`` without registering it with the event loop.

    When a loop ends, it closes all registered generators at the same time. This one is closed by its wrapper, and a
    second, concurrent call would raise an error.
    """
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, None)
        step = generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return step


def _adapter(function: Any) -> Callable[[Function, Begin, End, UnderWay | None], Function]:
    """Return the wrapper for the kind of ``function``, which may be an object with a ``__call__`` of this kind."""
    import inspect  # here, because it takes half as long to import as this whole package

    for is_kind, adapter in (
        (inspect.iscoroutinefunction, _coroutine),
        (inspect.isgeneratorfunction, _generator),
        (inspect.isasyncgenfunction, _async_generator),
    ):
        if is_kind(function) or is_kind(function.__call__):
            return adapter
    return _plain


_speedups = load("metricslib._speedups")

if TYPE_CHECKING:
    F = TypeVar("F", bound=Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any])
else:
    F = TypeVar("F")  # without a bound, because compiling one from a string takes 2 ms
ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


class SlowCall(NamedTuple):
    """The argument of ``on_slow``: a call that took ``slow`` seconds or more."""

    name: str
    """The series of the timer, ``name;tag=value``."""
    seconds: float
    """The duration."""
    args: tuple[Any, ...]
    """The positional arguments of the call."""
    kwargs: Mapping[str, Any]
    """The keyword arguments of the call."""
    error: BaseException | None
    """The exception that the call raised, or None."""


OnSlow = Callable[[SlowCall], object]


class Decorators:
    """The decorators of the module, of registries and of scopes. Each can be written with or without parentheses.

    The default name is the module and qualified name of the function, without ``<locals>``. The instrument is created
    when the function is decorated. A decorator may stand above or below ``@classmethod`` and ``@staticmethod``.
    Functions, coroutine functions, generators and asynchronous generators can be decorated, and so can callable objects
    if a name is given. The decorated function may be called from any thread, and recursively.
    """

    def counter(self, name: str, tags: TagMapping | None = None) -> Counter:
        raise NotImplementedError

    def gauge(self, name: str, read: Callable[[], float] | None = None, tags: TagMapping | None = None) -> Gauge:
        raise NotImplementedError

    def timer(self, name: str, tags: TagMapping | None = None) -> Timer:
        raise NotImplementedError

    def _note_function(self, name: str, function: Function) -> None:
        """Note that a function is measured by the instruments of that name."""

    @overload
    def timed(self, function: F, /) -> F: ...
    @overload
    def timed(
        self,
        name: str | None = None,
        *,
        tags: TagMapping | None = None,
        exceptions: bool = True,
        slow: float | None = None,
        on_slow: OnSlow | None = None,
    ) -> Callable[[F], F]: ...
    def timed(
        self,
        name: Any = None,
        *,
        tags: TagMapping | None = None,
        exceptions: bool = True,
        slow: float | None = None,
        on_slow: OnSlow | None = None,
        **unknown: Never,
    ) -> Any:
        """Measure the duration of each call with a timer.

        Args:
            name: The name of the timer.
            tags: Tags of the timer.
            exceptions: Whether calls that raise an exception are measured, too. Closing a generator early is not an
                exception.
            slow: A duration in seconds, at least 0, together with ``on_slow``.
            on_slow: A function that is called with a :class:`~metricslib.SlowCall` after each call that took ``slow``
                seconds or more, also if the call raised an exception. It runs in the thread of the call, before the
                caller continues. If it raises an exception, this is counted, cause ``bad_hook``, and not passed on.

        Raises:
            InvalidType: When decorating something that cannot be measured, such as a class or a property, or for an
                argument of a wrong type.
            InvalidOption: If ``slow`` is negative.
        """
        if unknown:
            raise unknown_option(Decorators.timed, unknown)
        _check_slow(slow, on_slow)

        def measured(function: Function, name: str) -> Function:
            timer = self.timer(name, tags)
            if is_plain(function) and exceptions and on_slow is None:
                return _timed_plain(function, timer)
            return around(function, timer._now, _end_of_timed(timer, exceptions, slow, on_slow))

        return _decorator(self, name, "", measured)

    @overload
    def counted(self, function: F, /) -> F: ...
    @overload
    def counted(self, name: str | None = None, *, tags: TagMapping | None = None) -> Callable[[F], F]: ...
    def counted(self, name: Any = None, *, tags: TagMapping | None = None, **unknown: Never) -> Any:
        """Count calls with a counter, each when it begins.

        Args:
            name: The name of the counter.
            tags: Tags of the counter.

        Raises:
            InvalidType: When decorating something that cannot be measured, such as a class or a property.
        """
        if unknown:
            raise unknown_option(Decorators.counted, unknown)

        def measured(function: Function, name: str) -> Function:
            return around(function, self.counter(name, tags).inc, _nothing)

        return _decorator(self, name, "", measured)

    @overload
    def in_progress(self, function: F, /) -> F: ...
    @overload
    def in_progress(self, name: str | None = None, *, tags: TagMapping | None = None) -> Callable[[F], F]: ...
    def in_progress(self, name: Any = None, *, tags: TagMapping | None = None, **unknown: Never) -> Any:
        """Show the number of calls in progress with a gauge.

        A forked child starts at 0, and the end of a call that began in the parent changes nothing.

        Args:
            name: The name of the gauge. The default name ends with ``.in_progress``.
            tags: Tags of the gauge.

        Raises:
            InvalidType: When decorating something that cannot be measured, such as a class or a property.
        """
        if unknown:
            raise unknown_option(Decorators.in_progress, unknown)

        def measured(function: Function, name: str) -> Function:
            gauge = self.gauge(name, tags=tags)
            gauge._count_calls()
            return around(function, object, _nothing, gauge)

        return _decorator(self, name, ".in_progress", measured)

    @overload
    def count_exceptions(self, function: F, /) -> F: ...
    @overload
    def count_exceptions(
        self, name: str | None = None, *, tags: TagMapping | None = None, types: ExceptionTypes = Exception
    ) -> Callable[[F], F]: ...
    def count_exceptions(
        self,
        name: Any = None,
        *,
        tags: TagMapping | None = None,
        types: ExceptionTypes = Exception,
        **unknown: Never,
    ) -> Any:
        """Count calls that raise an exception, with a counter for each exception class, tagged ``exception=KeyError``.

        A series is created at its first exception. Closing a generator early is not an exception.

        Args:
            name: The name of the counters. The default name ends with ``.exceptions``.
            tags: Further tags of the counters.
            types: An exception class, or a tuple of them. The default excludes ``asyncio.CancelledError``,
                ``KeyboardInterrupt`` and ``SystemExit``.

        Raises:
            InvalidType: When decorating something that cannot be measured, or if ``types`` are not exception classes.
        """
        if unknown:
            raise unknown_option(Decorators.count_exceptions, unknown)
        _check_types(types)
        common = dict(canonical_tags(checked_tags(tags) or {}))

        def measured(function: Function, name: str) -> Function:
            def end(_: None, error: BaseException | None, *call: object) -> None:
                if isinstance(error, types):
                    self.counter(name, {**common, "exception": type(error).__name__}).inc()

            return around(function, _nothing, end)

        return _decorator(self, name, ".exceptions", measured)


def _decorator(owner: Decorators, target: object, suffix: str, measured: Callable[[Function, str], Function]) -> Any:
    """Return a decorator or, if ``target`` is a function, because there were no parentheses, the decorated function."""
    called = target is None or isinstance(target, str)
    name = checked_name(target) if isinstance(target, str) else None

    def decorate(function: Any) -> Any:
        if isinstance(function, classmethod | staticmethod):
            return type(function)(decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise InvalidType("function", function, "a function or method; of a class, decorate its methods")
        whole = name or _own_name(function) + suffix
        found = measured(function, whole)
        owner._note_function(whole, function)
        return found

    return decorate if called else decorate(target)


def _nothing(*_: object) -> None: ...


def _own_name(function: Function) -> str:
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        raise InvalidType("name", None, f"a string where a {type(function).__name__} is decorated: it has no name")
    return prefixed(getattr(function, "__module__", None) or "", name.replace("<locals>.", ""))


def _check_slow(slow: object, on_slow: object) -> None:
    if slow is None and on_slow is None:
        return
    if not isinstance(slow, int | float):
        raise InvalidType("slow", slow, "a number of seconds, given together with on_slow")
    if not slow >= 0:
        raise InvalidOption("slow", slow, "must be a number of seconds, at least 0")
    if not callable(on_slow) or not is_plain(on_slow):
        raise InvalidType("on_slow", on_slow, "a plain function of a SlowCall, given together with slow")


def _check_types(types: object) -> None:
    for each in types if isinstance(types, tuple) else (types,):
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise InvalidType("types", each, "an exception class or a tuple of them")


def _end_of_timed(timer: Timer, exceptions: bool, slow: float | None, on_slow: OnSlow | None) -> End:
    now = timer._now
    limit = math.inf if slow is None else slow

    def end(start: float, error: BaseException | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seconds = max(0.0, now() - start)  # a clock that was set back took no time
        if error is None or exceptions:
            timer.observe(seconds)
        if on_slow is not None and seconds >= limit:
            try:
                on_slow(SlowCall(timer.key, seconds, args, kwargs, error))
            except Exception as failed:  # the hook is the application's
                if from_signal_handler(failed):
                    raise
                timer._owner.drops.add("bad_hook")

    return end


def _timed_plain(function: Function, timer: Timer) -> Function:
    """Time a plain function without further options. This is the hot path of most programs."""
    return _timed_in_python(function, timer) if _speedups is None else _timed_in_c(function, timer)


def _timed_in_c(function: Function, timer: Timer) -> Function:
    call = timer._call

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(function, args, kwargs)

    if hasattr(_speedups, "call_directly"):
        _speedups.call_directly(wrapper)
    return wrapper


def _timed_in_python(function: Function, timer: Timer) -> Function:
    """Read the system's clock directly, but look it up each time, as :mod:`~.clock` promises."""
    clock = time if timer._now is SystemClock.monotonic else SimpleNamespace(perf_counter=timer._now)
    observe = timer.observe

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = clock.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds = clock.perf_counter() - start
            observe(seconds if seconds > 0.0 else 0.0)

    return wrapper
