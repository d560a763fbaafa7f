"""What the simulated camera reuses from frame to frame and from round to round does not show in the picture."""

from __future__ import annotations

import numpy as np

from catalog.session_folder import ExposureSettings, LensSpec
from rig.profile import SimulationSpec
from rig.sim.sensor import SensorState, expose
from rig.sim.world import Shot, World

SPEC = SimulationSpec(width=320, height=192, covered_travel_mm=(0, 40))
LENS = LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000))


def standing(x_mm: float) -> np.ndarray:
    return np.array([[x_mm, 0.0, 0.0, 0.0, 0.0, 0.0]])


def test_a_picture_at_standstill_is_the_same_each_time_it_is_asked_for():
    """Exposing overwrites the light, so a kept picture that were handed out itself would be spoiled by the first."""
    world, shot = World(SPEC, LENS, (), "reuse"), Shot(ExposureSettings())

    first, again, elsewhere = (
        world.render(standing(x_mm), shot, frame_seed=None) for x_mm in (10.0, 10.0, 12.0)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, elsewhere)


def test_textures_kept_from_another_exposure_time_change_nothing_and_another_focus_is_blurred_anew():
    used, fresh = (World(SPEC, LENS, (), "reuse") for _ in range(2))
    long, short = Shot(ExposureSettings(exposure_s=0.005)), Shot(ExposureSettings(exposure_s=0.0025))
    soft = Shot(ExposureSettings(exposure_s=0.0025, focus_m=0.9))
    used.render(standing(10.0), long, frame_seed=None)

    for shot in (short, soft):
        kept = used.render(standing(10.0), shot, frame_seed=None)
        assert np.array_equal(kept, fresh.render(standing(10.0), shot, frame_seed=None))
    assert used.prepare(short).compositor.layers is not used.prepare(soft).compositor.layers


def test_noise_is_drawn_anew_for_every_few_rows_and_for_a_last_few_that_are_fewer():
    """100 e with a read noise of 3 e: a standard deviation of sqrt(109) = 10.4 e; 37 rows are two blocks and five."""
    state = SensorState(electrons_per_unit=1.0, clip_e=1.0, read_noise_e=3.0, gains=(1.0, 1.0, 1.0))

    noisy = expose(np.full((37, 500, 3), 100, np.float32), state, seed=4)

    rows = noisy.reshape(37, -1)
    assert np.allclose(rows.std(axis=1), 109**0.5, rtol=0.1)
    assert abs(np.corrcoef(rows[0], rows[16])[0, 1]) < 0.1
    assert abs(np.corrcoef(rows[16], rows[32])[0, 1]) < 0.1
