"""One check lets motions pass; what it lets pass lies inside the envelope, whatever the numbers are."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from catalog.session_folder import SweepRecord
from rig.devices.envelope import (
    Envelope,
    Motion,
    check_motion,
    check_sweep,
    sweep_motion,
    sweep_span,
    trapezoid_duration_s,
)
from rig.devices.grbl_settings import GrblSettings, MachineFrame
from rig.errors import EnvelopeError, RailLockedError

ENVELOPE = Envelope(lower_mm=0, upper_mm=400, max_velocity_mm_s=120, max_acceleration_mm_s2=300)
ANYTHING = st.floats(allow_nan=True, allow_infinity=True)
NUMBER = ANYTHING | st.floats(-500, 900)


def sweep(start_mm: float, end_mm: float, velocity_mm_s: float = 40.0) -> SweepRecord:
    return SweepRecord(
        start_mm=start_mm, end_mm=end_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=200.0
    )


def test_a_sweep_is_extended_by_its_ramps_and_the_margin():
    """40 mm/s at 200 mm/s²: v²/2a is 4 mm; with 5 mm of margin 60..340 becomes 51..349."""
    assert sweep_span(sweep(60, 340), ENVELOPE) == (51.0, 349.0)


def test_a_downward_sweep_is_extended_the_other_way():
    assert sweep_span(sweep(340, 60), ENVELOPE) == (349.0, 51.0)


@pytest.mark.parametrize(
    ("distance_mm", "duration_s"),
    [
        (60.0, 2.15),  # 55.5 mm at 30 mm/s and two ramps of 0.15 s
        (4.5, 0.3),  # exactly two ramps
        (2.0, 0.2),  # a triangle: 2·sqrt(2/200)
        (0.0, 0.0),
    ],
)
def test_duration_of_a_trapezoid(distance_mm: float, duration_s: float):
    assert trapezoid_duration_s(distance_mm, velocity_mm_s=30, acceleration_mm_s2=200) == pytest.approx(
        duration_s
    )


def test_a_sweeps_duration_is_its_moves():
    """298 mm at 40 mm/s: 7.45 s and 0.2 s."""
    assert sweep_motion(sweep(60, 340), ENVELOPE).duration_s == pytest.approx(7.65)


@pytest.mark.parametrize(("start_mm", "end_mm"), [(13.9, 340), (60, 386.1), (386.1, 60), (340, 13.9)])
def test_a_sweep_whose_ramps_leave_the_travel_is_refused(start_mm: float, end_mm: float):
    """Rest points must lie 5 mm inside 0..400; ramp and margin take 9 mm, so 14..386 is the limit."""
    with pytest.raises(EnvelopeError, match="leaves the travel"):
        check_sweep(sweep(start_mm, end_mm), ENVELOPE)


def test_the_longest_sweep_passes_both_ways():
    assert check_sweep(sweep(14, 386), ENVELOPE).end_mm == 395
    assert check_sweep(sweep(386, 14), ENVELOPE).end_mm == 5


def test_a_sweep_above_the_cap_names_the_cap():
    with pytest.raises(EnvelopeError, match=r"speed 121 mm/s is outside 0.01 to 120 mm/s"):
        check_sweep(sweep(100, 200, 121.0), ENVELOPE)


def test_an_empty_sweep_is_refused():
    with pytest.raises(EnvelopeError, match="empty"):
        check_sweep(sweep(100, 100), ENVELOPE)


def test_a_carriage_in_the_end_margin_may_leave_it_but_go_no_deeper():
    inwards, deeper = Motion(2, 3, 10, 200), Motion(2, 1, 10, 200)

    check_motion(inwards, ENVELOPE, homed=True)
    with pytest.raises(EnvelopeError):
        check_motion(deeper, ENVELOPE, homed=True)


def test_a_fault_locks_everything():
    with pytest.raises(RailLockedError, match="ALARM"):
        check_motion(Motion(100, 101, 1, 200), ENVELOPE, homed=True, fault="ALARM:1")


@pytest.mark.parametrize(
    "motion",
    [Motion(math.nan, 100, 5, 200), Motion(0, 10.1, 5, 200), Motion(0, 10, 5.1, 200), Motion(0, -11, 1, 200)],
)
def test_only_a_crawl_is_allowed_unhomed(motion: Motion):
    check_motion(Motion(0, -10, 5, 200), ENVELOPE, homed=False)
    with pytest.raises(RailLockedError, match="home the rail"):
        check_motion(motion, ENVELOPE, homed=False)


@given(
    start=NUMBER, end=NUMBER, velocity=ANYTHING | st.floats(0, 150), acceleration=ANYTHING | st.floats(0, 400)
)
def test_what_passes_homed_lies_inside(start: float, end: float, velocity: float, acceleration: float):
    try:
        check_motion(Motion(start, end, velocity, acceleration), ENVELOPE, homed=True)
    except EnvelopeError:
        return

    assert 0 < velocity <= 120
    assert 0 < acceleration <= 300
    assert 5 - 1e-5 <= end <= 395 + 1e-5 or min(start, 395) - 1e-5 <= end <= max(start, 5) + 1e-5
    assert -1e-5 <= end <= 400 + 1e-5


@given(start=NUMBER, end=NUMBER, velocity=ANYTHING | st.floats(0, 150))
def test_what_passes_unhomed_is_a_crawl(start: float, end: float, velocity: float):
    try:
        check_motion(Motion(start, end, velocity, 200.0), ENVELOPE, homed=False)
    except (EnvelopeError, RailLockedError):
        return

    assert abs(end - start) <= 10
    assert 0 < velocity <= 5


@given(st.floats(-100, 500), st.floats(-100, 500), st.floats(0.1, 150), st.floats(1, 400))
def test_a_sweep_that_passes_can_stop_inside_the_travel(
    start_mm: float, end_mm: float, velocity_mm_s: float, acceleration_mm_s2: float
):
    """At no point of the uniform part does a stop at the sweep's acceleration leave the travel."""
    assume(start_mm != end_mm)
    record = SweepRecord(
        start_mm=start_mm, end_mm=end_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=acceleration_mm_s2
    )
    try:
        check_sweep(record, ENVELOPE)
    except EnvelopeError:
        return

    braking_mm = velocity_mm_s**2 / (2 * acceleration_mm_s2)
    assert min(start_mm, end_mm) - braking_mm >= 5
    assert max(start_mm, end_mm) + braking_mm <= 395


