"""Ticks fall on multiples of the interval, stamps strictly increase, and no interval is skipped or doubled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricslib.errors import InvalidOption
from metricslib.schedule import PATIENCE, Schedule


def test_the_first_tick_is_due_at_the_next_multiple_of_the_interval():
    """A program that starts at 12 with an interval of 10 fills the slot that ends at 20."""
    schedule = Schedule(10, now=12.5)
    assert schedule.delay(12.5) == 7.5
    assert schedule.open_stamp(12.5) == 20
    assert schedule.tick(20.0) == 20
    assert schedule.delay(20.0) == 10


def test_a_late_tick_is_stamped_with_the_last_boundary_passed_and_the_next_is_aligned_again():
    """A process that was suspended makes one window, and no drift."""
    schedule = Schedule(10, now=12.5)
    assert schedule.delay(47.0) == 0
    assert schedule.tick(47.0) == 40
    assert schedule.delay(47.0) == 3
    assert schedule.open_stamp(47.0) == 50


def test_a_tick_on_its_boundary_and_one_a_moment_later_have_different_slots():
    """Starting exactly on a boundary opens the interval that begins there."""
    schedule = Schedule(10, now=20.0)
    assert schedule.delay(20.0) == 10
    assert schedule.tick(30.0) == 30
    assert schedule.tick(40.0) == 40


def test_after_a_step_back_intervals_run_on_and_then_follow_the_clock_counted():
    """An hour back: nothing is sent over slots already sent for ten intervals, then stamps are the clock's again."""
    schedule = Schedule(10, now=4000)
    assert schedule.tick(4010) == 4010
    now = 410.0
    for _ in range(PATIENCE):
        assert schedule.delay(now) <= 10
        now += schedule.delay(now)
        assert schedule.tick(now) is None
    assert schedule.steps_back == 0
    now += schedule.delay(now)
    assert schedule.tick(now) == now
    assert schedule.steps_back == 1


def test_a_short_step_back_costs_no_slot():
    """A clock set back by less than the patience catches up, and stamps go on where they were."""
    schedule = Schedule(10, now=100)
    stamps = [schedule.tick(now) for now in (110, 120, 105, 110, 120, 130, 140)]
    assert stamps == [110, 120, None, None, None, 130, 140]
    assert schedule.steps_back == 0


def test_a_restart_after_a_step_back_continues_behind_the_last_stamp():
    """What an earlier process sent is not overwritten: its slots are waited for."""
    schedule = Schedule(10, now=105)
    schedule.resume(120, now=105)
    assert schedule.next_stamp(105) == 130
    assert [schedule.tick(now) for now in (110, 120, 130, 140)] == [None, None, 130, 140]


def test_a_restart_continues_with_another_interval_on_its_own_boundaries():
    schedule = Schedule(10, now=105)
    schedule.resume(125, now=105)
    assert schedule.open_stamp(105) == 130


def test_a_restart_does_not_wait_for_a_stamp_that_is_further_ahead_than_a_step_back_is_waited_for():
    schedule = Schedule(10, now=105)
    schedule.resume(105 + 10 * PATIENCE + 1, now=105)
    assert schedule.tick(110) == 110
    assert schedule.steps_back == 1


def test_a_start_again_in_the_same_process_knows_the_last_stamp_itself():
    schedule = Schedule(10, now=105)
    schedule.tick(110)
    schedule.resume(130, now=115)
    assert schedule.tick(120) == 120


def test_the_open_interval_never_has_a_stamp_already_used():
    """What flush() sends in mid-interval is never sent over a closed slot, also after a step back."""
    schedule = Schedule(10, now=100)
    schedule.tick(110)
    assert schedule.open_stamp(95) == 120


