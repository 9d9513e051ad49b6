"""The page on a port of its own: a small HTTP server in a daemon thread, for programs without a web server.

It is bounded: at most 16 requests at a time, and for each at most 10 seconds of silence and 30 seconds in total. It
refuses further requests, and closes slower ones. It listens on loopback by default, because the page reveals a lot
about a program.
"""

import io
import logging
import socket
import threading
import time
import weakref
from collections.abc import Iterable
from http.client import LineTooLong
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Never
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from .._default import default_registry
from .._process import register_fork_handler
from .._shipping import ensure_flusher
from ..errors import CannotListen, InvalidOption
from ..flusher import Flusher
from ..hints import unknown_option
from ..registry import Registry
from .access import Allow, Page
from .hosts import is_loopback, only_for
from .wsgi import RESERVED, application_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Server", "serve"]

log = logging.getLogger("metricslib")

_MOST_REQUESTS = 16
_SILENCE = 10.0
_LONGEST = 30.0
_LONGEST_HEAD = 32 << 10
"""Bytes of all headers of a request."""
_RESERVED = 4
"""Requests beyond those, which are marked as such: for health, see :data:`~.wsgi.RESERVED`."""
_RESERVED_SILENCE = 1.0
_RESERVED_LONGEST = 2.0
_POLL = 0.2  # how long close() may have to wait
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\nToo many requests at a time.\n"


def serve(
    port: int = 8128,
    host: str = "127.0.0.1",
    registry: Registry | None = None,
    flusher: Flusher | None = None,
    hosts: Iterable[str] = (),
    *,
    token: str | None = None,
    allow: Allow | None = None,
    **unknown: Never,
) -> "Server":
    """Serve the metrics page on a port of its own, in a background thread.

    Without arguments it shows the default registry, whose intervals end from now on, with or without
    :func:`metricslib.start`. For a registry without a flusher, it starts one that ends the intervals until the server
    is closed. The server answers at most 16 requests at a time.

    Args:
        port: The TCP port. 0: any free port; see ``url`` of the server.
        host: The address to listen on. On another than loopback, everybody in the network may read the page, unless
            there is a token or a function that decides.
        registry: The registry to show.
        flusher: The flusher whose registry and destinations are shown. Give it if the registry has one.
        hosts: Host names that are accepted on a loopback address, in addition to IP addresses and ``localhost``.
            Requests with another ``Host`` get status 421.
        token: Readers must know this token, see :func:`metricslib.view.wsgi`.
        allow: A function that decides about each request, see :func:`metricslib.view.wsgi`.

    Returns:
        The running server.

    Raises:
        CannotListen: If the port is in use or cannot be opened. It is an OSError.
        AlreadyStarted: If ``registry`` is given without the flusher that ends its intervals.
        InvalidOption: If an argument has an invalid value.
        RuntimeError: If no thread can be started.
    """
    if unknown:
        raise unknown_option(serve, unknown)

    def app(shown: Flusher | None) -> "WSGIApplication":
        undecided = token is None and allow is None
        return application_of(Page(shown, "metrics.serve", token=token, allow=allow, open=undecided))

    if flusher is not None:
        if registry is not None and registry is not flusher.registry:
            raise InvalidOption("registry", registry, "is not the one of the flusher that was given with it")
        return Server(app(flusher), port, host, hosts=hosts)
    if registry is None or registry is default_registry:
        server = Server(app(None), port, host, hosts=hosts)
        ensure_flusher()
        return server
    own = Flusher(registry)
    own.start()
    try:
        return Server(app(own), port, host, hosts=hosts, then=own.stop)
    except BaseException:
        own.stop()
        raise


