"""Noise, gain and codes of the simulated sensor against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from catalog.session_folder import ExposureSettings
from rig.errors import SceneError
from rig.profile import Exposure, SimulationSpec
from rig.sim.sensor import (
    SensorState,
    bt709_code,
    complete,
    develop,
    expose,
    sensor_state,
    srgb_code,
)

SPEC = SimulationSpec(full_well_e=8000, read_noise_e=4)
NEUTRAL = (1.0, 1.0, 1.0)


def flat(light: float, size: int = 256) -> np.ndarray:
    return np.full((size, size, 3), light, np.float32)


def electrons(light: float, state: SensorState, *, seed: int) -> np.ndarray:
    return expose(flat(light), state, seed=seed).astype(np.float64) * state.clip_e


@pytest.mark.parametrize("mean_e", [0.0, 0.5, 4.0, 22.5, 1440.0])
def test_noise_has_the_moments_of_poisson_plus_read_noise(mean_e):
    """Mean e, variance e + 16, third moment e. 196608 samples: 4 sigma of the mean is 4 s/443, of the
    variance 4 s^2 sqrt(2)/443, of the third moment 4 s^3 sqrt(15)/443."""
    state = SensorState(electrons_per_unit=8000, clip_e=8000, read_noise_e=4, gains=NEUTRAL)

    counted = electrons(mean_e / 8000, state, seed=5)

    variance = mean_e + 16
    deviation = counted - mean_e
    assert deviation.mean() == pytest.approx(0, abs=4 * variance**0.5 / 443)
    assert (deviation**2).mean() == pytest.approx(variance, abs=4 * variance * 2**0.5 / 443 + 1 / 18)
    assert (deviation**3).mean() == pytest.approx(mean_e, abs=4 * variance**1.5 * 15**0.5 / 443)


def test_without_read_noise_whole_electrons_are_counted():
    """Poisson of mean 3: exp(-3) = 4.979 % of the samples are empty, +-0.2 % at 4 sigma."""
    state = SensorState(electrons_per_unit=8000, clip_e=8000, read_noise_e=0, gains=NEUTRAL)

    counted = np.round(electrons(3 / 8000, state, seed=5), 3)

    np.testing.assert_array_equal(counted, np.round(counted))
    assert (counted == 0).mean() == pytest.approx(0.04979, abs=0.002)


def test_noise_is_repeated_by_its_seed_and_new_with_the_next():
    """Of 196608 independent pairs, the correlation's standard deviation is 0.0023."""
    state = sensor_state(SPEC, Exposure())

    first, again, other = (electrons(0.2, state, seed=s) for s in (7, 7, 8))

    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.01


def test_noise_is_white_within_a_frame():
    """Neighbours, also across colours, are independent: correlations within 4 / sqrt(65000) = 0.016."""
    noise = electrons(0.2, sensor_state(SPEC, Exposure()), seed=3) - 1600

    for shifted in (np.roll(noise, 1, axis=1), np.roll(noise, 1, axis=0), np.roll(noise, 1, axis=2)):
        assert abs(np.corrcoef(noise.ravel(), shifted.ravel())[0, 1]) < 0.016


def test_high_iso_at_the_same_brightness_has_fewer_photons():
    """ISO 6400 at 1/64 of the time: same signal, electrons and clipping 1/64."""
    base = sensor_state(SPEC, Exposure())
    fast = sensor_state(SPEC, Exposure(iso=6400, exposure_s=0.005 / 64))

    assert base.electrons_per_unit == pytest.approx(8000)
    assert fast.electrons_per_unit == pytest.approx(125)
    assert fast.clip_e == pytest.approx(125)
    np.testing.assert_allclose(expose(flat(0.3), fast, seed=None), 0.3, rtol=1e-5)


def test_two_stops_of_aperture_are_a_quarter_of_the_light():
    state = sensor_state(SPEC, Exposure(f_number=16))

    np.testing.assert_allclose(expose(flat(0.4), state, seed=None), 0.1, rtol=1e-5)


def test_unknown_settings_come_from_the_metered_exposure():
    metered = Exposure(iso=200, focus_m=1.5)

    assert complete(ExposureSettings(iso=400), metered) == Exposure(iso=400, focus_m=1.5)


def test_an_unknown_white_balance_is_refused_with_the_known_ones():
    with pytest.raises(SceneError, match="daylight"):
        sensor_state(SPEC, Exposure(white_balance="moonlight"))


@pytest.mark.parametrize(
    ("light", "code"),
    [(0.0, 0), (0.01, 11), (0.018, 21), (0.18, 104), (0.5, 180), (1.0, 255), (1.7, 255), (-0.1, 0)],
)
def test_movie_codes_follow_bt709(light, code):
    """4.5 L below 0.018, 1.099 L^0.45 - 0.099 above: 0.18 gives 0.4090, code 104.3."""
    assert (develop(flat(light, 4), NEUTRAL, "bt709") == code).all()


@pytest.mark.parametrize(("light", "code"), [(0.0, 0), (0.18, 118), (0.5, 188), (1.0, 255)])
def test_still_codes_follow_srgb(light, code):
    """1.055 L^(1/2.4) - 0.055: 0.18 gives 0.4614, code 117.65."""
    assert (develop(flat(light, 4), NEUTRAL, "srgb") == code).all()


def test_tone_curves_meet_their_linear_parts():
    np.testing.assert_allclose(bt709_code(np.array([0.018 - 1e-9, 0.018])), 0.081, atol=3e-4)
    np.testing.assert_allclose(srgb_code(np.array([0.0031308, 0.0031309])), 0.04045, atol=1e-4)


def test_white_balance_scales_after_the_sensor_has_clipped():
    """A clipped red of 1 under tungsten balance comes out at 0.65, not at 0.65 of what shone."""
    codes = develop(flat(3.0, 4), (0.65, 1.0, 1.6), "bt709")

    assert codes[0, 0].tolist() == [round(255 * (1.099 * 0.65**0.45 - 0.099)), 255, 255]
