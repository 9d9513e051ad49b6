"""HTTP clients, against a real server on loopback."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from metricslib.integrations import httpx as measured_httpx
from metricslib.integrations import requests as measured_requests
from metricslib.integrations import urllib3 as measured_urllib3

DURATION = "http.client.request.duration"


class Handler(BaseHTTPRequestHandler):
    """Answers with the status that the path names; 302 leads to 200, and 0 is no answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = int(self.path[1:4])
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def undone(monkeypatch):
    """What is replaced is as before at the end of the test."""
    for owner, name in (
        (HTTPAdapter, "send"),
        (HTTPConnection, "request"),
        (HTTPConnection, "getresponse"),
        (httpx.HTTPTransport, "handle_request"),
        (httpx.AsyncHTTPTransport, "handle_async_request"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def with_requests(server, refused):
    with requests.Session() as session:
        for path in ("/200", "/302", "/404"):
            session.get(f"{server}{path}", timeout=60)
        session.post(f"{server}/500", timeout=60)
        for url in (f"{server}/000", refused):
            with pytest.raises(requests.ConnectionError):
                session.get(url, timeout=60)


def with_urllib3(server, refused):
    with urllib3.PoolManager(retries=urllib3.Retry(connect=0, read=0, redirect=1)) as pool:
        for path in ("/200", "/302", "/404"):
            pool.request("GET", f"{server}{path}")
        pool.request("POST", f"{server}/500")
        for url in (f"{server}/000", refused):
            with pytest.raises(urllib3.exceptions.HTTPError):
                pool.request("GET", url)


def with_httpx(server, refused):
    with httpx.Client(follow_redirects=True) as client:
        for path in ("/200", "/302", "/404"):
            client.get(f"{server}{path}")
        client.post(f"{server}/500")
        for url in (f"{server}/000", refused):
            with pytest.raises(httpx.TransportError):
                client.get(url)


def with_httpx_async(server, refused):
    async def main():
        async with httpx.AsyncClient(follow_redirects=True) as client:
            for path in ("/200", "/302", "/404"):
                await client.get(f"{server}{path}")
            await client.post(f"{server}/500")
            for url in (f"{server}/000", refused):
                with pytest.raises(httpx.TransportError):
                    await client.get(url)

    asyncio.run(main())


EXPECTED = {
    "host=127.0.0.1;method=GET;status=2xx": 2,
    "host=127.0.0.1;method=GET;status=3xx": 1,
    "host=127.0.0.1;method=GET;status=4xx": 1,
    "host=127.0.0.1;method=POST;status=5xx": 1,
    "host=127.0.0.1;method=GET;status=error": 2,
}


@pytest.mark.parametrize(
    ("module", "use"),
    [
        (measured_requests, with_requests),
        (measured_urllib3, with_urllib3),
        (measured_httpx, with_httpx),
        (measured_httpx, with_httpx_async),
    ],
    ids=["requests", "urllib3", "httpx", "httpx async"],
)
def test_requests_are_measured_by_host_and_status(registry, measured, server, refused_port, module, use):
    """Each hop of a redirect once, and those without an answer; instrumenting twice changes nothing."""
    module.instrument(instruments=registry)
    module.instrument(instruments=registry)
    use(server, f"http://127.0.0.1:{refused_port}/")
    assert {key.removeprefix(f"{DURATION};"): n for key, n in measured().items()} == EXPECTED


def test_what_requests_sends_is_not_counted_by_urllib3_again(registry, measured, server, refused_port):
    """requests stands on urllib3, and both may be measured."""
    measured_urllib3.instrument(instruments=registry)
    measured_requests.instrument(instruments=registry)
    with_requests(server, f"http://127.0.0.1:{refused_port}/")
    assert {key.removeprefix(f"{DURATION};"): n for key, n in measured().items()} == EXPECTED
    urllib3.request("GET", f"{server}/200")
    assert measured() == {f"{DURATION};host=127.0.0.1;method=GET;status=2xx": 1}
