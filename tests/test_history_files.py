"""Files of a history: another process and a later one have the same charts."""

import os
from pathlib import Path

import pytest

from metricslib.history import HOUR, MANY, MINUTE, History
from metricslib.history_files import HistoryFiles
from metricslib.series import KINDS
from metricslib.sketch import Distribution
from metricslib.testing import ManualClock
from metricslib.window import Window

BEGIN = 1_700_006_400


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "history"


def window(number: int, **more: float) -> Window:
    samples = Distribution()
    for value in range(1, number % 7 + 2):
        samples.add(value)
    frozen = samples.freeze()
    return Window(
        BEGIN + 10 * (number - 1),
        BEGIN + 10 * number,
        10,
        counters={"hits": number, **more},
        timers={"took": frozen, **{f"by;route={route}": frozen for route in range(MANY)}},
        gauges={"level": number / 3},
        uniques={"users": frozenset(map(str, range(number % 5)))},
    )


def shown(history: History, *, minutes: bool = False) -> dict[str, object]:
    """Return all that a history has."""
    found: dict[str, object] = {"ends": history.ends(minutes=minutes)}
    keys = {"counter": ["hits", "new"], "timer": ["took", "by;route=3"], "gauge": ["level"], "unique": ["users"]}
    for kind in KINDS:
        for key in keys.get(kind, []):
            found[key] = repr(history.points(kind, [key], minutes=minutes).columns)
    routes = [f"by;route={route}" for route in range(MANY)]
    found["by"] = repr(history.points("timer", routes, minutes=minutes, name="by").columns)
    found["heat"] = history.heat("timer", "took")
    return found


def test_another_process_has_the_same_charts(directory):
    writer, reader = HistoryFiles(History(), directory), HistoryFiles(History(), directory)
    for number in range(1, 20):
        writer.put(window(number, **({"new": 1} if number > 5 else {})))
        if number in (3, 4, 12):
            reader.refresh()
    reader.refresh()
    late = HistoryFiles(History(), directory)
    late.refresh()
    assert shown(writer.history)["ends"] == [BEGIN + 10 * number for number in range(1, 20)]
    for each in (reader, late):
        for minutes in (False, True):
            assert shown(each.history, minutes=minutes) == shown(writer.history, minutes=minutes)


def test_the_next_writer_goes_on(directory):
    first, second = HistoryFiles(History(), directory), HistoryFiles(History(), directory)
    alone = History()
    for number in range(1, 4):
        first.put(window(number))
        alone.append(window(number))
    for number in range(4, 15):
        second.put(window(number, new=2))  # in the middle of a minute
        alone.append(window(number, new=2))
    first.refresh()
    for minutes in (False, True):
        for each in (first, second):
            assert shown(each.history, minutes=minutes) == shown(alone, minutes=minutes)


def test_an_interval_that_is_corrected_is_corrected_for_all(directory):
    writer, reader = HistoryFiles(History(), directory), HistoryFiles(History(), directory)
    for number in range(1, 9):
        writer.put(window(number))
    reader.refresh()
    writer.put(window(3, hits=100))
    reader.refresh()
    expected = [1, 2, 100, 4, 5, 6, 7, 8]
    for each in (writer, reader):
        assert each.history.points("counter", ["hits"]).columns["value"] == expected
        assert each.history.points("counter", ["hits"], minutes=True).columns["value"] == [sum(expected[:6])]


def test_what_one_reader_knows_already_does_not_move_the_places(directory):
    """A member adds the last interval itself, where the one that ships has not written it yet."""
    writer, reader = HistoryFiles(History(), directory), HistoryFiles(History(), directory)
    writer.put(window(1))
    reader.refresh()
    reader.refresh(window(2, b=20, a=10))
    writer.put(window(2, a=10, b=20))
    writer.put(window(3, a=11, b=21))
    reader.refresh()
    assert reader.history.points("counter", ["a"]).columns["value"][1:] == [10, 11]
    assert reader.history.points("counter", ["b"]).columns["value"][1:] == [20, 21]


@pytest.mark.parametrize("cut", [1, 15, 200])
def test_a_torn_record_is_not_read_and_the_next_writer_does_not_go_on_behind_it(directory, cut):
    first = HistoryFiles(History(), directory)
    for number in (1, 2):
        first.put(window(number))
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    second = HistoryFiles(History(), directory)
    second.put(window(3))
    reader = HistoryFiles(History(), directory)
    reader.refresh()
    for each in (second, reader):
        assert each.history.ends() == [BEGIN + 10, BEGIN + 30]


def test_what_another_version_wrote_is_left_alone(directory):
    directory.mkdir()
    (directory / "notes").write_text("something else")
    (directory / f"hour-{BEGIN}000-00").write_bytes(b"mlh2" + bytes(100))
    files = HistoryFiles(History(), directory)
    files.put(window(1))
    files.refresh()
    assert files.history.ends() == [BEGIN + 10]


def test_a_full_disk_leaves_the_history_whole_and_begins_a_new_segment(directory, monkeypatch):
    files = HistoryFiles(History(), directory)
    files.put(window(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100]))
    with pytest.raises(OSError, match="only 100 of"):
        files.put(window(2))
    monkeypatch.undo()
    files.put(window(3))
    reader = HistoryFiles(History(), directory)
    reader.refresh()
    assert files.history.ends() == [BEGIN + 10, BEGIN + 20, BEGIN + 30]
    assert reader.history.ends() == [BEGIN + 10, BEGIN + 30]
    assert len(list(directory.iterdir())) == 2


def test_files_are_bounded_in_time_and_bytes(directory):
    clock = ManualClock(BEGIN)
    files = HistoryFiles(History(), directory, clock=clock)
    for number in range(1, 3 * HOUR // 10):
        clock.advance(10)
        files.put(Window(clock.time() - 10, int(clock.time()), 10, counters={"hits": number}))
    reader = HistoryFiles(History(), directory)
    reader.refresh()
    assert reader.history.ends() == files.history.ends()
    assert reader.history.ends(minutes=True) == files.history.ends(minutes=True)
    assert len(reader.history.ends(minutes=True)) == 3 * 60 - 1
    hours = [path for path in directory.iterdir() if path.name.startswith("hour")]
    assert len(hours) <= 8

    small = HistoryFiles(History(max_bytes=10_000), directory, clock=clock)
    clock.advance(MINUTE)
    small.put(Window(clock.time() - 10, int(clock.time()), 10, counters={"hits": 1}))
    assert sum(path.stat().st_size for path in directory.iterdir()) < 10_000


def test_what_a_clock_that_was_set_back_left_in_the_future_goes(directory):
    clock = ManualClock(BEGIN + 1000)
    files = HistoryFiles(History(), directory, clock=clock)
    for number in (1, 2, 100):
        files.put(window(number))
    clock.set_time(BEGIN + 20)
    reader = HistoryFiles(History(), directory, clock=clock)
    reader.refresh()
    files.put(window(2))
    for each in (files, reader):
        assert each.history.ends() == [BEGIN + 10, BEGIN + 20]
