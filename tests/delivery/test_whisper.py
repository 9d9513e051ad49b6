"""Values can be read back from the files by whisper itself, and the files lie where carbon puts them."""

import errno
import importlib
import logging
import os
import socket
import sys
import warnings
from pathlib import Path

import pytest
import whisper
from hypothesis import given
from hypothesis import strategies as st

from metricslib.delivery import Deadline, Destination, Undelivered, open_destination
from metricslib.delivery.whisper import aggregation, parse_retentions, relative_path
from metricslib.naming import Naming
from metricslib.testing import ManualClock
from metricslib.window import Flush, Window

NOW = 1_700_006_400
NAMING = Naming(prefix="p")


@pytest.fixture(scope="module")
def carbon_util():
    """carbon's own module; without it the test is skipped, but fails where CI=true."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("carbon.util")
    except ImportError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no carbon: {error}")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def destination(tmp_path: Path, clock: ManualClock) -> Destination:
    return open_destination(f"whisper://{tmp_path}/tree?retentions=10s:1h,1m:1d", NAMING, clock=clock)


def deliver(destination: Destination, *lines: str) -> dict[str, int]:
    return dict(destination.deliver("".join(f"{line}\n" for line in lines).encode(), Deadline(20)))


def values(tmp_path: Path, file: str, start: int, end: int, step: int = 10) -> list[float | None]:
    """Return the values of the slots from ``start`` on and before ``end``, as whisper reads them."""
    (first, last, found), read = whisper.fetch(
        str(tmp_path / "tree" / file), start - step, end - step, now=NOW, archiveToSelect=step
    )
    assert (first, last, found) == (start, end, step)
    return list(read)


def files(tmp_path: Path) -> list[str]:
    return sorted(str(file.relative_to(tmp_path / "tree")) for file in (tmp_path / "tree").rglob("*") if file.is_file())


def test_a_window_can_be_read_back(tmp_path: Path, destination: Destination):
    """Every value of two windows is in a file of its path, at the slot of its stamp."""
    for number in (1, 2):
        stamp = NOW - 30 + 10 * number
        window = Window(stamp - 10, stamp, 10, counters={"a": 5 * number}, gauges={"g;k=v": -1.5 * number})
        for batch in destination.encode(Flush(window, window)):
            assert destination.deliver(batch.payload, Deadline(20)) == {}
    destination.close()
    assert values(tmp_path, "stats/counters/p/a/count.wsp", NOW - 20, NOW) == [5, 10]
    assert values(tmp_path, "stats/counters/p/a/rate.wsp", NOW - 20, NOW) == [0.5, 1]
    (tagged,) = [file for file in files(tmp_path) if file.startswith("_tagged")]
    assert values(tmp_path, tagged, NOW - 20, NOW) == [-1.5, -3]


def test_sending_again_changes_nothing_and_a_later_value_wins(tmp_path: Path, destination: Destination):
    """As a slot does in Graphite."""
    for line in ("a.b 1", "a.b 1", "a.b 2"):
        assert deliver(destination, f"{line} {NOW - 10}") == {}
    assert values(tmp_path, "a/b.wsp", NOW - 10, NOW) == [2]


def test_points_of_any_order_and_of_the_near_future_are_written(tmp_path: Path, destination: Destination):
    """A slot is stamped with its end, which may lie ahead; and relayed points come as they come."""
    lost = deliver(destination, f"a.b 3 {NOW - 10}", f"a.b 1 {NOW - 30}", f"a.b 4 {NOW + 10}", f"a.b 2 {NOW - 20}")
    assert lost == {}
    whole = whisper.fetch(str(tmp_path / "tree/a/b.wsp"), NOW - 40, NOW + 10, now=NOW + 20)[1]
    assert [value for value in whole if value is not None] == [1, 2, 3, 4]


def test_old_values_are_rolled_up_by_what_they_are(tmp_path: Path, destination: Destination):
    """A minute of a counter is the sum, of an upper bound the largest; one value of six is enough."""
    start = NOW - 1200
    slots = range(start, start + 60, 10)
    rows = [f"x.{name} {place} {stamp}" for place, stamp in enumerate(slots) for name in ("count", "upper", "mean")]
    assert deliver(destination, *rows, f"y.count 7 {start}") == {}
    for name, rolled in (("x/count", 15), ("x/upper", 5), ("x/mean", 2.5), ("y/count", 7)):
        assert values(tmp_path, f"{name}.wsp", start, start + 60, step=60) == [rolled]


def test_retentions_are_those_of_the_url(tmp_path: Path, destination: Destination):
    """The archives, no minimum share of known values, and files that take disk only where they are written."""
    deliver(destination, f"a.count 1 {NOW}")
    info = whisper.info(str(tmp_path / "tree/a/count.wsp"))
    assert [(archive["secondsPerPoint"], archive["points"]) for archive in info["archives"]] == [(10, 360), (60, 1440)]
    assert (info["xFilesFactor"], info["aggregationMethod"]) == (0, "sum")
    assert parse_retentions("10s:1d,1m:30d,10m:1y") == [(10, 8640), (60, 43200), (600, 52560)]


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "a/../../b",
        "/etc/passwd",
        "a/b",
        "..",
        "a.",
        ".",
        "a\0b",
        "a;k",
        "a;=v",
        "a;k=",
        "a;k=~v",
        "a;k!=v",
        "a;;k=v",
        ";k=v",
        "~;k=v",
    ],
)
def test_no_path_leaves_the_directory(tmp_path: Path, destination: Destination, path: str):
    """What names no file is dropped and counted; what comes with it is written, and nothing else is on the disk."""
    assert relative_path(path) is None
    before = set(tmp_path.parent.iterdir())
    assert deliver(destination, f"{path} 1 {NOW}", f"good 1 {NOW}") == {"bad_path": 1}
    assert files(tmp_path) == ["good.wsp"]
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("path", ["x" * 252, "a." + "é" * 126, ".".join(["y" * 200] * 21), ".".join(["z"] * 2048)])
def test_a_path_that_is_too_long_for_a_file_costs_only_its_own_points(
    tmp_path: Path, destination: Destination, path: str
):
    """A name of more than 255 bytes, with its ending, or a whole path of more than 4,095; nothing is left of a try."""
    assert deliver(destination, f"{path} 1 {NOW}", f"good 1 {NOW}") == {"too_long": 1}
    assert files(tmp_path) == ["good.wsp"]


def test_the_longest_names_and_paths_are_written(tmp_path: Path, destination: Destination):
    """What fits is not dropped."""
    room = 4095 - len(str(tmp_path / "tree")) - len("/.wsp")
    folders = room // 101 - 1
    longest = ".".join(["y" * 100] * folders + ["z" * (room - 101 * folders)])
    assert deliver(destination, f"{'x' * 251} 1 {NOW}", f"{longest} 1 {NOW}", f"{longest}z 1 {NOW}") == {"too_long": 1}
    assert len(files(tmp_path)) == 2


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_path_is_below_the_directory_or_nowhere(path: str):
    """Whatever characters it holds."""
    relative = relative_path(path)
    if relative is not None:
        assert os.path.normpath(relative) == relative
        assert not relative.startswith(("/", ".."))
        assert relative.endswith(".wsp")


NAMES = st.text("abz09_-.", min_size=1, max_size=8)
VALUES = st.text("abz09_-.=/~", min_size=1, max_size=300).filter(lambda value: not value.startswith("~"))


@given(NAMES, st.dictionaries(NAMES | st.sampled_from(["a", "a1", "a-b", "name"]), VALUES, max_size=4), st.randoms())
def test_files_lie_where_carbon_puts_them(carbon_util, name: str, tags: dict[str, str], random):
    """By carbon's own code: parsed, put in order, joined or hashed. Tags come in any order, and may be long."""
    pieces = [f"{key}={value}" for key, value in tags.items()]
    random.shuffle(pieces)
    path = ";".join([name, *pieces])
    relative = relative_path(path)
    tagged = carbon_util.TaggedSeries
    carbons = os.path.normpath(tagged.encode(tagged.parse(path).path, os.sep, hash_only=True) + ".wsp")
    if relative is None:  # carbon's file is hidden then, as .wsp in a folder
        assert tags.keys() <= {"name"}
        assert os.path.basename(carbons) == ".wsp"
    else:
        assert relative == carbons


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("stats.counters.a.count", "sum"),
        ("stats.counters.a.rate", "average"),
        ("stats.timers.a.count_ps", "average"),
        ("stats.timers.a.count_99_9", "sum"),
        ("stats.timers.a.count_top10", "sum"),
        ("stats.timers.a.sum", "sum"),
        ("stats.timers.a.sum_90", "sum"),
        ("stats.timers.a.sum_squares", "sum"),
        ("stats.timers.a.sum_squares_90;k=v", "sum"),
        ("stats.timers.a.upper", "max"),
        ("stats.timers.a.upper_90", "max"),
        ("stats.timers.a.lower_top10", "min"),
        ("stats.timers.a.mean_90", "average"),
        ("stats.timers.a.histogram.bin_inf", "sum"),
        ("stats.timers.a.histogram.bin_0_5", "sum"),
        ("stats.gauges.queue.count", "last"),
        ("stats.gauges.depth;k=count", "last"),
        ("stats.sets.users.count", "max"),
        ("servers.web1.load", "average"),
    ],
)
def test_how_a_value_is_rolled_up_follows_from_its_path(path: str, method: str):
    """Counts and sums add up, extremes stay extremes, a gauge is its last value."""
    assert aggregation(path, Naming()) == method


