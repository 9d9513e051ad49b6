"""Adding one after the other: the sum that is the same in every version of Python, and in C."""

import sys
from collections.abc import Iterable
from functools import reduce
from operator import add

__all__ = ["added"]

if sys.version_info >= (3, 12):  # from here on sum() makes up for what adding floats rounds away

    def added(start: float, numbers: Iterable[float]) -> float:
        """Return ``start`` and all of ``numbers``, added one after the other."""
        return reduce(add, numbers, start)

else:

    def added(start: float, numbers: Iterable[float]) -> float:
        """Return ``start`` and all of ``numbers``, added one after the other."""
        return sum(numbers, start)
