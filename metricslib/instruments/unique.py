"""A unique: the number of distinct members in an interval. statsd calls it a set."""

import sys

from ..budget import member_cost
from ..series import text_or_none
from .base import Instrument

try:  # like the module random, because hashlib loads all of OpenSSL
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256
except ImportError:  # Python was built with only OpenSSL's implementation
    from hashlib import sha256

__all__ = ["Unique", "bounded_member"]

MEMBERS = 100_000
"""Maximum number of distinct members per interval. More are dropped and counted, cause ``unique_full``. So are members
for which the registry's budget has no room."""
_LONGEST = 256
_UNCHANGING = (str, int)


def bounded_member(text: str) -> str:
    """Return the stored form of a member: a long one is replaced by its hash."""
    return text if len(text) <= _LONGEST else sha256(text.encode(errors="surrogatepass")).hexdigest()


class _Members(set[str]):
    """The members of an open interval, and the number of bytes that are counted for them."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        super().__init__()
        self.size = 0


class Unique(Instrument):
    """Counts distinct members, such as users. An idle unique is 0. statsd calls this a set.

    Get one with :func:`metricslib.unique`. Members are forgotten at the end of the interval.
    """

    kind = "unique"
    __slots__ = ()

    def add(self, member: object) -> None:
        """Add a member. Adding a member again in the same interval changes nothing.

        Safe in any thread, signal handler, greenlet or forked child. Never waits.

        Args:
            member: A string, or any object, which is converted with ``str()``. If that raises an exception, the member
                is skipped and counted, cause ``bad_value``. Above 100,000 distinct members in an interval, or above the
                ``max_bytes`` of the registry, new members are dropped and counted, cause ``unique_full``. Members of
                more than 256 characters are stored as their SHA-256.
        """
        if type(member) not in _UNCHANGING:
            # Not in the fold, which may be later, when the member has changed, and in another thread.
            text = text_or_none(member)
            if text is None:
                self._owner.drops.add("bad_value")
                return
            member = text
        elif type(member) is str and len(member) > _LONGEST:  # not in the fold, so that no long string is pending
            member = bounded_member(member)
        self._put(member)

    def _absorbed(self, state: _Members | None, batch: list[str | int]) -> tuple[_Members, int]:
        members, room, size, bad = _Members() if state is None else state, self._owner.budget.members, 0, 0
        for member in batch:
            text = text_or_none(member)
            if text is None:  # an int with more digits than Python converts to text
                bad += 1
                continue
            text = bounded_member(text)
            if text in members:
                continue
            cost = member_cost(len(text))
            if len(members) < MEMBERS and room.fits(size + cost):
                members.add(text)
                size += cost
            else:
                self._owner.drops.add("unique_full")
        room.add(size)  # last, so that after an exception from a signal handler nothing has been counted
        members.size += size
        return members, bad

    def _aggregate(self, state: _Members) -> frozenset[str] | None:
        size, state.size = state.size, 0  # because a tick that ran out of memory calls this again with the same state
        self._owner.budget.members.add(-size)
        self._owner.hold_members(size)
        return frozenset(state) or None
