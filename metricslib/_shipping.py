"""The default registry's flusher: what stands behind ``start``, ``flush`` and ``stop`` of the package itself.

Loaded when one of these is first asked for, so that a program which only measures does not wait for what ships. With
:mod:`~._default` the one place with module-level state, and the one that reads the environment. Arguments win over it.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Never

from ._default import default_registry
from .delivery import Deadline, several
from .delivery.urls import without_secrets
from .errors import AlreadyStarted, InvalidOption
from .flusher import EXIT_DEADLINE, Flusher
from .hints import unknown_option
from .naming import Naming
from .registry import Registry

__all__ = ["ensure_flusher", "flush", "start", "stop"]

_flusher: Flusher | None = None
_arguments: Mapping[str, Any] | None = None
_INTERVAL = 10.0
_lock = threading.RLock()  # re-entrant, for a signal handler may stop what is just being started


def _forget_parent() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


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
    **unknown: Never,
) -> Flusher:
    """Ship the default registry to one or several destination URLs, from a background thread, until the program ends.

    What is not given comes from ``METRICSLIB_TO`` (URLs, separated by commas), ``METRICSLIB_INTERVAL`` (seconds,
    default 10) and ``METRICSLIB_PREFIX``. With ``METRICSLIB_DISABLED`` set, everything is measured and nothing sent.
    The other options are those of :class:`~.flusher.Flusher`. Repeating the call with the same arguments does nothing;
    with others it raises :class:`~.errors.AlreadyStarted`, but in a forked child, which may ship elsewhere than its
    parent. A destination or option that cannot work raises at once, and RuntimeError says that no thread can be begun;
    then nothing has begun. See :meth:`~.flusher.Flusher.start`.
    """
    global _flusher, _arguments
    if unknown:
        raise unknown_option(start, unknown)
    if to is None:
        listed = os.environ.get("METRICSLIB_TO", "")
        urls = several(listed, "METRICSLIB_TO") if listed.strip() else ()
    else:
        urls = several(to)
    arguments = {
        "to": urls,
        "interval": _seconds("METRICSLIB_INTERVAL") if interval is None else interval,
        "prefix": os.environ.get("METRICSLIB_PREFIX", "") if prefix is None else prefix,
        "percentiles": tuple(percentiles),
        "naming": naming,
        "own": own,
        "grace": grace,
        "spool": spool,
    }
    with _lock:
        if _flusher is not None and arguments == _arguments:
            _flusher.start()
            return _flusher
        if _flusher is not None and _arguments is not None and not _flusher.left_behind:
            Flusher(Registry(), **_enabled(arguments))  # what is wrong in itself is told first
            raise AlreadyStarted(_without_secrets(_arguments), _without_secrets(arguments))
        history = _flusher.history if _flusher else None
        new = Flusher(default_registry, **_enabled(arguments), history=history)
        if _flusher is not None:  # it only ended intervals for the page, or it is the parent's
            before = _flusher.running, _flusher.left_behind
            _flusher.stop()
        try:
            new.start()
        except BaseException:
            if _flusher is not None:
                _flusher.left_behind = before[1]
                if before[0]:
                    with suppress(RuntimeError):  # the page starts it again when it is looked at
                        _flusher.start()
            raise
        _flusher, _arguments = new, arguments
        return new


def ensure_flusher() -> Flusher:
    """Return the default registry's flusher; without ``start()``, one that ends intervals and ships nothing."""
    global _flusher
    with _lock:
        if _flusher is None:
            _flusher = Flusher(default_registry, interval=_seconds("METRICSLIB_INTERVAL"))
        _flusher.start()
        return _flusher


def flush(timeout: float = 5.0) -> bool:
    """Send the open interval so far; return whether it was delivered within ``timeout`` seconds.

    Does nothing before ``start()``.
    """
    return _flusher is None or _flusher.flush(timeout)


def stop(timeout: float = EXIT_DEADLINE) -> bool:
    """Send what is left, wait at most ``timeout`` seconds for its delivery, and end; return whether nothing was lost.

    Called by itself when the program ends. The instruments go on measuring, and ``start()`` may follow.
    """
    global _flusher, _arguments
    deadline = Deadline(timeout)
    if not _lock.acquire(timeout=deadline.left()):  # another thread is in start(), and that does not end
        return False
    try:
        flusher, _flusher, _arguments = _flusher, None, None
    finally:
        _lock.release()
    return flusher is None or flusher.stop(deadline.left())


def _seconds(variable: str) -> float:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else _INTERVAL
    except ValueError:
        raise InvalidOption(variable, text, "must be a number of seconds") from None


def _enabled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    disabled = os.environ.get("METRICSLIB_DISABLED", "").lower() not in ("", "0", "false", "no")
    return {**arguments, "to": ()} if disabled else dict(arguments)
