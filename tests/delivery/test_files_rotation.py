"""A file is moved aside when it is large, and no line is lost or doubled: by processes, crashes, or other tools."""

import fcntl
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from metricslib.delivery import Deadline, Undelivered, open_destination
from metricslib.delivery import files as file_module
from metricslib.delivery.files import _STREAM, Rotation
from metricslib.errors import InvalidDestination
from metricslib.naming import Naming
from tests.peers import ROOT

NAMING = Naming()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


@pytest.fixture
def append(path: Path) -> Callable[..., None]:
    """Call with lines to append, three bytes each as a rule; a file holds six."""

    def append(*lines: bytes, query: str = "rotate=6&keep=3", seconds: float = 20) -> None:
        destination = open_destination(f"file://{path}?{query}", NAMING)
        for line in lines:
            assert destination.deliver(line, Deadline(seconds)) == {}

    return append


def files(path: Path) -> dict[str, bytes]:
    """What is in each file, by what its name has behind the path's."""
    return {one.name.removeprefix(path.name): one.read_bytes() for one in path.parent.iterdir()}


def lines(path: Path) -> list[bytes]:
    """All lines, oldest first."""
    by_number = {int(suffix[1:] or 0): text for suffix, text in files(path).items()}
    return b"".join(text for _, text in sorted(by_number.items(), reverse=True)).splitlines()


def test_a_file_that_would_grow_too_large_is_moved_aside(path: Path, append):
    """Before the line that would not fit; the newest has number 1, and the oldest goes."""
    append(b"01\n", b"02\n", b"03\n")
    assert files(path) == {"": b"03\n", ".1": b"01\n02\n"}
    append(b"04\n", b"05\n", b"06\n", b"07\n")
    assert files(path) == {"": b"07\n", ".1": b"05\n06\n", ".2": b"03\n04\n", ".3": b"01\n02\n"}
    append(b"08\n", b"09\n")
    assert files(path) == {"": b"09\n", ".1": b"07\n08\n", ".2": b"05\n06\n", ".3": b"03\n04\n"}
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} <= {0o640, 0o600}


def test_a_line_longer_than_a_file_has_one_of_its_own(path: Path, append):
    """It is not lost, and not cut."""
    append(b"01\n", b"longer than a file\n", b"02\n")
    assert files(path) == {"": b"02\n", ".1": b"longer than a file\n", ".2": b"01\n"}


def test_without_a_size_a_file_grows(path: Path, append):
    """As before there were options."""
    append(b"01\n", b"02\n", b"03\n", query="timeout=5s")
    assert files(path) == {"": b"01\n02\n03\n"}


@pytest.mark.parametrize("step", range(4))
def test_a_crash_between_two_steps_costs_nothing(path: Path, append, monkeypatch: pytest.MonkeyPatch, step: int):
    """What was moved stays moved, and the next rotation goes on where a number is free."""
    append(*(b"%02d\n" % number for number in range(8)), query="rotate=6&keep=4")
    count = itertools.count()
    replace = os.replace

    def crash(*names: str) -> None:
        if next(count) == step:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        append(b"08\n", query="rotate=6&keep=4")
    monkeypatch.undo()
    append(b"08\n", b"09\n", query="rotate=6&keep=4")
    assert lines(path) == [b"%02d" % number for number in range(10)]


@pytest.mark.parametrize("query", ["rotate=6", "timeout=5s"])
def test_a_line_that_is_there_already_is_not_written_again(path: Path, append, query: str):
    """A process that died before it could note that the line was written is followed by one that writes it again."""
    append(b"01\n", b"02\n", query=query)
    append(b"02\n", b"2\n", query=query)
    assert lines(path) == [b"01", b"02", b"2"]


def test_what_a_crash_left_of_a_line_does_not_spoil_the_next(path: Path, append):
    """Also where the size is looked at."""
    path.write_bytes(b"0")
    append(b"01\n", query="rotate=1kB")
    assert path.read_bytes() == b"0\n01\n"


