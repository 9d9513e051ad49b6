"""Shows which greenlets hold their thread, and for how long: :func:`watch_greenlets`.

Greenlets of one thread run in turns, and each runs until it gives the thread away. One that computes for 300 ms delays
all others by that, and nothing in their own timings says why. ``greenlet.settrace`` calls a function at each switch, so
the time between two switches is what one greenlet held.
"""

import time
from collections.abc import Callable
from typing import Any

import greenlet

from .._default import default_registry
from .._scope import Instruments
from ..errors import InvalidOption
from ..instruments.timer import Timer
from ._watchdog import Watchdog

__all__ = ["watch_greenlets"]

_SITES = 1_000
"""Spawn sites with a timer of their own; all further ones share one, ``site=other``."""
_SITE = "_metricslib_site"


def watch_greenlets(slow: float = 0.1, *, instruments: Instruments | None = None) -> None:
    """Measure from now on how long each greenlet of this thread holds the thread.

    - The timer ``greenlet.hold``, tagged ``site``, is the time from one switch to the next. ``site`` is the function
      that the greenlet runs, such as ``shop.tasks.resize``; ``main`` is the thread's main greenlet. gevent's hub, which
      waits for events, is left out.
    - The counter ``greenlet.switches`` counts switches.
    - A hold longer than ``slow`` is logged with the line of the program that was running, for one line at most once a
      minute. A thread of the operating system looks for that.

    Call it once in each thread that runs greenlets; a second call in a thread does nothing. A function that was set
    with ``greenlet.settrace`` before is still called. Every switch costs about 2 µs more.

    Args:
        slow: Seconds that a greenlet may hold the thread, at least 0.001.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidOption: If ``slow`` is too small.
    """
    if not slow >= 0.001:
        raise InvalidOption("slow", slow, "must be a number of seconds, at least 0.001")
    before = greenlet.gettrace()
    if isinstance(before, _Holds):
        return
    greenlet.settrace(_Holds(instruments or default_registry, slow, before))


class _Holds:
    """The trace function of one thread."""

    over = False  # when the thread ends, this object is deleted

    def __init__(self, instruments: Instruments, slow: float, before: Callable[..., Any] | None) -> None:
        self.since: float | None = time.monotonic()
        """When the greenlet that runs now began to; None: it is the hub."""
        self._instruments = instruments
        self._slow = slow
        self._before = before
        self._timers: dict[str, Timer] = {}
        self._switches = instruments.counter("greenlet.switches")
        self._watchdog = Watchdog(self, slow, "a greenlet held its thread")

    def __call__(self, event: str, args: tuple[Any, Any]) -> None:
        if event in ("switch", "throw"):
            origin, target = args
            now = time.monotonic()
            since, self.since = self.since, None if _is_hub(target) else now
            self._switches.inc()
            if not hasattr(target, _SITE):
                _name(target, _function(target))  # before it runs: a greenlet may forget its function at the end
            if since is not None:
                self._end(origin, since, now)
        if self._before is not None:
            self._before(event, args)

    def _end(self, origin: Any, since: float, now: float) -> None:
        site = _site_of(origin)
        timer = self._timers.get(site)
        if timer is None:
            if len(self._timers) >= _SITES:
                site = "other"
            timer = self._timers[site] = self._instruments.timer("greenlet.hold", tags={"site": site})
        timer.observe(now - since)
        if now - since > self._slow:
            place = self._watchdog.place(since)
            if place is not None:
                self._watchdog.tell(place, now - since, now)


def _is_hub(target: Any) -> bool:
    return type(target).__name__ == "Hub"


def _site_of(origin: Any) -> str:
    """Return the function that a greenlet runs, as module and name."""
    site = getattr(origin, _SITE, None)
    if site is None:
        site = _function(origin) or _outermost(origin.gr_frame)
        _name(origin, site)
    return str(site)


def _name(origin: Any, site: str | None) -> None:
    if site is not None:
        try:
            setattr(origin, _SITE, site)
        except AttributeError:  # a subclass with slots
            pass


def _function(origin: Any) -> str | None:
    """Return the function that a greenlet will run, or None if the greenlet does not tell it any more."""
    if origin.parent is None:
        return "main"
    run = getattr(origin, "_run", None)  # gevent's greenlets
    name = getattr(run, "__qualname__", None)
    return None if name is None else f"{getattr(run, '__module__', None)}.{name}"


def _outermost(frame: Any) -> str:
    """Return the function of a greenlet that was left: the first of its stack."""
    if frame is None:
        return "unknown"
    while frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
