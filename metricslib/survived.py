"""Errors that must not end a thread: counted, and logged once per cause."""

import logging
from collections.abc import Callable

from .account import Account
from .attempt import from_signal_handler

__all__ = ["Survived"]

log = logging.getLogger("metricslib")


class Survived:
    """What went wrong in ``who``, and was survived. ``account`` counts it by cause."""

    def __init__(self, who: str) -> None:
        self.account = Account()
        self._who = who
        self._logged: set[str] = set()

    def attempt(self, cause: str, work: Callable[[], object]) -> bool:
        """Do the work; return whether it raised nothing. What it raises is counted under ``cause``.

        An exception of a signal handler is raised.
        """
        try:
            work()
            return True
        except Exception as error:
            if from_signal_handler(error):
                raise
            self.account.add(cause)
            if cause not in self._logged:
                self._logged.add(cause)
                log.exception(
                    "%s: %s failed with %s; it goes on, and this is logged once", self._who, cause, type(error).__name__
                )
            return False
