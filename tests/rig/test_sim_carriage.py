"""The true motion of the simulated carriage."""

from __future__ import annotations

import numpy as np
import pytest

from rig.profile import SimulationSpec
from rig.sim.carriage import Carriage, Slip

SPEC = SimulationSpec(seed=3, repeatability_mm=0.03, jitter_mm=0.02, pitch_yaw_deg=0.006, roll_deg=0.003)
TIMES_S = np.linspace(0, 7, 2001)


def moving(t_s: np.ndarray) -> np.ndarray:
    return 60 + 40 * t_s


def resting(t_s: np.ndarray) -> np.ndarray:
    return np.full_like(t_s, 60.0)


def test_a_take_is_repeated_by_its_seed_alone():
    first, again, other = (Carriage(SPEC, moving, seed=s).poses(TIMES_S) for s in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.005


def test_at_rest_nothing_moves():
    poses = Carriage(SPEC, resting, seed=1).poses(TIMES_S)

    np.testing.assert_allclose(poses, np.broadcast_to(poses[0], poses.shape), atol=1e-12)


def test_a_perfect_rail_goes_where_it_is_told():
    perfect = SPEC.model_copy(
        update={"repeatability_mm": 0.0, "jitter_mm": 0.0, "pitch_yaw_deg": 0.0, "roll_deg": 0.0}
    )

    poses = Carriage(perfect, moving, seed=1).poses(TIMES_S)

    np.testing.assert_allclose(poses[:, 0], 60 + 40 * TIMES_S)
    assert not poses[:, 1:].any()


def test_errors_have_the_sizes_of_the_specification():
    """200 takes: the datum's sd is known to 1/sqrt(400) = 5 %, the others have thousands of samples but few
    independent ones per take; 15 % is three sigma for the worst."""
    takes = np.stack([Carriage(SPEC, moving, seed=s).poses(TIMES_S[::40]) for s in range(200)])

    errors = takes[:, :, 0] - moving(TIMES_S[::40])
    datum = errors.mean(axis=1)
    assert takes[:, 0, 1].std() == pytest.approx(0.03, rel=0.15)
    assert takes[:, 0, 2].std() == pytest.approx(0.03, rel=0.15)
    assert datum.std() == pytest.approx(0.03, rel=0.2)
    assert (errors - datum[:, None]).std() == pytest.approx(0.02, rel=0.15)


def test_half_of_the_angles_variance_is_the_rail_itself():
    """Two takes at one place differ by sqrt(2) of the take's half: sd 0.006 deg in pitch and yaw, 0.003 in
    roll, over 200 pairs of takes."""
    takes = np.stack([Carriage(SPEC, moving, seed=s).poses(TIMES_S[::40])[:, 3:] for s in range(400)])

    differences = (takes[::2] - takes[1::2]).reshape(-1, 3).std(axis=0)
    rail = takes.mean(axis=0)

    np.testing.assert_allclose(differences, [0.006, 0.006, 0.003], rtol=0.15)
    assert rail[:, :2].std() > 0.001


def test_vibration_is_smooth():
    """At most 5 Hz and 0.02 mm: the velocity's sd stays below 0.02 * 2 pi * 5 = 0.63 mm/s."""
    x_mm = Carriage(SPEC, moving, seed=1).poses(TIMES_S)[:, 0]

    velocity = np.diff(x_mm) / np.diff(TIMES_S)

    assert 0 < np.std(velocity - 40) < 0.63


def test_a_slip_stays_until_the_end():
    clean = Carriage(SPEC, moving, seed=1).poses(TIMES_S)
    slipped = Carriage(SPEC, moving, seed=1, slip=Slip(at_s=3.0, by_mm=-0.8)).poses(TIMES_S)

    np.testing.assert_allclose((slipped - clean)[TIMES_S < 3.0, 0], 0)
    np.testing.assert_allclose((slipped - clean)[TIMES_S >= 3.0, 0], -0.8)
