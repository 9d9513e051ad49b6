"""A unique: how many different things there were. statsd calls it a set."""

import sys

from .instrument import Instrument
from .names import text_or_none

try:  # as the standard library's random does, for hashlib loads all of OpenSSL
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256
except ImportError:  # a Python that was built to have OpenSSL's alone
    from hashlib import sha256

__all__ = ["Unique", "bounded_member"]

MEMBERS = 100_000
"""How many different members are kept an interval; more are dropped and counted, cause ``unique_full``."""
_LONGEST = 256
_UNCHANGING = (str, int)


def bounded_member(text: str) -> str:
    """Return a member as it is kept: one that is very long is told from others by its hash."""
    return text if len(text) <= _LONGEST else sha256(text.encode(errors="surrogatepass")).hexdigest()


class Unique(Instrument):
    """Counts distinct members over an interval. An idle one is 0."""

    kind = "unique"
    __slots__ = ()

    def add(self, member: object) -> None:
        """Add ``member``: a string, told from others by its characters, or anything else, told by its ``str()``.

        One whose ``str()`` raises is counted as bad and skipped.
        """
        if type(member) not in _UNCHANGING:
            # Not in the fold: by then the member may have changed, and the thread is perhaps another.
            text = text_or_none(member)
            if text is None:
                self._home.account.add("bad_value")
                return
            member = text
        self._put(member)

    def _absorbed(self, state: set[str] | None, batch: list[str | int]) -> tuple[set[str], int]:
        members, bad = set() if state is None else state, 0
        for member in batch:
            text = text_or_none(member)
            if text is None:  # an int of more digits than Python writes
                bad += 1
                continue
            text = bounded_member(text)
            if len(members) < MEMBERS:
                members.add(text)
            elif text not in members:
                self._home.account.add("unique_full")
        return members, bad

    def _aggregate(self, state: set[str]) -> frozenset[str] | None:
        return frozenset(state) or None
