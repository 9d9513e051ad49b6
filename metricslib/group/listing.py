"""The groups of this user on this host: what they are, who is in them, and what waits there. Nothing here joins one."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .directory import PLACES
from .member import LOCKS

__all__ = [
    "GroupStatus",
    "InUse",
    "ListedMember",
    "clear",
    "clear_other_boots",
    "clear_pages",
    "describe",
    "groups",
    "rivals",
]

log = logging.getLogger("metricslib")

_DESCRIPTION = "group.json"
_DAY = 86_400.0


class InUse(OSError):
    """A living process uses the folder."""


@dataclass(frozen=True, slots=True)
class ListedMember:
    """A living member. Times are in seconds since the epoch; None and an empty text: it did not say."""

    number: int
    pid: int | None
    program: str
    since: float | None


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A folder of a group, which may have no members any more."""

    folder: str
    prefix: str | None
    """None: it does not say."""
    destinations: Sequence[str]
    """URLs without what may be secret; none: the group is there for the page alone."""
    interval: int | None
    members: Sequence[ListedMember]
    written: float | None
    """When a member last wrote into an open slot."""
    slots: int
    """How many slots are not closed."""
    backlog: Mapping[str, int]
    """Bytes in files of what was not delivered when its slot closed, by the name of the file."""


def describe(folder: Path, prefix: str, destinations: Sequence[str], interval: int, namespace: str = "") -> None:
    """Say in a group's folder what the group is, for people and for :func:`rivals`. What cannot be written is left out.

    ``namespace`` is what paths begin with, in any form.
    """
    about = {"prefix": prefix, "destinations": list(destinations), "interval": interval, "namespace": namespace}
    path = folder / _DESCRIPTION
    if _read(path) == about:
        return
    with suppress(OSError):
        aside = path.with_name(f"{_DESCRIPTION}.{os.getpid()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump(about, file)
        os.replace(aside, path)


def groups(configured: str | None = None, *, places: Sequence[Path] = PLACES) -> list[GroupStatus]:
    """Return the groups of this user, those of earlier boots included.

    Args:
        configured: The value of ``METRICSLIB_GROUP_DIR``, under which alone they then are.
        places: Where they are otherwise.
    """
    places = (Path(os.path.abspath(configured)),) if configured else places
    return [_status(folder) for place in places for folder in _folders(place / f"metricslib-{os.geteuid()}")]


def clear(folder: Path) -> None:
    """Remove a group's folder with all that is in it. Raises :class:`InUse` if a living process uses it, and OSError.

    The folder has another name while it is removed, so a process that joins at this moment makes one of its own.
    """
    if _is_used(folder):
        raise InUse(f"{folder} is in use")
    aside = folder.with_name(f"{folder.name}.removed-{os.getpid()}")
    os.rename(folder, aside)
    if _is_used(aside):  # since just now
        os.rename(aside, folder)
        raise InUse(f"{folder} is in use")
    shutil.rmtree(aside)


def rivals(folder: Path) -> list[Path]:
    """Return the folders of other groups with living members that write paths of this group, to the same destination.

    They have another interval or other options, or more destinations, and the two overwrite each other's values.
    """
    mine, found = _read(folder / _DESCRIPTION), []
    for other in _directories(folder.parent):
        about = _read(other / _DESCRIPTION)
        same = all(about.get(key) == mine.get(key) for key in ("prefix", "namespace"))
        both = {*about.get("destinations", ())} & {*mine.get("destinations", ())}
        absolute = any("//" in label for label in both)  # file:metrics.jsonl is another file in another directory
        if other != folder and same and absolute and list(_living(other)):
            found.append(other)
    return found


def clear_other_boots(directory: Path, now: float) -> None:
    """Remove what was left before the host was booted, a day after it was written last.

    ``directory`` has the groups of this boot. What is lost with it is logged.
    """
    for boot in _directories(directory.parent):
        if boot == directory or now - boot.stat().st_mtime <= _DAY:
            continue
        for folder in _directories(boot):
            with suppress(OSError):  # it is in use
                status = _status(folder)
                if now - max(folder.stat().st_mtime, _time(folder / "ship"), status.written or 0) > _DAY:
                    clear(folder)
                    if status.slots or status.backlog:
                        message = "removed %s, of an earlier boot, with %d intervals that were open"
                        log.warning(message, folder, status.slots)
        with suppress(OSError):  # it is not empty
            os.rmdir(boot)


def clear_pages(directory: Path) -> None:
    """Remove the folders of ended programs that had a page and shipped nothing together: nobody comes back to them."""
    for folder in _directories(directory):
        if _read(folder / _DESCRIPTION).get("destinations") == []:
            with suppress(OSError):  # it is in use
                clear(folder)


def _folders(ours: Path) -> Iterator[Path]:
    for boot in _directories(ours):
        for folder in _directories(boot):
            if (folder / "members").is_dir():
                yield folder


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _is_used(folder: Path) -> bool:
    return LOCKS.is_locked(folder / "ship") or bool(list(_living(folder)))


def _living(folder: Path) -> Iterator[int]:
    names = os.listdir(folder / "members")
    for number in sorted(int(name) for name in names if name.isdecimal()):
        if LOCKS.is_locked(folder / "members" / str(number)):
            yield number


def _status(folder: Path) -> GroupStatus:
    about = _read(folder / _DESCRIPTION)
    slots = [path for path in _directories(folder) if path.name.partition(".")[0].isdecimal()]
    times = [time for slot in slots for time in _times(slot)]
    return GroupStatus(
        folder=str(folder),
        prefix=about.get("prefix"),
        destinations=about.get("destinations", []),
        interval=about.get("interval"),
        members=[_member(folder, number) for number in _living(folder)],
        written=max(times, default=None),
        slots=len(slots),
        backlog={path.name: path.stat().st_size for path in sorted(folder.glob("backlog-*"))},
    )


def _member(folder: Path, number: int) -> ListedMember:
    about = _read(folder / "members" / f"{number}.json")
    return ListedMember(number, about.get("pid"), about.get("program") or "", about.get("since"))


def _times(slot: Path) -> Iterator[float]:
    with suppress(FileNotFoundError):  # closed just now
        for entry in os.scandir(slot):
            yield entry.stat(follow_symlinks=False).st_mtime


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