def test_rolling_up_follows_the_naming():
    """The legacy namespace, another namespace, and a suffix behind every name."""
    assert aggregation("stats_counts.a", Naming(legacy=True)) == "sum"
    assert aggregation("stats.gauges.a", Naming(legacy=True, gauges="g")) == "last"
    assert aggregation("my.g.a.count", Naming(namespace="my", gauges="g")) == "last"
    assert aggregation("stats.timers.a.upper.web1;k=v", Naming(suffix="web1")) == "max"


def test_what_no_file_can_hold_is_counted_by_cause(tmp_path: Path, destination: Destination):
    """Points older than the coarsest archive, stamps the format has no room for, lines that are none."""
    lost = deliver(
        destination,
        f"a 1 {NOW - 86_400 - 1}",
        "a 1 0",
        "a 1 -5",
        "a 1 4294967296",
        "a nonsense 5",
        f"a nan {NOW}",
        f"b 1 {NOW - 86_400 + 60}",
    )
    assert lost == {"too_old": 1, "bad_stamp": 3, "bad_line": 2}
    assert files(tmp_path) == ["b.wsp"]


def test_a_damaged_file_costs_only_its_own_points(tmp_path: Path, destination: Destination):
    """It is left as it is, for somebody to look at."""
    folder = tmp_path / "tree/a"
    folder.mkdir(parents=True)
    (folder / "bad.wsp").write_bytes(b"no whisper file")
    assert deliver(destination, f"a.bad 1 {NOW}", f"a.bad 2 {NOW}", f"a.good 1 {NOW}") == {"bad_file": 2}
    assert (folder / "bad.wsp").read_bytes() == b"no whisper file"
    assert (folder / "good.wsp").exists()


