"""Steps and stalls that the rail does not know of, against everything that looks a little like them.

All takes: 100 mm at 40 mm/s with 200 mm/s² from 1 s on, so ramps of 0.2 s and 2.3 s of uniform motion, frames at 10 Hz.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from alignment.lost_way import Commanded, LostWay, find_lost_way
from alignment.takes import TakeSource
from alignment.velocity import Kinematics, Track
from catalog.session_folder import CameraTake, ColourTags, ExposureSettings, RoundRecord, SweepRecord

Series = NDArray[np.float64]
MOTION = Kinematics("trapezoid", start_s=1.0, ramp_s=0.2, cruise_s=2.3, velocity_mm_s=40.0, rest_mm=5.0)
TOLD = Commanded(100.0, 40.0, 200.0)
TIME_S = np.arange(0.0, 5.0, 0.1)
TURN_MM = 0.25


def seen(off_mm: Series | float = 0.0, *, noise_mm: float = 0.1, seed: int = 1) -> Track:
    noise = np.random.default_rng(seed).normal(size=len(TIME_S)) * noise_mm
    sigma_mm = np.full(len(TIME_S), noise_mm)
    return Track(np.arange(len(TIME_S)), TIME_S, MOTION.position(TIME_S) + off_mm + noise, sigma_mm)


def found(track: Track, told: Commanded = TOLD, motion: Kinematics = MOTION) -> LostWay:
    lost = find_lost_way(track, motion, told, turn_mm=TURN_MM)
    assert lost is not None
    return lost


@pytest.mark.parametrize("size_mm", [-2.0, -1.2, 1.2])
@pytest.mark.parametrize("at_s", [1.55, 2.35, 3.25])
def test_a_step_is_found_with_its_size_and_moment(size_mm: float, at_s: float):
    lost = found(seen(size_mm * (at_s < TIME_S)))

    assert lost.is_sure
    assert lost.size_mm == pytest.approx(size_mm, abs=4 * lost.sigma_mm)
    assert lost.at_s == pytest.approx(at_s, abs=0.11)


@pytest.mark.parametrize("missing_mm", [1.2, 2.0, 30.0])
def test_a_stall_is_found_by_the_way_that_is_missing_at_its_end(missing_mm: float):
    stalled = np.minimum(MOTION.position(TIME_S), 105.0 - missing_mm)

    lost = found(seen(stalled - MOTION.position(TIME_S)))

    assert lost.is_sure
    assert lost.size_mm == pytest.approx(-missing_mm, rel=0.15, abs=4 * lost.sigma_mm)


def test_a_motion_towards_smaller_positions_is_judged_alike():
    """Mirrored about its rest, 2 mm of missing way stay 2 mm of missing way."""
    track = seen(-2.0 * (TIME_S > 2.35))
    mirrored = replace(track, position_mm=10.0 - track.position_mm)

    lost = found(mirrored, motion=replace(MOTION, velocity_mm_s=-40.0))

    assert lost.size_mm == pytest.approx(found(track).size_mm, abs=1e-3)
    assert lost.is_sure


def test_noise_alone_makes_no_loss():
    """Of 80 takes 0.06 would be called spoiled by chance."""
    sure = [seed for seed in range(80) if found(seen(seed=seed, noise_mm=0.3)).is_sure]

    assert sure == []


WAY_MM = MOTION.position(TIME_S) - MOTION.rest_mm
HARMLESS: dict[str, Series] = {
    "the rail begins elsewhere": np.full(len(TIME_S), 7.0),
    "the board is printed 0.8 % too large": 0.008 * WAY_MM,
    "the camera turns along a bend 80 mm long": 0.4 * np.sin(2 * np.pi * WAY_MM / 80),
    "the camera nods to the end": 0.6 * (WAY_MM / 100) ** 2,
    "something stands in front of a board in two frames": 3.0 * np.isin(np.arange(len(TIME_S)), (22, 31)),
    "0.1 mm are lost, which is less than matters": -0.1 * (TIME_S > 2.35),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_no_loss_is_not_taken_for_one(what: str):
    sure = [seed for seed in range(10) if found(seen(HARMLESS[what], seed=seed)).is_sure]

    assert sure == []


def test_a_clock_that_begins_at_another_moment_is_no_loss():
    track = seen()
    later = replace(track, time_s=track.time_s + 12.34)

    assert not found(later, motion=replace(MOTION, start_s=13.3)).is_sure


def test_too_few_frames_tell_nothing():
    track = seen()
    few = Track(track.frame_index[:9], track.time_s[:9], track.position_mm[:9], track.sigma_mm[:9])

    assert find_lost_way(few, MOTION, TOLD, turn_mm=TURN_MM) is None


def source_with(
    rail_s: Series,
    rail_mm: Series,
    *,
    velocity_mm_s: float = 40.0,
    kind: Literal["movie", "stills"] = "movie",
    **changes: Any,
) -> TakeSource:
    sweep = SweepRecord(start_mm=9, end_mm=101, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=200)
    settings = ExposureSettings(exposure_s=0.002)
    camera = CameraTake(
        kind=kind,
        files=("main-01.mov",),
        frames_csv="main.frames.csv",
        width=1280,
        height=720,
        frame_count=len(TIME_S),
        measured_rate_hz=10.0,
        colour=ColourTags(),
        settings_read=settings,
    )
    record = RoundRecord(number=1, name="plain", role="internal", settings=settings, sweep=sweep)
    return TakeSource(
        round=record.model_copy(update=changes),
        take=1,
        folder=Path(),
        camera_name="main",
        camera=camera,
        time_s=TIME_S,
        start_t_host_s=0.0,
        telemetry_time_s=rail_s,
        telemetry_mm=rail_mm,
        files_sha256=(),
    )


def test_the_way_is_that_between_the_rails_rests_and_the_speed_the_commanded_one():
    told = Commanded.of(source_with(np.array([0.0, 5.0]), np.array([5.0, 105.0])))

    assert told == TOLD


def test_the_speed_is_the_rails_own_where_its_drive_does_not_keep_to_the_commanded_one():
    """A drive of whole rpm runs 40 mm/s where 41 were asked; two of its readings came 50 ms late."""
    rail_s = np.arange(0.0, 5.0, 0.05)
    rail_mm = MOTION.position(rail_s)
    late = rail_s + 0.05 * np.isin(np.arange(len(rail_s)), (35, 52))

    told = Commanded.of(source_with(late, rail_mm, velocity_mm_s=41.0))

    assert told is not None
    assert told.velocity_mm_s == pytest.approx(40.0, rel=1e-3)
    assert not found(seen(), told).is_sure


STOPS_MM = tuple(np.linspace(9, 101, len(TIME_S)).tolist())


@pytest.mark.parametrize("changes", [{"sweep": None}, {"kind": "stills", "stops_mm": STOPS_MM}])
def test_without_a_sweep_in_one_go_nothing_was_commanded(changes: dict[str, Any]):
    rail_s, rail_mm = np.array([0.0, 5.0]), np.array([5.0, 105.0])

    assert Commanded.of(source_with(rail_s, rail_mm, **changes)) is None


def test_a_slope_in_nearly_noiseless_positions_is_no_early_stall():
    """A camera that turns evenly, by 0.6 mm over the way; a stall in the middle would leave out 50 mm."""
    assert not found(seen(0.6 * WAY_MM / 100, noise_mm=0.002)).is_sure
    assert not found(seen(0.3 * np.sin(2 * np.pi * WAY_MM / 150), noise_mm=0.002)).is_sure
