"""How many descriptors this process may have, and how many of them are for connections.

Connections come from others, as many as they like; delivery, spool and page must still find a descriptor then.
"""

import resource

__all__ = ["connections_each", "raise_limit"]

RESERVE = 128
"""Descriptors for everything but connections: the page, the console, the spool, files."""
EACH = 8
"""Descriptors beside, for each address that is listened on or delivered to."""


def raise_limit(wanted: int) -> int:
    """Raise the soft limit to ``wanted``, or as far as the hard limit allows; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= goal:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return goal


def connections_each(listeners: int, addresses: int, most: int) -> int:
    """Return how many connections each of ``listeners`` may have, ``most`` at most, after raising the limit for that.

    ``addresses`` is how many there are in all, to listen on and to deliver to.
    """
    reserve = RESERVE + EACH * addresses
    limit = raise_limit(reserve + listeners * most)
    return max(1, min(most, (limit - min(reserve, limit // 2)) // max(1, listeners)))
