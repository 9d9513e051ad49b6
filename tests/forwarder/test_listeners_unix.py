"""Unix sockets, stream and datagram, and their files."""

import grp
import os
import socket
import stat
import struct

import pytest

from forwarder.listeners import UnixDatagramListener, UnixStreamListener
from tests.sockets import connected

KINDS = {UnixStreamListener: socket.SOCK_STREAM, UnixDatagramListener: socket.SOCK_DGRAM}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path in it may be too long for a socket
    return "s.sock"


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def listen(started, path, heard):
    """Call with the kind of a listener to start it at `path`."""
    return lambda kind, **options: started(kind(path, heard, **options))


def test_lines_arrive(listen, heard, kind, path):
    """What is sent is heard, and the address is that of the file."""
    listener = listen(kind)
    scheme = {UnixStreamListener: "unix", UnixDatagramListener: "unixgram"}[kind]
    assert listener.address == f"{scheme}://{path}"
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\n")
        sock.sendall(b"b:1|c\n")
        heard.wait(lines=2)
    assert heard.lines == [b"a:1|c", b"b:1|c"]


def test_the_end_of_the_stream_confirms(listen, heard, path):
    """When a sender reads it, everything is with the sink."""
    listen(UnixStreamListener)
    with connected(f"unix://{path}") as sock:
        sock.sendall(b"a:1|c\n" * 50_000)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert len(heard.lines) == 50_000


def test_a_stream_of_packets(listen, heard, path):
    """DogStatsD puts the length of each packet before it, and no line feed behind it; its neighbours send lines."""
    listen(UnixStreamListener)
    with connected(f"unix://{path}") as dog, connected(f"unix://{path}") as plain:
        for packet in (b"a:1|c", b"b:1|c\nc:1|c"):
            dog.sendall(struct.pack("<I", len(packet)))
            dog.sendall(packet)
            plain.sendall(b"d:1|c\n")
        heard.wait(lines=5)
    assert sorted(heard.lines) == [b"a:1|c", b"b:1|c", b"c:1|c", b"d:1|c", b"d:1|c"]


