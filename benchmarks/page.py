"""What the documentation shows of the figures: the chart and the tables, as files that its page includes."""

from collections.abc import Iterator, Mapping, Sequence

from .chart import drawn
from .child import ROOT
from .rows import Result, figure

__all__ = ["publish"]

CHART = ROOT / "docs" / "_static" / "performance.svg"
TABLES = ROOT / "docs" / "_static" / "performance-tables.txt"
_MARKS = {True: "met", False: "**not met**", None: ""}


def publish(about: Mapping[str, str], titled: Mapping[str, Sequence[Result]]) -> None:
    """Write both files."""
    results = [result for found in titled.values() for result in found]
    CHART.parent.mkdir(exist_ok=True)
    costs = {found.against: found.other for found in results} | {found.what: found.cost for found in results}
    CHART.write_text(drawn({name: cost for name, cost in costs.items() if cost}))
    TABLES.write_text("\n".join(_tables(about, titled)))


def _tables(about: Mapping[str, str], titled: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    yield "Measured with " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".\n"
    for title, results in titled.items():
        yield f"**{title}**\n"
        yield "| | cost | compared with | ratio | goal | |\n|---|--:|---|--:|---|---|"
        for found in results:
            cells = (
                found.what,
                figure(found.cost, found.unit),
                found.against,
                figure(found.ratio) if found.ratio is not None else "",
                found.goal,
                _MARKS[found.met] or found.note,
            )
            yield f"| {' | '.join(cells)} |"
        yield ""