def test_a_file_that_cannot_be_opened_costs_only_its_own_points(
    tmp_path: Path, destination: Destination, caplog: pytest.LogCaptureFixture
):
    """The others are written, and the log names it once. Here a socket is in its place; a file of another user's is the
    same.
    """
    folder = tmp_path / "tree/a"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as taken, caplog.at_level(logging.WARNING, "metricslib"):
        taken.bind(str(folder / "bad.wsp"))
        for stamp in (NOW - 10, NOW):
            rows = (f"a.bad 1 {stamp}", f"a.bad 2 {stamp}", f"a.good 1 {stamp}", f"b 1 {stamp}")
            assert deliver(destination, *rows) == {"bad_file": 2}
    assert values(tmp_path, "a/good.wsp", NOW - 10, NOW + 10) == values(tmp_path, "b.wsp", NOW - 10, NOW + 10) == [1, 1]
    (record,) = caplog.records
    assert f"{folder}/bad.wsp: No such device or address" in record.getMessage()


def test_the_log_names_no_more_than_a_hundred_files(
    tmp_path: Path, destination: Destination, caplog: pytest.LogCaptureFixture
):
    """A tree of damaged files is counted, and does not fill the log."""
    (tmp_path / "tree").mkdir()
    for number in range(120):
        (tmp_path / f"tree/bad{number}.wsp").write_bytes(b"no whisper file")
    with caplog.at_level(logging.WARNING, "metricslib"):
        assert deliver(destination, *(f"bad{number} 1 {NOW}" for number in range(120))) == {"bad_file": 120}
    assert len(caplog.records) == 100


def test_points_older_than_the_file_reaches_are_dropped_and_counted(tmp_path: Path, destination: Destination):
    """An existing file keeps its own archives; whisper drops such points without a word."""
    (tmp_path / "tree").mkdir()
    whisper.create(str(tmp_path / "tree/short.wsp"), [(10, 6)])
    rows = [f"short {age} {NOW - age}" for age in (100, 70, 60, 10)]
    assert deliver(destination, *rows, f"short 100 {NOW - 100}", f"long 100 {NOW - 100}") == {"too_old": 3}
    assert [value for value in values(tmp_path, "short.wsp", NOW - 50, NOW) if value is not None] == [10]


def test_of_two_values_of_a_slot_in_a_batch_the_last_stays(tmp_path: Path, destination: Destination):
    """As if they had come one after the other, and as in carbon."""
    assert deliver(destination, f"a 1 {NOW}", f"a 2 {NOW}", f"b 2 {NOW}", f"b 1 {NOW}") == {}
    assert values(tmp_path, "a.wsp", NOW, NOW + 10) + values(tmp_path, "b.wsp", NOW, NOW + 10) == [2, 1]


