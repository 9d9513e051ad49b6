"""Calls that may raise: of a value's own ``__float__``, ``__str__`` or ``__neg__``, which is code that is not ours.

An exception of such code means a bad value, which is counted and skipped. An exception of a signal handler (a time
limit, say) must reach the program. The interpreter runs signal handlers when a call written in Python has returned,
when a Python function begins, and at backward jumps; their exceptions come out there, so an ``except`` around a call
would swallow them. :func:`attempt` unpacks an iterator instead, which runs no handler in its own frame: only an
exception that comes out of the call itself is caught.

A handler may also run inside the call, because the value's method is written in Python or because ``str()`` looks for
signals. Its frame is in the traceback, by which :func:`from_signal_handler` knows it. An exception that another thread
sets in this one (``PyThreadState_SetAsyncExc``) has no frame of its own. So values of Python's own simple types are
handled without an ``except``.
"""

import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

__all__ = ["OUT_OF_MEMORY", "attempt", "from_signal_handler"]

OUT_OF_MEMORY = (MemoryError, SystemError)
"""What CPython raises where memory is short: SystemError if there is none for the frame of a called function."""

T = TypeVar("T")


def attempt(call: Callable[..., T], *arguments: Any) -> T | None:
    """Return ``call(*arguments)``, or None if it raises; ``call`` must be a function in C, such as ``float``.

    An exception of a signal handler is raised.
    """
    results = map(call, *zip(arguments))
    try:
        (result,) = results
    except Exception as error:
        if from_signal_handler(error):
            raise
        return None
    return result


def from_signal_handler(error: BaseException) -> bool:
    """Whether one of the signal handlers that are installed raised ``error``, which the caller has just caught."""
    traceback = error.__traceback__ and error.__traceback__.tb_next  # the first frame is the caller's
    if traceback is None or threading.current_thread() is not threading.main_thread():
        return False
    import signal  # an error is rare, and to load this takes a while

    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()}
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    """Return the code that runs first when ``handler`` is called, None if that is not written in Python."""
    if not callable(handler):  # SIG_DFL, SIG_IGN, None
        return None
    function = getattr(handler, "func", handler)  # of a functools.partial
    function = getattr(function, "__func__", function)  # of a method
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
