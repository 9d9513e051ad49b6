"""SIGTERM and SIGHUP end a program as before, and what it measured arrives. Real processes, a real connection."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.peers import FOREVER, ROOT, GraphitePeer, eventually
from tests.sockets import PATIENCE

SETUP = f"""
import atexit, os, signal, sys, threading, time
import metricslib as metrics

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup

def begin(**options):
    metrics.start(sys.argv[1], interval={FOREVER}, own="", **options)

def measure():
    for _ in range(42):
        metrics.counter("hits").inc()

def ready():
    print("ready", flush=True)
    time.sleep({PATIENCE})
"""


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


Process = subprocess.Popen[str]


@pytest.fixture
def start(peer: GraphitePeer) -> Iterator[Callable[..., Process]]:
    """Call to start a program, and wait until it is ready."""
    started: list[Process] = []

    def start(program: str, url: str = peer.url, before: Sequence[str] = (), setup: str = SETUP) -> Process:
        command = [*before, sys.executable, "-W", "error", "-c", setup + program, url]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: Process, number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Send the signal; return exit code and output."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def arrived(peer: GraphitePeer, path: str = "stats.counters.hits.count") -> list[float]:
    return peer.at(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_without_a_handler_sends_what_it_measured_and_dies_of_the_signal(start, peer, number):
    process = start("begin(); measure(); ready()")
    assert end(process, number) == (-number, "", "")
    assert arrived(peer) == [42]


def test_without_signals_the_program_dies_at_once(start, peer):
    process = start("begin(signals=False); measure(); ready()")
    assert end(process) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == []


def test_an_ignored_signal_stays_ignored(start, peer):
    """As under nohup."""
    process = start("signal.signal(signal.SIGHUP, signal.SIG_IGN); begin(); measure(); ready()")
    process.send_signal(signal.SIGHUP)
    assert end(process) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == [42]


def test_a_handler_of_the_program_runs_after_a_flush(start, peer):
    """The server goes on as its handler says; what it measures until its end arrives, too."""
    process = start(
        """
def handler(number, frame):
    print(number, frame is not None, flush=True)
    metrics.counter("hits").inc()
    sys.exit(7)

signal.signal(signal.SIGTERM, handler)
begin(); measure(); ready()
""",
    )
    assert end(process) == (7, "15 True\n", "")
    assert arrived(peer) == [43]


def test_a_handler_that_is_installed_later_is_final(start, peer):
    process = start("begin(); measure(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); ready()")
    assert end(process) == (3, "", "")
    assert arrived(peer) == [42]


def test_a_handler_that_puts_ours_back_and_raises_the_signal_again(start, peer):
    """As uvicorn does at its end."""
    process = start(
        """
begin(); measure()
ours = signal.getsignal(signal.SIGTERM)

def graceful(number, frame):
    signal.signal(number, ours)
    signal.raise_signal(number)

signal.signal(signal.SIGTERM, graceful)
ready()
""",
    )
    assert end(process) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == [42]


def test_a_handler_that_calls_the_one_before_it_may_be_wrapped(start, peer):
    """The inner one is ours; what it does is done once, and no handler calls itself."""
    process = start(
        """
begin()
ours = signal.getsignal(signal.SIGTERM)

def chained(number, frame):
    print("theirs", flush=True)
    ours(number, frame)

signal.signal(signal.SIGTERM, chained)
metrics.stop(); begin(); measure(); ready()
""",
    )
    assert end(process) == (-signal.SIGTERM, "theirs\n", "")
    assert arrived(peer) == [42]


def test_the_program_s_handler_is_called_for_each_signal(start, peer):
    """Also for one that arrives while the handler of another runs."""
    process = start(
        """
calls = []

def graceful(number, frame):
    calls.append(number)
    if len(calls) == 1:
        os.kill(os.getpid(), number)
    else:
        sys.exit(7)

