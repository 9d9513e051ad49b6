"""A measurement in a process of its own: ``python -m benchmarks.child MODULE SCALE [ARGUMENT…]``.

A process can use only one implementation, and what one measurement leaves behind would disturb the next.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from .measure import SCALES, Samples, Scale

__all__ = ["ROOT", "IMPLEMENTATIONS", "both_implementations", "environment", "measured", "missing"]

ROOT = Path(__file__).parent.parent
IMPLEMENTATIONS = {"C": "0", "Python": "1"}
"""By implementation, what the environment variable METRICSLIB_PURE must be."""
_EXTENSIONS = {"metricslib": "metricslib._speedups", "forwarder": "forwarder._aggregator"}


def environment(implementation: str) -> dict[str, str]:
    """Return the environment of a process that uses ``implementation``, or of any."""
    return {**os.environ, "METRICSLIB_PURE": IMPLEMENTATIONS.get(implementation, "")}


def missing(implementation: str, package: str = "forwarder") -> str:
    """Return why there can be no process in which ``package`` uses ``implementation``; empty if there can."""
    extensions = [_EXTENSIONS["metricslib"], _EXTENSIONS[package]]
    absent = [name for name in dict.fromkeys(extensions) if implementation == "C" and find_spec(name) is None]
    return f"not built: {', '.join(absent)}" if absent else ""


def measured(module: str, scale: Scale, implementation: str, *arguments: str) -> Samples:
    """Return samples of ``benchmarks.MODULE.measure(scale, …)`` in a new process, under ``implementation: name``."""
    command = [sys.executable, "-m", "benchmarks.child", module, scale.name, *arguments]
    done = subprocess.run(command, env=environment(implementation), cwd=ROOT, stdout=subprocess.PIPE, check=True)
    samples: Samples = json.loads(done.stdout)
    return {f"{implementation}: {name}": costs for name, costs in samples.items()}


def both_implementations(module: str, scale: Scale, package: str) -> tuple[Samples, str]:
    """Return the samples of both implementations of ``package``, and why those of one are not there."""
    samples: Samples = {}
    notes = {implementation: missing(implementation, package) for implementation in IMPLEMENTATIONS}
    for implementation, note in notes.items():
        if not note:
            samples |= measured(module, scale, implementation)
    return samples, "; ".join(filter(None, notes.values()))


if __name__ == "__main__":
    module, scale, *arguments = sys.argv[1:]
    json.dump(import_module(f"benchmarks.{module}").measure(SCALES[scale], *arguments), sys.stdout)
