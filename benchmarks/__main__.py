"""Measure, print the table, write ``build/benchmarks.json``: ``make bench``, or ``python -m benchmarks [NAME…]``."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from . import aggregator, calls, imports, integrations, lines, memory, offered, taps, threads, ticks, view, workers
from .machine import machine
from .measure import SCALES
from .page import publish
from .rows import Result, judge, plain, table

BENCHMARKS: Mapping[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        calls,
        integrations,
        threads,
        imports,
        lines,
        aggregator,
        taps,
        offered,
        ticks,
        view,
        memory,
        workers,
    )
}


def main() -> None:
    options = _options()
    scale = SCALES[options.scale]
    about = machine()
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    results: dict[str, list[Result]] = {}
    titled: dict[str, list[Result]] = {}
    for name in options.names or BENCHMARKS:
        module = BENCHMARKS[name]
        samples, note = module.run(scale)
        results[name] = titled[module.TITLE] = [judge(row, samples, note) for row in module.ROWS]
        print("\n" + table(module.TITLE, results[name]), flush=True)
    missed = [result.what for found in results.values() for result in found if result.met is False]
    print(f"\n{len(missed)} goals not met" + "".join(f"\n  {what}" for what in missed))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    written = {
        "machine": about,
        "scale": scale.name,
        "results": {name: [plain(result) for result in found] for name, found in results.items()},
    }
    options.json.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    if options.docs:
        publish(about, titled)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", dest="scale", action="store_const", const="quick", help="see that it works")
    parser.add_argument("--full", dest="scale", action="store_const", const="full", help="as long as the goals say")
    parser.add_argument("--docs", action="store_true", help="write the chart and the tables of the documentation")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.set_defaults(scale="normal")
    options = parser.parse_args()
    if unknown := {*options.names} - {*BENCHMARKS}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
