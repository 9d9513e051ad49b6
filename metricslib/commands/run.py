"""``metricslib run``: runs a command, and sends how long it took, what it used and how it ended.

The command is the point: whatever is wrong with the metrics is said on stderr, and the command runs and its status is
passed on all the same. Measuring begins and ends after the command, so nothing runs beside it.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Never

from ..errors import MetricsError

__all__ = ["Ended", "add_to", "run", "send"]

_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_PATIENCE = 2.0  # seconds that sending may take
_KILOBYTES = 1 if sys.platform == "darwin" else 1024  # of the unit of ru_maxrss


class Ended(NamedTuple):
    """How a command ended, and what it and the processes that it waited for used."""

    status: int
    """Its exit status, or minus the number of the signal that ended it."""
    wall: float
    cpu: float
    """Seconds."""
    max_rss: int
    """Bytes of the largest process."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "run",
        help="run a command, and send how long it took, what it used and how it ended",
        description="Runs a command and sends its wall time, CPU time, largest resident size and exit status. Its"
        " status is passed on, and signals to it.",
        usage="%(prog)s [--name NAME] [--tag KEY=VALUE]... [--to URL]... [--prefix PREFIX] -- COMMAND [ARGUMENT]...",
    )
    parser.add_argument("--name", metavar="NAME", help="what the names begin with; default: the name of the command")
    parser.add_argument(
        "--tag", metavar="KEY=VALUE", action="append", type=_tag, default=[], help="a tag of all series"
    )
    parser.add_argument("--to", metavar="URL", action="append", help="default: METRICSLIB_TO, or else auto:")
    parser.add_argument("--prefix", help="default: METRICSLIB_PREFIX")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_run, refuse=parser.error)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"write KEY=VALUE, not {text}")
    return key, value


def _run(arguments: argparse.Namespace) -> int:
    command: list[str] = arguments.command[arguments.command[:1] == ["--"] :]
    if not command:
        arguments.refuse("there is no command to run")
    try:
        ended = run(command)
    except OSError as error:
        print(f"metricslib: {command[0]}: {error.strerror}", file=sys.stderr)
        ended = Ended(127 if isinstance(error, FileNotFoundError) else 126, 0.0, 0.0, 0)
    name = arguments.name or Path(command[0]).name
    try:
        send(ended, name, dict(arguments.tag), arguments.to or "auto:", arguments.prefix)
    except (MetricsError, OSError, RuntimeError) as error:
        print(f"metricslib: nothing is sent: {error}", file=sys.stderr)
    if ended.status < 0:
        _die_of(-ended.status)
    return ended.status


def run(command: Sequence[str]) -> Ended:
    """Run a command to its end, and pass signals on to it. Raises OSError where it cannot be started.

    Call it in the main thread. From then on the signals that it passes on do not end this process.
    """
    running: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if running is None:
            early.append(number)
        elif running.returncode is None:
            running.send_signal(number)

    def from_terminal(number: int, frame: FrameType | None) -> None:
        if not os.isatty(0):  # else the command has got it, too
            pass_on(number, frame)

    for name in _PASSED_ON:
        number = getattr(signal, name)
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it to the command
            signal.signal(number, pass_on)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, from_terminal)
    begin = time.monotonic()
    running = subprocess.Popen(command)
    for number in early:
        running.send_signal(number)
    _, status, used = os.wait4(running.pid, 0)
    wall = time.monotonic() - begin
    running.returncode = os.waitstatus_to_exitcode(status)
    return Ended(running.returncode, wall, used.ru_utime + used.ru_stime, used.ru_maxrss * _KILOBYTES)


def send(
    ended: Ended, name: str, tags: Mapping[str, str], to: "str | Sequence[str]", prefix: str | None = None
) -> bool:
    """Send how a command ended; return whether all of it is delivered, or in the files of a group that ships it.

    Raises :class:`~..errors.MetricsError` where the destinations or the environment are wrong.
    """
    import metricslib as metrics

    job = metrics.scope(name, tags=tags)
    metrics.start(to, prefix=prefix, own="", signals=False)
    job.counter("runs").inc()
    job.counter("failures").inc(int(ended.status != 0))
    job.gauge("status").set(ended.status)
    job.timer("wall").observe(ended.wall)
    job.timer("cpu").observe(ended.cpu)
    job.gauge("max_rss_bytes").set(ended.max_rss)
    return metrics.stop(_PATIENCE)


def _die_of(number: int) -> Never:
    """End as the command did, so that a shell or a supervisor sees the same."""
    import resource  # which Windows has not

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # it is blocked, or this is PID 1
