"""Blur that changes over the picture: read off tiles, and added to the ground truth."""

import cv2
import numpy as np
import pytest
import skimage.data

from alignment.blur import blur_light, variance_px2
from alignment.blur_field import BlurField
from alignment.photometry import standard_tone_curve
from alignment.picture import SMOOTHING_PX, MatchedTruth, Picture, reduce_plane, smooth
from alignment.tiles import IN_PLACE, TileGrid, compare_tiles
from catalog.evidence import BlurRecord

TONE = standard_tone_curve("srgb")
SIZE = (512, 384)
FAR = BlurRecord(kind="disc", size_px=3.0)
HALVES = {"left": np.s_[:, :7], "right": np.s_[:, 9:]}
"""Columns of tiles clear of the middle, where the two blurs meet."""


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.camera()[:384])


def light_of(codes: np.ndarray) -> np.ndarray:
    return Picture(codes, tone=TONE).light


def in_two_depths(codes: np.ndarray, near: BlurRecord) -> np.ndarray:
    """The left half blurred as near things are, the right as far ones are, as 8-bit codes."""
    light = light_of(codes)
    both = np.hstack([blur_light(light, near)[:, :256], blur_light(light, FAR)[:, 256:]])
    return TONE.pixels(both, np.dtype(np.uint8))


def field_between(gt: np.ndarray, lq: np.ndarray) -> BlurField:
    """Read off half-size tiles, the ground truth blurred as far things are."""
    truth = MatchedTruth(Picture(gt, tone=TONE), tone=TONE, blur=FAR, exposure=1.0)
    grid = TileGrid.over(SIZE, scale=2, tile_px=16)
    tiles = compare_tiles(truth.level(2), IN_PLACE, Picture(lq, tone=TONE).level(2), IN_PLACE, grid)
    usable = np.ones(grid.rows * grid.columns, bool)
    return BlurField.of(tiles, usable, grid, homography=np.eye(3), blur=FAR)


@pytest.mark.parametrize("extra_px2", [-0.2, 0.2, 0.4])
def test_a_little_more_blur_is_told_in_its_variance(sharp, extra_px2):
    """Blurred by a Gaussian of known variance: the median tile tells it to a tenth, and to 0.02 px²."""
    plane = np.asarray(sharp, np.float32)
    base = smooth(plane, 1.2)
    other = smooth(plane, float(np.sqrt(1.2**2 + extra_px2)))
    grid = TileGrid.over(SIZE, scale=1, tile_px=32)

    tiles = compare_tiles(smooth(base, SMOOTHING_PX), IN_PLACE, smooth(other, SMOOTHING_PX), IN_PLACE, grid)

    assert np.median(tiles.extra_blur_px2) == pytest.approx(extra_px2, rel=0.1, abs=0.02)


def test_blur_along_the_rail_alone_is_asked_for_alone(sharp):
    """A Gaussian along x: what a bend along both axes would tell is far from it."""
    plane = smooth(np.asarray(sharp, np.float32), 1.2)
    other = np.asarray(cv2.GaussianBlur(plane, (9, 1), float(np.sqrt(0.4)), sigmaY=1e-3), np.float32)
    grid = TileGrid.over(SIZE, scale=1, tile_px=32)
    planes = smooth(plane, SMOOTHING_PX), smooth(other, SMOOTHING_PX)

    tiles = compare_tiles(planes[0], IN_PLACE, planes[1], IN_PLACE, grid, upright=0.0)

    assert np.median(tiles.extra_blur_px2) == pytest.approx(0.4, rel=0.15)


@pytest.mark.parametrize(("near_px", "low", "high"), [(1.5, 0.1, 0.5), (4.0, 1.4, 2.2)])
def test_a_nearer_half_shows_its_own_blur(sharp, near_px, low, high):
    """Variance in units of the far half's: (1.5 / 3)² = 0.25 and (4 / 3)² = 1.78; to first order only."""
    lq = in_two_depths(sharp, BlurRecord(kind="disc", size_px=near_px))

    times = field_between(sharp, lq).times

    assert low < np.median(times[HALVES["left"]]) < high
    assert np.median(times[HALVES["right"]]) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("near_px", [1.5, 4.0])
def test_the_ground_truth_is_blurred_as_its_halves_are(sharp, near_px, scale):
    """Left of the middle the varied blur leaves less than half of what one blur for all leaves."""
    lq = in_two_depths(sharp, BlurRecord(kind="disc", size_px=near_px))
    field = field_between(sharp, lq)
    light, seen = (reduce_plane(light_of(codes), scale) for codes in (sharp, lq))
    inner = np.s_[16 // scale : -16 // scale, 16 // scale : 224 // scale]

    left = [
        np.sqrt(np.mean((found - seen)[inner] ** 2))
        for found in (blur_light(light, FAR, scale=scale), field.blurred(light, FAR, scale=scale))
    ]

    assert left[1] < 0.5 * left[0]


def test_without_structure_the_blur_stays_that_of_the_picture():
    flat = np.full((384, 512), 90, np.uint8)

    assert field_between(flat, flat).times == pytest.approx(1.0)


def test_variance_of_a_disc_of_a_line_and_of_none():
    assert variance_px2(FAR) == 2.25
    assert variance_px2(BlurRecord(kind="motion", size_px=6.0)) == pytest.approx(3.0)
    assert variance_px2(BlurRecord(kind="none", size_px=0.0)) == 0.0
