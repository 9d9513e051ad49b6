"""The couriers of all destinations, and the spool directory they may share.

A cut is encoded for all of them and then committed as one, together with the notes that are true of it: with a spool
directory in one transaction on disk, otherwise in memory.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import Clock
from ..naming import Naming
from ..window import Cut
from ..wire import graphite
from .batch import Batch, Deadline
from .cluster import open_destinations
from .courier import Courier
from .destination import Destination
from .lanes import lanes_for
from .status import Status

if TYPE_CHECKING:
    from .journal import Journal
    from .journal_spool import JournalSpool

__all__ = ["PARKED", "Couriers", "Put"]

log = logging.getLogger("metricslib")

PARKED = 16
"""For how many places that are no destination any more what waits is kept, each within the bounds of its spool."""

Put = tuple[Courier, Batch]
Attempt = Callable[[str, Callable[[], object]], bool]


class Couriers:
    """A courier for each place that the URLs ``to`` name.

    What waits is kept in ``directory``, if there is one, or in memory.
    Raises :class:`~..errors.InvalidDestination`.
    """

    def __init__(self, to: Sequence[str], naming: Naming, *, clock: Clock, directory: str | Path | None = None) -> None:
        self._clock = clock
        self._journal = _journal(directory) if directory else None
        self._couriers = [self._courier(destination) for destination in self._opened(to, naming)]
        self._leaving: list[Courier] = []
        self._parked: list[Courier] = []  # of places that are no destination now, and that something waits for

    def __iter__(self) -> Iterator[Courier]:
        return iter(self._couriers)

    def _opened(self, to: Sequence[str], naming: Naming) -> list[Destination]:
        """Open what the URLs name: more than there are URLs where one names a cluster."""
        return [destination for url in to for destination in open_destinations(url, naming, clock=self._clock)]

    def _courier(self, destination: Destination) -> Courier:
        if self._journal is None:
            return Courier(destination)
        once = destination.deltas and not destination.resend
        spool = self._journal.spool(destination.label, lanes_for(destination), once=once)
        courier = Courier(destination, spool)
        spool.wake = courier.wake
        return courier

    @property
    def delta_only(self) -> bool:
        """Whether none of them sends paths of its own."""
        return all(courier.destination.deltas for courier in self._couriers)

    # -- start and stop

    def open(self, *, own: bool) -> Mapping[str, bytes]:
        """Begin to use the spool directory; return the notes that were found there. See :meth:`~.journal.Journal.open`.

        Raises nothing.
        """
        return self._journal.open(own=own) if self._journal else {}

    def start(self) -> None:
        """Begin to deliver."""
        for courier in self._couriers:
            courier.start()

    def wait_idle(self, deadline: Deadline, *, here: bool = False) -> bool:
        """Return whether nothing waits any more, as soon as that is so, or when the time is over.

        ``here``: deliver in the calling thread where there is no other.
        """
        return all(courier.wait_idle(deadline.left(), here=here) for courier in self._couriers)

    def halt(self) -> None:
        """End what was begun, and drop nothing. May be called when nothing was."""
        for courier in self._couriers:
            courier.halt()
        if self._journal:
            self._journal.close()

    def stop(self, deadline: Deadline, disk: Deadline) -> bool:
        """Deliver what waits, and end; return whether nothing was dropped. What waits on disk stays there.

        ``disk`` is how long a disk that does not answer is waited for. What was not delivered is logged in one line:
        how many points, for which destination, and what became of them.
        """
        couriers = (*self._couriers, *self._parked)
        dropped = [courier.spool.holdings().dropped for courier in couriers]
        if self._journal:
            self._journal.answer_by(disk)
        for courier in self._couriers:
            courier.hurry()  # all of them now, for one that hangs may take all the time there is
        kept = [courier.stop(deadline.left()) for courier in self._couriers]
        kept += [courier.end() for courier in self._parked]
        if self._journal:
            self._journal.close(disk.left())
        fates = [fate for courier, past in zip(couriers, dropped, strict=True) for fate in self._fates(courier, past)]
        if fates:
            log.warning("not everything was delivered in time: %s", "; ".join(fates))
        return all(kept)

    def _fates(self, courier: Courier, past: Mapping[str, int]) -> Iterator[str]:
        """Say what became of what ``courier`` did not deliver, beyond what had been dropped before."""
        held, label = courier.spool.holdings(), courier.destination.label
        if held.waiting_points and self._journal:
            yield f"{held.waiting_points} points for {label} are kept in {self._journal.directory} for the next start"
        for cause, points in held.dropped.items():
            if points := points - past.get(cause, 0):
                where = f"were in memory {'alone ' * bool(self._journal)}and are lost"
                yield f"{points} points for {label} {where if cause == 'shutdown' else 'are dropped'}, cause {cause}"

    def forget(self) -> None:
        """In a forked child: threads, sockets, locks, files and what waits are the parent's."""
        for courier in (*self._couriers, *self._leaving, *self._parked):
            courier.forget()
        if self._journal:
            self._journal.forget()

    # -- what is to be delivered

    def encode(self, cut: Cut, attempt: Attempt, *, whole: bool) -> list[Put]:
        """Return what each is to send of ``cut``; those that take each slot once, only if it is ``whole``."""
        puts: list[Put] = []
        for courier in self._couriers:
            destination = courier.destination
            if whole or destination.revise:

                def work(courier: Courier = courier) -> None:
                    puts.extend([(courier, batch) for batch in courier.destination.encode(cut)])

                attempt(f"encode for {destination.label}", work)
        return puts

    def commit(self, puts: Sequence[Put], notes: Mapping[str, bytes | None]) -> None:
        """Let all of it wait, and keep the notes: on disk together, or not at all."""
        if self._journal is None:
            for courier, batch in puts:
                courier.offer(batch)
            return
        self._journal.commit([(_spool(courier), batch) for courier, batch in puts], notes)
        for courier, _ in puts:
            courier.wake()

    def relay(self, points: Sequence[graphite.Point]) -> None:
        """Let points that came from elsewhere wait for each that can carry them."""
        for courier in self._couriers:
            courier.relay(points)

    # -- other destinations

    def prepare(self, to: Sequence[str], naming: Naming) -> Callable[[bool], None]:
        """Return what makes the change to other URLs, or other options, once it is called: whether to start new ones.

        A destination that stays, or comes back, keeps its courier, and what waits. Raises
        :class:`~..errors.InvalidDestination` here.
        """
        destinations = self._opened(to, naming)

        def change(running: bool) -> None:
            leaving, parked, couriers = [*self._couriers], [*self._parked], list[Courier]()
            for destination in destinations:
                label = destination.label
                found = next((courier for courier in (*leaving, *parked) if courier.destination.label == label), None)
                if found:
                    (leaving if found in leaving else parked).remove(found)
                    found.redirect(destination)
                couriers.append(found or self._courier(destination))
                if running:
                    couriers[-1].start()
            self._leaving, self._parked, self._couriers = leaving, parked, couriers

        return change

    def see_off(self, deadline: Deadline) -> Iterable[Status]:
        """Let those that are destinations no more deliver what waits, park those for which something still does, and
        yield how the others ended. Of more than :data:`PARKED`, the one that was parked first ends.
        """
        until = "until it is one again, or the program ends"
        where = f"in {self._journal.directory} until it is one again" if self._journal else f"in memory {until}"
        while self._leaving:
            courier, *leaving = self._leaving
            parked = [] if courier.park(deadline.left()) else [courier]
            self._leaving, self._parked = leaving, self._parked + parked
            if not parked:
                yield self._ended(courier)
            else:
                status = courier.status()
                message = "%s is no destination any more; %d points wait %s"
                log.warning(message, status.label, status.waiting_points, where)
            if len(self._parked) > PARKED:
                first, *self._parked = self._parked
                yield self._ended(first)

    def _ended(self, courier: Courier) -> Status:
        """Give up what waits in memory, leave what waits on disk, and return how it ended."""
        past = courier.spool.holdings().dropped
        courier.end()
        if fates := list(self._fates(courier, past)):
            log.warning("more than %d destinations went with something left: %s", PARKED, "; ".join(fates))
        if self._journal:
            self._journal.drop(_spool(courier))
        return courier.status()

    def statuses(self) -> list[Status]:
        """Return how delivery goes, to those that leave and to those that something is kept for as well."""
        return [courier.status() for courier in (*self._couriers, *self._leaving, *self._parked)]


def _journal(directory: str | Path) -> "Journal":
    from .journal import Journal  # with SQLite, which not every program needs

    return Journal(directory)


def _spool(courier: Courier) -> "JournalSpool":
    spool: JournalSpool = courier.spool  # type: ignore[assignment]  # made by the journal
    return spool
