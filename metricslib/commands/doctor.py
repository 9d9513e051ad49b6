"""``metricslib doctor``: resolves the configuration, tries each destination, and tells what would be lost, and why.

It sends nothing: a destination is connected to, or its directory looked at.
"""

import argparse
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._accelerate import load
from ..delivery.cluster import open_destinations
from ..delivery.destination import Destination
from ..delivery.forwarder import SOCKET
from ..delivery.transport import Endpoint
from ..delivery.urls import several, without_secrets
from ..errors import MetricsError
from ..naming import Naming, expanded
from .group import shown

if TYPE_CHECKING:
    from ..group.listing import GroupStatus

__all__ = ["Diagnosis", "Finding", "Tried", "add_to", "diagnose"]

_PATIENCE = 3.0  # seconds for a connection
_VARIABLES = ("TO", "INTERVAL", "PREFIX", "GROUP_DIR", "DISABLED", "PURE")
_DATAGRAMS = ("statsd", "graphite+udp")
_UNIX = ("statsd+unix", "statsd+unixgram", "forwarder+unix", "auto")


@dataclass(frozen=True, slots=True)
class Tried:
    """A destination, and why it cannot be reached."""

    label: str
    """Its URL without what may be secret."""
    error: str | None
    """None: it can be reached."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What to know about this configuration."""

    problem: bool
    """False: it is only a remark."""
    text: str


@dataclass(slots=True)
class Diagnosis:
    """All that the doctor found."""

    version: str
    python: str
    implementation: str
    """``C`` or ``Python``."""
    environment: Mapping[str, str]
    """The variables that are set, without what may be secret."""
    to: Sequence[str] = ()
    prefix: str = ""
    interval: float | None = None
    destinations: list[Tried] = field(default_factory=list)
    group_directory: str | None = None
    groups: "Sequence[GroupStatus]" = ()
    findings: list[Finding] = field(default_factory=list)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "doctor",
        help="tell what the configuration comes to, and what would be lost",
        description="Resolves the configuration as metrics.start() does, shows the groups and their members, tries each"
        " destination, and tells what would be lost and why. Sends nothing. The exit code is 1 if there is a problem.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--to", metavar="URL", action="append", help="what the program gives to start(), if it does")
    parser.add_argument("--prefix", help="the same")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    found = diagnose(os.environ, arguments.to, arguments.prefix)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print("\n".join(_told(found, time.time())))
    return int(any(finding.problem for finding in found.findings))


def diagnose(
    environ: Mapping[str, str],
    to: Sequence[str] | None = None,
    prefix: str | None = None,
    *,
    reach: "Callable[[str], str | None] | None" = None,
) -> Diagnosis:
    """Return what ``start(to, prefix=prefix)`` would come to. ``reach(label)`` tries a destination."""
    from importlib import metadata

    variables = {name: environ[name] for each in _VARIABLES if environ.get(name := f"METRICSLIB_{each}")}
    native = load("metricslib._speedups")
    found = Diagnosis(
        version=metadata.version("metricslib"),
        python=platform.python_version(),
        implementation="Python" if native is None else "C",
        environment={name: _masked(text) if name == "METRICSLIB_TO" else text for name, text in variables.items()},
    )
    _resolve(found, variables, to, prefix)
    destinations = _destinations(found)
    for destination in destinations:
        labels = [node.label for node in destination.nodes()] or [destination.label]
        found.destinations += [Tried(label, (reach or _unreachable)(label)) for label in labels]
    _judge(found, destinations)
    if os.name == "posix":
        _look_at_groups(found, environ.get("METRICSLIB_GROUP_DIR"), destinations)
    return found


def _masked(listed: str) -> str:
    return ",".join(map(without_secrets, listed.split(",")))


def _resolve(found: Diagnosis, variables: Mapping[str, str], to: Sequence[str] | None, prefix: str | None) -> None:
    listed = variables.get("METRICSLIB_TO", "")
    if to == ["auto:"] and listed.strip():
        to = None
    try:
        found.to = several(to) if to else several(listed, "METRICSLIB_TO") if listed.strip() else ()
        found.prefix = expanded(variables.get("METRICSLIB_PREFIX", "") if prefix is None else prefix)
    except MetricsError as error:
        _add(found, f"start() raises an exception: {error}")
    text = variables.get("METRICSLIB_INTERVAL", "10")
    try:
        found.interval = float(text)
    except ValueError:
        _add(found, f"start() raises an exception: METRICSLIB_INTERVAL must be a number of seconds, not {text!r}")
    if variables.get("METRICSLIB_DISABLED", "").lower() not in ("", "0", "false", "no"):
        _add(found, "METRICSLIB_DISABLED is set: everything is measured, and nothing is sent")
    elif not found.to:
        _add(found, "nothing says where to send: set METRICSLIB_TO, or call start() with a URL", problem=False)
    if "{pid}" in (variables.get("METRICSLIB_PREFIX", "") if prefix is None else prefix):
        _add(found, "the prefix has {pid}: each process has paths of its own, and is in no group", problem=False)


