"""Listeners for statsd lines over Unix sockets, stream and datagram.

The file of a dead process is replaced, but only if it is a socket that no process answers. At the end the file is
removed, but only if it is still the file that this process created. Mode and group are never changed through the path,
because other users who can write to the directory could put a link to any file there.
"""

import errno
import grp
import logging
import os
import socket
import stat

from metricslib.clock import SYSTEM_CLOCK, Clock

from .base import Sink
from .framing import LinesOrPackets
from .stream import CONNECTIONS, Connection, StreamListener
from .udp import DatagramListener

__all__ = ["MODE", "UnixDatagramListener", "UnixStreamListener"]

log = logging.getLogger("forwarder")

MODE = 0o600
"""Permissions of the socket's file. Users who may write to it may send."""
_LONGEST_DATAGRAM = 256 << 10


class _SocketFile:
    """The file of a Unix socket that this process has bound. That of an inherited socket is not touched."""

    def __init__(self, path: str, mode: int, group: str) -> None:
        self.path = path
        self._mode = mode
        self._group = group
        self._identity: tuple[int, int] | None = None

    def bind(self, sock: socket.socket) -> None:
        try:
            self._bind(sock)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self._is_dead(sock.type):
                raise
            os.unlink(self.path)
            self._bind(sock)

    def _bind(self, sock: socket.socket) -> None:
        group = _number_of(self._group) if self._group else None
        # The file gets the mode of the socket, so that it is never too permissive, not even for a moment, and never
        # writable for the wrong group. The umask may remove further bits.
        first = self._mode if group is None else self._mode & ~0o070
        os.fchmod(sock.fileno(), first)
        self._warn_of_others()
        sock.bind(self.path)
        file = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not _is_new_socket(status, first):
                raise OSError(errno.EPERM, "its file was replaced by another while it was made")
            self._identity = status.st_dev, status.st_ino
            itself = f"/proc/self/fd/{file}"  # the file that was checked, whatever the path leads to now
            if group is not None:  # services without privileges may not even call chown without a change
                os.chown(itself, -1, group)
            if stat.S_IMODE(os.fstat(file).st_mode) != self._mode:
                os.chmod(itself, self._mode)
        except OSError:  # most likely the process is not in the group
            self.unlink()
            raise
        finally:
            os.close(file)

    def _warn_of_others(self) -> None:
        """Warn if other users could replace the socket by one of theirs, and receive the data."""
        directory = os.path.dirname(os.path.abspath(self.path))
        status = os.stat(directory)
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (0, os.geteuid()):
            log.warning("%s: other users can write to the directory %s and replace the socket", self.path, directory)

    def _is_dead(self, kind: int) -> bool:
        if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                return True
            except OSError:  # a busy process, or a socket of another type: alive
                return False
        return False

    def unlink(self) -> None:
        if self._identity is not None and self._found() == self._identity:
            try:
                os.unlink(self.path)
            except OSError:  # another process was faster, or the directory is gone or not writable
                pass
        self._identity = None

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _is_new_socket(status: os.stat_result, mode: int) -> bool:
    """Return True if a file can be the one that binding has just created: our own, one name, at most ``mode``."""
    return (
        stat.S_ISSOCK(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and not stat.S_IMODE(status.st_mode) & ~mode
    )


def _number_of(group: str) -> int:
    """Return the number of a group, given by name or number. Raises OSError if there is none."""
    if group.isascii() and group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {group!r}") from None


class UnixStreamListener(StreamListener):
    """Listens for streams on the socket file ``path``, with ``mode`` and, unless it is empty, ``group``."""

    def __init__(
        self,
        path: str,
        sink: Sink,
        *,
        mode: int = MODE,
        group: str = "",
        connections: int = CONNECTIONS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(sink, connections=connections, clock=clock)
        self._file = _SocketFile(path, mode, group)

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._file.bind(sock)
            sock.listen(1024)
        except BaseException:
            sock.close()
            raise
        return sock

    def _new_connection(self, accepted: socket.socket) -> Connection:
        return Connection(accepted, LinesOrPackets())

    def _url(self, sock: socket.socket) -> str:
        return f"unix://{self._file.path}"

    def _hang_up(self, connection: socket.socket) -> None:
        # From now on the peer cannot write, and data that it has written can still be read.
        connection.shutdown(socket.SHUT_RD)

    def _close(self, sock: socket.socket) -> None:
        self._file.unlink()
        super()._close(sock)


class UnixDatagramListener(DatagramListener):
    """Listens for datagrams on the socket file ``path``, with ``mode`` and, unless it is empty, ``group``.

    Senders wait while the queue is full, so the kernel drops none.
    """

    def __init__(
        self, path: str, sink: Sink, *, mode: int = MODE, group: str = "", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(sink, longest=_LONGEST_DATAGRAM, clock=clock)
        self._file = _SocketFile(path, mode, group)

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._file.bind(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _url(self, sock: socket.socket) -> str:
        return f"unixgram://{self._file.path}"

    def _hang_up(self, sock: socket.socket) -> None:
        self._file.unlink()
        sock.shutdown(socket.SHUT_RD)

    def _close(self, sock: socket.socket) -> None:
        self._file.unlink()
        sock.close()
