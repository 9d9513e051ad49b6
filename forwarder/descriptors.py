"""Divides the file descriptors of the process between connections and everything else.

Clients may open any number of connections. Descriptors must remain for delivery, spool and page.
"""

import resource

__all__ = ["connections_each", "raise_limit"]

RESERVE = 128
"""Descriptors that are reserved for the page, the console, the spool and files."""
EACH = 8
"""Further reserved descriptors for each listener and destination."""


def raise_limit(wanted: int) -> int:
    """Raise the soft limit to ``wanted``, or as far as the hard limit allows. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= goal:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    return goal


def connections_each(listeners: int, addresses: int, most: int) -> int:
    """Raise the limit, and return the maximum number of connections of each of ``listeners``, at most ``most``.

    ``addresses`` is the number of all listeners and destinations.
    """
    reserve = RESERVE + EACH * addresses
    limit = raise_limit(reserve + listeners * most)
    return max(1, min(most, (limit - min(reserve, limit // 2)) // max(1, listeners)))