class Server:
    """A WSGI application, served by a background thread from the construction until :meth:`close`.

    Use it as a context manager to close it at the end of a block. A forked child closes its copy of the socket at once.

    Args:
        app: The application.
        port: The TCP port. 0: any free port; see :attr:`url`.
        host: The address to listen on.
        hosts: Host names that are accepted on a loopback address, in addition to IP addresses and ``localhost``. This
            prevents web sites from reading the page through a host name that points to 127.0.0.1 (DNS rebinding).
        then: A function that is called after closing.

    Raises:
        CannotListen: If the port is in use or cannot be opened. It is an OSError.
        InvalidOption: If ``port`` or ``hosts`` has an invalid value.
        RuntimeError: If no thread can be started.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        hosts: Iterable[str] = (),
        then: Any = None,
    ) -> None:
        names = () if isinstance(hosts, str) else tuple(hosts)
        if isinstance(hosts, str) or not all(isinstance(name, str) for name in names):
            raise InvalidOption("hosts", hosts, "must be names of hosts, each a text")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise InvalidOption("port", port, "must be a port number, 0 to 65535")
        self._then = then
        try:
            self._http = (_HTTP6 if ":" in host else _HTTP)((host, port), _Handler)
        except (OSError, UnicodeError) as error:  # the latter for a host name that can be none
            advice = "; give another port, 0 takes a free one" if port else ""
            raise CannotListen(_url(host, port), error, advice) from None
        self.host, self.port = self._http.server_name, self._http.server_port
        self._http.set_app(only_for(names, app) if is_loopback(self.host) else app)
        self._thread = threading.Thread(target=self._serve, name="metricslib-page", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            self._http.server_close()
            raise
        _servers.add(self)

    @property
    def url(self) -> str:
        """The URL of the page, such as ``http://127.0.0.1:8128/``."""
        return _url(self.host, self.port)

    def close(self) -> None:
        """Stop listening, and wait until requests in progress are answered. Closing twice does nothing."""
        if self in _servers:
            _servers.discard(self)
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()
            if self._then:
                self._then()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server at {self.url}>"

    def _serve(self) -> None:
        self._http.serve_forever(_POLL)

    def _left_in_parent(self) -> None:
        self._http.socket.close()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _HTTP(ThreadingMixIn, WSGIServer):
    """One thread a request, within bounds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._since: dict[socket.socket, float] = {}
        self.reserved: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not WSGIServer's: it asks DNS for the name of the host.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except ConnectionError:  # gone before it was accepted
            raise
        except OSError:  # no descriptor is left: the connection stays in the queue, and would be found there at once
            self._rest(_POLL)
            raise

    _rest = staticmethod(time.sleep)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._since) >= _MOST_REQUESTS:
            self.reserved.add(request)
        if len(self._since) >= _MOST_REQUESTS + _RESERVED:
            request.setblocking(False)
            try:
                request.send(_BUSY)
            except OSError:
                pass  # it will see that the connection ends
            self.shutdown_request(request)
            return
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off what lasts too long. Called a few times a second by the thread that accepts."""
        now = time.monotonic()
        for request, since in list(self._since.items()):
            if now - since > (_RESERVED_LONGEST if request in self.reserved else _LONGEST):
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it ended by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request for the metrics page broke off", exc_info=True)


class _HTTP6(_HTTP):
    address_family = socket.AF_INET6


class _Head:
    """Reads the headers of one request, as long as they are not too long in all."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = _LONGEST_HEAD

    def readline(self, size: int) -> bytes:
        line = self._stream.readline(min(size, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("headers")
        return line


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE
    default_request_version = "HTTP/1.0"  # so that what is no HTTP at all gets a status line too

    def setup(self) -> None:
        super().setup()
        self._reserved = self.request in getattr(self.server, "reserved", ())
        if self._reserved:
            self.connection.settimeout(_RESERVED_SILENCE)

    def parse_request(self) -> bool:
        rest = self.rfile
        self.rfile = _Head(rest)  # type: ignore[assignment]
        try:
            return super().parse_request()
        finally:
            self.rfile = rest

    def get_environ(self) -> Any:
        return {**super().get_environ(), RESERVED: self._reserved}

    def handle(self) -> None:
        super().handle()
        # A body that nobody reads would reset the connection, and the answer with it.
        length = self.headers.get("Content-Length", "") if getattr(self, "headers", None) else ""
        if length.isdigit():
            self.rfile.read(min(int(length), 65536))

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()  # where wsgiref would write that a reader went away

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug("metrics page: " + format, *arguments)


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


class _ForkHandler:
    @staticmethod
    def reset_after_fork() -> None:
        for server in list(_servers):
            server._left_in_parent()
        _servers.clear()


register_fork_handler(_ForkHandler)
