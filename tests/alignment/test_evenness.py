"""Shaking of the carriage, told from noise and from slow turns of the camera."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from alignment.evenness import shaking
from alignment.velocity import CruisePositions, Track

Array = NDArray[np.float64]
TIME_S = np.arange(150) / 30.0
PLACE_MM = 40.0 * TIME_S
NOISE_MM, TURN_MM, LEAST_MM = 0.02, 0.3, 0.2


def shaken(off_mm: Array, course: Array = TIME_S, noise_mm: float = NOISE_MM) -> tuple[float, float]:
    """Measure a carriage that goes 200 mm and is off its uniform motion by so much."""
    index = np.arange(len(off_mm))
    noise = np.random.default_rng(1).normal(0, noise_mm, len(off_mm))
    sigma_mm = np.full(len(off_mm), noise_mm)
    track = Track(index, TIME_S, PLACE_MM + off_mm + noise, sigma_mm)
    cruise = CruisePositions(index, TIME_S, PLACE_MM, sigma_mm, noise_mm, 0.0, float(np.std(off_mm)))
    found = shaking(track, cruise, course, turn_mm=TURN_MM, least_mm=LEAST_MM)
    return found.sd_mm, found.autocorrelation


@pytest.mark.parametrize("course", [TIME_S, PLACE_MM], ids=["by time", "by commanded places"])
def test_bends_of_the_rail_are_not_shaking(course: Array):
    bends_mm = 0.4 * np.sin(2 * np.pi * PLACE_MM / 60) + 0.3 * np.cos(2 * np.pi * PLACE_MM / 170)

    sd_mm, _ = shaken(bends_mm, course)

    assert sd_mm < 0.05


@pytest.mark.parametrize("period_mm", [5.0, 10.0, 20.0])
def test_stick_slip_is_measured_in_full(period_mm: float):
    """A sawtooth of height a has the standard deviation a/√12; by a share τ of its period it correlates 1-6τ(1-τ)."""
    slips_mm = 1.5 * (PLACE_MM / period_mm % 1 - 0.5)
    frame = 40.0 / 30.0 / period_mm

    sd_mm, autocorrelation = shaken(slips_mm)

    assert sd_mm == pytest.approx(1.5 / np.sqrt(12), rel=0.15)
    assert autocorrelation == pytest.approx(1 - 6 * frame * (1 - frame), abs=0.15)


def test_stick_slip_is_found_on_a_bent_rail_as_on_a_straight_one():
    slips_mm = 1.5 * (PLACE_MM / 10 % 1 - 0.5)
    bends_mm = 0.4 * np.sin(2 * np.pi * PLACE_MM / 80)

    assert shaken(slips_mm + bends_mm)[0] == pytest.approx(shaken(slips_mm)[0], rel=0.1)


def test_noise_is_no_shaking():
    assert shaken(np.zeros_like(TIME_S), noise_mm=0.3)[0] == 0.0


def test_any_place_and_any_speed_will_do():
    slips_mm = 1.5 * (PLACE_MM / 20 % 1 - 0.5)

    assert shaken(slips_mm + 50.0 + 0.3 * PLACE_MM) == pytest.approx(shaken(slips_mm), rel=0.05)
