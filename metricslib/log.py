"""What is said to the program's log, under ``metricslib``.

``logging`` takes half as long to load as this whole package, and a program that only measures hears nothing from it. So
it is loaded when there is something to say: at a tick or for a reader, never in a call that measures, which must not
wait for an import. What ships and delivers has more to say, and loads it with itself.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["log"]


def log() -> "Logger":
    """Return the library's logger."""
    from logging import getLogger

    return getLogger("metricslib")