@given(st.floats(-1000, 1000), st.floats(-50, 50), st.booleans())
def test_coordinates_survive_the_way_to_the_machine_and_back(
    position_mm: float, lower_mm: float, negative: bool
):
    frame = MachineFrame.homing(lower_mm, 400.0, negative=negative)

    assert frame.to_rail_mm(frame.to_machine_mm(position_mm)) == pytest.approx(position_mm, abs=1e-9)


@pytest.mark.parametrize(("homes_negative", "homed_at_mm"), [(True, -398.0), (False, -2.0)])
def test_after_homing_the_carriage_stands_a_pull_off_above_the_lower_end(
    homes_negative: bool, homed_at_mm: float
):
    """400 mm of travel, 2 mm of pull-off, both homing directions; machine space is never positive."""
    frame = MachineFrame.homing(0.0, 400.0, negative=homes_negative)

    assert frame.to_rail_mm(homed_at_mm) == 2.0
    assert frame.to_machine_mm(400.0) in {0.0, -400.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"travel_mm": (400, 0)}, "ascend"),
        ({"acceleration_mm_s2": 301}, "above max_acceleration"),
        ({"max_velocity_mm_s": 0}, "greater than 0"),
        ({"speed": 1}, "not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], message: str):
    values = {
        "kind": "grbl",
        "port": "p",
        "travel_mm": (0, 400),
        "max_velocity_mm_s": 120,
        "max_acceleration_mm_s2": 300,
        "acceleration_mm_s2": 200,
    }

    with pytest.raises(ValueError, match=message):
        GrblSettings.model_validate({**values, **changes})
