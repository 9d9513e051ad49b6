"""Where the files of a group are: a private directory of this user, and in it one folder a group.

The directory must be the same for every process of the user on the host, whether a shell, cron or a service manager
started it. So it is literally ``/tmp/metricslib-UID/BOOT``, for ``TMPDIR`` and ``XDG_RUNTIME_DIR`` differ among these;
under the directory in ``METRICSLIB_GROUP_DIR`` where that is set, and under ``/dev/shm`` where ``/tmp`` cannot be used.
BOOT names this start of the machine: no lock and no open slot outlives it.

Other users can make files in ``/tmp``. A directory counts as ours only if it is a directory and no symlink, belongs to
this user, and nobody else can enter it (mode 0700). One that is there already and is not so is refused, not repaired:
another user may have filled it. Directories below ours are safe, for nobody else gets there.

Invariants: nothing outside our directory is ever written, deleted or followed through a symlink; two processes that
ship the same thing in the same way get the same folder, and others get another one; after a crash at any line there
may be empty directories, which the next process uses.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

__all__ = ["Unusable", "boot_id", "folder_name", "group_directory", "make_private", "process_group"]

PLACES = (Path("/tmp"), Path("/dev/shm"))
_HASHED = 16  # hexadecimal digits


class Unusable(OSError):
    """There is no directory that only this user can use; the message says why, for each place."""


def boot_id(path: str = "/proc/sys/kernel/random/boot_id") -> str:
    """Return what names this start of the machine; ``boot`` where it has no name, as on macOS, which empties /tmp."""
    try:
        with open(path, encoding="ascii") as file:
            name = file.read().strip()
    except (OSError, ValueError):
        return "boot"
    return name if name and name.replace("-", "").isalnum() else "boot"


def make_private(path: Path) -> None:
    """Make the directory ``path``, or see that it is one that only this user can enter. Its parent must be there.

    Raises :class:`Unusable` for a symlink, a file, another user's directory or one that others may enter, and OSError
    where it cannot be made.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise Unusable(f"{path} is a symbolic link")
    if not stat.S_ISDIR(status.st_mode):
        raise Unusable(f"{path} is no directory")
    if status.st_uid != os.geteuid():
        raise Unusable(f"{path} belongs to user {status.st_uid}, not {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Unusable(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, and others may enter it: it must be 0700")
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise Unusable(f"{path} cannot be written to")


def group_directory(
    configured: str | os.PathLike[str] | None = None, *, places: Sequence[Path] = PLACES, boot: str | None = None
) -> Path:
    """Return the directory in which the groups of this user are, made if it was not there.

    ``configured`` is the value of ``METRICSLIB_GROUP_DIR``, under which alone it then is; it is made if its parent is
    there. Raises :class:`Unusable` where there is no place for it.
    """
    if configured:
        base = Path(os.path.abspath(configured))
        try:
            os.mkdir(base, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise Unusable(str(error)) from error
        places = (base,)
    reasons = []
    for place in places:
        ours = place / f"metricslib-{os.geteuid()}"
        found = ours / (boot_id() if boot is None else boot)
        try:
            make_private(ours)
            make_private(found)
        except OSError as error:
            reasons.append(str(error))
        else:
            return found
    raise Unusable("; ".join(reasons))


def process_group(number: int | None = None) -> str:
    """Return what names this process group on this start of the machine, though numbers are used again."""
    number = os.getpgrp() if number is None else number
    try:
        with open(f"/proc/{number}/stat", "rb") as file:  # of the process that leads it
            started = file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError, UnicodeDecodeError):
        started = "unknown"
    return f"process group {number}, started at {started}"


def folder_name(what: Iterable[object], how: Mapping[str, object]) -> str:
    """Return the name of a group's folder, ``H(what)-H(how)``.

    ``what`` is shipped: prefix, namespace and destinations without options. ``how`` is everything in which the members
    must agree: interval, naming, format of records. Two living groups with the same first half and different second
    halves write the same paths.
    """
    return f"{_hash(list(map(str, what)))}-{_hash(sorted((key, str(value)) for key, value in how.items()))}"


def _hash(value: object) -> str:
    return sha256(repr(value).encode(errors="surrogatepass")).hexdigest()[:_HASHED]
