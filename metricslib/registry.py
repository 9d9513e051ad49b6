"""The registry: every instrument of a program by kind, name and tags, and what they measured in the open interval.

In: calls of instruments, and sources that feed aggregates from outside. Out: at each tick one
:class:`~.window.Flush`; at any time a snapshot, which changes nothing. Get-or-create and instrument calls wait for no
lock. Ticks, flushes, collections and snapshots exclude each other by one.

**The open interval** is in two aggregates, ``_flushed`` and ``_unflushed``. Every operation first gathers: it takes
what instruments and sources have into ``_unflushed``. Then

============= =================================== ============================ ===============================
operation     returns                             ``_unflushed``               ``_flushed``
============= =================================== ============================ ===============================
tick          both, and ``_unflushed`` apart      starts empty                 starts empty
flush         both, and ``_unflushed`` apart      starts empty                 both
collect_new   ``_uncollected``                    stays                        stays
snapshot      both                                stays                        stays
============= =================================== ============================ ===============================

``_uncollected`` is the part of ``_unflushed`` that no collection has returned yet; it exists from the first collection
on. So a collection takes nothing from the next tick or flush.

**When memory runs out** nothing is lost. What was taken from an instrument or a source stays in ``_taken_state`` or
``_parts`` until it is in ``_unflushed``, and the next operation continues there. A tick replaces the aggregates in one
step, after everything that it returns was made. Only the totals come after that: they are finished by the next
operation, and ``_ran_short`` has this counted.
"""

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Never

from ._process import log, notice_fork, register_fork_handler
from ._scope import Instruments
from .attempt import OUT_OF_MEMORY, attempt, from_signal_handler
from .budget import Budget, members_cost
from .clock import SYSTEM_CLOCK, Clock
from .drops import DropCounter, DropLog
from .errors import AlreadyStarted, InvalidOption
from .hints import unknown_option
from .instruments.base import Instrument
from .instruments.counter import Counter
from .instruments.gauge import Gauge, change_by_callback
from .instruments.histogram import Histogram
from .instruments.timer import Timer
from .instruments.unique import Unique
from .limits import OVERFLOW, Limits, stands_in
from .series import KINDS, Filter, Kind, Series, Tags, join, series_of
from .series_state import Idle, SeriesStates, Snapshot, Total
from .sketch import EXACT
from .window import ABSENT, Aggregates, Flush, GaugeChange, OpenInterval, Source, Window

__all__ = ["Readings", "Registry"]

Readings = Mapping[Gauge, GaugeChange]
"""Results of the callbacks of gauges."""

_CLASSES: Mapping[Kind, type[Instrument]] = {kind.kind: kind for kind in (Counter, Timer, Histogram, Gauge, Unique)}
_LOCK_TIMEOUT = 5.0

_ADVICE = {
    "bad_value": "pass finite numbers to instruments, no negative durations, and members with a str() that works",
    "bad_callback": "let the callbacks of gauges return finite numbers",
    "bad_tag": "pass tags with a str() that works",
    "bad_hook": "let the on_slow hooks of decorators raise nothing",
    "out_of_memory": "a tick left work to the next one: give the process more memory, or lower max_bytes",
    "filter_error": "let filters raise nothing and keep the kind of a series",
    "unique_full": "add fewer different members to a unique in an interval (100,000 at most), or raise max_bytes",
    "buffer_full": "a thread was held up in the middle of a call of an instrument, while others made a million calls",
    "fold_error": "nothing is lost, but memory or stack ran out in a call of an instrument",
    "bad_note": "the checkpoint of an earlier process, or an entry of it, could not be read; its values begin anew",
    "not_restored": "raise max_series, max_tag_sets or max_bytes: they were higher in the process before",
    "slots_full": "a destination was away too long; its undelivered intervals in the group's folder were too many",
    "first_use_error": "the flusher could not be started in a forked process",
}
"""What to change, by cause. ``filtered`` and ``deleted`` were asked for; other causes have log lines that say more."""


