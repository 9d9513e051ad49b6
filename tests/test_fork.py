"""A forked child starts at zero, on its own, and never hangs on what the parent's threads were doing.

Every test forks in a fresh interpreter and checks what the child wrote: a child of the test runner itself would inherit
its threads. Python 3.12 warns when a process with threads forks; here that is the point.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PRELUDE = """
import logging, os, sys, threading, warnings
logging.getLogger("metricslib").setLevel(logging.ERROR)  # bad values are warned of
if sys.version_info >= (3, 12):
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from metricslib.registry import Registry
from metricslib.series import KINDS
from metricslib.testing import ManualClock

registry = Registry(clock=ManualClock())
CALLS = {"counter": "inc", "gauge": "inc", "timer": "observe", "histogram": "observe", "unique": "add"}
instruments = {kind: getattr(registry, kind)("x") for kind in KINDS}

def measure(value=1):
    for kind, instrument in instruments.items():
        getattr(instrument, CALLS[kind])(value)

def sizes(window):
    # what a window holds, by kind; None for a series that is not in it
    numbers = {kind: window[kind].get("x") for kind in KINDS}
    return [getattr(v, "count", v) if k in ("timer", "histogram") else len(v) if isinstance(v, frozenset) else v
            for k, v in numbers.items()]

def in_child(work):
    # fork, run work in the child, and return its exit status; 0 if nothing failed
    sys.stdout.flush()
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
"""


@pytest.fixture
def run():
    """Call with a script; it runs after the prelude, and what it prints is returned line by line."""

    def run(script):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_the_child_starts_at_zero_and_the_parent_keeps_all(run):
    """Buffers, folded state, a flushed part, lifetime totals, a gauge's value, the account: all are the parent's."""
    assert run("""
measure()
registry.tick(10, 10)
for _ in range(600): measure()
registry.flush(20, 10)
for _ in range(600): measure()
instruments["counter"].inc("bad")

def child():
    snapshot = registry.snapshot()
    print("child", sizes(snapshot.open), snapshot.last, snapshot.dropped)
    print("child", [total.sum for kind in KINDS for total in snapshot.totals[kind].values()])
    measure()
    cut = registry.tick(30, 10)
    print("child", sizes(cut.delta), sizes(cut.cumulative))

print(in_child(child))
print("parent", sizes(registry.tick(20, 10).cumulative), registry.drops.totals())
""") == [
        "child [0, 0, 0, None, 0] None {}",
        "child [0, 0, 0, 0, 0]",
        "child [1, 1, 1, 1, 1] [1, 1, 1, 1, 1]",
        "0",
        "parent [1200, 1200, 1200, 1201, 1] {'bad_value': 1}",
    ]


def test_the_childs_instruments_are_the_same_objects(run):
    """What the program holds goes on working, and get-or-create finds it."""
    assert run("""
def child():
    measure()
    print(all(getattr(registry, kind)("x") is instrument for kind, instrument in instruments.items()))
    print(registry.counter("x").tagged(a=1) is made, registry.counter("x", tags={"a": 1}) is made)

made = registry.counter("x").tagged(a=1)
print(in_child(child))
""") == ["True", "True True", "0"]


def test_the_first_use_in_the_child_calls_the_hook_once(run):
    """Any call of any instrument, or making one; not the fork itself, and never in the parent."""
    assert run("""
registry.on_first_use(lambda: print("hook in", "parent" if os.getpid() == parent else "child"))
parent = os.getpid()
for kind in KINDS:
    def child():
        registry.snapshot()
        registry.tick(10, 10)
        print(kind)
        for _ in range(3):
            getattr(instruments[kind], CALLS[kind])(1)
        print(sizes(registry.tick(20, 10).delta)[KINDS.index(kind)])
    print(in_child(child))
def child():
    print("new")
    registry.counter("new")
print(in_child(child))
measure()
""") == [
        *(line for kind in ("counter", "timer", "histogram") for line in (kind, "hook in child", "3", "0")),
        *("gauge", "hook in child", "3", "0"),
        *("unique", "hook in child", "1", "0"),
        *("new", "hook in child", "0"),
    ]


def test_a_hook_that_fails_does_not_reach_the_program(run):
    """No thread to be had, say: measuring goes on, and it is counted."""
    assert run("""
def child():
    registry.on_first_use(lambda: 1 / 0)
    measure()
    print(sizes(registry.tick(10, 10).delta), registry.drops.totals())
print(in_child(child))
""") == ["[1, 1, 1, 1, 1] {'first_use_error': 1}", "0"]


def test_locks_that_another_thread_held_do_not_hang_the_child(run):
    """Folds, ticks and the account: held at the moment of the fork, free in the child; and it can fork again."""
    assert run("""
held, leave = threading.Event(), threading.Event()

