"""SIGTERM and SIGHUP: a program sends what it has measured, then ends as it would have ended without this library.

By default these signals kill a Python program at once: no ``finally``, no :mod:`atexit`, and the open interval is lost.
So :func:`install` replaces their default. What happens then depends on what was there:

- The default action: the flusher is stopped, within its deadline, and the process kills itself with the same signal.
  Its parent sees that it died of SIGTERM. As process 1, which the kernel shields from the default action, it only
  flushes.
- A handler in Python (a server's graceful end, for example): for SIGTERM, a flush, then that handler with its
  arguments. If the handler is replaced later, as servers do that install theirs after the application is loaded, that
  is final: such a program ends in order, and its flusher is stopped at exit.
- Ignored, or a handler that is not in Python: it stays.

Python runs handlers in the main thread, between two steps of the interpreter, so a handler may interrupt anything, a
``stop()`` included. :func:`deferred` marks those places: a signal that arrives there is remembered, and handled at
their end. Only the main thread installs handlers; :func:`install` does nothing in another. In uWSGI it does nothing
either: uWSGI has handlers of its own, of which Python does not know, and its workers end in order.

gevent runs handlers in its event loop, where nothing may block. There, what sends runs in a greenlet of its own: the
program's handler does not wait for the flush, and the default action follows when the flusher has stopped.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["deferred", "install", "renew", "uninstall"]

_Handler = Callable[[int, FrameType | None], Any]

_NUMBERS = (signal.SIGTERM, signal.SIGHUP)
_replaced: dict[int, list[Any]] = {}  # by number, what our handler replaced, the newest last
_stop: Callable[[], object] | None = None
_flush: Callable[[], object] | None = None
_acting: list[tuple[int, FrameType | None]] = []  # what is being handled, the innermost last
_depth = 0  # of deferred()
_arrived: tuple[int, FrameType | None] | None = None  # the last signal that is deferred


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def install(stop: Callable[[], object], flush: Callable[[], object]) -> None:
    """Call ``stop`` before a signal ends the process, and ``flush`` before the program's own handler of SIGTERM."""
    global _stop, _flush
    _stop, _flush = stop, flush
    renew()


def renew() -> None:
    """Put back the handlers of the last :func:`install` where others have taken their place, as a worker does that sets
    signals up anew after the fork.
    """
    if _stop is None or not _in_main_thread() or "uwsgi" in sys.modules:
        return
    for number in _NUMBERS:
        before = signal.getsignal(number)
        if before is _handle:
            continue
        if before is signal.SIG_DFL or (number == signal.SIGTERM and callable(before)):
            _replaced.setdefault(number, []).append(before)
            signal.signal(number, _handle)


def uninstall() -> None:
    """Give back what :func:`install` replaced, except where another handler has taken its place since."""
    global _stop, _flush
    _stop = _flush = None
    if _in_main_thread():
        for number, replaced in _replaced.items():
            if signal.getsignal(number) is _handle:
                signal.signal(number, replaced[-1])
        _replaced.clear()


@contextmanager
def deferred() -> Iterator[None]:
    """In the main thread: handle a signal that arrives in this block at the end of it."""
    global _depth, _arrived
    if not _in_main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _arrived:
            arrived, _arrived = _arrived, None
            _act(*arrived)


def _handle(number: int, frame: FrameType | None) -> None:
    global _arrived
    if _depth:
        _arrived = number, frame
    else:
        _act(number, frame)


def _act(number: int, frame: FrameType | None) -> None:
    # A handler of the program may call the one that it replaced, with its own arguments; that may be this one.
    called = _acting.count((number, frame))
    replaced = _replaced.get(number, [])
    before = replaced[-1 - called] if called < len(replaced) else signal.SIG_DFL
    _acting.append((number, frame))
    try:
        if callable(before):
            _run(_try, _flush)
            before(number, frame)
        elif os.getpid() == 1:
            _run(_try, _flush)
        else:
            _run(_end, number)
    finally:
        _acting.pop()


def _run(work: Callable[..., object], *arguments: object) -> None:
    """Do it now, or in a greenlet if this is gevent's event loop, which must not block."""
    gevent = sys.modules.get("gevent")
    if gevent and isinstance(gevent.getcurrent(), sys.modules["gevent.hub"].Hub):
        gevent.spawn(work, *arguments)
    else:
        work(*arguments)


def _end(number: int) -> None:
    _try(_stop)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _try(work: Callable[[], object] | None) -> None:
    """Do it; whatever it raises, the signal must take its course."""
    try:
        if work:
            work()
    except Exception:
        import logging

        logging.getLogger("metricslib").exception("a signal ends the program, and its last interval was not sent")
