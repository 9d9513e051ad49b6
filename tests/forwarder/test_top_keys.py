"""The busiest keys: counted by series, in intervals, told in a file, in the log and on the page."""

import logging
import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import top_keys as module
from forwarder.top_keys import Counted, KeyFlush, TopKeys
from metricslib.testing import ManualClock
from tests.peers import eventually


def top(*chunks):
    top_keys = TopKeys()
    top_keys.feed([chunk if isinstance(chunk, bytes) else chunk.encode() for chunk in chunks])
    return {entry.key: entry.estimate for entry in top_keys.end_interval()}


def test_lines_are_counted_by_series():
    """Whatever their types and values, however many of these; in datagrams and blocks alike."""
    assert top("a:1|c\nb:1|c\na:2:3|ms\n", "a:x|s", "b:5|g\n\n") == {"a": 3, "b": 2}


def test_a_key_is_that_of_the_series():
    """Tags in any order and in either way of writing are one key."""
    assert top("web/hits:1|c|#b:2,a:1", "web-hits;a=1;b=2:1|c", "web-hits:1|c|@0.5|#a:1,b:2|c:x") == {
        "web-hits;a=1;b=2": 3
    }


def test_bad_lines_count_and_what_has_no_key_does_not():
    """Somebody who sends nonsense is to be found, too."""
    assert top("nonsense", "a:1|zz", "_e{1,1}:a|b", "_sc|up|0", "\r\n", "a:1|c\r") == {"nonsense": 1, "a": 2}


def test_an_interval_ends():
    """What came before is not counted again."""
    top_keys = TopKeys()
    top_keys.feed([b"a:1|c"])
    assert top_keys.end_interval() == [Counted("a", 1, 0)]
    top_keys.feed([b"b:1|c"])
    assert top_keys.end_interval() == [Counted("b", 1, 0)]
    assert top_keys.end_interval() == []


def test_the_section_shows_the_last_whole_interval():
    """Until there is one, the first as far as it is; never more than a few."""
    top_keys = TopKeys()
    assert top_keys.section() == []
    top_keys.feed([b"a:1|c", b"a:1|c", b"b:1|c", b"c:1|c"])
    row = {"Key": "a", "Lines": 2, "Too many by at most": 0, "Percent": 50}
    assert top_keys.section()[0] == row
    top_keys.end_interval()
    top_keys.feed([f"k{number}:1|c".encode() for number in range(100)])
    assert top_keys.section()[0] == row
    top_keys.end_interval()
    assert len(top_keys.section()) == 20


def test_memory_is_bounded_whatever_comes():
    """Neither the number of keys nor their length goes beyond what is known beforehand."""
    top_keys = TopKeys(10)
    for number in range(100):
        top_keys.feed([b"x" * 60_000 + b"%d:1|c" % number, b"%d:1|c" % number])
    found = top_keys.end_interval()
    assert len(found) == 10
    assert max(len(entry.key) for entry in found) <= 4096
    assert module._remembered.cache_info().maxsize == 1 << 14


@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_taken(chunks):
    """Nothing raises, and what was counted is shown."""
    top_keys = TopKeys()
    top_keys.feed(chunks)
    assert sum(row["Lines"] for row in top_keys.section()) <= sum(chunk.count(b"\n") + 1 for chunk in chunks)


def test_threads_feed_together():
    """No line is lost between them."""
    top_keys = TopKeys()

    def feed():
        for _ in range(200):
            top_keys.feed([b"a:1|c\nb:1|c"] * 10)

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert top_keys.end_interval() == [Counted("a", 8000, 0), Counted("b", 8000, 0)]


# -- reports


@pytest.fixture
def busy():
    top_keys = TopKeys(4)
    for number, key in enumerate("abcd"):
        top_keys.feed([f"{key}:1|c".encode()] * (10 - number))
    return top_keys


def test_a_file_gets_what_statsd_writes(busy, tmp_path):
    """Time, count and key, and the error where there is one; reports follow each other."""
    file = tmp_path / "keys.log"
    flush = KeyFlush(busy, 60, 100, str(file), clock=ManualClock())
    flush.report()
    for key in "vwxyz":
        busy.feed([f"{key}:1|c".encode()])
    flush.report()
    moment = "2023-11-15T00:00:00Z"
    assert file.read_text().splitlines() == [
        *(f"{moment} count={10 - number} key={key}" for number, key in enumerate("abcd")),
        f"{moment} count=2 key=z error=1",
        *(f"{moment} count=1 key={key}" for key in "wxy"),
    ]


@pytest.mark.parametrize(("percent", "keys"), [(100, 4), (75, 3), (51, 3), (50, 2), (1, 1)])
def test_a_report_has_a_percentage_of_the_keys(busy, tmp_path, percent, keys):
    """Rounded up, as in statsd."""
    KeyFlush(busy, 60, percent, str(tmp_path / "f")).report()
    assert len((tmp_path / "f").read_text().splitlines()) == keys


def test_without_a_file_the_log_has_it(busy, caplog):
    """A record a key."""
    caplog.set_level(logging.INFO, "forwarder")
    KeyFlush(busy, 60, 25).report()
    assert caplog.messages == ["busiest keys: count=10 key=a"]


def test_a_file_that_cannot_be_written_is_logged_once(busy, tmp_path, caplog):
    """Until it can be written again."""
    flush = KeyFlush(busy, 60, 100, str(tmp_path / "no" / "f"))
    for _ in range(3):
        busy.feed([b"a:1|c"])
        flush.report()
    assert caplog.messages == [f"the busiest keys cannot be written to {tmp_path}/no/f: No such file or directory"]


def test_nothing_is_told_of_nothing(tmp_path):
    """An interval without lines leaves no file behind."""
    KeyFlush(TopKeys(), 60, 100, str(tmp_path / "f")).report()
    assert not (tmp_path / "f").exists()


def test_the_file_is_not_for_everybody_and_no_link_is_followed(tmp_path, caplog):
    """Keys may tell much, and others could have a link lead to any file of ours."""
    top_keys = TopKeys()
    (tmp_path / "link").symlink_to(tmp_path / "planted")
    before = os.umask(0)
    try:
        for name in ("keys.log", "link"):
            top_keys.feed([b"a:1|c"])
            KeyFlush(top_keys, 10, 100, str(tmp_path / name)).report()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys.log").stat().st_mode) == 0o640
    assert not (tmp_path / "planted").exists()
    assert "is a symbolic link, which is not followed" in caplog.text


def test_reports_come_at_the_interval(tmp_path, caplog):
    """From a thread that survives errors, until it is stopped."""
    top_keys = TopKeys()
    flush = KeyFlush(top_keys, 0.01, 100, str(tmp_path / "f"))
    broken = iter([RuntimeError("broken")])
    end = top_keys.end_interval

    def end_or_break():
        for error in broken:
            raise error
        return end()

    top_keys.end_interval = end_or_break
    flush.start()
    for _ in range(2):
        size = (tmp_path / "f").stat().st_size if (tmp_path / "f").exists() else 0
        top_keys.feed([b"a:1|c"])
        eventually(lambda size=size: (tmp_path / "f").exists() and (tmp_path / "f").stat().st_size > size)
    flush.stop()
    assert "could not be reported" in caplog.text
    assert not flush._thread.is_alive()


def test_a_flush_that_never_began_can_be_stopped():
    """Stopping is no error at any moment."""
    KeyFlush(TopKeys(), 60).stop()
