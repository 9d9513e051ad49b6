"""Measures the process itself, greenlets, and event loops. Nothing of it runs until it is called."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .greenlets import watch_greenlets as watch_greenlets
    from .loop import watch_loop as watch_loop

__all__ = ["watch_greenlets", "watch_loop"]

_LATER = {"watch_greenlets": ".greenlets", "watch_loop": ".loop"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a module when it is first asked for: one needs the package greenlet, another asyncio."""
        if name in _LATER:
            return getattr(import_module(_LATER[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
