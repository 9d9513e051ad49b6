"""How long ``import metricslib`` takes, in a new process, and what it pulls in that few programs need."""

import subprocess
import sys
from collections.abc import Callable

from .child import ROOT, environment
from .measure import Samples, Scale, in_turn, seconds
from .rows import Row, at_most

__all__ = ["ROWS", "TITLE", "run"]

TITLE = "Importing"
OURS, PEER = "import metricslib", "import prometheus_client"
PULLED_IN = "modules of flask, sqlite3 or asyncio after import metricslib"

ROWS = (Row(OURS, "ms", PEER, at_most(0.5)), Row(PULLED_IN, "", goal=at_most(0)))

_COUNT = (
    "import metricslib, sys; print(len([m for m in sys.modules if m.split('.')[0] in ('flask', 'sqlite3', 'asyncio')]))"
)


def run(scale: Scale) -> tuple[Samples, str]:
    """Return seconds, what a bare interpreter takes taken off."""
    works: dict[str, Callable[[], float]] = {
        statement: lambda statement=statement: seconds(lambda: _python(statement))  # type: ignore[misc]
        for statement in ("pass", OURS, PEER)
    }
    samples = in_turn(works, scale.rounds)
    bare = samples.pop("pass")
    net = {
        name: [max(0.0, one - less) for one, less in zip(costs, bare, strict=True)] for name, costs in samples.items()
    }
    return {**net, PULLED_IN: [float(_python(_COUNT))]}, ""


def _python(program: str) -> str:
    env = {**environment(""), "PYTHONDONTWRITEBYTECODE": ""}  # what is installed has its bytecode, so ours must too
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
