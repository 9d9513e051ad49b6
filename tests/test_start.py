"""A start that fails gives back all that it took; one that comes while the program ends says what it can do."""

import atexit
import multiprocessing.process
import multiprocessing.util
import threading
from collections.abc import Callable, Iterator

import pytest

import metricslib._process
import metricslib.flusher
from metricslib import Flusher, Registry
from metricslib.delivery.dispatcher import Dispatcher
from tests.peers import FOREVER, GraphitePeer, eventually, open_files
from tests.sockets import PATIENCE
from tests.test_flusher import run

NO_THREAD = RuntimeError("can't start new thread")


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def failing_at(call: Callable, number: int) -> Callable:
    """``call``, but for one call of it, which raises."""
    calls = iter(range(1000))

    def called(*arguments, **options):
        if next(calls) == number:
            raise NO_THREAD
        return call(*arguments, **options)

    return called


def started(flusher: Flusher) -> bool:
    try:
        flusher.start()
    except RuntimeError as error:
        if error is not NO_THREAD:
            raise
        return False
    return True


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("metricslib")}


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[Callable]:
    """What is to be called at the end of the process."""
    hooks: list[Callable] = []
    monkeypatch.setattr(atexit, "register", hooks.append)
    monkeypatch.setattr(atexit, "unregister", hooks.remove)
    return hooks


@pytest.fixture
def held(hooks: list[Callable]) -> Callable[[Registry], tuple[object, ...]]:
    """Call for what a running flusher holds; of threads and files those that there were not before the test."""
    threads_before, files_before = threads(), open_files()

    def held(registry: Registry) -> tuple[object, ...]:
        others = threads() - threads_before, open_files() - files_before
        return registry._owner, [*registry._sources], [*hooks], *others

    return held


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (Dispatcher, "open", 0),
        (Registry, "add_source", 0),
        (Registry, "add_source", 1),
        (threading.Thread, "start", 0),
        (threading.Thread, "start", 1),
        (threading.Thread, "start", 2),
        (threading.Thread, "start", 3),
        (metricslib.flusher, "at_exit", 0),
    ],
)
def test_a_start_that_fails_anywhere_leaves_nothing_behind(
    owner, name, number, spool, peer, held, tmp_path, monkeypatch
):
    """Claims, threads, files, locks and hooks are given back, and the next start works."""
    registry = Registry()
    registry.counter("a").inc(3)
    to = [peer.url, f"file:{tmp_path}/m.jsonl"]
    flusher = Flusher(registry, to, interval=FOREVER, own="own", spool=tmp_path / "spool" if spool else None)
    before = held(registry)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, failing_at(getattr(owner, name), number))
        failed = not started(flusher)
    if failed:
        assert not flusher.status().running
        eventually(lambda: held(registry) == before, PATIENCE, f"{held(registry)} == {before}")
        other = Flusher(registry, interval=FOREVER)  # may have the registry now
        other.start()
        other.stop()
    else:
        # Without a thread for the spool it goes on in memory; and in memory there are fewer steps.
        assert number == (0 if spool else 3) or (not spool and name == "add_source")
    assert started(flusher)
    assert flusher.flush(PATIENCE)
    assert flusher.stop(PATIENCE)
    assert peer.at("stats.counters.a.count") == [3]
    eventually(lambda: held(registry)[:4] == before[:4], PATIENCE, f"{held(registry)} == {before}")


def test_a_default_flusher_that_cannot_start_may_be_started_later(peer: GraphitePeer):
    """Also with other arguments; and the one that ends intervals for the page goes on meanwhile."""
    program = """
import sys, threading, metricslib as metrics
from metricslib import _shipping
start = threading.Thread.start
failing = False
def no_thread(thread):
    if failing and thread.name == "metricslib-graphite://" + sys.argv[1].partition("//")[2]:
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = no_thread
metrics.counter("a").inc(3)
for page in (False, True):
    if page:
        flusher = _shipping.ensure_flusher()
    failing = True
    try:
        metrics.start(sys.argv[1])
    except RuntimeError as error:
        print(error)
    if page:
        assert _shipping.ensure_flusher() is flusher and flusher.running
    failing = False
metrics.start(sys.argv[1], prefix="p")
print(metrics.stop())
"""
    done = run(program, peer.url)
    assert done.stdout == "can't start new thread\n" * 2 + "True\n", done.stderr
    assert peer.at("stats.counters.p.a.count") == [3]


