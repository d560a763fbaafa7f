"""Where the clock says the carriage can be, and what is believed of reports that repeat, lag or lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.devices.envelope import Motion
from rig.devices.grbl_schedule import WAKING_S, MotionSchedule, Track, elapsed_s, way_mm
from rig.devices.grbl_watch import PositionWatch, Reading

MOTION = Motion(start_mm=208.96, end_mm=60.0, velocity_mm_s=120.0, acceleration_mm_s2=200.0)
"""The one of which a report from before its start was once believed 8 mm later."""
REPLY_S = 0.007
motions = st.builds(
    lambda start, way, velocity, acceleration: Motion(start, start + way, velocity, acceleration),
    st.floats(0, 400),
    st.floats(0.5, 400) | st.floats(-400, -0.5),
    st.floats(0.1, 120),
    st.floats(10, 300),
)


def integrated_mm(motion: Motion, elapsed_s: float) -> float:
    """The way by summing up speeds: each is the least of the programmed one and what both ramps allow."""
    t = (np.arange(20_000) + 0.5) / 20_000 * min(max(elapsed_s, 0.0), motion.duration_s)
    ramps = motion.acceleration_mm_s2 * np.minimum(t, motion.duration_s - t)
    return float(np.minimum(motion.velocity_mm_s, ramps).mean() * min(max(elapsed_s, 0.0), motion.duration_s))


def watched(motion: Motion = MOTION, *, sent_s: float = 10.0) -> PositionWatch:
    """A watch on a motion whose line left at a time and was accepted a reply later."""
    watch = PositionWatch()
    watch.start_at(Reading(motion.start_mm, 0.0, sent_s - 0.05, sent_s - 0.05 + REPLY_S))
    schedule = MotionSchedule(motion, sent_s)
    schedule.accepted(sent_s + REPLY_S)
    watch.follow(motion, schedule)
    return watch


def true_reading(motion: Motion, began_s: float, asked_s: float) -> Reading:
    """What an honest controller says: the position in the middle of question and answer, the speed 60 ms ahead."""
    at_s = asked_s + REPLY_S / 2 - began_s
    speed = (way_mm(motion, at_s + 0.061) - way_mm(motion, at_s + 0.059)) / 0.002
    way = math.copysign(way_mm(motion, at_s), motion.end_mm - motion.start_mm)
    return Reading(motion.start_mm + way, speed, asked_s, asked_s + REPLY_S)


@pytest.mark.parametrize(
    ("elapsed_s", "expected_mm"),
    [(-1.0, 0.0), (0.0, 0.0), (0.15, 2.25), (1.0, 27.75), (2.0, 57.75), (2.15, 60.0), (9.0, 60.0)],
)
def test_a_trapezoid_by_the_numbers(elapsed_s: float, expected_mm: float):
    """60 mm at 30 mm/s and 200 mm/s²: ramps of 0.15 s and 2.25 mm, 1.85 s uniform, 2.15 s in all."""
    assert way_mm(Motion(0.0, 60.0, 30.0, 200.0), elapsed_s) == pytest.approx(expected_mm)


def test_a_triangle_by_the_numbers():
    """8 mm at 200 mm/s² peak at 40 mm/s: half the way after 0.2 s, an eighth after 0.1 s."""
    triangle = Motion(0.0, 8.0, 120.0, 200.0)

    assert [way_mm(triangle, t) for t in (0.1, 0.2, 0.3, 0.4)] == pytest.approx([1.0, 4.0, 7.0, 8.0])


@given(motions, st.floats(-0.2, 1.2))
def test_the_way_is_the_sum_of_the_speeds(motion: Motion, share: float):
    elapsed_s = share * motion.duration_s

    assert way_mm(motion, elapsed_s) == pytest.approx(
        integrated_mm(motion, elapsed_s), abs=1e-3 + 1e-4 * motion.distance_mm
    )


@given(motions, st.floats(0.001, 0.999))
def test_time_and_way_belong_to_each_other(motion: Motion, share: float):
    time_s = share * motion.duration_s

    assert elapsed_s(motion, way_mm(motion, time_s)) == pytest.approx(time_s, abs=1e-6 * motion.duration_s)


def test_at_the_end_any_time_may_have_passed_and_at_the_start_none():
    assert elapsed_s(MOTION, MOTION.distance_mm) == math.inf
    assert elapsed_s(MOTION, -0.02) == 0.0


@given(
    motions,
    st.floats(0, WAKING_S),
    st.floats(-0.01, 0.01),
    st.lists(st.floats(0.03, 0.4), min_size=1, max_size=40),
)
def test_an_honest_controller_is_on_time_however_late_it_begins_and_whatever_its_crystal(
    motion: Motion, waking_s: float, crystal: float, pauses_s: list[float]
):
    schedule = MotionSchedule(motion, sent_s=0.0)
    schedule.accepted(0.0)
    now_s = 0.0
    for pause_s in pauses_s:
        now_s += pause_s
        true_mm = way_mm(motion, (now_s - waking_s) * (1 + crystal))

        track = schedule.track(now_s, now_s + REPLY_S)

        assert track.least_mm - 1e-9 <= true_mm <= track.most_mm + 1e-9
        schedule.learn(Track(true_mm - 0.0215, true_mm + 0.0215), now_s, now_s + REPLY_S)


@given(motions, st.floats(0, REPLY_S), st.lists(st.floats(0.03, 0.4), min_size=1, max_size=40))
def test_an_honest_controller_is_believed_at_once(motion: Motion, begins_s: float, pauses_s: list[float]):
    watch, now_s = watched(motion), 10.0 + REPLY_S
    for pause_s in pauses_s:
        now_s += pause_s

        assert watch.accepts(true_reading(motion, 10.0 + begins_s, now_s))

    assert watch.misfits == 0


def test_the_report_of_a_carriage_at_rest_that_comes_300_ms_late_is_asked_again():
    """200 mm/s² for 0.25 s, less the moment it may take to begin: 4 mm at least; the old report says 0."""
    watch = watched()

    assert not watch.accepts(Reading(208.96, 0.0, 10.3, 10.3 + REPLY_S))

    assert watch.misfits == 1
    assert watch.accepts(true_reading(MOTION, 10.005, 10.32))
    assert watch.jump_mm == 0.0


@pytest.mark.parametrize("spoiled_mm", [288.96, 200.96, 298.96, 218.96, 209.96, 108.96])
def test_a_flipped_digit_is_asked_again(spoiled_mm: float):
    """0.3 s after the line left the carriage is 9 mm on its way; digits of 199.96 read otherwise."""
    watch = watched()
    assert watch.accepts(true_reading(MOTION, 10.005, 10.25))

    assert not watch.accepts(Reading(spoiled_mm, 60.0, 10.3, 10.3 + REPLY_S))


def test_a_carriage_that_does_stay_behind_is_seen_after_two_witnesses():
    """A controller that stood still: noise does not say the same three times; where it is, is known again."""
    watch = watched()
    stuck = [Reading(208.96, 0.0, t, t + REPLY_S) for t in (10.3, 10.31, 10.32)]

    believed = [watch.accepts(reading) for reading in stuck]

    assert believed == [False, False, True]
    assert watch.jump_mm == 0.0, "it has only not moved"
    assert watch.schedule is None, "the clock knows nothing of this motion any more"
    assert watch.accepts(Reading(208.9, 10.0, 10.37, 10.37 + REPLY_S))


def test_a_carriage_that_runs_ahead_of_its_speed_has_jumped():
    """50 mm in 0.1 s are no motion at 120 mm/s."""
    watch = watched()
    ahead = [Reading(158.96, 0.0, t, t + REPLY_S) for t in (10.1, 10.11, 10.12)]

    believed = [watch.accepts(reading) for reading in ahead]

    assert believed == [False, False, True]
    assert watch.jump_mm == pytest.approx(-50.0)


def test_after_a_hold_the_carriage_may_stay_where_it_was_at_least():
    """Held 0.5 s after it began: 25 mm less the moment it may take to begin; after that any time may pass."""
    schedule = MotionSchedule(MOTION, sent_s=10.0)
    schedule.accepted(10.0)
    schedule.hold(10.5)
    schedule.hold(11.0)

    track = schedule.track(12.0, 12.0 + REPLY_S)

    assert track.least_mm == pytest.approx(200 * (0.45 * 0.99) ** 2 / 2)
    assert track.most_mm == MOTION.distance_mm


def test_a_lost_ok_is_made_up_for_by_the_first_report_on_the_way():
    """2 s after the line left, 20 mm on the way: it began 0.447 s ago; half a second later it is at 77.7 mm.

    With 1 % of the pace, 10 ms of a segment and the 7 ms of an answer: 120 mm/s for 0.916 or 0.979 s less half a ramp.
    """
    schedule = MotionSchedule(MOTION, sent_s=10.0)

    schedule.learn(Track(19.98, 20.02), 12.0, 12.0 + REPLY_S)
    track = schedule.track(12.5, 12.5 + REPLY_S)

    assert track.least_mm == pytest.approx(120 * (0.916 - 0.3), abs=0.1)
    assert track.most_mm == pytest.approx(120 * (0.979 - 0.3), abs=0.1)


def test_a_carriage_that_has_not_begun_yet_cannot_be_far_a_moment_later():
    """An old report from this very place, 0.6 mm on the way 41 ms after the carriage was seen at rest, was believed.

    0.02 mm of tolerance are 15 ms of ramp, and 10 ms are allowed for: 66 ms at 200 mm/s² are 0.44 mm.
    """
    watch = watched(Motion(325.84, 164.96, 40.0, 200.0), sent_s=8.0)
    watch.schedule = MotionSchedule(Motion(325.84, 164.96, 40.0, 200.0), sent_s=8.0)  # its ok was lost
    watch.tolerance_mm = 0.0215
    for at_s in (10.0, 10.01):
        watch.accepts(Reading(325.84, 0.0, at_s, at_s + REPLY_S))

    assert not watch.accepts(Reading(325.24, 13.53, 10.04, 10.051))


def test_before_the_ok_the_carriage_may_not_have_begun():
    track = MotionSchedule(MOTION, sent_s=10.0).track(12.0, 12.0 + REPLY_S)

    assert track.least_mm == 0.0
    assert track.most_mm == MOTION.distance_mm
