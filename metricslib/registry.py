"""The registry: all instruments of a program by kind, name and tags, and their values in the open interval.

In: calls of instruments, and sources that supply aggregates from elsewhere. Out: at each tick one
:class:`~.window.Flush`; at any time a snapshot, which changes nothing. Calls that create or use instruments do not wait
for a lock. Ticks, flushes, collections and snapshots exclude each other with a lock.

**The open interval** is in two aggregates, ``_flushed`` and ``_unflushed``. Every operation first moves the new values
of instruments and sources into ``_unflushed``. Then:

============= =================================== ============================ ===============================
operation     returns                             ``_unflushed``               ``_flushed``
============= =================================== ============================ ===============================
tick          both, and ``_unflushed`` apart      starts empty                 starts empty
flush         both, and ``_unflushed`` apart      starts empty                 both
collect_new   ``_uncollected``                    stays                        stays
snapshot      both                                stays                        stays
============= =================================== ============================ ===============================

``_uncollected`` is the part of ``_unflushed`` that no collection has returned yet. It exists from the first collection
on. So a collection does not change the result of the next tick or flush.

**When memory runs out**, nothing is lost. The state of an instrument or a source stays in ``_taken_state`` or
``_parts`` until it is in ``_unflushed``, and the next operation continues there. A tick first builds everything that it
returns, and then replaces the aggregates in one step. Only the totals are updated after that. If memory runs out then,
the next operation completes them, and ``_ran_short`` makes it count the incident.
"""

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Never

from ._process import log, notice_fork, register_fork_handler
from ._scope import Instruments
from .attempt import OUT_OF_MEMORY, attempt, from_signal_handler
from .budget import Budget, Share, members_cost
from .clock import SYSTEM_CLOCK, Clock
from .drops import DropCounter, DropLog
from .errors import AlreadyStarted, InvalidOption
from .hints import unknown_option
from .instruments.base import Instrument
from .instruments.counter import Counter
from .instruments.gauge import Across, Gauge, change_by_callback
from .instruments.histogram import Histogram
from .instruments.timer import Timer
from .instruments.unique import Unique
from .limits import OVERFLOW, Limits, stands_in
from .series import KINDS, Filter, Kind, Series, Tags, join, series_of
from .series_state import Idle, SeriesStates, Snapshot, Total
from .sketch import EXACT
from .window import ABSENT, Aggregates, Flush, GaugeChange, OpenInterval, Source, Window

__all__ = ["ADVICE", "Readings", "Registry"]

Readings = Mapping[Gauge, GaugeChange]
"""Results of the callbacks of gauges."""

_FUNCTIONS = 1_000
"""Names of series for which it is known which functions they measure, at most."""
_CLASSES: Mapping[Kind, type[Instrument]] = {kind.kind: kind for kind in (Counter, Timer, Histogram, Gauge, Unique)}
_LOCK_TIMEOUT = 5.0

