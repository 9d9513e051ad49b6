"""The flusher of the default registry: ``start``, ``flush`` and ``stop`` of the package.

Loaded at the first use of one of these, so that ``import metricslib`` does not load the code that sends. Only this
module and :mod:`~._default` have module-level state. Only this module reads the environment; arguments take precedence.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal, Never

from . import _signals
from ._default import default_registry
from ._process import notice_fork, register_fork_handler
from .delivery import Deadline, several
from .delivery.urls import without_secrets
from .errors import AlreadyStarted, InvalidOption
from .flusher import EXIT_DEADLINE, Flusher
from .hints import unknown_option
from .naming import Naming
from .registry import Registry

__all__ = ["ensure_flusher", "flush", "isolated", "start", "stop"]

_flusher: Flusher | None = None
_arguments: Mapping[str, Any] | None = None
_INTERVAL = 10.0
_AUTO = "auto:"
_isolations = 0
"""How many blocks of :func:`isolated` are under way."""
_lock = threading.RLock()  # re-entrant: a signal handler may call stop() during start()


class _ForkHandler:
    @staticmethod
    def reset_after_fork() -> None:
        global _lock
        _lock = threading.RLock()


register_fork_handler(_ForkHandler)


def _without_secrets(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**arguments, "to": tuple(map(without_secrets, arguments["to"]))}


def start(
    to: str | Iterable[str] | None = None,
    *,
    interval: float | None = None,
    prefix: str | None = None,
    percentiles: Sequence[float] = (90,),
    naming: Naming | None = None,
    own: str = "metricslib",
    grace: float = 0.0,
    spool: str | os.PathLike[str] | None = None,
    group: Literal["host"] | None = "host",
    signals: bool = True,
    **unknown: Never,
) -> Flusher:
    """Send the measurements of the default registry to one or more destinations, from a background thread.

    At the end of every interval, a window is sent to every destination. :func:`stop` is called when the program ends.
    Calling ``start()`` again with the same arguments does nothing. A forked child starts its own flusher at its first
    measurement; it may also call ``start()`` with other arguments.

    Arguments that are not given are read from the environment. If ``METRICSLIB_DISABLED`` is set, everything is
    measured and nothing is sent.

    Args:
        to: One destination URL, or several. Default: ``METRICSLIB_TO``, URLs separated by commas; if that is empty,
            too, nothing is sent. ``"auto:"`` is ``METRICSLIB_TO`` if that is set, else the forwarder of this host, from
            when it is there.
        interval: The length of an interval in whole seconds. Default: ``METRICSLIB_INTERVAL``, or else 10.
        prefix: The prefix of every name. ``{host}`` and ``{pid}`` in it are replaced. Default: ``METRICSLIB_PREFIX``,
            or else none.
        percentiles: The percentiles to send for timers and histograms, from -100 to 100 except 0.
        naming: A :class:`~metricslib.naming.Naming`, which replaces ``prefix`` and ``percentiles``.
        own: The name of the library's own metrics; empty to send none.
        grace: Seconds from the end of an interval until its window is closed, for a program that receives measurements
            of other programs.
        spool: A directory in which undelivered data, and the state of the registry, survive the process. None: they are
            kept in memory.
        group: ``"host"``: processes of this user on this host that send the same series to the same Graphite servers or
            files send as one. None: this process sends alone.
        signals: Whether SIGTERM and SIGHUP send what was measured before they end the program. If ``start()`` is called
            in the main thread and such a signal has its default action, the program calls :func:`stop` and then dies of
            the signal. If SIGTERM has a handler in Python, a flush goes before it. False: signals are left alone.

    Returns:
        The running :class:`~metricslib.Flusher`.

    Raises:
        AlreadyStarted: If ``start()`` was called before with other arguments. Call :func:`stop` first.
        InvalidDestination: If a URL is invalid.
        InvalidOption: If an argument or an environment variable has an invalid value.
        RuntimeError: If no thread can be started. Nothing has been started then.
    """
    if unknown:
        raise unknown_option(start, unknown)
    if to is None:
        listed = os.environ.get("METRICSLIB_TO", "")
        urls = several(listed, "METRICSLIB_TO") if listed.strip() else ()
    else:
        urls = several(to)
    urls = tuple(chosen for url in urls for chosen in _chosen(url))
    arguments = {
        "to": urls,
        "interval": _seconds("METRICSLIB_INTERVAL") if interval is None else interval,
        "prefix": os.environ.get("METRICSLIB_PREFIX", "") if prefix is None else prefix,
        "percentiles": tuple(percentiles),
        "naming": naming,
        "own": own,
        "grace": grace,
        "spool": spool,
        "group": group,
    }
    notice_fork()
    with _lock:
        flusher = _started(arguments)
        if signals:
            _signals.install(stop, partial(flush, EXIT_DEADLINE))
        return flusher


def _started(arguments: Mapping[str, Any]) -> Flusher:
    """Return the flusher of the default registry, running with ``arguments``. The caller has the lock."""
    global _flusher, _arguments
    if _flusher is not None and arguments == _arguments:
        _flusher.start()
        return _flusher
    if _flusher is not None and _arguments is not None and not _flusher.copied_by_fork:
        Flusher(Registry(), **_enabled(arguments))  # report invalid arguments first
        raise AlreadyStarted(_without_secrets(_arguments), _without_secrets(arguments))
    history = _flusher.history if _flusher else None
    new = Flusher(default_registry, **_enabled(arguments), history=history)
    if _flusher is not None and _flusher.has_page:
        new.for_page()
    if _flusher is not None:  # it only ended intervals for the page, or it is the parent's
        before = _flusher.running, _flusher.copied_by_fork
        _flusher.stop()
    try:
        new.start()
    except BaseException:
        if _flusher is not None:
            _flusher.copied_by_fork = before[1]
            if before[0]:
                with suppress(RuntimeError):  # the page starts it again when it is looked at
                    _flusher.start()
        raise
    _flusher, _arguments = new, arguments
    return new


def ensure_flusher() -> Flusher:
    """Return the default registry's flusher; without ``start()``, one that ends intervals and ships nothing."""
    global _flusher
    notice_fork()
    with _lock:
        if _flusher is None:
            _flusher = Flusher(default_registry, interval=_seconds("METRICSLIB_INTERVAL"))
        if not _is_isolated():
            _flusher.for_page()
        _flusher.start()
        return _flusher


