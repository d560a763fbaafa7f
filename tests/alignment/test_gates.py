"""Gates: a good pair passes, and each spoiled number gives its own reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alignment.gates import (
    REASON_TEXTS,
    GateThresholds,
    PairMeasurements,
    RoundNorms,
    judge_motion,
    judge_pair,
    needs_registration,
)

LIMITS = GateThresholds()
NORMS = RoundNorms(gradient_ncc=0.8, gain=0.5)
GOOD = PairMeasurements(
    uniform=True,
    marker_share=0.98,
    parallax_px=0.1,
    overlap_share=0.97,
    predicted_epe_px=0.05,
    kinematics_px=0.1,
    kinematics_sigma_px=0.05,
    forward_backward_px=0.02,
    split_half_px=0.03,
    split_half_sigma_px=0.01,
    local_p90_px=0.2,
    masked_share=0.05,
    rotation_deg=0.02,
    gradient_ncc=0.75,
    clipped_white_share=0.01,
    clipped_black_share=0.01,
    gain=0.51,
    registered=True,
)


def reasons(pair: PairMeasurements, *, low_light: bool = False) -> tuple[str, ...]:
    return judge_pair(pair, thresholds=LIMITS, norms=NORMS, low_light=low_light)[1]


def test_a_good_pair_is_accepted_and_every_gate_reports_its_value():
    gates, found = judge_pair(GOOD, thresholds=LIMITS, norms=NORMS, low_light=False)

    assert found == ()
    assert gates["predicted_epe"] == 0.05
    assert gates["gain_change"] == pytest.approx(0.02)
    assert None not in gates.values()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"uniform": False}, "not_uniform"),
        ({"marker_share": 0.0}, "marker_lost"),
        ({"marker_share": 0.6}, "marker_occluded"),
        ({"parallax_px": 0.26}, "position_gap"),
        ({"overlap_share": 0.89}, "low_overlap"),
        ({"predicted_epe_px": 0.11}, "low_information"),
        ({"kinematics_px": 0.51}, "inconsistent"),
        ({"forward_backward_px": 0.11}, "unstable"),
        ({"split_half_px": 0.11}, "disagree"),
        ({"local_p90_px": 0.51, "depth_correlation": 0.9}, "parallax"),
        ({"local_p90_px": 0.51, "depth_correlation": 0.1}, "moving_object"),
        ({"masked_share": 0.31}, "moving_object"),
        ({"rotation_deg": 0.11}, "rig_disturbed"),
        ({"gradient_ncc": 0.39}, "bad_content"),
        ({"clipped_white_share": 0.06}, "exposure"),
        ({"clipped_black_share": 0.06}, "exposure"),
        ({"gain": 0.56}, "exposure"),
        ({"registered": False}, "no_structure"),
    ],
)
def test_a_spoiled_number_gives_its_reason(change: dict[str, object], reason: str):
    assert reasons(replace(GOOD, **change)) == (reason,)


@pytest.mark.parametrize(
    "change",
    [
        {"split_half_px": 0.14, "split_half_sigma_px": 0.05},  # three sigma are 0.15
        {"kinematics_px": 0.8, "kinematics_sigma_px": 0.3},  # three sigma are 0.9
        {"marker_share": None, "kinematics_px": None, "local_p90_px": None},  # not measurable is no fault
    ],
)
def test_what_is_within_its_own_uncertainty_passes(change: dict[str, object]):
    assert reasons(replace(GOOD, **change)) == ()


def test_a_dark_round_may_clip_black_and_err_more():
    dark = replace(GOOD, clipped_black_share=0.5, predicted_epe_px=0.19)

    assert reasons(dark, low_light=True) == ()
    assert reasons(dark) == ("low_information", "exposure")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"gain": 0.4}, ("exposure", "moving_object")),
        ({"predicted_epe_px": 0.12}, ("low_information", "moving_object")),
        ({"split_half_px": 0.2}, ("disagree",)),
        ({}, ()),
    ],
)
def test_a_masked_thing_is_named_beside_what_it_explains(change: dict[str, object], found: tuple[str, ...]):
    """A fifth of the picture is masked, which alone refuses nothing."""
    assert reasons(replace(GOOD, masked_share=0.2, **change)) == found


def test_consistency_never_allows_more_than_a_pixel():
    assert reasons(replace(GOOD, kinematics_px=1.1, kinematics_sigma_px=5.0)) == ("inconsistent",)


def test_a_pair_refused_by_its_place_is_not_registered_and_has_no_second_reason():
    far = PairMeasurements(uniform=True, marker_share=1.0, parallax_px=0.4)

    assert not needs_registration(far, thresholds=LIMITS)
    assert reasons(far) == ("position_gap",)


def test_norms_are_medians_over_what_could_be_measured():
    pairs = [replace(GOOD, gain=g) for g in (0.4, 0.5, 0.9)] + [replace(GOOD, gain=None, gradient_ncc=None)]

    assert RoundNorms.of(pairs) == RoundNorms(gradient_ncc=0.75, gain=0.5)
    assert RoundNorms.of([]) == RoundNorms(None, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ()),
        ({"velocity_mm_s": 40.5}, ("wrong_speed",)),
        ({"velocity_mm_s": -40.2}, ()),
        ({"velocity_mm_s": 80.0, "commanded_mm_s": None}, ()),
        ({"velocity_mm_s": 40.5, "angle_error": 0.02}, ()),
        ({"shaken_sd_px": 0.31}, ("not_uniform",)),
        ({"shaken_sd_px": 0.25, "autocorrelation": 0.6}, ("stick_slip",)),
        ({"shaken_sd_px": 0.05, "autocorrelation": 0.9}, ()),
    ],
)
def test_a_round_is_held_against_its_command_and_its_residual(
    change: dict[str, float | None], expected: tuple[str, ...]
):
    motion = {"velocity_mm_s": 40.1, "commanded_mm_s": 40.0, "shaken_sd_px": 0.05, "autocorrelation": 0.1}

    assert judge_motion(**(motion | change), thresholds=LIMITS) == expected


def test_every_reason_has_a_text():
    from typing import get_args

    from alignment.gates import Reason, RoundReason

    assert {*get_args(Reason), *get_args(RoundReason)} <= set(REASON_TEXTS)