def test_the_next_stamp_is_that_of_an_interval_that_is_due_or_else_of_the_open_one():
    """Who started just before a boundary, and goes on behind it, ends that interval first."""
    schedule = Schedule(10, now=19.9)
    assert schedule.next_stamp(19.95) == 20
    assert schedule.next_stamp(20.1) == 20
    assert schedule.next_stamp(35.0) == 30
    assert schedule.tick(35.0) == 30
    assert schedule.next_stamp(35.0) == 40


def test_the_next_stamp_is_never_one_that_was_used():
    """A boundary that passes in a start, while the clock has not caught up with the last stamp, ends no interval."""
    schedule = Schedule(10, now=19.9)
    schedule.resume(40, now=19.9)
    assert schedule.next_stamp(20.1) == 50


def test_what_was_sent_of_a_slot_is_never_sent_over():
    """Neither by the process that sent it in mid-interval, nor by the next one, when the clock is set back."""
    first = Schedule(10, now=55)
    assert first.use_open_stamp(57) == 60
    assert first.tick(42) is None
    second = Schedule(10, now=62)
    second.resume(50, now=62)  # which may have sent part of 60
    assert second.open_stamp(42) == 70
    in_the_same_slot = Schedule(10, now=58)
    in_the_same_slot.resume(50, now=58)
    assert in_the_same_slot.open_stamp(42) == 60


def test_intervals_that_end_late_are_counted():
    """Three boundaries passed, and one window: two intervals have none of their own, and nobody has to guess."""
    schedule = Schedule(10, now=12.5)
    schedule.tick(22.0)
    assert schedule.skipped == 0
    schedule.tick(55.0)
    assert schedule.skipped == 2
    assert schedule.changed(60, 56.0).skipped == 2
    late_from_the_start = Schedule(10, now=12.5)
    assert (late_from_the_start.tick(45.0), late_from_the_start.skipped) == (40, 2)


def test_stamps_that_were_used_before_a_step_back_are_not_skipped():
    """While the clock catches up, and behind it when it has."""
    schedule = Schedule(10, now=100)
    for now in (110, 120, 105, 110, 120, 130, 140):
        schedule.tick(now)
    assert schedule.skipped == 0


@given(st.integers(1, 60), st.lists(st.floats(0.001, 500), max_size=50))
def test_stamps_are_multiples_and_strictly_increase(interval: int, steps: list[float]):
    """Whatever a forward clock does, every stamp is aligned, not in the future, and above the one before."""
    now = 1_000_000.5
    schedule = Schedule(interval, now)
    last = 0
    for step in steps:
        now += max(step, schedule.delay(now))
        stamp = schedule.tick(now)
        assert stamp is not None
        assert stamp % interval == 0
        assert now - interval < stamp <= now
        assert stamp > last
        last = stamp


@pytest.mark.parametrize("interval", [0, -1, 0.5, 1.5, "10", None, True, float("nan"), float("inf")])
def test_an_interval_that_is_no_whole_number_of_seconds_is_refused_by_name(interval: object):
    """Graphite's stamps are whole seconds, so an interval must be."""
    with pytest.raises(InvalidOption, match="interval"):
        Schedule(interval, now=0)  # type: ignore[arg-type]


def test_another_interval_goes_on_behind_the_last_stamp():
    """Stamps strictly increase across the change, in both directions; the same interval changes nothing."""
    schedule = Schedule(10, now=95)
    assert schedule.tick(100.5) == 100
    assert schedule.changed(10, 103) is schedule
    longer = schedule.changed(60, 103)
    assert longer.delay(103) == 17
    assert longer.open_stamp(103) == 120  # the next boundary, which is later than 100
    assert longer.tick(120) == 120
    shorter = longer.changed(10, 121)
    assert (shorter.delay(121), shorter.open_stamp(121)) == (9, 130)
    assert shorter.tick(130) == 130


def test_another_interval_does_not_use_a_stamp_twice():
    """A change within the moment of a tick does not send the slot that was just sent again."""
    schedule = Schedule(10, now=95)
    assert schedule.tick(120) == 120
    assert schedule.changed(60, 120).tick(120) is None
