"""Delivered means that the peer has read every byte; anything else leaves an exact account."""

import contextlib
import errno
import logging
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery import transport
from metricslib.delivery.batch import Deadline, Undelivered
from metricslib.delivery.transport import Datagrams, Endpoint, LineLimit, Stream
from tests.peers import eventually, open_files
from tests.sockets import datagram_server

LINES = b"".join(b"path.number.%d 1 1700000000\n" % number for number in range(1000))
LARGE = LINES * 400
"""More than the buffers of a connection on loopback hold."""


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def read_bytewise(connection: socket.socket) -> bytes:
    received = b""
    while byte := connection.recv(1):
        received += byte
    return received


def reset(connection: socket.socket) -> None:
    """Read a little, then reset the connection in mid-line."""
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close_early(connection: socket.socket) -> None:
    """Read a little, then close as if that were all."""
    connection.recv(10)


def close_at_once(connection: socket.socket) -> None:
    """Close before anything was sent."""


def die_after_writing(connection: socket.socket) -> None:
    """Take everything into the kernel's buffer, read nothing of it, and die: the kernel sends a reset."""
    time.sleep(0.05)


def hang(over: threading.Event) -> Callable[[socket.socket], object]:
    """Accept and never read."""
    return lambda connection: over.wait(60)


@pytest.fixture(params=["tcp", "unix"])
def connect(request, peer, tmp_path: Path):
    """Call with a script for a stream to a peer that follows it, over TCP and over a Unix socket."""

    def start(script):
        if request.param == "tcp":
            one = peer(script)
            return one, Stream(Endpoint("127.0.0.1", one.port))
        path = tmp_path / "socket"
        return peer(script, path), Stream(Endpoint(path=str(path)))

    return start


def fails(stream: Stream, payload: bytes, *, again: bool, seconds: float = 20) -> Undelivered:
    with pytest.raises(Undelivered) as failure:
        stream.send(payload, Deadline(seconds), again=again)
    return failure.value


# -- streams


@pytest.mark.parametrize("script", [read_all, read_bytewise])
def test_delivered_means_read_to_the_end(connect, script):
    """A peer that reads everything, in whatever pieces, confirms by closing."""
    one, stream = connect(script)
    stream.send(LINES, Deadline(20), again=True)
    stream.send(b"second 1 1700000000\n", Deadline(20), again=True)
    one.close()
    assert one.received == [LINES, b"second 1 1700000000\n"]


def test_a_large_payload_waits_for_a_slow_reader(connect):
    """More than fits into the kernel's buffers arrives whole."""
    one, stream = connect(read_all)
    stream.send(LARGE, Deadline(20), again=True)
    one.close()
    assert one.received == [LARGE]


def test_nothing_is_delivered_before_the_peer_has_read(connect, over: threading.Event):
    """That the kernel took the bytes says nothing: as long as the peer has not read them, nothing is confirmed."""
    _, stream = connect(hang(over))
    failure = fails(stream, b"a 1 1700000000\n", again=True, seconds=0.2)
    assert failure.remaining == b"a 1 1700000000\n"
    assert "no answer in time" in failure.reason


