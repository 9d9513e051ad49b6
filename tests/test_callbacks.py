"""Callbacks of gauges are read within a bound, and one that hangs costs nothing but its own gauge."""

import re
import threading
from collections.abc import Callable, Iterator

import pytest

from metricslib import Flusher, Registry
from metricslib.callbacks import MOST, CallbackReader
from metricslib.delivery import Deadline
from metricslib.instruments.gauge import Gauge
from tests.peers import FOREVER, GraphitePeer, eventually
from tests.sockets import PATIENCE

STOP = 5.0
"""Seconds for a stop, of which it waits for a callback half or more; the rest is for a machine that is busy."""


class Hanging:
    """Callbacks that hang until the test ends, or lets them return."""

    def __init__(self) -> None:
        self.returns = threading.Event()
        self.calls = 0
        self.entered = threading.Event()

    def __call__(self) -> float:
        self.calls += 1
        self.entered.set()
        assert self.returns.wait(PATIENCE)
        return 5


@pytest.fixture
def hanging() -> Iterator[Callable[[], Hanging]]:
    """Call to make a callback that hangs until it may return, or the test ends."""
    made: list[Hanging] = []

    def make() -> Hanging:
        made.append(Hanging())
        return made[-1]

    yield make
    for one in made:
        one.returns.set()


@pytest.fixture
def reader() -> Iterator[CallbackReader]:
    reader = CallbackReader()
    yield reader
    reader.stop()


@pytest.fixture
def threads() -> Callable[[str], list[threading.Thread]]:
    """Call for the threads of a name that were begun in this test: those of the tests before may still be ending."""
    before = threading.enumerate()
    return lambda name: [thread for thread in threading.enumerate() if thread.name == name and thread not in before]


@pytest.fixture
def reading(threads: Callable[[str], list[threading.Thread]]) -> Callable[[], list[threading.Thread]]:
    return lambda: threads("metricslib-callbacks")


class AllButOneRead:
    """A deadline that is over when all but one callback have returned, however long that takes."""

    def __init__(self, reader: CallbackReader) -> None:
        self._reader = reader

    def left(self) -> float:
        return 1.0 if len(self._reader._pending) > 1 else 0.0


def gauges(registry: Registry, *reads: Callable[[], float]) -> list[Gauge]:
    return [registry.gauge(f"g{number}", read=read) for number, read in enumerate(reads)]


def values(changes) -> dict[str, float | None]:
    return {gauge.key: change.base for gauge, change in changes.items()}


def test_all_are_read_in_order_in_one_thread_that_is_kept(registry, reader, reading):
    """A callback may keep what belongs to a thread, such as a connection to SQLite."""
    called: list[tuple[int, int]] = []
    asked = gauges(registry, *[lambda n=n: called.append((n, threading.get_ident())) or n for n in range(3)])
    for _ in range(2):
        assert values(reader.read(asked, Deadline(PATIENCE))) == {"g0": 0, "g1": 1, "g2": 2}
    assert [number for number, _ in called] == [0, 1, 2, 0, 1, 2]
    assert len({thread for _, thread in called}) == 1
    assert called[0][1] != threading.get_ident()
    assert len(reading()) == 1
    reader.stop()
    eventually(lambda: not reading())


def test_one_that_hangs_costs_the_others_nothing(registry, reader, reading, hanging, caplog):
    """They are read in the same tick by another thread; the one that hangs is left out, and named once."""
    hung = hanging()
    asked = gauges(registry, lambda: 1, hung, lambda: 3)
    assert values(reader.read(asked, AllButOneRead(reader))) == {"g0": 1, "g2": 3}
    (record,) = caplog.records
    text = r"gauge g1: its callback has not returned within \d+\.\d s; the gauge is left out until it does"
    assert re.fullmatch(text, record.message)

    # From then on nothing waits for it, nobody calls it, and no thread is made for it.
    for _ in range(3):
        assert values(reader.read(asked, Deadline(PATIENCE))) == {"g0": 1, "g2": 3}
    assert hung.calls == 1
    eventually(lambda: len(reading()) == 2)  # the one that read the others at first may still be ending
    assert len(caplog.records) == 1

    # It returns: too late for the value, which is thrown away; its gauge is read again at the next tick.
    hung.returns.set()
    eventually(lambda: len(reading()) == 1)
    assert values(reader.read(asked, Deadline(PATIENCE))) == {"g0": 1, "g1": 5, "g2": 3}
    assert hung.calls == 2


def test_another_callback_of_a_gauge_that_hangs_is_read(registry, reader, hanging):
    """Registering again is the way to mend it while the program runs."""
    asked = gauges(registry, hanging())
    assert values(reader.read(asked, Deadline(0.1))) == {}
    registry.gauge("g0", read=lambda: 2)
    assert values(reader.read(asked, Deadline(PATIENCE))) == {"g0": 2}


def test_the_number_of_threads_is_bounded(registry, reader, reading, hanging):
    """However many callbacks hang, behind a database that is away, say."""
    hung = hanging()
    asked = gauges(registry, *[hung] * (3 * MOST))
    for _ in range(6):
        assert reader.read(asked, Deadline(0.6)) == {}
    assert len(reading()) <= MOST
    assert hung.calls <= MOST
    hung.returns.set()
    eventually(lambda: len(reading()) <= 1)
    eventually(lambda: len(reader.read(asked, Deadline(PATIENCE))) == 3 * MOST)  # a thread may be leaving the last call


