"""A plan is frozen data: resolved, bounded and honest about what it will do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment.calibration.document import Calibration
from alignment.calibration.store import StoredCalibration, store_calibration
from catalog.errors import InvalidDocumentError
from catalog.yaml_document import parse_yaml
from rig.cli import app
from rig.devices.modbus_settings import ModbusRailSettings
from rig.devices.travel import TravelSettings
from rig.errors import EnvelopeError, PlanError
from rig.forecast import board_warnings, forecast, require_runnable
from rig.plan import CapturePlan
from rig.profile import RigProfile

PLAN = """
schema: 1
scene: shelf
sweep: {start_mm: 100, end_mm: 160, velocity_mm_s: 30}
base: {iso: 100, f_number: 8, exposure_s: 0.005, focus_m: 2.0}
rounds:
  - {name: gt, role: gt}
  - {name: iso6400, role: internal, set: {iso: 6400}, degradations: [noise]}
  - {name: rain, role: external, conditions: {rain: light}, degradations: [rain]}
"""


def plan_with(old: str = "", new: str = "") -> CapturePlan:
    return parse_yaml(PLAN.replace(old, new).encode(), CapturePlan, name="plan.yaml")


def test_a_round_inherits_what_it_does_not_change():
    plan = plan_with()

    settings = plan.settings(plan.rounds[1])

    assert (settings.iso, settings.f_number, settings.exposure_s, settings.focus_m) == (6400, 8, 0.005, 2.0)


def test_ground_truth_runs_at_a_third_of_the_speed_by_default():
    plan = plan_with()

    assert [plan.velocity_mm_s(r) for r in plan] == [10, 30, 30]


def test_a_forecast_counts_time_frames_and_pairs():
    """60 mm at 30 mm/s is 2 s or 60 frames at 30 Hz; ramps of 2.25 mm, margins of 2 mm, rests of 2 s.

    The move is 60 + 2·2.25 + 2·2 = 68.5 mm: 68.5/30 + 30/200 = 2.4333 s, with rests 6.4333 s.
    """
    expected = forecast(plan_with(), RigProfile.load("sim"))

    noise = expected.rounds[1]
    assert noise.uniform_s == pytest.approx(2.0)
    assert noise.duration_s == pytest.approx(6.4333, abs=1e-4)
    assert (noise.from_mm, noise.to_mm) == pytest.approx((95.75, 164.25))
    assert noise.frames == 60
    assert noise.expected_pairs == 60
    assert expected.rounds[0].expected_pairs == 0


def test_blur_is_predicted_for_the_nearest_thing():
    """f = 35/35.9·1280 = 1247.9 px; 30 mm/s · 5 ms = 0.15 mm at 1500 mm: 0.1248 px."""
    expected = forecast(plan_with(), RigProfile.load("sim"))

    assert expected.rounds[1].blur_px == pytest.approx(0.1248, abs=1e-4)


def test_the_parallax_limit_follows_from_the_depth_range():
    """0.25 px / (1247.9 px · (1/1500 - 1/4000) 1/mm) = 0.4808 mm."""
    expected = forecast(plan_with(), RigProfile.load("sim"))

    assert expected.parallax_limit_mm == pytest.approx(0.4808, abs=1e-4)


def test_a_speed_above_the_cap_is_refused_for_safety():
    plan = plan_with("velocity_mm_s: 30", "velocity_mm_s: 130")

    with pytest.raises(EnvelopeError, match=r"round iso6400: .*130.*120"):
        require_runnable(forecast(plan, RigProfile.load("sim")))


def test_a_sweep_whose_run_up_leaves_the_soft_limits_is_refused_for_safety():
    plan = plan_with("start_mm: 100", "start_mm: 6")

    with pytest.raises(EnvelopeError, match=r"round gt: .*3\.75"):
        require_runnable(forecast(plan, RigProfile.load("sim")))


def test_a_condition_that_the_rig_cannot_set_is_named_with_those_it_can():
    plan = plan_with("{rain: light}", "{hail: light}")

    with pytest.raises(PlanError, match=r"no condition 'hail'; it has: haze, light, rain, raindrop"):
        require_runnable(forecast(plan, RigProfile.load("sim")))


def test_an_exposure_longer_than_a_frame_is_refused():
    plan = plan_with("exposure_s: 0.005", "exposure_s: 0.05")

    with pytest.raises(PlanError, match="longer than a frame"):
        require_runnable(forecast(plan, RigProfile.load("sim")))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("role: gt}", "role: gt, degradations: [noise]}", "a gt round has no degradations"),
        ("name: rain", "name: iso6400", "round name 'iso6400' stands twice"),
        ("{name: gt, role: gt}", "{name: x, role: internal}", "first round must have role gt"),
        ("end_mm: 160", "end_mm: 100", "the same place"),
        ("scene: shelf", "scene: ../shelf", "scene: string should match pattern"),
        ("[noise]", "[nois]", "input should be 'noise'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(old: str, new: str, expected: str):
    with pytest.raises(InvalidDocumentError) as caught:
        plan_with(old, new)

    assert expected in str(caught.value)


def test_stop_and_shoot_stands_at_both_ends_and_evenly_between():
    """60 mm in steps of at most 25 mm are 3 steps of 20 mm: 4 stills."""
    plan = plan_with(
        "{name: gt, role: gt}", "{name: gt, role: gt, stop_and_shoot: {step_mm: 25, settle_s: 1}}"
    )

    record = plan.round_records(acceleration_mm_s2=200)[0]

    assert record.stops_mm == (100, 120, 140, 160)
    assert record.settle_s == 1


def test_stop_and_shoot_takes_its_time():
    """Three moves of 20 mm at 120 mm/s and 200 mm/s² have no plateau: 2·sqrt(20/200) = 0.6325 s each.

    Four stills of 1 s standstill, 5 ms exposure and 2 s allowance: 4·3.005 s.
    """
    plan = plan_with(
        "{name: gt, role: gt}", "{name: gt, role: gt, stop_and_shoot: {step_mm: 25, settle_s: 1}}"
    )

    gt = forecast(plan, RigProfile.load("sim")).rounds[0]

    assert gt.duration_s == pytest.approx(3 * 0.632456 + 4 * 3.005, abs=1e-4)
    assert (gt.frames, gt.blur_px) == (4, 0)


def test_a_session_longer_than_its_longest_time_is_told_before_it_begins():
    """The three rounds take 40 s or 0.0111 h: 0.01 h is 36 s, 0.02 h is 72 s."""

    def warned(longest_h: float) -> list[str]:
        plan = plan_with("schema: 1", f"schema: 1\nlongest_h: {longest_h}")
        return [w for w in forecast(plan, RigProfile.load("sim")).warnings if "longest_h" in w]

    assert warned(0.01) == ["about 0.0111 h: the session ends resumably after 0.01 h (longest_h)"]
    assert warned(0.02) == []


def test_passes_become_rounds_of_their_own_and_a_closing_gt_the_last():
    plan = plan_with("role: gt}", "role: gt, passes: 3}")
    plan = plan.model_copy(update={"closing_gt": True})

    assert [r.name for r in plan] == ["gt", "gt-2", "gt-3", "iso6400", "rain", "gt-close"]
    assert [r.number for r in plan.round_records(acceleration_mm_s2=200)] == [1, 2, 3, 4, 5, 6]


def test_a_session_keeps_the_speed_that_the_rail_makes_of_the_one_asked_for():
    """10 and 30 mm/s on a rail that does multiples of 7 mm/s."""
    records = plan_with().round_records(acceleration_mm_s2=200, realised_mm_s=lambda v: 7.0 * round(v / 7))

    assert [r.sweep.velocity_mm_s for r in records if r.sweep] == [7, 28, 28]


def test_a_sweep_that_the_drive_would_do_otherwise_violates_the_plan():
    """240 mm a revolution are 4 mm/s a rpm: 30 mm/s become 32, 6.7 % more."""
    profile = RigProfile.load("sim")
    rail = ModbusRailSettings.model_validate(
        {
            "kind": "modbus",
            "drive": "leadshine-rs",
            "port": "/dev/null",
            "lead_mm": 240,
            **profile.rail.model_dump(include=set(TravelSettings.model_fields)),
        }
    )

    violations = forecast(plan_with(), profile.model_copy(update={"rail": rail})).violations

    assert any("its speeds are whole rpm" in v.message for v in violations)


def test_the_gap_between_the_frames_of_a_pair_follows_from_speed_and_rate():
    """GT at 10 mm/s and 30 Hz stands 0.3333 mm apart: at most 0.1667 mm away, 0.25·0.1667/0.4808 = 0.0867 px."""
    noise = forecast(plan_with(), RigProfile.load("sim")).rounds[1]

    assert noise.largest_gap_mm == pytest.approx(1 / 6)
    assert noise.largest_parallax_px == pytest.approx(0.0867, abs=1e-4)


def test_a_round_that_comes_out_brighter_is_pointed_out():
    """ISO 6400 against 100 is 6 stops; low light on purpose is nobody's mistake."""
    brighter = forecast(plan_with(), RigProfile.load("sim"))
    on_purpose = forecast(plan_with("[noise]", "[noise, low_light]"), RigProfile.load("sim"))

    assert brighter.warnings == (
        "round iso6400: 6.0 EV brighter than the base; compensate with exposure_s or iso",
    )
    assert on_purpose.warnings == ()


