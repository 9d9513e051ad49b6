"""Records of members: exact, ended by a tear, superseded by whole ones, and combined in any order to the same slot."""

import json
import math
import os
import shutil
import struct
import tempfile
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricslib.group.record import FileReader, FileReplaced, FileWriter, GaugeValue, _frame, combine
from metricslib.sketch import Distribution
from metricslib.window import Aggregates

ONE, OTHER = b"writer-1", b"writer-2"
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
names = st.sampled_from(["a", "b.c", "d;route=u", "e;host=x;route=u"])


@st.composite
def aggregates(draw: st.DrawFn, numbers: st.SearchStrategy[float] = finite) -> Aggregates:
    found = Aggregates()
    found.counters = draw(st.dictionaries(names, numbers, max_size=3))
    for kind in ("timers", "histograms"):
        samples = draw(st.dictionaries(names, st.lists(numbers, min_size=1, max_size=6), max_size=2))
        values = {key: Distribution(found, limit=4).freeze() for key, found in samples.items()}
        setattr(found, kind, values)
    found.uniques = draw(st.dictionaries(names, st.frozensets(st.text(max_size=3), min_size=1, max_size=3), max_size=2))
    return found


gauges = st.dictionaries(
    names,
    st.builds(
        GaugeValue, st.none() | finite, st.floats(0, 2e9), st.sampled_from(["last", "sum", "min", "max", "each"])
    ),
    max_size=2,
)


def plain(found: Aggregates) -> dict[str, object]:
    """All of it, to the last bit: floats as bytes, and every part of a distribution."""

    def bits(value: object) -> object:
        match value:
            case float() | int():
                return struct.pack("<d", value)
            case dict():
                return {key: bits(each) for key, each in value.items()}
            case list() | tuple():
                return [bits(each) for each in value]
            case None | str() | frozenset():
                return value
            case _:
                return bits(value.parts())  # type: ignore[attr-defined]

    return {kind: bits(found[kind]) for kind in ("counter", "timer", "histogram", "unique")}


def written(reader: FileReader) -> dict[bytes, object]:
    return {writer: (plain(each.aggregates), dict(each.gauges), each.time) for writer, each in reader.written.items()}


def read(path: Path) -> FileReader:
    reader = FileReader(path)
    reader.read()
    return reader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0"


def counted(**counters: float) -> Aggregates:
    found = Aggregates()
    found.counters = dict(counters)
    return found


@given(aggregates(), gauges, st.floats(0, 2e9), st.booleans())
def test_a_record_comes_back_to_the_last_bit(found, stated, time, whole):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "0")
        FileWriter(path, ONE).append(found, stated, time, whole=whole)
        reader = read(path)
    assert written(reader) == {ONE: (plain(found), stated, time)}
    assert (reader.closed, reader.last, reader.bad) == (whole, ONE, 0)


