"""What happens in the shop at which time: a day with its wave, and an incident every few minutes.

A day of the shop lasts an hour, so that an hour of charts shows one. Pure functions of the time.
"""

import math

__all__ = ["DAY", "PRODUCTS", "busy", "trouble"]

PRODUCTS = {name: 3 + 4 * number for number, name in enumerate(("tea", "coffee", "cocoa", "honey", "salt", "pepper"))}
"""Prices by product."""
DAY = 3600
"""Seconds of a day."""
_EVERY, _LASTS = 840, 100
"""Seconds from one incident to the next, and of one."""


def busy(time: float) -> float:
    """Return the share of the day's mean traffic: little at night, much at noon.

    >>> [round(busy(hour * DAY / 24), 2) for hour in (0, 6, 12, 18)]
    [0.4, 1.0, 1.6, 1.0]
    """
    return 1 - 0.6 * math.cos(2 * math.pi * time / DAY)


def trouble(time: float) -> float:
    """Return how bad the database's incident is, from 0 to 1: it begins at once and ends slowly.

    >>> [round(trouble(time), 1) for time in (0, 739, 740, 790, 839)]
    [0.0, 0.0, 1.0, 0.5, 0.0]
    """
    since = time % _EVERY - (_EVERY - _LASTS)
    return 1 - since / _LASTS if since >= 0 else 0.0