def calibrated(**changes: object) -> StoredCalibration:
    """A lens of one picture width, a shutter of 15 ms, 8000 electrons at ISO 100 and 4 of read noise."""
    known = {
        "rig": "sim",
        "camera": "main",
        "session": "one",
        "recorded_utc_us": 0,
        "width": 640,
        "height": 360,
        "lens": {
            "focal_px": exactly(640.0),
            "focal_source": "boards",
            "principal_px": (exactly(319.5), exactly(179.5)),
            "distortion_k1": exactly(0.0),
        },
        "readout": {"readout_s": exactly(0.015)},
        "noise": [{"iso": 100, "electrons_at_white": exactly(8000.0), "read_noise_e": exactly(4.0)}],
    }
    return StoredCalibration("c0ffee" * 10, Path("unused.json"), Calibration.model_validate(known | changes))


def exactly(value: float) -> dict[str, float]:
    return {"value": value, "sigma": 0.0, "count": 1}


COMPENSATED = ("set: {iso: 6400}", "set: {iso: 6400, exposure_s: 0.000078125}")


def test_a_calibrated_lens_stands_in_for_the_data_sheets():
    """f = 1280 px at 1280 px of width: 30 mm/s · 5 ms · 1280/1500 px per mm = 0.128 px."""
    rain = forecast(plan_with(), RigProfile.load("sim"), calibration=calibrated()).rounds[2]

    assert rain.blur_px == pytest.approx(30 * 0.005 * 1280 / 1500)


