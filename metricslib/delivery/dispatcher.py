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
"""Maximum number of removed destinations whose waiting data is kept, each within the bounds of its queue."""

Puts = dict[Sender, Sequence[Batch]]
"""The batches of a window for each destination."""
Attempt = Callable[[str, Callable[[], object]], bool]


class Dispatcher:
    """A sender for each destination of the URLs ``to``.

    Waiting data is kept in ``directory``, if it is given, otherwise in memory. A window of more than ``window_bytes``
    loses its tail. Raises :class:`~..errors.InvalidDestination`.
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
        self._parked: list[Sender] = []  # senders of removed destinations with waiting data

    def _all(self) -> Iterator[Sender]:
        return itertools.chain(self._senders, self._leaving, self._parked)

    def __iter__(self) -> Iterator[Sender]:
        return iter(self._senders)

    def _opened(self, to: Sequence[str], naming: Naming) -> list[Destination]:
        """Return the destinations of the URLs. A URL of a cluster has several."""
        return [destination for url in to for destination in open_destinations(url, naming, clock=self._clock)]

    def _sender(self, destination: Destination) -> Sender:
        return Sender(destination, Queue.to(destination, store=self._store, window_bytes=self._window_bytes))

    @property
    def delta_only(self) -> bool:
        """True if all destinations receive deltas."""
        return all(sender.destination.deltas for sender in self._senders)

    # -- start and stop

    def open(self, *, own: bool) -> Mapping[str, bytes]:
        """Open the spool directory, and return the checkpoint in it. See :meth:`~.store.Store.open`."""
        if not self._store:
            return {}
        for sender in self._all():
            sender.queue.forget_stored()
        return self._store.open(own=own)

    def start(self) -> None:
        """Start the threads of all senders."""
        for sender in self._senders:
            sender.start()

    @property
    def shared(self) -> list[Destination]:
        """The destinations to which the processes of a group send as one."""
        return [sender.destination for sender in self._senders if sender.destination.shared]

    def shared_queues(self) -> dict[str, Queue]:
        """Return the queues of these destinations, by label."""
        return {sender.destination.label: sender.queue for sender in self._senders if sender.destination.shared}

    def wait_idle(self, deadline: Deadline, *, here: bool = False) -> bool:
        """Wait until all queues are empty, at most until ``deadline``. Return True if they are.

        ``here``: deliver in the calling thread if a sender has no thread.
        """
        return all(sender.wait_idle(deadline.left(), here=here) for sender in self._senders)

    def dropped(self) -> int:
        """Return the number of points dropped so far."""
        return sum(sum(sender.queue.stats().dropped.values()) for sender in self._senders)

    def stop_now(self) -> None:
        """Stop all threads and close the store, without dropping data. Does nothing if nothing was started."""
        for sender in self._senders:
            sender.stop_now()
        if self._store:
            self._store.close()

    def stop(self, deadline: Deadline, disk: Deadline, group: Path | None = None) -> bool:
        """Deliver waiting data, and stop. Return True if nothing was dropped. Undelivered data on disk stays there.

        ``disk`` is the deadline for a disk that does not answer. Undelivered data is logged in one line: the number of
        points, the destination, and whether they are kept. ``group`` is the directory in which a group of processes
        keeps its data.
        """
        senders = (*self._senders, *self._parked)
        dropped = [sender.queue.stats().dropped for sender in senders]
        if self._store:
            self._store.answer_by(disk)
            if not self._store.on_disk:  # it may have room again, and delivery may use up the time
                self._store.sync(force=True)
        for sender in self._senders:
            sender.hurry()  # all of them first, because one that hangs may use all of the time
        kept = [sender.stop(deadline.left()) for sender in self._senders]
        kept += [not sender.queue.drop_unsaved("shutdown") for sender in self._parked]
        if self._store:
            self._store.close(disk.left())
        fates = [
            fate for sender, past in zip(senders, dropped, strict=True) for fate in self._fates(sender, past, group)
        ]
        if fates:
            log.warning("not everything was delivered in time: %s", "; ".join(fates))
        return all(kept)

    def _fates(self, sender: Sender, past: Mapping[str, int], group: Path | None = None) -> Iterator[str]:
        """Yield what happened to the data that ``sender`` did not deliver in time. ``past``: the drops before stop().

        Other drops have their own warnings, with advice.
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
        """In a forked child, discard threads, sockets, locks, files and waiting data, which belong to the parent."""
        for sender in self._all():
            sender.reset_after_fork()
        if self._store:
            self._store.reset_after_fork()

    # -- in

    def encode(
        self,
        flush: Flush,
        attempt: Attempt,
        puts: Puts,
        *,
        whole: bool,
        shared: bool | None = None,
        revise: bool | None = None,
    ) -> None:
        """Encode ``flush`` for each destination, and add the batches to ``puts``.

        Destinations that receive each slot once are included only if the slot is ``whole``. ``shared`` selects the
        destinations to which a group sends as one (True), all others (False), or all (None). ``revise`` selects in the
        same way those that receive a slot more than once.

        Raises MemoryError if the memory is not sufficient for one of them. The next call with the same ``puts``
        continues with the destinations that are not in it.
        """
        failed: list[MemoryError] = []
        for sender in self._senders:
            destination = sender.destination
            if shared is not None and destination.shared != shared:
                continue
            if revise is not None and destination.revise != revise:
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
        """Queue all batches, and store the checkpoint. On disk, both are in one transaction.

        After a MemoryError, ``puts`` contains the batches that must be committed again.
        """
        entries = {sender: sender.queue.entries(batches) for sender, batches in puts.items()}
        if self._store:
            self._store.put(
                [record for sender, some in entries.items() for record in sender.queue.records(some)], checkpoint
            )
            puts.clear()  # the batches are in the store, and must not be stored again
        for sender, some in entries.items():
            sender.queue.admit(some)
            puts.pop(sender, None)
            if some:
                sender.wake()

    def relay(self, points: Sequence[graphite.Point]) -> None:
        """Queue relayed points for each destination that accepts them."""
        for sender in self._senders:
            sender.relay(points)

    # -- other destinations

    def prepare(self, to: Sequence[str], naming: Naming) -> Callable[[bool], None]:
        """Return a function that changes to other URLs or options. Its argument: whether to start new senders.

        A destination that stays, or comes back, keeps its sender and its waiting data. Raises
        :class:`~..errors.InvalidDestination` before anything changes.
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

    def stop_removed(self, deadline: Deadline) -> Iterable[SenderStatus]:
        """Stop the senders of removed destinations, and yield the last status of those without waiting data.

        They deliver until the deadline. Senders that still have waiting data are parked. If more than :data:`PARKED`
        are parked, the one that was parked first is stopped, too.
        """
        until = "until it is one again, or the program ends"
        where = f"in {self._store.directory} until it is one again" if self._store else f"in memory {until}"
        while self._leaving:
            sender, *leaving = self._leaving
            parked = [] if sender.park(deadline.left()) else [sender]
            self._leaving, self._parked = leaving, self._parked + parked
            if not parked:
                yield self._remove(sender)
            else:
                status = sender.status()
                message = "%s is no longer a destination; waiting %s: %s"
                log.warning(message, status.label, where, quantity(status.waiting_points, "point"))
            if len(self._parked) > PARKED:
                first, *self._parked = self._parked
                yield self._remove(first)

    def _remove(self, sender: Sender) -> SenderStatus:
        """Drop the waiting data of ``sender`` in memory, leave that on disk, and return the last status."""
        past = sender.queue.stats().dropped
        sender.queue.drop_unsaved("shutdown")
        if fates := list(self._fates(sender, past)):
            log.warning("more than %d destinations went with something left: %s", PARKED, "; ".join(fates))
        if self._store:
            self._store.unregister(sender.queue.place)
        return sender.status()

    def statuses(self) -> list[SenderStatus]:
        """Return the state of the delivery to all destinations, including removed ones with waiting data."""
        return [sender.status() for sender in self._all()]


def _store(directory: str | Path) -> "Store":
    from .store import Store  # here, because it imports SQLite

    return Store(directory)