@given(st.lists(st.tuples(st.sampled_from([ONE, OTHER]), aggregates(), gauges, st.booleans()), max_size=4), st.data())
@settings(max_examples=30, deadline=None)
def test_a_file_torn_at_any_byte_is_read_up_to_the_last_whole_record(appended, data):
    """Read after each record; then a copy is torn anywhere, and says what the file said when it was that long."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "0")
        path.touch()
        writers = {writer: FileWriter(path, writer) for writer in (ONE, OTHER)}
        reader = FileReader(path)
        said = {0: written(reader)}
        for time, (writer, found, stated, whole) in enumerate(appended):
            writers[writer].append(found, stated, float(time), whole=whole)
            assert reader.read()
            assert not reader.read()
            said[path.stat().st_size] = written(reader)
            assert written(read(path)) == said[path.stat().st_size]
        torn = Path(directory, "torn")
        shutil.copy(path, torn)
        length = data.draw(st.integers(0, path.stat().st_size))
        os.truncate(torn, length)
        end = max(known for known in said if known <= length)
        reader = read(torn)
        assert written(reader) == said[end]
        FileWriter(torn, b"writer-3").append(counted(after=1), {}, 9.0)
        assert reader.read()
        assert {key: value for key, value in written(reader).items() if key != b"writer-3"} == said[end]
        assert reader.written[b"writer-3"].aggregates.counters == {"after": 1}
        assert written(read(torn)) == written(reader)


def test_any_changed_byte_ends_the_reading(path):
    writer = FileWriter(path, ONE)
    writer.append(counted(hits=1), {}, 1.0)
    end = path.stat().st_size
    writer.append(counted(hits=2), {}, 2.0)
    content = path.read_bytes()
    for at in range(end, len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert read(path).written[ONE].aggregates.counters == {"hits": 1}


def test_a_whole_record_supersedes_the_earlier_ones_of_its_writer_alone(path):
    one = FileWriter(path, ONE)
    one.append(counted(hits=1), {}, 1.0)
    other = FileWriter(path, OTHER)
    other.append(counted(hits=10), {}, 2.0)
    one.append(counted(hits=2), {}, 3.0)
    one.append(counted(hits=100), {}, 4.0, whole=True)
    other.append(counted(hits=10), {}, 5.0)
    one.append(counted(hits=1000), {}, 6.0)
    assert combine({0: read(path)}).aggregates.counters == {"hits": 1120}


def test_a_key_is_written_once_by_each_writer(path):
    writer = FileWriter(path, ONE)
    for _ in range(3):
        writer.append(counted(**{"a.very.long.name": 1}), {}, 1.0)
    FileWriter(path, OTHER).append(counted(**{"a.very.long.name": 1}), {}, 1.0)
    assert path.read_bytes().count(b"a.very.long.name") == 2
    assert combine({0: read(path)}).aggregates.counters == {"a.very.long.name": 4}


@given(st.lists(st.lists(aggregates(st.integers(-1000, 1000).map(float)), max_size=3), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_all_files_give_in_any_order_what_one_process_would_have_seen(members):
    """With whole numbers, whose sums are exact. Of distributions all is compared but the order of samples."""
    alone = Aggregates()
    for member in members:
        for found in member:
            alone.merge(found)
    with tempfile.TemporaryDirectory() as directory:
        for number, member in enumerate(members):
            path = Path(directory, str(number))
            path.touch()
            for at, found in enumerate(member):
                FileWriter(path, struct.pack("<q", at % 2)).append(found, {}, 1.0)
        for order in permutations(range(len(members))):
            both = combine({number: read(Path(directory, str(number))) for number in order}).aggregates
            assert plain(both) == plain(alone)


def test_sums_of_floats_do_not_depend_on_the_order_of_files(tmp_path):
    for number, value in enumerate((0.1, 0.2, 0.3, 1e16, -1e16)):
        FileWriter(tmp_path / str(number), ONE).append(counted(hits=value), {}, 1.0)
    sums = set()
    for order in permutations(range(5)):
        slot = combine({number: read(tmp_path / str(number)) for number in order})
        sums.add(slot.aggregates.counters["hits"])
    assert len(sums) == 1


def test_of_a_file_only_the_last_writer_s_gauges_count(tmp_path):
    """But a value that was set holds until another one is, though its process ended and its number was taken again."""
    before = {"depth": GaugeValue(5, 1.0, "sum"), "version": GaugeValue(7, 1.5), "build": GaugeValue(1, 1.0)}
    after = {"free": GaugeValue(2, 2.0, "sum"), "version": GaugeValue(3, 0.5), "build": GaugeValue(2, 1.5)}
    FileWriter(tmp_path / "0", ONE).append(Aggregates(), before, 1.0)
    FileWriter(tmp_path / "0", OTHER).append(Aggregates(), after, 2.0)
    FileWriter(tmp_path / "3", ONE).append(Aggregates(), {"free": GaugeValue(None, 3.0, "sum")}, 3.0)
    slot = combine({number: read(tmp_path / str(number)) for number in (3, 0)})
    assert slot.gauges == {
        "free": {0: GaugeValue(2, 2.0, "sum"), 3: GaugeValue(None, 3.0, "sum")},
        "version": {0: GaugeValue(7, 1.5)},
        "build": {0: GaugeValue(2, 1.5)},
    }


def test_a_short_write_is_cut_and_tried_again(path, monkeypatch):
    writer = FileWriter(path, ONE)
    writer.append(counted(hits=1), {}, 1.0)
    whole = path.stat().st_size
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        with pytest.raises(OSError, match="20 of"):
            writer.append(counted(other=2), {}, 2.0)
    assert path.stat().st_size == whole
    writer.append(counted(other=2), {}, 3.0)
    assert combine({0: read(path)}).aggregates.counters == {"hits": 1, "other": 2}


def test_a_short_write_that_could_not_be_cut_is_cut_by_the_next(path, monkeypatch):
    writer = FileWriter(path, ONE)
    write = os.write

    def no(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        patched.setattr(os, "ftruncate", no)
        with pytest.raises(OSError, match="no"):
            writer.append(counted(hits=2), {}, 2.0)
    assert path.stat().st_size == 20
    writer.append(counted(hits=2), {}, 3.0)
    assert combine({0: read(path)}).aggregates.counters == {"hits": 2}


def test_a_writer_s_cut_keeps_whole_records_of_others(path):
    """Two hold one number where lock files were replaced: neither harms the other."""
    one, other = FileWriter(path, ONE), FileWriter(path, OTHER)
    for _ in range(3):
        one.append(counted(hits=1), {}, 1.0)
        other.append(counted(hits=10), {}, 1.0)
    assert combine({0: read(path)}).aggregates.counters == {"hits": 33}


@pytest.mark.parametrize("how", ["deleted", "replaced", "shortened", "closed", "reused"])
def test_what_is_no_longer_the_file_is_not_written_to(path, tmp_path, how):
    writer = FileWriter(path, ONE)
    writer.append(counted(hits=1), {}, 1.0)
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"theirs")
    if how in ("deleted", "replaced"):
        path.unlink()
    if how == "replaced":
        path.write_bytes(b"")
    elif how == "shortened":
        os.truncate(path, 3)
    elif how in ("closed", "reused"):
        os.close(writer._descriptor)
    if how == "reused":
        reused = os.open(stranger, os.O_RDWR | os.O_APPEND)
        assert reused == writer._descriptor
    with pytest.raises(FileReplaced):
        writer.append(counted(hits=2), {}, 2.0)
    writer.close()
    assert stranger.read_bytes() == b"theirs"
    if how == "reused":
        os.close(reused)  # it was not closed by the writer


def test_a_symlink_or_fifo_in_its_place_is_not_opened(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        FileWriter(path, ONE)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileReplaced, match="no regular file"):
        FileWriter(path, ONE)


def test_a_replaced_file_adds_to_what_was_read(path):
    """So a slot that was sent never becomes less: what a deleted file held is in nobody's file any more."""
    FileWriter(path, ONE).append(counted(hits=1), {}, 1.0)
    reader = read(path)
    path.rename(path.with_name("old"))
    FileWriter(path, OTHER).append(counted(hits=5), {}, 1.0)
    assert reader.read()
    assert combine({0: reader}).aggregates.counters == {"hits": 6}
    assert combine({0: read(path)}).aggregates.counters == {"hits": 5}