def test_a_child_without_a_thread_tries_again_at_its_next_new_series(peer: GraphitePeer):
    """The moment in which there was none may be over."""
    program = """
import os, sys, threading, metricslib as metrics
metrics.start(sys.argv[1], prefix="w{pid}")
if os.fork() == 0:
    start = threading.Thread.start
    def no_thread(thread):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = no_thread
    metrics.counter("a").inc(3)
    metrics.counter("b").inc(4)
    threading.Thread.start = start
    metrics.counter("c").inc(5)
    sys.exit(0)
assert os.wait()[1] == 0
"""
    done = run(program, peer.url)
    assert done.returncode == 0, done.stderr
    assert sorted(
        value for (path, _), value in peer.values.items() if path[-7:] in ("a.count", "b.count", "c.count")
    ) == [
        3,
        4,
        5,
    ]


AT_EXIT = """
import atexit, sys, threading, metricslib as metrics
if sys.argv[2] == "without threads":
    ending = False
    start = threading.Thread.start
    def started(thread):
        if ending:
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)
    threading.Thread.start = started
def end():
    global ending
    ending = True
    metrics.start(sys.argv[1])
    metrics.start(sys.argv[1])
    metrics.counter("a").inc(3)
    if sys.argv[3] == "flush":
        print(metrics.flush())
        metrics.counter("a").inc(4)
    if sys.argv[3] != "nothing":
        print(metrics.stop())
atexit.register(end)
"""


@pytest.mark.parametrize("kind", ["with threads", "without threads"])
@pytest.mark.parametrize(("calls", "value"), [("flush", [7]), ("stop", [3])])
def test_a_start_while_the_program_ends_ships_what_stop_sends(peer: GraphitePeer, kind: str, calls: str, value):
    """Newer Pythons begin no threads then: all is done in the calling thread."""
    done = run(AT_EXIT, peer.url, kind, calls)
    assert done.stdout == "True\n" * (1 + (calls == "flush")), done.stderr
    assert peer.at("stats.counters.a.count") == value
    assert done.stderr == "started while the program ends: call stop() as well, or the measurements are not sent\n"


@pytest.mark.parametrize("kind", ["with threads", "without threads"])
def test_a_start_while_the_program_ends_says_that_stop_is_needed(peer: GraphitePeer, kind: str):
    """Functions that atexit is given now are never called."""
    done = run(AT_EXIT, peer.url, kind, "nothing")
    assert (done.returncode, done.stdout) == (0, "")
    assert "started while the program ends: call stop() as well" in done.stderr


def test_without_threads_a_destination_that_is_away_takes_no_longer_than_the_deadline():
    """Neither flush() nor stop()."""
    program = AT_EXIT.replace("metrics.flush()", "metrics.flush(.2)").replace("metrics.stop()", "metrics.stop(.3)")
    done = run(program, "graphite://127.0.0.1:1", "without threads", "flush", timeout=20)
    assert done.stdout == "False\nFalse\n", done.stderr


def test_a_flusher_that_ended_is_not_called_at_the_end_of_a_child_of_multiprocessing(monkeypatch):
    """Such a child has finalizers in the place of atexit; each start takes one, and gives it back."""
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: object())
    before = dict(multiprocessing.util._finalizer_registry)
    flusher = Flusher(Registry())
    for _ in range(3):
        flusher.start()
        assert len(multiprocessing.util._finalizer_registry) == len(before) + 1
        flusher.stop()
    assert multiprocessing.util._finalizer_registry == before


AGAIN = """
import sys
import metricslib as metrics

metrics.start(f"file://{sys.argv[1]}/x.jsonl")
for url in ("graphit://h", f"file://{sys.argv[1]}/y.jsonl"):
    try:
        metrics.start(url)
    except metrics.MetricsError as error:
        print(type(error).__name__)
"""


def test_what_is_wrong_with_a_second_start_is_told_before_that_it_is_the_second(tmp_path):
    """So a slip in its URL is not hidden."""
    assert run(AGAIN, str(tmp_path)).stdout.split() == ["InvalidDestination", "AlreadyStarted"]


@pytest.mark.parametrize(
    ("environment", "to"),
    [("", ("auto:",)), ("console:,statsd://127.0.0.1:9", ("console:", "statsd://127.0.0.1:9")), ("auto:", ("auto:",))],
    ids=["nothing set", "set", "set to itself"],
)
def test_auto_is_what_the_environment_says(environment, to):
    code = "import metricslib as metrics; print(metrics.start('auto:').to)"
    done = run(code, METRICSLIB_TO=environment)
    assert done.stdout.splitlines()[0] == repr(to)
