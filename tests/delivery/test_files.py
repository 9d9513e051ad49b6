"""A file gets whole lines or none; the console gets Graphite's lines."""

import fcntl
import io
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.naming import Naming
from metricslib.window import Flush, Window

WINDOW = Window(1_700_000_000, 1_700_000_010, 10, counters={"a": 5}, gauges={"g": 1.5})
CUT = Flush(WINDOW, WINDOW)
NAMING = Naming(prefix="p")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond ``size``: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


def append(path: Path, payload: bytes, query: str = "") -> None:
    assert open_destination(f"file://{path}{query}", NAMING).deliver(payload, Deadline(5)) == {}


def test_a_window_is_one_line(path: Path):
    """With the prefix and the percentiles of the naming; its points are its series."""
    destination = open_destination(f"file://{path}", NAMING)
    (batch,) = destination.encode(CUT)
    assert (batch.points, batch.windows, batch.stamp) == (2, 1, 1_700_000_010)
    assert destination.deliver(batch.payload, Deadline(5)) == {}
    destination.close()
    assert json.loads(path.read_text())["counters"] == {"p.a": 5}


def test_a_window_without_series_is_no_line(path: Path):
    """Nothing to say."""
    empty = Window(0, 10, 10)
    assert open_destination(f"file://{path}", NAMING).encode(Flush(empty, empty)) == []


def test_lines_are_appended_and_the_file_is_not_for_everybody(path: Path):
    """What was there stays; others on the machine may not read it."""
    before = os.umask(0)
    try:
        append(path, b"1\n")
    finally:
        os.umask(before)
    append(path, b"2\n")
    assert path.read_bytes() == b"1\n2\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_moved_away_is_made_anew(path: Path):
    """So any tool may rotate it."""
    destination = open_destination(f"file://{path}", NAMING)
    destination.deliver(b"1\n", Deadline(5))
    path.rename(path.with_suffix(".old"))
    destination.deliver(b"2\n", Deadline(5))
    assert path.read_bytes() == b"2\n"


def test_a_full_disk_leaves_no_half_line(path: Path):
    """What fits of a line is taken back, and the whole line is tried again."""
    destination = open_destination(f"file://{path}", NAMING)
    destination.deliver(b"0123456789\n", Deadline(5))
    with disk_of(15), pytest.raises(Undelivered) as failure:
        destination.deliver(b"abcdefghij\n", Deadline(5))
    assert failure.value.remaining == b"abcdefghij\n"
    assert path.read_bytes() == b"0123456789\n"
    destination.deliver(b"abcdefghij\n", Deadline(5))
    assert path.read_bytes() == b"0123456789\nabcdefghij\n"


def test_what_a_crash_left_of_a_line_does_not_spoil_the_next(path: Path):
    """The next line begins on a line of its own."""
    path.write_bytes(b'{"half')
    append(path, b"whole\n")
    append(path, b"second\n")
    assert path.read_bytes() == b'{"half\nwhole\nsecond\n'


@pytest.mark.parametrize("name", ["folder", "absent/m.jsonl"])
def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, name: str):
    """A missing folder may be there next time; the reason names the path."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(Undelivered) as failure:
        open_destination(f"file://{tmp_path}/{name}", NAMING).deliver(b"line\n", Deadline(5))
    assert failure.value.remaining == b"line\n"
    assert f"{tmp_path}/{name}" in failure.value.reason


@pytest.mark.parametrize("query", ["", "?rotate=1MB"])
def test_a_pipe_that_nobody_reads_does_not_hang(path: Path, query: str):
    """Opening and writing return at once, whatever the path is; what is no file is never moved aside."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        append(path, b"line\n", query)
        assert os.read(reader, 100) == b"line\n"
        for _ in range(fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ) // 4096):
            append(path, b"x" * 4095 + b"\n", query)
        with pytest.raises(Undelivered):
            append(path, b"x" * 4095 + b"\n", query)
    finally:
        os.close(reader)


@pytest.mark.parametrize("query", ["", "?rotate=1MB"])
def test_a_pipe_without_a_reader_is_not_delivered_to(path: Path, query: str):
    """What is written there would be gone with the next who opens and closes it; the line waits for a reader."""
    os.mkfifo(path)
    destination = open_destination(f"file://{path}{query}", NAMING)
    with pytest.raises(Undelivered, match="is a pipe without a reader") as failure:
        destination.deliver(b"line\n", Deadline(5))
    assert failure.value.remaining == b"line\n"
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert destination.deliver(b"line\n", Deadline(5)) == {}
        assert os.read(reader, 100) == b"line\n"
    finally:
        os.close(reader)


# -- the console


def test_the_console_shows_graphites_lines(capsys: pytest.CaptureFixture[str]):
    """On what is standard output at that moment."""
    destination = open_destination("console:", NAMING)
    for batch in destination.encode(CUT):
        assert destination.deliver(batch.payload, Deadline(5)) == {}
    destination.close()
    assert capsys.readouterr().out.splitlines() == [
        "stats.counters.p.a.rate 0.5 1700000010",
        "stats.counters.p.a.count 5 1700000010",
        "stats.gauges.p.g 1.5 1700000010",
    ]


def test_the_console_may_be_any_stream():
    """It is passed in where the destination is opened."""
    stream = io.StringIO()
    open_destination("console:", NAMING, console=stream).deliver(b"a 1 10\n", Deadline(5))
    assert stream.getvalue() == "a 1 10\n"


def test_a_console_that_is_gone_is_a_failure_like_any_other(monkeypatch: pytest.MonkeyPatch):
    """Closed, or not there at all, as under a service manager."""
    stream = io.StringIO()
    stream.close()
    with pytest.raises(Undelivered) as failure:
        open_destination("console:", NAMING, console=stream).deliver(b"a 1 10\n", Deadline(5))
    assert failure.value.remaining == b"a 1 10\n"
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(Undelivered):
        open_destination("console:", NAMING).deliver(b"a 1 10\n", Deadline(5))