def test_calibrated_noise_tells_what_a_mid_tone_pixel_will_scatter_by():
    """At a light of 0.18 BT.709 rises by 323.95 codes: √(1440 + 16)/8000 and √(22.5 + 16)/125 of it, and rounding.

    Noise of 28 % of the light meets the curve's bend: some per cent more.
    """
    expected = forecast(plan_with(*COMPENSATED), RigProfile.load("sim"), calibration=calibrated())

    clean, noisy, rain = (r.noise_codes for r in expected.rounds)
    assert (clean, rain) == pytest.approx((1.572, 1.572), rel=0.005)
    assert noisy == pytest.approx(16.08, rel=0.06)
    assert expected.calibration == "c0ffee" * 10
    assert forecast(plan_with(), RigProfile.load("sim")).rounds[0].noise_codes is None


def test_a_noise_round_that_will_hardly_be_noisy_is_pointed_out():
    """ISO 200 has √2 times the noise of ISO 100: less than twice."""
    mild = plan_with("set: {iso: 6400}", "set: {iso: 200, exposure_s: 0.0025}")

    warnings = forecast(mild, RigProfile.load("sim"), calibration=calibrated()).warnings
    strong = forecast(plan_with(*COMPENSATED), RigProfile.load("sim"), calibration=calibrated()).warnings

    assert warnings == (
        "round iso6400: 2.2 codes of noise against 1.6 of the ground truth by the calibration; raise iso and shorten "
        "exposure_s",
    )
    assert strong == ()


