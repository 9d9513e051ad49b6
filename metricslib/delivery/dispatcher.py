"""The dispatcher: a sender for each destination, and the store that they may share.

::

    Flusher ── encode ──▶ batches of every destination ┐                  ┌─▶ Queue ◀── Sender ──▶ Destination
                                                       ├─ commit ─▶ Store ┼─▶ Queue ◀── Sender ──▶ Destination
            ── checkpoint that is true of the window ──┘                  └─▶ Queue ◀── Sender ──▶ Destination

A window is encoded for all destinations and then committed as one, together with the checkpoint that matches it:
with a spool directory in one transaction on disk, before any of it can be sent. So after a crash at any line either the
window is there for all of them, and the checkpoint with it, or for none. Without a directory all of it is in memory.

A destination that is removed by a change delivers its waiting batches within a deadline. The rest is *parked*: kept
until the destination is added again or the program ends.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import Clock
from ..naming import Naming
from ..window import Flush
from ..wire import graphite
from .batch import Batch, Deadline, quantity
from .cluster import open_destinations
from .destination import Destination
from .queue import WINDOW_BYTES, Queue
from .sender import Sender, SenderStatus

if TYPE_CHECKING:
    from .store import Store

__all__ = ["PARKED", "Dispatcher", "Puts"]

log = logging.getLogger("metricslib")

PARKED = 16
"""For how many places that are no destination any more what waits is kept, each within the bounds of its queue."""

Puts = dict[Sender, Sequence[Batch]]
"""What each destination is to send of a window."""
Attempt = Callable[[str, Callable[[], object]], bool]


class Dispatcher:
    """A sender for each place that the URLs ``to`` name.

    What waits is kept in ``directory``, if there is one, or in memory. A window of more than ``window_bytes`` loses its
    tail. Raises :class:`~..errors.InvalidDestination`.
    """

    def __init__(
        self,
        to: Sequence[str],
        naming: Naming,
        *,
        clock: Clock,
        directory: str | Path | None = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._clock = clock
        self._window_bytes = window_bytes
        self._store = _store(directory) if directory else None
        self._senders = [self._sender(destination) for destination in self._opened(to, naming)]
        self._leaving: list[Sender] = []
        self._parked: list[Sender] = []  # of places that are no destination now, and that something waits for

    def _all(self) -> Iterator[Sender]:
        return itertools.chain(self._senders, self._leaving, self._parked)

    def __iter__(self) -> Iterator[Sender]:
        return iter(self._senders)

    def _opened(self, to: Sequence[str], naming: Naming) -> list[Destination]:
        """Open what the URLs name: more than there are URLs where one names a cluster."""
        return [destination for url in to for destination in open_destinations(url, naming, clock=self._clock)]

    def _sender(self, destination: Destination) -> Sender:
        return Sender(destination, Queue.to(destination, store=self._store, window_bytes=self._window_bytes))

    @property
    def delta_only(self) -> bool:
        """Whether none of them sends paths of its own."""
        return all(sender.destination.deltas for sender in self._senders)

    # -- start and stop

    def open(self, *, own: bool) -> Mapping[str, bytes]:
        """Begin to use the spool directory; return the checkpoint that was found. See :meth:`~.store.Store.open`."""
        if not self._store:
            return {}
        for sender in self._all():
            sender.queue.let_go()
        return self._store.open(own=own)

    def start(self) -> None:
        """Begin to deliver."""
        for sender in self._senders:
            sender.start()

    @property
    def shared(self) -> list[Destination]:
        """Those to which the processes of a group ship as one."""
        return [sender.destination for sender in self._senders if sender.destination.shared]

    def shared_queues(self) -> dict[str, Queue]:
        """Return what waits for each of these, by label."""
        return {sender.destination.label: sender.queue for sender in self._senders if sender.destination.shared}

    def wait_idle(self, deadline: Deadline, *, here: bool = False) -> bool:
        """Wait until nothing waits any more, until ``deadline``; return whether that is so.

        ``here``: deliver in the calling thread where there is no other.
        """
        return all(sender.wait_idle(deadline.left(), here=here) for sender in self._senders)

    def dropped(self) -> int:
        """How many points were dropped so far."""
        return sum(sum(sender.queue.stats().dropped.values()) for sender in self._senders)

    def halt(self) -> None:
        """End what was begun, and drop nothing. May be called when nothing was."""
        for sender in self._senders:
            sender.halt()
        if self._store:
            self._store.close()

    def stop(self, deadline: Deadline, disk: Deadline, group: Path | None = None) -> bool:
        """Deliver what waits, and end; return whether nothing was dropped. What waits on disk stays there.

        ``disk`` is how long a disk that does not answer is waited for. What was not delivered is logged in one line:
        how many points, for which destination, and whether they are kept. ``group`` is the folder in which a group of
        processes has what it sends.
        """
        senders = (*self._senders, *self._parked)
        dropped = [sender.queue.stats().dropped for sender in senders]
        if self._store:
            self._store.answer_by(disk)
        for sender in self._senders:
            sender.hurry()  # all of them now, because one that hangs may use up the time
        kept = [sender.stop(deadline.left()) for sender in self._senders]
        kept += [not sender.queue.end("shutdown") for sender in self._parked]
        if self._store:
            self._store.close(disk.left())
        fates = [
            fate for sender, past in zip(senders, dropped, strict=True) for fate in self._fates(sender, past, group)
        ]
        if fates:
            log.warning("not everything was delivered in time: %s", "; ".join(fates))
        return all(kept)

    def _fates(self, sender: Sender, past: Mapping[str, int], group: Path | None = None) -> Iterator[str]:
        """Say what became of what ``sender`` did not deliver in time; ``past`` are the drops before the end.

        Other drops have their own warnings, with what to change.
        """
        held, label = sender.queue.stats(), sender.destination.label
        if held.waiting_points and self._store:
            kept = "is kept" if held.waiting_points == 1 else "are kept"
            where = f"{kept} in {self._store.directory} for the next start"
            yield f"{quantity(held.waiting_points, 'point')} for {label} {where}"
        if lost := held.dropped.get("shutdown", 0) - past.get("shutdown", 0):
            was, is_lost = ("was", "is lost") if lost == 1 else ("were", "are lost")
            where = f"{was} in memory {'alone ' * bool(self._store)}and {is_lost}, cause shutdown"
            if group and sender.destination.shared:
                where = f"{'is' if lost == 1 else 'are'} kept in {group} until another process sends the same series"
            yield f"{quantity(lost, 'point')} for {label} {where}"

    def reset_after_fork(self) -> None:
        """In a forked child: threads, sockets, locks, files and what waits are the parent's."""
        for sender in self._all():
            sender.reset_after_fork()
        if self._store:
            self._store.reset_after_fork()

    # -- in

    def encode(self, flush: Flush, attempt: Attempt, puts: Puts, *, whole: bool, shared: bool | None = None) -> None:
        """Add to ``puts`` what each is to send of ``flush``; those that take each slot once, only if it is ``whole``.

        ``shared`` chooses those to which a group ships as one, or the others; None: all.

        Raises MemoryError if there was too little memory for one of them. The next call with the same ``puts`` goes on
        with those that are not in there.
        """
        failed: list[MemoryError] = []
        for sender in self._senders:
            destination = sender.destination
            if shared is not None and destination.shared != shared:
                continue
            if sender not in puts and (whole or destination.revise):

                def work(sender: Sender = sender) -> None:
                    try:
                        puts[sender] = sender.destination.encode(flush)
                    except MemoryError as error:
                        failed.append(error)
                        raise

                attempt(f"encode for {destination.label}", work)
        if failed:
            raise failed[0]

    def commit(self, puts: Puts, checkpoint: Mapping[str, bytes | None]) -> None:
        """Let all of it wait, and keep the checkpoint: on disk together, or not at all.

        When this raises MemoryError, ``puts`` contains what must be committed again.
        """
        entries = {sender: sender.queue.entries(batches) for sender, batches in puts.items()}
        if self._store:
            self._store.put(
                [record for sender, some in entries.items() for record in sender.queue.records(some)], checkpoint
            )
            puts.clear()  # it is on disk, and not to be there twice
        for sender, some in entries.items():
            sender.queue.admit(some)
            puts.pop(sender, None)
            if some:
                sender.wake()

    def relay(self, points: Sequence[graphite.Point]) -> None:
        """Let points that came from elsewhere wait for each that can carry them."""
        for sender in self._senders:
            sender.relay(points)

    # -- other destinations

    def prepare(self, to: Sequence[str], naming: Naming) -> Callable[[bool], None]:
        """Return what makes the change to other URLs, or other options, once it is called: whether to start new ones.

        A destination that stays, or comes back, keeps its sender, and what waits. Raises
        :class:`~..errors.InvalidDestination` here.
        """
        destinations = self._opened(to, naming)

        def change(running: bool) -> None:
            leaving, parked, senders = [*self._senders], [*self._parked], list[Sender]()
            for destination in destinations:
                label = destination.label
                found = next((sender for sender in (*leaving, *parked) if sender.destination.label == label), None)
                if found:
                    (leaving if found in leaving else parked).remove(found)
                    found.redirect(destination)
                senders.append(found or self._sender(destination))
                if running:
                    senders[-1].start()
            self._leaving, self._parked, self._senders = leaving, parked, senders

        return change

    def see_off(self, deadline: Deadline) -> Iterable[SenderStatus]:
        """Let those that are destinations no more deliver what waits, park those for which something still does, and
        yield how the others ended. Of more than :data:`PARKED`, the one that was parked first ends.
        """
        until = "until it is one again, or the program ends"
        where = f"in {self._store.directory} until it is one again" if self._store else f"in memory {until}"
        while self._leaving:
            sender, *leaving = self._leaving
            parked = [] if sender.park(deadline.left()) else [sender]
            self._leaving, self._parked = leaving, self._parked + parked
            if not parked:
                yield self._ended(sender)
            else:
                status = sender.status()
                message = "%s is no longer a destination; waiting %s: %s"
                log.warning(message, status.label, where, quantity(status.waiting_points, "point"))
            if len(self._parked) > PARKED:
                first, *self._parked = self._parked
                yield self._ended(first)

    def _ended(self, sender: Sender) -> SenderStatus:
        """Give up what waits in memory, leave what waits on disk, and return how it ended."""
        past = sender.queue.stats().dropped
        sender.queue.end("shutdown")
        if fates := list(self._fates(sender, past)):
            log.warning("more than %d destinations went with something left: %s", PARKED, "; ".join(fates))
        if self._store:
            self._store.unregister(sender.queue.place)
        return sender.status()

    def statuses(self) -> list[SenderStatus]:
        """Return how delivery goes, to those that leave and to those that something is kept for as well."""
        return [sender.status() for sender in self._all()]


def _store(directory: str | Path) -> "Store":
    from .store import Store  # with SQLite, which not every program needs

    return Store(directory)
