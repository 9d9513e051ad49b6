"""A statsd server gets each event once, over any of its sockets."""

import socket
from pathlib import Path

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.naming import Naming
from metricslib.window import Flush, Window
from tests.sockets import datagram_server

WHOLE = Window(0, 10, 10, counters={"a": 5, "idle": 0})
CUT = Flush(WHOLE, Window(0, 10, 10, counters={"a": 1}, gauges={"g": -5}))
MANY = Window(0, 10, 10, counters={f"some.counter.{number}": number + 1 for number in range(500)})
NAMING = Naming(prefix="p")


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def test_only_what_is_new_is_sent():
    """The server adds up; idle series and what was sent before are not in it. A negative gauge is two lines."""
    (batch,) = open_destination("statsd://host", NAMING).encode(CUT)
    assert batch.payload == b"p.a:1|c\np.g:0|g\np.g:-5|g"
    assert (batch.stamp, batch.points, batch.windows) == (10, 3, 1)


def test_nothing_new_sends_nothing():
    """Idle intervals cost nothing."""
    assert open_destination("statsd://host", NAMING).encode(Flush(WHOLE, Window(0, 10, 10))) == []


@pytest.mark.parametrize("scheme", ["statsd+tcp", "statsd+unix"])
def test_a_stream_ends_every_line(peer, tmp_path: Path, scheme: str):
    """Without the empty lines that stand between datagrams."""
    one = peer(read_all, None if scheme == "statsd+tcp" else tmp_path / "s")
    url = f"{scheme}://127.0.0.1:{one.port}" if scheme == "statsd+tcp" else f"{scheme}://{tmp_path}/s"
    destination = open_destination(url, NAMING)
    (batch,) = destination.encode(Flush(WHOLE, MANY))
    assert destination.deliver(batch.payload, Deadline(20)) == {}
    one.close()
    assert one.received[0].splitlines() == [b"p.some.counter.%d:%d|c" % (number, number + 1) for number in range(500)]
    assert one.received[0].endswith(b"\n")


@pytest.mark.parametrize(("scheme", "longest"), [("statsd", 1432), ("statsd+unixgram", 8192)])
def test_datagrams_are_as_large_as_the_way_allows(tmp_path: Path, scheme: str, longest: int):
    """A frame of Ethernet, or what every reader of a Unix socket has room for."""
    with datagram_server(None if scheme == "statsd" else tmp_path / "s") as server:
        port = server.getsockname()[1] if scheme == "statsd" else None
        destination = open_destination(f"statsd://127.0.0.1:{port}" if port else f"{scheme}://{tmp_path}/s", NAMING)
        (batch,) = destination.encode(Flush(WHOLE, MANY))
        assert destination.deliver(batch.payload, Deadline(20)) == {}
        received: list[bytes] = []
        while sum(datagram.count(b"\n") + 1 for datagram in received) < 500:
            received.append(server.recv(65536))
    assert b"\n\n".join(received) == batch.payload
    assert longest * 0.9 < max(map(len, received)) <= longest


def test_what_is_not_confirmed_is_lost_and_counted(peer):
    """Sending it again could count it twice."""

    def read_a_little(connection):
        connection.recv(3)

    destination = open_destination(f"statsd+tcp://127.0.0.1:{peer(read_a_little).port}", NAMING)
    (batch,) = destination.encode(Flush(WHOLE, MANY))
    with pytest.raises(Undelivered) as failure:
        destination.deliver(batch.payload, Deadline(20))
    assert failure.value.remaining == b""
    assert failure.value.lost == {"unconfirmed": batch.points}


def test_while_the_server_is_away_everything_waits(refused_port: int, tmp_path: Path):
    """Nothing was sent, so nothing is lost, whatever the socket."""
    urls = [f"statsd://127.0.0.1:{refused_port}", f"statsd+tcp://127.0.0.1:{refused_port}"]
    for url in [*urls, f"statsd+unix://{tmp_path}/s", f"statsd+unixgram://{tmp_path}/s"]:
        destination = open_destination(url, NAMING)
        (batch,) = destination.encode(Flush(WHOLE, MANY))
        with pytest.raises(Undelivered) as failure:
            destination.deliver(batch.payload, Deadline(5))
        assert (failure.value.remaining, failure.value.lost) == (batch.payload, {})


@pytest.mark.parametrize("scheme", ["statsd", "statsd+tcp", "statsd+unix", "statsd+unixgram"])
@pytest.mark.parametrize(("option", "longest"), [("", 8192), ("?max_line=40", 40)])
def test_a_line_that_no_server_reads_is_not_sent(peer, tmp_path: Path, scheme: str, option: str, longest: int):
    """A server drops it, flushes it or closes the connection, and nothing of that is counted here."""
    fits, long = (length * "x" for length in (longest - len("p.:1|c"), longest - len("p.:1|c") + 1))
    window = Window(0, 10, 10, counters={long: 1, "a": 1, fits: 1, "b": 1, "y" + long: 1})
    expected = [f"p.{name}:1|c".encode() for name in ("a", fits, "b")]
    datagrams = socket.socket(socket.AF_INET if scheme == "statsd" else socket.AF_UNIX, socket.SOCK_DGRAM)
    with datagrams:
        datagrams.settimeout(20)
        if scheme in ("statsd+tcp", "statsd+unix"):
            one = peer(read_all, None if scheme == "statsd+tcp" else tmp_path / "s")
            port = one.port
        else:
            datagrams.bind(("127.0.0.1", 0) if scheme == "statsd" else str(tmp_path / "s"))
            port = datagrams.getsockname()[1] if scheme == "statsd" else 0
        place = f"{scheme}://127.0.0.1:{port}" if port else f"{scheme}://{tmp_path}/s"
        destination = open_destination(place + option, NAMING)
        (batch,) = destination.encode(Flush(window, window))
        assert destination.deliver(batch.payload, Deadline(20)) == {"too_long": 2}
        received: list[bytes] = []
        if scheme in ("statsd+tcp", "statsd+unix"):
            one.close()
            received = one.received[0].splitlines()
        else:
            while len(received) < 3:
                received += datagrams.recv(65536).splitlines()
        assert received == expected


def test_long_lines_are_counted_when_the_rest_is_lost(peer, over):
    """What remains is without them."""
    one = peer(lambda _: over.wait(60))
    destination = open_destination(f"statsd+tcp://127.0.0.1:{one.port}?max_line=10", NAMING)
    with pytest.raises(Undelivered) as failure:
        destination.deliver(b"a:1|c\n" + b"x" * 11 + b"\nb:1|c\n", Deadline(0.2))
    assert (failure.value.remaining, failure.value.lost) == (b"", {"too_long": 1, "unconfirmed": 2})
