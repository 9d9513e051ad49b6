"""The parser of ``metricslib``, and how its sub-commands end.

Exit codes: 0; 1 if it could not be done, with a line on stderr that says why; 2 for an invalid command line. ``run``
has that of its command.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from . import doctor, group, run

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="metricslib", description="Looks after the metrics of the programs of this user on this host."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (doctor, group, run):
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    except OSError as error:
        print(f"metricslib: {error}", file=sys.stderr)
        return 1
    return status


class _Version(argparse.Action):
    """Looks for the version when it is asked for: that takes longer than loading everything else that ``run`` needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        print(f"metricslib {metadata.version('metricslib')}")
        parser.exit()
