"""Calls that may raise: of a value's own ``__float__``, ``__str__`` or ``__neg__``, which is code that is not ours.

An exception of such code means a bad value, which is counted and skipped. An exception of a signal handler (a time
limit, say) must reach the program. The interpreter runs signal handlers when a call written in Python has returned,
when a Python function begins, and at backward jumps; their exceptions come out there, so an ``except`` around a call
would swallow them. :func:`attempt` unpacks an iterator instead, which runs no handler in its own frame: only an
exception that comes out of the call itself is caught.

A handler that runs inside the call, because the value's method is written in Python or because ``str()`` looks for
signals, cannot be told from the method. That is why values of Python's own simple types are handled without an
``except``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["attempt"]

T = TypeVar("T")


def attempt(call: Callable[..., T], *arguments: Any) -> T | None:
    """Return ``call(*arguments)``, or None if it raises; ``call`` must be a function in C, such as ``float``."""
    results = map(call, *zip(arguments))
    try:
        (result,) = results
    except Exception:
        return None
    return result
