"""Whatever clocks do, what was measured is in exactly one slot, and what has no slot of its own is counted.

Each test ships to a real file; a manual clock is set forward and back, stands still and runs on.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from metricslib import Flusher, Registry
from metricslib.schedule import PATIENCE
from metricslib.testing import ManualClock

INTERVAL = 60  # longer than a test: the flusher's own thread, which goes by real time, does nothing meanwhile
START = 1_700_006_400.0
HOUR = 3600.0


class Program:
    """Measures and ships to a file; counts on its own what it measured."""

    def __init__(self, path: Path, *more: str) -> None:
        self.clock = ManualClock(START + 5)
        self.registry = Registry(clock=self.clock)
        self.path = path / "windows.jsonl"
        self.flusher = Flusher(self.registry, [f"file://{self.path}", *more], interval=INTERVAL, own="")
        self.flusher.start()
        self.measured = 0

    def measure(self) -> None:
        self.registry.counter("c").inc()
        self.registry.timer("t").observe(0.5)
        self.measured += 1

    def pass_(self, seconds: float) -> None:
        """Let time pass, and measure before and after."""
        self.measure()
        self.clock.advance(seconds)
        self.measure()

    def tick(self) -> None:
        self.flusher.tick()

    def next(self) -> None:
        """Let an interval pass as it should."""
        self.pass_(INTERVAL - self.clock.time() % INTERVAL)
        self.tick()

    def end(self) -> list[dict[str, Any]]:
        """Stop, and return the file's windows: of those with the same start and end the last, as its schema says."""
        assert self.flusher.stop(20)
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        windows = list({(line["start"], line["end"]): line for line in lines}.values())
        assert sum(window["counters"]["c"] for window in windows) == self.measured
        assert sum(window["timers"]["t"]["count"] for window in windows) == self.measured
        assert all(window["end"] % INTERVAL == 0 for window in windows)
        for before, after in pairwise(windows):
            assert after["start"] == before["end"]
        return windows


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.flusher.stop(0)


