"""Verifies that Graphite has the delivered data: ``graphite://host?verify=http://graphite/render``.

A peer that reads to the end and closes has read every byte, but it may still lose them, for example if it is a proxy
whose server is down. So each batch of a window ends with a marker, and the render API is queried for it. Lines of a
connection are processed in order, so if Graphite has the marker, it has the whole batch.

::

    metricslib.verify.HOST.N  SEQUENCE  STAMP      N: index of the batch in the window; STAMP: the window's timestamp

               delivered                       the API shows SEQUENCE
    (encoded) ───────────▶ sent ─────────────────────────────────────────▶ verified
                            │ ▲
         not within a minute│ │ delivered again
                            ▼ │
                           again ── not within a minute, or not kept ────▶ unverified: counted and logged

*Sequence numbers* distinguish the markers of this process from those of another process that writes the same path:
their upper bits are random in each process. In one process, later markers have larger numbers. The value that Graphite
returns for the slot of STAMP decides:

=======================  ============================================================================================
the same number          verified
nothing, or a smaller    after a minute, the batch is sent once more, from the queue's resend buffer
number of this process
a larger number of this  a later interval is in the same slot: the resolution is too coarse for verification
process
another number           another process writes the same path: verification is impossible, and sending again useless
=======================  ============================================================================================

The marker is read from the batch itself, so batches of a dead process that were found on disk are also verified. Only
unverified batches are in memory here, at most :data:`PENDING` of them, without their payload.

Verification never delays delivery: :meth:`Verifier.delivered` puts into a queue and never blocks, and a thread of its
own queries the API. :meth:`Verifier.step` is one step of this thread, with time and transport passed as arguments.
"""

import itertools
import json
import logging
import math
import os
import random
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from urllib.parse import urlencode

from ..clock import SYSTEM_CLOCK, Clock
from ..naming import Naming, expanded
from ..series import prefixed
from ..timed_queue import Empty, TimedQueue
from .batch import Batch, Deadline, quantity
from .urls import without_secrets

__all__ = ["KEEP", "PENDING", "WITHIN", "Marker", "Verifier"]

log = logging.getLogger("metricslib")

WITHIN = 60.0
"""Seconds after its delivery, and after its timestamp, within which Graphite must show a batch."""
KEEP = 2 * WITHIN
"""Seconds for which the resend buffer must keep delivered batches."""
PENDING = 10_000
"""Maximum number of unverified batches. Above it, the oldest ones count as not shown."""
_GIVE_UP = 600.0  # seconds after which a batch counts as not shown if the API does not answer
_DELAY = 1.0  # seconds before the first query
_PERIOD = 5.0  # seconds between two queries
_QUIET = 60.0  # seconds between two warnings of one kind
_TARGETS = 50  # maximum number of paths in one request, which bounds the length of its URL
_LONGEST_ANSWER = 16 << 20
_REACH = 120, 86_400  # seconds before the oldest timestamp at which the queried range begins: at first, and at most
_COUNTED = 22  # bits of a sequence number that count batches; the 30 bits above them identify the process
_POINT = re.compile(rb"([^ \n]*\bmetricslib\.verify\.[^ .\n]+\.\d+) (\d{1,16}) (\d+)\n\Z")

Series = Mapping[str, Sequence[tuple[float | None, int]]]
"""Values and their times, by path."""


