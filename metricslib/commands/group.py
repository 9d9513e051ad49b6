"""``metricslib group``: lists the groups of processes that send as one, and removes what ended ones left."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..group.listing import GroupStatus

__all__ = ["add_to", "shown"]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "group",
        help="list the groups of processes that send as one, or remove what is left of them",
        description="Lists the groups of this user on this host: processes that send the same series to the same"
        " destinations as one. They are in METRICSLIB_GROUP_DIR, or else in /tmp or /dev/shm.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_list)
    clear = parser.add_subparsers(metavar="clear").add_parser(
        "clear",
        help="remove the folders that no living process uses",
        description="Removes the folders that no living process uses, with the totals and the history in them, and what"
        " was not delivered.",
    )
    clear.add_argument("folder", nargs="?", metavar="FOLDER", help="only this one: its path, or the begin of its name")
    clear.add_argument("--yes", action="store_true", help="do not ask")
    clear.set_defaults(run=_clear)


def _groups() -> "list[GroupStatus]":
    if os.name != "posix":
        return []
    from ..group.listing import groups

    return groups(os.environ.get("METRICSLIB_GROUP_DIR"))


def _list(arguments: argparse.Namespace) -> int:
    found = _groups()
    if arguments.json:
        print(json.dumps([asdict(group) for group in found], indent=2))
    elif found:
        print("\n\n".join(shown(group, time.time()) for group in found))
    else:
        print("There is no group.")
    return 0


def shown(group: "GroupStatus", now: float) -> str:
    """Return a group as text."""
    from ..delivery.batch import quantity
    from ..view.figures import age, size  # with all that a page needs: not for every sub-command

    members = [
        f"{member.number}: {member.program or 'unknown'}, pid {member.pid or 'unknown'}"
        + (f", for {age(max(0, now - member.since))}" if member.since is not None else "")
        for member in group.members
    ]
    waits = [f"{size(sum(group.backlog.values()))} not delivered"] if group.backlog else []
    waits += [quantity(group.slots, "open slot")] if group.slots else []
    lines = {
        "prefix": "unknown" if group.prefix is None else group.prefix or "none",
        "destinations": ", ".join(group.destinations) or "none",
        "interval": f"{group.interval} s" if group.interval else "unknown",
        "members": f"\n{'':16}".join(members) or "none is alive",
        "last written": "never" if group.written is None else f"{age(max(0, now - group.written))} ago",
        "backlog": ", ".join(waits) or "nothing",
    }
    return "\n".join([group.folder, *(f"  {name:13} {value}" for name, value in lines.items())])


def _clear(arguments: argparse.Namespace) -> int:
    from ..group.listing import InUse, clear

    found = _groups()
    if arguments.folder is not None:
        found = [group for group in found if _is_meant(group.folder, arguments.folder)]
        if not found:
            print(f"metricslib: there is no group {arguments.folder}; see metricslib group", file=sys.stderr)
            return 1
    used = [group for group in found if group.members]
    unused = [group for group in found if not group.members]
    for group in used:
        told = ", ".join(f"{member.program or 'unknown'} (pid {member.pid})" for member in group.members)
        print(f"{group.folder} is used by {told}", file=sys.stderr)
    if unused and not (arguments.yes or _agreed(unused)):
        return 1
    for group in unused:
        try:
            clear(Path(group.folder))
        except InUse as error:
            print(error, file=sys.stderr)
            used.append(group)
        else:
            print(f"removed {group.folder}")
    return 1 if used and arguments.folder is not None else 0


def _is_meant(folder: str, asked: str) -> bool:
    return os.path.abspath(asked) == folder or (
        "/" not in asked and bool(asked) and Path(folder).name.startswith(asked)
    )


def _agreed(groups: "Sequence[GroupStatus]") -> bool:
    for group in groups:
        print(shown(group, time.time()), end="\n\n")
    print("Remove these, with all that is in them? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