def ends(windows: list[dict[str, Any]]) -> list[int]:
    """Stamps, in intervals since the start."""
    return [int(window["end"] - START) // INTERVAL for window in windows]


def test_an_hour_forward_is_one_window(program):
    """What was measured on both sides of the step is in it; the hour that never was is counted as skipped."""
    program.next()
    program.measure()
    program.clock.set_time(program.clock.time() + HOUR)
    program.measure()
    program.tick()
    program.next()
    assert ends(program.end())[:3] == [1, 61, 62]
    assert program.flusher.status().skipped == 59


def test_an_hour_back_is_one_window_and_then_the_clock_is_followed(program):
    """Nothing goes over the slots that were sent, for ten intervals; from then on they are the clock's, counted."""
    program.next()
    program.next()
    program.measure()
    program.clock.set_time(program.clock.time() - HOUR)
    for _ in range(PATIENCE + 3):
        program.next()
    windows = program.end()
    assert ends(windows)[:5] == [1, 2, -58 + PATIENCE + 1, -58 + PATIENCE + 2, -58 + PATIENCE + 3]
    assert windows[2]["counters"]["c"] == 1 + 2 * (PATIENCE + 1)
    status = program.flusher.status()
    assert (status.steps_back, status.skipped) == (1, 0)


def test_a_flush_while_the_clock_is_behind_has_a_slot_of_its_own(program):
    """What it sent is in no later slot, whether the clock catches up or is followed."""
    program.next()
    program.clock.set_time(program.clock.time() - HOUR)
    for number in range(PATIENCE + 3):
        program.next()
        if number % 3 == 1:
            program.measure()
            program.flusher.flush()
    assert program.flusher.status().steps_back == 1
    program.end()


def test_back_and_forward_again_within_the_patience_costs_no_slot(program):
    """A clock that was wrong for five minutes: what was measured meanwhile is in the slot where it became right."""
    program.next()
    program.clock.set_time(program.clock.time() - HOUR)
    for _ in range(5):
        program.next()
    program.clock.set_time(program.clock.time() + HOUR)
    program.tick()
    program.next()
    assert ends(program.end())[:3] == [1, 6, 7]
    assert program.flusher.status().steps_back == 0


def test_after_a_suspend_the_last_boundary_has_all_of_it(program):
    """The wall clock went on and the monotonic one stood still: a call under way took the time that it ran."""
    span = program.registry.timer("t").time()
    with span:
        program.clock.advance(0.5)
        program.clock.set_time(program.clock.time() + 8 * HOUR + 7)
    program.measured += 1
    program.registry.counter("c").inc()
    program.tick()
    window, *_ = program.end()
    assert (window["timers"]["t"]["max"], window["start"], window["end"]) == (500, START + 5, START + 8 * HOUR)
    assert program.flusher.status().skipped == 8 * 60 - 1


def test_a_monotonic_clock_that_jumps_moves_no_boundary(program):
    """Some systems count the time asleep: only what was under way is longer for it."""
    wall = program.clock.time()
    with program.registry.timer("t").time():
        program.clock.advance(8 * HOUR)
        program.clock.set_time(wall + 1)
    program.measured += 1
    program.registry.counter("c").inc()
    program.clock.set_time(START + INTERVAL)
    program.tick()
    window, *_ = program.end()
    assert (window["timers"]["t"]["max"], window["end"]) == (8 * HOUR * 1000, START + INTERVAL)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_tick_that_comes_late_by_several_intervals(program, flushed):
    """One window with all of it. What a flush had sent before has its slot, and what came after is not missing."""
    program.next()
    program.measure()
    if flushed:
        program.flusher.flush()
    program.pass_(5.5 * INTERVAL)
    program.tick()
    program.next()
    assert ends(program.end())[:4] == ([1, 2, 6, 7] if flushed else [1, 6, 7, 8])
    assert program.flusher.status().skipped == 4


def test_a_flush_that_comes_late_ends_what_is_due_first(program):
    """In the middle of the sixth interval: the fifth boundary gets what was due, and the flush what is new."""
    program.pass_(5.5 * INTERVAL)
    program.flusher.flush()
    program.measure()
    program.next()
    windows = program.end()
    assert ends(windows)[:2] == [5, 6]
    assert [window["counters"]["c"] for window in windows[:2]] == [2, 3]


def test_graphites_own_files_have_every_count_once(tmp_path):
    """Late ticks, an hour forward, and minutes back: the points of a whisper file add up to what was measured."""
    program = Program(tmp_path, f"whisper://{tmp_path}/whisper")
    steps: list[Callable[[], object]] = [
        program.next,
        program.flusher.flush,
        lambda: program.pass_(3.3 * INTERVAL),
        program.tick,
        lambda: program.clock.set_time(program.clock.time() - 4 * INTERVAL),
        program.next,
        program.flusher.flush,
        lambda: program.clock.set_time(program.clock.time() + HOUR),
        program.next,
        program.next,
    ]
    for step in steps:
        step()
    program.end()
    path = str(tmp_path / "whisper/stats/counters/c/count.wsp")
    _, values = whisper.fetch(path, START - HOUR, program.clock.time() + HOUR, now=program.clock.time() + HOUR)
    assert sum(value for value in values if value is not None) == program.measured


ACTIONS = st.one_of(
    st.sampled_from(["next", "next", "tick", "flush", "measure"]),
    st.floats(0.0, 400.0),
    st.sampled_from([-HOUR, HOUR, -90.0, 90.0, -30.0, -0.5, 4 * HOUR]).map(lambda step: ("set", step)),
)


@settings(max_examples=50)
@given(st.lists(ACTIONS, max_size=40))
def test_nothing_is_lost_or_doubled_whatever_clocks_do(tmp_path_factory, actions):
    """Steps, gaps, ticks and flushes in any order: windows follow each other, and hold what was measured."""
    program = Program(tmp_path_factory.mktemp("time"))
    for action in actions:
        if isinstance(action, str):
            getattr(program.flusher if action == "flush" else program, action)()
        elif isinstance(action, tuple):
            program.clock.set_time(program.clock.time() + action[1])
        else:
            program.pass_(action)
    program.measure()
    program.end()