def test_in_a_replaced_file_a_whole_record_supersedes_what_its_writer_said_in_the_old_one(path):
    FileWriter(path, ONE).append(counted(hits=1), {}, 1.0)
    reader = read(path)
    path.unlink()
    FileWriter(path, ONE).append(counted(hits=3), {}, 2.0, whole=True)
    assert reader.read()
    assert combine({0: reader}).aggregates.counters == {"hits": 3}


def test_a_whole_record_is_read_without_those_before_it(path, monkeypatch):
    writer = FileWriter(path, ONE)
    for time in range(3):
        writer.append(counted(hits=1, more=1), {}, float(time))
    writer.append(counted(hits=3, more=3, last=1), {}, 3.0, whole=True)
    writer.append(counted(last=1, new=1), {}, 4.0)
    decoded = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: decoded.append(text) or loads(text))
    assert combine({0: read(path)}).aggregates.counters == {"hits": 3, "more": 3, "last": 2, "new": 1}
    assert len(decoded) == 2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b'{"counter":[["a"],[0],[]]}',
        b'{"counter":[["a"],[1],[1]]}',
        b'{"counter":[["a"],[-1],[1]]}',
        b'{"counter":[["a"],[true],[1]]}',
        b'{"counter":[["a"],[0],[NaN]]}',
        b'{"counter":[["a"],[0],["1"]]}',
        b'{"counter":[["a"],[0],[true]]}',
        b'{"counter":[["a;b=c;a=d"],[0],[1]]}',
        b'{"counter":[["a"],[0],[1]],"timer":[[],[0],[{"limit":4,"samples":[1]}]]}',
        b'{"timer":[["a"],[0],[{"limit":4,"samples":[NaN]}]]}',
        b'{"unique":[["a"],[0],[[]]]}',
        b'{"gauge":[["a"],[0],[[NaN,1,"last"]]]}',
        b'{"gauge":[["a"],[0],[[1,1,"most"]]]}',
    ],
)
def test_a_record_that_no_writer_writes_is_counted_and_skipped(path, payload):
    FileWriter(path, ONE).append(counted(hits=1), {}, 1.0)
    with path.open("ab") as file:
        file.write(_frame(OTHER, 2, 2.0, payload))
    FileWriter(path, b"writer-3").append(counted(hits=2), {}, 3.0)
    reader = read(path)
    assert reader.bad == 1
    assert combine({0: reader}).aggregates.counters == {"hits": 3}


def test_infinite_counts_are_none(path):
    assert not math.isfinite(float("1e400"))
    path.write_bytes(_frame(ONE, 3, 1.0, b'{"counter":[["a"],[0],[1e400]]}'))
    assert read(path).bad == 1


def test_after_a_bad_record_no_number_is_taken_for_another_key(path):
    """The bad record may have stated keys: what its writer says then counts as bad, until it states its keys anew."""
    path.write_bytes(_frame(ONE, 2, 1.0, b'{"counter":[["a"],[0],[NaN]]}'))
    with path.open("ab") as file:
        file.write(_frame(ONE, 0, 2.0, b'{"counter":[["b"],[1],[1]]}'))
        file.write(_frame(ONE, 2, 3.0, b'{"counter":[["c"],[0],[1]]}'))
    reader = read(path)
    assert reader.bad == 2
    assert combine({0: reader}).aggregates.counters == {"c": 1}


def test_a_writer_that_opens_its_file_again_states_its_keys_anew(path):
    for _ in range(2):
        writer = FileWriter(path, ONE)
        writer.append(counted(hits=1, more=1), {}, 1.0)
        writer.append(counted(more=1), {}, 1.0)
        writer.close()
    assert combine({0: read(path)}).aggregates.counters == {"hits": 2, "more": 4}
