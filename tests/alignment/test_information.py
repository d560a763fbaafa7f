import cv2
import numpy as np
import pytest

from alignment.camera_motion import Pinhole, jacobian
from alignment.information import (
    PredictedError,
    bound_px,
    coherent_misfit,
    parameter_covariance,
    predict_error,
)
from alignment.local_map import LocalMap, local_map
from alignment.photometry import standard_tone_curve
from alignment.robust_fit import fit_motion
from alignment.tiles import IN_PLACE, TileGrid, compare_tiles, fine_detail

SIZE = (640, 480)
CAMERA = Pinhole(500.0, *SIZE)
GRID = TileGrid.over(SIZE, scale=1, tile_px=32)
NONE_PX = np.zeros((300, 2))


def texture(rng):
    return (cv2.GaussianBlur(rng.standard_normal((480, 640)), (0, 0), 2.0) * 200 + 120).astype(np.float32)


def fitted(gt, lq, model="shift"):
    tiles = compare_tiles(gt, IN_PLACE, lq, IN_PLACE, GRID)
    jacobians = jacobian(model, CAMERA, GRID.centres_px())
    return tiles, fit_motion(tiles, jacobians, np.ones(300, bool), model=model)


def test_the_bound_of_a_shift_is_that_of_the_textbook():
    """Waves of amplitude A and wave number k in x and in y: J = n A² k² / (2 s²) each, so EPE = 2 s / (A k √n).

    The estimator sees k through a central difference, sin(k); A = 20, k = 0.3, s = 3, n = 307 200.
    """
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:480, 0:640]
    waves = (128 + 20 * np.sin(0.3 * x) + 20 * np.sin(0.3 * y)).astype(np.float32)
    noisy = (waves + rng.normal(0, 3, waves.shape)).astype(np.float32)
    tiles, fit = fitted(waves, noisy)

    detail = fine_detail(waves, IN_PLACE, noisy, IN_PLACE, GRID)
    bound = bound_px(detail, tiles, fit, camera=CAMERA, points_px=GRID.centres_px())

    assert bound == pytest.approx(2 * 3 / (20 * np.sin(0.3) * np.sqrt(307200)), rel=0.05)


def test_gradient_moments_of_a_ramp_are_its_slopes():
    """A ramp of 2 codes per px across and 1 down: 1024 px × (4, 2, 1) in every inner tile."""
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)

    ramp = 2 * x + y
    moments = fine_detail(ramp, IN_PLACE, ramp, IN_PLACE, GRID).gradient_moments[21]

    assert moments == pytest.approx(1024 * np.array([[4.0, 2.0], [2.0, 1.0]]), rel=1e-4)


def test_noise_is_seen_through_smooth_structure():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:480, 0:640]
    plane = (x * 0.2 + 30 * np.sin(y / 40) + rng.normal(0, 5, x.shape)).astype(np.float32)

    detail = fine_detail(plane - plane, IN_PLACE, plane, IN_PLACE, GRID)

    assert np.mean(detail.lq_noise) == pytest.approx(25.0, rel=0.05)
    assert np.all(detail.gt_noise == 0)


@pytest.mark.parametrize("model", ["shift", "rotation"])
def test_the_covariance_is_the_scatter_of_repeated_estimates(model):
    """60 times the same texture under fresh noise: the scatter of the estimates is known to 10 %."""
    rng = np.random.default_rng(3)
    gt = texture(rng)
    estimates, predicted = [], []
    for _ in range(60):
        _, fit = fitted(gt, (gt + rng.normal(0, 10, gt.shape)).astype(np.float32), model)
        estimates.append(fit.parameters)
        predicted.append(np.diag(parameter_covariance(fit, GRID)))

    ratio = np.sqrt(np.mean(predicted, axis=0)) / np.std(estimates, axis=0)

    assert np.all((ratio > 0.75) & (ratio < 1.6))


def leftover(innovation_px, sigma_px=0.05, parallax_px=None):
    every = np.ones(300, bool)
    return LocalMap(
        grid=GRID,
        centres_px=GRID.centres_px(),
        innovation_px=innovation_px,
        parallax_px=NONE_PX if parallax_px is None else parallax_px,
        parallax_doubt_px=NONE_PX,
        sigma_px=np.full(300, sigma_px),
        inlier=every,
        foreign=~every,
        measured=every,
    )


def test_misfit_that_neighbours_share_is_seen_in_the_noise():
    """A step of ±0.3 px between the left and the right half under noise of 0.05 px."""
    rng = np.random.default_rng(4)
    shift = rng.normal(0, 0.05, (300, 2))
    shift[:, 0] += np.where(GRID.centres_px()[:, 0] < 320, -0.3, 0.3)

    found = coherent_misfit(leftover(shift))

    assert np.sqrt(found[0]) == pytest.approx(0.3, rel=0.1)
    assert np.sqrt(found[1]) < 0.02


