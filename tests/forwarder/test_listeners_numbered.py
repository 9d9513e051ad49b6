"""Numbered batches over TCP and Unix streams, and the answers to them."""

import os
import stat
import threading

import pytest

from forwarder.dedup import Deduplicator
from forwarder.listeners import NumberedTcpListener, NumberedUnixListener
from metricslib.window import Flush, Window
from metricslib.wire.numbered import LONGEST, Numbered, ack, greeting, new_batch, sync
from tests.forwarder.heard import Broken
from tests.peers import eventually
from tests.sockets import PATIENCE, connected

WINDOW = Window(0, 10, 10)


@pytest.fixture
def dedup():
    return Deduplicator()


@pytest.fixture(params=["tcp", "unix"])
def listen(request, tmp_path, monkeypatch, started, heard, dedup):
    """Call to start a listener, over TCP or at a path."""
    monkeypatch.chdir(tmp_path)  # a path in it may be too long for a socket

    def listen(sink=heard, sync=lambda: None, **options):
        kind, where = (
            (NumberedTcpListener, ("127.0.0.1", 0)) if request.param == "tcp" else (NumberedUnixListener, ("s",))
        )
        return started(kind(*where, sink, dedup, interval=lambda: 10, sync=sync, **options))

    return listen


class Sender:
    """A connection to a listener, and what is heard on it."""

    def __init__(self, listener, greeted=True):
        self.socket = connected(listener.address)
        self._file = self.socket.makefile("rb")
        if greeted:
            assert self.line() == greeting(10)

    def line(self):
        return self._file.readline()

    def send(self, *texts):
        self.socket.sendall(b"".join(texts))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self.socket.close()


def keep(dedup, **received):
    """Let the window be kept that has all up to these numbers in it."""
    flush = Flush(WINDOW, WINDOW, received)
    dedup.notes(flush, closes=True)
    dedup.committed(flush)


def test_batches_are_heard_and_answered_when_they_are_kept(listen, heard, dedup):
    """The listener greets with its interval, hears, and says nothing before."""
    listener = listen()
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\n"), new_batch("x", 2, b"b:1|c\n"))
        heard.wait(lines=2)
        sender.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sender.socket.recv(1)
        sender.socket.settimeout(PATIENCE)
        keep(dedup, x=2)
        assert sender.line() == ack("x", 2)
    assert heard.lines == [b"a:1|c", b"b:1|c"]
    assert listener.counts() == {"connections": 1, "batches": 2}


def test_what_comes_again_is_left_out(listen, heard, dedup):
    """On another connection, say, because the first was reset. Once it is kept, the new one is told, and who asks
    again is told at once.
    """
    listener = listen()
    with Sender(listener) as first:
        first.send(new_batch("x", 1, b"a:1|c\n"))
        heard.wait(lines=1)
    with Sender(listener) as second:
        second.send(new_batch("x", 1, b"a:1|c\n"), new_batch("x", 2, b"b:1|c\n"))
        heard.wait(lines=2)
        keep(dedup, x=2)
        assert second.line() == ack("x", 2)
        second.send(new_batch("x", 1, b"a:1|c\n"))
        assert second.line() == ack("x", 2)
    assert heard.lines == [b"a:1|c", b"b:1|c"]
    assert listener.counts()["batches_repeated"] == 2


def test_an_old_connection_may_be_read_after_the_new_one(listen, heard, dedup):
    """What it still had is a repeat by then, and is not counted a second time."""
    listener = listen()
    with Sender(listener) as old, Sender(listener) as new:
        new.send(new_batch("x", 1, b"a:1|c\n"), new_batch("x", 2, b"b:1|c\n"))
        heard.wait(lines=2)
        old.send(new_batch("x", 1, b"a:1|c\n"), new_batch("x", 2, b"b:1|c\n"))
        eventually(lambda: listener.counts().get("batches_repeated") == 2)
        keep(dedup, x=2)
        assert old.line() == ack("x", 2)
    assert heard.lines == [b"a:1|c", b"b:1|c"]


def test_two_senders_on_one_connection(listen, heard, dedup):
    """One that took over what another left behind: both are answered, each for itself."""
    with Sender(listen()) as sender:
        sender.send(*(new_batch(who, number, b"a:1|c\n") for number in (1, 2) for who in ("dead", "living")))
        heard.wait(lines=4)
        keep(dedup, dead=2, living=1)
        assert {sender.line(), sender.line()} == {ack("dead", 2), ack("living", 1)}
        keep(dedup, living=2)
        assert sender.line() == ack("living", 2)


def test_who_cannot_wait_gets_a_flush(listen, heard, dedup):
    """One for all who ask at about the same time; there is none for who waits for nothing."""
    flushes = threading.Semaphore(0)
    listener = listen(sync=flushes.release)
    with Sender(listener) as idle, Sender(listener) as one, Sender(listener) as other:
        idle.send(sync())
        one.send(new_batch("x", 1, b"a:1|c\n"))
        other.send(new_batch("y", 1, b"a:1|c\n"))
        heard.wait(lines=2)
        assert not flushes.acquire(blocking=False)
        one.send(sync())
        assert flushes.acquire(timeout=PATIENCE)
        keep(dedup, x=1, y=1)
        assert one.line() == ack("x", 1)
        assert other.line() == ack("y", 1)
    assert not flushes.acquire(blocking=False)