def _add(found: Diagnosis, text: str, *, problem: bool = True) -> None:
    found.findings.append(Finding(problem, text))


def _destinations(found: Diagnosis) -> list[Destination]:
    opened: list[Destination] = []
    for url in found.to:
        try:
            opened += open_destinations(url, Naming(prefix=found.prefix))
        except MetricsError as error:
            _add(found, f"start() raises an exception: {error}")
    found.to = [without_secrets(url) for url in found.to]
    return opened


def _judge(found: Diagnosis, destinations: Iterable[Destination]) -> None:
    shared = {destination.label for destination in destinations if destination.shared}
    for tried in found.destinations:
        scheme = tried.label.partition(":")[0]
        if tried.error and scheme == "auto":
            _add(found, f"{tried.label}: {tried.error}: nothing is sent until it is there", problem=False)
        elif tried.error:
            kept = "in the files of the group" if tried.label in shared else "nowhere: it is lost, cause shutdown"
            _add(
                found,
                f"{tried.label} cannot be reached: {tried.error}. What is measured waits in memory, up to spool_bytes,"
                f" beyond which the oldest is dropped. When the last process ends, it is kept {kept}",
            )
        if scheme in _DATAGRAMS:
            _add(found, f"{tried.label}: datagrams may be lost on the way, and no error says so", problem=False)
    if shared and found.prefix and socket.gethostname().split(".")[0] not in found.prefix:
        _add(
            found,
            f"the prefix {found.prefix!r} does not name this host: programs on other hosts with the same prefix"
            " overwrite these values; write {host} into it",
            problem=False,
        )


def _look_at_groups(found: Diagnosis, configured: str | None, destinations: Iterable[Destination]) -> None:
    from ..group.directory import group_directory
    from ..group.listing import groups

    try:
        found.group_directory = str(group_directory(configured))
    except OSError as error:
        _add(found, f"there is no directory for groups, so several processes overwrite each other's values: {error}")
    found.groups = [group for group in groups(configured) if group.members or group.backlog]
    living: dict[str, list[GroupStatus]] = {}
    for group in found.groups:
        if group.members and group.destinations:
            living.setdefault(Path(group.folder).name.partition("-")[0], []).append(group)
        if group.backlog and not group.members:
            _add(found, f"{group.folder} has a backlog, and no process lives that would send it")
    for same in living.values():
        if len(same) > 1:
            folders = " and ".join(group.folder for group in same)
            _add(found, f"two groups send the same paths and overwrite each other's values: {folders}")


def _unreachable(label: str) -> str | None:
    """Return why a destination cannot be reached, in a few words; None: it can."""
    scheme, _, rest = label.partition(":")
    place = rest.removeprefix("//")
    try:
        if scheme == "console":
            return None
        if scheme in ("file", "whisper"):
            return _unwritable(Path(place) if scheme == "whisper" else Path(place).parent)
        if scheme in _UNIX:
            kind = socket.SOCK_DGRAM if scheme == "statsd+unixgram" else socket.SOCK_STREAM
            return _connected([Endpoint(path=place or SOCKET)], kind)
        endpoints = [_endpoint(each) for each in place.split(",")]
        return _connected(endpoints, socket.SOCK_DGRAM if scheme in _DATAGRAMS else socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or "no answer in time"


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host.strip("[]"), int(port))


def _connected(endpoints: Iterable[Endpoint], kind: int) -> str | None:
    for endpoint in endpoints:
        error: OSError | None = OSError(f"{endpoint} has no address")
        for family, address in endpoint.addresses(kind):
            with socket.socket(family, kind) as opened:
                opened.settimeout(_PATIENCE)
                try:
                    opened.connect(address)
                    error = None
                    break
                except OSError as refused:
                    error = refused
        if error is not None:
            raise error
    return None


def _unwritable(directory: Path) -> str | None:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is no directory"
    if there != directory.absolute() and there != directory.absolute().parent:
        return f"{directory.absolute().parent} does not exist"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def _told(found: Diagnosis, now: float) -> Iterator[str]:
    yield f"metricslib {found.version} ({found.implementation}), Python {found.python}"
    lines: dict[str, Any] = {
        **found.environment,
        "destinations": ", ".join(found.to) or "none",
        "prefix": found.prefix or "none",
        "interval": "invalid" if found.interval is None else f"{found.interval:g} s",
        "group files": found.group_directory or "none",
    }
    width = max(map(len, lines))
    for name, text in lines.items():
        yield f"  {name:{width}}  {text}"
    for tried in found.destinations:
        yield f"{tried.label}: {tried.error or 'can be reached'}"
    for group in found.groups:
        yield f"\n{shown(group, now)}"
    yield ""
    for finding in found.findings:
        yield f"{'PROBLEM' if finding.problem else 'note'}: {finding.text}."
    if not any(finding.problem for finding in found.findings):
        yield "No problem found."
