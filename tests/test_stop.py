"""What stop() and the end of a program say of what was not delivered, and how long they wait for a disk."""

import re
import sqlite3
import threading
from collections.abc import Iterator

import pytest

from metricslib import Flusher, Registry
from metricslib.delivery import Deadline
from metricslib.delivery.store.store import _Disk
from metricslib.naming import Naming
from tests.peers import FOREVER, GraphitePeer, eventually, free_port
from tests.sockets import PATIENCE
from tests.test_flusher import run


@pytest.fixture
def peer() -> Iterator[GraphitePeer]:
    peer = GraphitePeer()
    yield peer
    peer.close()


def last_words(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "trying again" not in record.message]


def test_a_stop_in_an_outage_says_how_many_points_are_lost(peer, caplog):
    """In one line for all destinations; those that have everything are not in it."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    other = f"graphite://127.0.0.1:{free_port()}"
    flusher = Flusher(registry, [away, peer.url, other], interval=FOREVER, own="", group=None)
    flusher.start()
    registry.counter("a").inc()
    registry.gauge("g").set(1)
    assert not flusher.stop(0.5)
    first, second = (f"3 points for {url} were in memory and are lost, cause shutdown" for url in (away, other))
    assert last_words(caplog) == [f"not everything was delivered in time: {first}; {second}"]


def test_a_stop_in_an_outage_says_how_many_points_are_kept(caplog, tmp_path):
    """And where. What was dropped earlier is not said again."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    flusher = Flusher(registry, away, interval=FOREVER, own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc()
    flusher._dispatcher._senders[0].queue.refuse(5, "unsupported")
    caplog.clear()
    assert flusher.stop(0.5)
    kept = f"not everything was delivered in time: 2 points for {away} are kept in {tmp_path} for the next start"
    assert last_words(caplog) == [kept]


def test_a_stop_in_an_outage_says_what_the_group_keeps_and_the_next_process_sends_it(caplog):
    """And it adds up with what that one measures."""
    registry, port = Registry(), free_port()
    away = f"graphite://127.0.0.1:{port}"
    flusher = Flusher(registry, away, interval=FOREVER, own="")
    flusher.start()
    registry.counter("a").inc(5)
    assert not flusher.stop(0.5)
    (said,) = last_words(caplog)
    assert re.fullmatch(
        f"not everything was delivered in time: 2 points for {away} are kept in /.* until another process sends the"
        " same series",
        said,
    )
    peer = GraphitePeer(port=port)
    registry = Registry()
    flusher = Flusher(registry, away, interval=FOREVER, own="")
    flusher.start()
    registry.counter("a").inc(2)
    assert flusher.stop(PATIENCE)
    assert peer.at("stats.counters.a.count") == [7]
    peer.close()


def test_a_stop_says_what_the_disk_did_not_take(caplog, tmp_path, monkeypatch):
    """It is lost, although there is a spool directory."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    spool = tmp_path / "file"
    spool.write_text("")
    flusher = Flusher(registry, away, interval=FOREVER, own="", spool=spool)
    flusher.start()
    registry.counter("a").inc()
    assert not flusher.stop(0.5)
    lost = (
        f"not everything was delivered in time: 2 points for {away} were in memory alone and are lost, cause shutdown"
    )
    assert last_words(caplog)[-1] == lost


def test_a_stop_in_an_outage_keeps_what_a_full_disk_refused_a_moment_ago(caplog, tmp_path, monkeypatch):
    """The disk has room again, which would be noticed later: it is tried before delivery uses up the time."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    flusher = Flusher(registry, away, interval=FOREVER, own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc()
    with monkeypatch.context() as full:
        full.setattr(_Disk, "write", refuse)
        assert not flusher.flush(0.01)
        eventually(lambda: flusher.status().destinations[0].spool_trouble)
    monkeypatch.setattr("metricslib.flusher.EXIT_DEADLINE", 1.0)
    assert flusher.stop(1.0)
    kept = f"4 points for {away} are kept in {tmp_path} for the next start"
    assert last_words(caplog)[-1] == f"not everything was delivered in time: {kept}"


