"""A plan is frozen data: resolved, bounded and honest about what it will do."""

from __future__ import annotations

import pytest

from catalog.errors import InvalidDocumentError
from catalog.yaml_document import parse_yaml
from rig.errors import EnvelopeError, PlanError
from rig.forecast import forecast, require_runnable
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
