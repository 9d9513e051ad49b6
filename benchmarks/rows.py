"""The table: what was measured, what it stands beside, and the goal for that.

In: rows, which are data, and samples. Out: results, one a row, as text, as JSON or for a chart. All samples are costs,
so less is better, and every ratio is the median of the ratios within a round.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .measure import Samples

__all__ = ["Result", "Row", "at_least", "at_most", "figure", "judge", "plain", "table"]

_UNITS = {"ns": 1e9, "µs": 1e6, "ms": 1e3, "s": 1.0, "bytes": 1.0, "": 1.0, "%": 100.0}


@dataclass(frozen=True, slots=True)
class Goal:
    """Cost at most ``limit`` times what the other does, or be at least ``limit`` times cheaper."""

    limit: float
    cheaper: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.cheaper else '≤'} {self.limit:g}"

    def ratio(self, costs: float, other: float) -> float:
        """Return the ratio that the goal speaks of. Beside nothing, nothing is as good as anything."""
        above, below = (other, costs) if self.cheaper else (costs, other)
        return above / below if below else float("inf") if above else 1.0

    def met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.cheaper else ratio <= self.limit


def at_most(limit: float) -> Goal:
    return Goal(limit)


def at_least(limit: float) -> Goal:
    return Goal(limit, cheaper=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``what`` and ``against`` name samples; against nothing, the goal is for the cost itself,
    in ``unit``.
    """

    what: str
    unit: str
    against: str = ""
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its figures; these are None where the thing could not be measured, and ``note`` says why."""

    what: str
    unit: str
    cost: float | None
    """In ``unit``."""
    against: str
    other: float | None
    """What that costs, in ``unit``."""
    ratio: float | None
    goal: str
    met: bool | None
    note: str = ""


def judge(row: Row, samples: Samples, note: str = "") -> Result:
    """Return what the samples say about the row."""
    scale = _UNITS[row.unit]
    costs, others = samples.get(row.what), samples.get(row.against)
    cost = statistics.median(costs) * scale if costs else None
    other = statistics.median(others) * scale if others else None
    goal, ratio = row.goal or at_most(0), None
    if costs and others:
        ratio = statistics.median(goal.ratio(one, beside) for one, beside in zip(costs, others, strict=True))
    judged = ratio if row.against else cost
    met = goal.met(judged) if row.goal and judged is not None else None
    text = f"{goal}{'' if row.against or not row.unit else ' ' + row.unit}" if row.goal else ""
    missing = cost is None or (bool(row.against) and ratio is None)
    return Result(row.what, row.unit, cost, row.against, other, ratio, text, met, note if missing else "")


def table(title: str, results: Sequence[Result]) -> str:
    """Return results as aligned text under a title."""
    lines = [("", "cost", "beside", "ratio", "goal", "")]
    for found in results:
        mark = {True: "met", False: "NOT MET", None: found.note}[found.met]
        lines.append((found.what, figure(found.cost, found.unit), found.against, figure(found.ratio), found.goal, mark))
    widths = [max(len(line[place]) for line in lines) for place in range(6)]
    right = (False, True, False, True, False, False)
    cells = [
        "  ".join(
            cell.rjust(width) if by_right else cell.ljust(width)
            for cell, width, by_right in zip(line, widths, right, strict=True)
        )
        for line in lines
    ]
    return "\n".join([title, *("  " + line.rstrip() for line in cells)])


def plain(result: Result) -> dict[str, object]:
    """Return a result as JSON has it."""
    return asdict(result)


def figure(value: float | None, unit: str = "") -> str:
    """Return a number with its unit, as exact as it is of use."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
