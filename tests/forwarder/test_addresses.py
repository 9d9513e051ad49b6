"""Addresses of listeners: what each URL means, and what is wrong with the others."""

import re

import pytest

from forwarder.addresses import Address, host_and_port, parse, parse_target


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("udp://127.0.0.1:8125", Address("udp", "127.0.0.1", 8125)),
        ("udp://localhost", Address("udp", "localhost", 8125)),
        ("udp://[::1]:0", Address("udp", "::1", 0)),
        ("tcp://[::]", Address("tcp", "::", 8125)),
        ("tcp://0.0.0.0:65535/", Address("tcp", "0.0.0.0", 65535)),
        ("graphite://h", Address("graphite", "h", 2003)),
        ("forwarder+tcp://h", Address("forwarder+tcp", "h", 8129)),
        ("unix:///run/statsd.sock", Address("unix", path="/run/statsd.sock")),
        ("forwarder+unix:///run/forwarder.sock", Address("forwarder+unix", path="/run/forwarder.sock")),
        ("unixgram:///run/with space", Address("unixgram", path="/run/with space")),
        (f"unix:///{'x' * 106}", Address("unix", path=f"/{'x' * 106}")),
    ],
)
def test_an_address_is_read(url, address):
    """Ports default to those of statsd and Graphite; IPv6 stands in brackets; a path is taken as it is."""
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is not a URL: udp://HOST:PORT, for example"),
        ("127.0.0.1:8125", "is not a URL: udp://HOST:PORT, for example"),
        ("ucp://h:1", "has an unknown scheme; did you mean udp?"),
        ("unixdgram:///x", "has an unknown scheme; did you mean unixgram?"),
        ("zzz://h:1", "has an unknown scheme"),
        ("udp://", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://:8125", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://::1:8125", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://[::1", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://[::1]8125", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://h:65536", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://h:", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://h:８", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://me:pw@h:1", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://h:1?x=1", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("udp://h/x", "needs HOST:PORT, with an IPv6 address in brackets"),
        ("unix://run/x", "needs an absolute path: unix:///run/statsd.sock, for example"),
        (f"unix:///{'x' * 107}", "has a path that no socket can have; the longest has 107 bytes"),
        ("unix:///a\0b", "has a path that no socket can have; the longest has 107 bytes"),
    ],
)
def test_what_is_no_address_is_refused(url, reason):
    """The reason says what would be right."""
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse(url)


def test_a_port_may_be_required():
    """Without a default there must be a port."""
    assert host_and_port("[::1]:80") == ("::1", 80)
    with pytest.raises(ValueError, match="h"):
        host_and_port("h")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("graphite://h:2003", "is neither udp:// nor tcp://"),
        ("unix:///run/x", "is neither udp:// nor tcp://"),
        ("udp://h:0", "has port 0; use a port from 1 to 65535"),
        ("h:8125", "is not a URL: udp://HOST:PORT, for example"),
    ],
)
def test_what_is_no_target_is_refused(url, reason):
    """Packets can be passed on over UDP and TCP alone."""
    assert parse_target("tcp://h") == Address("tcp", "h", 8125)
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse_target(url)


@pytest.mark.parametrize(
    ("target", "listener", "reached"),
    [
        ("udp://127.0.0.1:1", "udp://127.0.0.1:1", True),
        ("udp://localhost:1", "udp://0.0.0.0:1", True),
        ("tcp://[::1]:1", "tcp://[::]:1", True),
        ("udp://127.0.0.1:1", "udp://127.0.0.1:2", False),
        ("udp://127.0.0.1:1", "tcp://127.0.0.1:1", False),
        ("udp://other:1", "udp://0.0.0.0:1", False),
        ("udp://127.0.0.1:8125", "unix:///run/x", False),
    ],
)
def test_a_target_that_is_a_listener_is_seen(target, listener, reached):
    """As far as the texts show it."""
    assert parse_target(target).reaches(parse(listener)) is reached
