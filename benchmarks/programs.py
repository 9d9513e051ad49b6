"""The programs in C beside this file: compiled when they are needed, and the load that one of them makes."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load", "Sent", "cores", "missing_compiler", "program"]

_HERE = Path(__file__).parent
_BUILT = _HERE.parent / "build" / "benchmarks"


def missing_compiler() -> str:
    """Return why programs cannot be compiled; empty if they can."""
    compiler = os.environ.get("CC", "cc")
    works = shutil.which(compiler) and not subprocess.run([compiler, "--version"], capture_output=True).returncode
    return "" if works else f"no C compiler: {compiler}"


def program(name: str) -> str:
    """Return the path of the program whose source is ``NAME.c``."""
    source, made = _HERE / f"{name}.c", _BUILT / name
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        _BUILT.mkdir(parents=True, exist_ok=True)
        new = made.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CC", "cc"), "-std=c11", "-O3", "-Wall", "-Wextra", "-o", str(new), str(source)]
        subprocess.run(command, check=True)
        new.replace(made)
    return str(made)


def cores() -> tuple[list[str], list[str]]:
    """Return how a command begins that is to run where the sender is, and where the receiver is: on two cores."""
    free = sorted(os.sched_getaffinity(0))
    if len(free) < 2 or not shutil.which("taskset"):
        return [], []
    return ["taskset", "-c", str(free[0])], ["taskset", "-c", str(free[-1])]


class Sent(NamedTuple):
    """What a load was."""

    datagrams: int
    lines: int
    counted: int
    """What was added to counters."""
    seconds: float


class Load(NamedTuple):
    """A load of lines; ``load.c`` says what each number is."""

    workload: str
    keys: int
    lines: int
    rate: int = 0

    def send(self, port: int, seconds: float) -> Sent:
        """Send for so many seconds, and return what was sent."""
        numbers = (port, *self, seconds)
        command = [*cores()[0], program("load"), *(str(number) for number in numbers)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        datagrams, lines, counted, took = done.stdout.split()
        return Sent(int(datagrams), int(lines), int(counted), float(took))
