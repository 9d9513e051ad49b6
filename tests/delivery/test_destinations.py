"""A URL names a destination, or is refused with a reason that helps and no secret in it."""

import re
import sys

import pytest

from metricslib.delivery import open_destination
from metricslib.delivery.destination import Options
from metricslib.delivery.destinations import SCHEMES
from metricslib.delivery.files import KEEP
from metricslib.delivery.graphite import DATAGRAM_LINE, LINE
from metricslib.delivery.statsd import STATSD_LINE
from metricslib.delivery.urls import without_secrets
from metricslib.delivery.whisper import RETENTIONS
from metricslib.errors import InvalidDestination, InvalidType
from metricslib.naming import Naming
from metricslib.wire.pickle import FRAME
from tests.peers import ROOT

NAMING = Naming()


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("graphite://host", "graphite://host:2003"),
        ("graphite://host:2103/", "graphite://host:2103"),
        ("Graphite://HOST", "graphite://host:2003"),
        ("graphite://[::1]", "graphite://[::1]:2003"),
        ("graphite+udp://10.0.0.1", "graphite+udp://10.0.0.1:2003"),
        ("graphite+tls://host:2013", "graphite+tls://host:2013"),
        ("graphite+pickle://host", "graphite+pickle://host:2004"),
        ("statsd://host", "statsd://host:8125"),
        ("statsd+tcp://host:9125", "statsd+tcp://host:9125"),
        ("statsd+unix:///run/s.sock", "statsd+unix:///run/s.sock"),
        ("statsd+unixgram:///run/a%20b", "statsd+unixgram:///run/a b"),
        ("whisper:///var/lib/graphite/", "whisper:///var/lib/graphite/"),
        ("file:///var/log/m.jsonl", "file:///var/log/m.jsonl"),
        ("file://localhost/var/log/m.jsonl", "file:///var/log/m.jsonl"),
        ("file:m.jsonl", "file:m.jsonl"),
        ("console:", "console:"),
        ("console://", "console:"),
        ("graphite://host?timeout=2s&spool_bytes=1000&max_age=1d", "graphite://host:2003"),
    ],
)
def test_a_url_names_a_destination(url: str, label: str):
    """Ports have defaults; the label is the URL without its options, for pages and logs."""
    assert open_destination(url, NAMING).label == label


@pytest.mark.parametrize(
    ("url", "deltas", "relays", "resend"),
    [
        ("graphite://host", False, True, True),
        ("graphite+udp://host", False, True, True),
        ("graphite+tls://host:2013", False, True, True),
        ("graphite+pickle://host", False, True, True),
        ("whisper:///dir", False, True, True),
        ("console:", False, True, False),
        ("file:///m.jsonl", False, False, False),
        ("statsd://host", True, False, False),
        ("statsd+tcp://host", True, False, False),
        ("statsd+unix:///s", True, False, False),
        ("statsd+unixgram:///s", True, False, False),
    ],
)
def test_each_scheme_says_what_may_be_sent_to_it(url: str, deltas: bool, relays: bool, resend: bool):
    """Whoever adds up gets deltas, once; slots may be sent again; lines of Graphite go where lines are understood."""
    destination = open_destination(url, NAMING)
    assert (destination.deltas, destination.relays, destination.resend) == (deltas, relays, resend)


