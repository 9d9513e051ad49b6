"""Which names a server on loopback answers to: a rebound DNS name reads nothing."""

import pytest
import requests

from metricslib.errors import InvalidOption
from metricslib.view.hosts import is_known, is_loopback
from metricslib.view.server import Server, serve

KNOWN = [
    "127.0.0.1",
    "127.0.0.1:8127",
    "10.1.2.3:80",
    "[::1]",
    "[::1]:8127",
    "localhost",
    "LocalHost.:1",
    "m.lan:80",
    "M.lan.",
]
UNKNOWN = [
    "evil.example",
    "evil.example:8127",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1,evil.example",
    "::1",
    "[::1",
    "[::1]evil",
    "[127.0.0.1]",
    "evil@127.0.0.1",
    "127.0.0.1:x",
    "2130706433",
    "0x7f.1",
    ".",
]


@pytest.mark.parametrize("host", KNOWN)
def test_addresses_localhost_and_configured_names_are_known(host):
    assert is_known(host, ["m.lan"])


@pytest.mark.parametrize("host", UNKNOWN)
def test_others_are_not(host):
    assert not is_known(host, ["m.lan"])


def test_which_addresses_are_loopback():
    addresses = ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0")
    assert [is_loopback(host) for host in addresses] == [True, True, True, True, False, False, False, False]


def status(server, host, method="GET"):
    return requests.request(method, server.url, headers={"Host": host}, timeout=60).status_code


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_server_on_loopback_refuses_other_names(flusher, method):
    with serve(port=0, flusher=flusher, hosts=["m.lan"]) as server:
        assert [status(server, host, method) for host in (*KNOWN, *UNKNOWN)] == [200] * len(KNOWN) + [421] * len(
            UNKNOWN
        )


def test_a_request_without_a_host_is_answered(flusher):
    """It is of no browser; HTTP/1.0 needs none."""
    from tests.view.test_server import ask

    with serve(port=0, flusher=flusher) as server:
        assert ask(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


def test_elsewhere_any_name_is_answered(flusher):
    with serve(port=0, host="0.0.0.0", flusher=flusher) as server:
        url = f"http://127.0.0.1:{server.port}/"
        assert requests.get(url, headers={"Host": "shop.example"}, timeout=60).status_code == 200


@pytest.mark.parametrize("hosts", ["m.lan", [1]])
def test_hosts_are_texts(hosts):
    with pytest.raises(InvalidOption, match="hosts"):
        Server(lambda environ, start: [], hosts=hosts)
