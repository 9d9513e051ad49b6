"""Commands over TCP: lines in any pieces, answers of any length, and nobody who can hold up the others."""

import socket
import struct
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.listeners import console as module
from forwarder.listeners.console import LONGEST, CommandListener
from metricslib.testing import ManualClock
from tests.peers import eventually
from tests.sockets import connected

LONG = 5_000_000


def answer(command):
    """Echo; hang up on ``bye``; a long answer to ``long``; a broken one to ``broken``."""
    if command.startswith("bye"):
        return None
    if command == "long":
        return (f"{number:9d}\n" for number in range(LONG // 10))
    if command == "broken":
        return (1 / 0 for _ in "x")
    return ["[", command, "]\n"]


@pytest.fixture
def listen():
    """Start listeners that end with the test."""
    started = []

    def listen(host="127.0.0.1", **options):
        listener = CommandListener(host, 0, answer, **options)
        started.append(listener)
        listener.bind()
        listener.start()
        return listener

    yield listen
    for listener in started:
        assert listener.stop(5)


class Client:
    """A connection to a listener."""

    def __init__(self, listener):
        self.sock = connected(listener.address)

    def say(self, text):
        self.sock.sendall(text.encode() if isinstance(text, str) else text)
        return self

    def hear(self, text):
        """Read so much as ``text`` is, and compare."""
        wanted, heard = text.encode(), b""
        while len(heard) < len(wanted) and (chunk := self.sock.recv(len(wanted) - len(heard))):
            heard += chunk
        assert heard == wanted
        return self

    def rest(self):
        """Read to the end of the stream."""
        heard = b""
        while chunk := self.sock.recv(1 << 16):
            heard += chunk
        return heard.decode()

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self):
        self.sock.close()


@pytest.fixture
def client(listen):
    with closing(Client(listen())) as client:
        yield client


def test_each_line_is_answered(client):
    """In its order, on one connection."""
    client.say("a\n").hear("[a]\n").say("b\nc d\n").hear("[b]\n[c d]\n")


def test_empty_lines_around_commands_are_none(client):
    """statsd's own check sends ``echo -e "health\\n"``, and wants one answer. An empty line alone is a line."""
    client.say("health\n\n").hear("[health]\n").say("\n").hear("[]\n").say("\r\na\r\n").hear("[a]\n")


def test_the_end_of_the_stream_ends_a_command(client):
    """Who half-closes is answered to the end, and then hung up on."""
    assert client.say("a\nb").end().rest() == "[a]\n[b]\n"


def test_a_command_needs_no_line_feed(client):
    """statsd takes what arrives for a command; we wait a moment for more of it."""
    client.say("heal").hear("[heal]\n").say("x\n").hear("[x]\n")


def test_hanging_up(client):
    """Answers before it are sent, commands behind it are not answered."""
    assert client.say("a\nbye\nb\n").rest() == "[a]\n"


def test_commands_that_are_too_long_are_errors(listen):
    """Whatever the console says to nothing; the line is skipped, counted, and the connection goes on."""
    listener = listen()
    with closing(Client(listener)) as client:
        client.say("x" * (LONGEST + 1) + "\na\n")
        heard = client.end().rest()
        assert sorted(heard.splitlines()) == ["[]", "[a]"]
        assert listener.counts()["line_too_long"] == 1


def test_a_long_answer_comes_whole(client):
    """As fast as it is read, with a command behind it."""
    heard = client.say("long\na\n").end().rest()
    assert len(heard) == LONG + 4
    assert heard.endswith(f"{LONG // 10 - 1:9d}\n[a]\n")


def test_who_does_not_read_holds_up_nobody(listen):
    """A connection with a long answer that nobody reads costs the others nothing, and no memory for the rest of it."""
    listener = listen()
    with closing(Client(listener)) as deaf, closing(Client(listener)) as other:
        deaf.say("long\n" * 100)
        for _ in range(20):
            other.say("a\n").hear("[a]\n")
        assert all(len(one.unsent) < 1 << 17 for one in listener._command_connections())


def test_connections_are_bounded(listen):
    """One more is aborted and counted; when one ends there is room again."""
    listener = listen(connections=2)
    with closing(Client(listener).say("a\n").hear("[a]\n")) as first, closing(Client(listener)) as second:
        second.say("b\n").hear("[b]\n")
        with pytest.raises(ConnectionError), closing(Client(listener)) as third:
            third.rest()
        assert listener.counts()["connections_refused"] == 1
        first.close()
        eventually(lambda: listener.connections == 1)
        with closing(Client(listener)) as fourth:
            fourth.say("d\n").hear("[d]\n")


def test_who_says_nothing_is_hung_up_on(listen, monkeypatch):
    """After a while, so that connections nobody uses are free for others."""
    monkeypatch.setattr(module, "IDLE", 0.05)
    listener = listen()
    with closing(Client(listener)) as client:
        assert client.rest() == ""
    assert listener.counts()["idle"] == 1


def test_who_does_not_read_is_cut_off(listen, monkeypatch):
    """After a while without progress."""
    monkeypatch.setattr(module, "STALL", 0.05)
    listener = listen()
    with closing(Client(listener)) as client:
        client.say("long\n" * 100)
        eventually(lambda: listener.counts().get("stalled") == 1)
        assert listener.connections == 0


def test_an_answer_that_breaks_off_ends_the_connection(listen, caplog):
    """It is counted and logged, and others are answered."""
    listener = listen()
    with closing(Client(listener)) as client:
        assert client.say("broken\n").rest() == ""
    assert listener.counts()["answer_errors"] == 1
    assert "could not be answered" in caplog.text
    with closing(Client(listener)) as client:
        client.say("a\n").hear("[a]\n")


def test_a_reset_in_the_middle_of_an_answer_is_counted(listen):
    """And nothing else happens."""
    listener = listen()
    client = Client(listener).say("long\n" * 10)
    client.hear(f"{0:9d}\n")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    eventually(lambda: listener.counts().get("connection_errors") == 1)
    with closing(Client(listener)) as other:
        other.say("a\n").hear("[a]\n")


CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize(
    "first",
    [b"POST / HTTP/1.0\r\n", b"GET /?a HTTP/1.1\r\n", CLIENT_HELLO, b"POST /" + b"x" * 5000 + b" HTTP/1.0\r\n"],
)
@pytest.mark.parametrize("apart", [False, True])
def test_another_protocol_is_hung_up_on(listen, first, apart):
    """No command behind it is obeyed, whether it comes with the first line or later."""
    listener = listen()
    with closing(Client(listener)) as client:
        try:
            if apart:
                client.say(first)
            client.say(b"\na\n" if apart else first + b"\na\n")
            assert client.rest() == ""
        except ConnectionError:
            pass
    with closing(Client(listener)) as other:  # the thread is behind the first one then
        other.say("a\n").hear("[a]\n")
    assert listener.counts() == {"connections": 2, "foreign_protocol": 1}


def test_a_silent_connection_goes_for_a_new_one(listen):
    """Whoever holds all connections and says nothing locks nobody out."""
    clock = ManualClock()
    listener = listen(connections=1, clock=clock)
    with closing(Client(listener)) as silent:
        silent.say("a\n").hear("[a]\n")
        clock.advance(1.0)
        with closing(Client(listener)) as other:
            other.say("a\n").hear("[a]\n")
            assert silent.rest() == ""
    assert listener.counts()["connections_evicted"] == 1


def test_stop_closes_everything(listen):
    """Also connections in the middle of an answer, and the address is free."""
    listener = listen()
    with closing(Client(listener).say("long\n" * 100)) as deaf, closing(Client(listener)) as idle:
        deaf.hear(f"{0:9d}\n")
        idle.say("a\n").hear("[a]\n")
        assert listener.stop(5)
        assert idle.rest() == ""
    with pytest.raises(ConnectionRefusedError):
        Client(listener)


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_it_knows_whether_others_can_reach_it(listen, host, loopback):
    """An address of this machine alone is on loopback; all addresses together are not."""
    assert listen(host).on_loopback is loopback
    assert not CommandListener(host, 0, answer).on_loopback


@pytest.fixture(scope="module")
def shared():
    listener = CommandListener("127.0.0.1", 0, answer)
    listener.bind()
    listener.start()
    yield listener
    assert listener.stop(5)


@pytest.mark.parametrize("before", [b"", b"a\n"])
@given(chunks=st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=50)
def test_any_bytes_are_taken(shared, before, chunks):
    """Whatever comes, in whatever pieces, the next one is answered."""
    with closing(Client(shared)) as client:
        try:
            for chunk in (before, *chunks):
                client.say(chunk)
            client.end().rest()
        except OSError:  # hung up on in the middle
            pass
    with closing(Client(shared)) as other:
        other.say("a\n").hear("[a]\n")
