"""Shows what blocks an event loop of asyncio: :func:`watch_loop`.

A callback that the loop should run every so often notes how late it runs: that is the delay of everything else in this
loop, too. While it is late, a thread looks which code is running. This works with any implementation of asyncio's loop,
such as uvloop.
"""

import asyncio
import time

from .._default import default_registry
from .._scope import Instruments
from ..errors import InvalidOption
from ._watchdog import Watchdog

__all__ = ["watch_loop"]

_watched: "dict[int, _Beat]" = {}


def watch_loop(
    loop: asyncio.AbstractEventLoop | None = None, *, slow: float = 0.1, instruments: Instruments | None = None
) -> None:
    """Measure from now on how late an event loop is, and say what blocks it.

    - The timer ``asyncio.loop.lag`` is how late a callback ran that was due, measured every ``slow / 2`` seconds.
    - The gauge ``asyncio.tasks`` is the number of tasks that have not finished.
    - The timer ``asyncio.loop.blocked``, tagged ``site``, has each delay longer than ``slow``. ``site`` is the function
      of the program that was running, such as ``shop.views.parse``. It is logged with the line, for one line at most
      once a minute. A thread looks for that.

    Call it in the thread of the loop, such as in a coroutine at the start of the program. A second call for one loop
    does nothing. It ends with the loop.

    Args:
        loop: The loop; None: the running one.
        slow: Seconds that a callback may take, at least 0.001.
        instruments: A registry or a scope; None: the default registry.

    Raises:
        InvalidOption: If ``slow`` is too small.
        RuntimeError: If no loop is given and none is running.
    """
    if not slow >= 0.001:
        raise InvalidOption("slow", slow, "must be a number of seconds, at least 0.001")
    loop = loop or asyncio.get_running_loop()
    for key, beat in [*_watched.items()]:
        if beat.over:
            del _watched[key]
    if id(loop) not in _watched:
        _watched[id(loop)] = _Beat(loop, slow, instruments or default_registry)


class _Beat:
    """A callback that runs again and again in a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slow: float, instruments: Instruments) -> None:
        self.loop = loop
        self._slow = slow
        self._instruments = instruments
        self._lag = instruments.timer("asyncio.loop.lag")
        self._tasks = instruments.gauge("asyncio.tasks")
        self._watchdog = Watchdog(self, slow, "the event loop was blocked")
        self.since: float | None = None
        """When the callback should run, which is when what delays it was running already."""
        self._next()

    @property
    def over(self) -> bool:
        """Whether the loop will run no more."""
        return self.loop.is_closed()

    def _next(self) -> None:
        self.since = time.monotonic() + self._slow / 2
        self.loop.call_later(self._slow / 2, self._run)

    def _run(self) -> None:
        since, now = self.since, time.monotonic()
        assert since is not None
        self.since = None
        late = max(0.0, now - since)
        self._lag.observe(late)
        self._tasks.set(len(asyncio.all_tasks(self.loop)))
        if late > self._slow:
            place = self._watchdog.place(since)
            if place is not None:
                self._instruments.timer("asyncio.loop.blocked", tags={"site": place.function}).observe(late)
                self._watchdog.tell(place, late, now)
        self._next()
