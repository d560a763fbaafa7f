"""Phases, speed and positions from noisy tracks whose truth is a formula."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.correction import PositionCorrection
from alignment.errors import NoMotionError
from alignment.velocity import (
    Kinematics,
    Track,
    cruise_positions,
    fit_kinematics,
    guess_kinematics,
    match_clock,
    telemetry_track,
)

FRAME_S = 1 / 30
SLOW = Kinematics("trapezoid", start_s=0.5, ramp_s=0.1, cruise_s=2.6, velocity_mm_s=13.0, rest_mm=3.0)
FAST = Kinematics("trapezoid", start_s=0.8, ramp_s=0.25, cruise_s=1.0, velocity_mm_s=-40.0, rest_mm=50.0)
SMOOTH = Kinematics("s_curve", start_s=0.5, ramp_s=0.5, cruise_s=1.5, velocity_mm_s=30.0, rest_mm=0.0)


def track_of(truth: Kinematics, *, noise_mm: float = 0.02, jitter_mm: float = 0.0, seed: int = 0) -> Track:
    rng = np.random.default_rng(seed)
    time = np.arange(int((truth.stop_s + 0.6) / FRAME_S)) * FRAME_S + 0.001
    moving = (time > truth.start_s) & (time < truth.stop_s)
    position = truth.position(time) + jitter_mm * rng.normal(size=len(time)) * moving
    measured = position + noise_mm * rng.normal(size=len(time))
    return Track(np.arange(len(time)), time, measured, np.full(len(time), noise_mm))


@pytest.mark.parametrize("profile", ["trapezoid", "s_curve"])
def test_a_profile_covers_its_ramps_and_its_cruise(profile: str):
    """Half the speed over each ramp: 40 mm/s over 0.25 s twice and 1 s is 50 mm."""
    motion = Kinematics(profile, 0.8, 0.25, 1.0, 40.0, 10.0)

    assert motion.position(np.array([0.0, 0.8, 1.05, 1.55, 2.05, 2.3, 9.0])) == pytest.approx(
        [10, 10, 15, 35, 55, 60, 60]
    )


@pytest.mark.parametrize("truth", [SLOW, FAST, SMOOTH], ids=["slow", "fast backwards", "s-curve"])
@pytest.mark.parametrize("seed", range(3))
def test_change_times_and_speed_are_found(truth: Kinematics, seed: int):
    """Goals: change times to 5 ms in the median, a frame at worst; speed to 0.2 % over so short a run."""
    fit = fit_kinematics(track_of(truth, seed=seed), fit_scale_mm=0.5)

    found = fit.kinematics
    tolerance = 0.012 if truth.profile == "trapezoid" else FRAME_S
    assert found.cruise_start_s == pytest.approx(truth.cruise_start_s, abs=tolerance)
    assert found.cruise_end_s == pytest.approx(truth.cruise_end_s, abs=tolerance)
    assert found.velocity_mm_s == pytest.approx(truth.velocity_mm_s, rel=2e-3)


def test_an_s_curve_is_told_from_a_trapezoid():
    assert fit_kinematics(track_of(SMOOTH, noise_mm=0.01), fit_scale_mm=0.5).kinematics.profile == "s_curve"
    long_ramp = Kinematics("trapezoid", 0.5, 0.5, 1.5, 30.0, 0.0)
    found = fit_kinematics(track_of(long_ramp, noise_mm=0.01), fit_scale_mm=0.5)
    assert found.kinematics.profile == "trapezoid"


def test_wild_frames_do_not_pull_the_fit():
    """Every tenth frame is off by 5 mm."""
    clean = track_of(SLOW)
    spoiled = clean.position_mm.copy()
    spoiled[::10] += 5.0

    fit = fit_kinematics(
        Track(clean.frame_index, clean.time_s, spoiled, clean.sigma_mm), fit_scale_mm=0.5
    ).kinematics

    assert fit.velocity_mm_s == pytest.approx(13.0, rel=5e-3)
    assert fit.cruise_start_s == pytest.approx(SLOW.cruise_start_s, abs=FRAME_S)


def test_lost_frames_do_not_matter():
    whole = track_of(SLOW)
    keep = np.random.default_rng(3).random(len(whole.time_s)) > 0.4

    fit = fit_kinematics(
        Track(whole.frame_index[keep], whole.time_s[keep], whole.position_mm[keep], whole.sigma_mm[keep]),
        fit_scale_mm=0.5,
    ).kinematics

    assert fit.velocity_mm_s == pytest.approx(13.0, rel=2e-3)


def test_the_guard_is_two_frames_at_least():
    fit = fit_kinematics(track_of(SLOW, noise_mm=0.002), fit_scale_mm=0.5)

    begin, end = fit.cruise(FRAME_S)

    assert begin - fit.kinematics.cruise_start_s == pytest.approx(2 * FRAME_S)
    assert fit.kinematics.cruise_end_s - end == pytest.approx(2 * FRAME_S)


@pytest.mark.parametrize(("noise_mm", "jitter_mm"), [(0.05, 0.0), (0.005, 0.05)], ids=["noise", "jitter"])
def test_noise_is_smoothed_away_but_jitter_is_kept(noise_mm: float, jitter_mm: float):
    """The error left is below the noise in the one case, and far below the jitter in the other."""
    rng_seed, track = 5, track_of(SLOW, noise_mm=noise_mm, jitter_mm=jitter_mm, seed=5)
    rng = np.random.default_rng(rng_seed)
    moving = (track.time_s > SLOW.start_s) & (track.time_s < SLOW.stop_s)
    truth = SLOW.position(track.time_s) + jitter_mm * rng.normal(size=len(moving)) * moving
    fit = fit_kinematics(track, fit_scale_mm=0.5)

    placed = cruise_positions(track, fit, frame_index=track.frame_index, time_s=track.time_s, frame_s=FRAME_S)

    error = np.std(placed.position_mm - truth[placed.frame_index])
    assert error < (0.6 * noise_mm if not jitter_mm else 0.2 * jitter_mm)
    assert 0.8 * error < placed.sigma_mm.mean() < 0.6 * max(noise_mm, jitter_mm)


def test_frames_without_a_measurement_lie_on_the_line():
    track = track_of(SLOW)
    keep = track.frame_index != 60
    partial = Track(
        track.frame_index[keep], track.time_s[keep], track.position_mm[keep], track.sigma_mm[keep]
    )
    fit = fit_kinematics(partial, fit_scale_mm=0.5)

    placed = cruise_positions(
        partial, fit, frame_index=track.frame_index, time_s=track.time_s, frame_s=FRAME_S
    )

    at_60 = placed.frame_index == 60
    assert placed.position_mm[at_60] == pytest.approx(SLOW.position(track.time_s[60:61]), abs=0.02)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_rails_clock_is_matched_by_the_motion_both_saw(direction: float):
    """The rail's clock is 50.4 s ahead and its coordinate runs from 100 mm, either way."""
    fit = fit_kinematics(track_of(SLOW), fit_scale_mm=0.5)
    time = np.arange(0, 4, 0.05)
    rail = 100 + direction * SLOW.position(time)

    reports = telemetry_track(telemetry_time_s=time + 50.4, telemetry_mm=rail)
    match = match_clock(fit, reports, fit_scale_mm=0.5)

    assert match.offset_s == pytest.approx(50.4, abs=0.005)
    assert match.position_mm == pytest.approx(SLOW.position(match.time_s), abs=0.05)


