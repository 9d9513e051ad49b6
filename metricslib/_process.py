"""The process: its end, its forks, and its log.

``logging`` takes half as long to load as this whole package, and a program that only measures logs nothing. So
:func:`log` loads it when there is something to log: at a tick or for a reader, never in a call that measures, which
must not wait for an import. Modules that ship and deliver import ``logging`` as usual.
"""

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

__all__ = [
    "ForkHandler",
    "at_exit",
    "exiting",
    "expect_forks",
    "forks_workers",
    "log",
    "not_at_exit",
    "notice_fork",
    "register_fork_handler",
]


class ForkHandler(Protocol):
    """What a fork leaves in the parent."""

    def reset_after_fork(self) -> None:
        """In the child: forget the parent's threads, locks and files. Called inside the fork; must start nothing."""
        ...


_at_exit: dict[Callable[[], object], list[Any]] = {}  # with finalizers of multiprocessing
_renews = False


def at_exit(stop: Callable[[], object]) -> None:
    """Call ``stop`` when this process ends.

    A child of multiprocessing, or of billiard, Celery's copy of it, runs finalizers of its own instead of atexit's.
    """
    global _renews
    atexit.register(stop)
    _at_exit[stop] = []
    _finalize(stop)
    util = sys.modules.get("multiprocessing.util")
    if util and not _renews:  # a child that imports the main module first clears the finalizers of that time
        _renews = True
        util.register_after_fork(_finalize, lambda finalize: [finalize(each) for each in _at_exit])


def _finalize(stop: Callable[[], object]) -> None:
    """Call ``stop`` at the end of a child of multiprocessing, or of billiard, Celery's copy of it, if this is one."""
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing and sys.modules["multiprocessing.process"].parent_process() is not None:
        _at_exit[stop].append(multiprocessing.Finalize(None, stop, exitpriority=10))
    billiard = sys.modules.get("billiard.util")
    if billiard and sys.modules["billiard.process"].current_process()._parent_pid is not None:
        _at_exit[stop].append(billiard.Finalize(None, stop, exitpriority=10))


def exiting() -> bool:
    """Whether the interpreter is ending, so that :func:`at_exit` comes too late, and there may be no more threads.

    Functions of :mod:`atexit` are called when the main thread counts as ended; those that they register are not. From
    Python 3.12 on, no thread can be begun then.
    """
    return not threading.main_thread().is_alive()


def not_at_exit(stop: Callable[[], object]) -> None:
    """Take back :func:`at_exit`."""
    atexit.unregister(stop)
    for finalizer in _at_exit.pop(stop, ()):
        finalizer.cancel()


_told: weakref.WeakSet[ForkHandler] = weakref.WeakSet()


def register_fork_handler(one: ForkHandler) -> None:
    """Call ``one.reset_after_fork()`` in every forked child, for as long as ``one`` is in use."""
    _told.add(one)


def _forget_parent() -> None:
    global _pid
    _pid = os.getpid()
    for one in list(_told):
        one.reset_after_fork()


_pid = os.getpid()


def notice_fork() -> None:
    """Do in a child what a fork does, if Python was not told of the fork, as uWSGI tells it nothing.

    This is called where something takes long anyway: not at each call of an instrument. What the child measured before
    that cannot be told from what the parent had, and is dropped with it. :func:`expect_forks` has it called in time.
    """
    if os.getpid() != _pid:
        _forget_parent()


def forks_workers() -> bool:
    """Whether this process loads the program and forks workers later, without Python's hooks, as uWSGI does.

    No thread may be started in it. uWSGI forks after it has released the interpreter lock; if a thread has that lock at
    that moment, the worker waits for a thread that it does not have, for ever. (So does a child of a ``fork()`` that
    ctypes calls.) No Python code can prevent it, because none runs between the release and the fork.
    """
    uwsgi = sys.modules.get("uwsgi")  # which is there in uWSGI alone
    return uwsgi is not None and not (uwsgi.worker_id() or uwsgi.mule_id() or uwsgi.i_am_the_spooler())


_expects_forks = False


def expect_forks() -> None:
    """In uWSGI: do what a fork does in each worker, mule and spooler, the first worker included, which without a master
    is this process.
    """
    global _expects_forks
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or _expects_forks:
        return
    _expects_forks = True
    if not getattr(uwsgi, "has_threads", True):
        log().warning(
            "uWSGI runs this program without threads: measurements are sent only while requests are handled, and at the"
            " end of a worker; start uWSGI with --enable-threads"
        )
    if not forks_workers():
        return
    try:
        import_module("uwsgidecorators").postfork(_forget_parent)
    except Exception:  # it is not installed, or there is no master, without which it cannot be imported
        before = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            _forget_parent()
            if before:
                before()

        uwsgi.post_fork_hook = hook


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


if TYPE_CHECKING:
    from logging import Logger


def log() -> "Logger":
    """Return the library's logger."""
    from logging import getLogger

    return getLogger("metricslib")
