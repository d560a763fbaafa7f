"""Haze, blocked light, rain and drops on the glass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rig.errors import SceneError
from rig.sim.weather import AIRLIGHT, CONDITION_LEVELS, Weather, check_condition


def flat(light: float) -> np.ndarray:
    return np.full((360, 640, 3), light, np.float32)


def rained(weather: Weather, light: np.ndarray, *, seed: int = 1) -> np.ndarray:
    return weather.add_rain(light.copy(), focal_px=1250.0, exposure_s=0.005, seed=seed)


def test_haze_lets_through_by_koschmieder():
    """Moderate haze, 0.25/m: exp(-0.5) = 0.60653 at 2 m, the rest is airlight."""
    transmission, added = Weather({"haze": "moderate"}).veil(2000.0)

    assert transmission == pytest.approx(0.606531, abs=1e-6)
    assert added == pytest.approx([a * 0.393469 for a in AIRLIGHT], abs=1e-6)


def test_clear_air_changes_nothing():
    clear = Weather({"rain": "off", "haze": "off"})
    light = flat(0.3)

    assert clear.veil(4000.0) == (1.0, (0.0, 0.0, 0.0))
    assert clear.lamp(np.zeros(1), np.zeros(1)) is None
    assert clear.add_drops(clear.add_rain(light, focal_px=1250.0, exposure_s=0.005, seed=1)) is light


@pytest.mark.parametrize(
    ("level", "brightest", "darkest"), [("dim", 1 / 3, 1 / 5), ("blocked", 1 / 12, 1 / 20)]
)
def test_blocked_light_is_uneven_but_smooth_within_its_level(level, brightest, darkest):
    """Periods are above a metre: over 10 mm the light changes by less than 2 %."""
    x, y = np.arange(-1500.0, 1500.0, 10), np.arange(-800.0, 800.0, 10)

    share = Weather({"light": level}).lamp(x, y)

    assert share is not None
    assert share.shape == (160, 300)
    assert share.max() == pytest.approx(brightest, rel=0.02)
    assert share.min() == pytest.approx(darkest, rel=0.02)
    assert np.abs(np.diff(np.log(share), axis=1)).max() < 0.02


def test_airlight_is_as_dark_as_the_lamp():
    """Haze scatters the lamp's own light: with the lamp at sqrt(1/12 * 1/20), so is the veil."""
    _, lit = Weather({"haze": "heavy"}).veil(2000.0)
    _, dark = Weather({"haze": "heavy", "light": "blocked"}).veil(2000.0)

    assert dark[0] / lit[0] == pytest.approx(math.sqrt(1 / 240))


def test_rain_brightens_a_dark_scene_more_the_heavier_it_is():
    means = [rained(Weather({"rain": level}), flat(0.05)).mean() for level in CONDITION_LEVELS["rain"]]

    assert 0.05 < means[0] < means[1] < means[2] < 0.3


def test_rain_falls_anew_in_every_frame_and_the_same_for_the_same_seed():
    weather = Weather({"rain": "moderate"})

    first, again, next_ = (rained(weather, flat(0.05), seed=s) for s in (4, 4, 5))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - next_).max() > 0.05


def test_a_streak_is_as_long_as_a_drop_falls_during_the_exposure():
    """7 m/s for 5 ms is 35 mm, 31 px at 1250 px and 1.4 m; at 1/64 of the time it is a dot: the picture then
    has about as much vertical as horizontal detail, a long exposure has far less."""
    weather = Weather({"rain": "light"})
    detail = []
    for exposure_s in (0.005, 0.005 / 64):
        wet = weather.add_rain(flat(0.05), focal_px=1250.0, exposure_s=exposure_s, seed=2)[..., 0]
        detail.append(np.abs(np.diff(wet, axis=0)).sum() / np.abs(np.diff(wet, axis=1)).sum())

    assert detail[0] < 0.35
    assert detail[1] > 0.7


def test_drops_stay_on_the_glass_during_a_take_and_sit_elsewhere_in_the_next():
    ramp = np.repeat(np.linspace(0, 1, 640, dtype=np.float32)[None, :, None], 360, axis=0).repeat(3, axis=2)
    weather, next_take = (Weather({"raindrop": "moderate"}, take_seed=s) for s in (1, 2))

    first, again, other = weather.add_drops(ramp), weather.add_drops(ramp), next_take.add_drops(ramp)

    np.testing.assert_array_equal(first, again)
    touched = np.abs(first - ramp).max(axis=2) > 0.01
    assert 0.01 < touched.mean() < 0.4
    assert (touched != (np.abs(other - ramp).max(axis=2) > 0.01)).any()


def test_a_drop_shows_the_scene_upside_down():
    """Brightness grows to the right; through the middle row of a drop it falls."""
    ramp = np.repeat(np.linspace(0, 1, 640, dtype=np.float32)[None, :, None], 360, axis=0).repeat(3, axis=2)

    slope = np.diff(Weather({"raindrop": "light"}).add_drops(ramp)[..., 0], axis=1)

    assert (slope < -1 / 640).sum() > 500


@pytest.mark.parametrize(
    ("name", "level", "hint"),
    [("snow", "light", "rain, haze"), ("rain", "torrential", "off, light, moderate")],
)
def test_unknown_conditions_and_levels_are_refused_with_the_known_ones(name, level, hint):
    with pytest.raises(SceneError, match=hint):
        check_condition(name, level)