def hold():
    locks = [registry._lock, registry.drops._lock, *(instrument._lock for instrument in instruments.values())]
    for lock in locks:
        lock.acquire()
    held.set()
    leave.wait()
    for lock in locks:
        lock.release()

thread = threading.Thread(target=hold)
thread.start()
held.wait()

def grandchild():
    for _ in range(600): measure()
    print("grandchild", sizes(registry.tick(10, 10).cumulative), registry.drops.totals())

def child():
    for _ in range(600): measure()
    registry.drops.add("x", 300)
    print("child", in_child(grandchild))
    print("child", sizes(registry.tick(10, 10).cumulative), registry.drops.totals())

print(in_child(child))
leave.set()
thread.join()
measure()
print("parent", sizes(registry.tick(10, 10).cumulative), registry.drops.totals())
""") == [
        "grandchild [600, 600, 600, 600, 1] {}",
        "child 0",
        "child [600, 600, 600, 600, 1] {'x': 300}",
        "0",
        "parent [1, 1, 1, 1, 1] {}",
    ]


def test_forks_while_threads_measure_and_tick_lose_nothing_and_double_nothing(run):
    """Thirty children, forked at any moment: each has exactly its own numbers, and the parent all of its own."""
    assert run("""
sys.setswitchinterval(1e-5)
stop, made, seen = threading.Event(), [], 0

def work():
    count = 0
    while not stop.is_set():
        instruments["counter"].inc()
        instruments["timer"].observe(1)
        count += 1
    made.append(count)

def read():
    global seen
    while not stop.is_set():
        seen += registry.tick(10, 10).delta.counters.get("x", 0)

threads = [threading.Thread(target=each) for each in (work, work, read)]
for thread in threads: thread.start()

def child():
    for _ in range(1000): measure()
    whole = registry.tick(20, 10).cumulative
    assert sizes(whole) == [1000, 1000, 1000, 1000, 1], sizes(whole)

print({in_child(child) for _ in range(30)})
stop.set()
for thread in threads: thread.join()
seen += registry.tick(10, 10).delta.counters.get("x", 0)
print(seen == sum(made))
""") == ["{0}", "True"]


@pytest.mark.parametrize(
    "where", ["registry.tick(10, 10)", "[counter.inc() for _ in range(520)]", "registry.snapshot()"]
)
def test_a_fork_in_the_middle_of_a_tick_or_fold_leaves_both_sides_working(run, where):
    """A signal handler, or a value's own code, may fork while its thread holds locks; the batch is the parent's."""
    lines = run(
        """
class Forking:
    pid = None
    def __float__(self):
        self.pid = os.fork()
        return 1.0

counter, forking, seen = instruments["counter"], Forking(), 0
counter.inc("bad")
counter.inc(forking)
"""
        + where
        + """
assert forking.pid is not None
if forking.pid == 0:
    registry.tick(10, 10)
    measure(5)
    cut = registry.tick(20, 10)
    print("child", sizes(cut.delta), sizes(cut.cumulative), registry.drops.totals())
    sys.stdout.flush()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(forking.pid, 0)[1]))
counter.inc(1000)
registry.tick(10, 10)
total = registry.snapshot().totals["counter"]["x"].sum
print("parent", total - (520 if total > 1500 else 0), registry.drops.totals())
"""
    )
    child, status, parent = lines
    assert status == "0"
    assert parent == "parent 1001.0 {'bad_value': 1}"
    assert child == "child [5, 1, 1, 5, 1] [5, 1, 1, 5, 1] {}"


def test_a_sleeping_instrument_of_the_parent_starts_anew_too(run):
    """Expired, still held, and with a call of the parent's under way."""
    assert run("""
clock = ManualClock()
registry = Registry(clock=clock, expire=10)
held = registry.counter("held")
held.inc()
for _ in range(6):
    clock.advance(10)
    registry.tick(int(clock.time()), 10)
getattr(held, "_values", []).append(7)  # in the C implementation no call can be under way
held._lock.acquire()

def child():
    held.inc(2)
    print(registry.tick(int(clock.time()) + 10, 10).delta.counters, held.sleeping)

print(in_child(child))
""") == ["{'held': 2} False", "0"]


def test_a_child_of_multiprocessing_starts_at_zero(run):
    """It forks like any other; its exit skips atexit, which is the flusher's to know."""
    assert run("""
import multiprocessing
measure(); measure()

def child(numbers):
    measure()
    numbers.put(sizes(registry.tick(10, 10).cumulative))

context = multiprocessing.get_context("fork")
numbers = context.SimpleQueue()
process = context.Process(target=child, args=(numbers,))
process.start()
print(numbers.get())
process.join()
print(process.exitcode)
""") == ["[1, 1, 1, 1, 1]", "0"]