def test_at_the_end_it_falls_silent_in_two_steps(listen, heard, dedup):
    """What has come is heard, then nothing more; and what the last window holds is still answered."""
    listener = listen()
    with Sender(listener) as sender, Sender(listener) as late:
        sender.send(new_batch("x", 1, b"a:1|c\n"))
        assert listener.drain(PATIENCE)
        late.send(new_batch("y", 1, b"a:1|c\n"))
        assert heard.lines == [b"a:1|c"]
        with pytest.raises(OSError, match=r"refused|No such file"):
            Sender(listener)
        keep(dedup, x=1)
        assert listener.stop(1.0)
        assert sender.line() == ack("x", 1)
        assert sender.line() == b""
        try:
            assert late.line() == b""
        except ConnectionResetError:
            pass
    assert heard.lines == [b"a:1|c"]


def test_it_may_be_stopped_at_once(listen, heard, dedup):
    """Its connections end, and what was not answered will be sent again."""
    listener = listen()
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\n"))
        heard.wait(lines=1)
        assert listener.stop(1.0)
        assert sender.line() == b""
    keep(dedup, x=1)  # to tell it now does no harm
    assert listener.drain(1.0)


@pytest.mark.parametrize("stream", [b"web.hits:1|c\n", b"GET / HTTP/1.1\r\n", b"\0" * 4096, b"x" * 100])
def test_what_is_no_batch_ends_the_connection(listen, heard, stream):
    """It is counted, and what came before it is heard."""
    listener = listen()
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\n"), stream)
        try:
            assert sender.line() == b""
        except ConnectionResetError:
            pass
    heard.wait(lines=1)
    assert listener.counts() == {"connections": 1, "batches": 1, "no_batch": 1}
    with Sender(listener) as sender:
        sender.send(new_batch("x", 2, b"a:1|c\n"))
        heard.wait(lines=2)


def test_the_half_of_a_batch_is_none(listen, heard):
    """Its sender was cut off, and sends it again."""
    listener = listen()
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\nb:1|c\n")[:-6])
    eventually(lambda: not listener.connections)
    assert heard.lines == []
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\nb:1|c\n"))
        heard.wait(lines=2)


def test_a_batch_that_is_too_long_is_dropped_and_answered(listen, heard, dedup):
    """So it does not stop those behind it."""
    with Sender(listen()) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\n" * (LONGEST // 6 + 1)), new_batch("x", 2, b"b:1|c\n"))
        heard.wait(lines=1, dropped=1)
        keep(dedup, x=2)
        assert sender.line() == ack("x", 2)
    assert heard.lines == [b"b:1|c"]
    assert heard.dropped == {"batch_too_long": LONGEST // 6 + 1}


def test_who_does_not_read_the_answers_is_cut_off(listen, heard, dedup):
    """The listener waits for nobody."""
    listener = listen()
    names = [f"sender{number}" for number in range(5000)]
    again = b"".join([new_batch(name, 1, b"") for name in names])
    with Sender(listener) as sender:
        sender.send(again)
        eventually(lambda: listener.counts().get("batches") == len(names))
        keep(dedup, **dict.fromkeys(names, 1))
        try:
            while True:
                sender.send(again)
        except OSError:
            pass
    eventually(lambda: listener.counts().get("answers_unread") == 1)


def test_a_sink_that_fails_stops_nobody(listen, dedup, caplog):
    """The batch is lost and counted; its number counts as heard, for half of it may have been taken."""
    broken = Broken()
    listener = listen(broken)
    with Sender(listener) as sender:
        sender.send(new_batch("x", 1, b"a:1|c\n"))
        broken.wait(lines=1)
        keep(dedup, x=1)
        assert sender.line() == ack("x", 1)
    assert listener.counts()["feed_error"] == 1
    assert caplog.records[0].getMessage() == f"data from {listener.address} was lost"


def test_its_address_and_its_file(listen):
    """The scheme says what is spoken there; a socket's file lets in nobody else."""
    listener = listen()
    scheme, _, where = listener.address.partition("://")
    assert scheme in ("forwarder+tcp", "forwarder+unix")
    if scheme == "forwarder+unix":
        assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
        listener.stop(1.0)
        assert not os.path.exists(where)


def test_senders_without_end_wait_in_bounded_space(listen, heard, dedup, monkeypatch):
    """Who waits for longest is not answered, and will send again."""
    monkeypatch.setattr("forwarder.listeners.numbered.UNSAFE", 2)
    with Sender(listen()) as sender:
        sender.send(*(Numbered(who, 1, b"a:1|c\n").framed for who in "abc"))
        heard.wait(lines=3)
        keep(dedup, a=1, b=1, c=1)
        assert {sender.line(), sender.line()} == {ack("b", 1), ack("c", 1)}
