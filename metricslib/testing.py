"""Tools for tests of programs that measure: what a block of code measured, and a clock that the test controls."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ._default import default_registry
from .registry import Registry
from .series import KINDS, Kind, series_of

__all__ = ["Captured", "ManualClock", "Observed", "capture"]


@dataclass(frozen=True, slots=True)
class Observed:
    """What a timer or histogram observed."""

    count: float
    """How often."""
    sum: float
    """The sum of all values; of a timer in seconds."""


class Captured:
    """What was measured since the block began; see :func:`capture`. Its ``repr`` lists everything."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._before = self._now()
        self._found: dict[Kind, dict[str, float | Observed]] | None = None

    def counter(self, name: str, /, **tags: object) -> float:
        """Return what a counter counted; 0 if it was not used.

        Args:
            name: The name of the series.
            tags: Its tags, all of them.
        """
        found = self._of("counter", name, tags)
        return found if isinstance(found, int | float) else 0

    def gauge(self, name: str, /, **tags: object) -> float | None:
        """Return the value of a gauge now, or at the end of the block; None if it has none.

        A gauge that is read by a callback has the value of the last interval.

        Args:
            name: The name of the series.
            tags: Its tags, all of them.
        """
        found = self._of("gauge", name, tags)
        return found if isinstance(found, int | float) else None

    def timer(self, name: str, /, **tags: object) -> Observed:
        """Return how often a timer observed, and the sum in seconds.

        Args:
            name: The name of the series.
            tags: Its tags, all of them.
        """
        found = self._of("timer", name, tags)
        return found if isinstance(found, Observed) else Observed(0, 0)

    def histogram(self, name: str, /, **tags: object) -> Observed:
        """Return how often a histogram observed, and the sum.

        Args:
            name: The name of the series.
            tags: Its tags, all of them.
        """
        found = self._of("histogram", name, tags)
        return found if isinstance(found, Observed) else Observed(0, 0)

    def __repr__(self) -> str:
        lines = [
            f"{kind} {key}: "
            + (f"{value.count:g} times, sum {value.sum:g}" if isinstance(value, Observed) else f"{value:g}")
            for kind, values in self._all().items()
            for key, value in values.items()
        ]
        return f"<captured {'; '.join(lines) or 'nothing'}>"

    def _of(self, kind: Kind, name: str, tags: Mapping[str, object]) -> "float | Observed | None":
        return self._all()[kind].get(series_of(kind, name, tags).key)

    def _end(self) -> None:
        self._found = self._all()

    def _all(self) -> "dict[Kind, dict[str, float | Observed]]":
        if self._found is not None:
            return self._found
        found: dict[Kind, dict[str, float | Observed]] = {}
        for kind, values in self._now().items():
            before = self._before[kind]
            found[kind] = {}
            for key, value in values.items():
                was = before.get(key, Observed(0, 0))
                if kind == "gauge":
                    found[kind][key] = value.sum
                elif value != was:
                    counted = Observed(value.count - was.count, value.sum - was.sum)
                    found[kind][key] = counted.sum if kind == "counter" else counted
        return found

    def _now(self) -> dict[Kind, dict[str, Observed]]:
        """Return what was measured since the registry was made, which no tick changes."""
        snapshot = self._registry.snapshot()
        found: dict[Kind, dict[str, Observed]] = {kind: {} for kind in KINDS}
        for key, value in snapshot.open.gauges.items():
            found["gauge"][key] = Observed(1, value)
        for key, total in snapshot.totals["counter"].items():
            found["counter"][key] = Observed(0, total.sum + snapshot.open.counters.get(key, 0))
        units: dict[Kind, float] = {"timer": 1000, "histogram": 1}
        for kind, unit in units.items():
            for key, total in snapshot.totals[kind].items():
                now = snapshot.open[kind].get(key)
                count, whole = (now.count, now.sum) if now is not None and now.count else (0, 0)
                found[kind][key] = Observed(total.count + count, (total.sum + whole) / unit)
        return found


@contextmanager
def capture(registry: Registry = default_registry) -> Iterator[Captured]:
    """Return what the block measures, for assertions in it and after it.

    ::

        with capture() as metrics:
            client.get("/u")
        assert metrics.counter("hits", route="/u") == 1

    Nothing is reset, and a flusher that runs goes on. But in the block :func:`metricslib.start` sends nothing and joins
    no group, so the program under test may call it.

    Args:
        registry: The registry to look at.
    """
    from ._shipping import isolated

    with isolated():
        captured = Captured(registry)
        try:
            yield captured
        finally:
            captured._end()


class ManualClock:
    """A clock for tests, which stands still until it is moved.

    >>> clock = ManualClock()
    >>> clock.advance(2.5)
    >>> clock.monotonic()
    2.5

    Args:
        time: The initial wall-clock time in seconds since the epoch. The default is a multiple of every usual interval,
            so the first tick is a full interval away. Monotonic time starts at 0.
    """

    def __init__(self, time: float = 1_700_006_400.0) -> None:
        self._time = time
        self._monotonic = 0.0

    def __repr__(self) -> str:
        return f"<ManualClock time {self._time}, monotonic {self._monotonic}>"

    def time(self) -> float:
        """Return the wall-clock time in seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Return the seconds by which :meth:`advance` has moved the clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward.

        Args:
            seconds: The number of seconds, at least 0.

        Raises:
            ValueError: If ``seconds`` is negative. Use :meth:`set_time` to set the wall clock back.
        """
        if not seconds >= 0:
            raise ValueError(f"time cannot pass by {seconds!r} seconds; set_time() may go back")
        self._time += seconds
        self._monotonic += seconds

    def set_time(self, time: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does. Monotonic time does not change.

        Args:
            time: The new wall-clock time in seconds since the epoch.
        """
        self._time = time
