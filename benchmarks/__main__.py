"""Measure and print the figures, and write them to ``build/benchmarks.json``: ``make bench``."""

import json
import platform
from dataclasses import asdict
from pathlib import Path

from . import calls, intake, taps
from .measure import table


def main() -> None:
    results = {
        "a call in the program": ("a call", calls.run()),
        "a line in the forwarder": ("a line", intake.run()),
        "a line that is repeated, or whose key is counted": ("a line", taps.run()),
    }
    print(f"Python {platform.python_version()}, medians; the floor is the first line of each table\n")
    for title, (unit, figures) in results.items():
        print(table(title, unit, figures), end="\n\n")
    file = Path("build/benchmarks.json")
    file.parent.mkdir(exist_ok=True)
    plain = {
        title: [{**asdict(figure), "name": figure.name.strip()} for figure in found]
        for title, (_, found) in results.items()
    }
    file.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
