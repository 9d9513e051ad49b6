"""Adding one after the other: the sum that is the same in every version of Python, and in C.

``added(numbers, start)`` is a function in C, so that it may be given to :func:`~.attempt.attempt`.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial, reduce
from operator import add

__all__ = ["added"]

added: Callable[[Iterable[float], float], float]
"""Return the second argument and all numbers of the first, added one after the other."""

if sys.version_info >= (3, 12):  # from here on sum() makes up for what adding floats rounds away
    added = partial(reduce, add)
else:
    added = sum