@pytest.mark.parametrize("payload", [LINES, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("script", [reset, close_early, close_at_once])
def test_what_a_peer_did_not_read_to_the_end_remains(connect, script, payload: bytes):
    """A reset in mid-line, or a close that comes too early, and all of it is sent again where that is harmless."""
    _, stream = connect(script)
    failure = fails(stream, payload, again=True)
    assert failure.remaining == payload
    assert not failure.lost


@pytest.mark.parametrize("script", [reset, close_early])
def test_what_may_have_been_read_is_not_sent_twice(connect, script):
    """For a server that adds up, everything of unknown fate is lost, line by line in the account."""
    _, stream = connect(script)
    failure = fails(stream, LARGE, again=False)
    assert failure.remaining == b""
    assert failure.lost == {"unconfirmed": 400_000}


def test_an_end_that_comes_before_ours_confirms_nothing(peer, over: threading.Event):
    """A peer that ends its side at once has not read, although its kernel acknowledges every byte of ours."""

    class Late(Stream):
        def _connect(self, deadline):
            opened = super()._connect(deadline)
            transport.wait(opened, select.POLLIN, deadline)  # until the end is there
            return opened

    def end_at_once(connection):
        connection.shutdown(socket.SHUT_WR)
        over.wait(60)

    stream = Late(Endpoint("127.0.0.1", peer(end_at_once).port))
    assert "closed before it had read all" in fails(stream, LINES, again=True).reason


def test_an_end_behind_an_answer_confirms_nothing(connect, over: threading.Event):
    """A peer that answers, and ends its side, reads no more: its end is noticed though we have not read up to it."""
    ended = threading.Event()

    def answer_and_end(connection):
        connection.sendall(b"400 Bad Request\n" * 6000)
        connection.shutdown(socket.SHUT_WR)
        ended.set()
        over.wait(60)

    _, stream = connect(answer_and_end)
    opened = stream._connect(Deadline(20))
    assert ended.wait(20)
    with opened, pytest.raises(ConnectionAbortedError, match="closed before it had read all"):
        transport.Plain(opened, Deadline(20)).confirm(Deadline(20))


def test_an_end_that_comes_just_before_ours_confirms_nothing(peer, over: threading.Event, monkeypatch):
    """It comes after we looked; the state of the connection then says that we ended second."""

    class Distant(socket.socket):
        """A socket whose peer takes its time to acknowledge our end, as one that is not on loopback."""

        def getsockopt(self, *option):
            return bytes([transport._LAST_ACK]) if option[1] == socket.TCP_INFO else super().getsockopt(*option)

    monkeypatch.setattr(socket, "socket", Distant)
    stream = Stream(Endpoint("127.0.0.1", peer(read_all).port))
    assert "closed before it had read all" in fails(stream, LINES, again=True).reason


def test_an_end_without_our_last_bytes_acknowledged_confirms_nothing():
    """The peer's end may cross our last bytes on the way: they are not read, and a reset is about to follow."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(LARGE)
        with theirs:
            threading.Timer(0.05, theirs.shutdown, (socket.SHUT_WR,)).start()
            with pytest.raises(ConnectionAbortedError):
                transport.Plain(ours, Deadline(20)).confirm(Deadline(20))


def test_a_peer_that_dies_with_bytes_unread_confirms_nothing(connect):
    """The kernel of the dead peer resets the connection, after it had acknowledged every byte."""
    _, stream = connect(die_after_writing)
    assert fails(stream, b"a 1 1700000000\n", again=True).remaining == b"a 1 1700000000\n"


def test_where_nobody_listens_nothing_is_lost(refused_port: int, tmp_path: Path):
    """Nothing was sent, so everything remains, even for a server that adds up."""
    for endpoint in (Endpoint("127.0.0.1", refused_port), Endpoint(path=str(tmp_path / "absent"))):
        failure = fails(Stream(endpoint), LINES, again=False)
        assert (failure.remaining, failure.lost) == (LINES, {})
        assert str(endpoint) in failure.reason


def test_all_addresses_of_a_name_are_tried(peer, refused_port: int):
    """The first may be dead; the name is asked for again at each connection."""
    one = peer(read_all)
    asked = []

    def resolve(host, port, *args, **kwargs):
        asked.append(host)
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", number)) for number in (refused_port, one.port)]

    stream = Stream(Endpoint("graphite.test", 2003), resolve=resolve)
    stream.send(b"a 1 1700000000\n", Deadline(20), again=True)
    stream.send(b"a 1 1700000010\n", Deadline(20), again=True)
    assert asked == ["graphite.test"] * 2


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_name_that_cannot_be_resolved_is_a_failure_like_any_other(error):
    """The payload remains, and the reason says why."""

    def resolve(*args, **kwargs):
        raise error

    failure = fails(Stream(Endpoint("graphite.test", 2003), resolve=resolve), LINES, again=False)
    assert failure.remaining == LINES
    assert failure.reason == f"graphite.test:2003: {error.args[-1]}"


def test_after_a_slow_resolver_nothing_is_sent(peer):
    """When the deadline passed meanwhile, the payload may have been given up: it must not arrive any more."""
    one = peer(read_all)
    now = [0.0]

    def resolve(*args, **kwargs):
        now[0] += 10
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", one.port))]

    stream = Stream(Endpoint("graphite.test", 2003), resolve=resolve)
    with pytest.raises(Undelivered):
        stream.send(LINES, Deadline(5, lambda: now[0]), again=True)
    one.close()
    assert one.received == []


@contextlib.contextmanager
def black_hole() -> Iterator[Endpoint]:
    """An address where connecting hangs: the queue of a server that accepts nobody is full."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield Endpoint(*server.getsockname())


def test_connecting_takes_no_longer_than_the_deadline():
    """A black hole answers nothing, not even a refusal."""
    with black_hole() as endpoint:
        begin = time.monotonic()
        assert fails(Stream(endpoint), LINES, again=False, seconds=0.2).remaining == LINES
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize("where", ["connecting", "writing", "confirming"])
def test_a_hanging_send_is_cut_short_from_outside(peer, over: threading.Event, where: str):
    """stop() brings the deadline forward while a send hangs, at whatever point, and the send ends."""
    deadline = Deadline(60)
    with black_hole() if where == "connecting" else contextlib.nullcontext() as endpoint:
        endpoint = endpoint or Endpoint("127.0.0.1", peer(hang(over)).port)
        payload = LARGE if where == "writing" else LINES
        threading.Timer(0.1, deadline.cut, (0,)).start()
        begin = time.monotonic()
        with pytest.raises(Undelivered):
            Stream(endpoint).send(payload, deadline, again=True)
        assert time.monotonic() - begin < 15


def test_a_full_queue_of_a_unix_socket_is_waited_for(tmp_path: Path):
    """A busy server's queue is full for a moment: the connection waits, up to the deadline."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        failure = fails(Stream(Endpoint(path=path)), LINES, again=False, seconds=0.2)
        assert failure.remaining == LINES
        assert failure.lost == {}


def test_a_child_can_close_what_its_parent_had_open(over: threading.Event, peer):
    """close() closes the socket of a send that is under way in another thread, which the fork left behind."""
    one = peer(hang(over))
    stream = Stream(Endpoint("127.0.0.1", one.port))
    opened = stream._connect(Deadline(5))
    stream.close()
    assert opened.fileno() == -1
    stream.close()


def test_an_endpoint_is_written_as_in_a_url():
    """IPv6 addresses in brackets; a path as it is."""
    assert str(Endpoint("::1", 2003)) == "[::1]:2003"
    assert str(Endpoint("host", 2003)) == "host:2003"
    assert str(Endpoint(path="/run/s")) == "/run/s"


# -- datagrams


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with datagram_server() as server:
        yield server


@pytest.fixture
def unixgram(tmp_path: Path) -> Iterator[socket.socket]:
    with datagram_server(tmp_path / "datagrams") as server:
        yield server


@pytest.fixture(params=["udp", "unixgram"])
def datagrams(request) -> tuple[socket.socket, Datagrams]:
    server = request.getfixturevalue(request.param)
    name = server.getsockname()
    return server, Datagrams(Endpoint(path=name) if request.param == "unixgram" else Endpoint(*name))


def test_datagrams_arrive_as_they_were_packed(datagrams):
    """One by one, in order."""
    server, sender = datagrams
    assert sender.send([b"a:1|c\nb:1|c", b"c:1|c"], Deadline(5)) == {}
    assert [server.recv(100), server.recv(100)] == [b"a:1|c\nb:1|c", b"c:1|c"]


def test_udp_pauses_between_bursts(udp: socket.socket):
    """A receiver's buffer holds about ninety datagrams: without a pause the rest would be lost in silence."""
    pauses: list[float] = []
    Datagrams(Endpoint(*udp.getsockname()), pause=pauses.append).send([b"a:1|c"] * 90, Deadline(5))
    assert len(pauses) == 2


def test_where_the_first_address_refuses_the_next_gets_all(udp: socket.socket, refused_port: int):
    """As localhost may be ::1 first, where nobody listens; from then on the one that did not refuse is the first."""

    def resolve(host, port, *args, **kwargs):
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", number)) for number in (refused_port, udp.getsockname()[1])]

    pauses: list[float] = []
    sender = Datagrams(Endpoint("localhost", 8125), resolve=resolve, pause=pauses.append)
    for datagrams in ([b"a:1|c", b"b:1|c"], [b"c:1|c"]):
        assert sender.send(datagrams, Deadline(5)) == {}
        assert [udp.recv(100) for _ in datagrams] == datagrams
    assert sender._in_order(sender.endpoint.addresses(socket.SOCK_DGRAM, resolve))[0][1] == udp.getsockname()


def test_where_all_addresses_refuse_all_remains(refused_port: int):
    """The reason is the last one's."""

    def resolve(host, port, *args, **kwargs):
        return [(family, 0, 0, "", (host, refused_port)) for family, host in ADDRESSES]

    with pytest.raises(Undelivered) as failure:
        Datagrams(Endpoint("localhost", 8125), resolve=resolve).send([b"a:1|c", b"b:1|c"], Deadline(5))
    assert failure.value.remaining == b"a:1|c\n\nb:1|c"
    assert failure.value.lost == {}
    assert "refused" in failure.value.reason


ADDRESSES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")]


def test_a_refused_first_datagram_is_not_lost(refused_port: int):
    """Nobody had it, and the host says so at once: it is sent again when somebody listens."""
    sender = Datagrams(Endpoint("127.0.0.1", refused_port))
    with pytest.raises(Undelivered) as failure:
        sender.send([b"a:1|c\nb:1|c", b"c:1|c", b"d:1|c"], Deadline(5))
    assert failure.value.remaining == b"a:1|c\nb:1|c\n\nc:1|c\n\nd:1|c"
    assert failure.value.lost == {}
    assert "refused" in failure.value.reason


def test_a_later_refusal_loses_the_datagram_before_it(monkeypatch: pytest.MonkeyPatch, udp: socket.socket):
    """Whose refusal it is cannot be told: the last one sent is counted as lost, the rest is kept."""
    sender = Datagrams(Endpoint(*udp.getsockname()))
    sent: list[bytes] = []

    def send_one(opened, datagram, deadline):
        if len(sent) == 2:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        sent.append(datagram)
        return True

    monkeypatch.setattr(transport, "_send_one", send_one)
    with pytest.raises(Undelivered) as failure:
        sender.send([b"a:1|c", b"b:1|c\nb:1|c", b"c:1|c", b"d:1|c"], Deadline(5))
    assert failure.value.lost == {"refused": 2}
    assert failure.value.remaining == b"c:1|c\n\nd:1|c"


def test_a_datagram_too_long_for_the_network_is_lost_alone(datagrams):
    """It could never be sent; what follows goes on."""
    server, sender = datagrams
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    huge = b"\n".join([b"x:1|c"] * 300_000)
    assert sender.send([b"a:1|c", huge, b"b:1|c"], Deadline(5)) == {"too_long": 300_000}
    assert [server.recv(100), server.recv(100)] == [b"a:1|c", b"b:1|c"]


def test_datagrams_to_an_absent_unix_socket_all_remain(tmp_path: Path, unixgram: socket.socket):
    """Whether the file is missing or nobody listens behind it."""
    unixgram.close()
    for name in ("datagrams", "absent"):
        with pytest.raises(Undelivered) as failure:
            Datagrams(Endpoint(path=str(tmp_path / name))).send([b"a:1|c", b"b:1|c"], Deadline(5))
        assert failure.value.remaining == b"a:1|c\n\nb:1|c"
        assert failure.value.lost == {}


def test_a_full_unix_socket_takes_what_fits_and_the_rest_remains(unixgram: socket.socket):
    """A Unix socket loses nothing: what its reader has no room for waits here."""
    many = [b"a%d:1|c" % number for number in range(5000)]
    with pytest.raises(Undelivered) as failure:
        Datagrams(Endpoint(path=unixgram.getsockname())).send(many, Deadline(1))
    unixgram.setblocking(False)
    received = []
    with contextlib.suppress(BlockingIOError):
        while True:
            received.append(unixgram.recv(100))
    assert received
    assert received + failure.value.remaining.split(b"\n\n") == many
    assert failure.value.lost == {}


def test_a_reader_that_catches_up_gets_everything(unixgram: socket.socket):
    """A full queue is waited for while the deadline allows."""
    many = [b"a%d:1|c" % number for number in range(2000)]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(unixgram.recv(100) for _ in many))
    reader.start()
    assert Datagrams(Endpoint(path=unixgram.getsockname())).send(many, Deadline(20)) == {}
    reader.join(20)
    assert received == many


def test_no_descriptor_stays_open(peer, refused_port: int, over: threading.Event):
    """Whatever came of them, connections are closed."""
    good = Stream(Endpoint("127.0.0.1", peer(read_all).port))
    hanging = Stream(Endpoint("127.0.0.1", peer(hang(over)).port))
    absent = Stream(Endpoint("127.0.0.1", refused_port))
    before = open_files()
    good.send(LINES, Deadline(5), again=True)
    fails(absent, LINES, again=True)
    fails(hanging, LINES, again=True, seconds=0.05)
    assert all(stream._socket is None for stream in (good, hanging, absent))
    eventually(lambda: len(open_files() - before) <= 1)  # the hanging peer's side


def test_a_wait_ends_when_the_socket_is_ready():
    """Not at the end of a slice of time."""
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        begin = time.monotonic()
        transport.wait(one, select.POLLIN, Deadline(20))
        assert time.monotonic() - begin < 15


def test_a_send_that_is_given_up_ends_in_no_half_line(peer, over: threading.Event):
    """The peer sees a reset, and not the end of a stream, whose last line it could take for a whole one."""
    seen: list[object] = []

    def read_late(connection: socket.socket) -> None:
        over.wait(60)
        try:
            seen.append(read_all(connection)[-1:])
        except ConnectionResetError as error:
            seen.append(type(error))

    one = peer(read_late)
    stream = Stream(Endpoint("127.0.0.1", one.port))
    with pytest.raises(Undelivered) as caught:
        stream.send(LARGE, Deadline(0.1), again=False)
    assert caught.value.lost == {"unconfirmed": LARGE.count(b"\n")}
    over.set()
    one.close()
    assert seen == [ConnectionResetError]


@pytest.mark.parametrize(("again", "ends"), [(True, False), (False, False), (True, True)])
def test_what_is_sent_again_does_not_arrive_later_by_itself(again: bool, ends: bool):
    """It would overwrite what is newer. What is not sent again, also because the program ends, may arrive."""
    payload, deadline = LINES * 10, Deadline(0.2)
    if ends:
        deadline.cut(0.2)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the rest waits in the sender's kernel
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(Undelivered):
            Stream(Endpoint("127.0.0.1", server.getsockname()[1])).send(payload, deadline, again=again)
        connection, _ = server.accept()
        with connection:
            if again and not ends:
                with pytest.raises(ConnectionResetError):
                    read_all(connection)
            else:
                assert read_all(connection) == payload


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"_"))), st.integers(1, 30), st.booleans())
def test_lines_over_the_limit_are_taken_out(rows: list[bytes], limit: int, terminated: bool):
    """Those and no others, wherever they stand; the last line may lack its line feed."""
    payload = b"\n".join(rows) + (b"\n" if terminated and rows else b"")
    kept, lost = LineLimit("d", limit).take_out(payload)
    whole = re.findall(rb"[^\n]*\n|[^\n]+", payload)
    assert kept == b"".join(line for line in whole if len(line.rstrip(b"\n")) <= limit)
    assert lost.get("too_long", 0) == sum(len(line.rstrip(b"\n")) > limit for line in whole)


def test_the_first_long_line_is_logged(caplog: pytest.LogCaptureFixture):
    """With where it was to go, its length, its beginning, and the option that sets the limit."""
    limit = LineLimit("graphite://host:2003", 100)
    with caplog.at_level(logging.WARNING, "metricslib"):
        for _ in range(2):
            assert limit.take_out(b"a" * 101 + b"\nb 1 2\n" + b"c" * 200)[1] == {"too_long": 2}
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("graphite://host:2003: a line of 101 bytes is longer than max_line=100 ")
    assert "a" * 80 + "..." in message
    assert len(message) < 250