ADVICE = {
    "overflow": "raise max_series or max_tag_sets, or use tags with fewer values: the view Top shows which",
    "overflow_dropped": "raise max_series or max_tag_sets, or use tags of gauges with fewer values",
    "late_callback": "let the callbacks of gauges return sooner",
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
    "late": "a process wrote into an interval that was closed; its values are in a later one",
    "clock_set_back": "the clock was set back; intervals of the time that is repeated are sent again",
    "slots_full": "the group's folder could not be written for long; see the errors before",
    "first_use_error": "the flusher could not be started in a forked process",
}
"""What to do about drops, by cause."""
_LOGGED = tuple(cause for cause in ADVICE if cause not in ("overflow", "overflow_dropped", "late_callback"))
"""The others have warnings of their own."""
"""Advice by cause. ``filtered`` and ``deleted`` are intended; other causes have more precise log messages."""


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
        """Returns the equivalent registry of the process that unpickles this one."""
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
        self.max_series = max_series
        self.max_tag_sets = max_tag_sets
        # Both are indexed by the key that the program requested.
        self._instruments: dict[Kind, dict[str, Instrument]] = {kind: {} for kind in KINDS}
        self._asleep: weakref.WeakValueDictionary[tuple[Kind, str], Instrument] = weakref.WeakValueDictionary()
        self._first_use: list[Callable[[], None]] = []
        self._owner: object = None
        self.functions: dict[str, tuple[str, ...]] = {}
        """The decorated functions by name of series, as ``module.function``: at most three a name."""
        self.boards: dict[str, str] = {}
        """The boards of the metrics page, by title: the query string of each. See :func:`metricslib.board`."""
        self.failing: tuple[str, ...] = ()
        """Gauges whose callbacks failed when they were last called, ten at most."""
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
        """The timestamp under which the open interval was sent so far; None if it was not sent."""
        self._unflushed = Aggregates()
        self._uncollected: Aggregates | None = None
        self._collector: object = None  # the object for which the last collection was made
        self._parts: list[Aggregates] = []
        self._copies: list[Aggregates] = []
        self._taken_from: Instrument | None = None
        self._taken_state: Any = None
        self._ran_short = False
        """True if memory ran out after an interval had ended."""
        self._last: Window | None = None
        self._members = 0
        """Bytes counted for members in the open and the last window."""
        self._process_local = set[str]()
        """Gauges whose values belong to this process only and are not in the checkpoint, as of the last flush."""
        self._across: dict[str, Across] = {}  # of gauges for which the program chose it
        self._ever_set = set[str]()  # gauges that were ever set, and not only changed
        self.restored = False
        """True if a checkpoint was restored. From then on, the registry's own state is newer than any checkpoint."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a reference, which only works for the default registry, because every process has one."""
        if self._reference is None:
            raise TypeError(
                "only the default registry and its instruments can be pickled: no other process has this one"
            )
        return self._reference, ()

    # -- instruments

    def _note_function(self, name: str, function: Callable[..., object]) -> None:
        called = getattr(function, "__qualname__", type(function).__qualname__)
        text = f"{getattr(function, '__module__', '')}.{called}"
        name = series_of("timer", name).name
        known = self.functions.get(name, ())
        if text not in known and len(known) < 3 and (known or len(self.functions) < _FUNCTIONS):
            self.functions[name] = (*known, text)

    def instrument(self, kind: Kind, name: str, tags: Tags = ()) -> Instrument:
        """Return the instrument of a series, which is created at first use. Name and tags must be canonical. Never
        raises.
        """
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
            asked = key  # so that all share one object
        return instruments.setdefault(asked, _CLASSES[kind](self, asked, key))

    def _active_instruments(self) -> list[Instrument]:
        """Return all instruments that do not sleep. Each kind is copied in one step, because other threads add some."""
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
            except Exception as error:  # for example, no thread can be started: measuring continues
                if from_signal_handler(error):
                    raise
                self.drops.add("first_use_error")

    # -- the owner of the intervals

    def claim(self, owner: object) -> None:
        """Make ``owner`` the only object that ends this registry's intervals.

        Raises :class:`~.errors.AlreadyStarted` if there is another owner.
        """
        if self._owner not in (None, owner):
            raise AlreadyStarted(self._owner, owner)
        self._owner = owner

    def release(self, owner: object) -> None:
        """Give up ownership, so that another owner can claim the registry."""
        if self._owner is owner:
            self._owner = None

    def on_first_use(self, call: Callable[[], None]) -> None:
        """Call ``call`` once in a forked process, when an instrument is first used there."""
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

    def limits_of_group(self) -> Limits:
        """Return limits with the same caps and no filters for a group's series, which each process has filtered."""
        return Limits((), self.max_series, self.max_tag_sets, self.drops, Share(self.budget.series.allowed))

    def admit_names(self, names: Sequence[tuple[Kind, str]], others: int = 0) -> list[str] | None:
        """Return the same as :meth:`admit` for many names without tags, which must be canonical.

        Return None, without any change, if one of them or of ``others`` more series might be refused or renamed. Then
        they must be admitted one by one, in order.
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
            self._states.know(kind, key, self.clock.time(), self._start)

    # -- intervals

    @property
    def idle(self) -> Idle:
        """The idle series that windows do not include. May be changed at any time."""
        return self._idle

    @idle.setter
    def idle(self, idle: Idle) -> None:
        with self._locked():
            self._idle = self._states.idle = idle

    def readings(self, read: Callable[[Sequence[Gauge]], Readings] | None = None) -> Readings:
        """Call the callbacks of all gauges, and return their values for a tick or a flush.

        ``read`` calls them. By default, they are called one by one in this thread. A gauge that ``read`` does not
        return is absent and counted, cause ``late_callback``. No lock is held during the calls, because a callback may
        be slow, or take a snapshot.
        """
        gauges = [each for each in list(self._instruments["gauge"].values()) if isinstance(each, Gauge) and each._read]
        gauges = [gauge for gauge in gauges if gauge.live]
        self.failing = ()
        if not gauges:
            return {}
        found = read(gauges) if read else {gauge: change_by_callback(gauge._read) for gauge in gauges if gauge._read}
        if bad := sum(change is ABSENT for change in found.values()):
            self.drops.add("bad_callback", bad)
        failing = (gauge for gauge in gauges if found.get(gauge, ABSENT) is ABSENT)
        self.failing = tuple(gauge.key for gauge in islice(failing, 10))
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
            # The interval has ended. Everything below, except the totals, may also wait for the next one.
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
        for cause, count in self._drop_log.due({cause: totals[cause] for cause in _LOGGED if cause in totals}):
            log().warning("%d dropped, cause %s: %s", count, cause, ADVICE[cause])

    def flush(self, end: int, interval: float, readings: Readings | None = None, *, collector: object = None) -> Flush:
        """Return the open interval so far. The interval continues, and the next tick returns all of it.

        If it raises MemoryError, nothing is lost.

        Args:
            end: The timestamp of the open interval: its end in whole seconds since the epoch.
            interval: The nominal length in seconds, from which rates are computed.
            readings: The values of gauges that are read by callbacks. None: call the callbacks now, in this thread.
            collector: If the last collection was made for this object, the new values also count as collected.

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
            except OUT_OF_MEMORY:  # the next operation does it
                self._ran_short = True
        finally:
            lock.release()
        return flush

    def collect_new(self, collector: object) -> Aggregates:
        """Return the values of the open interval that ``collector`` does not have yet.

        These are the values since its last collection, flush or tick. If the last collection was made for another
        collector, all values of the interval are returned. Ticks and flushes still return them, too.

        This is fast enough for once a second: it builds no window, calls no callback, and only checks idle series. For
        each gauge that changed, the current value is returned. After a MemoryError, the next call returns everything.
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
        """Make the next collection for ``collector`` return all values of the open interval."""
        with self._locked():
            if self._collector == collector:
                self._collector = None

    def across(self, gauge: str) -> Across:
        """Return how the values of this gauge in several processes are combined.

        That is what the program chose with ``across=``. Otherwise, a gauge that is read by a callback, that counts
        calls in progress, or that was only changed with ``inc`` and ``dec``, is a part of a sum. For a gauge that was
        set, the last value counts.
        """
        if gauge in self._across:
            return self._across[gauge]
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

    def copy_to(self, copy: Aggregates) -> None:
        """From now on, add every value to ``copy``, too, until :meth:`end_copy`: for tests."""
        with self._locked():
            self._gather(None)
            self._copies.append(copy)

    def update_copies(self) -> None:
        """Add what was measured up to now to all copies. Ticks and flushes do so, too."""
        with self._locked():
            self._gather(None)

    def end_copy(self, copy: Aggregates) -> None:
        """Add what was measured up to now to ``copy``, and nothing after that."""
        with self._locked():
            self._gather(None)
            self._copies = [each for each in self._copies if each is not copy]

    def __len__(self) -> int:
        """The number of live series."""
        return len(self._limits)

    def __bool__(self) -> bool:
        """True, even without series."""
        return True

    @contextmanager
    def _locked(self, timeout: float | None = None) -> Iterator[None]:
        lock = self._acquired(timeout)
        try:
            yield
        finally:
            lock.release()

    def _acquired(self, timeout: float | None = None) -> threading.Lock:
        lock = self._lock  # read once: a fork in the middle replaces it
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
            if instrument.sleeping and instrument._pending_count:  # a call was still in progress when it fell asleep
                instrument._wake()
        known = {kind: self._states[kind] for kind in KINDS}
        for instrument in self._active_instruments():
            if instrument.live:
                if instrument.key not in known[instrument.kind]:
                    self._states.know(instrument.kind, instrument.key, now, self._start)
                state = instrument._take_state()
                if state is not None:
                    self._taken_from, self._taken_state = instrument, state  # allocates no memory
                    self._add_taken(part)
                if type(instrument) is Gauge:
                    if readings is not None and instrument in readings:
                        part.gauges[instrument.key] = readings[instrument]
                    if instrument._passing:
                        passing.add(instrument.key)
                    if instrument._across is not None:
                        self._across[instrument.key] = instrument._across
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
        gathered = self._parts
        self._unflushed, self._parts, self._uncollected = merged, parts, new
        for copy in self._copies:
            for each in gathered:
                copy.merge(each)

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
        except OUT_OF_MEMORY:  # the next call of the source returns its values
            raise
        except Exception:
            if self._drop_log.may_warn("source_error"):
                log().exception("a source of metrics failed; its values are missing in this interval")
            self.drops.add("source_error")
        else:
            self.hold_members(members_cost(collected.uniques.values()))

    def _build(self, end: int, interval: float, *, closes: bool) -> tuple[Flush, Aggregates]:
        fresh = open_ = self._unflushed
        if self._flushed or not closes:  # at the end of an interval, no copy is needed: nothing is added later
            open_ = Aggregates()
            open_.merge(self._flushed)
            open_.merge(fresh)
        whole = self._states.window(open_, self._start, end, interval)
        new = fresh if self._uncollected is None else self._uncollected
        return Flush(whole, fresh.window(whole), fresh.received, open_, new), open_

    def hold_members(self, size: int) -> None:
        """Continue to count ``size`` bytes of members of a set, which have just been taken from their instrument.

        They count until the end of the tick or flush, when all members are counted again.
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
        """Return the state for a checkpoint: series with their totals, and the part of the open interval that was sent.

        With ``flush``, the last one, only series with values in its interval are returned, otherwise all. Gauges whose
        values belong to this process only are never included. Only ticks change totals.
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
        """Admit a series of an earlier process. Return False if a cap is reached."""
        return self._limits.restore(series)

    def restore(
        self, totals: Mapping[Kind, Mapping[str, Total]], opened: OpenInterval | None, stamp: int, interval: int
    ) -> None:
        """Continue with the state of an earlier process: series in order, and the open interval if there was one.

        If the open interval has the timestamp ``stamp`` of the next window, its values count as sent: cumulative
        windows include them, and deltas do not. Otherwise the interval is over and was sent for its own slot, so its
        values are only added to the totals. ``interval`` is the time between windows in seconds.
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

    # -- expiry and deletion

    def _let_expire(self, before: float) -> None:
        idle = set(self._states.idle_since(before))
        if not idle:
            return
        for instrument in self._instruments_of(idle):
            if not instrument.sleeping:
                # The next tick removes the series, so that the value of a call in progress is still collected.
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
            if kind == "gauge":
                self._across.pop(key, None)
            for source in self._sources:
                self._forget_in(source, kind, key)
        for instrument in self._instruments_of(going):
            self._asleep[instrument.kind, instrument._asked] = instrument
            self._instruments[instrument.kind].pop(instrument._asked, None)
            if not instrument.sleeping:  # a call has woken it since
                instrument._wake()
        if going:
            # The caches of `tagged` would keep expired instruments alive, and route series to an overflow series
            # although there is room for them now.
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
        """In a forked child, discard all values, because the parent sends its own."""
        self.drops = self._limits.drops = DropCounter()
        self.budget.reset_after_fork()
        self._start_anew()
        for instrument in [*self._active_instruments(), *self._asleep.values()]:
            instrument._forget()