def test_options_bound_the_spool_and_the_attempts():
    """Times have units, and defaults hold where nothing is said."""
    url = "graphite://host?timeout=1.5&spool_bytes=1000&max_age=2h&revise=off&replay=500"
    destination = open_destination(url, NAMING)
    assert destination.options == Options(1.5, 1000, 7200, False, 500)
    assert destination.revise is False
    assert open_destination("graphite://host", NAMING).options == Options(5.0, 64 << 20, None, True, 20_000)
    assert open_destination("statsd://host", NAMING).revise is True
    for text, size in (("1KB", 1000), ("64mib", 64 << 20), ("2GB", 2 * 10**9), ("7b", 7)):
        assert open_destination(f"graphite://host?spool_bytes={text}", NAMING).options.spool_bytes == size


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("graphite://host?spool_bytes=1TB", "above 0, such as 67108864 or 64MiB"),
        ("graphit://host", "did you mean graphite:"),
        ("statsd+udp://host", "did you mean statsd"),
        ("xyz://host", f"known are {', '.join(SCHEMES)}"),
        ("host:2003", "unknown scheme"),
        ("", "unknown scheme"),
        ("graphite://", "has no host; write graphite://host:2003"),
        ("graphite:host:2003", "has no host"),
        ("graphite://host/path", "takes no path"),
        ("graphite://host:0", "from 1 to 65535"),
        ("graphite://host:70000", "from 1 to 65535"),
        ("graphite://host:port", "from 1 to 65535"),
        ("graphite://[::1", "Invalid IPv6"),
        ("graphite://host#part", "fragment"),
        ("graphite://host?timeot=5", "unknown option timeot; did you mean timeout"),
        ("graphite://host?x=5", "known are timeout, spool_bytes, max_age, revise, replay, verify, max_line"),
        ("graphite://host?max_line=0", "max_line must be a number of bytes above 0"),
        ("graphite+pickle://host?max_frame=1k", "max_frame must be a number of bytes above 0"),
        ("graphite+pickle://host?max_line=5", "unknown option max_line"),
        ("graphite://host?timeout=1&timeout=2", "option timeout is given twice"),
        ("graphite://host?timeout=0", "timeout must be a time above 0"),
        ("graphite://host?timeout=", "timeout must be a time above 0"),
        ("graphite://host?timeout=-1", "timeout must be a time above 0"),
        ("graphite://host?timeout=nan", "timeout must be a time above 0"),
        ("graphite://host?timeout=5y", "timeout must be a time above 0"),
        ("graphite://host?max_age=1e9d", "max_age must be a time above 0"),
        ("graphite://host?spool_bytes=0", "spool_bytes must be a number of bytes above 0"),
        ("graphite://host?spool_bytes=64M", "spool_bytes must be a number of bytes above 0"),
        ("graphite://host?revise=no", "revise must be on or off"),
        ("graphite://host?replay=0", "replay must be a whole number above 0"),
        ("statsd://host?replay=5", "unknown option replay"),
        ("graphite://host?retentions=1s:1d", "unknown option retentions"),
        ("statsd://host?revise=off", "unknown option revise"),
        ("file://var/log/m.jsonl", "takes no host; write file:///path with three slashes"),
        ("file://", "has no path"),
        ("file:///var/log/", "has no path"),
        ("file:///var/%00", "has no path"),
        ("statsd+unix://", "has no path"),
        ("console:///dev/tty", "takes no host and no path"),
        ("whisper:///dir?retentions=10s", "retentions: "),
        ("whisper:///dir?retentions=10s:1d,15s:2d", "retentions: "),
        ("whisper:///dir?retentions=", "retentions: "),
    ],
)
def test_what_means_nothing_is_refused_with_a_reason(url: str, reason: str):
    """At set-up, and with what to write instead where that can be guessed."""
    with pytest.raises(InvalidDestination) as refusal:
        open_destination(url, NAMING)
    assert reason in refusal.value.reason


@pytest.mark.parametrize("url", [None, 5, b"graphite://host"])
def test_what_is_no_text_is_refused(url):
    """A wrong type is a mistake of set-up."""
    with pytest.raises(InvalidType):
        open_destination(url, NAMING)