def test_noise_alone_is_no_misfit():
    rng = np.random.default_rng(5)

    found = [coherent_misfit(leftover(rng.normal(0, 0.05, (300, 2)))) for _ in range(40)]

    assert np.sqrt(np.median(found)) < 0.01
    assert np.mean(np.array(found) == 0) > 0.7


def shifting(points_px):
    return jacobian("shift", CAMERA, points_px)


def layered(rng):
    """A field of parallax: six upright strips, each moved along x by its own amount, 0.02 px root mean square."""
    return np.repeat(rng.normal(0, 0.02, 6), [60, 100, 120, 160, 80, 120])


def seen_through(gt, shift_px, noise, rng):
    x, y = np.meshgrid(np.arange(640, dtype=np.float32), np.arange(480, dtype=np.float32))
    moved = cv2.remap(gt, x - shift_px.astype(np.float32)[None], y, cv2.INTER_CUBIC)
    return (moved + rng.normal(0, noise, gt.shape)).astype(np.float32)


def test_the_median_error_keeps_to_its_radius_in_about_95_of_100_pairs():
    """Sixty pairs with and without parallax, in some noise and in much: 57 are expected, 51 and fewer are not.

    Of a plane's normal distribution half lies within 1.177 sigma and 95 % within 2.448: the median share is 0.48
    for noise alone whose strength is known, and above 0.3 unless the radius is too wide by 1.6 and more.
    """
    rng = np.random.default_rng(6)
    gt = texture(rng)
    centres = GRID.centres_px()
    shares = []
    for pair in range(60):
        field = layered(rng) if pair % 2 else np.zeros(640)
        tiles, fit = fitted(gt, seen_through(gt, field, (20, 30, 40)[pair % 3], rng))
        covariance = parameter_covariance(fit, GRID)
        rest = local_map(
            GRID, tiles, fit, parallax_px=NONE_PX, parallax_doubt_px=NONE_PX, tone=standard_tone_curve("srgb")
        )
        predicted = predict_error(shifting, covariance, rest, points_px=centres, depths_known=False)
        missed = shifting(centres) @ fit.parameters - np.column_stack(
            [field[centres[:, 0].astype(int)], np.zeros(300)]
        )
        shares.append(np.median(np.hypot(*missed.T)) / predicted.radius_px)

    assert 52 <= np.count_nonzero(np.array(shares) <= 1) <= 60
    assert np.median(shares) > 0.3


def test_parallax_that_depth_explains_widens_the_radius_and_is_no_misfit():
    """0.1 px to the left in four tenths of the picture, to the right in the rest: every median is 0.1 px, nearly.

    Its root mean square is 0.1 px as well. The covariance of 1e-6 px² is nothing beside it.
    """
    rng = np.random.default_rng(8)
    sides = np.column_stack([np.where(GRID.centres_px()[:, 0] < 0.4 * 640, -0.1, 0.1), np.zeros(300)])
    rest = leftover(sides + rng.normal(0, 0.002, (300, 2)), sigma_px=0.002, parallax_px=sides)

    predicted = predict_error(
        shifting, 1e-6 * np.eye(2), rest, points_px=GRID.centres_px(), depths_known=True
    )

    assert 0.1 < predicted.radius_px < 0.11
    assert predicted.local_px == pytest.approx(0.1, abs=0.002)


def test_a_known_offset_adds_to_the_radius_as_for_a_normal_distribution():
    """Far beyond the scatter one side of it counts: 1.645 of its sigma; without an offset nothing is added."""
    drawn = np.random.default_rng(9).normal(0, 0.01, (100_000, 1, 2)).astype(np.float32)
    predicted = PredictedError(np.zeros((1, 2)), drawn, estimate_px=0.014, local_px=0.0)

    assert predicted.radius_px == pytest.approx(0.02448, rel=5e-3)
    assert predicted.left_as_cut_px(np.array([[0.5, 0.0]])) == pytest.approx(0.5 + 1.645 * 0.01, abs=2e-4)


def test_a_shift_that_no_tile_shows_widens_the_radius():
    """Nothing else: 1.96 sigma of a shift along x alone, as 200 draws tell it."""
    exact = PredictedError(np.zeros((9, 2)), np.zeros((200, 9, 2), np.float32), 0.0, 0.0)

    assert exact.with_shift(np.array([0.01, 0.0])).radius_px == pytest.approx(0.0196, rel=0.15)
    assert exact.with_shift(np.zeros(2)).radius_px == 0


def test_equal_evidence_gives_equal_predictions():
    rng = np.random.default_rng(7)
    gt = texture(rng)
    tiles, fit = fitted(gt, (gt + rng.normal(0, 5, gt.shape)).astype(np.float32))
    rest = local_map(
        GRID, tiles, fit, parallax_px=NONE_PX, parallax_doubt_px=NONE_PX, tone=standard_tone_curve("srgb")
    )

    first, second = (
        predict_error(
            shifting, parameter_covariance(fit, GRID), rest, points_px=GRID.centres_px(), depths_known=False
        )
        for _ in range(2)
    )

    assert first.radius_px == second.radius_px
    assert np.array_equal(first.errors_px, second.errors_px)
