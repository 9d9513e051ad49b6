"""Both implementations in one process: the packages imported twice, with ``METRICSLIB_PURE=1`` and with ``0``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGES = ("metricslib", "forwarder")


class Packages:
    """A copy of the packages of its own. Raises ImportError if the C implementation is wanted and was not built."""

    def __init__(self, pure: bool) -> None:
        self._pure = pure
        self._modules: dict[str, ModuleType] = {}
        with self.in_place():
            # The C cells look up what floors above them have made when the first instrument is made.
            import_module("metricslib.registry").Registry().counter("first")

    def __repr__(self) -> str:
        return "Python" if self._pure else "C"

    def __getitem__(self, name: str) -> Any:
        """Return this copy's module of that name."""
        with self.in_place():
            return import_module(name)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let this copy be the one that is imported. Not to be nested, nor beside ``packages[name]``."""
        before = os.environ.get("METRICSLIB_PURE")
        others = _taken_out()
        sys.modules.update(self._modules)
        os.environ["METRICSLIB_PURE"] = "1" if self._pure else "0"
        try:
            yield
        finally:
            self._modules = _taken_out()
            sys.modules.update(others)
            if before is None:
                del os.environ["METRICSLIB_PURE"]
            else:
                os.environ["METRICSLIB_PURE"] = before


def _taken_out() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}


@cache
def packages(pure: bool) -> Packages:
    """Return the copy with the Python or the C implementation, made once."""
    return Packages(pure)