def test_a_deadline_that_is_moved_counts(registry, reader, hanging):
    """stop() does not wait for what a tick would wait for."""
    hung, deadline = hanging(), Deadline(PATIENCE)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(reader.read(gauges(registry, hung), deadline)))
    thread.start()
    assert hung.entered.wait(PATIENCE)
    deadline.cut(0)
    thread.join(PATIENCE)
    assert found == [{}]


def test_where_no_thread_can_be_begun_callbacks_are_called_here(registry, reader, monkeypatch):
    """As at the end of the interpreter: what they say is not lost."""

    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    called: list[int] = []
    asked = gauges(registry, lambda: called.append(threading.get_ident()) or 1)
    assert values(reader.read(asked, Deadline(PATIENCE))) == {"g0": 1}
    assert called == [threading.get_ident()]


def test_each_callback_has_one_fate(registry, hanging):
    """It is a value, or counted: as bad if it raises, as late if it does not return."""
    gauges(registry, lambda: 1, hanging(), lambda: 1 / 0)
    reader = CallbackReader()
    flush = registry.tick(10, 10, registry.readings(lambda asked: reader.read(asked, AllButOneRead(reader))))
    assert flush.cumulative.gauges == {"g0": 1}
    assert registry.drops.totals() == {"bad_callback": 1, "late_callback": 1}
    reader.stop()


# -- in a flusher


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def test_shipping_goes_on_while_a_callback_hangs(peer, hanging):
    """Ticks go on, with the gauge left out; a page and a flush do not wait for it once it is known."""
    registry, hung = Registry(), hanging()
    flusher = Flusher(registry, peer.url, interval=1, own="")
    registry.gauge("g", read=hung)
    registry.gauge("h", read=lambda: 7)
    registry.counter("a").inc(3)
    flusher.start()
    eventually(lambda: flusher.status().ticks >= 3)
    registry.snapshot()
    assert flusher.flush(PATIENCE)
    assert flusher.stop(PATIENCE)
    assert sum(peer.at("stats.counters.a.count")) == 3
    assert set(peer.at("stats.gauges.h")) == {7}
    assert peer.at("stats.gauges.g") == []
    assert hung.calls == 1
    assert registry.drops.totals()["late_callback"] >= 3


def test_callbacks_are_read_within_a_bound_from_the_first_moment(peer, monkeypatch):
    """Even if the flusher's thread comes to that while the program is still in start()."""
    registry, called, names = Registry(), threading.Event(), []

    def read() -> float:
        names.append(threading.current_thread().name)
        called.set()
        return 1

    def start(thread: threading.Thread) -> None:
        begin(thread)
        if thread.name == "metricslib-flusher":
            assert called.wait(PATIENCE)

    begin = threading.Thread.start
    registry.gauge("g", read=read)
    flusher = Flusher(registry, peer.url, interval=FOREVER, own="")
    flusher.flush_soon()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        flusher.start()
    assert flusher.stop(PATIENCE)
    assert set(names) == {"metricslib-callbacks"}


def test_a_stop_keeps_its_deadline_whatever_a_callback_does(peer, hanging, caplog):
    """The interval is closed without it, and delivered; the log names the gauge."""
    registry, hung = Registry(), hanging()
    flusher = Flusher(registry, peer.url, interval=FOREVER, own="")
    registry.gauge("g", read=hung)
    registry.counter("a").inc(3)
    flusher.start()
    assert not flusher.flush(0.01)
    assert hung.entered.wait(PATIENCE)  # the thread waits for it now, for ten seconds
    deadline = Deadline(STOP)
    assert flusher.stop(STOP)
    assert deadline.left() > 0
    assert peer.at("stats.counters.a.count") == [3]
    assert [record.message.partition(":")[0] for record in caplog.records] == ["gauge g"]
    # What it returns now comes too late, and disturbs nothing that was begun since.
    flusher.start()
    hung.returns.set()
    eventually(lambda: flusher.flush(PATIENCE) and peer.at("stats.gauges.g"))  # its thread must have left the call
    assert flusher.stop(PATIENCE)
    assert peer.at("stats.gauges.g") == [5]


def test_a_stop_closes_the_interval_itself_where_no_thread_reads_callbacks(peer, hanging, monkeypatch, threads, caplog):
    """As at the end of newer interpreters: the flusher's own thread hangs, and is left behind."""
    registry, hung = Registry(), hanging()
    flusher = Flusher(registry, peer.url, interval=FOREVER, own="")
    flusher.start()
    registry.gauge("before", read=lambda: 1)
    registry.gauge("g", read=hung)
    registry.gauge("behind", read=lambda: 2)
    registry.counter("a").inc(3)
    start = threading.Thread.start

    def no_reader(thread):
        if thread.name == "metricslib-callbacks":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_reader)
    assert not flusher.flush(0.01)
    assert hung.entered.wait(PATIENCE)
    (left,) = threads("metricslib-flusher")
    assert flusher.stop(STOP)
    assert peer.at("stats.counters.a.count") == [3]
    assert peer.at("stats.gauges.before") == [1]
    assert peer.at("stats.gauges.behind") == peer.at("stats.gauges.g") == []
    assert [record.message.partition(":")[0] for record in caplog.records] == ["gauge g"]
    assert registry.drops.totals() == {"late_callback": 2}
    flusher.start()
    registry.counter("a").inc(4)
    hung.returns.set()
    left.join(PATIENCE)
    assert flusher.status().running
    assert flusher.stop(PATIENCE)
    assert peer.at("stats.counters.a.count") == [7]  # the same slot, sent whole