class Marker:
    """Appends a marker to each batch of a window. Each destination has its own, with a random ``seed``."""

    def __init__(self, naming: Naming, seed: int | None = None) -> None:
        self._path = prefixed(naming.prefix, f"metricslib.verify.{expanded('{host}')}")
        self._seed = random.getrandbits(30) if seed is None else seed
        self._count = itertools.count(1)

    def add(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return ``batches``, the batches of one window in order, with a marker each."""
        process = (self._seed + os.getpid()) % (1 << 30) << _COUNTED
        marked = []
        for place, batch in enumerate(batches):
            number = process | next(self._count) % (1 << _COUNTED)
            line = f"{self._path}.{place} {number} {batch.stamp}\n".encode()
            marked.append(replace(batch, points=batch.points + 1, payload=batch.payload + line))
        return marked


@dataclass(slots=True)
class _Sent:
    """A delivered batch whose verification is pending."""

    path: str
    stamp: int
    number: int
    line: bytes
    points: int
    time: float
    """Time of the last and of the first delivery."""
    first: float
    again: bool = False
    """True after a repetition was requested."""
    waiting: bool = False
    """True from this request until the repetition is delivered."""

    @property
    def key(self) -> tuple[str, int]:
        return self.path, self.stamp

    def is_ours(self, number: float) -> bool:
        return number == int(number) and int(number) >> _COUNTED == self.number >> _COUNTED


class _Hidden(Exception):
    """The timestamp is before all values in the API's answer."""


class Verifier:
    """Queries the render API at ``url`` for the markers of delivered batches of the destination ``label``.

    ``resend`` is called with the last lines of batches. It queues these batches again, and returns the lines of those
    that are still in the buffer, or None to be called again later (:meth:`~.queue.Queue.resend`). ``ask`` returns the
    body at a URL, or raises OSError, HTTPException or ValueError. Without :meth:`start`, each call of :meth:`step`
    queries the API if that is due.
    """

    def __init__(
        self,
        label: str,
        url: str,
        resend: Callable[[Collection[bytes]], Iterable[bytes] | None],
        *,
        timeout: float = 5.0,
        ask: Callable[[str, float], bytes] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url = url
        self._label = label
        self._resend = resend
        self._timeout = timeout
        self._ask = ask or _get
        self._clock = clock
        self._inbox: TimedQueue[_Sent | None] = TimedQueue()
        self._sent: dict[tuple[str, int], _Sent] = {}
        self._due = 0.0
        self._reach = self._asked = _REACH[0]  # seconds to look back in the next query, and in the current one
        self._shown: list[int] = []  # verified timestamps that are newer than an unverified one
        self._slots: dict[str, tuple[int, int]] = {}  # the slot and the timestamp that were verified last, by path
        self._warned: dict[str, float] = {}
        self._away: str | None = None
        self._coarse: str | None = None
        self._thread: threading.Thread | None = None
        self._stepping = threading.Lock()  # because a stopped thread may still wait for an answer
        self.verified: int | None = None
        """The timestamp up to which everything has been verified; None: nothing yet."""
        self.unverified = 0
        """Number of points in batches that Graphite did not show in time."""

    @property
    def trouble(self) -> str | None:
        """Why verification is not possible at the moment, as a sentence, or None."""
        return self._away or self._coarse

    def delivered(self, batch: Batch) -> None:
        """Verify ``batch`` if it ends with a marker of this library. Called by the sender; never blocks."""
        found = _POINT.search(batch.payload, max(0, batch.payload.rfind(b"\n", 0, -1)))
        if found and len(self._inbox) < PENDING:
            now = self._clock.monotonic()
            path, number, stamp = found[1].decode(), int(found[2]), int(found[3])
            self._inbox.put(_Sent(path, stamp, number, found[0], batch.points, now, now))

    # -- one step

    def step(self) -> float | None:
        """Query the API if that is due. Return the seconds until the next query, or None if no batch is unverified."""
        with self._stepping:
            self._take_in()
            now = self._clock.monotonic()
            if now >= self._due:
                self._due = now + _PERIOD
                self._look([one for one in self._sent.values() if not one.waiting])
                self._give_up()
                self._move_on()
            return max(0.0, self._due - self._clock.monotonic()) if self._sent else None

    def _take_in(self) -> None:
        while self._inbox:
            self._accept(self._inbox.get())

    def _accept(self, one: _Sent | None) -> None:
        if one is None:
            return
        known = self._sent.get(one.key)
        if known and known.number == one.number:
            known.time, known.waiting = one.time, False
            return
        if not self._sent:
            self._due = max(self._due, self._clock.monotonic() + _DELAY)
        self._sent[one.key] = one  # replaces an older value of the slot, which need not be verified any more
        if len(self._sent) > PENDING:
            self._fail(next(iter(self._sent.values())))

    def _look(self, some: Sequence[_Sent]) -> None:
        missing: list[_Sent] = []
        self._asked = self._reach
        try:
            for group in self._groups(some):
                series = self._series(group)
                missing += [one for one in group if not self._is_settled(one, series.get(one.path, ()))]
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            # The type of the error is sufficient; its message may quote the answer, which may contain anything.
            why = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else type(reason).__name__
            self._away = f"{without_secrets(self.url)} gives no answer to verify= ({why})"
            self._warn("away", "%s", self._away)
        else:
            self._away = None
        self._send_again(missing)

    def _groups(self, some: Sequence[_Sent]) -> Iterator[list[_Sent]]:
        """Yield groups of batches for one request each. Their ages are similar, so they are in the same archive."""
        now = self._clock.time()
        groups: dict[int, dict[str, list[_Sent]]] = {}
        for one in some:
            age = (max(0, int(now) - one.stamp) >> 7).bit_length()
            groups.setdefault(age, {}).setdefault(one.path, []).append(one)
        for _, paths in sorted(groups.items()):
            alike = list(paths.values())
            for start in range(0, len(alike), _TARGETS):
                yield [one for same in alike[start : start + _TARGETS] for one in same]

    def _series(self, group: Sequence[_Sent]) -> Series:
        """Return the API's values around the timestamps of ``group``."""
        stamps = [one.stamp for one in group]
        query = [("target", path) for path in dict.fromkeys(one.path for one in group)]
        query += [("from", str(min(stamps) - self._reach)), ("until", str(max(stamps) + 1))]
        query += [("format", "json"), ("noCache", "1")]
        url = f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(query)}"
        return _parsed(self._ask(url, self._timeout))

    def _is_settled(self, one: _Sent, points: Sequence[tuple[float | None, int]]) -> bool:
        """Return False if ``one`` must be sent again."""
        try:
            shown, slot = _at(one.stamp, points)
        except _Hidden:  # the slots are longer than expected: look further back
            self._reach = min(2 * self._asked, _REACH[1])
            return True
        if shown == one.number:
            self._verify(one, slot)
            return True
        if min(self._clock.monotonic() - one.time, self._clock.time() - one.stamp) < WITHIN:
            return True
        if shown is None or (one.is_ours(shown) and shown < one.number):
            return False
        self._fail(one)
        if one.is_ours(shown):
            self._is_coarse(one.path)
        else:
            message = "%s: another process also writes %s; verify= needs a prefix of its own for each"
            self._warn("foreign", message, self._label, one.path)
        return True

    def _verify(self, one: _Sent, slot: int) -> None:
        del self._sent[one.key]
        self._shown.append(one.stamp)
        before, self._slots[one.path] = self._slots.get(one.path), (slot, one.stamp)
        if before and before[0] == slot and before[1] != one.stamp:
            self._is_coarse(one.path)
        elif before and 0 < slot - before[0] <= one.stamp - before[1]:  # not only the end of a slot that is too long
            self._coarse = None

    def _is_coarse(self, path: str) -> None:
        self._coarse = f"Graphite keeps {path} in slots longer than the interval, so verify= proves nothing"
        self._warn("coarse", "%s: %s; see storage-schemas.conf", self._label, self._coarse)

    def _send_again(self, missing: Sequence[_Sent]) -> None:
        if not missing:
            return
        first = {one.line: one for one in missing if not one.again}
        found = self._resend(first) if first else ()
        if found is None:
            return
        kept = set(found)
        for one in missing:
            if one.line in kept:
                one.again = one.waiting = True
            else:
                self._fail(one)
        if kept:
            points = sum(first[line].points for line in kept)
            message = "%s: Graphite does not show %s that it confirmed a minute ago; sending again, once"
            self._warn("again", message, self._label, quantity(points, "point"))
        if lost := sum(one.points for one in missing if one.line not in kept):
            message = "%s: Graphite does not show %s that it confirmed; not sent again"
            self._warn("lost", message, self._label, quantity(lost, "point"))

    def _fail(self, one: _Sent) -> None:
        del self._sent[one.key]
        self.unverified += one.points

    def _give_up(self) -> None:
        now = self._clock.monotonic()
        for one in [one for one in self._sent.values() if now - one.first >= _GIVE_UP]:
            self._fail(one)

    def _move_on(self) -> None:
        if self._coarse:
            self._shown.clear()
        oldest = min((one.stamp for one in self._sent.values()), default=None)
        passed = [stamp for stamp in self._shown if oldest is None or stamp < oldest]
        if passed:
            self.verified = max(passed) if self.verified is None else max(self.verified, *passed)
            self._shown = [stamp for stamp in self._shown if oldest is not None and stamp >= oldest]

    def _warn(self, kind: str, message: str, *what: object) -> None:
        now = self._clock.monotonic()
        if now - self._warned.get(kind, -_QUIET) >= _QUIET:
            self._warned[kind] = now
            log.warning(message, *what)

    # -- the thread

    def start(self) -> None:
        """Start the thread, unless it is running. If no thread can be started, nothing is verified."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"metricslib-verify-{self._label}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None

    def stop(self) -> None:
        """Stop the thread without waiting for an answer. Unverified batches are kept for the next start."""
        self._thread = None
        self._inbox.put(None)

    def _run(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            try:
                wait = self.step()
            except Exception as error:  # a defect: continue, but not in a busy loop
                self._warn("defect", "%s: verify= met an unexpected %s", self._label, type(error).__name__)
                wait = _PERIOD
            try:
                one = self._inbox.get(timeout=wait)
                with self._stepping:
                    self._accept(one)
            except Empty:
                pass
        self._inbox.put(None)  # the item that ended this thread may have been meant for the thread started after it


def _get(url: str, timeout: float) -> bytes:
    body, deadline = bytearray(), Deadline(timeout)
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        while chunk := answer.read1(65536):
            body += chunk
            if len(body) > _LONGEST_ANSWER:
                raise ValueError("the answer is too long")
            if not deadline.left():
                raise TimeoutError
    return bytes(body)


def _parsed(body: bytes) -> Series:
    """Return the series in a render API's JSON answer. Raises ValueError for any other answer."""
    try:
        return {
            str(one["target"]): [(_number(value), int(time)) for value, time in one["datapoints"]]
            for one in json.loads(body)
        }
    except (TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError("the answer is not a list of series") from error


def _number(value: object) -> float | None:
    if value is None or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _at(stamp: int, points: Sequence[tuple[float | None, int]]) -> tuple[float | None, int]:
    """Return the value of the slot that contains ``stamp``, and the start of the slot. Raises :class:`_Hidden`."""
    before = [point for point in points if point[1] <= stamp]
    if points and not before:
        raise _Hidden
    if not before or (len(points) > 1 and before[-1][1] + points[1][1] - points[0][1] <= stamp):
        return None, 0
    return before[-1]
