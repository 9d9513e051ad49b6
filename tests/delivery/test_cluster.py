"""A URL of several hosts names a cluster."""

from collections.abc import Sequence

import pytest

from metricslib.delivery import Deadline, Destination, open_destinations, several, split_urls
from metricslib.delivery.cluster import Failover
from metricslib.errors import InvalidDestination, InvalidOption, InvalidType
from metricslib.naming import Naming

NAMING = Naming()


def labels(destinations: Sequence[Destination]) -> list[str]:
    return [destination.label for destination in destinations]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("graphite://host", ["graphite://host:2003"]),
        ("console:", ["console:"]),
        ("whisper:///a,b", ["whisper:///a,b"]),
        (
            "graphite://h1:2003:a,h2:2004:b?hash=carbon_ch&replicas=2",
            ["graphite://h1:2003:a", "graphite://h2:2004:b"],
        ),
        ("Graphite://h1,h2/?hash=fnv1a_ch", ["graphite://h1:2003", "graphite://h2:2003"]),
        (
            "graphite+udp://[::1]:1:a,[::2]::b?hash=carbon_ch",
            ["graphite+udp://[::1]:1:a", "graphite+udp://[::2]:2003:b"],
        ),
        ("graphite+pickle://h1, h2?hash=carbon_ch", ["graphite+pickle://h1:2004", "graphite+pickle://h2:2004"]),
        ("graphite+tls://h1:1,h2:2?hash=carbon_ch&name=h", ["graphite+tls://h1:1", "graphite+tls://h2:2"]),
        ("graphite://h:2003:a?hash=carbon_ch", ["graphite://h:2003:a"]),
        ("graphite://h:2003:was:2003?hash=fnv1a_ch&tags=off", ["graphite://h:2003:was:2003"]),
        (
            "graphite://h:1:a,h:2:b?hash=carbon_ch&replicas=2&diverse=off",
            ["graphite://h:1:a", "graphite://h:2:b"],
        ),
        ("graphite://h1,[::1]:2004?pick=failover", ["graphite://h1:2003,[::1]:2004"]),
        ("graphite+pickle://h1,h2?pick=any_of", ["graphite+pickle://h1:2004,h2:2004"]),
    ],
)
def test_a_url_names_one_destination_or_one_for_each_node(url: str, expected: list[str]):
    """With a hash each node is one; of nodes of which one is picked all are one."""
    assert labels(open_destinations(url, NAMING)) == expected


def test_nodes_take_the_options_of_any_destination():
    """They hold for each."""
    url = "graphite://h1,h2?timeout=2s&{}&spool_bytes=100&revise=off"
    for way in ("hash=carbon_ch", "pick=failover"):
        for destination in open_destinations(url.format(way), NAMING):
            assert (destination.options.timeout, destination.options.spool_bytes) == (2, 100)
            assert not destination.revise
            assert (destination.deltas, destination.relays, destination.resend) == (False, True, True)


@pytest.mark.parametrize("way", ["hash=carbon_ch", "pick=failover", "pick=any_of"])
def test_no_node_gets_a_line_that_it_cannot_read(way: str):
    """Also of relayed points; a batch of nothing else needs no connection."""
    for destination in open_destinations(f"graphite://h1,h2?{way}&max_line=20", NAMING):
        assert destination.deliver(b"x" * 21 + b"\n", Deadline(20)) == {"too_long": 1}


