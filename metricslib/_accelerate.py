"""Selects the C or the Python implementation. The Python implementation is the specification.

The environment variable ``METRICSLIB_PURE`` decides: ``1`` selects Python, and ``0`` requires C. By default, C is used
if it was built. The variable is read when the first module with both implementations is imported.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from .errors import InvalidOption

__all__ = ["load", "replaced_by"]

F = TypeVar("F", bound=Callable[..., Any])


def load(name: str) -> Any:
    """Return the extension module ``name``, or None if the Python implementation is selected.

    Raises ImportError if C is required and the module was not built, and :class:`~.errors.InvalidOption` if the
    environment variable has another value than ``0``, ``1`` or nothing.
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
    """Decorates a method with the name of its C implementation among the methods of the C class ``Cell``.

    If the C implementation is in use, it replaces the method. The Python method is the specification.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, method: F) -> F:
        if load("metricslib._speedups") is None:
            return method
        self._doc = method.__doc__ or ""
        return self  # type: ignore[return-value]  # __set_name__ replaces it

    def __set_name__(self, owner: type, name: str) -> None:
        # The method must belong to the class itself. For one of a base class, the interpreter uses a slower call.
        setattr(owner, name, load("metricslib._speedups").method_of(owner, self._name, self._doc))
