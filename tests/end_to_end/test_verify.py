"""With ``verify=``, what a proxy swallowed after it had confirmed it is in a real carbon's files all the same.

graphite-web pins a Django that the tests of our own integrations cannot use, so a small server answers in its place:
from the files that carbon wrote, by the code with which graphite-web reads them.
"""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import whisper

from metricslib.delivery import Sender, open_destination
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window
from tests.peers import eventually

from .conftest import Carbon

Serve = Callable[[socketserver.TCPServer], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Call with a server; return the port on which it runs until the test ends."""
    servers: list[socketserver.TCPServer] = []

    def serve(server: socketserver.TCPServer) -> int:
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port: int = server.socket.getsockname()[1]
        return port

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def render_server(carbon: Carbon) -> ThreadingHTTPServer:
    """The render API over the files of ``carbon``."""

    class Render(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            assert (query["format"], query["noCache"]) == (["json"], ["1"])
            found = []
            for path in query["target"]:
                if not carbon.file(path).exists():
                    continue
                first, until = int(query["from"][0]), int(query["until"][0])
                (start, end, step), values = whisper.fetch(str(carbon.file(path)), first, until)
                points = zip(values, range(start, end, step), strict=True)
                found.append({"target": path, "datapoints": [*points]})
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *what: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Render)


class Swallowing(socketserver.TCPServer):
    """A proxy before ``carbon`` that confirms a number of connections and passes nothing of them on."""

    def __init__(self, carbon: Carbon, swallows: int) -> None:
        self.carbon = carbon
        self.swallows = swallows
        super().__init__(("127.0.0.1", 0), Swallowing.Connection)

    class Connection(socketserver.StreamRequestHandler):
        server: "Swallowing"

        def handle(self) -> None:
            payload = self.rfile.read()
            if self.server.swallows:
                self.server.swallows -= 1
                return
            with socket.create_connection(("127.0.0.1", self.server.carbon.port)) as carbon:
                carbon.sendall(payload)
                carbon.shutdown(socket.SHUT_WR)
                while carbon.recv(65536):
                    pass


def test_what_a_proxy_swallowed_is_in_carbons_files(carbon: Carbon, serve: Serve, caplog: pytest.LogCaptureFixture):
    """It was counted as delivered; a minute later it is sent again, and everything is verified then."""
    proxy = serve(Swallowing(carbon, 1))
    render = serve(render_server(carbon))
    end = int(time.time()) // 10 * 10 - 200
    clock = ManualClock(time=end)
    url = f"graphite://127.0.0.1:{proxy}?verify=http://127.0.0.1:{render}/render"
    sender = Sender(open_destination(url, Naming(prefix="shop"), clock=clock), clock=clock)
    assert sender.verifier
    stamps = [end, end + 10, end + 20]
    for stamp in stamps:
        window = Window(stamp - 10, stamp, 10, counters={"orders": stamp - end + 1})
        sender.put(*sender.destination.encode(Flush(window, window)))
        sender.step()
        clock.advance(10)
        sender.verifier.step()
    path = "stats.counters.shop.orders.count"
    eventually(lambda: carbon.read(path, stamps) == [None, 11, 21])
    assert sender.status().points_sent == 9
    for _ in range(8):
        clock.advance(6)
        sender.verifier.step()
        sender.step()
    eventually(lambda: carbon.read(path, stamps) == [1, 11, 21])
    clock.advance(6)
    sender.verifier.step()
    status = sender.status()
    assert (status.verified, status.unverified, status.verify_trouble) == (stamps[-1], 0, None)
    assert "Graphite does not show 3 points that it confirmed a minute ago" in caplog.text


def test_slots_of_a_minute_prove_nothing_of_ten_seconds(
    start_carbon: Callable[[int], Carbon], serve: Serve, caplog: pytest.LogCaptureFixture
):
    """The default of carbon's storage-schemas.conf: the page and the log say so."""
    carbon = start_carbon(60)
    render = serve(render_server(carbon))
    end = int(time.time()) // 60 * 60 - 240
    clock = ManualClock(time=end)
    sender = Sender(open_destination(f"{carbon.url}?verify=http://127.0.0.1:{render}/render", Naming()), clock=clock)
    assert sender.verifier
    for stamp in (end, end + 10, end + 20):
        window = Window(stamp - 10, stamp, 10, counters={"orders": 1})
        (batch,) = sender.destination.encode(Flush(window, window))
        sender.put(batch)
        sender.step()
        path, value = batch.payload.splitlines()[-1].decode().split()[:2]
        eventually(lambda path=path, value=value: carbon.read(path, [end]) == [float(value)])  # type: ignore[misc]
        clock.advance(10)
        sender.verifier.step()
    assert "in slots longer than the interval" in str(sender.status().verify_trouble)
    assert sender.status().unverified == 0