class Registry(Instruments):
    """Holds the series of a program. A :class:`~metricslib.Flusher` ends its intervals and sends them.

    Its methods :meth:`counter`, :meth:`gauge`, :meth:`timer`, :meth:`histogram`, :meth:`unique` and :meth:`scope`
    create instruments, never block, and may be called from anywhere. The other methods may be called from any thread.
    They wait for each other, for at most five seconds, and then raise TimeoutError.

    Args:
        clock: An object with the methods ``time()``, the wall clock, and ``monotonic()``, both in seconds.
        filters: Functions that are called in order for each new series. Each returns the series, another one, or None
            to exclude it. See :func:`~metricslib.drop` and others.
        max_series: The maximum number of series. Values of further series go to one series ``overflow`` of each kind,
            and are counted.
        max_tag_sets: The maximum number of tag sets of a name. Values of further sets go to the series
            ``name;overflow=true``, and are counted.
        max_bytes: The maximum number of bytes of series, cached keys, and members of uniques. None: a quarter of the
            memory, at least 64 MiB.
        exact: How many samples a timer or histogram keeps in an interval, at least 1. With more it uses a sketch.
        expire: Seconds without values after which a series is removed. If it is used again, it returns. None: never.
        idle: After how many idle intervals a series is left out of windows. None: never.

    Raises:
        InvalidOption: If an argument has an invalid value.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        filters: Sequence[Filter] = (),
        max_series: int = 10_000,
        max_tag_sets: int = 1_000,
        max_bytes: int | None = None,
        exact: int = EXACT,
        expire: float | None = None,
        idle: Idle | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option(Registry.__init__, unknown)
        self._reference: Callable[[], Registry] | None = None
        """How a process to which it is pickled gets its own."""
        if not isinstance(exact, int) or exact < 1:
            raise InvalidOption("exact", exact, "must be a whole number of at least 1")
        if expire is not None and not expire > 0:
            raise InvalidOption("expire", expire, "must be a number of seconds above 0, or None")
        self.clock = clock
        self.exact = exact
        self.expire = expire
        self._idle = idle or Idle()
        self.drops = DropCounter()
        self.budget = Budget(max_bytes)
        self._limits = Limits(filters, max_series, max_tag_sets, self.drops, self.budget.series)
        # Both by the key that the program asked for.
        self._instruments: dict[Kind, dict[str, Instrument]] = {kind: {} for kind in KINDS}
        self._asleep: weakref.WeakValueDictionary[tuple[Kind, str], Instrument] = weakref.WeakValueDictionary()
        self._first_use: list[Callable[[], None]] = []
        self._owner: object = None
        self._start_anew()
        register_fork_handler(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._sources: list[Source] = []
        self._states = SeriesStates(self._idle)
        self._drop_log = DropLog(self.clock)
        self._start = self.clock.time()
        self._flushed = Aggregates()
        self.sent_as: int | None = None
        """The stamp under which the open interval was sent so far; None if nothing of it was."""
        self._unflushed = Aggregates()
        self._uncollected: Aggregates | None = None
        self._collector: object = None  # that made the last collection
        self._parts: list[Aggregates] = []
        self._taken_from: Instrument | None = None
        self._taken_state: Any = None
        self._ran_short = False
        """Whether memory ran out after an interval had ended."""
        self._last: Window | None = None
        self._members = 0
        """What is counted for members in windows, the open one and the last."""
        self._process_local = set[str]()
        """Gauges that are read by callbacks, which a checkpoint leaves out; as of the last flush."""
        self._ever_set = set[str]()  # gauges that were ever set, and not only changed
        self.restored = False
        """Whether a checkpoint was restored; from then on the registry's own state is newer than any checkpoint."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as a reference, if other processes have such a registry: the default one."""
        if self._reference is None:
            raise TypeError(
                "only the default registry and its instruments can be pickled: no other process has this one"
            )
        return self._reference, ()

    # -- instruments

    def instrument(self, kind: Kind, name: str, tags: Tags = ()) -> Instrument:
        """Return the instrument of that series, made at first use; both must be canonical. Never raises."""
        found = self._instruments[kind].get(join(name, tags))
        return self._get(Series(kind, name, tags)) if found is None else found

    def _make(self, kind: Kind, name: str, tags: Mapping[str, object] | None) -> Instrument:
        if not tags and (found := self._instruments[kind].get(name)) is not None:
            return found
        return self._get(series_of(kind, name, tags or ()))

    def _get(self, series: Series) -> Instrument:
        kind, asked = series.kind, series.key
        instruments = self._instruments[kind]
        found = instruments.get(asked) or self._asleep.get((kind, asked))
        if found is not None:
            return found
        notice_fork()
        self._used()
        key = self._limits.admit(series)
        if key is None:
            return _CLASSES[kind](self, asked, None)
        if key == asked or stands_in(key):
            asked = key  # one object for all
        return instruments.setdefault(asked, _CLASSES[kind](self, asked, key))

    def _active_instruments(self) -> list[Instrument]:
        """Return all instruments that are not asleep; each kind in one step, for others add some at any moment."""
        return [instrument for each in self._instruments.values() for instrument in list(each.values())]

    def woken(self, instrument: Instrument) -> None:
        """Called when a sleeping instrument gets a value: use it again."""
        self._limits.readmit(Series.of_key(instrument.kind, instrument.key))
        self._instruments[instrument.kind].setdefault(instrument._asked, instrument)
        self._used()

    def _used(self) -> None:
        if self._first_use:
            first_use = attempt(list.pop, self._first_use)
            if first_use is None:  # another thread was faster
                return
            try:
                first_use()
            except Exception as error:  # such as no thread to be had: measuring goes on
                if from_signal_handler(error):
                    raise
                self.drops.add("first_use_error")

    # -- the owner of the intervals

    def claim(self, owner: object) -> None:
        """Make ``owner`` the one that ends this registry's intervals; raises :class:`~.errors.AlreadyStarted` if
        another does.
        """
        if self._owner not in (None, owner):
            raise AlreadyStarted(self._owner, owner)
        self._owner = owner

    def release(self, owner: object) -> None:
        """Let another end this registry's intervals."""
        if self._owner is owner:
            self._owner = None

    def on_first_use(self, call: Callable[[], None]) -> None:
        """Call ``call`` once, when after a fork an instrument is first used in this process."""
        self._first_use = [call]

    # -- sources

    def admit(self, kind: Kind, name: str, tags: Tags = ()) -> str | None:
        """Return the key under which a source must report a series, after filters and caps.

        Args:
            kind: The kind of the series.
            name: Its name, sanitised.
            tags: Its tags, in canonical order.

        Returns:
            The key, or None if the series must be left out.
        """
        return self._limits.admit(Series(kind, name, tags))

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int = 0) -> list[str] | None:
        """Return what :meth:`admit` would for many names without tags, all of which are canonical.

        None, and nothing has changed, if one of them or of ``others`` more series might be refused or renamed: they are
        to be admitted one by one, in order.
        """
        return self._limits.admit_names(names, others)

    def add_source(self, source: Source) -> None:
        """Add a source. From now on, every window includes its aggregates.

        Args:
            source: The source. The registry calls it in one thread at a time.
        """
        with self._locked():
            self._sources.append(source)

    def remove_source(self, source: Source, timeout: float | None = None) -> None:
        """Collect from a source for the last time, and remove it.

        Args:
            source: The source.
            timeout: Seconds to wait for a tick or a snapshot that is in progress. None: five seconds.

        Raises:
            TimeoutError: If the tick or snapshot takes longer.
        """
        with self._locked(timeout):
            self._sources.remove(source)
            self._collect(source)

    def reserve(self, kind: Kind, key: str) -> None:
        """Give a series of a source its place in the order now, before it has any values.

        Args:
            kind: The kind of the series.
            key: Its key, from :meth:`admit`.
        """
        with self._locked():
            self._states.know(kind, key, self.clock.time())

    # -- intervals

    @property
    def idle(self) -> Idle:
        """Which series leave windows when they are idle; may be changed at any time."""
        return self._idle

    @idle.setter
    def idle(self, idle: Idle) -> None:
        with self._locked():
            self._idle = self._states.idle = idle

    def readings(self, read: Callable[[Sequence[Gauge]], Readings] | None = None) -> Readings:
        """Ask the callbacks of all gauges for their values, and return them for a tick or a flush.

        ``read`` calls them; by default they are called here, one after the other. A gauge that it leaves out is absent,
        and counted, cause ``late_callback``. No lock is held meanwhile: a callback may take long, or take a snapshot.
        """
        gauges = [each for each in list(self._instruments["gauge"].values()) if isinstance(each, Gauge) and each._read]
        gauges = [gauge for gauge in gauges if gauge.live]
        if not gauges:
            return {}
        found = read(gauges) if read else {gauge: change_by_callback(gauge._read) for gauge in gauges if gauge._read}
        if bad := sum(change is ABSENT for change in found.values()):
            self.drops.add("bad_callback", bad)
        if late := len(gauges) - len(found):
            self.drops.add("late_callback", late)
        return {gauge: found.get(gauge, ABSENT) for gauge in gauges}

    def tick(self, end: int, interval: float, readings: Readings | None = None) -> Flush:
        """End the interval and begin the next one.

        Flushers call it; call it yourself only in tests. If it raises MemoryError, nothing is lost: the interval
        continues.

        Args:
            end: The timestamp of the window: the end of the interval in whole seconds since the epoch.
            interval: The nominal length in seconds, from which rates are computed.
            readings: The values of gauges that are read by callbacks. None: call the callbacks now, in this thread.

        Returns:
            The interval: all of it, and what is new since the last flush.
        """
        if readings is None:
            readings = self.readings()
        lock = self._acquired()
        try:
            self._gather(readings)
            flush, open_ = self._build(end, interval, closes=True)
            fresh, sent, new = Aggregates(), Aggregates(), None if self._uncollected is None else Aggregates()
            # The interval is over. What follows, but for totals, may also be done after the next.
            self._unflushed, self._flushed, self._uncollected = fresh, sent, new
            self.sent_as, self._start, self._last = None, end, flush.cumulative
            try:
                self._states.close(open_, end)
                self._count_members()
                if self.expire is not None:
                    self._let_expire(end - self.expire)
                self._warn_of_drops()
            except OUT_OF_MEMORY:
                self._ran_short = True
        finally:  # nothing that needs memory comes after the interval has ended
            lock.release()
        return flush

    def _warn_of_drops(self) -> None:
        for (cap, kind), name in self._limits.reached().items():
            if self._drop_log.may_warn(f"{cap} {kind}"):
                tags = cap == "max_tag_sets"
                many = f"tag sets of {kind}s such as {name}" if tags else f"{kind}s"
                fate = f"counted in {join(name, OVERFLOW) if tags else 'the series overflow'}, cause overflow"
                fate = "dropped, cause overflow_dropped" if kind == "gauge" else fate
                log().warning("no room for more %s: new ones are %s; raise %s", many, fate, cap)
        totals = self.drops.totals()
        for cause, count in self._drop_log.due({cause: totals[cause] for cause in _ADVICE if cause in totals}):
            log().warning("%d dropped, cause %s: %s", count, cause, _ADVICE[cause])

    def flush(self, end: int, interval: float, readings: Readings | None = None, *, collector: object = None) -> Flush:
        """Return the open interval so far. The interval continues, and the next tick returns all of it.

        If it raises MemoryError, nothing is lost.

        Args:
            end: The timestamp of the open interval: its end in whole seconds since the epoch.
            interval: The nominal length in seconds, from which rates are computed.
            readings: The values of gauges that are read by callbacks. None: call the callbacks now, in this thread.
            collector: What this returns as new is collected for it, if it made the last collection.

        Returns:
            The interval so far: all of it, and what is new since the last flush.
        """
        if readings is None:
            readings = self.readings()
        lock = self._acquired()
        try:
            self._gather(readings)
            flush, sent = self._build(end, interval, closes=False)
            fresh, new = Aggregates(), self._uncollected
            if collector is not None and collector == self._collector:
                new = Aggregates()
            self._unflushed, self._flushed, self._uncollected, self.sent_as = fresh, sent, new, end
            try:
                self._count_members()
            except OUT_OF_MEMORY:  # done at the next
                self._ran_short = True
        finally:
            lock.release()
        return flush

    def collect_new(self, collector: object) -> Aggregates:
        """Return what ``collector`` has not got of the open interval; ticks and flushes will hold no less for that.

        That is what happened since its last collection, flush or tick. A collector that is another one than the last
        gets all.

        Cheap enough for once a second: no window is built, no callback read, and an idle series costs a look. Each
        gauge that changed is set to its present value. Where this raises MemoryError, the next one has all.
        """
        with self._locked():
            self._gather(None)
            found, empty = Aggregates(), Aggregates()
            if self._uncollected is None or collector != self._collector:
                found.merge(self._flushed)
                found.merge(self._unflushed)
            else:
                found.merge(self._uncollected)
            for key in found.gauges:
                change = self._unflushed.gauges.get(key) or self._flushed.gauges[key]
                if key in self._unflushed.gauges and (sent := self._flushed.gauges.get(key)) is not None:
                    change = sent.then(change)
                known = self._states["gauge"].get(key)
                value = change.applied_to(known.gauge if known else None)
                found.gauges[key] = ABSENT if value is None else GaugeChange(value)
            if found.uniques:
                self._count_members()  # the same members may have been collected before
            self._uncollected, self._collector = empty, collector
            return found

    def uncollect(self, collector: object) -> None:
        """Forget what ``collector`` has got: its next collection returns all of the open interval."""
        with self._locked():
            if self._collector == collector:
                self._collector = None

    def across(self, gauge: str) -> Literal["last", "sum"]:
        """Return how the values that several processes have of this gauge become one.

        What is read by a callback, counts calls under way or was only ever changed by ``inc`` and ``dec`` is a part of
        the whole. What was set is the whole.
        """
        return "last" if gauge in self._ever_set and gauge not in self._process_local else "sum"

    def keys(self, kind: Kind) -> list[str]:
        """Return the keys of all series of a kind, in order of first appearance.

        Args:
            kind: The kind: ``counter``, ``timer``, ``histogram``, ``gauge`` or ``unique``.
        """
        return self.series(kind)[kind]

    def series(self, *kinds: Kind) -> dict[Kind, list[str]]:
        """Return the keys of all series, or of those of these kinds, by kind and in order of first appearance."""
        with self._locked():
            self._gather(None)
            return {
                kind: list(self._states[kind] | self._flushed[kind] | self._unflushed[kind]) for kind in kinds or KINDS
            }

    def forget(self, kind: Kind, keys: Iterable[str]) -> list[str]:
        """Delete series with all their values and totals.

        Their values in the open interval are dropped. Each series is counted, cause ``deleted``. If a deleted series is
        used again, it starts at 0. Data at the destinations is not deleted.

        Args:
            kind: The kind of the series.
            keys: Their keys, ``name;tag=value``.

        Returns:
            The keys of the series that existed, in the same order.
        """
        with self._locked():
            self._gather(None)
            known = (self._states[kind], self._flushed[kind], self._unflushed[kind])
            going = [key for key in dict.fromkeys(keys) if any(key in series for series in known)]
            chosen = {(kind, key) for key in going}
            for instrument in self._instruments_of(chosen):
                instrument._fall_asleep()
            self._leave(chosen)
            for key in going:
                self._flushed[kind].pop(key, None)
                self._unflushed[kind].pop(key, None)
                if self._uncollected is not None:
                    self._uncollected[kind].pop(key, None)
        if going:
            self.drops.add("deleted", len(going))
        return going

    def snapshot(
        self, end: int = 0, interval: float = 10.0, only: Mapping[Kind, Collection[str]] | None = None
    ) -> Snapshot:
        """Return the current state. Changes no value.

        Args:
            end: The end of the open interval, in whole seconds since the epoch, for the result.
            interval: Its nominal length in seconds, for the result.
            only: If given, totals and open interval have only these series, by kind. This keeps a tick waiting only
                while these series are copied.

        Returns:
            The totals, the open interval so far, the last window, and the number of drops by cause.
        """
        with self._locked():
            self._gather(None)
            open_ = Aggregates()
            if only is None:
                open_.merge(self._flushed)
                open_.merge(self._unflushed)
                window = self._states.window(open_, self._start, end, interval)
                totals = {kind: {key: total.copy() for key, total in self._states[kind].items()} for kind in KINDS}
            else:
                for part in (self._flushed, self._unflushed):
                    open_.merge(part.of(only))
                window, totals = self._states.part(only, open_, self._start, end, interval)
            return Snapshot(self.clock.time(), window, self._last, totals, self.drops.totals())

    def __len__(self) -> int:
        """How many series are alive."""
        return len(self._limits)

    def __bool__(self) -> bool:
        """Also without series a registry is one."""
        return True

    @contextmanager
    def _locked(self, timeout: float | None = None) -> Iterator[None]:
        lock = self._acquired(timeout)
        try:
            yield
        finally:
            lock.release()

    def _acquired(self, timeout: float | None = None) -> threading.Lock:
        lock = self._lock  # another one after a fork in the middle
        if not lock.acquire(timeout=_LOCK_TIMEOUT if timeout is None else timeout):
            raise TimeoutError("the registry is being read or flushed elsewhere, and that does not end")
        return lock

    def _gather(self, readings: Readings | None) -> None:
        now = self.clock.time()
        if self._ran_short:
            self.drops.add("out_of_memory")
            self._ran_short = False
        self._states.finish()
        self._parts.append(Aggregates())
        part = self._parts[-1]
        if self._taken_from:
            self._add_taken(part)
        passing = self._process_local if readings is None else set()
        for instrument in list(self._asleep.values()):
            if instrument.sleeping and instrument._waiting:  # its last call was still under way when it left
                instrument._wake()
        for instrument in self._active_instruments():
            if instrument.live:
                self._states.know(instrument.kind, instrument.key, now)
                state = instrument._take_state()
                if state is not None:
                    self._taken_from, self._taken_state = instrument, state  # no memory is needed for that
                    self._add_taken(part)
                if type(instrument) is Gauge:
                    if readings is not None and instrument in readings:
                        part.gauges[instrument.key] = readings[instrument]
                    if instrument._passing:
                        passing.add(instrument.key)
        self._process_local = passing
        for source in self._sources:
            self._collect(source)
        for each in self._parts:
            self._ever_set.update(key for key, change in each.gauges.items() if change.base is not None)
        merged, parts = Aggregates(), list[Aggregates]()
        for each in (self._unflushed, *self._parts):
            merged.merge(each)
        new = self._uncollected
        if self._uncollected is not None and any(self._parts):
            new = Aggregates()
            for each in (self._uncollected, *self._parts):
                new.merge(each)
        self._unflushed, self._parts, self._uncollected = merged, parts, new

    def _add_taken(self, part: Aggregates) -> None:
        """Add the state that was taken from an instrument."""
        instrument = self._taken_from
        assert instrument is not None
        value = instrument._aggregate(self._taken_state)
        if value is not None:
            part.add(instrument.kind, instrument.key, value)
        self._taken_from = self._taken_state = None

    def _collect(self, source: Source) -> None:
        self._parts.append(Aggregates())  # before anything is collected, because this allocates memory
        try:
            self._parts[-1] = collected = source.collect()
        except OUT_OF_MEMORY:  # the source goes on with it
            raise
        except Exception:
            if self._drop_log.may_warn("source_error"):
                log().exception("a source of metrics failed; its values are missing in this interval")
            self.drops.add("source_error")
        else:
            self.hold_members(members_cost(collected.uniques.values()))

    def _build(self, end: int, interval: float, *, closes: bool) -> tuple[Flush, Aggregates]:
        fresh = open_ = self._unflushed
        if self._flushed or not closes:  # no copy is needed at the end: nothing is added later
            open_ = Aggregates()
            open_.merge(self._flushed)
            open_.merge(fresh)
        whole = self._states.window(open_, self._start, end, interval)
        new = fresh if self._uncollected is None else self._uncollected
        return Flush(whole, fresh.window(whole), fresh.received, open_, new), open_

    def hold_members(self, size: int) -> None:
        """Go on counting ``size`` bytes of members of a set, which were just taken from where they were added.

        Until all that is held is counted anew, at the end of the tick or flush.
        """
        self._members += size
        self.budget.members.add(size)

    def _count_members(self) -> None:
        self.hold_members(
            members_cost(self._flushed.uniques.values())
            + members_cost(self._unflushed.uniques.values())
            + members_cost(self._last.uniques.values() if self._last else ())
            - self._members
        )

    # -- over a restart

    def remembered(self, flush: Flush | None = None) -> tuple[list[tuple[Kind, str, Total]], OpenInterval | None]:
        """Return what an heir of this process has to know: series with their totals, and the open interval if it was
        sent in its middle.

        The series are those to which something happened in the interval of ``flush``, the last one, or all; gauges of
        this process alone are not among them. Only ticks change a total.
        """
        with self._locked():
            totals = self._states.entries(None if flush is None else flush.active)
            totals = [entry for entry in totals if entry[0] != "gauge" or entry[1] not in self._process_local]
            if self.sent_as is None:
                return totals, None
            sent = Aggregates()
            sent.merge(self._flushed)
            sent.gauges = {key: change for key, change in sent.gauges.items() if key not in self._process_local}
            return totals, OpenInterval(self._start, self.sent_as, sent)

    def readmit(self, series: Series) -> bool:
        """Let in a series that an earlier process had; return whether there is room under the caps."""
        return self._limits.restore(series)

    def restore(
        self, totals: Mapping[Kind, Mapping[str, Total]], opened: OpenInterval | None, stamp: int, interval: int
    ) -> None:
        """Go on from what an earlier process remembered: series in order, and the open interval if there was one.

        If that has the ``stamp`` of the next window, it counts as sent: it is in whole windows, and not in fresh ones.
        Otherwise its time is over and it has its slot, so it goes into the totals alone. Windows follow each other
        every ``interval`` seconds.
        """
        with self._locked():
            self.restored = True
            self._states.restore(totals)
            if opened and opened.end == stamp and self.sent_as in (None, stamp):
                opened.sent.merge(self._flushed)
                self._start, self.sent_as, self._flushed = opened
            elif opened:
                self._states.window(opened.sent, opened.start, opened.end, interval)
                self._states.add(opened.sent, opened.end)
            self._states.reckon_idle(stamp - interval, interval)

    # -- what leaves, and what is left behind

    def _let_expire(self, before: float) -> None:
        idle = set(self._states.idle_since(before))
        if not idle:
            return
        for instrument in self._instruments_of(idle):
            if not instrument.sleeping:
                # It leaves at the next tick, so that a call which is under way right now still finds its way here.
                instrument._fall_asleep()
                idle.discard((instrument.kind, instrument.key))
        self._leave(idle)

    def _instruments_of(self, going: set[tuple[Kind, str]]) -> list[Instrument]:
        return [instrument for instrument in self._active_instruments() if (instrument.kind, instrument.key) in going]

    def _leave(self, going: set[tuple[Kind, str]]) -> None:
        """Forget series whose instruments sleep. A value that a call adds meanwhile is collected at the next tick."""
        for kind, key in going:
            self._states.forget(kind, key)
            self._limits.release(Series.of_key(kind, key))
            for source in self._sources:
                self._forget_in(source, kind, key)
        for instrument in self._instruments_of(going):
            self._asleep[instrument.kind, instrument._asked] = instrument
            self._instruments[instrument.kind].pop(instrument._asked, None)
            if not instrument.sleeping:  # used in this very moment
                instrument._wake()
        if going:
            # What is remembered would keep what left alive, and send to an overflow what now has room.
            for instrument in [*self._active_instruments(), *self._asleep.values()]:
                instrument._children = None

    def _forget_in(self, source: Source, kind: Kind, key: str) -> None:
        try:
            source.forget(kind, key)
        except Exception:
            self.drops.add("source_error")
            if self._drop_log.may_warn("source_error: forget"):
                log().exception("a source of metrics failed to forget the expired %s %s", kind, key)

    def reset_after_fork(self) -> None:
        """In a forked child: begin with nothing, for what the parent had measured is the parent's to send."""
        self.drops = self._limits.drops = DropCounter()
        self.budget.reset_after_fork()
        self._start_anew()
        for instrument in [*self._active_instruments(), *self._asleep.values()]:
            instrument._forget()