def refuse(*_):
    raise sqlite3.OperationalError("database or disk is full")


def test_a_stop_tells_what_is_not_a_matter_of_time_from_what_is(peer, caplog):
    """A line that is too long has a warning of its own, with what to change."""
    registry = Registry()
    flusher = Flusher(registry, f"{peer.url}?max_line=60", interval=FOREVER, own="")
    flusher.start()
    registry.gauge("short").set(1)
    registry.gauge("g" * 100).set(1)
    assert not flusher.stop(PATIENCE)
    advice = "shorten names and tags, or raise max_line (graphite+pickle: max_frame) in its URL"
    assert last_words(caplog)[1:] == [f"{peer.url}: 1 point dropped, cause too_long: {advice}"]


def test_a_single_point_is_lost_in_the_singular(caplog):
    """One series, one point."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    flusher = Flusher(registry, away, interval=FOREVER, own="", group=None)
    flusher.start()
    registry.gauge("g").set(1)
    assert not flusher.stop(0.5)
    lost = f"1 point for {away} was in memory and is lost, cause shutdown"
    assert last_words(caplog) == [f"not everything was delivered in time: {lost}"]


def test_a_stop_that_delivers_everything_says_nothing(peer, caplog):
    """Also where something had been dropped earlier."""
    registry = Registry()
    flusher = Flusher(registry, peer.url, interval=FOREVER, own="")
    flusher.start()
    flusher._dispatcher._senders[0].queue.refuse(5, "unsupported")
    caplog.clear()
    registry.counter("a").inc()
    assert flusher.stop(PATIENCE)
    assert caplog.records == []


def test_a_program_that_ends_in_an_outage_says_what_is_lost():
    """On stderr, where nobody has set up logging."""
    away = f"graphite://127.0.0.1:{free_port()}"
    done = run("import sys, metricslib as m; m.start(sys.argv[1], own='', group=None); m.counter('a').inc()", away)
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"not everything was delivered in time: 2 points for {away} were in memory and are lost, cause shutdown"
    )


def test_a_destination_that_leaves_in_an_outage_says_what_is_kept_and_then_dropped(caplog, peer):
    """As a reload of the forwarder may have it: without a spool directory the end of the program is the end of it."""
    registry, away = Registry(), f"graphite://127.0.0.1:{free_port()}"
    flusher = Flusher(registry, away, interval=FOREVER, own="", group=None)
    flusher.start()
    registry.counter("a").inc()
    flusher.flush(0.01)
    eventually(lambda: flusher.status().destinations[0].waiting_points == 2)
    flusher.change(peer.url, interval=FOREVER, naming=Naming(), timeout=0.1)
    kept = "waiting in memory until it is one again, or the program ends: 2 points"
    assert last_words(caplog) == [f"{away} is no longer a destination; {kept}"]
    caplog.clear()
    assert not flusher.stop(PATIENCE)
    lost = f"2 points for {away} were in memory and are lost, cause shutdown"
    assert last_words(caplog) == [f"not everything was delivered in time: {lost}"]


@pytest.mark.parametrize("hangs", ["write", "close"])
def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(hangs, tmp_path, monkeypatch, caplog):
    """For two seconds at most, as is promised, however many things there are to write."""
    registry, answers = Registry(), threading.Event()
    flusher = Flusher(registry, [f"graphite://127.0.0.1:{free_port()}"] * 3, interval=FOREVER, own="", spool=tmp_path)
    flusher.start()
    registry.counter("a").inc()
    assert not flusher.flush(0.1)
    eventually(lambda: flusher.status().destinations[0].waiting_points == 2)
    real = getattr(_Disk, hangs)

    def hanging(*arguments, **options):
        assert answers.wait(PATIENCE)
        return real(*arguments, **options)

    monkeypatch.setattr(_Disk, hangs, hanging)
    registry.counter("a").inc()
    deadline = Deadline(10.0)
    flusher.stop(0.1)
    assert deadline.left() > 6
    assert re.search("not everything was delivered in time|could not be closed in time", caplog.text)
    answers.set()
