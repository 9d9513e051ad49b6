"""The busiest keys, told at an interval: to a file or to the log.

A line of the file is ``2026-01-31T12:00:00Z count=105 key=web.hits``, with ``error=3`` behind it where the count may be
too high by so much. In statsd's line the moment is as JavaScript shows dates. The file is opened for each report, so
that it can be rotated. As a destination's it is not for everybody to read, and no link is followed.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence

from metricslib.clock import SYSTEM_CLOCK, Clock
from metricslib.delivery.files import open_to_append

from .busiest import Busiest
from .space_saving import Counted

__all__ = ["KeyFlush"]

log = logging.getLogger("forwarder")

_PATIENCE = 1.0  # seconds


class KeyFlush:
    """Tells ``percent`` of the busiest keys every ``interval`` seconds, in ``file`` or, without one, in the log."""

    def __init__(
        self, busiest: Busiest, interval: float, percent: float = 100, file: str = "", *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.busiest = busiest
        self._interval = interval
        self._percent = percent
        self._file = file
        self._clock = clock
        self._failed = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the first interval."""
        thread = threading.Thread(target=self._run, name="forwarder key flush", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """Tell nothing more. A file on a disk that hangs is not waited for."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            if self._over.wait(due - time.monotonic()):
                return
            try:
                self.report()
            except Exception:
                log.exception("the busiest keys could not be told")

    def report(self) -> None:
        """End the interval and tell its busiest keys."""
        top = self.busiest.end()
        top = top[: math.ceil(len(top) * self._percent / 100)]
        if not self._file:
            for entry in top:
                log.info("busiest keys: %s", _told(entry))
        elif top:
            self._append(top)

    def _append(self, top: Sequence[Counted]) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock.time()))
        try:
            with open(open_to_append(self._file), "a", encoding="utf-8") as file:
                file.writelines(f"{moment} {_told(entry)}\n" for entry in top)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("the busiest keys cannot be written to %s: %s", self._file, error.strerror)
            self._failed = True


def _told(entry: Counted) -> str:
    error = f" error={entry.error}" if entry.error else ""
    return f"count={entry.estimate} key={entry.key}{error}"
