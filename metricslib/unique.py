"""A unique: how many different things there were. statsd calls it a set."""

import sys

from .budget import Share, member_cost
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
"""How many different members are kept an interval; more are dropped and counted, cause ``unique_full``. So are those
for which the registry's budget has no room."""
_LONGEST = 256
_UNCHANGING = (str, int)


def bounded_member(text: str) -> str:
    """Return a member as it is kept: one that is very long is told from others by its hash."""
    return text if len(text) <= _LONGEST else sha256(text.encode(errors="surrogatepass")).hexdigest()


class _Members(set[str]):
    """The members of an open interval. Their bytes count as used for as long as this is there, however it ends."""

    __slots__ = ("_share", "size")

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share
        self.size = 0
        """Bytes that are counted for them."""

    def admit(self, text: str) -> bool:
        """Add a member if there is room for it."""
        size = member_cost(len(text))
        if len(self) >= MEMBERS or not self._share.fits(size):
            return False
        self.add(text)
        self.size += size
        self._share.add(size)
        return True

    def __del__(self) -> None:
        self._share.add(-self.size)


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
        elif type(member) is str and len(member) > _LONGEST:  # not in the fold: as it is, it would wait for that
            member = bounded_member(member)
        self._put(member)

    def _absorbed(self, state: _Members | None, batch: list[str | int]) -> tuple[_Members, int]:
        members, bad = _Members(self._home.budget.members) if state is None else state, 0
        for member in batch:
            text = text_or_none(member)
            if text is None:  # an int of more digits than Python writes
                bad += 1
                continue
            text = bounded_member(text)
            if text not in members and not members.admit(text):
                self._home.account.add("unique_full")
        return members, bad

    def _aggregate(self, state: _Members) -> frozenset[str] | None:
        self._home.hold_members(state.size)
        return frozenset(state) or None
