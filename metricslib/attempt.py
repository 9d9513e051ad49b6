"""Calls the methods ``__float__``, ``__str__`` or ``__neg__`` of a value, which belong to the application.

An exception from such a method means that the value is bad; it is counted and skipped. An exception from a signal
handler, for example for a time limit, must reach the program. The interpreter runs signal handlers after a call of a
Python function, at the beginning of a Python function, and at backward jumps. An ``except`` around the call would also
catch their exceptions. Therefore :func:`attempt` unpacks an iterator instead, which runs no handler in its own frame,
so it only catches exceptions from the call itself.

A handler may also run inside the call, because the value's method is written in Python or because ``str()`` checks for
signals. Then the handler's frame is in the traceback, where :func:`from_signal_handler` finds it. An exception that
another thread sets in this one (``PyThreadState_SetAsyncExc``) has no frame of its own. So values of Python's own
simple types are handled without an ``except``.
"""

import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

__all__ = ["OUT_OF_MEMORY", "attempt", "from_signal_handler"]

OUT_OF_MEMORY = (MemoryError, SystemError)
"""The exceptions of CPython when memory runs out. SystemError: there is none for the frame of a called function."""

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
    """Return True if an installed signal handler raised ``error``, which the caller has just caught."""
    traceback = error.__traceback__ and error.__traceback__.tb_next  # the first frame is the caller's
    if traceback is None or threading.current_thread() is not threading.main_thread():
        return False
    import signal  # here, because it is slow to import and errors are rare

    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()}
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def _code(handler: object) -> CodeType | None:
    """Return the code that runs first when ``handler`` is called, or None if it is not written in Python."""
    if not callable(handler):  # SIG_DFL, SIG_IGN, None
        return None
    function = getattr(handler, "func", handler)  # of a functools.partial
    function = getattr(function, "__func__", function)  # of a method
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
