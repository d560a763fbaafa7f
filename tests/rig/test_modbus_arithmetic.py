"""What a Modbus rail writes for what it is asked: worked out by hand, and held for every profile."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from catalog.session_folder import SweepRecord
from catalog.yaml_document import parse_yaml
from rig.devices.envelope import Motion
from rig.devices.modbus_drives import DRIVES, LEADSHINE_RS, join_words, split_words
from rig.devices.modbus_rail import ModbusRailSettings
from rig.devices.modbus_settings import DriveScale
from rig.errors import EnvelopeError
from rig.profile import RigProfile, find_profile

SPINDLE = DriveScale(lead_mm=10, pulses_per_rev=10_000, lower_mm=0, upper_mm=400, direction=1)
"""10 mm per revolution of 10 000 counts: 1000 counts per mm, 1 rpm is 1/6 mm/s."""


SWEEP = SweepRecord(start_mm=100, end_mm=200, velocity_mm_s=40, acceleration_mm_s2=200)


def profile_rail(**changes: Any) -> ModbusRailSettings:
    values = {
        "kind": "modbus",
        "drive": "leadshine-rs",
        "port": "/dev/null",
        "lead_mm": 10,
        "travel_mm": (0, 400),
        "max_velocity_mm_s": 120,
        "max_acceleration_mm_s2": 300,
        "acceleration_mm_s2": 200,
    }
    return ModbusRailSettings.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, (0, 0)),
        (1, (0, 1)),
        (65536, (1, 0)),
        (98_200, (1, 32664)),
        (-1, (0xFFFF, 0xFFFF)),
        (-(2**31), (0x8000, 0)),
    ],
)
def test_32_bits_are_two_registers_high_word_first(value: int, words: tuple[int, int]) -> None:
    assert split_words(value) == words
    assert join_words(*words) == value


def test_a_value_beyond_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        split_words(2**31)


def test_positions_and_speeds_convert_by_lead_and_counts() -> None:
    """12.345 mm is 12 345 counts; 40 mm/s is 4 rev/s, 240 rpm."""
    assert SPINDLE.to_pulses(12.345) == 12_345
    assert SPINDLE.to_mm(12_345) == pytest.approx(12.345)
    assert SPINDLE.rpm(40) == 240


def test_a_rail_that_homes_upwards_counts_downwards() -> None:
    mirrored = DriveScale(lead_mm=10, pulses_per_rev=10_000, lower_mm=-50, upper_mm=350, direction=-1)

    assert mirrored.to_pulses(-40) == -10_000
    assert mirrored.to_mm(-10_000) == -40
    assert mirrored.distance_pulses(2.5) == -2_500


def test_acceleration_is_written_as_milliseconds_per_1000_rpm_and_never_exceeded() -> None:
    """1000 rpm are 166.67 mm/s; at 200 mm/s² they take 833.3 ms: 834 are written, which is 199.84 mm/s²."""
    motion = Motion(0, 100, 40, 200)

    real = SPINDLE.realised(motion, cap_mm_s=120)

    assert SPINDLE.ramp_ms(200) == 834
    assert real.acceleration_mm_s2 == pytest.approx(166_666.67 / 834, abs=0.01)
    assert real.acceleration_mm_s2 < 200


def test_a_motion_slower_than_one_revolution_per_minute_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="slowest"):
        SPINDLE.realised(Motion(0, 10, 0.05, 200), cap_mm_s=120)


@given(
    scale=st.builds(
        DriveScale,
        lead_mm=st.floats(0.5, 200),
        pulses_per_rev=st.integers(200, 60_000),
        lower_mm=st.just(0.0),
        upper_mm=st.floats(20, 3000),
        direction=st.sampled_from([1, -1]),
    ),
    position_mm=st.floats(-4000, 4000),
    velocity_mm_s=st.floats(0.001, 1000),
    cap_mm_s=st.floats(0.001, 1000),
    acceleration_mm_s2=st.floats(1, 10_000),
)
def test_what_is_written_never_leaves_travel_or_caps(
    scale: DriveScale,
    position_mm: float,
    velocity_mm_s: float,
    cap_mm_s: float,
    acceleration_mm_s2: float,
) -> None:
    pulses = scale.to_pulses(position_mm)
    rpm = scale.rpm(velocity_mm_s, cap_mm_s=cap_mm_s)
    step_mm_s = scale.velocity_step_mm_s

    assert -1e-6 <= scale.to_mm(pulses) <= scale.upper_mm + 1e-6 / scale.pulses_per_mm
    assert rpm * step_mm_s <= cap_mm_s * (1 + 1e-6)
    assert 1e6 * step_mm_s / scale.ramp_ms(acceleration_mm_s2) <= acceleration_mm_s2 * (1 + 1e-9)
    if 0 <= position_mm <= scale.upper_mm:
        assert abs(scale.to_mm(pulses) - position_mm) <= 1 / scale.pulses_per_mm


@pytest.mark.parametrize(
    ("baud", "bound_s"),
    [
        (115200, 2 * 0.00175 + 0.1 + 40 * 11 / 115200 + 0.02),
        (9600, 2 * 3.5 * 11 / 9600 + 0.1 + 40 * 11 / 9600 + 0.02),
    ],
)
def test_a_stop_waits_for_one_exchange_and_two_silences(baud: int, bound_s: float) -> None:
    """127 ms at 115200 baud, 174 ms at 9600: time-out, 40 bytes, 3.5 characters before and after, 20 ms of host."""
    assert profile_rail(baud=baud).turn_bound_s == pytest.approx(bound_s)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"drive": "leadshine"}, "there are: leadshine-dm-rs, leadshine-rs"),
        ({"lead_mm": 1}, "needs more than 3000 rpm"),
        ({"acceleration_mm_s2": 400}, "above max_acceleration_mm_s2"),
        ({"travel_mm": (0, 8)}, "travel_mm must ascend"),
        ({"acceleration_mm_s2": 5}, "too small for the drive"),
        ({"homing_velocity_mm_s": 100, "max_velocity_mm_s": 50}, "homing_velocity_mm_s is above"),
        ({"unit": 32}, "less than or equal to 31"),
    ],
)
def test_a_profile_that_the_drive_cannot_do_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        profile_rail(**changes)


def test_no_table_can_write_the_drives_memory() -> None:
    """0x2211 in the control word saves to EEPROM: no register table holds it, so no driver can send it."""
    for family in DRIVES.values():
        assert not re.search(rf"\b{0x2211}\b", repr(family))


def test_alarms_are_told_in_words_and_with_their_code() -> None:
    assert LEADSHINE_RS.describe_alarm(0x20).startswith("alarm 0x20 (the motor does not follow")
    assert LEADSHINE_RS.describe_alarm(0x77) == "alarm 0x77 (see the drive manual)"


def test_the_shipped_example_profile_names_a_modbus_rail() -> None:
    profile = RigProfile.load("leadshine-example")

    assert isinstance(profile.rail, ModbusRailSettings)
    assert profile.rail.family is LEADSHINE_RS
    assert not profile.simulated


def test_a_wrong_key_of_a_modbus_rail_is_found_in_its_line() -> None:
    raw = find_profile("leadshine-example").read_bytes().replace(b"lead_mm:", b"lead:")

    with pytest.raises(ValueError, match=r"mine\.yaml:\d+:\d+: unknown key 'lead'; did you mean 'lead_mm'"):
        parse_yaml(raw, RigProfile, name="mine.yaml")


def test_a_new_rail_touches_its_driver_its_line_and_its_test_only() -> None:
    """No module outside rig.devices names a driver class of a rail: `rig.devices.rail_for` makes them all."""
    root = Path(__file__).parents[2] / "rig"
    elsewhere = [p for p in root.rglob("*.py") if p.parent.name != "devices"]

    named = {p.name for p in elsewhere if re.search(r"\b(GrblRail|ModbusRail)\b", p.read_text("utf-8"))}

    assert elsewhere
    assert not named


def test_the_ramp_that_rounding_lengthens_still_fits_the_run_up() -> None:
    """40 mm/s at 834 ms per 1000 rpm ramps over 4.003 mm; asked for were 4.000 mm and 5 mm of margin."""
    real = SPINDLE.realised(Motion(0, 100, 40, 200), cap_mm_s=120)

    ramp_mm = real.velocity_mm_s**2 / (2 * real.acceleration_mm_s2)

    assert math.isclose(ramp_mm, 4.0032, abs_tol=1e-4)


@pytest.mark.parametrize(
    ("asked_mm_s", "real_mm_s"),
    [
        (40.0, 40.0),
        (33.3, 200 / 6),  # 199.8 rpm
        (10.1, 61 / 6),  # 60.6 rpm
        (120.0, 120.0),
        (0.77, 0.77),  # 4.62 rpm: 5 are 8 % too fast, which the sweep is refused for
    ],
)
def test_a_plans_speed_becomes_whole_rpm(asked_mm_s: float, real_mm_s: float) -> None:
    assert profile_rail().realised_velocity_mm_s(asked_mm_s) == pytest.approx(real_mm_s, rel=1e-12)


def test_a_speed_that_whole_rpm_miss_by_far_is_refused_before_anything_moves() -> None:
    slow = SWEEP.model_copy(update={"velocity_mm_s": 0.77})

    with pytest.raises(EnvelopeError, match=r"at 0\.8333 mm/s instead of 0\.77 mm/s") as caught:
        profile_rail().sweep_motion(slow)

    assert "a multiple of 0.1667 mm/s" in caught.value.next_step
