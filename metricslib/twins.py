"""Which twin is in use: the C one where it was built, or the Python one, which is the specification.

The environment variable ``METRICSLIB_PURE`` decides: ``1`` takes the Python twins, ``0`` insists on the C ones, and
without it they are taken where they are there. It is read when a twinned module is first imported.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from .errors import InvalidOption

__all__ = ["load", "replaced_by"]

F = TypeVar("F", bound=Callable[..., Any])


def load(name: str) -> Any:
    """Return the extension module ``name``, or None where its Python twin is to be used.

    Raises ImportError if C is insisted on and the module was not built, and :class:`~.errors.InvalidOption` if the
    environment variable is something else than ``0``, ``1`` or nothing.
    """
    pure = os.environ.get("METRICSLIB_PURE", "")
    if pure not in ("", "0", "1"):
        raise InvalidOption("METRICSLIB_PURE", pure, "must be 1 for the Python twins, 0 for the C twins, or not set")
    if pure == "1":
        return None
    try:
        return import_module(name)
    except ImportError:
        if pure == "0":
            raise
        return None


def replaced_by(twin: Any) -> Callable[[F], F]:
    """Decorate a Python function with its twin in C: the function stays the specification, None leaves it in use."""
    return lambda function: function if twin is None else twin