def test_of_too_long_a_datagram_whole_lines_are_kept(listen, heard, path, monkeypatch):
    """What does not fit is dropped, once, and counted."""
    monkeypatch.setattr("forwarder.listeners.unix._LONGEST_DATAGRAM", 10)
    listen(UnixDatagramListener)
    with connected(f"unixgram://{path}") as sock:
        sock.send(b"a:1|c\nb:12|c\nc:1|c")
        heard.wait(dropped=1, lines=1)
    assert heard.lines == [b"a:1|c"]
    assert heard.dropped == {"truncated": 1}


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o660])
def test_the_file_has_its_mode(listen, kind, path, mode):
    """Whatever the umask is; nobody but its owner may send unless that is asked for."""
    listen(kind, mode=mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


GROUPS = {"number": str(os.getgid()), "name": grp.getgrgid(os.getgid()).gr_name}


@pytest.mark.parametrize("group", GROUPS)
def test_the_file_has_its_group(listen, kind, path, group):
    """By name or number, and with the whole mode in the end; root may give any, others those that they are in."""
    listen(kind, mode=0o660, group=GROUPS[group])
    assert os.stat(path).st_gid == os.getgid()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


def test_the_group_is_not_let_in_before_it_is_the_right_one(listen, kind, path, monkeypatch):
    """Until the file has its group, nobody but the owner may send."""
    modes = []

    def chown(name, user, group):
        modes.append(stat.S_IMODE(os.stat(name).st_mode))
        assert (user, group) == (-1, 12345)

    monkeypatch.setattr("os.chown", chown)
    listen(kind, mode=0o660, group="12345")
    assert modes[0] & 0o077 == 0
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


@pytest.mark.parametrize("group", ["", str(os.getgid())])
@pytest.mark.parametrize("planted", [os.symlink, os.link])
def test_no_other_file_is_changed(heard, kind, path, monkeypatch, group, planted):
    """Whoever can write to the directory may put another file at the path: it keeps its mode, and stays."""
    with open("secret", "w"):
        pass
    os.chmod("secret", 0o600)

    class Socket(socket.socket):
        def bind(self, name):
            super().bind(name)
            os.unlink(name)
            planted("secret", name)

    monkeypatch.setattr("forwarder.listeners.unix.socket.socket", Socket)
    listener = kind(path, heard, mode=0o666, group=group)
    with pytest.raises(PermissionError, match="replaced"):
        listener.bind()
    assert stat.S_IMODE(os.stat("secret").st_mode) == 0o600
    assert os.path.lexists(path)


def test_between_look_and_change_the_path_does_not_matter(listen, kind, path, monkeypatch):
    """Group and mode go to the file that was looked at, even if the path leads elsewhere meanwhile."""
    chown = os.chown
    with open("secret", "w"):
        pass
    os.chmod("secret", 0o600)

    def swapped(name, user, group):
        os.rename(path, "moved")
        os.symlink("secret", path)
        chown(name, user, group)

    monkeypatch.setattr("os.chown", swapped)
    listen(kind, mode=0o666, group=str(os.getgid()))
    assert stat.S_IMODE(os.stat("secret").st_mode) == 0o600
    assert stat.S_IMODE(os.stat("moved").st_mode) == 0o666


@pytest.mark.parametrize(("mode", "warned"), [(0o755, False), (0o775, True), (0o777, True), (0o1777, True)])
def test_a_directory_that_others_can_write_is_told(listen, kind, path, tmp_path, caplog, mode, warned):
    """There they could put a socket of theirs in the place of ours."""
    tmp_path.chmod(mode)
    listen(kind)
    assert ("other users can write to the directory" in caplog.text) == warned


def test_a_group_that_is_none_is_refused(kind, path, heard):
    """The error names it, and no file is left."""
    listener = kind(path, heard, group="no-such-group")
    with pytest.raises(OSError, match="there is no group 'no-such-group'"):
        listener.bind()
    assert not os.path.lexists(path)


def test_a_group_that_we_may_not_give_is_refused(kind, path, heard, monkeypatch):
    """Only root and members may give it; a socket with the wrong group is not left behind."""

    def chown(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.chown", chown)
    listener = kind(path, heard, group="12345")
    with pytest.raises(PermissionError):
        listener.bind()
    assert not os.path.lexists(path)


def test_nobody_else_may_send_by_default(listen, kind, path):
    """0600 is the default."""
    listen(kind)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_the_file_goes_at_the_end(listen, kind, path):
    """A stopped listener leaves nothing behind."""
    listener = listen(kind)
    assert listener.stop(1.0)
    assert not os.path.lexists(path)


def test_the_file_of_another_stays(listen, kind, path):
    """Only what was made here is removed."""
    listener = listen(kind)
    os.rename(path, "other")
    with open(path, "w"):
        assert listener.stop(1.0)
    assert os.path.exists(path)


@pytest.mark.parametrize("left", KINDS.values())
def test_a_dead_socket_is_replaced(listen, heard, kind, path, left):
    """What somebody left who died does not keep us from starting, if it was of our type."""
    with socket.socket(socket.AF_UNIX, left) as dead:
        dead.bind(path)
    listener = listen(kind)
    with connected(listener.address) as sock:
        sock.sendall(b"a:1|c\n")
        heard.wait(lines=1)


@pytest.mark.parametrize("other", KINDS.values())
def test_a_living_socket_is_left_alone(kind, path, heard, other):
    """Whatever its type is, and whether its queue is full or not."""
    with socket.socket(socket.AF_UNIX, other) as alive:
        alive.bind(path)
        if other == socket.SOCK_STREAM:
            alive.listen(0)
        listener = kind(path, heard)
        with pytest.raises(OSError, match="in use"):
            listener.bind()
        listener.stop(0)
        assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(kind, path, heard):
    """A wrong path in the configuration destroys nothing."""
    with open(path, "w") as file:
        file.write("precious")
    listener = kind(path, heard)
    with pytest.raises(OSError, match="in use"):
        listener.bind()
    listener.stop(0)
    with open(path) as file:
        assert file.read() == "precious"


def test_stop_hands_over_what_the_kernel_holds(kind, path, heard):
    """Everything sent before is heard; who sends afterwards is refused."""
    listener = kind(path, heard)
    listener.bind()
    with connected(listener.address) as sock:
        for _ in range(5):
            sock.sendall(b"a:1|c\n")
        listener.start()
        assert listener.stop(5.0)
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the type of socket
            sock.sendall(b"late:1|c\n")
    assert heard.lines == [b"a:1|c"] * 5
    assert heard.dropped == {}


def test_half_a_line_at_the_end_is_dropped(path, heard):
    """A sender that was cut off had more to say: what is there of its line may mean something else."""
    listener = UnixStreamListener(path, heard)
    listener.bind()
    with connected(f"unix://{path}") as sock:
        sock.sendall(b"a:1|c\nb:12")
        listener.start()
        assert listener.stop(5.0)
    assert heard.lines == [b"a:1|c"]
    assert heard.dropped == {"cut_off": 1}