def test_any_of_has_an_order_of_its_own():
    """So that many processes spread over the nodes; the label stays as it was written."""
    (destination,) = open_destinations("graphite://h1,h2,h3?pick=any_of", NAMING, shuffle=lambda nodes: nodes.reverse())
    assert isinstance(destination, Failover)
    assert [node.label for node in destination.nodes()] == [f"graphite://{host}:2003" for host in ("h3", "h2", "h1")]
    assert destination.label == "graphite://h1:2003,h2:2003,h3:2003"
    (destination,) = open_destinations("graphite://h1,h2?pick=failover", NAMING, shuffle=lambda nodes: nodes.reverse())
    assert isinstance(destination, Failover)
    assert [node.label for node in destination.nodes()] == ["graphite://h1:2003", "graphite://h2:2003"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("graphite://h1,h2", "needs hash=carbon_ch, hash=fnv1a_ch, pick=failover or pick=any_of"),
        ("graphite://h1,h2?replicas=2", "needs hash=carbon_ch, "),
        ("graphite://h1,h2?pick=failover&replicas=2", "replicas needs hash=carbon_ch or hash=fnv1a_ch"),
        ("graphite://h1,h2?hash=md5", "hash must be carbon_ch or fnv1a_ch"),
        ("graphite://h1,h2?pick=first", "pick must be failover or any_of"),
        ("graphite://h1,h2?hash=carbon_ch&pick=any_of", "takes hash or pick, not both"),
        ("graphite://h1,h2?hash=carbon_ch&hash=carbon_ch", "option hash is given twice"),
        ("graphite://h1,h2?hash=carbon_ch&replicas=two", "replicas must be a whole number"),
        ("graphite://h1,h2?hash=carbon_ch&replicas=3", "replicas must be a number from 1 to 2"),
        ("graphite://h:1:a,h:2:b?hash=carbon_ch&replicas=2", "diverse=off counts instances of one host"),
        ("graphite://h:1,h:2?hash=carbon_ch", "two nodes are the same for carbon_ch"),
        ("graphite://h1,h1:2003?pick=any_of", "a node is given twice"),
        ("graphite://h1:2003:a,h2?pick=any_of", "needs hash=carbon_ch or hash=fnv1a_ch"),
        ("graphite://h1:2003:a b,h2?hash=carbon_ch", "an instance has letters"),
        ("graphite://h1:2003:,h2?hash=carbon_ch", "an instance has letters"),
        ("graphite://h1,,h2?hash=carbon_ch", "has no host"),
        ("graphite://h1:x,h2?hash=carbon_ch", "the port must be a number from 1 to 65535"),
        ("graphite://[::1]x,h2?hash=carbon_ch", "write each node as host:port or host:port:instance"),
        ("graphite://h1,h2/path?hash=carbon_ch", "takes no path"),
        ("graphite://h1,h2?hash=carbon_ch&tiemout=1", "unknown option tiemout; did you mean timeout"),
        ("graphite://me:s3cret@h1,h2?hash=carbon_ch", "takes no user name"),
    ],
)
def test_what_means_nothing_is_refused(url: str, reason: str):
    """At once, in words that help, without what may be secret; the whole URL is named."""
    with pytest.raises(InvalidDestination, match=reason) as failure:
        open_destinations(url, NAMING)
    shown = url.partition("?")[0].replace("me:s3cret@", "").replace(":x,h2", ":…")  # what is no port may be a secret
    assert failure.value.url == shown + "?…" * ("?" in url)
    assert "s3cret" not in str(failure.value)


def test_a_url_must_be_a_text():
    """As anywhere."""
    with pytest.raises(InvalidType):
        open_destinations(None, NAMING)


@pytest.mark.parametrize(
    "urls",
    [
        ["graphite://h1:2003,b:2003?hash=carbon_ch", "console:"],
        ["graphite://a:2003:x,b:2003:y?hash=carbon_ch&replicas=2", "graphite://c:2003,statsd:2003?pick=any_of"],
        ["graphite://a,b?pick=failover", "statsd://a:8125", "graphite+udp://a:1,b:2"],
        ["file:m.jsonl", "graphite://a:2003,b:2003", "whisper:data?retentions=10s:1d,1m:30d"],
        ["grahpite://a:2003,b:2003/", "statsd+unix:///run/s"],
    ],
)
@pytest.mark.parametrize("comma", [",", " , "])
def test_a_list_of_urls_may_hold_clusters(urls: list[str], comma: str):
    """A comma before a host and its port is the cluster's; one before a scheme separates."""
    assert split_urls(comma.join(urls)) == urls


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("file:x,", ["file:x"]),
        ("file:x, ", ["file:x"]),
        (",file:x", ["file:x"]),
        (" , file:x , , console:,,", ["file:x", "console:"]),
        ("file:x,CONSOLE:", ["file:x", "CONSOLE:"]),
        ("graphite://a,b?pick=failover,", ["graphite://a,b?pick=failover"]),
        ("graphite://a,,b?pick=failover", ["graphite://a,,b?pick=failover"]),
        ("file:a,b.jsonl", ["file:a,b.jsonl"]),
        ("file:a%2Cconsole:", ["file:a%2Cconsole:"]),
    ],
)
def test_empty_parts_of_a_list_are_left_out(text: str, urls: list[str]):
    """A comma at the end is part of no file's name. It is the same in the environment, in an argument and in a list."""
    assert split_urls(text) == urls
    assert several(text) == tuple(urls)
    assert several([text, "console:"]) == (*urls, "console:")


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_a_list_that_names_nothing_is_refused(text: str):
    """Nothing would be sent, silently."""
    for to in (text, [text], ["console:", text]):
        with pytest.raises(InvalidOption, match=r"METRICSLIB_TO = '[ ,]*': names no destination"):
            several(to, "METRICSLIB_TO")
