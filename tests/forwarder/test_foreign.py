"""What is not meant for us, and what of it may be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.foreign import is_foreign, redacted
from forwarder.listeners.framing import Lines
from forwarder.listeners.stream import Connection
from forwarder.stats import BadLines
from metricslib.testing import ManualClock

FOREIGN = [
    b"GET / HTTP/1.1",
    b"POST / HTTP/1.0\r",
    b"OPTIONS * HTTP/1.1\r",
    b"CONNECT host:443 HTTP/1.1\r",
    b"GET http://host/a b HTTP/1.1\r",
    b"PRI * HTTP/2.0\r",
    b"POST /" + b"x" * 9000,
    b"\x16\x03\x01",
    b"a\x00:1|c",
    b"\x1b[A",
]
LINES = [b"", b"\r", b"a:1|c", b"a\t:1|c\r", b"GET /index:1|c", b"GET / HTTP:1|c", b"get / http/1.1", b"\xff\x80:1|c"]


@pytest.mark.parametrize("line", FOREIGN)
def test_other_protocols_are_known(line):
    assert is_foreign(line, whole=True)


@pytest.mark.parametrize("line", LINES)
def test_lines_are_lines(line):
    assert not is_foreign(line, whole=True)


@given(st.sampled_from(FOREIGN + LINES), st.lists(st.integers(0, 40)), st.booleans())
def test_chunking_never_matters(line, cuts, ended):
    """A connection is judged by its first line, however it comes; what comes behind it does not matter."""
    data = line if ended else line + b"\n\x00GET / HTTP/1.1\n"
    connection = Connection(None, Lines(), checked=True)
    foreign, start = False, 0
    for end in (*sorted(cuts), len(data)):
        foreign = foreign or connection.is_foreign(data[start:end])
        start = max(start, end)
    assert (foreign or connection.is_foreign(b"", ended=True)) == is_foreign(line, whole=True)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Cookie: session=secret", "Cookie: (redacted)"),
        ("cookie:session=secret", "cookie:(redacted)"),
        ("Authorization:Bearer secret", "Authorization:(redacted)"),
        ("X-Api-Key:\tsecret", "X-Api-Key:\t(redacted)"),
        ("GET /?token=secret HTTP/1.1", "GET (redacted)"),
        ("POST https://host/secret", "POST (redacted)"),
        ("a:b|c", "a:b|c"),
        ("a.b: 1|c", "a.b: 1|c"),
        ("a b:x|c", "a b:x|c"),
        ("", ""),
    ],
)
def test_what_looks_like_http_is_redacted(line, shown):
    assert redacted(line) == shown


def test_bad_lines_are_redacted_on_the_page_and_in_the_log(caplog):
    bad = BadLines(ManualClock())
    bad.add("Cookie: session=secret\r", "no value", 1)
    bad.report()
    assert [line.text for line in bad.recent()] == ["Cookie: (redacted)"]
    assert "secret" not in caplog.text
    assert "Cookie: (redacted)" in caplog.text