signal.signal(signal.SIGTERM, graceful)
begin(); measure(); ready()
""",
    )
    assert end(process) == (7, "", "")
    assert arrived(peer) == [42]


def test_a_forked_worker_that_sets_up_signals_anew_sends_what_it_measured(start, peer):
    """As gunicorn's workers do, after the program was loaded before the fork."""
    process = start(
        """
begin()
if child := os.fork():
    os.waitpid(child, 0)
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
measure()
print("ready", os.getpid(), sep="\\n", flush=True)
time.sleep(60)
""",
    )
    assert process.stdout
    os.kill(int(process.stdout.readline()), signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert arrived(peer) == [42]


def test_a_start_that_fails_leaves_signals_alone(start, peer):
    program = """
try: begin(grace=-1)
except ValueError: pass
else: raise AssertionError
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; ready()
"""
    assert end(start(program)) == (-signal.SIGTERM, "", "")


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent
"""


def test_in_gevent_the_default_action_follows_what_is_sent(start, peer):
    """Its event loop runs the handlers, and must not block."""
    process = start("begin(); measure(); ready()", setup=GEVENT + SETUP)
    assert end(process) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == [42]


def test_in_gevent_a_handler_of_the_program_does_not_wait(start, peer):
    program = (
        "signal.signal(signal.SIGTERM, lambda *_: gevent.spawn_later(0.5, sys.exit, 7)); begin(); measure(); ready()"
    )
    assert end(start(program, setup=GEVENT + SETUP)) == (7, "", "")
    assert arrived(peer) == [42]


def test_in_another_thread_start_leaves_signals_alone(start, peer):
    process = start("t = threading.Thread(target=begin); t.start(); t.join(); measure(); ready()")
    assert end(process) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == []


@pytest.mark.parametrize("when", ["metrics.stop()", "sys.exit()"])
def test_a_signal_during_a_stop_waits_for_its_end(start, peer, when):
    """The callback of a gauge, which the stop reads, sends the signal in the middle of it."""
    process = start(
        f"""
def read():
    os.kill(os.getpid(), signal.SIGTERM)
    return 1.0

begin(); measure()
print("ready", flush=True)
metrics.gauge("g", read=read)
{when}
print("not reached")
""",
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (-signal.SIGTERM, "", "")
    assert arrived(peer) == [42]


def test_a_signal_during_a_stop_reaches_the_program_s_handler(start, peer):
    process = start(
        """
def read():
    os.kill(os.getpid(), signal.SIGTERM)
    return 1.0

signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
begin(); measure()
print("ready", flush=True)
metrics.gauge("g", read=read)
metrics.stop()
print("not reached")
""",
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (7, "", "")
    assert arrived(peer) == [42]


def test_after_a_stop_the_default_is_back(start):
    program = "begin(); metrics.stop(); assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL; ready()"
    assert end(start(program, "console:"))[0] == -signal.SIGTERM


def test_a_destination_that_does_not_answer_delays_the_end_by_the_deadline_at_most(start, tmp_path):
    """Nothing waits for ever: what is not delivered is in the spool directory."""
    program = f"begin(spool='{tmp_path}'); measure(); ready()"
    process = start(program, "graphite://127.0.0.1:1")
    code, _, err = end(process)
    assert code == -signal.SIGTERM
    assert "kept" in err or "wait" in err
    assert list(tmp_path.glob("*.sqlite"))


def test_a_forked_child_sends_its_own(start, peer):
    """The parent's handler is the child's too; the child sends what it measured itself."""
    process = start(
        """
begin(prefix="{pid}"); measure()
if child := os.fork():
    os.waitpid(child, 0)
else:
    measure()
    print("ready", os.getpid(), sep="\\n", flush=True)
    time.sleep(60)
"""
    )
    assert process.stdout
    child = int(process.stdout.readline())
    os.kill(child, signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert arrived(peer, f"stats.counters.{child}.hits.count") == [42]
    assert arrived(peer, f"stats.counters.{process.pid}.hits.count") == [42]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process namespace")
def test_process_1_sends_what_it_measured_and_goes_on(start, peer):
    """The kernel shields it from the default action, so the signal did not end it before either."""
    outside = start("begin(); measure(); ready()", before=("unshare", "--fork", "--pid", "--kill-child", "--"))
    (inside,) = map(int, Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split())
    os.kill(inside, signal.SIGTERM)
    eventually(lambda: arrived(peer) == [42])
    assert outside.poll() is None


def test_what_the_last_flush_raises_does_not_keep_the_program(start, peer):
    program = """
def broken(): raise RuntimeError("broken")
begin(); from metricslib import _signals; _signals.install(broken, broken); ready()
"""
    code, _, err = end(start(program))
    assert code == -signal.SIGTERM
    assert "a signal ends the program, and its last interval was not sent" in err
