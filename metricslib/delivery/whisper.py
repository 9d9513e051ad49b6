"""Whisper files as a destination: Graphite's storage format, written directly, without a carbon server.

Files have the same paths as with carbon, so that graphite-web can read the directory: dots become directories, and a
series with tags has a file that is named after its hash. The last part of a path determines how values are aggregated
in coarser archives. Only one process should write to a directory.

A bad file does not affect the others: its points are dropped and counted by cause, and the log names the file once.
Only after errors that would affect every file (a full disk, no descriptors, a missing directory), the rest of the batch
is tried again.
"""

import errno
import logging
import os
import re
import struct
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from ..clock import Clock
from ..naming import Naming
from ..series import canonical_path
from ..window import Flush
from ..wire import graphite
from .batch import Batch, Deadline, Undelivered, batches_of, count_lines
from .destination import Destination, Options

log = logging.getLogger("metricslib")

__all__ = ["RETENTIONS", "WhisperDestination", "aggregation", "parse_retentions", "relative_path"]

RETENTIONS = "10s:1d,1m:30d,10m:1y"
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Maximum number of bytes of a file name on common file systems, and of a path (``PATH_MAX`` of Linux)."""
_LATEST = 2**32
_MOST_POINTS = 100_000_000
"""Maximum number of points in a file: 1.2 GB, which are filled with zeros when the file is created."""
_EVERY_FILE = (errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS)
"""Errors that would affect every file, and may be temporary. All others affect one file."""
_CAUSES = {
    errno.ENAMETOOLONG: "too_long",  # on a file system with smaller limits
    errno.EEXIST: "bad_path",
    errno.EISDIR: "bad_path",
    errno.ELOOP: "bad_path",
    errno.ENOTDIR: "bad_path",
}
"""Causes for errors of a path. Other errors of a file have the cause ``bad_file``."""
_NAMED = 100
"""Maximum number of files that the log names."""
_SUMS = re.compile(r"(?:count|sum|sum_squares)(?:_(?:top)?\d[\d_]*)?|bin_\w+")


class WhisperDestination(Destination):
    """Writes points into files below ``directory``, each with the archives ``retentions``."""

    advice: Mapping[str, str] = {
        "too_old": "set longer retentions (existing files keep theirs) or a longer max_age in its URL",
        "too_long": f"shorten names and tags: a file's name has at most {_LONGEST_NAME} bytes",
    }

    def __init__(
        self,
        label: str,
        directory: str,
        naming: Naming,
        options: Options,
        *,
        retentions: list[tuple[int, int]],
        clock: Clock,
    ) -> None:
        import whisper

        super().__init__(label, options)
        self._whisper: Any = whisper
        self.directory: Final = directory
        self._naming = naming
        self._retentions = retentions
        self._longest = max(step * points for step, points in retentions)
        self._clock = clock
        self._templates: dict[str, tuple[bytes, int]] = {}  # by method: the beginning of a file, and its size
        self._named: set[str] = set()  # files that the log has named

    def encode(self, flush: Flush) -> list[Batch]:
        stamp = flush.cumulative.end
        return batches_of(stamp, graphite.encode(self._naming.pairs(flush.cumulative), stamp))

    def deliver(self, payload: bytes, deadline: Deadline) -> Mapping[str, int]:
        """Write all points, except for those with these causes:

        ``bad_path``: no file can have the path. ``too_long``: the path is too long for a file. ``too_old``: the time is
        before the coarsest archive of the file. ``bad_stamp``: the format cannot represent the time. ``bad_file``: the
        file is damaged or cannot be opened. ``bad_line``: the line is not a point.
        """
        try:
            os.makedirs(self.directory, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:  # an error that does not concern a single path
            raise Undelivered(f"{self.directory}: {error.strerror}", payload) from error
        now = int(self._clock.time())
        lost: Counter[str] = Counter()
        left: dict[str, list[tuple[int, float]]] = {}
        points = 0
        for path, value, stamp in graphite.decode(payload):
            points += 1
            if 0 < stamp < _LATEST:
                left.setdefault(path, []).append((stamp, value))
            else:
                lost["bad_stamp"] += 1
        if bad := count_lines(payload) - points:
            lost["bad_line"] = bad
        for path in list(left):
            if not deadline.left():
                raise Undelivered(f"{self.directory}: not all could be written in time", _encoded(left), lost)
            try:
                lost.update(self._write(path, left[path], now))
            except OSError as error:
                raise Undelivered(f"{self.directory}: {error.strerror}", _encoded(left), lost) from error
            del left[path]
        return lost

    def _write(self, path: str, points: list[tuple[int, float]], now: int) -> Mapping[str, int]:
        """Write the points of one path. Return the number of lost ones, by cause. Raises OSError if every file would
        fail.
        """
        relative = relative_path(path)
        if relative is None:
            return {"bad_path": len(points)}
        file = os.path.join(self.directory, relative)
        if max(map(len, os.fsencode(relative).split(b"/"))) > _LONGEST_NAME or len(os.fsencode(file)) > _LONGEST_PATH:
            return {"too_long": len(points)}
        try:
            if not os.path.exists(file):
                if all(stamp < now - self._longest for stamp, _ in points):
                    return {"too_old": len(points)}
                self._create(file, aggregation(path, self._naming))
            with open(file, "r+b", self._whisper.BUFFERING) as opened:
                # whisper expects the newest timestamp first, and keeps the first of two points with the same timestamp.
                self._whisper.file_update_many(opened, sorted(dict(points).items(), reverse=True), now)
                oldest = now - self._retention(opened)
        except Exception as error:  # includes whisper's own, and any exception that damaged bytes may cause
            number = error.errno or 0 if isinstance(error, OSError) else 0
            if number in _EVERY_FILE:
                raise
            self._name_once(file, os.strerror(number) if number else type(error).__name__)
            return {_CAUSES.get(number, "bad_file"): len(points)}
        too_old = sum(stamp < oldest for stamp, _ in points)
        return {"too_old": too_old} if too_old else {}

    def _retention(self, opened: Any) -> int:
        """Return the number of seconds that the archives cover. whisper silently drops older points."""
        whisper = self._whisper
        opened.seek(0)
        return int(struct.unpack(whisper.metadataFormat, opened.read(whisper.metadataSize))[1])

    def _name_once(self, file: str, reason: str) -> None:
        if file not in self._named and len(self._named) < _NAMED:
            self._named.add(file)
            log.warning("%s: %.300s: %s; its points are dropped; logged once", self.label, file, reason)

    def _create(self, file: str, method: str) -> None:
        """Create the file under another name first, so that no reader sees a partial one. A link at either name is
        replaced, not followed.
        """
        folder = os.path.dirname(file)
        os.makedirs(folder, exist_ok=True)
        header, size = self._template(method)
        new = os.path.join(folder, f".{os.getpid()}.new")
        if os.path.lexists(new):
            os.unlink(new)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as made:
            made.write(header)
            made.truncate(size)
        os.replace(new, file)

    def _template(self, method: str) -> tuple[bytes, int]:
        """Return the beginning of a file that is aggregated by ``method``, and its size; the rest is zeros.

        whisper creates files only by name and follows links, so it creates one in a private directory.
        """
        if method not in self._templates:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self.directory) as private:
                made = os.path.join(private, "template")
                self._whisper.create(
                    made, list(self._retentions), xFilesFactor=0, aggregationMethod=method, sparse=True
                )
                with open(made, "rb") as file:
                    self._templates[method] = file.read().rstrip(b"\0"), os.path.getsize(made)
        return self._templates[method]


def parse_retentions(text: str) -> list[tuple[int, int]]:
    """Return archives as (seconds per point, points), from a text as in carbon's ``storage-schemas.conf``.

    Raises ValueError if the archives are invalid, and ImportError without the package ``whisper``.
    """
    import whisper

    archives = [whisper.parseRetentionDef(part.strip()) for part in text.split(",")]
    if any(seconds * points >= _LATEST for seconds, points in archives) or sum(n for _, n in archives) > _MOST_POINTS:
        raise ValueError(f"at most {_MOST_POINTS:,} points, over less than 2^32 seconds")
    try:
        whisper.validateArchiveList(archives)
    except whisper.InvalidConfiguration as error:
        raise ValueError(str(error)) from None
    return archives


def relative_path(path: str) -> str | None:
    """Return the file of a series, named as in carbon, relative to the directory, or None for an invalid path.

    Empty parts of a path are omitted, but the last part must not be empty.

    >>> relative_path("web.hits.count"), relative_path("../secret"), relative_path("a..b"), relative_path("a.b.")
    ('web/hits/count.wsp', None, 'a/b.wsp', None)
    """
    canonical = canonical_path(path)
    if canonical is None:
        return None
    if ";" in canonical:
        digest = sha256(canonical.encode()).hexdigest()
        return os.path.join("_tagged", digest[:3], digest[3:6], digest + ".wsp")
    if "/" in canonical or "\0" in canonical:
        return None
    *folders, last = canonical.split(".")
    return os.path.join(*filter(None, folders), last + ".wsp") if last else None


def aggregation(path: str, naming: Naming) -> str:
    """Return the aggregation method of ``path``: counts and sums add up, extremes stay, gauges keep the last value.

    For a set, it is the maximum, because numbers of distinct members cannot be added.

    >>> [aggregation(f"stats.timers.q.{part}", Naming()) for part in ("count_90", "upper", "lower", "mean")]
    ['sum', 'max', 'min', 'average']
    """
    name = path.partition(";")[0]
    if naming.suffix:
        name = name.removesuffix("." + naming.suffix)
    for kind, own, method in (("gauges", naming.gauges, "last"), ("sets", naming.sets, "max")):
        namespace = f"stats.{kind}" if naming.legacy else ".".join(filter(None, (naming.namespace, own)))
        if namespace and name.startswith(namespace + "."):
            return method
    last = name.rpartition(".")[2]
    if _SUMS.fullmatch(last) or (naming.legacy and name.startswith("stats_counts.")):
        return "sum"
    if last.startswith("upper"):
        return "max"
    return "min" if last.startswith("lower") else "average"


def _encoded(points: Mapping[str, Iterable[tuple[int, float]]]) -> bytes:
    return graphite.encode_points((path, value, stamp) for path, many in points.items() for stamp, value in many)
