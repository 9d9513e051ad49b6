"""The one list of what differs from statsd on purpose, and the page that shows it.

``python -m tests.conformance.deviations`` writes the list into the page; a test holds the page to it.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from .daemons import Case, Crash, Statsd, ours, shown

__all__ = ["DEVIATIONS", "ELSEWHERE", "PAGE", "Deviation", "found", "rendered"]

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
PAGE = REFERENCE / "statsd-compatibility.md"
BEGIN, END = "<!-- deviations: begin -->\n", "<!-- deviations: end -->\n"
_REPEAT = re.compile(r"\{([^{}]*)\*(\d+)\}")
_LONGEST = 100


@dataclass(frozen=True)
class Deviation:
    """One difference in what Graphite gets, with a case that shows it."""

    id: str
    what: str
    why: str
    input: Sequence[Any]
    statsd: str | Sequence[str]
    """The lines that only statsd sends, or what it dies of."""
    ours: Sequence[str]
    """The lines that only we send."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def intervals(self) -> Sequence[Sequence[str]]:
        return [self.input] if isinstance(self.input[0], str) else self.input

    @property
    def case(self) -> Case:
        """The case in statsd's newer namespace. ``{text*n}`` in a datagram is n times the text."""
        intervals = [
            [_REPEAT.sub(lambda match: match[1] * int(match[2]), text).encode() for text in datagrams]
            for datagrams in self.intervals
        ]
        return Case(intervals, {"graphite": {"legacyNamespace": False}, **self.options})


_LIST = tomllib.loads((REFERENCE / "statsd-deviations.toml").read_text("utf-8"))
DEVIATIONS = [Deviation(**entry) for entry in _LIST.get("deviation", [])]
ELSEWHERE: list[Mapping[str, str]] = _LIST.get("elsewhere", [])


def found(case: Case, statsd: Statsd) -> tuple[str | list[str], list[str]]:
    """Return what only statsd sends for a case, or what it dies of, and what only we do, rates left out.

    Where statsd dies, ours is what the last flush says of other series than its own.
    """
    mine = [_few(flush, case) for flush in ours(case)]
    try:
        theirs = [_few(flush, case) for flush in statsd(case)]
    except Crash as crash:
        return str(crash), [line for line in mine[-1] if ".statsd." not in line or "bad_lines_seen" in line]
    removed: list[str] = []
    added: list[str] = []
    for before, after in zip(theirs, mine, strict=True):
        for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag != "equal":
                removed += before[i:j]
                added += after[k:m]
    return removed, added


def _few(flush: str, case: Case) -> list[str]:
    return [
        line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]}…{line[-_LONGEST // 2 :]}"
        for line in shown(flush, case.options)
        if ".rate" not in line and ".count_ps" not in line
    ]


def rendered() -> str:
    """Return the list as it stands on the page."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    for deviation in DEVIATIONS:
        yield f"### {deviation.what}\n\n{deviation.why}\n"
        if deviation.options:
            yield f"With `{json.dumps(deviation.options)}`:\n"
        yield "```diff"
        for place, datagrams in enumerate(deviation.intervals):
            if place:
                yield "  (the next interval)"
            yield from (f"  {line}" for datagram in datagrams for line in _visible(datagram))
        theirs = deviation.statsd
        yield from [f"- {theirs}"] if isinstance(theirs, str) else [f"- {line}" for line in theirs]
        yield from (f"+ {line}" for line in deviation.ours)
        yield "```\n"
    yield "## Elsewhere\n\n| | statsd | the forwarder |\n|---|---|---|"
    for entry in ELSEWHERE:
        yield f"| {entry['what']} | {entry['statsd']} | {entry['ours']} |"
    yield ""


def _visible(datagram: str) -> list[str]:
    return datagram.replace("\r", "␍").split("\n")


def page() -> str:
    """Return the page with the list as it is now."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{rendered()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
