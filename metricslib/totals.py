"""What is known of a series since it first appeared: by kind, for what a kind does not have would cost every series.

One owner writes; readers get copies.
"""

from collections.abc import Mapping
from itertools import starmap
from struct import Struct
from typing import Any, Self

from .series import Kind

__all__ = ["TOTALS", "DistributionTotal", "GaugeTotal", "SummedTotal", "Total"]

_POWER = Struct("=bd")


class Total:
    """One series since it first appeared. Which numbers may be set depends on its kind; the others are not there."""

    __slots__ = ("active", "idle", "place")

    gauge: float | None = None
    sum: float = 0
    """For counters the total."""
    count: float = 0
    """How many samples there were, by weight."""

    def __init__(self, active: float) -> None:
        self.active = active
        """End of the last interval in which something happened."""
        self.idle = 0
        """In how many windows it was since something happened to it; of kinds that stay it is not counted."""
        self.place: int | None = None
        """Where it stands among the series that are remembered over a restart; None: not settled yet."""

    @property
    def powers(self) -> Mapping[int, float]:
        """Weight of the samples in (2ᵖ⁻¹, 2ᵖ] by p; for timers in milliseconds."""
        return {}

    def take(self, happened: Any, end: float) -> None:
        """Add what happened in the interval that ended at ``end``, as :class:`~.window.Aggregates` have it."""
        self.active = end

    def leave(self) -> None:
        """It left the windows: what has a value has none any more."""

    def add(self, later: "Total") -> None:
        """Add what happened to the same series afterwards."""
        self.active = later.active

    def copy(self) -> Self:
        """Return a total that stays as this one is now."""
        return type(self)(self.active)


class GaugeTotal(Total):
    """A gauge's value."""

    __slots__ = ("gauge",)

    def __init__(self, active: float) -> None:
        self.active, self.idle, self.place = active, 0, None
        self.gauge: float | None = None

    def take(self, happened: Any, end: float) -> None:
        self.active = end
        self.gauge = happened.applied_to(self.gauge)

    def leave(self) -> None:
        self.gauge = None

    def add(self, later: Total) -> None:
        super().add(later)
        self.gauge = self.gauge if later.gauge is None else later.gauge

    def copy(self) -> Self:
        copied = super().copy()
        copied.gauge = self.gauge
        return copied


class SummedTotal(Total):
    """What was counted."""

    __slots__ = ("sum",)

    def __init__(self, active: float) -> None:
        self.active, self.idle, self.place = active, 0, None  # no super(): at each new series it takes as long again
        self.sum: float = 0

    def take(self, happened: Any, end: float) -> None:
        self.active = end
        self.sum += happened

    def add(self, later: Total) -> None:
        super().add(later)
        self.sum += later.sum

    def copy(self) -> Self:
        copied = super().copy()
        copied.sum = self.sum
        return copied


class DistributionTotal(SummedTotal):
    """How many samples there were, their sum, and in which powers of two they were."""

    __slots__ = ("_powers", "count")

    def __init__(self, active: float) -> None:
        super().__init__(active)
        self.count: float = 0
        self._powers = b""  # packed, nine bytes each; a dictionary takes more than all the rest

    @property
    def powers(self) -> Mapping[int, float]:
        return dict(_POWER.iter_unpack(self._powers))

    @powers.setter
    def powers(self, powers: Mapping[int, float]) -> None:
        self._powers = _packed(powers)

    def take(self, happened: Any, end: float) -> None:
        # All of it or nothing: there may be no memory for one of these.
        added, count, powers = self.sum + happened.sum, self.count + happened.count, self._with(happened.powers())
        self.active, self.sum, self.count = end, added, count
        self._powers = powers

    def add(self, later: Total) -> None:
        super().add(later)
        self.count += later.count
        self._powers = self._with(later.powers)

    def _with(self, later: Mapping[int, float]) -> bytes:
        powers = dict(_POWER.iter_unpack(self._powers))
        for power, weight in later.items():
            powers[power] = powers.get(power, 0) + weight
        return _packed(powers)

    def copy(self) -> Self:
        copied = super().copy()
        copied.count, copied._powers = self.count, self._powers
        return copied


def _packed(powers: Mapping[int, float]) -> bytes:
    return b"".join(starmap(_POWER.pack, powers.items()))


TOTALS: Mapping[Kind, type[Total]] = {
    "counter": SummedTotal,
    "timer": DistributionTotal,
    "histogram": DistributionTotal,
    "gauge": GaugeTotal,
    "unique": Total,
}
"""The total of each kind."""
