"""A thread that looks on while another one is held: who has held it for too long, and where the code is.

Whoever is watched notes when the current piece of work began. The watchdog reads that note a few times in the allowed
time; if the work is older than that, it takes the stack of the watched thread, once for each piece of work. It is a
thread of the operating system also where gevent has replaced the module ``threading``, because a greenlet could not run
while another one holds the thread.
"""

import _thread  # noqa: F401
import logging
import sys
import sysconfig
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

__all__ = ["Place", "Watchdog", "place_of"]

log = logging.getLogger("metricslib")

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_QUIET = 60.0
"""Seconds between two log lines about the same place."""
_PLACES = 1_000
"""Places whose last log line is remembered; beyond that, the memory is begun anew."""


class Place(NamedTuple):
    """Where a thread was seen."""

    function: str
    """Module and qualified name."""
    line: str
    """File and line number."""


def place_of(frame: FrameType) -> Place:
    """Return the innermost place of the program's own code in a stack; without any, the innermost of all."""
    found: FrameType | None = frame
    while found is not None and found.f_code.co_filename.startswith((*_LIBRARIES, "<frozen")):
        found = found.f_back
    found = found or frame
    code = found.f_code
    return Place(f"{found.f_globals.get('__name__')}.{code.co_qualname}", f"{code.co_filename}:{found.f_lineno}")


class Watchdog:
    """Watches the thread that creates it.

    Args:
        watched: Has ``since``, the monotonic time at which the current piece of work began, or None if there is none;
            and ``over``, True if there will be no more.
        slow: Seconds that a piece of work may take.
        what: The beginning of the log line: ``f"{what} for 0.31 s by shop.views.parse, at shop/views.py:12"``.
    """

    def __init__(self, watched: Any, slow: float, what: str) -> None:
        self._watched = weakref.ref(watched)
        self._slow = slow
        self._what = what
        self._seen: tuple[float, Place] | None = None
        self._told: dict[Place, float] = {}
        self._sleep: Callable[[float], object] = _native("time", "sleep")
        self._thread: int = _native("_thread", "get_ident")()
        _native("_thread", "start_new_thread")(self._run, ())

    def place(self, since: float) -> Place | None:
        """Return where the piece of work that began at ``since`` was seen, if it was."""
        seen = self._seen
        return seen[1] if seen is not None and seen[0] == since else None

    def tell(self, place: Place, seconds: float, now: float) -> None:
        """Log that a piece of work took so long; for one place at most once a minute."""
        if now - self._told.get(place, -_QUIET) >= _QUIET:
            if len(self._told) >= _PLACES:
                self._told.clear()
            self._told[place] = now
            log.warning("%s for %.2f s by %s, at %s", self._what, seconds, place.function, place.line)

    def _run(self) -> None:
        while (watched := self._watched()) is not None and not watched.over:
            since = watched.since
            if since is not None and time.monotonic() - since > self._slow and self.place(since) is None:
                frame = sys._current_frames().get(self._thread)
                if frame is not None and watched.since == since:  # otherwise it may be the stack of what came after
                    self._seen = since, place_of(frame)
                del frame
            del watched
            self._sleep(self._slow / 4)


def _native(module: str, name: str) -> Any:
    """Return a function of the interpreter that gevent may have replaced."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(sys.modules[module], name)
