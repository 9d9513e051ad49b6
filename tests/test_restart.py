"""With a spool directory a program goes on where it was: after stop() and start, and after kill -9, in the same slot or
a later one. Each test is real processes on a real directory; only their time is made.
"""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import whisper

from tests.peers import FOREVER, ROOT, Forwarder, eventually
from tests.sockets import send

START = 1_700_006_400
PROGRAM = """
import sys
from metricslib import Flusher, Registry
from metricslib.testing import ManualClock
clock = ManualClock(float(sys.argv[2]))
registry = Registry(clock=clock)
flusher = Flusher(registry, sys.argv[3:], interval=60, spool=sys.argv[1], own="")
flusher.start()
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Program:
    """A process that measures, and does what it is told, line by line."""

    def __init__(self, directory: Path, time: float) -> None:
        urls = [f"file://{directory}/windows.jsonl", f"whisper://{directory}/whisper"]
        command = [sys.executable, "-W", "error", "-c", PROGRAM, str(directory / "spool"), str(time), *urls]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, *lines: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        for line in lines:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> None:
        """Let it end as a program ends."""
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[float], Program]]:
    """Call to start the program so many seconds after a boundary."""
    started: list[Program] = []

    def start(seconds: float) -> Program:
        started.append(Program(tmp_path, START + seconds))
        return started[-1]

    yield start
    for each in started:
        each.kill()


USE = 'registry.counter("c").inc(2); registry.gauge("g").inc(); registry.timer("t").observe(0.5)'


def slots(directory: Path) -> dict[int, dict[str, Any]]:
    """What the file says of each slot at last, by seconds since the start."""
    lines = (directory / "windows.jsonl").read_text().splitlines()
    return {line["end"] - START: line for line in map(json.loads, lines)}


def told(slot: dict[str, Any]) -> tuple[float, float, int]:
    """Of a slot what was counted, the gauge, and how often it was timed."""
    return slot["counters"]["c"], slot["gauges"]["g"], slot["timers"]["t"]["count"]


def in_whisper(directory: Path, path: str) -> list[float]:
    """All values in a whisper file, oldest first."""
    file = str(directory / "whisper/stats" / (path.replace(".", "/") + ".wsp"))
    _, values = whisper.fetch(file, START - 600, START + 1200, now=START + 1200)
    return [value for value in values if value is not None]


def test_a_stop_and_a_start_in_one_slot_add_up(tmp_path, program):
    """What Graphite has of the slot at last is what both measured."""
    for seconds in (10, 20, 30):
        process = program(seconds)
        process.do(USE)
        process.end()
    assert told(slots(tmp_path)[60]) == (6, 3, 3)
    assert in_whisper(tmp_path, "counters.c.count") == [6]
    assert in_whisper(tmp_path, "gauges.g") == [3]


def test_a_stop_and_a_start_in_the_next_slot(tmp_path, program):
    """Each has its own, gauges go on, and idle series are there."""
    first = program(10)
    first.do(USE)
    first.end()
    second = program(70)
    second.do('registry.gauge("g").inc()')
    second.end()
    assert told(slots(tmp_path)[60]) == (2, 1, 1)
    assert told(slots(tmp_path)[120]) == (0, 2, 0)
    assert in_whisper(tmp_path, "counters.c.count") == [2, 0]


def test_killed_in_the_slot_in_which_it_starts_again(tmp_path, program):
    """What was flushed before the death stays in the slot; only what came after that flush is lost."""
    first = program(10)
    first.do(USE, "flusher.flush()", USE)
    first.kill()
    second = program(20)
    second.do(USE, USE, "clock.advance(40); flusher.tick()")
    second.end()
    assert told(slots(tmp_path)[60]) == (6, 3, 3)
    assert in_whisper(tmp_path, "counters.c.count")[0] == 6


TICK = "clock.advance(60); flusher.tick()"


@pytest.mark.parametrize("end", [Program.kill, Program.end])
def test_a_clock_set_back_before_a_restart_costs_no_slot(tmp_path, program, end):
    """The slots that the first process sent lie in the future of the second, which waits until they are over."""
    first = program(0)
    first.do(USE, TICK, USE, TICK, USE, TICK, USE, "flusher.flush()")
    end(first)
    second = program(75)
    second.do(USE, TICK, USE, TICK, USE, TICK, USE)
    second.end()
    assert {end: told(slot)[0] for end, slot in slots(tmp_path).items()} == {60: 2, 120: 2, 180: 2, 240: 8, 300: 2}
    assert in_whisper(tmp_path, "counters.c.count") == [2, 2, 2, 8, 2]


def test_a_last_stamp_that_cannot_be_read_is_counted(tmp_path, program):
    """Intervals follow the clock, and the page shows the note that was skipped."""
    first = program(0)
    first.do(USE, TICK)
    first.end()
    (file,) = (tmp_path / "spool").glob("*.sqlite")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE notes SET value = 'x' WHERE key = 'schedule/last'")
    database.close()
    second = program(75)
    second.do(USE, "assert registry.drops.totals() == {'bad_note': 1}, registry.drops.totals()", TICK)
    second.end()
    assert told(slots(tmp_path)[120])[0] == 2


def test_killed_behind_a_tick_it_has_lost_the_open_interval_and_nothing_else(tmp_path, program):
    """Totals and gauges are those of the last tick; slots that were sent stay as they were."""
    first = program(10)
    first.do(USE, "clock.advance(50); flusher.tick()", USE, "clock.advance(60); flusher.tick()", USE)
    first.kill()
    second = program(130)
    second.do(USE, "total = registry.snapshot().totals['counter']['c'].sum; assert total == 4, total")
    second.end()
    assert [told(slots(tmp_path)[end]) for end in (60, 120, 180)] == [(2, 1, 1), (2, 2, 1), (2, 3, 1)]


def test_killed_again_and_again(tmp_path, program):
    """However often: each life adds what it flushed, in the slot it was in."""
    for life in range(6):
        process = program(life * 25)
        process.do(USE, "flusher.flush()")
        process.kill()
    program(150).end()
    assert [told(slots(tmp_path)[end])[:2] for end in (60, 120, 180)] == [(6, 3), (4, 5), (2, 6)]


def test_within_one_process_nothing_is_added_twice(tmp_path, program):
    """stop() and start() on the same directory: the registry knows what its own notes say."""
    process = program(10)
    process.do(
        USE,
        "flusher.stop()",
        "flusher = Flusher(registry, sys.argv[3:], interval=60, spool=sys.argv[1], own=''); flusher.start()",
        USE,
        "clock.advance(50); flusher.tick()",
        "flusher.stop(); flusher.start()",
        "assert registry.snapshot().totals['counter']['c'].sum == 4",
    )
    process.end()
    assert told(slots(tmp_path)[60]) == (4, 2, 2)
    second = program(70)
    second.do("assert registry.snapshot().totals['counter']['c'].sum == 4")
    second.end()


def test_a_forwarder_that_is_terminated_goes_on(tmp_path, forwarder):
    """Counters and timers of one slot add up, its own, too, and a gauge is changed from where it was."""
    lives = [("c:2|c\ng:5|g\nt:100|ms\n", 2), ("c:3|c\ng:+1|g\nt:200|ms\n", 5), ("c:4|c\ng:-3|g\n", 9)]
    for lines, count in lives:
        process = forwarder(
            *("--listen", "tcp://127.0.0.1:0", "--to", f"file://{tmp_path}/windows.jsonl"),
            *("--interval", str(FOREVER), "--spool", str(tmp_path / "spool")),
        )
        send(process.ready()["tcp"], lines)
        eventually(partial(counted, process, count))
        assert process.end(signal.SIGTERM) == 0
    *_, last = map(json.loads, (tmp_path / "windows.jsonl").read_text().splitlines())
    assert (last["counters"]["c"], last["gauges"]["g"], last["timers"]["t"]["count"]) == (9, 3, 2)
    assert last["timers"]["t"]["max"] == 200
    assert last["counters"]["statsd.metrics_received"] == 8
    assert list(last["counters"])[:3] == ["statsd.bad_lines_seen", "statsd.packets_received", "statsd.metrics_received"]


def counted(process: Forwarder, count: int) -> bool:
    """Whether the page says that there were so many in the open interval."""
    return any(row["open"] == {"count": count} for row in process.page()["series"] if row["key"] == "c")
