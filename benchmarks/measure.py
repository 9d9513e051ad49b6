"""Timing for noisy machines: everything in turn, several rounds, medians, and ratios within a round."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Figure", "compare", "table"]

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Figure:
    """The cost of one thing: seconds a unit, and how that relates to the floor, measured in the same rounds."""

    name: str
    seconds: float
    ratio: float


def compare(works: Mapping[str, Callable[[int], object]], count: int, units: int = 1) -> list[Figure]:
    """Time each work, called with ``count``, in turn; the first is the floor. ``units`` is how much one count does."""
    for work in works.values():
        work(max(1, count // 10))
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begin = time.perf_counter()
            work(count)
            taken[name].append((time.perf_counter() - begin) / (count * units))
    floor = next(iter(taken.values()))
    return [
        Figure(
            name,
            statistics.median(seconds),
            statistics.median(one / least for one, least in zip(seconds, floor, strict=True)),
        )
        for name, seconds in taken.items()
    ]


def table(title: str, unit: str, figures: list[Figure]) -> str:
    """Return figures as text."""
    width = max(len(figure.name) for figure in figures)
    lines = [title, f"  {'':{width}}  {unit:>12}  {'× floor':>8}"]
    lines += [f"  {figure.name:{width}}  {figure.seconds * 1e9:9.1f} ns  {figure.ratio:8.2f}" for figure in figures]
    return "\n".join(lines)
