"""Sockets that were handed in, as real ones in this process, told apart by type and address."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forwarder import service as inherited
from forwarder.addresses import parse
from forwarder.service import Inherited, InvalidSocket


@pytest.fixture
def bound() -> Iterator:
    """Call to get a bound socket; streams listen."""
    with ExitStack() as stack:

        def bind(family, kind, address):
            sock = stack.enter_context(socket.socket(family, kind))
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen()
            return sock

        yield bind


def port(sock):
    return sock.getsockname()[1]


def bound_to_one_port(bound):
    """UDP, TCP, and UDP over IPv6, on the first port that is free for all three."""
    for _ in range(50):
        udp = bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        try:
            tcp = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port(udp)))
            return udp, tcp, bound(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", port(udp)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no port is free")


def test_each_goes_to_the_listener_of_its_type_and_address(bound, tmp_path, monkeypatch):
    """UDP and TCP on one port, IPv4 and IPv6, Unix streams and datagrams, also where the listener gives a name."""
    monkeypatch.chdir(tmp_path)
    udp, tcp, udp6 = bound_to_one_port(bound)
    stream = bound(socket.AF_UNIX, socket.SOCK_STREAM, "s")
    datagrams = bound(socket.AF_UNIX, socket.SOCK_DGRAM, "d")
    given = Inherited([udp, tcp, udp6, stream, datagrams])
    assert given.take(parse("udp://127.0.0.1:1")) is None
    assert given.take(parse("unix:///d")) is None
    assert given.take(parse(f"graphite://localhost:{port(tcp)}")) is tcp
    assert given.take(parse(f"tcp://127.0.0.1:{port(tcp)}")) is None
    assert given.take(parse(f"udp://[::1]:{port(udp)}")) is udp6
    assert given.take(parse(f"udp://127.0.0.1:{port(udp)}")) is udp
    assert given.left() == ["unix://s", "unixgram://d"]
    given.close()
    assert stream.fileno() == datagrams.fileno() == -1
    assert given.left() == []


def test_a_name_that_is_none_matches_nothing(bound):
    """What is wrong with it is said when it is bound."""
    given = Inherited([bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))])
    assert given.take(parse("udp://no.such.host.invalid:1")) is None
    assert given.take(parse(f"udp://{'a' * 64}.example:1")) is None


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator:
    """Call with open files, to make copies of them descriptors in a row; return the number of the first."""
    made: list[int] = []

    def first(*files) -> int:
        start = 200
        for number, file in enumerate(files, start):
            made.append(os.dup2(file.fileno(), number))
        monkeypatch.setattr(inherited, "FIRST", start)
        return start

    yield first
    for descriptor in made:
        try:
            os.close(descriptor)
        except OSError:
            pass


def environment(count: int | str, pid: int = 7, **others: str) -> dict[str, str]:
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid), **others}


def test_the_environment_names_descriptors(bound, first):
    """Descriptors from 3 on are taken, and no child gets them, nor the variables."""
    udp = bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
    tcp = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    start = first(udp, tcp)
    environ = environment(2, LISTEN_FDNAMES="udp:tcp")
    given = Inherited.of_environment(environ, 7)
    assert environ == {}
    assert given.left() == [f"udp://127.0.0.1:{port(udp)}", f"tcp://127.0.0.1:{port(tcp)}"]
    assert not os.get_inheritable(start)
    given.close()


@pytest.mark.parametrize("environ", [{}, environment(0), environment(2, pid=8), {"LISTEN_FDS": "1"}])
def test_without_any_for_us_there_are_none(environ):
    """What is meant for another process is not touched."""
    assert Inherited.of_environment(environ, 7).left() == []


def test_what_is_no_number_is_refused():
    """It is named."""
    with pytest.raises(InvalidSocket, match="LISTEN_FDS=many is not a number") as caught:
        Inherited.of_environment(environment("many"), 7)
    assert caught.value.what == "LISTEN_FDS=many"


def test_what_is_no_listening_socket_is_refused(bound, first, tmp_path):
    """A file, a connection, raw packets: no listener could read them; the descriptor and its name are named."""
    with (tmp_path / "file").open("w") as file:
        start = first(file)
        with pytest.raises(InvalidSocket, match=rf"descriptor {start} \(log\) is not a socket"):
            Inherited.of_environment(environment(1, LISTEN_FDNAMES="log"), 7)
    one, other = socket.socketpair()
    with one, other:
        first(one)
        with pytest.raises(InvalidSocket, match=r"\(unnamed\) is a connection"):
            Inherited.of_environment(environment(1), 7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        first(packets)
        with pytest.raises(InvalidSocket, match="of a type that no listener has"):
            Inherited.of_environment(environment(1), 7)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM) as netlink:
        first(netlink)
        with pytest.raises(InvalidSocket, match="of a family that no listener has"):
            Inherited.of_environment(environment(1), 7)