@pytest.mark.parametrize(
    "url",
    [
        "graphite://me:hunter2@host",
        "graphite://me:hunt/hunter2@host",
        "graphite://me:hunter2/x@host",
        "graphite://hunter2@host:2003",
        "graphit://me:hunter2@host",
        "graphite://host:2003?key=hunter2",
        "graphite://host:2003?timeout=hunter2",
        "whisper:///dir?retentions=hunter2@",
        "graphite://me:hunter2@[::1",
        "graphite://host:hunter2",
        "graphite://host:2003hunter2",
        "graphite://host:x/hunter2",
        "graphite://host:x,hunter2",
        "graphite://me:x?hunter2@host",
        "graphite://east:2003:a,west:hunter2:b?hash=carbon_ch",
        "statsd://[::1]:hunter2",
        "graphite://host:123456",
    ],
)
def test_no_secret_is_in_an_error(url: str):
    """Errors of set-up end in logs: passwords and the values of options are not in them."""
    with pytest.raises(InvalidDestination) as refusal:
        open_destination(url, NAMING)
    shown = without_secrets(url)
    assert "hunter2" not in shown
    assert "123456" not in shown
    assert refusal.value.url == shown
    if "retentions" not in url:
        assert "hunter2" not in str(refusal.value)


def test_no_secret_is_in_a_label():
    """What an option holds is not shown."""
    assert "123" not in open_destination("graphite://host?spool_bytes=123", NAMING).label


def test_without_whisper_the_reason_names_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """It is heard at set-up, not when the first interval ends."""
    monkeypatch.setitem(sys.modules, "whisper", None)
    with pytest.raises(InvalidDestination, match=r"pip install 'metricslib\[forwarder\]'"):
        open_destination("whisper:///dir", NAMING)
    open_destination("graphite://host", NAMING)


def documented() -> dict[str, list[tuple[str, str]]]:
    """Return for each option of the reference's table the schemes it is for, each with its default."""
    page = (ROOT / "docs/reference/destinations.md").read_text()
    rows = page.partition("\n## Options\n")[2].partition("|---|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        names, default, whose, _ = (cell.strip() for cell in row.strip("|").split("|", 3))
        transports = {"statsd": STATSD, "forwarder": FORWARDER}
        listed = [scheme for name in re.findall(r"[a-z+]+", whose) for scheme in transports.get(name, [name])]
        schemes = [scheme for scheme in SCHEMES if scheme in listed]
        if whose.startswith("all"):
            schemes = [scheme for scheme in SCHEMES if scheme not in schemes]
        for name in re.findall(r"`(\w+)`", names):
            found[name] = [(scheme, default) for scheme in schemes]
    return found


STATSD = [scheme for scheme in SCHEMES if scheme.startswith("statsd")]
FORWARDER = [scheme for scheme in SCHEMES if scheme.startswith("forwarder")]
DEFAULTS = {
    "timeout": "`5s`",
    "spool_bytes": f"`{Options().spool_bytes}`",
    "revise": "`on`",
    "replay": f"`{Options().replay:g}`",
    "max_line": f"`{LINE}`; graphite+udp `{DATAGRAM_LINE}`; statsd, forwarder and auto `{STATSD_LINE}`",
    "max_frame": f"`{FRAME}`",
    "keep": f"`{KEEP}`",
    "retentions": f"`{RETENTIONS}`",
    "ca": "the system's",
    "name": "the host",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_reference_has_every_option_of_a_destination_and_no_other(scheme: str):
    """With its default. What a URL takes is asked of the error for an option that there is not."""
    local = {"auto": "auto:", "console": "console:", "whisper": "whisper:d", "file": "file:f"}
    place = local.get(scheme, f"{scheme}:///path" if "unix" in scheme else f"{scheme}://host:1")
    with pytest.raises(InvalidDestination) as refusal:
        open_destination(f"{place}?zzzzzz=1", NAMING)
    known = set(refusal.value.reason.partition("known are ")[2].split(", "))
    table = documented()
    assert {option for option, schemes in table.items() if scheme in dict(schemes)} == known
    for option in known:
        assert dict(table[option])[scheme] == DEFAULTS.get(option, "none")
    assert Options().timeout == 5
    assert Options().revise