def test_a_rail_that_stood_still_is_reported():
    still = Track(
        np.arange(60), np.arange(60) / 30, np.random.default_rng(0).normal(0, 0.02, 60), np.full(60, 0.02)
    )

    with pytest.raises(NoMotionError, match="noise"):
        fit_kinematics(still, fit_scale_mm=0.5)


def test_the_first_guess_is_near():
    guess = guess_kinematics(track_of(FAST))

    assert guess.velocity_mm_s == pytest.approx(-40, rel=0.05)
    assert guess.start_s == pytest.approx(0.8, abs=0.1)


def test_a_correction_follows_its_samples_and_is_flat_far_away():
    """Samples of 0.5 mm everywhere, one of them wild."""
    where = np.arange(0, 50, 5.0)
    found = np.full(10, 0.5)
    found[4] = 9.0
    correction = PositionCorrection(where, found, np.full(10, 0.02))

    assert correction.at(np.array([-100.0, 0.0, 22.0, 300.0])) == pytest.approx([0.5] * 4, abs=0.02)
    assert PositionCorrection.none().at(np.array([1.0, 2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_ramps_between_two_frames_leave_the_uniform_motion_known(seed: int):
    """Of ramps of 0.09 s a live check that looks every 0.133 s sees nothing; it knows between which frames they are."""
    motion = Kinematics(
        "trapezoid", start_s=0.82, ramp_s=0.09, cruise_s=10.2, velocity_mm_s=20.0, rest_mm=0.0
    )
    time = np.arange(90) * 4 / 30
    noise = 0.02 * np.random.default_rng(seed).normal(size=90)
    track = Track(np.arange(90), time, motion.position(time) + noise, np.full(90, 0.02))

    begin_s, end_s = fit_kinematics(track, fit_scale_mm=0.4).cruise(4 / 30)

    assert 0.91 <= begin_s < 1.4
    assert 10.7 < end_s <= 11.11