def test_a_rolling_shutter_adds_its_rows_way_to_the_gap():
    """15 ms at 30 less 10 mm/s is 0.3 mm, over the rows 0.3/√12 = 0.0866 mm; √(1/36 + 0.0075) = 0.1878 mm."""
    rain = forecast(plan_with(), RigProfile.load("sim"), calibration=calibrated()).rounds[2]

    assert rain.readout_gap_mm == pytest.approx(0.3)
    assert rain.largest_parallax_px == pytest.approx(0.18782 * 1280 * (1 / 1500 - 1 / 4000), rel=1e-4)


def test_rows_that_are_read_too_far_apart_are_pointed_out():
    """90 ms would be 1.8 mm, over the rows 0.52 mm: beyond a limit of 0.469 mm, by the shutter more than by the gap."""
    slow = calibrated(readout={"readout_s": exactly(0.09)})

    warnings = forecast(plan_with(*COMPENSATED), RigProfile.load("sim"), calibration=slow).warnings

    assert len(warnings) == 2
    assert warnings[0].startswith(
        "round iso6400: while the shutter reads the rows the carriage goes 1.80 mm farther"
    )


def test_the_dry_run_takes_the_rigs_newest_calibration(tmp_path: Path):
    stored = store_calibration(calibrated().calibration, tmp_path)
    (tmp_path / "plan.yaml").write_text(PLAN)
    command = ["plan", str(tmp_path / "plan.yaml"), "--profile", "sim", "--data", str(tmp_path)]

    words = CliRunner().invoke(app, command)
    document = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)

    assert f"by calibration {stored.hash[:12]}" in words.stdout
    assert document["calibration"] == stored.hash
    assert document["rounds"][0]["noise_codes"] == pytest.approx(1.572, rel=0.005)


def test_a_simulated_board_too_small_for_its_distance_is_pointed_out():
    """A marker of 4x4 bits has 6 modules: 45 and 60 mm are modules of 7.5 and 10 mm.

    At 1247.9 px of focal length they reach 1247.9·7.5/6 = 1560 and 2080 mm; at 1900 mm 7.5 mm cover 4.93 px.
    """
    profile = RigProfile.load("sim")
    assert profile.simulation is not None
    near = profile.simulation.model_copy(update={"board_depths_mm": (1900.0, 2000.0)})

    warnings = list(board_warnings(profile.model_copy(update={"simulation": near})))

    assert len(warnings) == 1
    assert warnings[0].startswith("board 1: its modules cover 4.9 px at 1900 mm, fewer than 6")
    assert "within 1560 mm" in warnings[0]


def test_travel_counts_the_ways_back():
    """First to 97.83 (run-up 0.25, margin 2), sweep of 64.5; back 66.5 mm to 95.75, sweep of 68.5; 68.5 twice."""
    expected = forecast(plan_with(), RigProfile.load("sim"))

    assert expected.travel_mm == pytest.approx(97.75 + 64.5 + 66.5 + 68.5 + 68.5 + 68.5)


def test_the_operator_learns_beforehand_what_to_do():
    profile = RigProfile.load("sim")
    by_hand = {**profile.model_dump()["conditions"], "rain": {"kind": "operator"}}
    profile = RigProfile.model_validate({**profile.model_dump(by_alias=True), "conditions": by_hand})
    plan = plan_with("degradations: [rain]}", "degradations: [rain]}\n  - {name: last, role: gt}")

    steps = forecast(plan, profile).operator_steps

    assert steps == ("before round 3 (rain): set rain to light", "before round 4 (last): set rain to off")


def test_a_guard_acts_as_the_plan_says_for_it_or_for_all():
    plan = plan_with("schema: 1", "schema: 1\nguards: {on_fail: void, actions: {battery: warn, ripple: off}}")

    assert [plan.guards.action(g) for g in ("battery", "ripple", "light")] == ["warn", "off", "void"]


def test_an_unquoted_on_or_off_is_a_level():
    plan = plan_with("{rain: light}", "{rain: on, haze: off}")

    assert plan.rounds[2].conditions == {"rain": "on", "haze": "off"}
