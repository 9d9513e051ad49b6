"""The page on a port of its own, over real HTTP."""

import contextlib
import errno
import os
import select
import socket
import threading

import pytest
import requests

from metricslib.errors import AlreadyStarted, CannotListen, InvalidOption
from metricslib.flusher import Flusher
from metricslib.registry import Registry
from metricslib.view import server as server_module
from metricslib.view.server import Server, serve
from metricslib.view.wsgi import wsgi
from tests.peers import eventually


@pytest.fixture
def served(flusher):
    with serve(port=0, flusher=flusher) as server:
        yield server


def connect(server):
    return contextlib.closing(socket.create_connection((server.host, server.port), timeout=60))


def ask(server, request):
    """Send raw bytes, and return all that comes back until the server closes."""
    with connect(server) as connection:
        connection.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def test_it_serves_page_and_json(served, registry):
    """On loopback, at the address it tells."""
    registry.counter("web.hits").inc(3)
    assert served.url == f"http://127.0.0.1:{served.port}/"
    page = requests.get(served.url, headers={"Accept": "text/html"}, timeout=60)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "web.hits" in page.text
    found = requests.get(served.url, params={"format": "json", "match": "web.*"}, timeout=60).json()
    assert found["series"][0]["open"] == {"count": 3}


def test_want_of_descriptors_does_not_turn_in_circles(served, monkeypatch):
    """A connection that cannot be accepted would be found again at once, so there is a rest first."""
    rests = []
    accept = socket.socket.accept

    def exhausted(sock):
        if sock is served._http.socket and len(rests) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(type(served._http), "_rest", rests.append)
    monkeypatch.setattr(server_module.socket.socket, "accept", exhausted)
    assert requests.get(served.url, timeout=60).status_code == 200
    assert rests == [server_module._POLL] * 3


def test_head_other_methods_and_other_paths(served):
    """As every entry point of the page answers; a body that nobody asked for does not hide the answer."""
    head = requests.head(served.url, headers={"Accept": "text/html"}, timeout=60)
    assert (head.status_code, head.text) == (200, "")
    assert int(head.headers["Content-Length"]) > 500
    for method in ("POST", "PUT", "DELETE"):
        refused = requests.request(method, served.url, data=b"x" * 50_000, timeout=60)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert requests.get(served.url + "favicon.ico", timeout=60).status_code == 404


def test_closing_frees_the_port(flusher):
    """Closing twice does nothing; the port can be taken again at once."""
    server = serve(port=0, flusher=flusher)
    requests.get(server.url, timeout=60)
    server.close()
    server.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=60)
    with serve(port=server.port, flusher=flusher) as again:
        assert requests.get(again.url, timeout=60).status_code == 200


def test_a_taken_port_is_told_at_once(served, flusher):
    """Not in a log, later, but in one line that says where, and what to do; the traceback ends in this library."""
    with pytest.raises(CannotListen) as caught:
        serve(port=served.port, flusher=flusher)
    told = f"cannot listen on {served.url}: Address already in use; give another port, 0 takes a free one"
    assert str(caught.value) == told
    assert (caught.value.errno, caught.value.address) == (errno.EADDRINUSE, served.url)
    assert caught.value.__suppress_context__


def test_a_host_that_is_none_is_told(flusher):
    """A name that nobody has, one that can be none, and an address of another machine."""
    for host in ("no.such.host.invalid", "x" * 70 + ".example", "192.0.2.1"):
        with pytest.raises(CannotListen, match=f"^cannot listen on http://{host}:0/: "):
            serve(port=0, host=host, flusher=flusher)


@pytest.mark.parametrize("port", [-1, 65536, "8128", True, None])
def test_a_port_that_is_none_is_refused(flusher, port):
    """With the bad value in the error."""
    with pytest.raises(InvalidOption) as caught:
        serve(port=port, flusher=flusher)
    assert caught.value.value is port


def test_a_registry_of_ones_own_gets_a_flusher_until_closing():
    """Its intervals end while it is served; afterwards another flusher may have it."""
    registry = Registry()
    registry.counter("hits").inc()
    with serve(port=0, registry=registry) as server:
        assert requests.get(server.url, params={"format": "json"}, timeout=60).json()["flusher"]["running"]
        with pytest.raises(AlreadyStarted):
            serve(port=0, registry=registry)
    other = Flusher(registry)
    other.start()
    assert other.running
    other.stop()


def test_a_registry_whose_port_is_taken_is_let_go(served):
    """A page that could not be served leaves no flusher behind."""
    registry = Registry()
    with pytest.raises(OSError, match="in use"):
        serve(port=served.port, registry=registry)
    with serve(port=0, registry=registry):
        pass


def test_flusher_and_registry_must_belong_together(flusher, registry):
    """The flusher's own registry may be named too, another may not."""
    with pytest.raises(InvalidOption):
        serve(port=0, registry=Registry(), flusher=flusher)
    serve(port=0, registry=registry, flusher=flusher).close()