def test_a_file_that_was_moved_away_is_made_anew(path: Path, append, tmp_path: Path):
    """logrotate and this rotation do not disturb each other."""
    append(b"01\n", b"02\n")
    path.rename(tmp_path / "m.jsonl.1")
    append(b"03\n", b"04\n", b"05\n")
    assert files(path) == {"": b"05\n", ".1": b"03\n04\n", ".2": b"01\n02\n"}


@pytest.mark.parametrize("target", ["there", "absent"])
@pytest.mark.parametrize("query", ["", "?rotate=4"])
def test_a_link_is_not_followed(path: Path, tmp_path: Path, target: str, query: str):
    """Others could have put it there, and lead to any file that this process may write; the line waits."""
    (tmp_path / "there").write_bytes(b"precious\n")
    path.symlink_to(tmp_path / target)
    with pytest.raises(Undelivered, match="is a symbolic link, which is not followed") as failure:
        open_destination(f"file://{path}{query}", NAMING).deliver(b"01\n", Deadline(20))
    assert failure.value.remaining == b"01\n"
    assert (tmp_path / "there").read_bytes() == b"precious\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "there"]


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
@pytest.mark.parametrize("query", ["", "?rotate=4"])
def test_what_is_open_already_is_appended_to_and_never_moved(path: Path, name: str, query: str):
    """As ``/dev/stdout`` in a container: where it leads is another's file."""
    with path.open("wb") as stream:
        destination = open_destination("file://" + name.format(stream.fileno()) + query, NAMING)
        for line in (b"01\n", b"02\n", b"03\n"):
            destination.deliver(line, Deadline(20))
    assert files(path) == {"": b"01\n02\n03\n"}


@pytest.mark.parametrize("name", ["/dev/shm/m.jsonl", "/dev/../tmp/m.jsonl", "/proc/self/fd/../x"])
def test_only_the_systems_own_links_are_followed(name: str):
    """Everybody can write to ``/dev/shm``."""
    assert not _STREAM.fullmatch(name)


def test_where_nothing_can_be_moved_the_line_waits(path: Path, append, tmp_path: Path):
    """The file does not grow beyond its size in silence."""
    (tmp_path / "m.jsonl.3").mkdir()
    append(*(b"%02d\n" % number for number in range(6)))
    with pytest.raises(Undelivered) as failure:
        append(b"06\n")
    assert failure.value.remaining == b"06\n"
    assert str(path) in failure.value.reason
    (tmp_path / "m.jsonl.3").rmdir()
    append(b"06\n")
    assert lines(path) == [b"%02d" % number for number in range(7)]


# -- several processes


