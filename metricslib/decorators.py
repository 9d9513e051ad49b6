"""The decorators: measure every call of a function, whatever kind of function it is.

In: a function, and the name of an instrument. Out: a function that behaves as the one given. What each decorator does
is a pair of ``begin`` and ``end``; :mod:`~.calls` puts such a pair around the calls of a plain function, a coroutine or
a generator, and says when these begin and end.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Never, TypeVar, overload

from .attempt import from_signal_handler
from .calls import End, Function, around, is_plain
from .clock import SystemClock
from .counter import Counter
from .errors import InvalidOption, InvalidType
from .gauge import Gauge
from .hints import unknown_option
from .names import TagMapping, canonical_tags, checked_name, checked_tags, prefixed
from .timer import Timer
from .twins import load

__all__ = ["Decorators", "SlowCall"]

_speedups = load("metricslib._speedups")

if TYPE_CHECKING:
    F = TypeVar("F", bound=Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any])
else:
    F = TypeVar("F")  # for these two take no parameters at run time, and to compile the bound from a string takes 2 ms
ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


class SlowCall(NamedTuple):
    """What ``on_slow`` is told of a call that took long."""

    name: str
    """The timer's series, ``name;tag=value``."""
    seconds: float
    """How long it took."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    error: BaseException | None
    """What the call raised, None if it returned."""


OnSlow = Callable[[SlowCall], object]


class Decorators:
    """The decorators of whatever makes instruments. Each is written with or without parentheses.

    The name is by default the function's own: its module and qualified name, without ``<locals>``. Instruments are made
    when the function is decorated. Above ``@classmethod`` or ``@staticmethod`` and below is the same. What can never be
    measured raises :class:`~.errors.InvalidType` at once: a class, a property, or a callable that has no name of its
    own and is given none.
    """

    def counter(self, name: str, tags: TagMapping | None = None) -> Counter:
        raise NotImplementedError

    def gauge(self, name: str, read: Callable[[], float] | None = None, tags: TagMapping | None = None) -> Gauge:
        raise NotImplementedError

    def timer(self, name: str, tags: TagMapping | None = None) -> Timer:
        raise NotImplementedError

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
        """Observe with a timer how long each call takes.

        ``exceptions=False`` leaves out calls that raise; a generator that is closed early does not raise. ``on_slow``
        is told of each call that took ``slow`` seconds or more, also of one that raised. It runs where the call ran,
        before the caller goes on; exceptions of its own are swallowed and counted, cause ``bad_hook``.
        """
        if unknown:
            raise unknown_option(Decorators.timed, unknown)
        _check_slow(slow, on_slow)

        def measured(function: Function, name: str) -> Function:
            timer = self.timer(name, tags)
            if is_plain(function) and exceptions and on_slow is None:
                return _timed_plain(function, timer)
            return around(function, timer._now, _end_of_timed(timer, exceptions, slow, on_slow))

        return _decorator(name, "", measured)

    @overload
    def counted(self, function: F, /) -> F: ...
    @overload
    def counted(self, name: str | None = None, *, tags: TagMapping | None = None) -> Callable[[F], F]: ...
    def counted(self, name: Any = None, *, tags: TagMapping | None = None, **unknown: Never) -> Any:
        """Count calls with a counter, each when it begins."""
        if unknown:
            raise unknown_option(Decorators.counted, unknown)

        def measured(function: Function, name: str) -> Function:
            return around(function, self.counter(name, tags).inc, _nothing)

        return _decorator(name, "", measured)

    @overload
    def in_progress(self, function: F, /) -> F: ...
    @overload
    def in_progress(self, name: str | None = None, *, tags: TagMapping | None = None) -> Callable[[F], F]: ...
    def in_progress(self, name: Any = None, *, tags: TagMapping | None = None, **unknown: Never) -> Any:
        """Show with a gauge how many calls are under way. The default name ends in ``.in_progress``.

        A forked child starts from 0: calls of its parent do not count in it, nor does their end.
        """
        if unknown:
            raise unknown_option(Decorators.in_progress, unknown)

        def measured(function: Function, name: str) -> Function:
            gauge = self.gauge(name, tags=tags)
            gauge._count_calls()
            return around(function, object, _nothing, gauge)

        return _decorator(name, ".in_progress", measured)

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
        """Count the calls that raise one of ``types``, by class: with the tag ``exception=KeyError``.

        By default only errors count: neither ``asyncio.CancelledError`` nor ``KeyboardInterrupt`` nor ``SystemExit``.
        Closing a generator early never does. A series appears with its first exception. The default name ends in
        ``.exceptions``.
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

        return _decorator(name, ".exceptions", measured)


def _decorator(target: object, suffix: str, measured: Callable[[Function, str], Function]) -> Any:
    """Return what decorates a function. If ``target`` is one, there were no parentheses: return it decorated."""
    called = target is None or isinstance(target, str)
    name = checked_name(target) if isinstance(target, str) else None

    def decorate(function: Any) -> Any:
        if isinstance(function, classmethod | staticmethod):
            return type(function)(decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            raise InvalidType("function", function, "a function or method; of a class, decorate its methods")
        return measured(function, name or _own_name(function) + suffix)

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
                timer._home.account.add("bad_hook")

    return end


def _timed_plain(function: Function, timer: Timer) -> Function:
    """Time a plain function and do nothing else, for it is what most programs have on their hot paths."""
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
    """Read the system's clock without a call in between, and still look it up each time, as :mod:`~.clock` promises."""
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
