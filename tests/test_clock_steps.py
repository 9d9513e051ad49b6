"""Whatever the clock does, and however often a process restarts, the slots add up to what was measured."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from metricslib import Flusher, Registry
from metricslib.testing import ManualClock

INTERVAL, GRACE = 5, 0.5
STEPS = st.one_of(
    st.tuples(st.just("measure"), st.integers(1, 100)),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1, 2, 5])),
    st.tuples(st.just("set"), st.integers(-20, 20)),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("restart"), st.sampled_from([0.1, 1, 3, 7])),
)


class Run:
    """A process with a spool directory, which may be restarted, and the clock of its machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = ManualClock()
        self._wrong = 0.0  # by how much the clock is wrong; followed at once if by more than ten intervals
        self.begin(0)

    def begin(self, delay: float) -> None:
        self.registry = Registry(clock=self.clock)
        self.flusher = Flusher(
            self.registry,
            f"file://{self._folder}/windows",
            interval=INTERVAL,
            grace=GRACE,
            own="",
            spool=self._folder / "spool",
            group=None,
        )
        self.clock.advance(delay)  # a boundary may pass in the middle of the start
        self.flusher.start()
        self.counter = self.registry.counter("a")

    def do(self, step: str, amount: float) -> None:
        if step == "measure":
            self.counter.inc(amount)
        elif step == "wait":
            boundaries = (self.clock.time() - GRACE) // INTERVAL
            self.clock.advance(amount)
            if (self.clock.time() - GRACE) // INTERVAL > boundaries:
                self.flusher.tick()
        elif step == "set":
            self.clock.set_time(self.clock.time() + amount - self._wrong)
            self._wrong = amount
        elif step == "flush":
            assert self.flusher.flush()
        else:
            assert self.flusher.stop()
            self.clock.advance(amount)
            self.begin(amount / 10)

    def slots(self) -> dict[int, float]:
        """Return the last value of each slot, as Graphite keeps it."""
        assert self.flusher.stop()
        windows = map(json.loads, (self._folder / "windows").read_text().splitlines())
        return {window["end"]: window["counters"]["a"] for window in windows}


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=25))
def test_slots_add_up(steps: list[tuple[str, float]]):
    """A slot that was sent, whole or in part, is never sent over with less."""
    with TemporaryDirectory() as folder:
        run = Run(Path(folder))
        for step, amount in steps:
            run.do(step, amount)
        assert sum(run.slots().values()) == sum(amount for step, amount in steps if step == "measure")


def test_a_boundary_that_passes_in_the_middle_of_a_start_costs_no_slot(tmp_path: Path):
    """The clock was set back before the restart: the next slot is the one that the last process has begun."""
    run = Run(tmp_path)
    run.do("set", 20)
    run.do("flush", 0)
    run.do("measure", 3)
    run.do("flush", 0)
    run.do("set", 0)
    run.do("restart", 5.1)
    run.do("measure", 4)
    assert max(run.slots().values()) == 7