def test_a_lock_is_waited_for_until_the_deadline(path: Path, append):
    """One that is held for ever costs nothing but the time of an attempt."""
    append(b"01\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Undelivered, match="another process has locked it"):
            append(b"02\n", seconds=0.05)
        threading.Timer(0.1, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        append(b"02\n")
    assert lines(path) == [b"01", b"02"]


def test_whoever_waited_for_a_file_that_was_moved_opens_the_new_one(
    path: Path, append, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It must not append to what another process has moved aside."""
    waits, sleep = threading.Event(), time.sleep

    def wait(seconds: float) -> None:
        waits.set()
        sleep(seconds)

    append(b"01\n", b"02\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", wait)
        waiting = threading.Thread(target=append, args=(b"3\n",))
        waiting.start()
        assert waits.wait(20)
        path.rename(tmp_path / "m.jsonl.1")
        path.write_bytes(b"")
    waiting.join(20)
    assert files(path) == {"": b"3\n", ".1": b"01\n02\n"}


def test_a_child_forked_in_the_middle_holds_no_lock(path: Path, append, monkeypatch: pytest.MonkeyPatch):
    """It has the descriptor, too, but the lock is given back for both."""
    kept: list[int] = []
    write = file_module._append

    def forks(opened: int, line: bytes) -> None:
        kept.append(os.dup(opened))  # what a fork does
        write(opened, line)

    monkeypatch.setattr(file_module, "_append", forks)
    append(b"01\n")
    append(b"02\n", seconds=0.1)
    for descriptor in kept:
        os.close(descriptor)
    assert lines(path) == [b"01", b"02"]


WRITER = """
import sys
from metricslib.delivery import Deadline, open_destination
from metricslib.naming import Naming

path, name, first = sys.argv[1:]
destination = open_destination(f"file://{path}?rotate=200&keep=1000", Naming())
for number, _ in enumerate(sys.stdin, int(first)):
    destination.deliver(f"{name} {number}\\n".encode(), Deadline(60))
    print(number, flush=True)
"""
MANY = 300


def write(path: Path, name: str, first: int = 0) -> tuple["subprocess.Popen[str]", IO[str]]:
    """Begin to write many lines; return the process, and where it notes the number of each line written."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(first)]
    writer = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer.stdin as orders:
        orders.write("\n" * MANY)
    return writer, writer.stdout


def numbered(name: bytes, count: int) -> list[bytes]:
    return [b"%b %d" % (name, number) for number in range(count)]


def test_processes_that_share_a_file_lose_and_double_nothing(path: Path):
    """Each line is in one of the files, once, and each process' lines are in their order."""
    writers = [write(path, name) for name in "abc"]
    for writer, notes in writers:
        assert notes.read().count("\n") == MANY
        assert writer.wait(60) == 0
        notes.close()
    found = lines(path)
    assert len(found) == 3 * MANY
    for name in (b"a", b"b", b"c"):
        assert [line for line in found if line.startswith(name)] == numbered(name, MANY)
    assert max(map(len, files(path).values())) <= 200


def test_a_process_that_is_killed_loses_and_doubles_nothing(path: Path):
    """Killed at any moment, again and again, it goes on with the line of which it does not know the fate."""
    first = 0
    for after in (3, 50, 7, 31, 1, MANY):
        writer, notes = write(path, "a", first)
        noted = [notes.readline() for _ in range(after)]
        writer.kill()
        with notes:
            noted += notes.readlines()
        writer.wait(60)
        first = int([line for line in noted if line.endswith("\n")][-1]) + 1
    assert lines(path) == numbered(b"a", first)


# -- what a URL says


@pytest.mark.parametrize(
    ("size", "keep", "means"),
    [
        ("1", "1", Rotation(1, 1)),
        ("500B", "5", Rotation(500, 5)),
        ("100MB", "5", Rotation(100_000_000, 5)),
        ("10kb", "1000", Rotation(10_000, 1000)),
        ("2KiB", "5", Rotation(2048, 5)),
        ("1GiB", "5", Rotation(1 << 30, 5)),
    ],
)
def test_sizes_have_units(size: str, keep: str, means: Rotation):
    """Powers of 1000, with an i of 1024."""
    assert Rotation.parse(size, keep) == means


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("rotate=", "rotate must be a number of bytes above 0, such as 67108864 or 64MiB"),
        ("rotate=0", "rotate must be a number of bytes above 0"),
        ("rotate=0MB", "rotate must be a number of bytes above 0"),
        ("rotate=100M", "rotate must be a number of bytes above 0"),
        ("rotate=-1", "rotate must be a number of bytes above 0"),
        ("rotate=1.5GB", "rotate must be a number of bytes above 0"),
        ("rotate=10iB", "rotate must be a number of bytes above 0"),
        ("rotate=1MB&keep=0", "keep must be a whole number from 1 to 1000"),
        ("rotate=1MB&keep=1001", "keep must be a whole number"),
        ("rotate=1MB&keep=", "keep must be a whole number"),
        ("keep=5", "keep needs rotate"),
        ("rotat=5", "did you mean rotate"),
    ],
)
def test_what_means_nothing_is_refused(query: str, reason: str):
    """At set-up, with what to write instead."""
    with pytest.raises(InvalidDestination, match=reason):
        open_destination(f"file:///m.jsonl?{query}", NAMING)
