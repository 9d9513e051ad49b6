"""Which implementation is in use: the one in C where it was built, or the one in Python, which is the specification.

The environment variable ``METRICSLIB_PURE`` decides: ``1`` selects Python, ``0`` requires C, and without it C is used
where it was built. It is read when a module that has both is first imported.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from .errors import InvalidOption

__all__ = ["load", "replaced_by"]

F = TypeVar("F", bound=Callable[..., Any])


def load(name: str) -> Any:
    """Return the extension module ``name``, or None where its Python implementation is to be used.

    Raises ImportError if C is insisted on and the module was not built, and :class:`~.errors.InvalidOption` if the
    environment variable is something else than ``0``, ``1`` or nothing.
    """
    pure = os.environ.get("METRICSLIB_PURE", "")
    if pure not in ("", "0", "1"):
        raise InvalidOption(
            "METRICSLIB_PURE", pure, "must be 1 for the Python implementation, 0 for the C implementation, or not set"
        )
    if pure == "1":
        return None
    try:
        return import_module(name)
    except ImportError:
        if pure == "0":
            raise
        return None


class replaced_by:
    """Decorate a method with the name of its implementation among the C cell's methods.

    Where the C implementation is in use, it takes the method's place; the Python method stays the specification.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, method: F) -> F:
        if load("metricslib._speedups") is None:
            return method
        self._doc = method.__doc__ or ""
        return self  # type: ignore[return-value]  # until the class is there, in a moment

    def __set_name__(self, owner: type, name: str) -> None:
        # Of the very class: with a method of a base class the interpreter's fastest way of calling is not taken.
        setattr(owner, name, load("metricslib._speedups").method_of(owner, self._name, self._doc))
