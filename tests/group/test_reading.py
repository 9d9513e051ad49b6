"""What the page of a member shows: the sums over all members, read from their files."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metricslib.flusher import Flusher
from metricslib.group.member import Member, program_name
from metricslib.group.reading import GroupReader, Reading
from metricslib.group.record import GaugeValue
from metricslib.instruments.gauge import Across
from metricslib.registry import Registry
from metricslib.view.answer import View
from metricslib.window import Aggregates
from tests.peers import eventually

INTERVAL = 10
SLOT = 1_700_000_010
NOW = SLOT - 5.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "group"


@pytest.fixture
def member(folder: Path):
    """Call for a member that has joined."""
    made: list[Member] = []

    def join() -> Member:
        made.append(Member(folder, INTERVAL))
        made[-1].join()
        return made[-1]

    yield join
    for each in made:
        each.leave()


def hits(count: float) -> Aggregates:
    found = Aggregates()
    if count:
        found.counters = {"hits": count}
    return found


def gauge(value: float, time: float = NOW, across: Across = "sum") -> dict[str, GaugeValue]:
    return {"level": GaugeValue(value, time, across)}


def counted(reading: Reading) -> float:
    snapshot = reading.snapshot()
    return snapshot.totals["counter"]["hits"].sum + snapshot.open.counters.get("hits", 0)


def test_a_reading_has_the_sums_over_all_members(member):
    one, other = member(), member()
    one.append(SLOT, hits(3), {}, NOW)
    other.append(SLOT, hits(4), {}, NOW)
    reader = GroupReader(one, INTERVAL)
    reading = reader.read(NOW)
    assert reading.open.counters == {"hits": 7}
    assert (reading.open.start, reading.open.end, reading.last) == (SLOT - INTERVAL, SLOT, None)
    other.append(SLOT, hits(1), {}, NOW + 1)
    assert counted(reader.read(NOW + 1)) == 8
    assert counted(GroupReader(other, INTERVAL).read(NOW + 1)) == 8
    assert counted(reading) == 7  # which never changes


def test_the_last_interval_is_one_that_all_have_closed(member):
    one, other = member(), member()
    one.append(SLOT, hits(3), {}, SLOT + 0.1, whole=True)
    other.append(SLOT, hits(4), {}, SLOT - 1)
    reader = GroupReader(one, INTERVAL)
    open_ = reader.read(SLOT + 0.2)
    assert open_.last is None
    assert open_.open.end == SLOT + INTERVAL
    assert counted(open_) == 7
    other.append(SLOT, hits(5), {}, SLOT + 0.3, whole=True)
    closed = reader.read(SLOT + 0.4)
    assert closed.last is not None
    assert (closed.last.end, closed.last.counters) == (SLOT, {"hits": 8})
    assert counted(closed) == 8


def test_the_last_interval_waits_no_longer_for_a_member_than_the_shipper_does(member):
    one = member()
    member()  # it is stopped
    one.append(SLOT, hits(3), {}, SLOT + 0.1, whole=True)
    reader = GroupReader(one, INTERVAL)
    assert reader.read(SLOT + 1.1).last is None
    last = reader.read(SLOT + 1.3).last
    assert last is not None
    assert last.counters == {"hits": 3}


def test_totals_do_not_fall_when_a_member_ends_and_another_takes_its_number(member):
    one, other = member(), member()
    reader = GroupReader(one, INTERVAL)
    other.append(SLOT, hits(4), {}, NOW, whole=True)
    other.leave()
    assert counted(reader.read(NOW)) == 4
    again = member()
    assert again.number == 1
    assert counted(reader.read(NOW)) == 4
    again.append(SLOT, hits(1), {}, NOW + 1)
    assert counted(reader.read(NOW + 1)) == 5
    again.append(SLOT + INTERVAL, hits(2), {}, SLOT + 1)
    for each in (reader, GroupReader(again, INTERVAL)):
        assert counted(each.read(SLOT + 1)) == 7


def test_an_idle_series_stays_at_zero(member):
    one = member()
    one.append(SLOT, hits(4), {}, SLOT, whole=True, known={"counter": ["hits", "errors"], "timer": ["took"]})
    one.append(SLOT + INTERVAL, hits(0), {}, SLOT + INTERVAL, whole=True)
    reading = GroupReader(one, INTERVAL).read(SLOT + INTERVAL + 2)
    assert reading.last is not None
    assert reading.last.counters == {"hits": 0, "errors": 0}
    assert reading.series()["counter"] == ["hits", "errors"]
    assert reading.series("timer") == {"timer": ["took"]}
    totals = reading.snapshot(only={"timer": ["took"], "counter": ["errors"]}).totals
    assert (totals["timer"]["took"].count, totals["counter"]["errors"].sum) == (0, 0)


@pytest.mark.parametrize(("across", "value"), [("sum", 7), ("min", 2), ("max", 5), ("last", 2)])
def test_a_gauge_has_the_value_of_its_rule(member, across, value):
    one, other, ended = member(), member(), member()
    one.append(SLOT, hits(0), gauge(5, NOW, across), NOW)
    other.append(SLOT, hits(0), gauge(2, NOW + 1, across), NOW + 1)
    ended.append(SLOT, hits(0), gauge(1, NOW - 1, across), NOW - 1)
    ended.leave()
    reader = GroupReader(one, INTERVAL)
    assert reader.read(NOW + 1).open.gauges == {"level": value}
    one.append(SLOT, hits(0), gauge(5, NOW, across), SLOT, whole=True)
    other.append(SLOT, hits(0), gauge(2, NOW + 1, across), SLOT, whole=True)
    one.append(SLOT + INTERVAL, hits(1), gauge(5, NOW, across), SLOT + 1)
    assert reader.read(SLOT + 1).open.gauges == {"level": value}, "and the other one has not written yet"


def test_each_member_has_a_line(member, folder):
    one, other = member(), member()
    took = Aggregates()
    took.counters = {"hits": 30}
    one.append(SLOT, took, {}, SLOT, whole=True)
    other.append(SLOT, hits(10), {}, NOW)
    (folder / "members" / "1.json").write_text("{torn")
    mine, its = GroupReader(one, INTERVAL).read(SLOT + 2).members
    assert (mine.number, mine.pid, mine.program, mine.rate, mine.written) == (0, os.getpid(), program_name(), 3, SLOT)
    assert mine.since is not None
    assert (its.number, its.pid, its.program, its.since, its.rate, its.written) == (1, None, "", None, 0, NOW)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/usr/bin/gunicorn", "-w", "4"], "gunicorn"),
        (["/lib/python3/gunicorn/__main__.py"], "gunicorn"),
        (["job.py"], "job.py"),
        ([""], "python"),
    ],
)
def test_a_program_is_called_as_people_call_it(arguments, name):
    assert program_name(arguments) == name


def test_what_is_deleted_while_it_is_read_is_read_again(member, folder, monkeypatch):
    one = member()
    for stamp in (SLOT, SLOT + INTERVAL):
        one.append(stamp, hits(1), {}, stamp, whole=True)
    reader = GroupReader(one, INTERVAL)
    listed = os.listdir
    deleted = []

    def then_delete(path):
        found = listed(path)
        if not deleted:
            shutil.rmtree(folder / str(SLOT))
            deleted.append(path)
        return found

    monkeypatch.setattr(os, "listdir", then_delete)
    assert counted(reader.read(SLOT + 12)) == 1


def ask(flusher: Flusher, query: str = "format=json", path: str = "/") -> str:
    answer = View.of(flusher).answer("GET", query, path)
    assert answer.status == 200
    return answer.body.decode()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Flusher]]:
    """Call for a running flusher of a group."""
    started: list[Flusher] = []

    def start(interval: int = 86_400) -> Flusher:
        started.append(Flusher(Registry(), f"file:{tmp_path}/out.jsonl", own="", interval=interval))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


def test_the_page_of_any_member_answers_for_all(worker):
    workers = [worker(), worker()]
    for number, each in enumerate(workers, 1):
        each.registry.counter("hits").inc(number)
        each.registry.timer("took").observe(0.001)
        each.registry.gauge("jobs").inc(number)
        assert each.flush()
    for each in workers:
        report = json.loads(ask(each))
        found = {series["name"]: series["open"] for series in report["series"]}
        assert found["hits"] == {"count": 3}
        assert found["took"]["count"] == 2
        assert found["jobs"] == {"value": 3}
        assert [member["number"] for member in report["members"]] == [0, 1]
        assert "hits_total 3\n" in ask(each, "format=prometheus")
    pytest.importorskip("jinja2")
    health = ask(workers[0], "", "/health")
    assert health.count(f'<td class="num">{os.getpid()}</td>') == 2
    for path in ("/", "/top", "/series/hits"):
        assert "hits" in ask(workers[1], "", path)


def test_a_process_alone_reads_no_files(worker, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("it reads files")

    alone = worker()
    alone.registry.counter("hits").inc(5)
    monkeypatch.setattr(GroupReader, "read", refuse)
    report = json.loads(ask(alone))
    assert report["series"][0]["open"] == {"count": 5}
    assert report["members"] == []


def test_a_process_that_follows_others_goes_on_with_their_totals(worker):
    first = worker()
    first.registry.counter("hits").inc(5)
    first.stop()
    second = worker()
    assert "hits_total 5\n" in ask(second, "format=prometheus")


def test_charts_start_full_for_a_member_that_comes_later(worker):
    """And they are the group's, though the first one ships."""
    first, second = worker(1), worker(1)
    for number, each in enumerate((first, second), 1):
        each.registry.counter("hits").inc(number)
    eventually(lambda: first.status().ticks > 1)
    first.stop()

    def charted(flusher: Flusher) -> float:
        counts = flusher.measured().history.points("counter", ["hits"]).columns["value"]
        return sum(count for count in counts if count == count)

    eventually(lambda: charted(second) == 3)
    assert charted(worker(1)) == 3