def test_a_silent_client_is_cut_off_and_holds_nobody_up(flusher, monkeypatch):
    """Others are answered meanwhile, and the silent one sees the end of the connection."""
    monkeypatch.setattr(server_module._Handler, "timeout", 2)
    with serve(port=0, flusher=flusher) as server, connect(server) as silent:
        silent.sendall(b"GET / HT")
        assert requests.get(server.url, timeout=60).status_code == 200
        assert silent.recv(1) == b""


def test_a_slow_client_is_cut_off_in_the_end(flusher, monkeypatch):
    """Somebody who sends a byte now and then has only so much time in all."""
    monkeypatch.setattr(server_module, "_LONGEST", 0.05)
    with serve(port=0, flusher=flusher) as server, connect(server) as slow:
        slow.sendall(b"GET / HTTP/1.0\r\n")
        assert select.select([slow], [], [], 60)[0]
        with contextlib.suppress(ConnectionError):
            assert slow.recv(1) == b""


def test_too_many_at_a_time_are_turned_away(flusher, monkeypatch):
    """With status 503; when the others have gone it serves again."""
    monkeypatch.setattr(server_module, "_MOST_REQUESTS", 2)
    monkeypatch.setattr(server_module, "_RESERVED", 1)
    with serve(port=0, flusher=flusher) as server:
        with connect(server), connect(server):
            eventually(lambda: len(server._http._since) == 2)
            assert ask(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 503 ")
            eventually(lambda: len(server._http._since) == 2)
            with connect(server):
                eventually(lambda: len(server._http._since) == 3)
                assert ask(server, b"").startswith(b"HTTP/1.0 503 ")
        eventually(lambda: not server._http._since)
        assert requests.get(server.url, timeout=60).status_code == 200


def test_health_has_a_slot_of_its_own(flusher):
    """However many connections are open, and idle, the small answer in front of the page is given."""

    def health(environ, start_response):
        if environ["PATH_INFO"] != "/health":
            return wsgi(flusher, open=True)(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"well"]

    with Server(health) as server, contextlib.ExitStack() as idle:
        for _ in range(server_module._MOST_REQUESTS):
            idle.enter_context(connect(server))
        eventually(lambda: len(server._http._since) == server_module._MOST_REQUESTS)
        assert ask(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 503 ")
        assert ask(server, b"GET /health HTTP/1.0\r\n\r\n").endswith(b"well")


def test_a_reserved_slot_is_not_held_by_a_silent_client(flusher, monkeypatch):
    """It is cut off sooner than others are."""
    monkeypatch.setattr(server_module, "_MOST_REQUESTS", 0)
    monkeypatch.setattr(server_module, "_RESERVED_SILENCE", 0.05)
    with serve(port=0, flusher=flusher) as server, connect(server) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /?match=%FF%00%3Cscript%3E HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n", b"414"),
        (b"GET / HTTP/1.0\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(200)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.0\r\n" + b"".join(b"H%d: " % n + b"x" * 2000 + b"\r\n" for n in range(20)) + b"\r\n", b"431"),
        (b"POST / HTTP/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n", b"405"),
        (b"GET / HTTP/1.0\r\nContent-Length: -5\r\n\r\n", b"200"),
    ],
)
def test_hostile_requests_get_an_answer(served, monkeypatch, request_, status):
    """Too long, too many, too odd: a status, and the server goes on. Nothing reaches the standard error."""
    monkeypatch.setattr(server_module._Handler, "timeout", 2)
    assert status in ask(served, request_)[:40]
    assert requests.get(served.url, timeout=60).status_code == 200


def test_hostile_requests_write_nothing_to_standard_error(served, capfd):
    """Whoever can reach the port cannot fill a program's logs."""
    with connect(served) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.sendall(b"GET / HTTP/1.0\r\n\r\n")
    ask(served, b"nonsense\r\n\r\n")
    requests.get(served.url, timeout=60)
    eventually(lambda: not served._http._since)
    assert capfd.readouterr() == ("", "")


def test_many_readers_at_once(served, registry):
    """Each gets a whole page, while the program goes on measuring."""
    done = threading.Event()

    def measure():
        while not done.is_set():
            registry.counter("hits").inc()
            registry.timer("query").observe(0.1)

    statuses = []
    readers = [
        threading.Thread(
            target=lambda: statuses.extend(requests.get(served.url, timeout=60).status_code for _ in range(10))
        )
        for _ in range(8)
    ]
    measuring = threading.Thread(target=measure)
    measuring.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    done.set()
    measuring.join()
    assert statuses == [200] * 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_lets_go_of_the_port(flusher):
    """When the parent closes, nobody is left holding the port, though the child lives on."""
    server = serve(port=0, flusher=flusher)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until the parent has looked
        os._exit(0)
    try:
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port), timeout=60)
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_ipv6(flusher):
    """The address in the URL stands in brackets."""
    try:
        server = serve(port=0, host="::1", flusher=flusher)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        assert server.url == f"http://[::1]:{server.port}/"
        assert requests.get(server.url, timeout=60).status_code == 200


def test_any_application_can_be_served():
    """The server knows nothing of pages: the forwarder's is served by it too."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    closed = []
    with Server(app, then=lambda: closed.append(True)) as server:
        assert requests.get(server.url, timeout=60).text == "hello"
    assert closed == [True]