def test_a_path_that_is_taken_costs_only_its_own_points(tmp_path: Path, destination: Destination):
    """A folder in the place of the file, or a file in the place of a folder."""
    (tmp_path / "tree/a.wsp").mkdir(parents=True)
    (tmp_path / "tree/b").write_text("")
    assert deliver(destination, f"a 1 {NOW}", f"b.c 1 {NOW}", f"good 1 {NOW}") == {"bad_path": 2}


def test_what_a_full_disk_does_not_take_remains(tmp_path: Path, destination: Destination, monkeypatch):
    """What was written before is delivered; the rest is tried again."""
    update = whisper.file_update_many

    def full(file, points, now=None):
        if file.name.endswith("b.wsp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        update(file, points, now)

    monkeypatch.setattr(whisper, "file_update_many", full)
    with pytest.raises(Undelivered) as failure:
        deliver(destination, f"a 1 {NOW}", f"b 0.5 {NOW}", f"b 2 {NOW - 10}", f"c 3 {NOW}", "d 1 0")
    assert failure.value.remaining.decode().splitlines() == [f"b 0.5 {NOW}", f"b 2 {NOW - 10}", f"c 3 {NOW}"]
    assert failure.value.lost == {"bad_stamp": 1}
    assert "No space left" in failure.value.reason


def test_a_directory_that_cannot_be_made_is_no_fault_of_the_paths(tmp_path: Path, destination: Destination):
    """Everything is tried again; nothing is dropped."""
    (tmp_path / "tree").write_text("a file")
    with pytest.raises(Undelivered) as failure:
        deliver(destination, f"a 1 {NOW}", "b 1 0")
    assert failure.value.remaining == f"a 1 {NOW}\nb 1 0\n".encode()
    assert failure.value.lost == {}


def test_a_directory_that_cannot_be_written_is_no_fault_of_the_paths(
    tmp_path: Path, destination: Destination, monkeypatch
):
    """As when another user owns it, until that is put right."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path / "tree"))
    with pytest.raises(Undelivered) as failure:
        deliver(destination, f"a 1 {NOW}")
    assert (failure.value.remaining, failure.value.lost) == (f"a 1 {NOW}\n".encode(), {})
    assert failure.value.reason == f"{tmp_path}/tree: Permission denied"


def test_a_file_that_could_not_be_made_leaves_nothing_behind(tmp_path: Path, destination: Destination, monkeypatch):
    """A file appears whole, under its name, or not at all; what a crash left is no obstacle."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / f".{os.getpid()}.new").write_bytes(b"left by a crash")
    assert deliver(destination, f"a 1 {NOW}") == {}
    assert files(tmp_path) == ["a.wsp"]


@pytest.mark.parametrize("name", ["a.wsp", f".{os.getpid()}.new"], ids=["file", "new file"])
def test_a_planted_link_is_not_written_through(tmp_path: Path, destination: Destination, name: str):
    """Whoever can write to the directory could have files made, or overwritten, where we may and they may not."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "planted")
    assert deliver(destination, f"a 1 {NOW}") == {}
    assert not (tmp_path / "planted").exists()
    assert not (folder / "a.wsp").is_symlink()
    assert values(tmp_path, "a.wsp", NOW - 10, NOW) == [None]
    assert values(tmp_path, "a.wsp", NOW, NOW + 10) == [1]


@pytest.mark.parametrize("path", ["a.count", "a.upper", "a.lower", "a.mean", "stats.gauges.a"])
def test_a_file_is_as_whisper_makes_it(tmp_path: Path, destination: Destination, path: str):
    """To the last byte, but for the points."""
    assert deliver(destination, f"{path} 1 {NOW}") == {}
    made, ours = tmp_path / "made", tmp_path / "tree" / str(relative_path(path))
    whisper.create(
        str(made), [(10, 360), (60, 1440)], xFilesFactor=0, aggregationMethod=aggregation(path, NAMING), sparse=True
    )
    whisper.update_many(str(made), [(NOW, 1)], now=NOW)
    assert ours.read_bytes() == made.read_bytes()
    assert [file.name for file in (tmp_path / "tree").iterdir() if file.name.startswith(".")] == []


def test_writing_ends_at_the_deadline(destination: Destination):
    """What was not written by then remains."""
    with pytest.raises(Undelivered) as failure:
        destination.deliver(f"a 1 {NOW}\nb 1 {NOW}\n".encode(), Deadline(0))
    assert failure.value.remaining == f"a 1 {NOW}\nb 1 {NOW}\n".encode()


def test_whisper_is_not_imported_for_other_destinations():
    """The package is an extra: only this destination needs it."""
    program = "import sys, metricslib.delivery; sys.exit('whisper' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0