def flush(timeout: float = 5.0) -> bool:
    """Send the open interval so far. The interval continues; the complete interval is sent with the same timestamp.

    Args:
        timeout: Seconds to wait for the delivery.

    Returns:
        True if everything was delivered in time. Also True if :func:`start` was not called, or if there is no
        destination.
    """
    return _flusher is None or _flusher.flush(timeout)


def stop(timeout: float = EXIT_DEADLINE) -> bool:
    """Send the open interval, wait for its delivery, and end the background thread.

    It is called when the program ends. Instruments can still be used, and :func:`start` may be called again.

    Args:
        timeout: Seconds to wait for the delivery. Data that is not delivered in time stays in the spool directory for
            the next start; without one it is dropped and counted, cause ``shutdown``.

    Returns:
        True if nothing was lost.
    """
    global _flusher, _arguments
    notice_fork()
    deadline = Deadline(timeout)
    with _signals.deferred():
        if not _lock.acquire(timeout=deadline.left()):  # another thread is in start(), and that does not end
            return False
        try:
            flusher, _flusher, _arguments = _flusher, None, None
        finally:
            _lock.release()
        stopped = flusher is None or flusher.stop(deadline.left())
    _signals.uninstall()  # after a signal that was deferred, which needs to know what it replaced
    return stopped


def _chosen(url: str) -> tuple[str, ...]:
    """Return the destinations that a URL stands for: for ``auto:`` what the environment says, if it says anything."""
    listed = os.environ.get("METRICSLIB_TO", "")
    if url.lower() != _AUTO or not listed.strip():
        return (url,)
    return tuple(dict.fromkeys(several(listed, "METRICSLIB_TO")))


def _seconds(variable: str) -> float:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else _INTERVAL
    except ValueError:
        raise InvalidOption(variable, text, "must be a number of seconds") from None


@contextmanager
def isolated() -> Iterator[None]:
    """In the block, :func:`start` sends nothing and joins no group, and neither does a page."""
    global _isolations
    _isolations += 1
    try:
        yield
    finally:
        _isolations -= 1


def _enabled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**arguments, "to": (), "group": None} if _is_isolated() else dict(arguments)


def _is_isolated() -> bool:
    return bool(_isolations) or os.environ.get("METRICSLIB_DISABLED", "").lower() not in ("", "0", "false", "no")
