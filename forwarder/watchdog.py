"""The watchdog: tells the service manager that the forwarder is alive, as long as it really works.

Alive means that every listener is read, and that intervals end when they should. A process that merely exists is not
reported: the manager hears nothing more of it, and starts it anew.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from metricslib.clock import SYSTEM_CLOCK, Clock

from .notify import Notifier

__all__ = ["Watchdog"]

log = logging.getLogger("forwarder")


class _Flusher(Protocol):
    turns: int

    @property
    def interval(self) -> int: ...


class _Listener(Protocol):
    @property
    def address(self) -> str: ...
    @property
    def alive(self) -> bool: ...


class Watchdog:
    """Looks twice in the time that ``notifier`` has for it. Used once: ``start``, ``stop``.

    An interval may end late by the manager's patience, and no more.
    """

    def __init__(
        self,
        notifier: Notifier,
        flusher: _Flusher,
        listeners: Sequence[_Listener],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._notifier = notifier
        self._flusher = flusher
        self._listeners = listeners
        self._clock = clock
        self._turns = flusher.turns
        self._turned = clock.monotonic()
        self._trouble = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if the manager wants to hear that we are alive."""
        if self._notifier.watchdog:
            self._thread = threading.Thread(target=self._watch, name="forwarder watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Report nothing more. To do it twice, or without a start, does no harm."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> str:
        """Report that we are alive, or return what is wrong."""
        trouble = next(self._troubles(), "")
        if not trouble:
            self._notifier.alive()
        elif trouble != self._trouble:
            log.error("%s; the service manager is not told any more that the forwarder is alive", trouble)
            self._notifier.unwell(trouble)
        self._trouble = trouble
        return trouble

    def _troubles(self) -> Iterator[str]:
        now = self._clock.monotonic()
        if self._flusher.turns != self._turns:
            self._turns, self._turned = self._flusher.turns, now
        patience = self._flusher.interval + self._notifier.watchdog
        if now - self._turned > patience:
            yield f"no interval has ended for more than {patience:g} s"
        for listener in self._listeners:
            if not listener.alive:
                yield f"{listener.address} is not read any more"

    def _watch(self) -> None:
        while not self._over.wait(self._notifier.watchdog / 2):
            self.look()
